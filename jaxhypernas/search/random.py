"""Random search."""

from typing import NamedTuple

import jax
import numpy as np

from jaxhypernas.search.budget import within
from jaxhypernas.search.configs import Limits, RandomConfig
from jaxhypernas.types import Arch, Space, Strategy


class _State(NamedTuple):
    key: jax.Array
    done: bool


def random(config: RandomConfig, space: Space, limits: Limits) -> Strategy:
    """Asks once for independent samples of the space.

    Args:
        config: The number of samples.
        space: The space.
        limits: Limits that every candidate keeps to.

    Returns:
        The strategy.
    """
    draw = within(space, limits)

    def init(key: jax.Array) -> _State:
        return _State(key, done=False)

    def ask(state: _State) -> Arch | None:
        if state.done:
            return None
        return draw.sample(state.key, config.number)

    def tell(state: _State, population: Arch, loss_A: np.ndarray) -> _State:
        return state._replace(done=True)

    at_once = {"number": config.number}
    return Strategy(config.number, init, ask, tell, at_once)
