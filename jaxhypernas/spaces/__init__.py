"""Search spaces, listed by name in SPACES: ``SPACES[name](config, image, classes)``.

``config`` has the sizes: ``memory_bank``, and ``cells`` of all cell spaces, as `config.Config` does.
."""

from jaxhypernas.archs.memory_bank import SMALL, MemoryBankConfig
from jaxhypernas.spaces.cells import CellArch, CellConfig, CellStructure
from jaxhypernas.spaces.dag import DagConfig, dag_space
from jaxhypernas.spaces.ghn import ghn
from jaxhypernas.spaces.memory_bank import memory_bank
from jaxhypernas.spaces.nasbench101 import Nasbench101Arch, nasbench101
from jaxhypernas.spaces.nasbench201 import nasbench201
from jaxhypernas.spaces.one_shot import one_shot
from jaxhypernas.spaces.pnas import pnas

SPACES = {
    "memory_bank": lambda config, image, classes: memory_bank(
        config.memory_bank, image, classes
    ),
    "nasbench101": lambda config, image, classes: nasbench101(
        image, classes, config.cells.channels, config.cells.cells
    ),
    "nasbench201": lambda config, image, classes: nasbench201(
        image, classes, config.cells.channels, config.cells.cells
    ),
    "ghn": lambda config, image, classes: ghn(
        image,
        classes,
        config.cells.channels,
        config.cells.cells,
        config.cells.nodes,
    ),
    "pnas": lambda config, image, classes: pnas(
        image, classes, config.cells.channels, config.cells.cells
    ),
    "one_shot": lambda config, image, classes: one_shot(
        image, classes, config.cells.channels, config.cells.cells
    ),
}

__all__ = [
    "SMALL",
    "SPACES",
    "CellArch",
    "CellConfig",
    "CellStructure",
    "DagConfig",
    "MemoryBankConfig",
    "Nasbench101Arch",
    "dag_space",
    "ghn",
    "memory_bank",
    "nasbench101",
    "nasbench201",
    "one_shot",
    "pnas",
]
