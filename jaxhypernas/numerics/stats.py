"""How well scores rank candidates. Higher is better, of scores and of the truth.

Axes: A candidates, R resamples, S draws of a resample, V distinct values of a column.
A resample is an array of indices of candidates. A correlation that is not defined, as
of a constant column, is NaN.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict

import numpy as np

from jaxhypernas.types import UserError

TOP = 0.1
"""Share of candidates, the truly best ones, that the top tau is about."""

CHUNK = 2**20
"""Numbers in an array of resamples: it bounds the memory."""


class Interval(NamedTuple):
    """A value and its 95 % percentile bootstrap interval over candidates."""

    value: float
    """The measure of all candidates."""

    low: float
    """Lower end."""

    high: float
    """Upper end."""


class Ranking(TypedDict):
    """How one column of scores ranks ``n`` candidates."""

    tau: Interval
    rho: Interval
    top_tau: Interval
    regret: Interval
    n: int


def kendall(score_A: np.ndarray, truth_A: np.ndarray) -> float:
    """Computes Kendall's tau-b.

    Args:
        score_A: Scores.
        truth_A: The truth.

    Returns:
        A number in -1..1.
    """
    return _of_all(_tau, score_A, truth_A)


def spearman(score_A: np.ndarray, truth_A: np.ndarray) -> float:
    """Computes Spearman's rho; ties take their mean rank.

    Args:
        score_A: Scores.
        truth_A: The truth.

    Returns:
        A number in -1..1.
    """
    return _of_all(_rho, score_A, truth_A)


def top_tau(score_A: np.ndarray, truth_A: np.ndarray) -> float:
    """Computes Kendall's tau-b among the truly best 10 %, three candidates at least.

    Args:
        score_A: Scores.
        truth_A: The truth.

    Returns:
        A number in -1..1.
    """
    return _of_all(_top_tau, score_A, truth_A)


def regret(score_A: np.ndarray, truth_A: np.ndarray) -> float:
    """Computes the best truth less the truth of the candidate of highest score.

    Of equal scores the first counts as highest.

    Args:
        score_A: Scores.
        truth_A: The truth.

    Returns:
        A number in the units of the truth, 0 or more.
    """
    return _of_all(_regret, score_A, truth_A)


def ranks(value_A: np.ndarray) -> np.ndarray:
    """Returns the ranks of values, float64 [A]: 1 is the lowest.

    Args:
        value_A: Values; those that are equal share the mean of their ranks.
    """
    centred_A = _centred_ranks(_labels(value_A)[None])[0]
    return centred_A + (len(value_A) + 1) / 2


def rank_report(
    scores: dict[str, np.ndarray],
    truth: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Ranking]:
    """Computes every measure of every column of scores, with bootstrap intervals.

    All columns share the resamples. A resample in which a measure is not defined is
    left out of the interval.

    Example::

        report = rank_report({"loss": -loss_A}, accuracy_A)
        report["loss"]["tau"].value

    Args:
        scores: For each name, scores [A]; an infinite score ranks first or last.
        truth: Finite numbers [A].
        seed: Seed of the bootstrap.
        resamples: Number of resamples.

    Returns:
        For each name, the measures and the number of candidates.

    Raises:
        UserError: A column and the truth differ in length, a column holds a NaN, the
            truth is not finite, or there are fewer than 3 candidates.
    """
    truth_A = np.asarray(truth, np.float64)
    columns = {
        name: np.asarray(score, np.float64) for name, score in scores.items()
    }
    _check(columns, truth_A)
    n = len(truth_A)

    # Every column is measured in a piece of resamples before the next piece is drawn:
    # the memory does not grow with their number.
    shape = (resamples, len(MEASURES))
    drawn = {name: np.empty(shape) for name in columns}
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // n)
    for start in range(0, resamples, step):
        piece = slice(start, min(start + step, resamples))
        sample_RxS = rng.integers(n, size=(piece.stop - start, n))
        for name, score_A in columns.items():
            drawn[name][piece] = _measure(sample_RxS, score_A, truth_A)

    report = {}
    for name, score_A in columns.items():
        values = _measure(np.arange(n)[None], score_A, truth_A)[0]
        tau, rho, top, lost = map(_interval, values, drawn[name].T)
        report[name] = Ranking(tau=tau, rho=rho, top_tau=top, regret=lost, n=n)
    return report


def tau_lead(
    score: np.ndarray,
    rivals: Sequence[np.ndarray],
    truth: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> Interval:
    """Computes tau of scores less the highest tau of other scores.

    Args:
        score: Scores [A].
        rivals: Other scores, [A] each; at least one.
        truth: Finite numbers [A].
        seed: Seed of the bootstrap.
        resamples: Number of resamples, which all scores share.
    """
    truth_A = np.asarray(truth, np.float64)
    rng = np.random.default_rng(seed)

    def lead(sample_RxS: np.ndarray) -> np.ndarray:
        own_R = _tau(sample_RxS, score, truth_A)
        other = [_tau(sample_RxS, rival, truth_A) for rival in rivals]
        return own_R - np.max(other, 0)

    n = len(truth_A)
    step = max(1, CHUNK // n)
    drawn = [
        lead(rng.integers(n, size=(min(step, resamples - start), n)))
        for start in range(0, resamples, step)
    ]
    value = lead(np.arange(n)[None])[0]
    return _interval(value, np.concatenate(drawn))


def check_truth(truth: np.ndarray) -> None:
    """Checks that the truth is a finite number for each of at least 3 candidates.

    Args:
        truth: The truth, [A].

    Raises:
        UserError: It is not.
    """
    if truth.ndim != 1 or len(truth) < 3:
        raise UserError(
            f"truth: its shape is {list(truth.shape)}: give one number for each of 3 "
            "candidates or more"
        )
    if bad := int((~np.isfinite(truth)).sum()):
        raise UserError(
            f"truth: {bad} of {len(truth)} are not finite: leave these candidates out"
        )


def format_report(report: dict[str, Ranking], *names: str) -> str:
    """Formats rankings as an aligned table, ``value [low, high]`` in each cell.

    Args:
        report: Rankings, from `rank_report`.
        names: Rows to show, in this order; all if there is none.

    Returns:
        Lines of text: a header, then a row for each column of scores.
    """
    rows = [["score", "n", *MEASURES]]
    for name in names or report:
        row = report[name]
        rows.append(
            [
                name,
                str(row["n"]),
                _cell(row["tau"], ".2f"),
                _cell(row["rho"], ".2f"),
                _cell(row["top_tau"], ".2f"),
                # The regret is in the units of the truth, whatever they are.
                _cell(row["regret"], ".3g"),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(lines)


def _cell(interval: Interval, form: str) -> str:
    value, low, high = (format(x, form) for x in interval)
    return f"{value} [{low}, {high}]"


def _check(columns: dict[str, np.ndarray], truth_A: np.ndarray) -> None:
    check_truth(truth_A)
    for name, column in columns.items():
        if column.shape != truth_A.shape:
            raise UserError(
                f"{name}: its shape is {list(column.shape)}: it must be "
                f"{list(truth_A.shape)}"
            )
        if bad := int(np.isnan(column).sum()):
            raise UserError(
                f"{name}: {bad} of {len(column)} scores are NaN: leave out or score "
                "again these candidates"
            )


def _interval(value: float, drawn_R: np.ndarray) -> Interval:
    defined = drawn_R[~np.isnan(drawn_R)]
    if not len(defined):
        return Interval(float(value), math.nan, math.nan)
    low, high = np.quantile(defined, (0.025, 0.975))
    return Interval(float(value), float(low), float(high))


# Measures of resamples: (sample_RxS, score_A, truth_A) -> float64 [R].


def _tau(
    sample_RxS: np.ndarray,
    score_A: np.ndarray,
    truth_A: np.ndarray,
) -> np.ndarray:
    score_label_A = _labels(score_A)
    truth_label_A = _labels(truth_A)
    count_RxA = _counts(sample_RxS, len(truth_A))
    surplus_R = _surplus(count_RxA, score_label_A, truth_label_A)
    score_pairs_R = _untied_pairs(score_label_A[sample_RxS])
    truth_pairs_R = _untied_pairs(truth_label_A[sample_RxS])
    with np.errstate(invalid="ignore"):
        tau_R = surplus_R / np.sqrt(score_pairs_R) / np.sqrt(truth_pairs_R)
    return np.clip(tau_R, -1, 1)


def _rho(
    sample_RxS: np.ndarray,
    score_A: np.ndarray,
    truth_A: np.ndarray,
) -> np.ndarray:
    score_RxS = _centred_ranks(_labels(score_A)[sample_RxS])
    truth_RxS = _centred_ranks(_labels(truth_A)[sample_RxS])
    scale = 1 / max(sample_RxS.shape[1] - 1, 1)
    covariance_R = (score_RxS * truth_RxS).sum(1) * scale
    score_deviation_R = np.sqrt((score_RxS**2).sum(1) * scale)
    truth_deviation_R = np.sqrt((truth_RxS**2).sum(1) * scale)
    with np.errstate(invalid="ignore"):
        rho_R = covariance_R / score_deviation_R / truth_deviation_R
    return np.clip(rho_R, -1, 1)


def _top_tau(
    sample_RxS: np.ndarray,
    score_A: np.ndarray,
    truth_A: np.ndarray,
) -> np.ndarray:
    top = max(3, round(TOP * sample_RxS.shape[1]))
    truth_RxS = truth_A[sample_RxS]
    order_RxS = np.argsort(-truth_RxS, axis=1, kind="stable")
    top_RxT = np.take_along_axis(sample_RxS, order_RxS[:, :top], 1)
    return _tau(top_RxT, score_A, truth_A)


def _regret(
    sample_RxS: np.ndarray,
    score_A: np.ndarray,
    truth_A: np.ndarray,
) -> np.ndarray:
    truth_RxS = truth_A[sample_RxS]
    chosen_R = score_A[sample_RxS].argmax(1)
    reached_Rx1 = np.take_along_axis(truth_RxS, chosen_R[:, None], 1)
    return truth_RxS.max(1) - reached_Rx1[:, 0]


MEASURES: dict[
    str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
] = {
    "tau": _tau,
    "rho": _rho,
    "top_tau": _top_tau,
    "regret": _regret,
}


def _measure(
    sample_RxS: np.ndarray,
    score_A: np.ndarray,
    truth_A: np.ndarray,
) -> np.ndarray:
    """Computes all `MEASURES` of each resample, [R, M]."""
    values = [f(sample_RxS, score_A, truth_A) for f in MEASURES.values()]
    return np.stack(values, -1)


def _of_all(measure: Callable, score: np.ndarray, truth: np.ndarray) -> float:
    """Computes a measure of all candidates; NaN where a column holds a NaN."""
    score_A = np.asarray(score, np.float64)
    truth_A = np.asarray(truth, np.float64)
    if np.isnan(score_A).any() or np.isnan(truth_A).any():
        return math.nan
    return float(measure(np.arange(len(truth_A))[None], score_A, truth_A)[0])


def _labels(column_A: np.ndarray) -> np.ndarray:
    """Numbers the distinct values of a column in ascending order, int32 [A].

    Infinities are values like others: differences of them are not.
    """
    _, label_A = np.unique(column_A, return_inverse=True)
    return label_A.astype(np.int32)


def _counts(label_RxS: np.ndarray, labels: int) -> np.ndarray:
    """Counts how often each label occurs in each row."""
    rows = len(label_RxS)
    start_Rx1 = labels * np.arange(rows)[:, None]
    place_RxS = label_RxS + start_Rx1
    flat = np.bincount(place_RxS.ravel(), minlength=rows * labels)
    return flat.reshape(rows, labels)


def _untied_pairs(label_RxS: np.ndarray) -> np.ndarray:
    """Counts the pairs of draws whose values differ."""
    draws = label_RxS.shape[1]
    count_RxV = _counts(label_RxS, label_RxS.max(initial=-1) + 1)
    return (draws**2 - (count_RxV**2).sum(1)) / 2


def _centred_ranks(label_RxS: np.ndarray) -> np.ndarray:
    """Ranks the draws of each row around 0; ties take their mean rank."""
    draws = label_RxS.shape[1]
    count_RxV = _counts(label_RxS, label_RxS.max(initial=-1) + 1)
    mean_rank_RxV = np.cumsum(count_RxV, 1) - (count_RxV - 1) / 2
    rank_RxS = np.take_along_axis(mean_rank_RxV, label_RxS, 1)
    return rank_RxS - (draws + 1) / 2


def _surplus(
    count_RxA: np.ndarray, score_label_A: np.ndarray, truth_label_A: np.ndarray
) -> np.ndarray:
    """Counts concordant less discordant pairs of each resample.

    Whether a pair of candidates is concordant is the same in all resamples: the count
    is a quadratic form in the multiplicities of candidates.
    """
    # Most candidates are in no resample of the top.
    used = np.flatnonzero(count_RxA.any(0))
    # float32 is exact: all numbers are integers far below 2**24.
    score_U = score_label_A[used].astype(np.float32)
    truth_U = truth_label_A[used].astype(np.float32)
    count_RxU = count_RxA[:, used].astype(np.float32)

    twice_R = np.zeros(len(count_RxA))
    block = max(1, CHUNK // max(1, len(used)))
    for start in range(0, len(used), block):
        part = slice(start, start + block)
        score_sign_BxU = np.sign(score_U[part, None] - score_U)
        truth_sign_BxU = np.sign(truth_U[part, None] - truth_U)
        surplus_RxU = count_RxU[:, part] @ (score_sign_BxU * truth_sign_BxU)
        twice_R += (surplus_RxU * count_RxU).sum(1, dtype=np.float64)
    return twice_R / 2
