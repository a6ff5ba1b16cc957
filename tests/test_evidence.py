"""Evidence: separability, and the score that combines it with capacity and loss."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
from helpers import mesh_of, population
from scipy.stats import cauchy, kendalltau, norm, rankdata
from tiny import SPACES, family

from jaxhypernas.archs.population import identities, rows
from jaxhypernas.generators.standalone import standalone
from jaxhypernas.numerics import cpu, evidence
from jaxhypernas.numerics.evidence import Evidence
from jaxhypernas.programs.separability import DRAWS, make_separability
from jaxhypernas.store.ids import ids_to_text
from jaxhypernas.store.score_table import ScoreTable

pytestmark = pytest.mark.usefixtures("quick_compiler")

NUMBER = 4
X_BxHxWxC = np.random.default_rng(0).normal(size=(8, 8, 8, 1))
X_BxHxWxC = X_BxHxWxC.astype(np.float32)
KEY = jax.random.key(7)


def agreement(x_BxHxWxC) -> float:
    """The log-determinant of shares of units on which images agree, by loops."""
    on = np.asarray(x_BxHxWxC).reshape(len(x_BxHxWxC), -1) > 0
    shares = [[(a == b).mean() for b in on] for a in on]
    return np.linalg.slogdet(np.array(shares) + 1e-4 * np.eye(len(on)))[1]


def test_separability_counts_units_that_agree():
    rng = np.random.default_rng(1)
    for share in (0.1, 0.5, 0.9):
        x = np.maximum(rng.normal(norm.ppf(share), 1, (6, 3, 3, 4)), 0)
        found = evidence.separability(jnp.asarray(x, jnp.float32))
        np.testing.assert_allclose(found, agreement(x), rtol=1e-4)


def test_images_that_look_alike_are_hard_to_separate():
    rng = np.random.default_rng(1)
    x = np.maximum(rng.normal(size=(6, 3, 3, 4)), 0).astype(np.float32)
    twins = x.copy()
    twins[1] = twins[0]
    apart, near, same = (
        float(evidence.separability(jnp.asarray(v)))
        for v in (x, twins, np.repeat(x[:1], 6, 0))
    )
    assert np.isfinite(same) and same < near < apart


@pytest.fixture(scope="module", params=SPACES)
def case(request):
    """A space, its target, and a population."""
    space, target = family(request.param)
    canonical = jax.jit(jax.vmap(space.canonical))
    archs = jax.device_get(canonical(population(space, NUMBER)))
    return space, target, archs


def measure(target, devices=1, chunk=1):
    """``measure(...)(archs)``: the separability of a population."""
    separability = make_separability(
        target, mesh_of(devices), chunk, lambda: (KEY, jnp.asarray(X_BxHxWxC))
    )

    def measured(archs):
        id_A = identities(archs)
        work_A = np.random.default_rng(2).integers(1, 9, len(id_A))
        return separability(archs, id_A, work_A)

    return measured


def test_features_are_rectified_and_their_head_gives_the_logits(case):
    _, target, archs = case
    theta = standalone(target.weight_spec, target.nodes).init(KEY)
    arch, apply = rows(archs, 0), jax.jit(target.apply)
    forms = dict(target.forms)
    if not cpu.available():
        forms.pop("native", None)
    for each in (target, *forms.values()):
        x = jax.jit(each.features)(theta, arch, X_BxHxWxC)
        assert x.ndim == 4 and (x >= 0).all() and (x > 0).any()
        logits = x.mean((1, 2)) @ theta["head"] + theta["bias"][None]
        np.testing.assert_allclose(
            logits, apply(theta, arch, X_BxHxWxC), rtol=1e-3, atol=1e-4
        )


def test_separability_is_of_one_candidate_alone(case):
    _, target, archs = case
    generator = standalone(target.weight_spec, target.nodes)
    generate, features = jax.jit(generator.init), jax.jit(target.features)
    expected = []
    for i, number in enumerate(identities(archs).tolist()):
        key = jax.random.fold_in(KEY, number % 2**32)
        key = jax.random.fold_in(key, number >> 32)
        values = [
            agreement(features(generate(k), rows(archs, i), X_BxHxWxC))
            for k in jax.random.split(key, DRAWS)
        ]
        expected.append(np.mean(values))
    close = partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-2)
    alone = measure(target)
    found = alone(archs)
    close(found, expected)
    assert len(set(found)) > 2

    order = np.random.default_rng(3).permutation(NUMBER)
    np.testing.assert_array_equal(alone(rows(archs, order)), found[order])
    np.testing.assert_array_equal(alone(rows(archs, slice(2, 4))), found[2:4])
    close(measure(target, devices=2, chunk=2)(archs), found)


def test_networks_without_features_have_no_separability(case):
    _, target, archs = case
    found = measure(target._replace(features=None))(archs)
    assert found.shape == (NUMBER,) and np.isnan(found).all()


def drawn(number, seed=0) -> Evidence:
    """Evidence on random candidates."""
    rng = np.random.default_rng(seed)
    return Evidence(
        rng.gamma(9, 1e5, number),
        rng.normal(-40, 5, number),
        rng.normal(1.5, 0.2, number),
    )


def test_score_is_the_sum_of_logs():
    given = drawn(50)
    ranks = rankdata(given.separability), rankdata(-given.loss)
    expected = np.log1p(given.capacity) + np.log(np.array(ranks) / 50).sum(0)
    np.testing.assert_allclose(evidence.score(given), expected)


def test_score_follows_order_and_scale():
    given = drawn(50)
    order = np.random.default_rng(1).permutation(50)
    moved = Evidence(*(column[order] for column in given))
    np.testing.assert_array_equal(
        evidence.score(moved), evidence.score(given)[order]
    )
    bent = Evidence(
        given.capacity, 3 * given.separability + 7, np.exp(given.loss)
    )
    np.testing.assert_array_equal(evidence.score(bent), evidence.score(given))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_worst(bad):
    given = drawn(20)
    reference = evidence.refer(given)
    for column in ("capacity", "separability", "loss"):
        changed = given._replace(**{column: getattr(given, column).copy()})
        getattr(changed, column)[3] = bad
        own = getattr(evidence.terms(changed), column)
        assert own[3] == own.min() and np.isfinite(own).all()
        # A sample with a value that is not finite lies where the others do.
        assert all(
            np.isfinite(v).all()
            for v in jax.tree.leaves(evidence.refer(changed))
        )
        for score in (
            evidence.score(changed),
            evidence.score_beside(changed, reference),
        ):
            assert not np.isnan(score).any()
            assert (score[3] == -np.inf) == (column == "loss")


def test_no_separability_leaves_capacity_and_loss():
    given = drawn(20)
    without = given._replace(separability=np.full(20, np.nan))
    expected = evidence.terms(given).capacity + evidence.terms(given).loss
    score = evidence.score(without)
    np.testing.assert_array_equal(np.argsort(score), np.argsort(expected))
    reference = evidence.refer(without)
    beside = evidence.score_beside(without, reference)
    assert len(set(beside)) == 20


def test_score_beside_is_of_one_candidate_alone():
    given, reference = drawn(30), evidence.refer(drawn(40, seed=1))
    whole = evidence.score_beside(given, reference)
    alone = [
        evidence.score_beside(
            Evidence(*(c[i : i + 1] for c in given)), reference
        )
        for i in range(30)
    ]
    np.testing.assert_array_equal(whole, np.concatenate(alone))


def test_score_beside_is_the_score_of_a_cauchy_population():
    given = drawn(4000)
    middle = cauchy.ppf((np.arange(4000) + 0.5) / 4000)
    order = np.random.default_rng(4).permutation(4000)
    given = given._replace(separability=middle[order], loss=1.5 - 0.2 * middle)
    beside = evidence.score_beside(given, evidence.refer(given))
    difference = beside - evidence.score(given)
    # But for the worst ranks: half a rank is much there.
    assert np.quantile(np.abs(difference), 0.99) < 0.05


def test_score_beside_orders_as_the_score_does():
    given = drawn(4000)
    reference = evidence.refer(Evidence(*(column[:24] for column in given)))
    beside = evidence.score_beside(given, reference)
    assert kendalltau(evidence.score(given), beside).statistic > 0.85


def table_rows(ids, given: Evidence, columns=Evidence._fields) -> pa.Table:
    """Rows of a score table, with some of the evidence."""
    number = len(ids)
    kept = {name: getattr(given, name)[:number] for name in columns}
    counts = dict.fromkeys(
        ("params", "flops", "live_params"), np.arange(number)
    )
    return pa.table(
        {
            "id": ids_to_text(np.array(ids, np.uint64)),
            "arch": [f"a{i}" for i in ids],
            **kept,
            "accuracy": np.zeros(number),
            **counts,
        }
    )


def test_a_table_of_an_older_version_is_ordered_by_loss(tmp_path):
    given = drawn(20)
    table = ScoreTable(tmp_path / "scores")
    table.append(table_rows(range(20), given, ["loss"]))
    for opened in (table, ScoreTable(tmp_path / "scores")):
        rows = opened.best(20)
        assert np.isnan(rows["capacity"].to_numpy()).all()
        best = rows["arch"].to_pylist()
        assert best == [f"a{i}" for i in np.argsort(given.loss)]


def test_rows_of_two_versions_are_one_table(tmp_path):
    given = drawn(20)
    table = ScoreTable(tmp_path / "scores")
    table.append(table_rows(range(20), given, ["loss"]))
    table.append(table_rows(range(20, 40), given))
    before = table.table.read()
    table.compact()
    assert table.table.read().equals(before)
    assert len(list((tmp_path / "scores").iterdir())) == 1
    read = before["separability"].to_numpy()
    assert np.isnan(read[:20]).all()
    np.testing.assert_array_equal(read[20:], given.separability)
    whole = table.best(40)
    assert np.isnan(whole["capacity"].to_numpy()).sum() == 20
    # Rows without evidence count as worst.
    best = table.best(20)["arch"].to_pylist()
    assert set(best) == {f"a{i}" for i in range(20, 40)}
