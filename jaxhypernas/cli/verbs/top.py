"""``jaxhypernas top``."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from etils.epath import Path

from jaxhypernas.cli.verbs.base import Verb
from jaxhypernas.search.configs import Limits
from jaxhypernas.types import UserError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Top(Verb):
    """Prints the candidates of lowest loss, or a Pareto front.

    A front holds all candidates that no other beats in both loss and a count.
    """

    example: ClassVar[str] = (
        "jaxhypernas top --workdir runs/search --number 5 --max-params 20000"
    )

    workdir: Path
    """directory of the run"""

    number: int = 20
    """how many candidates"""

    max_params: int = 0
    """only candidates with at most so many parameters; 0: no limit"""

    max_flops: int = 0
    """only candidates with at most so many multiply-adds; 0: no limit"""

    pareto: Literal["params", "flops", "live_params", "live_flops"] | None = (
        None
    )
    """the whole front of loss and this count, instead of the lowest losses"""

    out: Path | None = None
    """file (.parquet, .csv, .tsv) to write the candidates to"""

    def run(self) -> list[Path]:
        """Reads the table of scores; nothing else of the run."""
        from jaxhypernas.cli import writers

        if self.number < 1:
            raise UserError(f"number: {self.number} must be at least 1")
        if self.out is not None:
            writers.check(self.out, "out")
        found = self._find()
        _print_rows(found)
        if self.out is None:
            return []
        writers.write(self.out, [found])
        return [self.out]

    def _find(self) -> "pa.Table":
        from jaxhypernas.store.score_table import ScoreTable

        Limits(self.max_params, self.max_flops).check()
        scores = ScoreTable(self.workdir / "scores")
        limits = self.max_params, self.max_flops
        if self.pareto is not None:
            found = scores.pareto(self.pareto, *limits)
        else:
            found = scores.best(self.number, *limits)
        if not len(found):
            raise UserError(
                f"top: none of {len(scores)} candidates is within --max-params and "
                "--max-flops"
            )
        return found


def _print_rows(found: "pa.Table") -> None:
    from jaxhypernas.store.score_table import COUNTS, SHORT_ID

    heads = "".join(f"{name:>13}" for name in COUNTS)
    print(f"{'id':{SHORT_ID}}      loss  accuracy{heads}  arch")
    for row in found.to_pylist():
        counts = "".join(f"{row[name]:13,}" for name in COUNTS)
        losses = f"{row['loss']:8.4f}  {row['accuracy']:8.4f}"
        print(f"{row['id'][:SHORT_ID]}  {losses}{counts}  {row['arch']}")
