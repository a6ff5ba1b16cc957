"""Generators: networks that write weights. Listed by name in `GENERATORS`.

Add a generator of your own with one entry::

    GENERATORS["mine"] = Plugin(MyConfig, build)

where ``MyConfig`` is a frozen dataclass that extends `types.Settings`, and
``build(config, space, target)`` returns a `types.Generator`.

A generator's module is imported when it is built.
"""

from jaxhypernas.generators.configs import (
    GhnConfig,
    SharedConfig,
    SmashConfig,
    StandaloneConfig,
)
from jaxhypernas.types import Generator, Plugin, Space, Target


def _smash(config: SmashConfig, space: Space, target: Target) -> Generator:
    from jaxhypernas.generators.graph_encoding import graph_encoding
    from jaxhypernas.generators.smash import smash

    return smash(
        config, space.encoding or graph_encoding(space, target), target
    )


def _ghn(config: GhnConfig, space: Space, target: Target) -> Generator:
    from jaxhypernas.generators.ghn import ghn

    return ghn(config, space, target)


def _shared(config: SharedConfig, space: Space, target: Target) -> Generator:
    from jaxhypernas.generators.standalone import standalone

    return standalone(target.weight_spec, target.nodes)


def _standalone(
    config: StandaloneConfig, space: Space, target: Target
) -> Generator:
    from jaxhypernas.generators.standalone import standalone

    return standalone(target.weight_spec, target.nodes)._replace(trained=False)


GENERATORS: dict[str, Plugin] = {
    "smash": Plugin(SmashConfig, _smash),
    "ghn": Plugin(GhnConfig, _ghn),
    "shared": Plugin(SharedConfig, _shared),
    "standalone": Plugin(StandaloneConfig, _standalone),
}
"""``smash``: SMASH's hypernetwork; ``ghn``: graph hypernetwork; ``shared``: One-Shot's
shared weights; ``standalone``: each candidate trained from scratch to be scored."""
