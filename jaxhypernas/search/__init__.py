"""Search strategies. Listed by name in `STRATEGIES`.

Add a strategy of your own with one entry::

    STRATEGIES["mine"] = Plugin(MyConfig, build)

where ``MyConfig`` is a frozen dataclass that extends `types.Settings`, and
``build(config, space, limits)`` returns a `types.Strategy`; `budget.within` draws
architectures that keep to the limits.

A strategy's module is imported when it is built.
"""

from jaxhypernas.search.configs import (
    EvolutionConfig,
    Limits,
    Nsga2Config,
    ProgressiveConfig,
    RandomConfig,
    SmashSearchConfig,
)
from jaxhypernas.types import Plugin, Space, Strategy


def _random(config: RandomConfig, space: Space, limits: Limits) -> Strategy:
    from jaxhypernas.search.random import random

    return random(config, space, limits)


def _smash(
    config: SmashSearchConfig, space: Space, limits: Limits
) -> Strategy:
    from jaxhypernas.search.smash import smash

    return smash(config, space, limits)


def _evolution(
    config: EvolutionConfig, space: Space, limits: Limits
) -> Strategy:
    from jaxhypernas.search.evolution import evolution

    return evolution(config, space, limits)


def _nsga2(config: Nsga2Config, space: Space, limits: Limits) -> Strategy:
    from jaxhypernas.search.nsga2 import nsga2

    return nsga2(config, space, limits)


def _progressive(
    config: ProgressiveConfig, space: Space, limits: Limits
) -> Strategy:
    from jaxhypernas.search.progressive import progressive

    return progressive(config, space, limits)


STRATEGIES: dict[str, Plugin] = {
    "random": Plugin(RandomConfig, _random),
    "smash": Plugin(SmashSearchConfig, _smash),
    "evolution": Plugin(EvolutionConfig, _evolution),
    "nsga2": Plugin(Nsga2Config, _nsga2),
    "progressive": Plugin(ProgressiveConfig, _progressive),
}
"""``random``; ``smash``: perturbation of the best; ``evolution``: regularized
evolution; ``nsga2``: loss against a count; ``progressive``: PNAS's search."""
