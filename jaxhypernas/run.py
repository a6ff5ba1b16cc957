"""A run: one configuration and its work directory. Each verb does what is missing and leaves the rest as it is.

config.json       the resolved configuration
metrics.jsonl     a line per training segment and per round of a search
checkpoints/      training state: the newest, one before it, the best
scores/           one row per candidate scored; a search replays from it, a stream of candidates goes on after it
retrain/          one row per candidate trained from scratch
report.md, *.png  what came out
"""

import importlib.util
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice

import jax
import numpy as np
import pyarrow as pa
from etils.epath import Path, PathLike
from jax.sharding import NamedSharding

from jaxhypernas import search
from jaxhypernas.archs.population import (
    BATCH,
    concatenate,
    in_batches,
    rows,
    size,
)
from jaxhypernas.config import config as configs
from jaxhypernas.config.config import Config
from jaxhypernas.execution import compilations
from jaxhypernas.hosts import interrupt, processes
from jaxhypernas.numerics import stats
from jaxhypernas.programs import limits
from jaxhypernas.programs.parts import Components
from jaxhypernas.programs.scoring import make_score, score_one
from jaxhypernas.programs.training import TrainState, check_progress
from jaxhypernas.programs.truth import make_retrain
from jaxhypernas.report import progress, report
from jaxhypernas.store.checkpoints import Checkpoints
from jaxhypernas.store.score_table import (
    NO_ROWS,
    Scored,
    digits,
    identities,
    numbers,
)
from jaxhypernas.store.tables import Table
from jaxhypernas.types import Arch, Scores, UserError

PIECE = 64 * BATCH  # candidates of a stream that are in memory at once
SHARE, LEAST = (
    100,
    32,
)  # appended together: 1/SHARE of what is scored before, and candidates per device at least


