"""Populations to score, in pieces: random ones, all of a space, or parsed strings."""

from collections.abc import Iterable, Iterator
from itertools import islice

import jax
import numpy as np

from jaxhypernas.archs.population import BATCH, concatenate
from jaxhypernas.search.budget import Draw
from jaxhypernas.types import Arch, Space, UserError

PIECE = 64 * BATCH
"""Candidates of a stream that are in memory at once."""


def iter_samples(draw: Draw, number: int, key: jax.Array) -> Iterator[Arch]:
    """Draws random architectures in pieces.

    The first ones are the same for any number.

    Args:
        draw: Draws within the limits of the search.
        number: How many.
        key: Random key; consumed.
    """
    for batches in _pieces(draw.stream(key, number), PIECE // BATCH):
        yield concatenate(*batches)


def iter_all(space: Space) -> Iterator[Arch]:
    """Returns all architectures of a space, in pieces.

    Args:
        space: The space.

    Raises:
        UserError: The space cannot list its architectures.
    """
    if space.all is None:
        raise UserError(
            f"all: architectures of {space.name} cannot be listed: use --random N"
        )
    size, at = space.all
    return (at(np.array(piece)) for piece in _pieces(range(size), PIECE))


def parse(space: Space, strings: Iterable[str]) -> Arch:
    """Returns the population that architecture strings describe.

    Args:
        space: The space.
        strings: At least one string.

    Raises:
        UserError: A string is not an architecture of the space.
    """
    archs = [space.from_string(text) for text in strings]
    return jax.tree.map(lambda *x: np.stack(x), *archs)


def iter_parsed(space: Space, strings: Iterable[str]) -> Iterator[Arch]:
    """Returns the population of `parse` in pieces.

    Args:
        space: The space.
        strings: Architecture strings.
    """
    return (parse(space, piece) for piece in _pieces(strings, PIECE))


def _pieces(items: Iterable, number: int) -> Iterator[list]:
    items = iter(items)
    while piece := list(islice(items, number)):
        yield piece
