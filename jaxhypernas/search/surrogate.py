"""Surrogates of progressive search (PNAS, Liu et al. 2018, section 3.4).

A surrogate rates architectures that are not scored yet. It is an ensemble of five
networks, each fitted to its own 4/5 of a level's architectures; a rating is their mean,
and higher is better.

Axes: A architectures, L blocks, F fields of a block, E members of the ensemble.

Deviations:
1. The paper predicts accuracy. Here the target is a level's loss, negated and scaled
   into (0, 1) by ``sigmoid((median - loss) / (1.4826 * median absolute deviation))``:
   it needs no units, and a failed candidate (infinite loss) is an ordinary 0. Ratings
   compare architectures of one level.
2. The output's bias therefore starts at 0, where targets are centred (paper: 1.8, for
   accuracies near 0.86).
3. Every fit is `STEPS` steps of Adam on all data of a member; the paper leaves batches
   and epochs open. Adam's moments start anew at each level, the weights do not.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxhypernas.archs.population import in_batches
from jaxhypernas.numerics import stats
from jaxhypernas.search.surrogate_networks import LSTM, MLP
from jaxhypernas.types import Arch, Growth, Params

MEMBERS = 5
"""Networks of the ensemble."""

STEPS = 200
"""Steps of a fit."""

FIRST_RATE = 1e-2
"""Adam's learning rate at level 1."""

LATER_RATE = 2e-3
"""Adam's learning rate at later levels."""

PREDICT_BATCH = 1024
"""Architectures that the compiled program rates at once."""

NETWORKS = {"mlp": MLP, "lstm": LSTM}


class Surrogate(NamedTuple):
    """Functions that rate architectures by their tokens; arrays are of one level."""

    init: Callable[[jax.Array], Params]
    """``init(key)``: the parameters of all members."""

    fit: Callable[[Params, jax.Array, np.ndarray, np.ndarray], Params]
    """``fit(params, key, tokens_AxLxF, loss_A)``: the fitted parameters."""

    predict: Callable[[Params, np.ndarray], np.ndarray]
    """``predict(params, tokens_AxLxF)``: float32 [A], ratings in (0, 1)."""


class Correlation(NamedTuple):
    """Spearman's rank correlations of ratings with low losses; 1 is a perfect order."""

    level: int
    """The level that the surrogate was fitted to."""

    trained: float
    """On the architectures that it was fitted to."""

    extrapolated: float
    """On architectures of the next level; NaN where none are scored."""


def make_surrogate(
    kind: Literal["mlp", "lstm"], growth: Growth, most: int
) -> Surrogate:
    """Makes a surrogate for the architectures of any level of a space.

    Arrays are padded to ``most`` rows and all levels: each function is compiled once.

    Args:
        kind: The network.
        growth: How the space's architectures grow.
        most: Largest number of architectures of a fit.

    Returns:
        The surrogate.
    """
    module = partial(NETWORKS[kind], growth.vocabulary, growth.kinds)
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: module(nnx.Rngs(0))))

    def rate(params, tokens_AxLxF, level):
        network = nnx.merge(graphdef, params)
        return jax.nn.sigmoid(network(tokens_AxLxF, level))

    def init_member(key):
        return nnx.to_pure_dict(nnx.state(module(nnx.Rngs(params=key))))

    @jax.jit
    def init(key):
        return jax.vmap(init_member)(jax.random.split(key, MEMBERS))

    @jax.jit
    def rate_all(params, tokens_AxLxF, level):
        rating_ExA = jax.vmap(rate, (0, None, None))(
            params, tokens_AxLxF, level
        )
        return rating_ExA.mean(0)

    train = _make_train(rate)

    def fit(params, key, tokens_AxLxF, loss_A):
        level = tokens_AxLxF.shape[1]
        weight_AxE = folds(key, len(loss_A)).T
        return train(
            params,
            _pad(tokens_AxLxF, most, growth.levels),
            level,
            _pad(targets(loss_A), most),
            _pad(weight_AxE, most).T,
            LATER_RATE if level > 1 else FIRST_RATE,
        )

    def predict(params, tokens_AxLxF):
        A, level, _ = tokens_AxLxF.shape
        padded = _pad(tokens_AxLxF, A, growth.levels)

        def rate_part(part):
            return rate_all(params, part, level)

        return in_batches(rate_part, padded, PREDICT_BATCH)

    return Surrogate(init, fit, predict)


