"""Known truths of some candidates: predictions of all, and whom to train next."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import population, separability
from scipy.stats import kendalltau, norm
from tiny import TINY, family

from jaxhypernas import Run
from jaxhypernas.execution.pace import Pace
from jaxhypernas.numerics.labels import FEWEST, predict
from jaxhypernas.programs import chosen, training_verbs
from jaxhypernas.programs.active import Pool
from jaxhypernas.programs.scorer import Scorer
from jaxhypernas.programs.truth import Truth
from jaxhypernas.store.score_table import ScoreTable
from jaxhypernas.types import Scores

pytestmark = pytest.mark.usefixtures("quick_compiler")

NUMBER = 400


@pytest.fixture(scope="module")
def made():
    """Features, a score that knows half of the truth, and the truth."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(NUMBER, 4)) * np.array([1, 100, 0.01, 1])
    known, hidden = features[:, 0], features[:, 1] / 100
    truth = known + hidden + 0.2 * rng.normal(size=NUMBER)
    return features, known, truth


def tau(a, b) -> float:
    return kendalltau(a, b).statistic


def test_labels_add_to_the_score(made):
    features, score, truth = made
    rng = np.random.default_rng(1)
    taus = [tau(score, truth)]
    for number in (24, 150):
        labelled = rng.choice(NUMBER, number, replace=False)
        mean, deviation = predict(score, features, labelled, truth[labelled])
        assert np.isfinite(mean).all() and (deviation > 0).all()
        taus.append(tau(mean, truth))
    assert taus[0] < taus[1] < taus[2] and taus[2] > 0.8


def test_deviations_are_those_of_the_truth(made):
    features, score, truth = made
    labelled = np.random.default_rng(1).choice(NUMBER, 100, replace=False)
    mean, deviation = predict(score, features, labelled, truth[labelled])
    others = np.setdiff1d(np.arange(NUMBER), labelled)
    # Truths of the others as quantiles among the labelled ones.
    known = np.sort(truth[labelled])
    share = (np.searchsorted(known, truth[others]) + 0.5) / (len(known) + 1)
    within = np.abs(norm.ppf(share) - mean[others]) < 1.96 * deviation[others]
    assert 0.88 < within.mean() < 0.995


def test_few_labels_leave_the_order_of_the_score(made):
    features, score, truth = made
    for number in range(FEWEST):
        labelled = np.arange(number)
        mean, _ = predict(score, features, labelled, truth[labelled])
        assert tau(mean, score) == pytest.approx(1)


def test_units_and_constant_features_do_not_matter(made):
    features, score, truth = made
    labelled = np.arange(40)
    given = predict(score, features, labelled, truth[labelled])
    more = np.concatenate([7 * features + 3, np.ones((NUMBER, 2))], 1)
    other = predict(3 * score, more, labelled, 2 * truth[labelled] - 1)
    for a, b in zip(given, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_diverged_candidate_is_a_bad_label(made, bad):
    features, score, truth = made
    labelled = np.arange(40)
    label = truth[labelled].copy()
    label[3] = bad
    mean, deviation = predict(score, features, labelled, label)
    assert np.isfinite(mean).all() and np.isfinite(deviation).all()


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A space of cells and a table of scored cells, with invented losses."""
    space, _ = family("nasbench201")
    table = ScoreTable(tmp_path_factory.mktemp("active") / "scores")

    def evaluate(candidates):
        loss_A = (candidates.id_A % np.uint64(97)).astype(np.float32)
        return Scores(loss_A, loss_A)

    scorer = Scorer(space, table, evaluate, separability, Pace(1, 128, 128))
    scorer.score_missing(population(space, 120))
    return space, table


def labelled_rows(table, number):
    """Rows as training from scratch makes them; convolutions are good."""
    rows = table.best(10**6).drop_columns("score").to_pylist()
    rng = np.random.default_rng(0)
    return [
        {**rows[i], "trained_valid_loss": 3.0 - rows[i]["arch"].count("conv")}
        for i in rng.choice(len(rows), number, replace=False)
    ]


@pytest.mark.parametrize("order", ["evidence", "loss"])
def test_the_pool_learns_and_chooses_others(scored, order):
    space, table = scored
    trained = labelled_rows(table, 30)
    pool = Pool(space, table, order, trained)
    chosen = pool.choose(trained, 5)
    ids = [row["id"] for row in chosen]
    assert len(set(ids)) == 5
    assert not set(ids) & {row["id"] for row in trained}
    convolutions = [row["arch"].count("conv") for row in chosen]
    assert np.mean(convolutions) > 3
    assert pool.choose(trained, 5) == chosen
    # Whoever is left, if fewer are left than asked for.
    assert len(pool.choose(trained, 10**6)) == len(table) - len(trained)


def test_a_run_trains_those_chosen(tmp_path):
    retrain = dataclasses.replace(TINY.retrain, active=5)
    config = dataclasses.replace(TINY, retrain=retrain)
    run = begun(tmp_path / "run", config)
    rows = run.retrain().read().to_pylist()
    groups = [row["group"] for row in rows]
    assert groups == ["top"] * 2 + ["sample"] * 4 + ["active"] * 5
    kept = [row for row in rows if row["group"] != "sample"]
    assert len({row["id"] for row in kept}) == 7
    winner = run.report()["winner"]
    best = min(row["trained_valid_loss"] for row in kept)
    assert winner["trained_valid_loss"] == best
    text = (tmp_path / "run" / "report.md").read_text()
    assert "the 5 chosen by what was trained before" in text
    again = begun(tmp_path / "run", config)
    assert again.retrain().read().to_pylist() == rows
    assert chosen.ranked(again.retrained.read().to_pylist(), 1) == winner


def begun(workdir, config) -> Run:
    """A run with 60 scored candidates, whose training from scratch is invented."""
    run = Run(workdir, config)
    space, target, _ = run.parts.searched

    def evaluate(candidates):
        loss_A = (candidates.id_A % np.uint64(97)).astype(np.float32)
        return Scores(loss_A, loss_A)

    def from_scratch(population, id_A, observe, theta_A):
        loss_A = (id_A % np.uint64(89)).astype(np.float32)
        theta = jax.tree.map(
            lambda leaf: np.zeros((len(id_A), *leaf.shape), leaf.dtype),
            target.weight_spec,
        )
        scores = Scores(loss_A, loss_A)
        return Truth(scores, scores, theta)

    pace = Pace(1, 128, 128)
    run.scorer = Scorer(space, run.scores, evaluate, separability, pace)
    run.__dict__["from_scratch"] = from_scratch
    training_verbs.begin(run.parts, run.dataset, run.workdir)
    run.scorer.score_missing(population(space, 60))
    return run
