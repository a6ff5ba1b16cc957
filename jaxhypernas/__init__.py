"""Neural architecture search with hypernetworks, in JAX.

A network H with parameters phi writes the weights theta of any architecture, so one
training run lets you score thousands of architectures without training each::

    import jaxhypernas as jhn

    run = jhn.Run("runs/mine", jhn.PRESETS["small"])
    run.train()
    run.search()
    run.retrain()
    run.best(10)

Names are imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxhypernas.config import PRESETS, Config
    from jaxhypernas.data.dataset import from_arrays
    from jaxhypernas.families import FAMILIES
    from jaxhypernas.generators import GENERATORS
    from jaxhypernas.numerics.recipes import AUGMENTATIONS, LOSSES, OPTIMIZERS
    from jaxhypernas.run import Run
    from jaxhypernas.search import STRATEGIES
    from jaxhypernas.spaces import conformance
    from jaxhypernas.types import (
        Family,
        Generator,
        Plugin,
        Settings,
        Space,
        Strategy,
        Target,
        UserError,
    )

__version__ = "0.2.0"

_HOMES = {
    "Run": "run",
    "Config": "config",
    "PRESETS": "config",
    "FAMILIES": "families",
    "GENERATORS": "generators",
    "STRATEGIES": "search",
    "LOSSES": "numerics.recipes",
    "OPTIMIZERS": "numerics.recipes",
    "AUGMENTATIONS": "numerics.recipes",
    "conformance": "spaces.conformance",
    "from_arrays": "data.dataset",
    "Family": "types",
    "Generator": "types",
    "Plugin": "types",
    "Settings": "types",
    "Space": "types",
    "Strategy": "types",
    "Target": "types",
    "UserError": "types",
}
"""The module in which each public name lives."""

__all__ = [
    "AUGMENTATIONS",
    "FAMILIES",
    "GENERATORS",
    "LOSSES",
    "OPTIMIZERS",
    "PRESETS",
    "STRATEGIES",
    "Config",
    "Family",
    "Generator",
    "Plugin",
    "Run",
    "Settings",
    "Space",
    "Strategy",
    "Target",
    "UserError",
    "__version__",
    "conformance",
    "from_arrays",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxhypernas' has no attribute {name!r}")
    home = importlib.import_module(f"jaxhypernas.{_HOMES[name]}")
    return home if name == "conformance" else getattr(home, name)


def __dir__() -> list[str]:
    return sorted(__all__)
