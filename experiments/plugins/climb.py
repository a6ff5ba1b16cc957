"""A strategy of your own: hill climbing from a random sample.

    jaxhypernas search --plugin experiments/plugins/climb.py \
        --space nasbench201 --generator shared --strategy climb --strategy.rounds 5

Each round mutates the best candidate so far several times.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxhypernas import (
    STRATEGIES,
    Plugin,
    Settings,
    Space,
    Strategy,
)
from jaxhypernas.archs.population import rows
from jaxhypernas.search.budget import within
from jaxhypernas.search.configs import Limits, check_least


@dataclass(frozen=True)
class ClimbConfig(Settings):
    """Settings of the search."""

    start: int = 50
    """random candidates to begin with"""

    rounds: int = 10
    """rounds of mutation"""

    children: int = 10
    """mutations per round"""

    def check(self) -> None:
        """Raises `UserError` for a number out of range."""
        check_least(self, dict.fromkeys(vars(self), 1))


class State(NamedTuple):
    """Where the search stands."""

    key: jax.Array
    """Key of the next round."""

    done: int
    """Populations scored."""

    best: Any
    """The best architecture so far."""

    loss: float
    """Its loss."""


def build(config: ClimbConfig, space: Space, limits: Limits) -> Strategy:
    """Returns the strategy."""
    draw = within(space, limits)

    def init(key):
        return State(key, 0, None, np.inf)

    def ask(state):
        key = jax.random.fold_in(state.key, state.done)
        if state.done == 0:
            return draw.sample(key, config.start)
        if state.done > config.rounds:
            return None
        parents = jax.tree.map(
            lambda x: np.stack([x] * config.children), state.best
        )
        return draw.mutate(key, parents)

    def tell(state, population, loss_A):
        winner = int(loss_A.argmin())
        state = state._replace(done=state.done + 1)
        # If all candidates failed, the first of them is as good as any.
        if state.best is None or loss_A[winner] < state.loss:
            best = rows(population, winner)
            state = state._replace(best=best, loss=float(loss_A[winner]))
        return state

    total = config.start + config.rounds * config.children
    at_once = {"start": config.start, "children": config.children}
    return Strategy(total, init, ask, tell, at_once, 1 + config.rounds)


STRATEGIES["climb"] = Plugin(ClimbConfig, build)
