"""The surrogates of progressive search (PNAS, Liu et al. 2018, section 3.4): a rating of architectures not yet scored.

An ensemble of five, each fitted to its own 4/5 of a level's architectures; a rating is their mean, higher is better.
L counts blocks, F fields of a block, E members.

Deviations:
1. The paper predicts accuracy. Here the target is a level's loss, turned round and scaled into (0, 1) by
   ``sigmoid((median - loss) / (1.4826 * median absolute deviation))``: it needs no units, and a failed candidate
   (infinite loss) is an ordinary 0. Ratings compare architectures of one level.
2. The output's bias therefore starts at 0, where targets are centred (paper: 1.8, for accuracies near 0.86).
3. Every fit is `STEPS` steps of Adam on all of a member's data; the paper leaves batches and epochs open. Adam's
   moments start anew at each level, the weights do not.
4. Embeddings are products with one-hot vectors: gradients don't depend on the order in which a device adds them up.
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
from jaxhypernas.types import Arch, Growth, Params

HIDDEN = 100  # and of embeddings
MEMBERS = 5
STEPS = 200
RATES = (1e-2, 2e-3)  # Adam's learning rate at level 1, and later
PREDICT = 1024  # architectures rated at once


class Surrogate(NamedTuple):
    """Ratings in (0, 1) of architectures, given by their tokens; arrays of one level, NumPy, on the host."""

    init: Callable[[jax.Array], Params]  # key -> parameters of all members
    fit: Callable[
        [Params, jax.Array, np.ndarray, np.ndarray], Params
    ]  # (.., key, tokens_AxLxF, loss_A) -> fitted
    predict: Callable[
        [Params, np.ndarray], np.ndarray
    ]  # (parameters, tokens_AxLxF) -> rating_A


def make_surrogate(
    kind: Literal["mlp", "lstm"], growth: Growth, most: int
) -> Surrogate:
    """The surrogate for a space's architectures of any level; fits take at most ``most`` of them.

    Arrays are padded to ``most`` rows and all levels, so each function is compiled once.
    """
    module = partial(
        {"mlp": MLP, "lstm": LSTM}[kind], growth.vocabulary, growth.kinds
    )
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: module(nnx.Rngs(0))))

    def rate(params, tokens_AxLxF, level):
        return jax.nn.sigmoid(nnx.merge(graphdef, params)(tokens_AxLxF, level))

    @jax.jit
    def init(key):
        keys_E = jax.random.split(key, MEMBERS)
        return jax.vmap(
            lambda k: nnx.to_pure_dict(nnx.state(module(nnx.Rngs(params=k))))
        )(keys_E)

    @jax.jit
    def train(params, tokens_AxLxF, level, target_A, weight_ExA, learning_rate):
        adam = optax.adam(learning_rate)

        def step(_, params_and_moments, weight_A):
            params, moments = params_and_moments
            gradient = jax.grad(
                lambda p: mean_error(
                    rate(p, tokens_AxLxF, level), target_A, weight_A
                )
            )(params)
            with jax.numpy_dtype_promotion(
                "standard"
            ):  # optax mixes its int32 count with floats
                updates, moments = adam.update(gradient, moments)
            return optax.apply_updates(params, updates), moments

        def member(params, weight_A):
            return jax.lax.fori_loop(
                0,
                STEPS,
                partial(step, weight_A=weight_A),
                (params, adam.init(params)),
            )[0]

        return jax.vmap(member)(params, weight_ExA)

    @jax.jit
    def rate_all(params, tokens_AxLxF, level):
        return jax.vmap(rate, (0, None, None))(
            params, tokens_AxLxF, level
        ).mean(0)

    def fit(params, key, tokens_AxLxF, loss_A):
        level = tokens_AxLxF.shape[1]
        data = (
            pad(tokens_AxLxF, most, growth.levels),
            level,
            pad(target(loss_A), most),
        )
        weight_ExA = pad(folds(key, len(loss_A)).T, most).T
        return train(params, *data, weight_ExA, RATES[level > 1])

    def predict(params, tokens_AxLxF):
        padded = pad(tokens_AxLxF, len(tokens_AxLxF), growth.levels)
        return in_batches(
            lambda part: rate_all(params, part, tokens_AxLxF.shape[1]),
            padded,
            PREDICT,
        )

    return Surrogate(init, fit, predict)


class Embedding(nnx.Module):
    """A table per kind of field; initially uniform in -0.1..0.1."""

    def __init__(
        self,
        vocabulary: tuple[int, ...],
        kinds: tuple[int, ...],
        rngs: nnx.Rngs,
    ):
        self.kinds = kinds
        self.tables = nnx.Dict()
        for kind in sorted(set(kinds)):
            values = max(
                n for n, k in zip(vocabulary, kinds, strict=True) if k == kind
            )
            table = jax.random.uniform(
                rngs.params(), (values, HIDDEN), minval=-0.1, maxval=0.1
            )
            self.tables[f"kind_{kind}"] = nnx.Param(table)

    def __call__(self, tokens_AxLxF: jax.Array) -> jax.Array:
        """A x L x F x D."""
        tables = [self.tables[f"kind_{kind}"][...] for kind in self.kinds]
        fields = [
            jax.nn.one_hot(tokens_AxLxF[..., f], len(table)) @ table
            for f, table in enumerate(tables)
        ]
        return jnp.stack(fields, -2)


class MLP(nnx.Module):
    """A block's embeddings side by side, the mean over blocks, two hidden layers of rectified units."""

    def __init__(
        self,
        vocabulary: tuple[int, ...],
        kinds: tuple[int, ...],
        rngs: nnx.Rngs,
    ):
        self.embed = Embedding(vocabulary, kinds, rngs)
        self.first = nnx.Linear(len(kinds) * HIDDEN, HIDDEN, rngs=rngs)
        self.second = nnx.Linear(HIDDEN, HIDDEN, rngs=rngs)
        self.out = nnx.Linear(HIDDEN, 1, rngs=rngs)

    def __call__(
        self, tokens_AxLxF: jax.Array, level: jax.Array | int
    ) -> jax.Array:
        """Ratings A before the sigmoid, from the first ``level`` blocks."""
        A, L, F = tokens_AxLxF.shape
        block_AxLxD = self.embed(tokens_AxLxF).reshape(A, L, F * HIDDEN)
        real_1xLx1 = (jnp.arange(L) < level)[None, :, None]
        x_AxD = jnp.where(real_1xLx1, block_AxLxD, 0).sum(1) / jnp.asarray(
            level, jnp.float32
        )
        return self.out(nnx.relu(self.second(nnx.relu(self.first(x_AxD)))))[
            :, 0
        ]


