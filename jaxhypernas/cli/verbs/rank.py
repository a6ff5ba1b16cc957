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
        import numpy as np

        from jaxhypernas.cli.readers import RowFile, number_of
        from jaxhypernas.hosts import processes
        from jaxhypernas.numerics.stats import check_truth, format_report
        from jaxhypernas.report.ranking import plain, rank_rows
        from jaxhypernas.store import json_text

        file = RowFile(self.truth, "truth")
        rows = list(file.rows("arch", self.column))
        where = f"truth: {self.column} of {self.truth}, row"
        truth_A = np.array(
            [
                number_of(row.values[self.column], f"{where} {row.number}")
                for row in rows
            ]
        )
        check_truth(truth_A)
        run = self.open()
        archs = list(file.archs(run.parts.searched.space, run.scores))
        scored = run.score(archs).to_pylist()
        ranking = rank_rows(scored, truth_A)
        if not processes.first():
            return []
        if self.json:
            print(json_text.dumps(plain(ranking)))
            return []
        print(
            f"{len(rows)} architectures, truth {self.column}, "
            "95 % bootstrap intervals"
        )
        print(format_report(ranking))
        return []
