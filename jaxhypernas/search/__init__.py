"""Search strategies, listed by name in STRATEGIES: ``STRATEGIES[name](space, config)``."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from jaxhypernas.search.random import random
from jaxhypernas.search.smash import smash
from jaxhypernas.types import Arch, Space, Strategy, UserError


@dataclass(frozen=True)
class SearchConfig:
    """How many candidates each phase scores."""

    number: int = 500  # random samples
    perturbed: int = 100  # perturbations of the best of them (strategy smash)
    greedy: int = 100  # greedy steps from there (strategy smash)

    def __post_init__(self):
        for name, least in (("number", 1), ("perturbed", 1), ("greedy", 0)):
            if getattr(self, name) < least:
                raise UserError(f"search.{name}: {getattr(self, name)} must be at least {least}")


def _random(space: Space, config: SearchConfig) -> Strategy:
    return random(space, config.number)


def _smash(space: Space, config: SearchConfig) -> Strategy:
    return smash(space, config.number, config.perturbed, config.greedy)


STRATEGIES = {"random": _random, "smash": _smash}


def run(strategy: Strategy, key: jax.Array, evaluate: Callable[[Arch], np.ndarray]) -> None:
    """Ask, evaluate (population -> loss_A) and tell until the strategy is done. NaN losses count as the worst."""
    state = strategy.init(key)
    while (population := strategy.ask(state)) is not None:
        state = strategy.tell(state, population, np.nan_to_num(evaluate(population), nan=np.inf))


__all__ = ["STRATEGIES", "SearchConfig", "random", "run", "smash"]
