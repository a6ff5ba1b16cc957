"""``jaxhypernas compile``."""

import json as json_module
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from etils.epath import Path

from jaxhypernas.cli.verbs.base import FromPreset
from jaxhypernas.types import UserError


@dataclass(frozen=True, kw_only=True)
class Compile(FromPreset):
    """Says whether a run fits a TPU slice, and its speed.

    Compiles the run's programs for the slice; neither devices nor images are needed.
    """

    example: ClassVar[str] = (
        "jaxhypernas compile --preset nasbench201 --topology v5e:4x4"
    )

    topology: str
    """the slice, CHIP:SHAPE as in v5e:16x16"""

    json: bool = False
    """print one JSON object"""

    def run(self) -> list[Path]:
        """Compiles the programs and prints their figures."""
        import jax

        # A TPU of this machine is left alone.
        jax.config.update("jax_platforms", "cpu")
        from jaxhypernas.programs.ahead import figures
        from jaxhypernas.programs.ahead.chips import slice_devices
        from jaxhypernas.programs.ahead.text import lines

        show: Callable[[str], None] = partial(print, flush=True)
        if self.json:
            show = _nothing
        chip, devices = slice_devices(self.topology)
        config, changed = figures.fitting(self.config, devices)
        show(
            f"{self.topology}: {len(devices)} devices; loops count as often as they "
            "run, conditionals as the mean of their\nbranches; rates are estimates, at "
            "the chip's published peaks and by the compiler's cycles: nothing was run"
        )
        if changed:
            show(changed)

        programs = []
        misfits = []
        for found in figures.compiled(config, chip, devices):
            if isinstance(found, UserError):
                misfits.append(str(found))
                continue
            programs.append(found._asdict())
            show(lines(found))
        if self.json:
            result = {
                "topology": self.topology,
                "devices": len(devices),
                "changed": changed,
                "programs": programs,
                "misfits": misfits,
            }
            print(json_module.dumps(result))
        if misfits:
            raise UserError("; ".join(misfits))
        return []


def _nothing(line: str) -> None:
    """Shows nothing, where JSON is the only output."""
