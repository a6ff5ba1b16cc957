"""``jaxhypernas retrain``."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from etils.epath import Path

from jaxhypernas.cli.verbs.base import Configured, RunVerb
from jaxhypernas.config.config import Config
from jaxhypernas.types import UserError

if TYPE_CHECKING:
    import pyarrow as pa

    from jaxhypernas.run import Run


@dataclass(frozen=True, kw_only=True)
class Retrain(Configured, RunVerb):
    """Trains the best and a random sample from scratch, or those you choose.

    Those you choose may be trained for more --steps, with other --data.* or at larger
    sizes (as in --space.channels 32); export then takes the best of all.
    """

    example: ClassVar[str] = (
        "jaxhypernas retrain --workdir runs/search --rank 1 --steps 5000"
    )

    common: ClassVar[tuple[str, ...]] = (
        "data.dataset",
        "data.data_dir",
        "retrain.train.batch",
        "retrain.train.learning_rate",
        "seed",
    )

    archs: Path | None = None
    """architectures to train: a text file with one or its id per line, or CSV, TSV or
    Parquet with a column arch; - reads from a pipe"""

    top: int = 0
    """train the N best by score"""

    rank: int = 0
    """train the one with the N-th lowest validation loss of those trained so far; 1 is
    the winner"""

    steps: int = 0
    """training steps of each; short for --retrain.train.steps"""

    start: Literal["scratch", "generated", "trained"] = "scratch"
    """weights to begin with: random ones, those that the generator writes, or those of
    its best training so far"""

    def run(self) -> list[Path]:
        """Trains those that are missing."""
        from jaxhypernas.config import file
        from jaxhypernas.hosts import processes

        config = self._config()
        chooses = self._chooses()
        if chooses:
            data = config.data
            moved = file.moved(self.workdir, data.dataset, data.data_dir)
            run = self.open(moved)
            rows = run.retrain_chosen(
                self._archs(run), config=config, start=self.start
            )
            if processes.first():
                _print(rows)
        else:
            begun = file.begun_steps(self.workdir) is not None
            self.open(config if begun else None).retrain()
        return [self.workdir / "retrain", self.workdir / "weights"]

    def _config(self) -> Config:
        """The configuration with --steps."""
        if self.steps < 0:
            raise UserError(f"steps: {self.steps} must be at least 1")
        if not self.steps:
            return self.config
        retrain = self.config.retrain
        train = replace(retrain.train, steps=self.steps)
        return replace(self.config, retrain=replace(retrain, train=train))

    def _chooses(self) -> bool:
        """Whether the user chose whom to train."""
        for name, value in (("top", self.top), ("rank", self.rank)):
            if value < 0:
                raise UserError(f"{name}: {value} must be at least 1")
        given = (self.archs is not None) + (self.top > 0) + (self.rank > 0)
        if given > 1:
            raise UserError(
                "retrain: give one of --archs FILE, --top N and --rank N"
            )
        if not given and (self.steps or self.start != "scratch"):
            name = "steps" if self.steps else "start"
            raise UserError(
                f"{name}: it is for architectures that you choose: give --archs FILE, "
                "--top N or --rank N"
            )
        return given > 0

    def _archs(self, run: "Run") -> list[str]:
        from jaxhypernas.cli.readers import RowFile
        from jaxhypernas.programs import chosen

        if self.archs is not None:
            file = RowFile(self.archs, "archs")
            return list(file.archs(run.parts.searched.space, run.scores))
        if self.top:
            best = run.best(self.top)
            if not len(best):
                raise UserError(
                    f"top: {self.workdir} has no scores: run jaxhypernas score first"
                )
            return best["arch"].to_pylist()
        rows = run.retrained.read().to_pylist()
        return [chosen.ranked(rows, self.rank)["arch"]]


def _print(rows: "pa.Table") -> None:
    """A line for each candidate."""
    from jaxhypernas.store.score_table import SHORT_ID

    for row in rows.to_pylist():
        print(
            f"{row['id'][:SHORT_ID]}  test accuracy {row['test_accuracy']:.4f}, "
            f"validation {row['trained_valid_accuracy']:.4f}"
        )
