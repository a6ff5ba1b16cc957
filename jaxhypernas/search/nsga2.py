"""NSGA-II (Deb et al. 2002): the front of score, or loss, against a count.

Deviations:
1. A child is a mutation of one parent: spaces have no crossover.
2. Isomorphic candidates count once: in a discrete space, copies would fill the front.
3. A candidate that failed (infinite loss) is infinite in both objectives, so that no
   small size saves it.
"""

from typing import Any, NamedTuple

import chex
import jax
import numpy as np

from jaxhypernas.archs.population import concatenate, rows
from jaxhypernas.search.budget import within
from jaxhypernas.search.configs import Limits, Nsga2Config
from jaxhypernas.search.unique import make_unique
from jaxhypernas.types import Arch, Space, Strategy


class _State(NamedTuple):
    key: jax.Array

    asked: int
    """Candidates asked for."""

    population: Any
    """Parents in crowded order: of two, the first wins a tournament."""

    loss_A: np.ndarray
    """Their losses."""


def nsga2(config: Nsga2Config, space: Space, limits: Limits) -> Strategy:
    """Samples a generation, then mutates the winners of binary tournaments.

    The best of parents and children, by front and then by crowding distance, are the
    parents of the next generation.

    Args:
        config: Sizes of the search and of a generation, and the count to weigh.
        space: The space.
        limits: Limits that every candidate keeps to.

    Returns:
        The strategy.
    """
    draw = within(space, limits)
    unique = make_unique(space)

    def init(key: jax.Array) -> _State:
        return _State(key, asked=0, population=None, loss_A=np.zeros(0))

    def ask(state: _State) -> Arch | None:
        if state.asked == 0:
            return draw.sample(state.key, config.population)
        if state.asked == config.number:
            return None

        key = jax.random.fold_in(state.key, state.asked)
        pick_key, mutate_key = jax.random.split(key)
        shape = (config.population, 2)
        drawn = jax.random.randint(pick_key, shape, 0, len(state.loss_A))
        # Candidates are in crowded order: the smaller index wins.
        winner_A = np.asarray(drawn).min(1)
        # The last generation has only as many children as the total allows.
        parent_A = winner_A[: config.number - state.asked]
        return draw.mutate(mutate_key, rows(state.population, parent_A))

    def tell(state: _State, asked: Arch, loss_A: np.ndarray) -> _State:
        done = state.asked + len(loss_A)
        scored = (asked, loss_A)
        if state.asked:
            scored = concatenate((state.population, state.loss_A), scored)
        scored = rows(scored, unique(scored[0]))

        population, loss_A = scored
        count_A = getattr(space.cost(population), config.objective)
        count_A = np.where(np.isfinite(loss_A), count_A, np.inf)
        order = crowded_order(np.stack([loss_A, count_A], -1))
        return _State(
            state.key, done, *rows(scored, order[: config.population])
        )

    at_once = {"population": config.population}
    rounds = -(-config.number // config.population)
    return Strategy(config.number, init, ask, tell, at_once, rounds)


def fronts(objective_AxF: np.ndarray) -> np.ndarray:
    """Sorts candidates into fronts (Deb et al. 2002, section III-A).

    A candidate dominates another if it is nowhere worse and somewhere better. Only
    candidates of earlier fronts dominate the candidates of a front.

    Args:
        objective_AxF: F objectives of each candidate; less is better.

    Returns:
        int64 [A]: the front of each candidate; 0 is the best.
    """
    chex.assert_rank(objective_AxF, 2)
    left = objective_AxF[:, None]
    right = objective_AxF[None]
    nowhere_worse_AxA = np.all(left <= right, axis=-1)
    dominates_AxA = nowhere_worse_AxA & np.any(left < right, axis=-1)

    front_A = np.full(len(objective_AxF), -1)
    number = 0
    while (open_A := front_A < 0).any():
        dominated_A = np.any(dominates_AxA[open_A], axis=0)
        front_A[open_A & ~dominated_A] = number
        number += 1
    return front_A


def crowding(objective_AxF: np.ndarray) -> np.ndarray:
    """Computes crowding distances within a front (Deb et al. 2002, section III-B).

    The distance sums, over objectives, the gap between a candidate's neighbours as a
    share of the objective's range. It is infinite at both ends of each objective.

    Args:
        objective_AxF: F objectives of each candidate of one front.

    Returns:
        float64 [A]: the distances.
    """
    chex.assert_rank(objective_AxF, 2)
    distance_A = np.zeros(len(objective_AxF))
    for value_A in objective_AxF.T:
        order = np.argsort(value_A, kind="stable")
        low = value_A[order[0]]
        high = value_A[order[-1]]
        distance_A[order[[0, -1]]] = np.inf
        # Without a finite range the inner candidates gain nothing.
        if low < high < np.inf:
            gap = value_A[order[2:]] - value_A[order[:-2]]
            distance_A[order[1:-1]] += gap / (high - low)
    return distance_A


def crowded_order(objective_AxF: np.ndarray) -> np.ndarray:
    """Sorts candidates by front, then by falling crowding distance, then by index.

    Args:
        objective_AxF: F objectives of each candidate; less is better.

    Returns:
        int64 [A]: indices of the candidates, best first.
    """
    front_A = fronts(objective_AxF)
    distance_A = np.zeros(len(front_A))
    for number in range(front_A.max() + 1):
        same_A = front_A == number
        distance_A[same_A] = crowding(objective_AxF[same_A])
    return np.lexsort((-distance_A, front_A))
