"""Populations on the host: pytrees of NumPy arrays whose leading axis is A."""

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxhypernas.types import Arch

BATCH = 64
"""Candidates that one compiled program takes at once."""


def size(population: Arch) -> int:
    """Returns the number of candidates.

    Args:
        population: A pytree of arrays with a leading axis A.

    Returns:
        The length of A.
    """
    return len(jax.tree.leaves(population)[0])


def rows(population: Arch, index: Any) -> Arch:
    """Returns the candidates at an index.

    Args:
        population: A pytree of arrays with a leading axis A.
        index: A number, a slice, or an array of numbers or of bools. A number gives
            one architecture, without the axis A.

    Returns:
        The candidates, in the order of the index.
    """
    return jax.tree.map(lambda x: x[index], population)


def concatenate(*populations: Arch) -> Arch:
    """Joins populations into one, in order.

    Args:
        populations: Pytrees of the same structure; at least one.

    Returns:
        One population of all candidates, as NumPy arrays.
    """
    return jax.tree.map(lambda *x: np.concatenate(x), *populations)


def in_batches(
    f: Callable[[Any], Any], arrays: Any, batch: int = BATCH
) -> Any:
    """Applies a function to all rows, a fixed number at a time.

    Args:
        f: A function of ``batch`` rows that returns as many rows.
        arrays: A pytree of arrays with a leading axis; at least one row.
        batch: Number of rows that ``f`` takes.

    Returns:
        The results for all rows, as NumPy arrays.
    """
    total = size(arrays)
    parts = []
    for start in range(0, total, batch):
        # The last row fills up the last batch, so that f is compiled once.
        index = np.minimum(np.arange(start, start + batch), total - 1)
        parts.append(f(rows(arrays, index)))
    return rows(concatenate(*parts), slice(total))


def identities(population: Arch) -> np.ndarray:
    """Hashes each architecture's arrays to 64 bits.

    Isomorphic architectures share an id if their canonical forms are hashed.

    Args:
        population: Canonical architectures, from `Space.canonical`.

    Returns:
        uint64 [A]: the ids.
    """
    flat = [
        np.asarray(leaf, np.int32).reshape(len(leaf), -1)
        for leaf in jax.tree.leaves(population)
    ]
    digests = (
        hashlib.blake2b(row, digest_size=8).digest()
        for row in np.concatenate(flat, 1)
    )
    # Big-endian: an id in hexadecimal reads like its digest, on every machine.
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)
