"""``jaxhypernas rank``."""

from dataclasses import dataclass
from typing import ClassVar

from etils.epath import Path

from jaxhypernas.cli.verbs.base import ContinueVerb


@dataclass(frozen=True, kw_only=True)
class Rank(ContinueVerb):
    """Compares scores with a truth: Kendall tau, Spearman rho.

    Architectures that have no score yet are scored first. The parts of the score, the
    score without each, and counts are compared, too: a score must beat them.
    """

    example: ClassVar[str] = (
        "jaxhypernas rank --workdir runs/cells --truth accuracies.csv"
    )

    truth: Path
    """CSV, TSV or Parquet with a column arch and a column of the truth"""

    column: str = "accuracy"
    """name of the column of the truth; higher is better"""

    json: bool = False
    """print one JSON object"""

    def run(self) -> list[Path]:
        """Prints the rankings."""
        from jaxhypernas.cli import truth_file
        from jaxhypernas.hosts import processes
        from jaxhypernas.report.ranking import plain
        from jaxhypernas.store import json_text

        truth = truth_file.read(self.truth, self.column)
        ranking = truth.rank(self.open())
        if not processes.first():
            return []
        if self.json:
            print(json_text.dumps(plain(ranking)))
        else:
            print(truth.text(ranking))
        return []
