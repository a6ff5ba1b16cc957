"""A file of true accuracies, and how scores rank against it."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from etils.epath import Path

from jaxhypernas.cli.readers import RowFile, number_of
from jaxhypernas.numerics.stats import Ranking, check_truth, format_report
from jaxhypernas.report.ranking import rank_rows

if TYPE_CHECKING:
    from jaxhypernas.run import Run


class TruthFile(NamedTuple):
    """Architectures and what is known of them."""

    path: Path
    """CSV, TSV or Parquet with a column arch."""

    column: str
    """The column of the truth; higher is better."""

    def rank(self, run: "Run") -> dict[str, Ranking]:
        """Compares scores with the truth; what has no score is scored.

        Args:
            run: The run that scores.

        Raises:
            UserError: The file cannot be read, or holds too little to rank.
        """
        file = RowFile(self.path, "truth")
        where = f"truth: {self.column} of {self.path}, row"
        truth_A = np.array(
            [
                number_of(row.values[self.column], f"{where} {row.number}")
                for row in file.rows("arch", self.column)
            ]
        )
        check_truth(truth_A)
        archs = list(file.archs(run.parts.searched.space, run.scores))
        return rank_rows(run.score(archs).to_pylist(), truth_A)

    def text(self, ranking: dict[str, Ranking]) -> str:
        """Returns a ranking as lines.

        Args:
            ranking: What `rank` returned.
        """
        number = next(iter(ranking.values()))["n"]
        head = f"{number} architectures, truth {self.column}, 95 % bootstrap intervals"
        return f"{head}\n{format_report(ranking)}"
