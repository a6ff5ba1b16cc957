"""Configurations of the generators. Defaults suit two CPU cores."""

from dataclasses import dataclass

from jaxhypernas.types import Settings, UserError

LARGEST_CHANNELS = 1000
LARGEST_UNITS = 10_000
MOST_LAYERS = 100
"""Upper bounds; larger values are assumed to be typos."""


@dataclass(frozen=True)
class SmashConfig(Settings):
    """Size of SMASH's hypernetwork (published: stem 7, layers 8 10 4, growth 10)."""

    stem: int = 8
    """channels of the first convolution"""

    layers: tuple[int, ...] = (3, 3)
    """number of 3x3 convolutions in each dense block"""

    growth: int = 12
    """channels that each convolution adds"""

    def check(self) -> None:
        """Raises `UserError` for a size out of range."""
        for name in ("stem", "growth"):
            _check_size(name, getattr(self, name), LARGEST_CHANNELS)
        too_small = min(self.layers, default=0) < 1
        if too_small or sum(self.layers) > MOST_LAYERS:
            raise UserError(
                f"layers: {self.layers} must be numbers of at least 1, together "
                f"at most {MOST_LAYERS}"
            )


@dataclass(frozen=True)
class GhnConfig(Settings):
    """Size of a graph hypernetwork; defaults are the published ones."""

    hidden: int = 32
    """units of a node's state and of a message"""

    decoder: int = 64
    """hidden units of the decoder"""

    passes: int = 5
    """passes over the graph, T"""

    synchronous: bool = False
    """update all nodes at once, from both directions (the paper's ablation)"""

    virtual_edges: int = 0
    """GHN-2: longest path whose end nodes exchange messages; 0: neighbours only"""

    layer_norm: bool = False
    """GHN-2: normalise node states before decoding"""

    fan_in: bool = False
    """GHN-2: multiply kernels by sqrt(2 / fan-in)"""

    def check(self) -> None:
        """Raises `UserError` for a size out of range."""
        for name in ("hidden", "decoder", "passes"):
            _check_size(name, getattr(self, name), LARGEST_UNITS)
        if not 0 <= self.virtual_edges <= LARGEST_UNITS:
            raise UserError(
                f"virtual_edges: {self.virtual_edges} must be 0 (none) or more, at "
                f"most {LARGEST_UNITS}"
            )


@dataclass(frozen=True)
class SharedConfig(Settings):
    """Weights shared by all architectures (One-Shot); nothing to choose."""


@dataclass(frozen=True)
class StandaloneConfig(Settings):
    """Every candidate trained from scratch to be scored; nothing to choose."""


def _check_size(name: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise UserError(
            f"{name}: {value} must be at least 1 and at most {most}"
        )
