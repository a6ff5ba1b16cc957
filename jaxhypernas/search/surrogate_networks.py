"""Networks that rate architectures (PNAS, Liu et al. 2018, section 3.4).

Axes: A architectures, L blocks, F fields of a block, D hidden units, T time steps.

Deviation:
1. Embeddings are products with one-hot vectors: gradients don't depend on the order in
   which a device adds them up.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
from flax import nnx

HIDDEN = 100
"""Hidden units, and the size of an embedding."""


class Embedding(nnx.Module):
    """Embeds each field; fields of one kind share a table, uniform in -0.1..0.1."""

    def __init__(
        self,
        vocabulary: tuple[int, ...],
        kinds: tuple[int, ...],
        rngs: nnx.Rngs,
    ):
        self.kinds = kinds
        self.tables = nnx.Dict()
        fields = list(zip(vocabulary, kinds, strict=True))
        for kind in sorted(set(kinds)):
            values = max(number for number, k in fields if k == kind)
            table = jax.random.uniform(
                rngs.params(), (values, HIDDEN), minval=-0.1, maxval=0.1
            )
            self.tables[f"kind_{kind}"] = nnx.Param(table)

    def __call__(self, tokens_AxLxF: jax.Array) -> jax.Array:
        """Embeds tokens.

        Args:
            tokens_AxLxF: int32 tokens.

        Returns:
            float32 [A, L, F, D].
        """
        chex.assert_shape(tokens_AxLxF, (None, None, len(self.kinds)))
        embedded = []
        for field, kind in enumerate(self.kinds):
            table = self.tables[f"kind_{kind}"][...]
            one_hot = jax.nn.one_hot(tokens_AxLxF[..., field], len(table))
            embedded.append(one_hot @ table)
        return jnp.stack(embedded, -2)


class MLP(nnx.Module):
    """Averages the embeddings of blocks, then applies two layers of rectified units."""

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
        """Rates architectures.

        Args:
            tokens_AxLxF: int32 tokens; blocks from ``level`` on are ignored.
            level: Number of blocks that exist.

        Returns:
            float32 [A]: ratings before the sigmoid.
        """
        A, L, F = tokens_AxLxF.shape
        block_AxLxD = self.embed(tokens_AxLxF).reshape(A, L, F * HIDDEN)
        real_1xLx1 = (jnp.arange(L) < level)[None, :, None]
        sum_AxD = jnp.where(real_1xLx1, block_AxLxD, 0).sum(1)

        x_AxD = sum_AxD / jnp.asarray(level, jnp.float32)
        x_AxD = nnx.relu(self.first(x_AxD))
        x_AxD = nnx.relu(self.second(x_AxD))
        return self.out(x_AxD)[:, 0]


class LSTM(nnx.Module):
    """Reads the fields of all blocks in order, one a step; rates by the last output."""

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
        """Rates architectures.

        Args:
            tokens_AxLxF: int32 tokens; blocks from ``level`` on are ignored.
            level: Number of blocks that exist.

        Returns:
            float32 [A]: ratings before the sigmoid.
        """
        A, L, F = tokens_AxLxF.shape
        x_AxTxD = self.embed(tokens_AxLxF).reshape(A, L * F, HIDDEN)
        x_TxAxD = x_AxTxD.swapaxes(0, 1)

        def step(carry, x_and_time):
            x_AxD, time = x_and_time
            after, _ = self.cell(carry, x_AxD)
            # Blocks that don't exist leave the state as it is.
            keep = partial(jnp.where, time < level * F)
            return jax.tree.map(keep, after, carry), None

        zeros_AxD = jnp.zeros((A, HIDDEN))
        carry = (zeros_AxD, zeros_AxD)
        (_, h_AxD), _ = jax.lax.scan(step, carry, (x_TxAxD, jnp.arange(L * F)))
        return self.out(h_AxD)[:, 0]
