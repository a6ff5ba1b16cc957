"""Samples and mutations within a budget, by rejection on the host.

A draw depends on its key and its number alone. Programs have one shape, `BATCH`, however many candidates are asked for.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.archs.population import BATCH, concatenate, rows, size
from jaxhypernas.types import Arch, Space, UserError

SAMPLE_TRIES = (
    128  # batches of samples in a row of which none fits, before giving up
)
MUTATE_TRIES = 16  # batches of mutations of the same parents


class Budget(NamedTuple):
    """The most parameters and FLOPs a candidate may have, counting all, not only live paths; 0 sets no limit."""

    params: int = 0
    flops: int = 0


class Draw(NamedTuple):
    """Ways to draw candidates of a space within a budget."""

    fits: Callable[[Arch], np.ndarray]  # population -> bool_A
    sample: Callable[[jax.Array, int], Arch]  # (key, number) -> population
    stream: Callable[
        [jax.Array, int], Iterator[Arch]
    ]  # the same in pieces: the first ones are the same for any number
    mutate: Callable[
        [jax.Array, Arch], Arch
    ]  # (key, parents within the budget) -> a child of each


def within(space: Space, budget: Budget) -> Draw:
    """Draws of ``space`` within ``budget``.

    ``sample`` and ``stream`` raise UserError when `SAMPLE_TRIES` batches in a row hold no candidate that fits. A parent
    none of whose mutations fits (`MUTATE_TRIES` batches are shared by up to `BATCH` parents) is its own child: that is
    within the budget for certain, and costs nothing where scores are kept.
    """

    @jax.jit
    def samples(key, start):
        return jax.vmap(
            lambda i: space.sample(jax.random.fold_in(key, start + i), 1.0)
        )(jnp.arange(BATCH))

    @jax.jit
    def mutations(key, start, parents):
        keys = jax.vmap(lambda i: jax.random.fold_in(key, start + i))(
            jnp.arange(BATCH)
        )
        return jax.vmap(space.mutate)(keys, parents)

    def fits(population: Arch) -> np.ndarray:
        if budget == Budget():
            return np.ones(size(population), bool)
        return np.all(excess(space, budget, population) <= 0, axis=1)

    def stream(key: jax.Array, number: int) -> Iterator[Arch]:
        found, tried, start = 0, [], 0
        while found < number:
            drawn = jax.tree.map(np.asarray, samples(key, start))
            start, good_A = start + BATCH, fits(drawn)
            tried = [] if good_A.any() else [*tried, drawn]
            if len(tried) == SAMPLE_TRIES:
                raise nothing_fits(space, budget, concatenate(*tried))
            yield rows(drawn, np.flatnonzero(good_A)[: number - found])
            found += int(good_A.sum())

    def sample(key: jax.Array, number: int) -> Arch:
        return concatenate(*stream(key, number))

    def mutate(key: jax.Array, parents: Arch) -> Arch:
        children, start = jax.tree.map(np.array, parents), 0
        for first in range(0, size(parents), BATCH):
            pending = np.arange(first, min(first + BATCH, size(parents)))
            for _ in range(MUTATE_TRIES):
                lane_A = np.resize(
                    pending, BATCH
                )  # every lane works: parents take turns
                drawn = jax.tree.map(
                    np.asarray, mutations(key, start, rows(parents, lane_A))
                )
                good = np.flatnonzero(fits(drawn))
                done, which = np.unique(lane_A[good], return_index=True)
                for child, new in zip(
                    jax.tree.leaves(children),
                    jax.tree.leaves(drawn),
                    strict=True,
                ):
                    child[done] = new[good[which]]
                start, pending = start + BATCH, np.setdiff1d(pending, done)
                if not len(pending):
                    break
        return children

    return Draw(fits, sample, stream, mutate)


def excess(space: Space, budget: Budget, population: Arch) -> np.ndarray:
    """By how much each candidate's parameters and FLOPs exceed the budget, int64 A x 2; 0 where there is no limit."""
    cost = space.cost(population)
    limits_and_counts = (
        (budget.params, cost.params),
        (budget.flops, cost.flops),
    )
    return np.stack(
        [
            count_A - limit if limit else np.zeros_like(count_A)
            for limit, count_A in limits_and_counts
        ],
        -1,
    )


def nothing_fits(space: Space, budget: Budget, population: Arch) -> UserError:
    """What to tell the user when no candidate of a population fits."""
    least_2 = excess(space, budget, population).min(0)
    set_2 = np.array(budget) > 0
    guilty_2 = (
        least_2 > 0 if (least_2 > 0).any() else set_2
    )  # none alone, but the two together
    told = [
        f"{name}: {limit} is {'too few' if least > 0 else 'met, but not with the other limit'}: the smallest of "
        f"{size(population)} architectures has {limit + least}"
        for name, limit, least, guilty in zip(
            ("search.max_params", "search.max_flops"),
            budget,
            least_2,
            guilty_2,
            strict=True,
        )
        if guilty
    ]
    return UserError("; ".join(told))
