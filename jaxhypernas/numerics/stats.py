"""How well scores rank candidates, by NumPy and SciPy alone. Higher is better, of scores and of the truth.

Arrays have one axis, of n candidates. A correlation that is not defined, as of a constant column, is NaN.
"""

import math
from typing import NamedTuple, TypedDict

import numpy as np
from scipy import stats

from jaxhypernas.types import UserError


class Interval(NamedTuple):
    """A value and the ends of its 95 % percentile bootstrap interval over candidates."""

    value: float
    low: float
    high: float


class Ranking(TypedDict):
    """How one column of scores ranks ``n`` candidates."""

    tau: Interval
    rho: Interval
    top_tau: Interval
    regret: Interval
    n: int


def kendall(score: np.ndarray, truth: np.ndarray) -> float:
    """Kendall's tau-b, in -1..1."""
    return (
        float(stats.kendalltau(score, truth).statistic)
        if _vary(score, truth)
        else math.nan
    )


def spearman(score: np.ndarray, truth: np.ndarray) -> float:
    """Spearman's rho, in -1..1; ties take their mean rank."""
    if not _vary(score, truth):
        return math.nan
    return float(
        np.corrcoef(stats.rankdata(score), stats.rankdata(truth))[0, 1]
    )


def top_tau(
    score: np.ndarray, truth: np.ndarray, fraction: float = 0.1
) -> float:
    """Kendall's tau-b within the ``fraction`` of candidates of highest truth, three at least."""
    top = np.argsort(-np.asarray(truth, np.float64), kind="stable")[
        : max(3, round(fraction * len(truth)))
    ]
    return kendall(np.asarray(score)[top], np.asarray(truth)[top])


def regret(score: np.ndarray, truth: np.ndarray, k: int = 1) -> float:
    """The best truth less the best truth among the ``k`` candidates of highest score, in units of the truth, 0 or more.

    Of equal scores the first in order of index count as higher.
    """
    top = np.argsort(-np.asarray(score, np.float64), kind="stable")[:k]
    return float(np.max(truth) - np.max(np.asarray(truth)[top]))


def _vary(*columns: np.ndarray) -> bool:
    return all(
        np.size(column) and np.min(column) < np.max(column)
        for column in columns
    )


MEASURES = {
    "tau": kendall,
    "rho": spearman,
    "top_tau": top_tau,
    "regret": regret,
}


def rank_report(
    scores: dict[str, np.ndarray],
    truth: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Ranking]:
    """Each of `MEASURES` for each column of scores, with intervals, and the number of candidates as ``n``.

    All columns are resampled alike. Resamples in which a measure is not defined are left out of its interval.

    Args:
        scores: name -> n scores; an infinite one ranks first or last.
        truth: n finite numbers.
        seed: of the bootstrap.
        resamples: how many.

    Raises:
        UserError: a column is of another length than the truth or holds a NaN, the truth is not finite, or n < 3.
    """
    truth = np.asarray(truth, np.float64)
    columns = {
        name: np.asarray(score, np.float64) for name, score in scores.items()
    }
    _check(columns, truth)
    drawn = {name: np.empty((resamples, len(MEASURES))) for name in columns}
    rng = np.random.default_rng(seed)
    for i in range(resamples):
        sample = rng.integers(len(truth), size=len(truth))
        for name, score in columns.items():
            drawn[name][i] = [
                measure(score[sample], truth[sample])
                for measure in MEASURES.values()
            ]
    report = {}
    for name, score in columns.items():
        ends = map(_ends, drawn[name].T)
        values = (measure(score, truth) for measure in MEASURES.values())
        tau, rho, top, lost = (
            Interval(value, *pair)
            for value, pair in zip(values, ends, strict=True)
        )
        report[name] = Ranking(
            tau=tau, rho=rho, top_tau=top, regret=lost, n=len(truth)
        )
    return report


def _ends(drawn: np.ndarray) -> tuple[float, float]:
    drawn = drawn[~np.isnan(drawn)]
    low, high = (
        np.quantile(drawn, (0.025, 0.975))
        if drawn.size
        else (math.nan, math.nan)
    )
    return float(low), float(high)


def check_truth(truth: np.ndarray) -> None:
    """Raise UserError unless it is a finite number for each of at least three candidates."""
    if truth.ndim != 1 or len(truth) < 3:
        raise UserError(
            f"truth: its shape is {list(truth.shape)}: give one number for each of 3 candidates or more"
        )
    if bad := int((~np.isfinite(truth)).sum()):
        raise UserError(
            f"truth: {bad} of {len(truth)} are not finite: leave these candidates out"
        )


def _check(columns: dict[str, np.ndarray], truth: np.ndarray) -> None:
    check_truth(truth)
    for name, column in columns.items():
        if column.shape != truth.shape:
            raise UserError(
                f"{name}: its shape is {list(column.shape)}: it must be {list(truth.shape)}"
            )
        if bad := int(np.isnan(column).sum()):
            raise UserError(
                f"{name}: {bad} of {len(column)} scores are NaN: leave out or score again these candidates"
            )


def format_report(report: dict[str, Ranking], *names: str) -> str:
    """An aligned table of text, a row for each column of scores, ``value [low, high]`` in each cell.

    Args:
        report: from `rank_report`.
        names: the rows to show, in this order; all if none is named.
    """

    def cell(values, form=".2f"):
        value, low, high = (format(x, form) for x in values)
        return f"{value} [{low}, {high}]"

    rows = [["score", "n", *MEASURES]]
    for name in names or report:
        row = report[name]
        correlations = map(cell, (row["tau"], row["rho"], row["top_tau"]))
        rows.append(
            [name, str(row["n"]), *correlations, cell(row["regret"], ".3g")]
        )  # in the units of the truth
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows
    )
