"""Rank statistics against their definitions, and against SciPy."""

import math

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from jaxhypernas.numerics import stats
from jaxhypernas.numerics.stats import (
    MEASURES,
    Interval,
    Ranking,
    format_report,
    kendall,
    rank_report,
    regret,
    spearman,
    top_tau,
)
from jaxhypernas.types import UserError


def naive_kendall(a, b):
    """Tau-b by its definition over all pairs.

    Comparisons, not differences: infinities have none.
    """
    a, b = np.asarray(a), np.asarray(b)
    sign_a = (a[:, None] > a).astype(int) - (a[:, None] < a)
    sign_b = (b[:, None] > b).astype(int) - (b[:, None] < b)
    return (sign_a * sign_b).sum() / math.sqrt(
        (sign_a**2).sum() * (sign_b**2).sum()
    )


def naive_spearman(a, b):
    ranks = [
        [sum(y < x for y in c) + sum(y == x for y in c) / 2 for x in c]
        for c in (a, b)
    ]
    (x, y) = (np.array(r) - np.mean(r) for r in ranks)
    return (x * y).sum() / math.sqrt((x**2).sum() * (y**2).sum())


def sample(seed, n, decimals, infinite=False):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n)
    score = truth + rng.normal(size=n)
    if infinite:
        score[rng.integers(n, size=n // 5)] = -np.inf
    return score.round(decimals), truth.round(decimals)


@pytest.mark.parametrize("n", [3, 10, 101])
@pytest.mark.parametrize(
    "decimals", [0, 1, 8], ids=["many ties", "ties", "no ties"]
)
@pytest.mark.parametrize("infinite", [False, True], ids=["finite", "infinite"])
def test_correlations_agree_with_their_definitions(n, decimals, infinite):
    score, truth = sample(n, n, decimals, infinite)
    assert kendall(score, truth) == pytest.approx(
        naive_kendall(score, truth), abs=1e-12
    )
    assert spearman(score, truth) == pytest.approx(
        naive_spearman(score, truth), abs=1e-12
    )


@pytest.mark.parametrize(("n", "size"), [(100, 10), (12, 3), (3, 3)])
def test_top_tau_looks_at_the_truly_best_only(n, size):
    score, truth = sample(n, n, 8)
    top = sorted(range(n), key=lambda i: truth[i])[-size:]
    assert top_tau(score, truth) == pytest.approx(
        naive_kendall(score[top], truth[top]), abs=1e-12
    )
    score[truth < truth[top].min()] = 1e9
    assert top_tau(score, truth) == pytest.approx(
        naive_kendall(score[top], truth[top]), abs=1e-12
    )


@pytest.mark.parametrize("measure", [kendall, spearman, top_tau])
@pytest.mark.parametrize("value", [0.0, -np.inf])
def test_a_constant_column_has_no_correlation(measure, value):
    column = np.arange(5.0)
    assert math.isnan(measure(np.full(5, value), column))
    assert math.isnan(measure(column, np.full(5, 1.0)))
    assert math.isnan(measure(np.array([]), np.array([])))


def test_regret():
    truth = np.array([1.0, 5.0, 3.0, 4.0])
    assert regret(truth, truth) == 0
    assert regret(-truth, truth) == 4
    assert regret(np.zeros(4), truth) == 4, "of equal scores the first counts"
    assert regret(np.array([-np.inf, -np.inf, 0, -np.inf]), truth) == 2


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, bool])
def test_measures_take_any_numbers(dtype):
    score, truth = (
        np.array([0, 1, 0, 1, 1]).astype(dtype),
        np.array([3, 2, 0, 1, 5]),
    )
    assert regret(score, truth) == regret(score, truth.astype(np.uint8)) == 3
    top = [4, 0, 1]
    assert top_tau(truth, truth.astype(np.uint8)) == 1
    assert top_tau(score, truth) == pytest.approx(
        naive_kendall(np.asarray(score[top], int), truth[top]), abs=1e-12
    )
    assert kendall(score, truth) == pytest.approx(
        naive_kendall(np.asarray(score, int), truth), abs=1e-12
    )


def test_spearman_without_ties_is_the_formula_of_rank_differences():
    score, truth = sample(4, 40, 12)
    d = np.argsort(np.argsort(score)) - np.argsort(np.argsort(truth))
    assert spearman(score, truth) == pytest.approx(
        1 - 6 * (d**2).sum() / (40 * (40**2 - 1)), abs=1e-12
    )


def test_reversed_ranking():
    truth = np.arange(30.0)
    row = rank_report({"a": -np.exp(truth)}, truth, resamples=20)["a"]
    for label in ("tau", "rho", "top_tau"):
        assert row[label] == pytest.approx([-1.0] * 3)
    assert row["regret"].value == 29


def test_an_interval_has_its_value_inside():
    for seed in range(5):
        score, truth = sample(seed, 40, 2)
        row = rank_report({"a": score}, truth, resamples=100)["a"]
        for label in ("tau", "rho"):
            assert row[label].low <= row[label].value <= row[label].high


