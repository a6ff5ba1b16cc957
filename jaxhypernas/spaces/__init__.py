"""Search spaces, listed by name in SPACES: ``SPACES[name](config, image, classes)``."""

from jaxhypernas.spaces.memory_bank import memory_bank
from jaxhypernas.spaces.memory_bank_arch import SMALL, MemoryBankConfig

SPACES = {"memory_bank": memory_bank}

__all__ = ["SMALL", "SPACES", "MemoryBankConfig", "memory_bank"]
