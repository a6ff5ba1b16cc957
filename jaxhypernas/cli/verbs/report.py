"""``jaxhypernas report``."""

from dataclasses import dataclass
from typing import ClassVar

from etils.epath import Path

from jaxhypernas.cli.verbs.base import ContinueVerb


@dataclass(frozen=True, kw_only=True)
class Report(ContinueVerb):
    """Writes the report: figures, pictures, trust in the scores.

    The candidates must have been trained from scratch (retrain).
    """

    writes: ClassVar[bool] = False

    example: ClassVar[str] = "jaxhypernas report --workdir runs/search"

    def run(self) -> list[Path]:
        """Writes the report."""
        self.open().report()
        return [self.workdir / "report.md", self.workdir / "report.json"]
