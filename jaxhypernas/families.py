"""Families of networks: a space with its target and their sizes, by name.

Add a family of your own with one entry::

    FAMILIES["mine"] = Family(MyConfig, build)

where ``MyConfig`` is a frozen dataclass that extends `types.Settings`, and
``build(config, image, classes)`` returns a `types.Space` and its `types.Target`.
``experiments/plugins/residual.py`` is an example; `spaces.conformance` checks it.

A family's modules are imported when it is built.
"""

from dataclasses import replace

from jaxhypernas.archs.sizes import (
    GhnCellConfig,
    MemoryBankConfig,
    Nasbench101Config,
    Nasbench201Config,
    OneShotConfig,
    PnasConfig,
)
from jaxhypernas.types import Family, ImageShape, Space, Target


def _memory_bank(
    config: MemoryBankConfig, image: ImageShape, classes: int
) -> tuple[Space, Target]:
    from jaxhypernas.generators import memory_bank_encoding
    from jaxhypernas.spaces import memory_bank as space
    from jaxhypernas.targets import memory_bank as target

    encoding = memory_bank_encoding.memory_bank_encoding(config)
    return (
        space.memory_bank(config, image, classes)._replace(encoding=encoding),
        target.memory_bank(config, image, classes),
    )


def _nasbench101(
    config: Nasbench101Config, image: ImageShape, classes: int
) -> tuple[Space, Target]:
    from jaxhypernas.spaces import nasbench101 as space
    from jaxhypernas.targets import nasbench101 as target

    return (
        space.nasbench101(config, image, classes),
        target.nasbench101(config, image, classes),
    )


def _nasbench201(
    config: Nasbench201Config, image: ImageShape, classes: int
) -> tuple[Space, Target]:
    from jaxhypernas.spaces import nasbench201 as space
    from jaxhypernas.targets.cell import cell_network

    return (
        space.nasbench201(config, image, classes),
        cell_network(space.STRUCTURE, config, image, classes),
    )


def _ghn(
    config: GhnCellConfig, image: ImageShape, classes: int
) -> tuple[Space, Target]:
    from jaxhypernas.spaces import ghn as space
    from jaxhypernas.targets.cell import cell_network

    structure = space.dag(config.nodes).structure
    return (
        space.ghn(config, image, classes),
        cell_network(structure, config, image, classes),
    )


def _pnas(
    config: PnasConfig, image: ImageShape, classes: int
) -> tuple[Space, Target]:
    from jaxhypernas.spaces import pnas as space
    from jaxhypernas.targets.cell import cell_network

    return (
        space.pnas(config, image, classes),
        cell_network(space.STRUCTURE, config, image, classes),
    )


def _one_shot(
    config: OneShotConfig, image: ImageShape, classes: int
) -> tuple[Space, Target]:
    from jaxhypernas.spaces import one_shot as space
    from jaxhypernas.targets.cell import cell_network

    return (
        space.one_shot(config, image, classes),
        cell_network(space.STRUCTURE, config, image, classes),
    )


def _fewer_nodes(config: GhnCellConfig) -> GhnCellConfig:
    """The cells that a generator is trained on."""
    return replace(config, nodes=config.train_nodes or config.nodes)


FAMILIES: dict[str, Family] = {
    "memory_bank": Family(MemoryBankConfig, _memory_bank),
    "nasbench101": Family(Nasbench101Config, _nasbench101),
    "nasbench201": Family(Nasbench201Config, _nasbench201),
    "ghn": Family(GhnCellConfig, _ghn, _fewer_nodes),
    "pnas": Family(PnasConfig, _pnas),
    "one_shot": Family(OneShotConfig, _one_shot),
}
"""``memory_bank``: SMASH's networks; networks of cells: ``nasbench101``,
``nasbench201``, ``ghn`` (random graphs), ``pnas``, ``one_shot``."""
