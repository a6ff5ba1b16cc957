"""Random search."""

from typing import NamedTuple

import jax
import numpy as np

from jaxhypernas.types import Arch, Space, Strategy


class _State(NamedTuple):
    key: jax.Array
    done: bool


def random(space: Space, number: int) -> Strategy:
    """Ask for ``number`` independent samples of the space, once."""
    draw = jax.jit(jax.vmap(lambda key: space.sample(key, 1.0)))

    def ask(state: _State) -> Arch | None:
        return None if state.done else jax.tree.map(np.asarray, draw(jax.random.split(state.key, number)))

    return Strategy(lambda key: _State(key, False), ask, lambda state, population, loss_A: state._replace(done=True))