def test_report_values_and_pairing():
    score, truth = sample(0, 60, 1)
    report = rank_report(
        {"a": score, "b": 3 * score + 1, "c": truth}, truth, resamples=50
    )
    a = report["a"]
    values = [
        interval.value
        for interval in (a["tau"], a["rho"], a["top_tau"], a["regret"])
    ]
    assert values == [
        measure(score, truth)
        for measure in (kendall, spearman, top_tau, regret)
    ]
    assert report["a"] == report["b"], (
        "the same resamples, and a measure of ranks"
    )
    assert report["a"]["n"] == 60
    for label in MEASURES:
        assert dict(report["c"])[label] == pytest.approx(
            [float(label != "regret")] * 3
        ), "the truth ranks itself perfectly"
    again, other = (
        rank_report({"a": score}, truth, seed=seed, resamples=50)["a"]
        for seed in (0, 1)
    )
    assert again == report["a"] and other != report["a"]


def test_intervals_cover_the_true_value():
    rho, covered = 0.6, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=60)
        score = rho * truth + math.sqrt(1 - rho**2) * rng.normal(size=60)
        tau = rank_report({"a": score}, truth, resamples=100)["a"]["tau"]
        assert tau.low < tau.value < tau.high
        covered += tau.low <= 2 / math.pi * math.asin(rho) <= tau.high
    assert (
        0.85 <= covered / 60 <= 0.99
    )  # 0.95 in the limit of many candidates and resamples


def test_intervals_narrow_as_the_root_of_n():
    def width(n):
        reports = (
            rank_report({"a": score}, truth, resamples=80)
            for score, truth in (sample(s, n, 8) for s in range(8))
        )
        return np.mean(
            [
                report["a"]["tau"].high - report["a"]["tau"].low
                for report in reports
            ]
        )

    assert width(50) / width(200) == pytest.approx(2, rel=0.25)


def test_scores_that_are_not_finite():
    score, truth = sample(2, 30, 8)
    low = np.where(np.arange(30) == 4, -np.inf, score)
    report = rank_report(
        {"low": low, "constant": np.zeros(30)}, truth, resamples=20
    )
    assert (
        report["low"]
        == rank_report(
            {"low": np.where(low == -np.inf, -99, low)}, truth, resamples=20
        )["low"]
    )
    assert all(map(math.isnan, report["constant"]["tau"]))
    assert all(map(math.isfinite, report["constant"]["regret"]))


@pytest.mark.parametrize(
    ("column", "truth", "complaint"),
    [
        ([0, 1, np.nan, 2], [0, 1, 2, 3], "^synflow: 1 of 4"),
        ([0, 1, 2], [0, 1, 2, 3], "^synflow: its shape"),
        ([0, 1, 2, 3], [0, 1, np.inf, 3], "^truth: 1 of 4"),
        ([0, 1], [0, 1], "^truth: its shape"),
    ],
)
def test_complaints(column, truth, complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        rank_report(
            {"good": np.zeros(len(truth)), "synflow": np.array(column)},
            np.array(truth),
        )
    assert "\n" not in str(caught.value)


def slow_interval(measure, score, truth, seed, resamples):
    """The interval of one measure, a resample at a time."""
    rng = np.random.default_rng(seed)
    samples = [
        rng.integers(len(truth), size=len(truth)) for _ in range(resamples)
    ]
    values = np.array([measure(score[s], truth[s]) for s in samples])
    return np.quantile(values[~np.isnan(values)], (0.025, 0.975))


def scipy_top_tau(score, truth):
    top = np.argsort(-truth, kind="stable")[: max(3, round(len(truth) / 10))]
    return kendalltau(score[top], truth[top]).statistic


def slow_regret(score, truth):
    return truth.max() - truth[np.argsort(-score, kind="stable")[0]]


@pytest.mark.filterwarnings("ignore:An input array is constant")
@pytest.mark.parametrize(
    ("n", "decimals"), [(3, 1), (24, 0), (24, 8), (50, 1)]
)
@pytest.mark.parametrize("chunk", [1, 2**20], ids=["pieces", "one piece"])
def test_intervals_are_those_of_scipy(n, decimals, chunk, monkeypatch):
    """The same resamples, measured all at once or one by one."""
    monkeypatch.setattr(stats, "CHUNK", chunk)
    score, truth = sample(n, n, decimals, infinite=True)
    row = dict(rank_report({"a": score}, truth, seed=3, resamples=60)["a"])
    slow = {
        "tau": lambda a, b: kendalltau(a, b).statistic,
        "rho": lambda a, b: spearmanr(a, b).statistic,
        "top_tau": scipy_top_tau,
        "regret": slow_regret,
    }
    for name, measure in slow.items():
        low, high = slow_interval(measure, score, truth, 3, 60)
        expected = [measure(score, truth), low, high]
        assert row[name] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_table():
    def row(n, x):
        interval = Interval(x, x - 0.14, x + 0.111)
        return Ranking(
            tau=interval, rho=interval, top_tau=interval, regret=interval, n=n
        )

    lines = format_report(
        {"loss": row(100, 0.62), "live FLOPs": row(9, -0.5)}
    ).splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "score",
        "loss",
        "live FLOPs",
    ]
    assert lines[1].count("0.62 [0.48, 0.73]") == 3
    assert lines[1].endswith("  0.62 [0.48, 0.731]"), (
        "regret to three digits: its scale is that of the truth"
    )
    assert (
        len(
            {
                line.index(cell)
                for line, cell in zip(
                    lines, ["tau", "0.62", "-0.50"], strict=True
                )
            }
        )
        == 1
    )
    assert (
        format_report({"loss": row(100, 0.62), "b": row(9, 1)}, "b")
        .splitlines()[1]
        .startswith("b")
    )
