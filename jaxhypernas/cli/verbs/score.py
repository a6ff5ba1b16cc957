"""``jaxhypernas score``."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from etils.epath import Path

from jaxhypernas.cli.verbs.base import ContinueVerb
from jaxhypernas.types import Arch, UserError

if TYPE_CHECKING:
    from jaxhypernas.programs.parts import Parts
    from jaxhypernas.store.score_table import ScoreTable


@dataclass(frozen=True, kw_only=True)
class Score(ContinueVerb):
    """Scores architectures with the generator's weights.

    Give one of --archs, --random and --all. Each distinct architecture is scored once
    and its row kept in scores/ of the work directory.
    """

    example: ClassVar[str] = (
        "jaxhypernas score --workdir runs/search --random 1000"
    )

    archs: Path | None = None
    """text file with an architecture or its id per line, or CSV, TSV or Parquet
    with a column arch; - reads from a pipe"""

    random: int = 0
    """number of random architectures"""

    all: bool = False
    """all architectures of the space"""

    seed: int = 0
    """seed of the random architectures"""

    pretrained: Path | None = None
    """begin the run with this hypernetwork, which jaxhypernas pack wrote: nothing is
    trained, no other images are needed"""

    out: Path | None = None
    """file (.parquet, .csv, .tsv) with a row for each architecture given, in order"""

    def run(self) -> list[Path]:
        """Scores the architectures in pieces: any number fits in memory."""
        from jaxhypernas.cli import writers
        from jaxhypernas.hosts import processes
        from jaxhypernas.programs import candidate_verbs, pretrained
        from jaxhypernas.store.score_table import COLUMNS

        self._check()
        if self.pretrained is not None:
            pretrained.adopt(self.pretrained, self.workdir)
        run = self.open()
        table = run.scorer.table
        pieces, number = self._candidates(run.parts, table)
        scored = candidate_verbs.score_pieces(
            run.parts, run.scorer, pieces, number
        )
        if self.out is not None and processes.first():
            columns = list(COLUMNS[1:])
            rows = (
                candidate_verbs.given_rows(run.scorer, *each).select(columns)
                for each in scored
            )
            writers.write(self.out, rows)
        else:
            deque(scored, maxlen=0)
        return [self.out or self.workdir / "scores"]

    def _check(self) -> None:
        from jaxhypernas.cli import writers

        given = (self.archs is not None) + (self.random > 0) + self.all
        if given != 1:
            raise UserError(
                "score: give one of --archs FILE, --random N with N of at least 1, "
                "and --all"
            )
        if not 0 <= self.seed < 2**32:
            raise UserError(
                f"seed: {self.seed} must be at least 0 and below 2^32"
            )
        if self.out is not None:
            writers.check(self.out, "out")

    def _candidates(
        self, parts: "Parts", table: "ScoreTable"
    ) -> tuple[Iterator[Arch], int]:
        """Populations to score, and how many candidates are in them."""
        import jax

        from jaxhypernas.cli.readers import RowFile
        from jaxhypernas.programs import populations
        from jaxhypernas.search.budget import within

        space = parts.searched.space
        if self.all:
            pieces = populations.iter_all(space)
            assert space.all is not None
            return pieces, space.all.size
        if self.archs is None:
            draw = within(space, parts.config.search)
            key = jax.random.key(self.seed)
            pieces = populations.iter_samples(draw, self.random, key)
            return pieces, self.random

        # All strings are parsed before the first one is scored.
        file = RowFile(self.archs, "archs")
        number = sum(1 for _ in file.archs(space, table))
        strings = (
            table.named(row.values["arch"]) for row in file.rows("arch")
        )
        return populations.iter_parsed(space, strings), number
