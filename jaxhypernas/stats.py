"""How well scores rank: Kendall's tau, Spearman's rho, tau within the top, regret, with bootstrap intervals."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from jaxhypernas.types import UserError

MEASURES = ("tau", "rho", "top_tau", "regret")


class Interval(NamedTuple):
    """A value and its 95 % percentile bootstrap interval over candidates; NaN where it is not defined."""

    value: float
    low: float
    high: float


def kendall(score: np.ndarray, truth: np.ndarray) -> float:
    """Kendall's tau-b; NaN if either is constant."""
    return float(stats.kendalltau(score, truth).statistic) if _varied(score, truth) else float("nan")


def spearman(score: np.ndarray, truth: np.ndarray) -> float:
    """Spearman's rho, ties by mean rank; NaN if either is constant."""
    if not _varied(score, truth):
        return float("nan")
    return float(np.corrcoef(stats.rankdata(score), stats.rankdata(truth))[0, 1])


def _varied(*columns):
    return all(len(c) > 1 and (c != c[0]).any() for c in columns)


def top_tau(score: np.ndarray, truth: np.ndarray, fraction: float = 0.1) -> float:
    """Kendall's tau within the ``fraction`` of candidates (3 at least) that are truly best."""
    size = min(max(3, round(len(truth) * fraction)), len(truth))
    top = np.argsort(-truth, kind="stable")[:size]
    return kendall(score[top], truth[top])


def regret(score: np.ndarray, truth: np.ndarray) -> float:
    """The best truth minus that of the candidate scored best (the first of ties), in units of truth."""
    return float(truth.max() - truth[np.argmax(score)])


def rank_report(
    scores: dict[str, np.ndarray], truth: np.ndarray, seed: int = 0, resamples: int = 1000
) -> dict[str, dict[str, Interval]]:
    """Every measure of every column of scores (higher is better) against the truth (higher is better).

    All columns are resampled alike, so that their intervals can be compared.

    Raises:
        UserError: fewer than three candidates, or a NaN.
    """
    truth = np.asarray(truth, np.float64)
    columns = {name: np.asarray(score, np.float64) for name, score in scores.items()}
    if len(truth) < 3:
        raise UserError(f"rank: {len(truth)} candidates have both a score and a truth: at least 3 are needed")
    for name, column in {"truth": truth, **columns}.items():
        if np.isnan(column).any():
            raise UserError(f"rank: {name} holds {int(np.isnan(column).sum())} NaN: remove those rows")
    rng = np.random.default_rng(seed)
    samples = [rng.integers(0, len(truth), len(truth)) for _ in range(resamples)]

    def measure(score, truth):
        return kendall(score, truth), spearman(score, truth), top_tau(score, truth), regret(score, truth)

    def intervals(column):
        drawn = np.array([measure(column[i], truth[i]) for i in samples])
        with np.errstate(invalid="ignore"):
            low, high = (
                np.array([np.nanquantile(d, q) if np.isfinite(d).any() else np.nan for d in drawn.T])
                for q in (0.025, 0.975)
            )
        return {
            name: Interval(*map(float, values))
            for name, *values in zip(MEASURES, measure(column, truth), low, high, strict=True)
        }

    return {name: intervals(column) for name, column in columns.items()}


def format_report(report: dict[str, dict[str, Interval]]) -> str:
    """A Markdown table, a row per column of scores, ``value [low, high]``."""
    lines = ["| score | tau | rho | tau in top 10 % | regret |", "|---|---|---|---|---|"]
    for name, row in report.items():
        cells = (f"{v.value:.3f} [{v.low:.3f}, {v.high:.3f}]" for v in (row[m] for m in MEASURES))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
