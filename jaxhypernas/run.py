"""A run: one configuration and its work directory (`store` has its files)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa
from etils.epath import Path, PathLike

from jaxhypernas.config import Config, data_file, file
from jaxhypernas.config.data_file import Identity
from jaxhypernas.data.dataset import Dataset, load
from jaxhypernas.execution.devices import check_numbers, set_up
from jaxhypernas.programs import (
    candidate_verbs,
    export,
    origin,
    scorers,
    training_verbs,
)
from jaxhypernas.programs.export import Chosen
from jaxhypernas.programs.parts import Parts, build
from jaxhypernas.programs.scorer import Scorer
from jaxhypernas.programs.truth import FromScratch
from jaxhypernas.report import progress
from jaxhypernas.store import lock
from jaxhypernas.store.score_table import ScoreTable
from jaxhypernas.store.tables import Table
from jaxhypernas.types import Params

if TYPE_CHECKING:
    from flax import nnx


class Run:
    """A run, begun or continued; every method does what is missing::

        run = Run("runs/mine", PRESETS["small"])
        run.train()
        run.search().best(10)

    Args:
        workdir: The work directory, made by the first method that writes. The same
            directory continues the run, bit for bit.
        config: The configuration of a new run. For a begun run it must be the same but
            for ``execution`` and the place of the images (``data.dataset`` and
            ``data.data_dir``), or None.
        dataset: The images, as `data.dataset.from_arrays` makes them; None: the set
            that the configuration names.

    Raises:
        UserError: The directory holds another configuration, or none is given. Methods
            that write also raise it while another program writes there.
    """

    def __init__(
        self,
        workdir: PathLike,
        config: Config | None = None,
        dataset: Dataset | None = None,
    ):
        self.workdir = Path(workdir)
        self.config = file.resolve(self.workdir, config)
        self._given = dataset

    def __repr__(self) -> str:
        return f"Run({str(self.workdir)!r}, {self.config.names})"

    def train(self) -> Params:
        """Trains the generator; returns its parameters phi."""
        with self._alone("train"):
            self.phi = training_verbs.train(
                self.parts, self.dataset, self.workdir
            )
        return self.phi

    def begin_from(self, source: PathLike) -> None:
        """Begins a new run with phi of another run's newest checkpoint.

        Args:
            source: The work directory of the other run. Its space, generator and shape
                of images must be the same.
        """
        with self._alone("train"):
            origin.adopt(
                self.parts,
                self.dataset,
                self.workdir,
                Path(source),
            )

    def train_on(self, steps: int) -> Params:
        """Trains the generator of a begun run further; returns phi.

        From the next step on, the learning rate and all else that depends on the
        length of training are those of a run of ``steps`` steps. The result is not that
        of a run begun with so many, as the steps already done followed the shorter
        schedule. Scores and candidates trained from scratch are set aside.

        Args:
            steps: The new number of training steps, larger than the old one.
        """
        with self._alone("train"):
            training_verbs.check_grows(self.parts, self.dataset, steps)
            training_verbs.set_tables_aside(
                self.config.train.steps, steps, self.workdir
            )
            train = replace(self.config.train, steps=steps)
            self.config = replace(self.config, train=train)
            for name in ("parts", "phi", "scores", "retrained", "scorer"):
                self.__dict__.pop(name, None)
            return self.train()

    def score(self, archs: Sequence[str]) -> pa.Table:
        """Scores architecture strings or ids; returns their rows, in order."""
        with self._alone("score"):
            return candidate_verbs.score(self.parts, self.scorer, archs)

    def search(self) -> ScoreTable:
        """Runs the search; returns the table of all candidates scored."""
        with self._alone("search"):
            candidate_verbs.search(self.parts, self.scorer, self.workdir)
        return self.scores

    def retrain(self, archs: Sequence[str] = ()) -> Table:
        """Trains candidates from scratch; returns the table of all that were.

        Args:
            archs: Architecture strings or ids; none: the best and a random sample.
        """
        with self._alone("retrain"):
            candidate_verbs.retrain(
                self.parts,
                self.scorer,
                lambda: self.from_scratch,
                self.retrained,
                self.workdir,
                archs,
            )
        return self.retrained

    def best(self, number: int = 10) -> pa.Table:
        """Returns the rows of the best candidates by ``score.order``, best first."""
        return self.scores.best(number, order=self.config.score.order)

    def report(self) -> dict:
        """Writes report.md, report.json and pictures; returns the figures."""
        tables = self.scores, self.retrained
        return candidate_verbs.report(
            self.parts, self.identity, *tables, self.workdir
        )

    def network(
        self, *, rank: int = 1, arch: str = "", generated: bool = False
    ) -> "nnx.Module":
        """Returns a network as a Flax module, with weights and running statistics.

        It takes images as `data.batches.normalise` gives them.

        Args:
            rank: Which of the candidates trained from scratch; 1 is the winner.
            arch: The string or the id of an architecture instead.
            generated: Whether to take the weights that the generator writes, even if
                the architecture was trained from scratch.
        """
        chosen = self._chosen(rank, arch, generated)
        return export.network(self.parts, self.dataset, chosen)[1]

    def export(
        self,
        out: PathLike,
        *,
        rank: int = 1,
        arch: str = "",
        generated: bool = False,
    ) -> list[Path]:
        """Writes a network as files that need Flax alone; returns them.

        Args:
            out: The directory to write to.
            rank: As for `network`.
            arch: As for `network`.
            generated: As for `network`.
        """
        chosen = self._chosen(rank, arch, generated)
        return export.export(self.parts, self.dataset, chosen, Path(out))

    def _chosen(self, rank: int, arch: str, generated: bool) -> Chosen:
        parts, retrained = self.parts, self.retrained
        row: dict | None = None
        text = self.scores.named(arch)
        if text:
            row = export.trained(parts, retrained, text)
        else:
            row = export.ranked(retrained, rank)
            text = row["arch"]
        if row is None or generated:
            return export.generated(parts, self.phi, text)
        return export.from_scratch(parts, self.workdir, row)

    @contextmanager
    def _alone(self, verb: str) -> Iterator[None]:
        """Holds the work directory, and reads what others wrote since the last time."""
        with lock.held(self.workdir, verb):
            for name in ("scores", "retrained"):
                if name in self.__dict__:
                    self.__dict__[name].refresh()
            yield

    @cached_property
    def dataset(self) -> Dataset:
        """The images; raises `UserError` if the run began with others."""
        with progress.waiting("reading images"):
            found = self._given or load(self.config.data, self.config.seed)
        began = data_file.load(self.workdir)
        if began is not None:
            now = data_file.identify(found)
            data_file.check(began, now, self.config.data.dataset)
        return found

    @cached_property
    def identity(self) -> Identity:
        """What identifies the images; a begun run knows it without them."""
        began = data_file.load(self.workdir)
        return began or data_file.identify(self.dataset)

    @cached_property
    def parts(self) -> Parts:
        """Space, target, generator, strategy and devices."""
        set_up()
        check_numbers()
        return build(self.config, self.identity.image, self.identity.classes)

    @cached_property
    def scores(self) -> ScoreTable:
        """All candidates scored."""
        return ScoreTable(self.workdir / "scores")

    @cached_property
    def retrained(self) -> Table:
        """All candidates trained from scratch."""
        return Table(self.workdir / "retrain")

    @cached_property
    def phi(self) -> Params:
        """Parameters of the trained generator."""
        phi = training_verbs.restore_phi(self.parts, self.workdir)
        training_verbs.describe(self.dataset)
        return phi

    @cached_property
    def scorer(self) -> Scorer:
        """Scores candidates that the table lacks; makes the work directory."""
        parts, table = self.parts, self.scores
        training_verbs.begin(parts, self.dataset, self.workdir)
        if parts.searched.generator.trained:
            return scorers.generated_scorer(
                parts, table, self.dataset, lambda: self.phi
            )
        return scorers.scratch_scorer(
            parts, table, self.dataset, lambda: self.from_scratch
        )

    @cached_property
    def from_scratch(self) -> FromScratch:
        """Trains candidates from scratch."""
        made = scorers.make_from_scratch(self.parts, self.dataset)
        if "phi" not in self.__dict__:
            training_verbs.describe(self.dataset)
        return made
