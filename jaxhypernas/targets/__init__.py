"""Families of networks, by the name of their space: ``TARGETS[name](config, image, classes)``."""

from jaxhypernas.targets.memory_bank import memory_bank

TARGETS = {"memory_bank": memory_bank}

__all__ = ["TARGETS", "memory_bank"]
