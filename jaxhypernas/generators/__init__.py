"""Weight generators, listed by name in GENERATORS: ``GENERATORS[name](config, space, weight_spec)``."""

from typing import Any

from jaxhypernas.generators.smash import SMALL, Encoding, HyperNet, SmashConfig, smash
from jaxhypernas.generators.smash_memory_bank import memory_bank_encoding
from jaxhypernas.generators.standalone import standalone
from jaxhypernas.spaces import MemoryBankConfig
from jaxhypernas.types import Generator, WeightSpec


def _smash(config: SmashConfig, space: MemoryBankConfig, weight_spec: WeightSpec) -> Generator:
    return smash(config, memory_bank_encoding(space), weight_spec)


def _standalone(config: Any, space: Any, weight_spec: WeightSpec) -> Generator:
    return standalone(weight_spec)


GENERATORS = {"smash": _smash, "standalone": _standalone}

__all__ = ["GENERATORS", "SMALL", "Encoding", "HyperNet", "SmashConfig", "memory_bank_encoding", "smash", "standalone"]
