"""Rankings of candidates: by score, by its parts, and by counts."""

import numpy as np

from jaxhypernas.numerics import stats
from jaxhypernas.numerics.evidence import Evidence, score, terms

LOSS = "generated weights"
"""Name of the ranking by loss."""


def rank_rows(
    rows: list[dict], truth_A: np.ndarray
) -> dict[str, stats.Ranking]:
    """Ranks candidates by score, by its parts, and by counts.

    What is not finite is worst, as a score and as a truth.

    Args:
        rows: A row of the score table for each candidate.
        truth_A: The truth; higher is better.

    Returns:
        The ranking by score among these rows, by each of its parts, by the score
        without each part, and by counts.

    Raises:
        UserError: See `stats.rank_report`.
    """
    evidence = evidence_of(rows)
    part = terms(evidence)._asdict()
    part[LOSS] = part.pop("loss")
    scores = {
        "score": score(evidence),
        **part,
        **{
            f"score without {name}": sum(part.values()) - part[name]
            for name in part
        },
        **counts_of(rows),
    }
    return stats.rank_report(scores, with_worst(truth_A))


def evidence_of(rows: list[dict]) -> Evidence:
    """Returns the evidence on candidates.

    Args:
        rows: A row of the score table for each candidate.
    """
    return Evidence(*(_column(rows, name) for name in Evidence._fields))


def counts_of(rows: list[dict]) -> dict[str, np.ndarray]:
    """Returns the counts that a score must beat, by name.

    Args:
        rows: A row of the score table for each candidate.
    """
    return {
        "live parameters": _column(rows, "live_params"),
        "live FLOPs": _column(rows, "live_flops"),
    }


def _column(rows: list[dict], name: str) -> np.ndarray:
    """A column; NaN where an older version lacked it."""
    return np.array([row.get(name) for row in rows], np.float64)


def with_worst(truth_A: np.ndarray) -> np.ndarray:
    """Returns the truth; what is not finite lies just below the lowest finite value.

    Args:
        truth_A: The truth.
    """
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
