"""NSGA-II (Deb et al. 2002): the front of loss against parameters or FLOPs.

Deviations:
1. A child is a mutation of one parent: spaces have no crossover.
2. Isomorphic candidates count once: in a discrete space, copies would fill the front.
3. A candidate that failed (infinite loss) is infinite in both objectives, so that no small size saves it.
"""

from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxhypernas.archs.population import concatenate, make_unique, rows
from jaxhypernas.search.budget import Budget, within
from jaxhypernas.types import Arch, Space, Strategy, UserError


class _State(NamedTuple):
    key: jax.Array
    asked: int  # candidates
    population: Any  # by front, then by crowding: of two candidates the first one wins a tournament
    loss_A: np.ndarray


def nsga2(
    space: Space,
    number: int,
    population: int,
    objective: Literal["params", "flops"],
    budget: Budget,
) -> Strategy:
    """``number`` candidates in all, in generations of ``population`` (published: 100), of which the first is sampled.

    The best ``population`` of parents and children by front, then by crowding distance, are the next parents; binary
    tournaments choose who is mutated.
    """
    if population > number:
        raise UserError(
            f"search.population: {population} must be at most search.number, {number}"
        )
    draw, unique = within(space, budget), make_unique(space)

    def ask(state: _State) -> Arch | None:
        if state.asked == 0:
            return draw.sample(state.key, population)
        if state.asked == number:
            return None
        pick_key, mutate_key = jax.random.split(
            jax.random.fold_in(state.key, state.asked)
        )
        drawn_Ax2 = np.asarray(
            jax.random.randint(pick_key, (population, 2), 0, len(state.loss_A))
        )
        return draw.mutate(
            mutate_key,
            rows(state.population, drawn_Ax2.min(1)[: number - state.asked]),
        )

    def tell(state: _State, asked: Arch, loss_A: np.ndarray) -> _State:
        done = state.asked + len(loss_A)
        if state.asked:
            asked, loss_A = concatenate(
                (state.population, state.loss_A), (asked, loss_A)
            )
        asked, loss_A = rows((asked, loss_A), unique(asked))
        count_A = np.where(
            np.isfinite(loss_A), getattr(space.cost(asked), objective), np.inf
        )
        order = crowded_order(np.stack([loss_A, count_A], -1))
        return _State(
            state.key, done, *rows((asked, loss_A), order[:population])
        )

    return Strategy(
        number, lambda key: _State(key, 0, None, np.zeros(0)), ask, tell
    )


def fronts(objective_AxF: np.ndarray) -> np.ndarray:
    """The front of each candidate, 0 the best: those that only candidates of earlier fronts dominate (less is better).

    A candidate dominates another one if it is nowhere worse and somewhere better.
    """
    left, right = objective_AxF[:, None], objective_AxF[None]
    dominates_AxA = np.all(left <= right, axis=-1) & np.any(
        left < right, axis=-1
    )
    front_A, number = np.full(len(objective_AxF), -1), 0
    while (open_A := front_A < 0).any():
        front_A[open_A & ~np.any(dominates_AxA[open_A], axis=0)] = number
        number += 1
    return front_A


def crowding(objective_AxF: np.ndarray) -> np.ndarray:
    """The crowding distance of each candidate of one front: the sum of its neighbours' gaps, as shares of the range.

    Infinite at both ends of every objective.
    """
    distance_A = np.zeros(len(objective_AxF))
    for value_A in objective_AxF.T:
        order = np.argsort(value_A, kind="stable")
        low, high = value_A[order[0]], value_A[order[-1]]
        distance_A[order[[0, -1]]] = np.inf
        if low < high < np.inf:
            distance_A[order[1:-1]] += (
                value_A[order[2:]] - value_A[order[:-2]]
            ) / (high - low)
    return distance_A


def crowded_order(objective_AxF: np.ndarray) -> np.ndarray:
    """Indices of the candidates, best first: by front, then by falling crowding distance, then by index."""
    front_A = fronts(objective_AxF)
    distance_A = np.zeros(len(front_A))
    for number in range(front_A.max() + 1):
        distance_A[front_A == number] = crowding(
            objective_AxF[front_A == number]
        )
    return np.lexsort((-distance_A, front_A))
