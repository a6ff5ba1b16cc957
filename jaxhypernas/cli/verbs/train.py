"""``jaxhypernas train``."""

from dataclasses import dataclass
from typing import ClassVar

from etils.epath import Path

from jaxhypernas.cli.verbs.base import BeginVerb


@dataclass(frozen=True, kw_only=True)
class Train(BeginVerb):
    """Trains the generator.

    The same command goes on where it was stopped.
    """

    example: ClassVar[str] = (
        "jaxhypernas train --workdir runs/cells --space nasbench201 "
        "--generator ghn"
    )

    def run(self) -> list[Path]:
        """Trains to the end."""
        self.open(self.config).train()
        return [self.workdir / "checkpoints", self.workdir / "metrics.jsonl"]
