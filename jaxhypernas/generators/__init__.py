"""Weight generators, listed by name in GENERATORS: ``GENERATORS[name](config, space, target)``.

``config`` has a field for each generator that has settings, as `config.Config` does.
"""

from typing import Any

from jaxhypernas.generators.ghn import GhnConfig, ghn
from jaxhypernas.generators.smash import (
    SMALL,
    Encoding,
    HyperNet,
    SmashConfig,
    smash,
)
from jaxhypernas.generators.smash_graph import graph_encoding
from jaxhypernas.generators.smash_memory_bank import memory_bank_encoding
from jaxhypernas.generators.standalone import standalone
from jaxhypernas.types import Generator, Space, Target


def _smash(config: Any, space: Space, target: Target) -> Generator:
    memory_banks = space.name == "memory_bank"
    encoding = (
        memory_bank_encoding(config.memory_bank)
        if memory_banks
        else graph_encoding(space, target)
    )
    return smash(config.smash, encoding, target)


def _standalone(config: Any, space: Space, target: Target) -> Generator:
    return standalone(target.weight_spec, target.nodes)


GENERATORS = {
    "smash": _smash,
    "ghn": lambda config, space, target: ghn(config.ghn, space, target),
    "shared": _standalone,  # One-Shot: the weights themselves, trained over sampled architectures
    "standalone": _standalone,  # every candidate's own, trained from scratch to be scored
}

__all__ = [
    "GENERATORS",
    "SMALL",
    "Encoding",
    "GhnConfig",
    "HyperNet",
    "SmashConfig",
    "ghn",
    "graph_encoding",
    "memory_bank_encoding",
    "smash",
    "standalone",
]
