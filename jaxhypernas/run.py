"""A run: one configuration and its work directory (`store` has its files)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa
from etils.epath import Path, PathLike

from jaxhypernas.config import Config, changes, data_file, file
from jaxhypernas.config.data_file import Identity
from jaxhypernas.data.dataset import Dataset, load
from jaxhypernas.execution.devices import check_numbers, set_up
from jaxhypernas.programs import (
    candidate_verbs,
    chosen,
    export,
    limits,
    origin,
    pretrained,
    retraining_verbs,
    scorers,
    training_verbs,
    trial,
)
from jaxhypernas.programs.candidate_verbs import Objective
from jaxhypernas.programs.chosen import Chosen
from jaxhypernas.programs.parts import Parts, build
from jaxhypernas.programs.retraining import by_run
from jaxhypernas.programs.retraining_verbs import Start
from jaxhypernas.programs.scorer import Scorer
from jaxhypernas.programs.training import Trained
from jaxhypernas.programs.trial import Trial
from jaxhypernas.programs.truth import FromScratch
from jaxhypernas.report import plots, progress
from jaxhypernas.store import lock
from jaxhypernas.store.score_table import ScoreTable
from jaxhypernas.store.tables import Table
from jaxhypernas.types import Params, UserError

if TYPE_CHECKING:
    from flax import nnx
    from matplotlib.figure import Figure


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
            pretrained.check_trains(self.workdir)
            self.phi = training_verbs.train(
                self.parts, self.dataset, self.workdir
            )
        return self.phi

    def training(self) -> Iterator[Trained]:
        """Trains the generator a few seconds at a time; checkpoints are as in `train`::

            for done in run.training():
                print(int(done.state.step), done.loss)

        Yields:
            The state after each call of the program of training. What is left is done
            when the next is asked for, by this method or another.
        """
        with self._alone("train"):
            pretrained.check_trains(self.workdir)
            self.phi = yield from training_verbs.training_of(
                self.parts, self.dataset, self.workdir
            )

    def trial(self) -> Trial:
        """Measures how long the parts of a search take on this machine.

        Nothing of it stays; `programs.plan` says what a search takes, or fits it into a
        time.
        """
        with self._alone("trial"):
            limits.check(self.parts, self.dataset)
            place = self.workdir / "trial"
            return trial.measure(self.parts, self.dataset, place)

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

    def search(self, objective: Objective | None = None) -> ScoreTable:
        """Runs the search; returns the table of all candidates scored.

        Args:
            objective: What to search for: ``objective(rows)`` returns a number for each
                row of an Arrow table of scores, and the highest is best; None: the
                score, which is a column of these rows.
        """
        with self._alone("search"):
            candidate_verbs.search(
                self.parts, self.scorer, self.workdir, objective
            )
        return self.scores

    def retrain(self) -> Table:
        """Trains the best and a random sample from scratch.

        Returns:
            The table of all candidates that were trained.
        """
        with self._alone("retrain"):
            pretrained.check_trains(self.workdir)
            retraining_verbs.retrain(
                self.parts,
                self.scorer,
                lambda: self.from_scratch,
                self.retrained,
                self.workdir,
            )
        return self.retrained

    def retrain_chosen(
        self,
        archs: Sequence[str],
        *,
        config: Config | None = None,
        start: Start = "scratch",
    ) -> pa.Table:
        """Trains architectures of your choice, for as long as you like::

            longer = replace(run.config.retrain.train, steps=5000)
            retrain = replace(run.config.retrain, train=longer)
            config = replace(run.config, retrain=retrain)
            run.retrain_chosen(["b41e0a99"], config=config, start="trained")

        Args:
            archs: Architecture strings or ids.
            config: The run's configuration with other ``retrain.train``, ``data`` or
                ``seed``, or other sizes in ``space``; None: the run's own.
            start: The weights to begin with: random ones (``scratch``), those that the
                generator writes (``generated``), or those of the candidate's best
                training so far at the same sizes (``trained``).

        Returns:
            Their rows of `retrained`, each once.

        Raises:
            UserError: A string is no architecture, ``config`` does not fit the run, or
                the weights to begin with are not there.
        """
        with self._alone("retrain"):
            pretrained.check_trains(self.workdir)
            parts, dataset = self._as_in(config or self.config)
            way = retraining_verbs.Way(
                parts,
                lambda: scorers.make_from_scratch(parts, dataset()),
                start,
                lambda: self.phi,
            )
            return retraining_verbs.retrain_chosen(
                self.parts,
                self.scorer,
                self.retrained,
                self.workdir,
                archs,
                way,
            )

    def best(self, number: int = 10) -> pa.Table:
        """Returns the rows of the best candidates by ``score.order``, best first."""
        return self.scores.best(number, order=self.config.score.order)

    def figures(self) -> "dict[str, Figure]":
        """Draws the pictures of the report, as matplotlib's figures.

        Returns:
            ``scores``: loss when trained over loss under generated weights; ``search``:
            losses in the order of the search.
        """
        rows = by_run(self.retrained.read().to_pylist())
        return {
            "scores": plots.scores(rows),
            "search": plots.search(self.scores.column("loss")),
        }

    def report(self) -> dict:
        """Writes report.md, report.json and pictures; returns the figures."""
        tables = self.scores, self.retrained
        return candidate_verbs.report(
            self.parts, self.identity, *tables, self.workdir
        )

    def pack(self, out: PathLike, measured: str = "") -> list[Path]:
        """Writes the trained hypernetwork to take along, with images to score on.

        ``score --pretrained`` and ``train --from`` take it.

        Args:
            out: The directory to write to; it must be empty, or not there.
            measured: How well its scores rank candidates, for the card; by default the
                run's own random sample tells it, where one was trained.
        """
        steps = self.config.retrain.train.steps
        rows = self.retrained.read().to_pylist()
        return pretrained.pack(
            self.parts,
            self.dataset,
            lambda: self.phi,
            self.workdir,
            Path(out),
            measured or pretrained.of_sample(rows, steps),
        )

    def network(
        self, *, rank: int = 1, arch: str = "", generated: bool = False
    ) -> "nnx.Module":
        """Returns a network as a Flax module, with weights and running statistics.

        It takes images as `data.batches.normalise` gives them.

        Args:
            rank: Which of the trained candidates but for the random sample, by
                validation loss; 1 is the best.
            arch: The string or the id of an architecture instead.
            generated: Whether to take the weights that the generator writes, even if
                the architecture was trained from scratch.
        """
        return export.network(*self._chosen(rank, arch, generated))[1]

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
        return export.export(*self._chosen(rank, arch, generated), Path(out))

    def _chosen(
        self, rank: int, arch: str, generated: bool
    ) -> tuple[Parts, Dataset, Chosen]:
        """A network with the parts and the images that it was trained with."""
        rows = self.retrained.read().to_pylist()
        row: dict | None = None
        text = self.scores.named(arch)
        if text:
            row = chosen.trained(self.parts, rows, text)
        else:
            row = chosen.ranked(rows, rank)
            text = row["arch"]
        if row is None or generated:
            found = chosen.generated(self.parts, self.phi, text)
            return self.parts, self.dataset, found
        config = changes.changed(self.config, row.get("changes") or "")
        parts, dataset = self._as_in(config)
        return parts, dataset(), chosen.kept(parts, self.workdir, row)

    def _as_in(self, config: Config) -> tuple[Parts, Callable[[], Dataset]]:
        """Parts and images of a configuration that differs from the run's own."""
        parts = self.parts
        if config != self.config:
            parts = build(config, parts.image, parts.classes)
        splits = ("limit", "valid", "stream")
        own, other = self.config, config
        if own.seed == other.seed and all(
            getattr(own.data, name) == getattr(other.data, name)
            for name in splits
        ):
            return parts, lambda: self.dataset
        if self._given is not None:
            raise UserError(
                "data: the images were given as arrays, and are split as they were"
            )

        def dataset() -> Dataset:
            found = load(other.data, other.seed)
            now = found.image, found.classes
            if now != (parts.image, parts.classes):
                raise UserError(
                    f"data.dataset: images of {now[0]} and {now[1]} classes, not "
                    f"{parts.image} and {parts.classes}, as the run has"
                )
            return found

        return parts, dataset

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
        if pretrained.is_packed(self.workdir):
            return pretrained.load_images(self.workdir)
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
        if pretrained.is_packed(self.workdir):
            phi = pretrained.load_phi(self.parts, self.workdir)
        else:
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
