"""Regularized evolution (Real et al. 2019, algorithm 1).

Deviation:
1. A round makes ``children`` candidates, all from the same population; then as many of
   the oldest die. One child is the published algorithm. With more, candidates are
   scored side by side, and a parent may be up to a round out of date.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxhypernas.archs.population import concatenate, rows
from jaxhypernas.search.budget import within
from jaxhypernas.search.configs import EvolutionConfig, Limits
from jaxhypernas.types import Arch, Space, Strategy


class _State(NamedTuple):
    key: jax.Array

    asked: int
    """Candidates asked for."""

    population: Any
    """Candidates alive, oldest first."""

    loss_A: np.ndarray
    """Their losses."""


def evolution(
    config: EvolutionConfig, space: Space, limits: Limits
) -> Strategy:
    """Samples a population; tournaments choose parents, and the oldest die.

    A tournament draws with replacement, and its best is mutated; of equals the first
    drawn wins.

    Args:
        config: Sizes of the search, the population, a tournament and a round.
        space: The space.
        limits: Limits that every candidate keeps to.

    Returns:
        The strategy.
    """
    draw = within(space, limits)

    def init(key: jax.Array) -> _State:
        return _State(key, asked=0, population=None, loss_A=np.zeros(0))

    def ask(state: _State) -> Arch | None:
        if state.asked == 0:
            return draw.sample(state.key, config.population)
        if state.asked == config.number:
            return None

        key = jax.random.fold_in(state.key, state.asked)
        pick_key, mutate_key = jax.random.split(key)
        shape = (config.children, config.tournament)
        drawn = jax.random.randint(pick_key, shape, 0, config.population)
        drawn_AxT = np.asarray(drawn)

        # argmin takes the first of equals.
        best_A = state.loss_A[drawn_AxT].argmin(1)
        parent_A = np.take_along_axis(drawn_AxT, best_A[:, None], 1)[:, 0]
        # The last round makes only as many children as the total allows.
        parent_A = parent_A[: config.number - state.asked]
        return draw.mutate(mutate_key, rows(state.population, parent_A))

    def tell(state: _State, asked: Arch, loss_A: np.ndarray) -> _State:
        done = state.asked + len(loss_A)
        scored = (asked, loss_A)
        if state.asked:
            scored = concatenate((state.population, state.loss_A), scored)
        alive = rows(scored, slice(-config.population, None))
        return _State(state.key, done, *alive)

    at_once = {
        "population": config.population,
        "children": config.children,
        "tournament": config.tournament,
    }
    rounds = 1 - (config.population - config.number) // config.children
    return Strategy(config.number, init, ask, tell, at_once, rounds)
