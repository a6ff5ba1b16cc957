"""A small space whose architectures grow, as PNAS's do.

An architecture has three blocks of (input, input, op, op).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.types import Array, Cost, Growth, Space

LEVELS, OPS = 3, 3
PARAMS = np.array([0, 5, 9])
"""Parameters of each op."""


class Toy(NamedTuple):
    block_3x4: Array
    """Inputs of block b in 0..1 + b, ops in 0..2; 0 in blocks that don't exist."""

    blocks: Array
    """Number of blocks that exist."""


def sample(key, progress):
    del progress
    most_3x4 = jnp.array([[2 + b, 2 + b, OPS, OPS] for b in range(LEVELS)])
    return Toy(
        jax.random.randint(key, (LEVELS, 4), 0, most_3x4), jnp.int32(LEVELS)
    )


def mutate(key, arch):
    """One field of one block drawn anew."""
    where_key, value_key = jax.random.split(key)
    where = jax.random.randint(where_key, (), 0, LEVELS * 4)
    picked_3x4 = jnp.arange(LEVELS * 4).reshape(LEVELS, 4) == where
    return arch._replace(
        block_3x4=jnp.where(
            picked_3x4, sample(value_key, 1.0).block_3x4, arch.block_3x4
        )
    )


def canonical(arch):
    """The two halves of a block in order."""
    first, second, left, right = arch.block_3x4.T
    swap_3 = first * OPS + left > second * OPS + right
    swapped_3x4 = jnp.stack([second, first, right, left], 1)
    return arch._replace(
        block_3x4=jnp.where(swap_3[:, None], swapped_3x4, arch.block_3x4)
    )


def cost(arch):
    exists = np.arange(LEVELS) < np.asarray(arch.blocks)[..., None]
    params = (
        (PARAMS[np.asarray(arch.block_3x4)[..., 2:]].sum(-1) * exists)
        .sum(-1)
        .astype(np.int64)
    )
    return Cost(params, 10 * params, params, 10 * params, 9 * params)


def children(parents, level):
    """Both orders of every pair: each child but the symmetric ones twice."""
    inputs, ops = np.arange(level + 1), np.arange(OPS)
    new = np.stack(
        [
            x.ravel()
            for x in np.meshgrid(inputs, inputs, ops, ops, indexing="ij")
        ],
        1,
    )
    old = (
        np.zeros((1, LEVELS, 4), np.int32)
        if parents is None
        else np.asarray(parents.block_3x4)
    )
    grown = np.repeat(old, len(new), 0)
    grown[:, level - 1] = np.tile(new, (len(old), 1))
    return Toy(grown.astype(np.int32), np.full(len(grown), level, np.int32))


def absent(arch) -> Any:
    """Stands for functions of a space that searches do not call."""
    raise NotImplementedError


GROWTH = Growth(
    levels=LEVELS,
    children=children,
    tokens=lambda population, level: np.asarray(population.block_3x4)[
        :, :level
    ],
    vocabulary=(LEVELS + 1, LEVELS + 1, OPS, OPS),
    kinds=(0, 0, 1, 1),
)
TOY = Space(
    name="toy",
    sample=sample,
    mutate=mutate,
    canonical=canonical,
    graph=absent,
    cost=cost,
    depth=absent,
    to_string=str,
    from_string=str,
    log10_size=float(
        np.log10(np.prod([(b + 2) ** 2 * OPS**2 for b in range(LEVELS)]))
    ),
    growth=GROWTH,
)


def loss(population):
    """Separable up to a small interaction of a block's two ops."""
    arch = jax.tree.map(np.asarray, canonical_all(population))
    exists = np.arange(LEVELS) < arch.blocks[..., None]
    value = np.array([0.0, -0.31, -0.173])[arch.block_3x4[..., 2:]]
    gain = 1 + np.array([0.0, 0.11, 0.27, 0.35])[arch.block_3x4[..., :2]]
    weight = np.array([1.0, 0.83, 0.71])
    together = 0.05 * (arch.block_3x4[..., 2] != arch.block_3x4[..., 3])
    return 3 + (((value * gain).sum(-1) - together) * weight * exists).sum(-1)


canonical_all = jax.jit(jax.vmap(canonical))
