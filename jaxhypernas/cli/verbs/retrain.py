"""``jaxhypernas retrain``."""

from dataclasses import dataclass
from typing import ClassVar

from etils.epath import Path

from jaxhypernas.cli.verbs.base import ContinueVerb


@dataclass(frozen=True, kw_only=True)
class Retrain(ContinueVerb):
    """Trains candidates from scratch: the best and a random sample.

    How many, and how long, is part of the configuration that the run was begun with
    (--retrain.top, --retrain.sample, --retrain.train.steps).
    """

    example: ClassVar[str] = "jaxhypernas retrain --workdir runs/search"

    archs: Path | None = None
    """architectures to train instead: a text file with one or its id per line, or
    CSV, TSV or Parquet with a column arch; - reads from a pipe"""

    def run(self) -> list[Path]:
        """Trains those that are missing."""
        from jaxhypernas.cli.readers import RowFile

        run = self.open()
        archs = []
        if self.archs is not None:
            file = RowFile(self.archs, "archs")
            archs = list(file.archs(run.parts.searched.space, run.scores))
        run.retrain(archs)
        return [self.workdir / "retrain"]
