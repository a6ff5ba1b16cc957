"""The smallest configurations that have every part: seconds once compiled."""

import dataclasses
import os
import shutil
from typing import Any

import pytest

from jaxhypernas.archs.sizes import (
    GhnCellConfig,
    MemoryBankConfig,
    Nasbench101Config,
    Nasbench201Config,
    OneShotConfig,
    PnasConfig,
)
from jaxhypernas.config import Config, RetrainConfig, TrainConfig
from jaxhypernas.config.config import REGISTRIES
from jaxhypernas.data.config import DataConfig
from jaxhypernas.families import FAMILIES
from jaxhypernas.generators import GENERATORS
from jaxhypernas.generators.configs import (
    GhnConfig,
    SharedConfig,
    SmashConfig,
    StandaloneConfig,
)
from jaxhypernas.search.configs import (
    EvolutionConfig,
    Nsga2Config,
    ProgressiveConfig,
    RandomConfig,
    SmashSearchConfig,
)
from jaxhypernas.types import Settings, Space, Target

SPACES: dict[str, Settings] = {
    "memory_bank": MemoryBankConfig(
        unit=2,
        units=2,
        depth=1,
        widening=1,
        max_bottleneck=1,
        max_kernel=5,
        max_dilation=3,
        max_groups=2,
        stem_kernel=3,
        slots=4,
    ),
    "nasbench101": Nasbench101Config(channels=4, cells=1),
    "nasbench201": Nasbench201Config(channels=4, cells=1),
    "ghn": GhnCellConfig(channels=4, cells=1, nodes=3),
    "pnas": PnasConfig(channels=4, cells=1),
    "one_shot": OneShotConfig(channels=4, cells=1),
}

GENERATOR_SIZES: dict[str, Settings] = {
    "smash": SmashConfig(stem=4, layers=(2, 2), growth=4),
    "ghn": GhnConfig(hidden=8, decoder=8, passes=1),
    "shared": SharedConfig(),
    "standalone": StandaloneConfig(),
}

STRATEGY_SIZES: dict[str, Settings] = {
    "random": RandomConfig(number=20),
    "smash": SmashSearchConfig(number=20, perturbed=5, greedy=5),
    "evolution": EvolutionConfig(
        number=20, population=8, tournament=3, children=4
    ),
    "nsga2": Nsga2Config(number=20, population=8),
    "progressive": ProgressiveConfig(beam=6),
}

TINY = Config(
    space=SPACES["memory_bank"],
    generator=GENERATOR_SIZES["smash"],
    strategy=SmashSearchConfig(number=40, perturbed=6, greedy=4),
    data=DataConfig(limit=120, pad=1),
    train=TrainConfig(
        steps=8, batch=16, architectures=4, every=2, learning_rate=1e-2
    ),
    retrain=RetrainConfig(
        top=2,
        sample=4,
        train=TrainConfig(
            steps=4, batch=16, architectures=1, learning_rate=1e-3
        ),
    ),
)


def tiny(
    space: str = "memory_bank",
    generator: str = "smash",
    strategy: str = "smash",
    **sections: Any,
) -> Config:
    """`TINY` with other entries of the registries, and other sections."""
    chosen = {
        "space": SPACES[space],
        "generator": GENERATOR_SIZES[generator],
        "strategy": STRATEGY_SIZES[strategy],
    }
    return dataclasses.replace(TINY, **chosen, **sections)


def family(
    name: str, image: tuple[int, int, int] = (8, 8, 1), classes: int = 10
) -> tuple[Space, Target]:
    """A tiny space and its target."""
    return FAMILIES[name].build(SPACES[name], image, classes)


def generator(name: str, space: Space, target: Target):
    """A tiny generator."""
    return GENERATORS[name].build(GENERATOR_SIZES[name], space, target)


def flags(config: Config = TINY) -> list[str]:
    """Flags that turn the command line's default into this configuration."""
    found = []
    chosen: dict[str, Any] = {}
    for slot, name in config.names.items():
        found += [f"--{slot}", name]
        chosen[slot] = REGISTRIES[slot][name].config()
    default = dataclasses.replace(Config(), **chosen)
    return found + _differences(config, default, "--")


def _differences(a: Settings, b: Settings, prefix: str) -> list[str]:
    found = []
    for field in dataclasses.fields(a):  # type: ignore[arg-type]
        ours, theirs = getattr(a, field.name), getattr(b, field.name)
        name = f"{prefix}{field.name}".replace("_", "-")
        if isinstance(ours, Settings):
            found += _differences(ours, theirs, f"{name}.")
        elif isinstance(ours, bool):
            if ours != theirs:
                place, _, own = name.rpartition(".")
                found.append(name if ours else f"{place}.no-{own}")
        elif ours != theirs:
            values = ours if isinstance(ours, tuple) else [ours]
            found += [name, *map(str, values)]
    return found


# Where there is a compiler, a source that does not compile is a failure.
NEEDS_COMPILER = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "c++")) is None,
    reason="needs a C++ compiler",
)
