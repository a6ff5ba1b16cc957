"""Isomorphic candidates of a population, found by the ids of canonical forms."""

from collections.abc import Callable

import jax
import numpy as np

from jaxhypernas.archs.population import BATCH, identities, in_batches
from jaxhypernas.types import Arch, Space


def make_unique(space: Space) -> Callable[[Arch], np.ndarray]:
    """Makes a function that finds one candidate of each isomorphism class.

    Args:
        space: The space; its `Space.canonical` is compiled once.

    Returns:
        ``unique(population)``: int64 indices, ascending, of the first candidate of
        each class.
    """
    canonical = jax.jit(jax.vmap(space.canonical))

    def unique(population: Arch) -> np.ndarray:
        # Levels of progressive search are large, so batches are larger than usual.
        id_A = identities(in_batches(canonical, population, 8 * BATCH))
        _, first = np.unique(id_A, return_index=True)
        return np.sort(first)

    return unique