def correlation(
    surrogate: Surrogate,
    growth: Growth,
    params: Params,
    level: int,
    trained: tuple[Arch, np.ndarray],
    following: tuple[Arch, np.ndarray] | None = None,
) -> Correlation:
    """Measures how a fitted surrogate ranks its own level and the next.

    Args:
        surrogate: The surrogate.
        growth: How the space's architectures grow.
        params: The surrogate's parameters, fitted to ``trained``.
        level: The level that the surrogate was fitted to.
        trained: A population of this level and its losses, [A].
        following: A population of the next level and its losses, if there is one.

    Returns:
        The rank correlations.
    """

    def rank(population, loss_A, level):
        tokens_AxLxF = growth.tokens(population, level)
        rating_A = surrogate.predict(params, tokens_AxLxF)
        return stats.spearman(rating_A, -loss_A)

    extrapolated = float("nan")
    if following is not None:
        extrapolated = rank(*following, level + 1)
    return Correlation(level, rank(*trained, level), extrapolated)


def targets(loss_A: np.ndarray) -> np.ndarray:
    """Turns losses of one level into target ratings (deviation 1).

    Args:
        loss_A: Losses; those that are not finite become 0.

    Returns:
        float32 [A] in 0..1; 0.5 for the median loss.
    """
    finite = loss_A[np.isfinite(loss_A)]
    if not len(finite):
        return np.zeros(len(loss_A), np.float32)
    median = np.median(finite)
    deviation = 1.4826 * np.median(np.abs(finite - median))
    # If most losses are equal, the standard deviation still separates the others.
    spread = deviation or np.std(finite) or 1.0
    scaled_A = np.clip((loss_A - median) / spread, -50, 50)
    return (1 / (1 + np.exp(scaled_A))).astype(np.float32)


def folds(key: jax.Array, number: int) -> np.ndarray:
    """Chooses which architectures each member is fitted to.

    Each member misses another fifth of a random order.

    Args:
        key: The key of the order; consumed.
        number: Number of architectures.

    Returns:
        float32 [E, A]: 1 where the member sees the architecture, 0 elsewhere.
    """
    seed = np.asarray(jax.random.bits(key, (2,), np.uint32))
    order_A = np.random.default_rng(seed).permutation(number)
    missed_E = np.arange(MEMBERS)
    sees_ExA = order_A[None] % MEMBERS != missed_E[:, None]
    return sees_ExA.astype(np.float32)


def _make_train(rate: Callable) -> Callable:
    """Makes the compiled function that fits all members."""

    @jax.jit
    def train(
        params, tokens_AxLxF, level, target_A, weight_ExA, learning_rate
    ):
        adam = optax.adam(learning_rate)

        def step(_, params_and_moments, weight_A):
            params, moments = params_and_moments

            def error(params):
                rating_A = rate(params, tokens_AxLxF, level)
                return _mean_error(rating_A, target_A, weight_A)

            gradient = jax.grad(error)(params)
            # optax mixes its int32 count with floats.
            with jax.numpy_dtype_promotion("standard"):
                updates, moments = adam.update(gradient, moments)
            return optax.apply_updates(params, updates), moments

        def member(params, weight_A):
            start = (params, adam.init(params))
            body = partial(step, weight_A=weight_A)
            fitted, _ = jax.lax.fori_loop(0, STEPS, body, start)
            return fitted

        return jax.vmap(member)(params, weight_ExA)

    return train


def _mean_error(
    rating_A: jax.Array, target_A: jax.Array, weight_A: jax.Array
) -> jax.Array:
    """Returns the mean absolute error where the weight is 1; 0 if it is nowhere."""
    error_A = weight_A * jnp.abs(rating_A - target_A)
    return error_A.sum() / jnp.maximum(weight_A.sum(), 1)


def _pad(array: np.ndarray, *shape: int) -> np.ndarray:
    """Appends zeros along the leading axes, up to ``shape``."""
    shape += array.shape[len(shape) :]
    widths = [(0, to - n) for to, n in zip(shape, array.shape, strict=True)]
    return np.pad(array, widths)