class LSTM(nnx.Module):
    """The fields of all blocks in order, each a step; the last output of the real blocks decides."""

    def __init__(
        self,
        vocabulary: tuple[int, ...],
        kinds: tuple[int, ...],
        rngs: nnx.Rngs,
    ):
        self.embed = Embedding(vocabulary, kinds, rngs)
        self.cell = nnx.OptimizedLSTMCell(HIDDEN, HIDDEN, rngs=rngs)
        self.out = nnx.Linear(HIDDEN, 1, rngs=rngs)

    def __call__(
        self, tokens_AxLxF: jax.Array, level: jax.Array | int
    ) -> jax.Array:
        """Ratings A before the sigmoid, from the first ``level`` blocks."""
        A, L, F = tokens_AxLxF.shape
        x_TxAxD = (
            self.embed(tokens_AxLxF).reshape(A, L * F, HIDDEN).swapaxes(0, 1)
        )

        def step(carry, x_and_time):
            x_AxD, time = x_and_time
            after, _ = self.cell(carry, x_AxD)
            return jax.tree.map(
                partial(jnp.where, time < level * F), after, carry
            ), None

        zeros_AxD = jnp.zeros((A, HIDDEN))
        (_, h_AxD), _ = jax.lax.scan(
            step, (zeros_AxD, zeros_AxD), (x_TxAxD, jnp.arange(L * F))
        )
        return self.out(h_AxD)[:, 0]


def mean_error(
    rating_A: jax.Array, target_A: jax.Array, weight_A: jax.Array
) -> jax.Array:
    """The mean absolute error over candidates of weight 1; 0 if there is none."""
    return (weight_A * jnp.abs(rating_A - target_A)).sum() / jnp.maximum(
        weight_A.sum(), 1
    )


def target(loss_A: np.ndarray) -> np.ndarray:
    """Losses as ratings in 0..1, 0.5 for the median: deviation 1."""
    finite = loss_A[np.isfinite(loss_A)]
    if not len(finite):
        return np.zeros(len(loss_A), np.float32)
    middle = np.median(finite)
    spread = (
        1.4826 * np.median(np.abs(finite - middle)) or np.std(finite) or 1.0
    )
    return (
        1 / (1 + np.exp(np.clip((loss_A - middle) / spread, -50, 50)))
    ).astype(np.float32)


def folds(key: jax.Array, number: int) -> np.ndarray:
    """Which candidates each member sees, float E x A of 0 and 1: it misses every fifth of a random order."""
    seed = np.asarray(jax.random.bits(key, (2,), np.uint32))
    order_A = np.random.default_rng(seed).permutation(number)
    return (order_A[None] % MEMBERS != np.arange(MEMBERS)[:, None]).astype(
        np.float32
    )


def pad(array: np.ndarray, *shape: int) -> np.ndarray:
    """Zeros behind the leading axes, up to ``shape``."""
    shape += array.shape[len(shape) :]
    return np.pad(
        array, [(0, to - n) for to, n in zip(shape, array.shape, strict=True)]
    )


class Correlation(NamedTuple):
    """Spearman's rank correlation between a surrogate's ratings and low losses; 1 is a perfect order."""

    level: int  # the one it was fitted to
    trained: float  # on the architectures it was fitted to
    extrapolated: (
        float  # on architectures of the next level; NaN where none are scored
    )


def correlation(
    surrogate: Surrogate,
    params: Params,
    growth: Growth,
    level: int,
    trained: tuple[Arch, np.ndarray],
    following: tuple[Arch, np.ndarray] | None = None,
) -> Correlation:
    """How a surrogate fitted to ``trained`` (a population of ``level``, its losses) ranks it and ``following``."""

    def rank(population, loss_A, level):
        return stats.spearman(
            surrogate.predict(params, growth.tokens(population, level)), -loss_A
        )

    extrapolated = (
        float("nan") if following is None else rank(*following, level + 1)
    )
    return Correlation(level, rank(*trained, level), extrapolated)