class Run(Components):
    """Opens or begins the run of a work directory.

    Args:
        workdir: made if it does not exist.
        config: of a new run; for an existing one it must be the same but for ``execution``, or None.

    Raises:
        UserError: the directory holds another configuration, cannot be written, or is empty and config is None.
    """

    def __init__(self, workdir: PathLike, config: Config | None = None):
        self.workdir = Path(workdir)
        path = self.workdir / "config.json"
        stored = configs.load(path) if path.exists() else None
        config = config or stored
        if config is None:
            raise UserError(
                f"workdir: {self.workdir} holds no run: begin one with jaxhypernas train --workdir {self.workdir}"
            )
        if stored and (
            found := configs.difference(
                replace(stored, execution=config.execution), config
            )
        ):
            raise UserError(
                f"{found[0]}: {self.workdir} was begun with {found[1]}, not {found[2]}: use a new --workdir"
            )
        super().__init__(config)
        self._check(stored)
        try:
            with processes.in_turn():
                if processes.first() and config != stored:
                    self.workdir.mkdir(parents=True, exist_ok=True)
                    configs.save(config, path)
                if not path.exists():
                    raise UserError(
                        f"workdir: process {processes.index()} doesn't see what process 0 wrote to {self.workdir}: "
                        "use a directory that all processes share"
                    )
        except OSError as error:
            raise UserError(
                f"workdir: {self.workdir} cannot be written ({error.strerror}): use another --workdir"
            ) from None

    def _check(self, stored: Config | None) -> None:
        """Bad data, parts that don't fit each other or a search that can't begin must not leave a begun run behind."""
        _ = self.trained, self.strategy
        if self.config == stored:
            return
        limits.check(self)
        if self.config.search.max_params or self.config.search.max_flops:
            self.strategy.ask(
                self.strategy.init(self.key)
            )  # some candidates fit the budget

    @cached_property
    def scores(self) -> Scored:
        """All candidates scored."""
        return Scored(self.workdir / "scores")

    @cached_property
    def retrained(self) -> Table:
        """All candidates trained from scratch."""
        return Table(self.workdir / "retrain")

    # --- training -----------------------------------------------------------------------------------------------

    def train(self) -> TrainState:
        """Train the generator to the end, from the newest checkpoint if there is one.

        Raises:
            UserError: there is nothing to train, or a setting does not fit the space or the devices.
        """
        if self._from_scratch:
            raise UserError(
                "generator: standalone is not trained beforehand, each candidate is when it is scored"
            )
        _ = self.train_program  # a setting that doesn't fit must not wait for a checkpoint to be read
        checkpoints = Checkpoints(self.workdir / "checkpoints")
        try:
            state = self._restored(checkpoints, self.replicated)
            if state is None:
                begin = jax.jit(
                    lambda: self.start(jax.random.fold_in(self.key, 0)),
                    out_shardings=self.replicated,
                )
                state = begin()
            return self._train_from(state, checkpoints)
        finally:
            checkpoints.close()

    def _restored(
        self, checkpoints: Checkpoints, sharding: NamedSharding
    ) -> TrainState | None:
        """The newest state that is whole."""
        like = jax.tree.map(
            lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding),
            jax.eval_shape(self.start, self.key),
        )
        restored = checkpoints.restore(like)
        return restored and restored[1]

    def _train_from(
        self, state: TrainState, checkpoints: Checkpoints
    ) -> TrainState:
        config, program = self.config.train, None
        shown = progress.bar(
            "train", config.steps, "images*candidates", start=int(state.step)
        )
        with shown as bar, closing(self.training_images(state)) as segments:
            images = next(segments, None)
            while (done := int(state.step)) < config.steps:
                steps, began = (
                    min(config.every, config.steps - done),
                    time.time(),
                )
                program = program or processes.compiled(
                    self.train_program, state, images, np.int32(steps)
                )
                state, loss = program(state, images, np.int32(steps))
                images = next(
                    segments, None
                )  # read and sent while the program runs
                check_progress(
                    float(loss), int(state.step), self.dataset.classes
                )
                rate = (
                    steps
                    * config.batch
                    * config.architectures
                    / (time.time() - began)
                )
                checkpoints.save(int(state.step), state, float(loss))
                self._log(
                    {
                        "step": int(state.step),
                        "loss": float(loss),
                        "images_candidates_per_s": round(rate, 1),
                        "compilations": compilations.total(),
                        "chunk": self.chunk,
                        "form": self.form,
                    }
                )
                bar.advance(
                    steps,
                    steps * config.batch * config.architectures,
                    f"loss {float(loss):.3f}",
                )
                interrupt.check()
        return state

    def _log(self, line: dict) -> None:
        """A line of metrics.jsonl, its first entry the position; TensorBoard events where tensorboardX is installed."""
        if not processes.first():
            return
        path, text = self.workdir / "metrics.jsonl", json.dumps(line) + "\n"
        if "://" in str(
            path
        ):  # an object store cannot append, and gcsfs overwrites instead
            path.write_text((path.read_text() if path.exists() else "") + text)
        else:
            with path.open("a") as file:
                file.write(text)
        if self._events is not None:
            position, *_ = line.values()
            for name, value in line.items():
                if not isinstance(value, str):
                    self._events.add_scalar(name, value, position)

    @cached_property
    def _events(self):
        if importlib.util.find_spec("tensorboardX") is None:
            return None
        return importlib.import_module("tensorboardX").SummaryWriter(
            str(self.workdir / "events")
        )

    @cached_property
    def phi(self):
        """The trained generator's parameters.

        Raises:
            UserError: training has not ended.
        """
        state = None
        if (self.workdir / "checkpoints").is_dir():
            with Checkpoints(self.workdir / "checkpoints") as checkpoints:
                state = self._restored(checkpoints, self.local)
        done = 0 if state is None else int(state.step)
        if state is None or done < self.config.train.steps:
            raise UserError(
                f"workdir: {self.workdir} has {done} of {self.config.train.steps} training steps: "
                f"run jaxhypernas train --workdir {self.workdir}"
            )
        return state.phi

    # --- scoring ------------------------------------------------------------------------------------------------

    @property
    def _from_scratch(self) -> bool:
        """Whether a candidate's score is its loss after training from scratch."""
        return self.config.generator == "standalone"

    @cached_property
    def _score(self):
        one = partial(score_one, self.target, self.generator)
        return make_score(
            one,
            self.local_mesh,
            self.chunk,
            lambda population: self.space.cost(population).flops,
        )

    def _evaluate(self, population: Arch, id_A: np.ndarray) -> Scores:
        """Validation scores of canonical candidates."""
        if self._from_scratch:
            return self._train_each(population, id_A)[0]
        return self._score((self.phi, self.valid), population)

    @cached_property
    def _canonical(self):
        return jax.jit(jax.vmap(self.space.canonical))

    def add(self, population: Arch, bar=None) -> np.ndarray:
        """Score the candidates that the table has not, duplicates once; the ids of all, uint64, in order."""
        population = in_batches(self._canonical, population)
        id_A = identities(population)
        new = np.sort(np.unique(id_A, return_index=True)[1])
        new = new[~self.scores.known(id_A[new])]
        if bar is not None:
            bar.advance(len(id_A) - len(new), 0)
        while len(new):
            devices = jax.device_count()
            number = (
                devices
                if self._from_scratch
                else max(LEAST * devices, len(self.scores) // SHARE)
            )
            picked, new = new[:number], new[number:]
            own = picked[processes.share(len(picked))]
            part = rows(population, own)
            self.scores.append(
                self._rows(part, id_A[own], self._evaluate(part, id_A[own]))
                if len(own)
                else NO_ROWS
            )
            if bar is not None:
                bar.advance(
                    len(picked),
                    len(picked) * self.valid.y_TxB.size,
                    f"best {self.scores.lowest:.3f}",
                )
            interrupt.check()
        return id_A

    def score(self, population: Arch, bar=None) -> list[dict]:
        """A row per candidate, in order: from the table, or scored now and added to it."""
        return self.scores.rows(self.add(population, bar)).to_pylist()

    def score_bar(self, total: int):
        """A progress bar for `add` and `score`."""
        return progress.bar("score", total, "images*candidates")

    def _rows(
        self, population: Arch, id_A: np.ndarray, scores: Scores
    ) -> pa.Table:
        archs = [
            self.space.to_string(rows(population, i))
            for i in range(size(population))
        ]
        columns = {
            name: np.asarray(value_A, np.float64)
            for name, value_A in scores._asdict().items()
        }
        return pa.table(
            {
                "id": digits(id_A),
                "arch": archs,
                **columns,
                **self.space.cost(population)._asdict(),
            }
        )

    @cached_property
    def _draw(self) -> search.Draw:
        return search.within(
            self.space,
            search.Budget(
                self.config.search.max_params, self.config.search.max_flops
            ),
        )

    def sample(self, number: int, key: jax.Array) -> Arch:
        """Random architectures within the search's limits."""
        return self._draw.sample(key, number)

    def samples(self, number: int, key: jax.Array) -> Iterator[Arch]:
        """The same in pieces. The first ones are the same for any number."""
        return (
            concatenate(*piece)
            for piece in _pieces(self._draw.stream(key, number), PIECE // BATCH)
        )

    def everything(self) -> tuple[Iterator[Arch], int]:
        """All architectures of the space, in pieces, and how many they are.

        Raises:
            UserError: they cannot be listed.
        """
        if self.space.all is None:
            raise UserError(
                f"all: architectures of {self.space.name} cannot be listed: use --random N"
            )
        size, at = self.space.all
        return (
            at(np.array(piece)) for piece in _pieces(range(size), PIECE)
        ), size

    def parse(self, strings: list[str]) -> Arch:
        """A population from architecture strings."""
        archs = [self.space.from_string(s) for s in strings]
        return jax.tree.map(lambda *x: np.stack(x), *archs)

    def parsed(self, strings: Iterable[str]) -> Iterator[Arch]:
        """The same in pieces."""
        return map(self.parse, _pieces(strings, PIECE))

    def search(self) -> Scored:
        """Run the strategy, replaying what is scored already; all candidates scored."""
        with progress.bar(
            "search", self.strategy.total, "images*candidates"
        ) as bar:

            def evaluate(population):
                loss_A = self.scores.loss(self.add(population, bar))
                self._log(
                    {
                        "scored": len(self.scores),
                        "best": self.scores.lowest,
                        "compilations": compilations.total(),
                    }
                )
                return loss_A

            search.run(self.strategy, jax.random.fold_in(self.key, 1), evaluate)
        return self.scores

    # --- truth --------------------------------------------------------------------------------------------------

    def retrain(self) -> list[dict]:
        """Train the best candidates and a random sample from scratch; a row each, with its generated-weight score."""
        config, _ = self.config.retrain, self.images  # which streaming has not
        if not len(self.scores):
            raise UserError(
                f"workdir: {self.workdir} has no scores: run jaxhypernas search or score first"
            )
        best = self.scores.best(config.top).to_pylist()
        sample = self.score(
            self.sample(config.sample, jax.random.fold_in(self.key, 2))
        )
        wanted = [("top", row) for row in best] + [
            ("sample", row) for row in sample
        ]
        done = {
            (row["group"], row["id"])
            for row in self.retrained.read().to_pylist()
        }
        missing = [
            (group, row)
            for group, row in wanted
            if (group, row["id"]) not in done
        ]
        per_candidate = config.train.steps * config.train.batch
        with progress.bar(
            "retrain",
            len(wanted),
            "images*candidates",
            start=len(wanted) - len(missing),
        ) as bar:
            for start in range(0, len(missing), jax.device_count()):
                part = missing[start : start + jax.device_count()]
                self.retrained.append(
                    pa.Table.from_pylist(
                        self._train_rows(part[processes.share(len(part))])
                    )
                )
                accuracy_A = self.retrained.read(["test_accuracy"])[
                    "test_accuracy"
                ].to_numpy()
                bar.advance(
                    len(part),
                    len(part) * per_candidate,
                    f"test accuracy {accuracy_A[-len(part) :].mean():.3f}",
                )
                interrupt.check()
        return self.retrained.read().to_pylist()

    def _train_rows(self, part: list[tuple[str, dict]]) -> list[dict]:
        """What `retrain` adds to these groups and rows of candidates, at most one per device."""
        if not part:
            return []
        population = self.parse([row["arch"] for _, row in part])
        valid, held = self._train_each(
            population, numbers([row["id"] for _, row in part])
        )
        return [
            {
                "group": group,
                **row,
                "trained_valid_loss": float(valid.loss[i]),
                "trained_valid_accuracy": float(valid.accuracy[i]),
                "test_loss": float(held.loss[i]),
                "test_accuracy": float(held.accuracy[i]),
            }
            for i, (group, row) in enumerate(part)
        ]

    @cached_property
    def _retrain(self):
        return make_retrain(
            self.config.retrain.train,
            self.config.data,
            self.target,
            self.local_mesh,
        )

    def _train_each(
        self, population: Arch, id_A: np.ndarray
    ) -> tuple[Scores, Scores]:
        """Validation and test scores after training from scratch, of at most one candidate per device."""
        seed_A = (id_A >> np.uint64(36)).astype(np.int32)
        key = jax.random.fold_in(self.key, 3)
        images = processes.local(self.images, self.local)
        return self._retrain(
            key, images, self.valid, self.test, population, seed_A
        )

    def rank(
        self, arch: list[str], truth: np.ndarray
    ) -> dict[str, stats.Ranking]:
        """How scores of these architectures rank against a truth (higher is better), beside parameters and FLOPs."""
        stats.check_truth(truth)
        pieces = list(
            self.parsed(arch)
        )  # all of them, before the first is scored
        scored = [row for piece in pieces for row in self.score(piece)]
        return report.rank_rows(scored, truth)

    def report(self) -> dict:
        """Write report.md, report.json and pictures from what the directory holds; the figures in them."""
        if not len(self.retrained):
            raise UserError(
                f"workdir: {self.workdir} has no candidate trained from scratch: run jaxhypernas retrain first"
            )
        c, d = self.config, self.dataset
        setting = (
            f"{d.name}: {len(d.train.y_N)} training, {len(d.valid.y_N)} held-out, {len(d.test.y_N)} test images; "
            f"space {c.space}, generator {c.generator} ({c.train.steps} steps), strategy {c.strategy}; "
            f"BatchNorm by statistics of the evaluated batch ({self.valid.y_TxB.shape[1]} images, "
            f"{self.valid.y_TxB.shape[0]} batches); one seed ({c.seed}); retraining {c.retrain.train.steps} steps; "
            f"{jax.device_count()} {jax.devices()[0].device_kind} device(s), {self.chunk} candidate(s) side by side on "
            f"each, form {self.form}."
        )
        best, retrained = (
            self.scores.best(5).to_pylist(),
            self.retrained.read().to_pylist(),
        )
        return report.write(
            self.workdir,
            "Search report",
            setting,
            best,
            self.scores.column("loss"),
            retrained,
        )


def _pieces(items: Iterable, number: int) -> Iterator[list]:
    items = iter(items)
    while piece := list(islice(items, number)):
        yield piece
