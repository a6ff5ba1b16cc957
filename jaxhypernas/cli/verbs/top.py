"""``jaxhypernas top``."""

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from etils.epath import Path

from jaxhypernas.cli.verbs.base import Verb
from jaxhypernas.search.configs import Limits
from jaxhypernas.types import UserError

if TYPE_CHECKING:
    import pyarrow as pa

    from jaxhypernas.config.config import Config


@dataclass(frozen=True, kw_only=True)
class Top(Verb):
    """Prints the best candidates, or a Pareto front.

    A front holds all candidates that no other beats in both score, or loss, and a
    count.
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
    """the whole front of score, or loss, and this count, instead of the best"""

    score: Literal["evidence", "loss"] | None = None
    """what is best: the score, which combines capacity, separability and loss, or the
    lowest loss; by default what the run was begun with"""

    out: Path | None = None
    """file (.parquet, .csv, .tsv) to write the candidates to"""

    def run(self) -> list[Path]:
        """Reads the table of scores; nothing else of the run."""
        from jaxhypernas.cli import writers
        from jaxhypernas.families import FAMILIES
        from jaxhypernas.store import files

        if self.number < 1:
            raise UserError(f"number: {self.number} must be at least 1")
        if self.out is not None:
            writers.check(self.out, "out")
        found = self._find()
        _print_rows(found)
        if (config := self._config()) is not None:
            family = FAMILIES[config.names["space"]]
            if family.grammar:
                files.report(f"\n{family.grammar}")
        if self.out is None:
            return []
        writers.write(self.out, [found])
        return [self.out]

    def _config(self) -> "Config | None":
        """The configuration of the run, if it can be read."""
        from jaxhypernas.config import file as config_file

        # Scores can be read without the configuration, and without its plug-ins.
        with contextlib.suppress(UserError):
            return config_file.load(self.workdir / "config.json")
        return None

    def _find(self) -> "pa.Table":
        from jaxhypernas.store.score_table import ScoreTable

        Limits(self.max_params, self.max_flops).check()
        scores = ScoreTable(self.workdir / "scores")
        config = self._config()
        order = self.score or (config.score.order if config else "evidence")
        choice = self.max_params, self.max_flops, order
        if self.pareto is not None:
            found = scores.pareto(self.pareto, *choice)
        else:
            found = scores.best(self.number, *choice)
        if not len(found):
            raise UserError(
                f"top: none of {len(scores)} candidates is within --max-params and "
                "--max-flops"
            )
        return found


def _print_rows(found: "pa.Table") -> None:
    from jaxhypernas.store.score_table import COUNTS, SHORT_ID

    heads = "".join(f"{name:>13}" for name in COUNTS)
    print(
        f"{'id':{SHORT_ID}}     score      loss  accuracy  capacity  separability"
        f"{heads}  arch"
    )
    for row in found.to_pylist():
        counts = "".join(f"{row[name]:13,}" for name in COUNTS)
        evidence = (
            f"{row['score']:8.3f}  {row['loss']:8.4f}  {row['accuracy']:8.4f}"
            f"  {row['capacity']:8.3g}  {row['separability']:12.2f}"
        )
        print(f"{row['id'][:SHORT_ID]}  {evidence}{counts}  {row['arch']}")
