"""``jaxhypernas pack``."""

from dataclasses import dataclass
from typing import ClassVar

from etils.epath import Path

from jaxhypernas.cli.verbs.base import ContinueVerb


@dataclass(frozen=True, kw_only=True)
class Pack(ContinueVerb):
    """Writes the trained hypernetwork as a small directory to take along.

    It has images to score on: `score --pretrained` scores architectures with it,
    without training and other images, and `train --from` goes on from it.
    """

    example: ClassVar[str] = (
        "jaxhypernas pack --workdir runs/cells --out ghn-cifar10"
    )

    out: Path
    """directory to write to; it must be empty, or not there"""

    truth: Path | None = None
    """true accuracies, for a line on the card about how well scores rank: CSV, TSV or
    Parquet with a column arch and a column of the truth"""

    column: str = "accuracy"
    """name of the column of the truth; higher is better"""

    def run(self) -> list[Path]:
        """Writes the directory."""
        from jaxhypernas.cli import truth_file
        from jaxhypernas.programs import pretrained

        pretrained.check_new(self.out)
        measured = ""
        truth = None
        if self.truth is not None:
            truth = truth_file.read(self.truth, self.column)
        run = self.open()
        if truth is not None:
            measured = f"```\n{truth.text(truth.rank(run))}\n```"
        return run.pack(self.out, measured)
