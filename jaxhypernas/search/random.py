"""Random search."""

from typing import NamedTuple

import jax
import numpy as np

from jaxhypernas.search.budget import Budget, within
from jaxhypernas.types import Arch, Space, Strategy


class _State(NamedTuple):
    key: jax.Array
    done: bool


def random(space: Space, number: int, budget: Budget) -> Strategy:
    """Ask for ``number`` independent samples of the space, once."""
    draw = within(space, budget)

    def ask(state: _State) -> Arch | None:
        return None if state.done else draw.sample(state.key, number)

    def tell(state: _State, population: Arch, loss_A: np.ndarray) -> _State:
        return state._replace(done=True)

    return Strategy(number, lambda key: _State(key, False), ask, tell)
