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


_BANKS = (
    "Three blocks between slashes; a block is b and the units of a bank, then an op "
    "after each bar: banks read > banks written : output units : convolution number = "
    "height x width, d dilations, g groups."
)

_GRAPH = (
    "The ops of the vertices in order, then the edges, from-to, by the numbers of the "
    "vertices."
)

_EDGES = (
    "Three nodes between plus signs; op~n applies an op to node n (0 is the cell's "
    "input) and adds the result to the node; the last node is the output."
)

_NODES = (
    "Op nodes between semicolons: op(states) applies an op to the sum of states, op+op "
    "adds ops, - is an absent node. {states}"
)

FAMILIES: dict[str, Family] = {
    "memory_bank": Family(MemoryBankConfig, _memory_bank, grammar=_BANKS),
    "nasbench101": Family(Nasbench101Config, _nasbench101, grammar=_GRAPH),
    "nasbench201": Family(Nasbench201Config, _nasbench201, grammar=_EDGES),
    "ghn": Family(
        GhnCellConfig,
        _ghn,
        _fewer_nodes,
        _NODES.format(states="State 0 is the cell's input, n that of node n."),
    ),
    "pnas": Family(
        PnasConfig,
        _pnas,
        grammar=_NODES.format(
            states="States 0 and 1 are the cell's inputs, each next one is a block: "
            "two nodes, added."
        ),
    ),
    "one_shot": Family(
        OneShotConfig,
        _one_shot,
        grammar=_NODES.format(
            states="States 0 and 1 are the cell's inputs, each next one is a node."
        ),
    ),
}
"""``memory_bank``: SMASH's networks; networks of cells: ``nasbench101``,
``nasbench201``, ``ghn`` (random graphs), ``pnas``, ``one_shot``."""
