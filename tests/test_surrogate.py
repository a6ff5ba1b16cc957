"""PNAS's surrogates against plain NumPy, and what they can learn."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from flax import nnx
from toy import GROWTH, TOY

from jaxhypernas.archs.population import rows, size
from jaxhypernas.numerics import stats
from jaxhypernas.search import surrogate, surrogate_networks
from jaxhypernas.search.surrogate import NETWORKS, correlation, make_surrogate

pytestmark = pytest.mark.usefixtures("quick_compiler")

grown = partial(make_surrogate, growth=GROWTH, most=80)


@pytest.fixture(scope="module", params=NETWORKS)
def kind(request):
    """With fewer hidden units than published, to be quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surrogate_networks, "HIDDEN", 24)
        yield request.param


@pytest.fixture(scope="module")
def trained(kind):
    """A surrogate, its 60 architectures of two blocks, and 300 others."""
    population = toy.children(toy.children(None, 1), 2)
    order = np.random.default_rng(0).permutation(size(population))
    seen, unseen = (
        rows(population, order[:60]),
        rows(population, order[60:360]),
    )
    fitted = grown(kind)
    params = fitted.fit(
        fitted.init(jax.random.key(0)),
        jax.random.key(1),
        GROWTH.tokens(seen, 2),
        toy.loss(seen),
    )
    return fitted, params, seen, unseen


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def slow_mlp(w, tokens, level):
    blocks = [
        np.concatenate(
            [
                w["embed"]["tables"][f"kind_{k}"][v]
                for k, v in zip(GROWTH.kinds, block, strict=True)
            ]
        )
        for block in tokens[:level]
    ]
    x = np.mean(blocks, 0)
    for layer in ("first", "second"):
        x = np.maximum(x @ w[layer]["kernel"] + w[layer]["bias"], 0)
    return (x @ w["out"]["kernel"] + w["out"]["bias"])[0]


def slow_lstm(w, tokens, level):
    c = h = np.zeros(surrogate_networks.HIDDEN)
    for block in tokens[:level]:
        for kind, value in zip(GROWTH.kinds, block, strict=True):
            x, cell = w["embed"]["tables"][f"kind_{kind}"][value], w["cell"]
            gates = (
                x @ cell["dense_i"]["kernel"]
                + h @ cell["dense_h"]["kernel"]
                + cell["dense_h"]["bias"]
            )
            i, f, g, o = np.split(gates, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
    return (h @ w["out"]["kernel"] + w["out"]["bias"])[0]


@pytest.mark.parametrize("level", [1, 2, 3])
def test_ratings_against_numpy(trained, kind, level):
    """The mean over members, whatever stands in the blocks that don't exist."""
    fitted, params, _, _ = trained
    sample = jax.vmap(lambda k: TOY.sample(k, 1.0))(
        jax.random.split(jax.random.key(3), 6)
    )
    tokens_AxLxF = np.asarray(sample.block_3x4)
    members = [
        jax.tree.map(lambda x, e=e: np.asarray(x[e], np.float64), params)
        for e in range(surrogate.MEMBERS)
    ]
    slow = {"mlp": slow_mlp, "lstm": slow_lstm}[kind]
    expected = [
        np.mean([sigmoid(slow(w, tokens, level)) for w in members])
        for tokens in tokens_AxLxF
    ]
    np.testing.assert_allclose(
        fitted.predict(params, tokens_AxLxF[:, :level]), expected, rtol=2e-5
    )
    module = NETWORKS[kind](GROWTH.vocabulary, GROWTH.kinds, nnx.Rngs(0))
    junk = tokens_AxLxF.copy()
    junk[:, level:] = 1
    assert np.array_equal(
        module(jnp.array(tokens_AxLxF), level), module(jnp.array(junk), level)
    )


def test_learns_and_ranks_what_it_has_not_seen(trained):
    fitted, params, seen, unseen = trained
    for population, least in ((seen, 0.95), (unseen, 0.8)):
        rating_A = fitted.predict(params, GROWTH.tokens(population, 2))
        assert ((rating_A > 0) & (rating_A < 1)).all()
        assert stats.spearman(rating_A, -toy.loss(population)) > least


def test_members_miss_different_fifths():
    seen_ExA = surrogate.folds(jax.random.key(0), 20)
    assert (seen_ExA.sum(1) == 16).all() and (seen_ExA.sum(0) == 4).all()
    assert not np.array_equal(seen_ExA, surrogate.folds(jax.random.key(1), 20))


def test_padding_changes_nothing(kind, monkeypatch):
    monkeypatch.setattr(surrogate, "STEPS", 3)
    population = toy.children(None, 1)
    tokens_AxLxF, loss_A = GROWTH.tokens(population, 1), toy.loss(population)
    ratings = []
    for most in (36, 64):
        fitted = grown(kind, most=most)
        params = fitted.fit(
            fitted.init(jax.random.key(0)),
            jax.random.key(1),
            tokens_AxLxF,
            loss_A,
        )
        ratings.append(fitted.predict(params, tokens_AxLxF))
    np.testing.assert_allclose(*ratings, rtol=1e-5)


def test_fits_of_all_sizes_and_levels_share_a_program(kind, monkeypatch):
    monkeypatch.setattr(surrogate, "STEPS", 3)
    error, traced = surrogate._mean_error, []
    monkeypatch.setattr(
        surrogate,
        "_mean_error",
        lambda *args: traced.append(1) or error(*args),
    )
    fitted, population, traces = (
        grown(kind),
        toy.children(toy.children(toy.children(None, 1), 2), 3),
        [],
    )
    params = fitted.init(jax.random.key(0))
    for number, level in ((1, 1), (4, 2), (30, 3), (80, 1)):
        part = rows(population, slice(number))
        params = fitted.fit(
            params,
            jax.random.key(1),
            GROWTH.tokens(part, level),
            toy.loss(part),
        )
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
        traces.append(len(traced))
    assert traces[0] == traces[-1] > 0


def test_targets_are_losses_turned_round():
    loss_A = np.array([2.0, 1.0, np.inf, 3.0, 1.5])
    target_A = surrogate.targets(loss_A)
    assert target_A.dtype == np.float32 and target_A[2] == pytest.approx(
        0, abs=1e-12
    )
    assert np.argsort(-target_A).tolist() == [1, 4, 0, 3, 2]
    np.testing.assert_allclose(
        target_A, surrogate.targets(1000 * loss_A + 5), rtol=1e-5
    )
    assert surrogate.targets(np.full(3, 7.0)).tolist() == [0.5] * 3
    assert surrogate.targets(np.full(3, np.inf)).tolist() == [0.0] * 3
    assert surrogate.targets(np.array([1.0, 1.0, 1.0, 1.0, 9.0]))[4] < 0.5


def test_correlation_alone(trained):
    fitted, params, seen, unseen = trained
    next_level = rows(
        toy.children(rows(unseen, slice(5)), 3), slice(0, None, 7)
    )
    both = (seen, toy.loss(seen)), (next_level, toy.loss(next_level))
    found = correlation(fitted, GROWTH, params, 2, *both)
    assert found.level == 2 and found.trained > 0.95
    rating_A = fitted.predict(params, GROWTH.tokens(next_level, 3))
    assert found.extrapolated == stats.spearman(
        rating_A, -toy.loss(next_level)
    )
    assert np.isnan(
        correlation(fitted, GROWTH, params, 2, both[0]).extrapolated
    )
