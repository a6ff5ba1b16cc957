"""``jaxhypernas retrain``."""

from dataclasses import dataclass
from typing import ClassVar

from etils.epath import Path

from jaxhypernas.cli.verbs.base import ContinueVerb


@dataclass(frozen=True, kw_only=True)
class Retrain(ContinueVerb):
    """Trains the best and a random sample from scratch.

    How many, and how long, is part of the configuration that the run was begun with
    (--retrain.top, --retrain.sample, --retrain.train.steps).
    """

    example: ClassVar[str] = "jaxhypernas retrain --workdir runs/search"

    def run(self) -> list[Path]:
        """Trains those that are missing."""
        run = self.open()
        run.retrain()
        return [self.workdir / "retrain"]
