"""How well generated weights rank candidates, beside counts that need no training."""

import numpy as np

from jaxhypernas.numerics import stats
from jaxhypernas.types import Space


def rank_rows(
    space: Space, rows: list[dict], truth_A: np.ndarray
) -> dict[str, stats.Ranking]:
    """Ranks candidates by generated weights and by baselines.

    What is not finite is worst, as a score and as a truth.

    Args:
        space: The space of the candidates.
        rows: A row of the score table for each candidate.
        truth_A: The truth; higher is better.

    Returns:
        The ranking of each score: generated weights, and what they must beat: live
        parameters, live FLOPs, and capacity, live FLOPs over 1 + `Space.depth`.

    Raises:
        UserError: See `stats.rank_report`.
    """
    loss_A = np.array([row["loss"] for row in rows])
    depth_A = [space.depth(space.from_string(row["arch"])) for row in rows]
    live_flops_A = np.array([row["live_flops"] for row in rows])
    scores = {
        "generated weights": np.where(np.isfinite(loss_A), -loss_A, -np.inf),
        "live parameters": np.array([row["live_params"] for row in rows]),
        "live FLOPs": live_flops_A,
        "capacity": live_flops_A / (1 + np.array(depth_A)),
    }
    return stats.rank_report(scores, _with_worst(truth_A))


def _with_worst(truth_A: np.ndarray) -> np.ndarray:
    """The truth, where what is not finite lies just below the lowest finite value."""
    finite = np.isfinite(truth_A)
    lowest = truth_A[finite].min(initial=np.inf) if finite.any() else 0.0
    return np.where(finite, truth_A, np.nextafter(lowest, -np.inf))


def plain(ranking: dict[str, stats.Ranking]) -> dict:
    """Converts rankings to what JSON can hold.

    Args:
        ranking: Rankings, from `rank_rows`.

    Returns:
        The same, with intervals as dictionaries of value, low and high.
    """
    return {name: _plain_row(row) for name, row in ranking.items()}


def _plain_row(row: stats.Ranking) -> dict:
    plain_row = {}
    for measure, value in row.items():
        if isinstance(value, stats.Interval):
            value = value._asdict()
        plain_row[measure] = value
    return plain_row
