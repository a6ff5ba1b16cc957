"""Families of networks, by the name of their space: ``TARGETS[name](config, image, classes)``."""

from jaxhypernas.spaces.ghn import dag
from jaxhypernas.spaces.nasbench201 import STRUCTURE as NASBENCH201
from jaxhypernas.spaces.one_shot import STRUCTURE as ONE_SHOT
from jaxhypernas.spaces.pnas import STRUCTURE as PNAS
from jaxhypernas.targets.cell import cell_network
from jaxhypernas.targets.memory_bank import memory_bank
from jaxhypernas.targets.nasbench101 import nasbench101
from jaxhypernas.targets.ops import OPS, Op

TARGETS = {
    "memory_bank": lambda config, image, classes: memory_bank(
        config.memory_bank, image, classes
    ),
    "nasbench101": lambda config, *shape: nasbench101(config.cells, *shape),
    "nasbench201": lambda config, *shape: cell_network(
        NASBENCH201, config.cells, *shape
    ),
    "ghn": lambda config, *shape: cell_network(
        dag(config.cells.nodes).structure, config.cells, *shape
    ),
    "pnas": lambda config, *shape: cell_network(PNAS, config.cells, *shape),
    "one_shot": lambda config, *shape: cell_network(
        ONE_SHOT, config.cells, *shape
    ),
}

__all__ = ["OPS", "TARGETS", "Op", "cell_network", "memory_bank", "nasbench101"]
