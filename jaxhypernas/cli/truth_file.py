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
    """Architectures and what is known of them; `read` makes it."""

    file: RowFile
    """The file."""

    column: str
    """The column of the truth."""

    truth_A: np.ndarray
    """The truth; higher is better."""

    def rank(self, run: "Run") -> dict[str, Ranking]:
        """Compares scores with the truth; what has no score is scored.

        Args:
            run: The run that scores.

        Raises:
            UserError: A string is no architecture.
        """
        space = run.parts.searched.space
        archs = list(self.file.archs(space, run.scores))
        return rank_rows(run.score(archs).to_pylist(), self.truth_A)

    def text(self, ranking: dict[str, Ranking]) -> str:
        """Returns a ranking as lines.

        Args:
            ranking: What `rank` returned.
        """
        number = len(self.truth_A)
        head = f"{number} architectures, truth {self.column}, 95 % bootstrap intervals"
        return f"{head}\n{format_report(ranking)}"


def read(path: Path, column: str) -> TruthFile:
    """Reads a file of true accuracies.

    Args:
        path: CSV, TSV or Parquet with a column arch.
        column: The column of the truth; higher is better.

    Raises:
        UserError: The file cannot be read, or holds too little to rank.
    """
    file = RowFile(path, "truth")
    where = f"truth: {column} of {path}, row"
    truth_A = np.array(
        [
            number_of(row.values[column], f"{where} {row.number}")
            for row in file.rows("arch", column)
        ]
    )
    check_truth(truth_A)
    return TruthFile(file, column, truth_A)
