"""A plain sentence on whether candidates can be chosen by their order."""

import numpy as np

from jaxhypernas.numerics import stats
from jaxhypernas.numerics.evidence import score, terms
from jaxhypernas.report.ranking import counts_of, evidence_of, with_worst
from jaxhypernas.store.score_table import Order

FEWEST = 20
"""Candidates below which nothing is said of trust."""

FEWEST_TOP = 100
"""Candidates below which nothing is said of the best tenth."""


def trust(
    rows: list[dict], truth_A: np.ndarray, order: Order, truth: str
) -> str:
    """Says in plain words whether candidates can be chosen by their order.

    Args:
        rows: A row of the score table for each candidate.
        truth_A: The truth; higher is better.
        order: What candidates are ordered by.
        truth: Name of the truth.
    """
    n = len(rows)
    if n < FEWEST:
        return (
            f"{n} candidates are too few to say whether the order by {order} can be "
            f"trusted: {FEWEST} or more can tell."
        )
    evidence = evidence_of(rows)
    worth_A = score(evidence)
    if order == "loss":
        worth_A = terms(evidence).loss
    counts = counts_of(rows)
    truth_A = with_worst(truth_A)
    ranking = stats.rank_report({"order": worth_A, **counts}, truth_A)
    tau, top = ranking["order"]["tau"], ranking["order"]["top_tau"]
    best = max(counts, key=lambda name: ranking[name]["tau"].value)
    lead = stats.tau_lead(worth_A, list(counts.values()), truth_A)
    return (
        f"By {truth}, the order by {order} {_chance(tau)}; "
        f"{_beside_counts(lead, best)}. {_of_the_top(top, n)}"
    )


def _chance(tau: stats.Interval) -> str:
    if tau.low > 0:
        return f"is better than chance (tau {_interval(tau)})"
    return f"is not known to be better than chance (tau {_interval(tau)})"


def _beside_counts(lead: stats.Interval, best: str) -> str:
    difference = f"tau less that of the better count {_interval(lead)}"
    if lead.low > 0:
        return f"it is better than counting {best} ({difference})"
    if lead.high < 0:
        return f"counting {best} is better: trust the count ({difference})"
    return f"it is not known to be better than counting {best} ({difference})"


def _of_the_top(top: stats.Interval, n: int) -> str:
    if n < FEWEST_TOP:
        return f"{n} candidates are too few to say whether it tells the best apart."
    if top.low > 0:
        return f"It tells the best tenth apart (tau {_interval(top)})."
    return (
        f"It is not known to tell the best tenth apart (tau {_interval(top)}): train "
        "several of the best."
    )


def _interval(interval: stats.Interval) -> str:
    value, low, high = (f"{x:.2f}" for x in interval)
    return f"{value} [{low}, {high}]"
