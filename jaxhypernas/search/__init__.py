"""Search strategies, listed by name in STRATEGIES: ``STRATEGIES[name](space, config)``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

import jax
import numpy as np

from jaxhypernas.search.budget import Budget, Draw, within
from jaxhypernas.search.evolution import evolution
from jaxhypernas.search.nsga2 import nsga2
from jaxhypernas.search.progressive import progressive
from jaxhypernas.search.random import random
from jaxhypernas.search.smash import smash
from jaxhypernas.search.surrogate import (
    Correlation,
    correlation,
    make_surrogate,
)
from jaxhypernas.types import Arch, Space, Strategy, UserError


@dataclass(frozen=True)
class SearchConfig:
    """How many candidates are scored, and which; defaults are published ones."""

    number: int = (
        500  # random samples; with evolution and nsga2, all candidates
    )
    perturbed: int = 100  # perturbations of the best of them (smash)
    greedy: int = 100  # greedy steps from there (smash)
    max_params: int = 0  # no candidate has more parameters; 0: no limit
    max_flops: int = 0  # nor more FLOPs; 0: no limit
    population: int = 100  # candidates alive (evolution, nsga2)
    tournament: int = 25  # candidates drawn to choose a parent (evolution)
    children: int = 1  # made and scored together (evolution): more keep all devices busy, 1 is the published algorithm
    objective: Literal["params", "flops"] = (
        "params"  # weighed against the loss (nsga2)
    )
    beam: int = (
        256  # candidates scored of each level after the first (progressive)
    )
    surrogate: Literal["mlp", "lstm"] = "mlp"  # chooses them (progressive)

    def __post_init__(self):
        for name, kind in get_type_hints(type(self)).items():
            value, least = (
                getattr(self, name),
                0 if name in ("greedy", "max_params", "max_flops") else 1,
            )
            if kind is int and value < least:
                raise UserError(
                    f"search.{name}: {value} must be at least {least}"
                )
            if kind is not int and value not in get_args(kind):
                raise UserError(
                    f"search.{name}: {value!r} is not one of {', '.join(get_args(kind))}"
                )


def _budget(config: SearchConfig) -> Budget:
    return Budget(config.max_params, config.max_flops)


def _random(space: Space, config: SearchConfig) -> Strategy:
    return random(space, config.number, _budget(config))


def _smash(space: Space, config: SearchConfig) -> Strategy:
    return smash(
        space, config.number, config.perturbed, config.greedy, _budget(config)
    )


def _evolution(space: Space, config: SearchConfig) -> Strategy:
    return evolution(
        space,
        config.number,
        config.population,
        config.tournament,
        config.children,
        _budget(config),
    )


def _nsga2(space: Space, config: SearchConfig) -> Strategy:
    return nsga2(
        space,
        config.number,
        config.population,
        config.objective,
        _budget(config),
    )


def _progressive(space: Space, config: SearchConfig) -> Strategy:
    return progressive(space, config.beam, config.surrogate, _budget(config))


STRATEGIES = {
    "random": _random,
    "smash": _smash,
    "evolution": _evolution,
    "nsga2": _nsga2,
    "progressive": _progressive,
}


def run(
    strategy: Strategy, key: jax.Array, evaluate: Callable[[Arch], np.ndarray]
) -> Any:
    """Ask, evaluate (population -> loss_A) and tell until the strategy is done; its last state.

    A loss that is NaN or infinite is told as infinite: the worst.
    """
    state = strategy.init(key)
    while (population := strategy.ask(state)) is not None:
        loss_A = np.asarray(evaluate(population), np.float64)
        state = strategy.tell(
            state, population, np.where(np.isfinite(loss_A), loss_A, np.inf)
        )
    return state


__all__ = [
    "STRATEGIES",
    "Budget",
    "Correlation",
    "Draw",
    "SearchConfig",
    "correlation",
    "evolution",
    "make_surrogate",
    "nsga2",
    "progressive",
    "random",
    "run",
    "smash",
    "within",
]
