"""Samples and mutations within limits, by rejection on the host.

A draw depends on its key and its number alone. Programs have one shape, `BATCH`,
however many candidates are asked for.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.archs.population import BATCH, concatenate, rows, size
from jaxhypernas.search.configs import Limits
from jaxhypernas.types import Arch, Space, UserError

SAMPLE_TRIES = 128
"""Batches of samples in a row without a candidate that fits, before giving up."""

MUTATE_TRIES = 16
"""Batches of mutations of the same parents."""


class Draw(NamedTuple):
    """Ways to draw candidates that keep to limits."""

    fits: Callable[[Arch], np.ndarray]
    """``fits(population)``: bool [A], whether each candidate keeps to the limits."""

    sample: Callable[[jax.Array, int], Arch]
    """``sample(key, number)``: a population of samples."""

    stream: Callable[[jax.Array, int], Iterator[Arch]]
    """``stream(key, number)``: the same samples in pieces. The first samples are the
    same for any number."""

    mutate: Callable[[jax.Array, Arch], Arch]
    """``mutate(key, parents)``: a child of each parent; parents keep to the limits."""


def within(space: Space, limits: Limits) -> Draw:
    """Makes functions that draw candidates of a space within limits.

    ``sample`` and ``stream`` raise `UserError` when `SAMPLE_TRIES` batches in a row
    hold no candidate that fits. In ``mutate``, up to `BATCH` parents share
    `MUTATE_TRIES` batches of mutations. A parent none of whose mutations fits is its
    own child: the child keeps to the limits for certain, and costs nothing where scores
    are kept.

    Args:
        space: The space.
        limits: The limits.

    Returns:
        The functions.
    """
    stream = _make_stream(space, limits)

    def sample(key: jax.Array, number: int) -> Arch:
        return concatenate(*stream(key, number))

    return Draw(
        fits=partial(_fits, space, limits),
        sample=sample,
        stream=stream,
        mutate=_make_mutate(space, limits),
    )


def nothing_fits(space: Space, limits: Limits, population: Arch) -> UserError:
    """Makes the error for a population in which no candidate fits.

    Args:
        space: The space.
        limits: The limits.
        population: The candidates.

    Returns:
        The error, which names each limit that is too low and the smallest count.
    """
    least_2 = _excess(space, limits, population).min(0)
    guilty_2 = least_2 > 0
    if not guilty_2.any():
        # Each limit alone can be met, but not both by one candidate.
        guilty_2 = np.array([limits.max_params, limits.max_flops]) > 0

    complaints = []
    names = ("max_params", "max_flops")
    for name, least, guilty in zip(names, least_2, guilty_2, strict=True):
        if not guilty:
            continue
        limit = getattr(limits, name)
        reason = "met, but not with the other limit"
        if least > 0:
            reason = "too few"
        complaints.append(
            f"search.{name}: {limit} is {reason}: the smallest of "
            f"{size(population)} architectures has {limit + least}"
        )
    return UserError("; ".join(complaints))


def _make_stream(
    space: Space, limits: Limits
) -> Callable[[jax.Array, int], Iterator[Arch]]:
    @jax.jit
    def samples(key, start):
        # The key of a sample depends on its number, not on its batch.
        def sample(i):
            return space.sample(jax.random.fold_in(key, start + i), 1.0)

        return jax.vmap(sample)(jnp.arange(BATCH))

    def stream(key: jax.Array, number: int) -> Iterator[Arch]:
        found = 0
        start = 0
        misfits = []
        while found < number:
            drawn = jax.tree.map(np.asarray, samples(key, start))
            start += BATCH
            good = np.flatnonzero(_fits(space, limits, drawn))

            misfits = [] if len(good) else [*misfits, drawn]
            if len(misfits) == SAMPLE_TRIES:
                raise nothing_fits(space, limits, concatenate(*misfits))
            if len(good):
                yield rows(drawn, good[: number - found])
            found += len(good)

    return stream


def _make_mutate(
    space: Space, limits: Limits
) -> Callable[[jax.Array, Arch], Arch]:
    @jax.jit
    def mutations(key, start, parents):
        def mutation(i, parent):
            return space.mutate(jax.random.fold_in(key, start + i), parent)

        return jax.vmap(mutation)(jnp.arange(BATCH), parents)

    def mutate(key: jax.Array, parents: Arch) -> Arch:
        children = jax.tree.map(np.array, parents)
        start = 0
        for first in range(0, size(parents), BATCH):
            pending = np.arange(first, min(first + BATCH, size(parents)))
            for _ in range(MUTATE_TRIES):
                # Every lane of the program works: pending parents take turns.
                lane_A = np.resize(pending, BATCH)
                tried = rows(parents, lane_A)
                drawn = jax.tree.map(np.asarray, mutations(key, start, tried))
                start += BATCH

                good = np.flatnonzero(_fits(space, limits, drawn))
                done, which = np.unique(lane_A[good], return_index=True)
                _assign(children, done, rows(drawn, good[which]))
                pending = np.setdiff1d(pending, done)
                if not len(pending):
                    break
        return children

    return mutate


def _assign(population: Arch, index: np.ndarray, new: Arch) -> None:
    """Overwrites candidates of a population in place."""

    def assign(leaf: np.ndarray, new_leaf: np.ndarray) -> None:
        leaf[index] = new_leaf

    jax.tree.map(assign, population, new)


def _fits(space: Space, limits: Limits, population: Arch) -> np.ndarray:
    """Returns bool [A]; counts nothing where there is no limit."""
    if limits == Limits():
        return np.ones(size(population), bool)
    return np.all(_excess(space, limits, population) <= 0, axis=1)


def _excess(space: Space, limits: Limits, population: Arch) -> np.ndarray:
    """Returns int64 [A, 2]: parameters and multiply-adds above their limits.

    The excess over no limit is 0.
    """
    cost = space.cost(population)
    params_A = cost.params - limits.max_params
    flops_A = cost.flops - limits.max_flops
    limited_2 = np.array([limits.max_params, limits.max_flops]) > 0
    return np.where(limited_2, np.stack([params_A, flops_A], -1), 0)
