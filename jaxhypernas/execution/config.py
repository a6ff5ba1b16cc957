"""How candidates run on a device."""

from dataclasses import dataclass
from typing import Literal

from jaxhypernas.types import Settings, UserError


@dataclass(frozen=True)
class ExecutionConfig(Settings):
    """How candidates run: scores are the same to rounding, speed differs."""

    chunk: int = 0
    """candidates side by side on a device; 0: chosen by platform"""

    form: Literal["auto", "branch", "fused", "native"] = "auto"
    """branch: each op of a node is a branch; fused: one convolution whatever the op,
    in spaces that allow it; native: cells as C++, on CPU; auto: chosen by platform"""

    def check(self) -> None:
        """Raises `UserError` for a negative chunk."""
        if self.chunk < 0:
            raise UserError(
                f"chunk: {self.chunk} must be 0 (automatic) or more"
            )
