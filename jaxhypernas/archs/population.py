"""Populations on the host: pytrees of NumPy arrays whose leading axis, A, counts candidates."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxhypernas.types import Arch, Space

BATCH = 64  # candidates that one compiled program takes at once


def size(population: Arch) -> int:
    """How many candidates."""
    return len(jax.tree.leaves(population)[0])


def rows(population: Arch, index: Any) -> Arch:
    """The candidates at an index: a number, a slice, an array of numbers or of bools."""
    return jax.tree.map(lambda x: x[index], population)


def concatenate(*populations: Arch) -> Arch:
    """All candidates, in order."""
    return jax.tree.map(lambda *x: np.concatenate(x), *populations)


def in_batches(f: Callable[[Any], Any], arrays: Any, batch: int = BATCH) -> Any:
    """``f`` over all rows, ``batch`` at a time; the last row fills up the last batch, so ``f`` compiles once."""
    total = size(arrays)
    parts = [
        f(rows(arrays, np.minimum(np.arange(i, i + batch), total - 1)))
        for i in range(0, total, batch)
    ]
    return rows(concatenate(*parts), slice(total))


def make_unique(space: Space) -> Callable[[Arch], np.ndarray]:
    """A function of a population: the indices, ascending, of the first of each group of isomorphic candidates."""
    canonical = jax.jit(jax.vmap(space.canonical))

    def unique(population: Arch) -> np.ndarray:
        same = in_batches(canonical, population, 8 * BATCH)
        flat = [
            np.asarray(x, np.int32).reshape(len(x), -1)
            for x in jax.tree.leaves(same)
        ]
        bytes_Ax = np.ascontiguousarray(np.concatenate(flat, 1))
        return np.sort(
            np.unique(
                bytes_Ax.view(f"V{bytes_Ax.shape[1] * 4}")[:, 0],
                return_index=True,
            )[1]
        )

    return unique
