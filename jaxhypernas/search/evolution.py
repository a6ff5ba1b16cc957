"""Regularized evolution (Real et al. 2019, algorithm 1): tournaments choose parents, the oldest die.

Deviation:
1. ``children`` are made per round, all from the same population, then as many of the oldest die. With 1 it is the
   published algorithm; with more, candidates are scored side by side, and a parent may be up to a round out of date.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxhypernas.archs.population import concatenate, rows
from jaxhypernas.search.budget import Budget, within
from jaxhypernas.types import Arch, Space, Strategy, UserError


class _State(NamedTuple):
    key: jax.Array
    asked: int  # candidates
    population: Any  # oldest first
    loss_A: np.ndarray


def evolution(
    space: Space,
    number: int,
    population: int,
    tournament: int,
    children: int,
    budget: Budget,
) -> Strategy:
    """``number`` candidates in all, the first ``population`` of them samples (published: 100 alive, tournaments of 25).

    A tournament draws with replacement; its best is mutated. Of equals the first drawn wins.
    """
    if population > number:
        raise UserError(
            f"search.population: {population} must be at most search.number, {number}"
        )
    draw = within(space, budget)

    def ask(state: _State) -> Arch | None:
        if state.asked == 0:
            return draw.sample(state.key, population)
        if state.asked == number:
            return None
        pick_key, mutate_key = jax.random.split(
            jax.random.fold_in(state.key, state.asked)
        )
        drawn_AxT = np.asarray(
            jax.random.randint(pick_key, (children, tournament), 0, population)
        )
        best_A = state.loss_A[drawn_AxT].argmin(1)
        parent_A = np.take_along_axis(drawn_AxT, best_A[:, None], 1)[
            : number - state.asked, 0
        ]
        return draw.mutate(mutate_key, rows(state.population, parent_A))

    def tell(state: _State, asked: Arch, loss_A: np.ndarray) -> _State:
        done = state.asked + len(loss_A)
        if state.asked:
            asked, loss_A = concatenate(
                (state.population, state.loss_A), (asked, loss_A)
            )
        return _State(
            state.key, done, *rows((asked, loss_A), slice(-population, None))
        )

    return Strategy(
        number, lambda key: _State(key, 0, None, np.zeros(0)), ask, tell
    )
