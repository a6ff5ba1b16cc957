"""The smallest run that has every part: seconds once compiled."""

import dataclasses
import os
import shutil

import pytest

from jaxhypernas.config.config import Config
from jaxhypernas.data.dataset import DataConfig
from jaxhypernas.generators import GhnConfig, SmashConfig
from jaxhypernas.programs.training import TrainConfig
from jaxhypernas.programs.truth import RetrainConfig
from jaxhypernas.search import SearchConfig
from jaxhypernas.spaces import CellConfig, MemoryBankConfig

TINY = Config(
    data=DataConfig(limit=120, pad=1),
    memory_bank=MemoryBankConfig(
        unit=2,
        units=2,
        depth=1,
        widening=1,
        max_bottleneck=1,
        max_kernel=5,
        max_groups=2,
        stem_kernel=3,
        slots=4,
    ),
    cells=CellConfig(channels=4, cells=1, nodes=3),
    ghn=GhnConfig(hidden=8, decoder=8, passes=1),
    smash=SmashConfig(stem=4, layers=(2, 2), growth=4),
    train=TrainConfig(
        steps=8, batch=16, architectures=4, every=2, learning_rate=1e-2
    ),
    search=SearchConfig(number=40, perturbed=6, greedy=4),
    retrain=RetrainConfig(
        2, 4, TrainConfig(steps=4, batch=16, architectures=1)
    ),
)


def flags(
    config: Config = TINY, default: Config | None = None, prefix: str = ""
) -> list[str]:
    """Command line overrides that turn the default preset into this config."""
    default = default or Config()
    found = []
    for field in dataclasses.fields(config):
        a, b = getattr(config, field.name), getattr(default, field.name)
        name = f"{prefix}{field.name}".replace("_", "-")
        if dataclasses.is_dataclass(a):
            found += flags(a, b, f"{name}.")
        elif a != b:
            found += [
                f"--{name}",
                *(map(str, a) if isinstance(a, tuple) else [str(a)]),
            ]
    return found


# Where there is a compiler, what it doesn't compile is a failure.
NEEDS_COMPILER = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "c++")) is None,
    reason="needs a C++ compiler",
)
