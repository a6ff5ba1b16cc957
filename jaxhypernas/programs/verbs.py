"""What each verb does to a work directory: resumes, saves, shows progress, stops.

The computation is in the other files of this folder. Every function does what is
missing and leaves the rest as it is.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import jax
import numpy as np
import pyarrow as pa
from etils.epath import Path

from jaxhypernas.config import data_file
from jaxhypernas.config import file as config_file
from jaxhypernas.config.data_file import Identity
from jaxhypernas.data import summary
from jaxhypernas.data.batches import batch_shape
from jaxhypernas.data.dataset import Dataset
from jaxhypernas.execution import compilations
from jaxhypernas.hosts import interrupt, processes
from jaxhypernas.programs import limits, populations, retraining, training
from jaxhypernas.programs.parts import Parts
from jaxhypernas.programs.retraining import Wanted
from jaxhypernas.programs.scorer import Scorer
from jaxhypernas.programs.truth import FromScratch
from jaxhypernas.report import progress
from jaxhypernas.report.report import write as write_report
from jaxhypernas.search.budget import within
from jaxhypernas.search.loop import run_search
from jaxhypernas.store import files, weights
from jaxhypernas.store.checkpoints import Checkpoints
from jaxhypernas.store.metrics import Metrics
from jaxhypernas.store.score_table import ScoreTable
from jaxhypernas.store.tables import Table
from jaxhypernas.types import Arch, Params, UserError

UNIT = "images"
"""Unit of work: an image that goes through one candidate."""


def train(parts: Parts, dataset: Dataset, workdir: Path) -> Params:
    """Trains the generator to the end, from the newest checkpoint if there is one.

    Args:
        parts: The parts of the run.
        dataset: The images.
        workdir: The work directory.

    Returns:
        phi, on every device of this process.

    Raises:
        UserError: The generator is not trained before scoring, a setting does not fit
            the devices, or training diverged.
    """
    training.check_trained(parts)
    # A setting that does not fit must not wait for a checkpoint to be read.
    training.check_batch(parts)
    begin(parts, dataset, workdir)
    describe(dataset)
    config = parts.config.train
    metrics = Metrics(workdir)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        like = training.abstract_state(parts, parts.replicated)
        restored = checkpoints.restore(like)
        if restored is None:
            state = training.start_everywhere(parts)
        else:
            _, state = restored
        bar_of = partial(progress.bar, "train", config.steps, UNIT)
        with bar_of(start=int(state.step)) as bar:
            work_of_segment, seconds = 0, 0.0
            for done in training.train(parts, dataset, state):
                state = done.state
                step = int(state.step)
                work = done.steps * config.batch * config.architectures
                work_of_segment += work
                seconds += done.seconds
                bar.advance(done.steps, work, f"loss {done.loss:.3f}")

                stop = interrupt.requested()
                is_end = step % config.every == 0 or step == config.steps
                if not (stop or is_end):
                    continue
                checkpoints.save(step, state)
                metrics.append(
                    {
                        "step": step,
                        "loss": done.loss,
                        "images_candidates_per_s": round(
                            work_of_segment / seconds, 1
                        ),
                        "compilations": compilations.total(),
                        "chunk": parts.chunk,
                        "form": parts.form,
                    }
                )
                work_of_segment, seconds = 0, 0.0
                if stop:
                    raise interrupt.StoppedError(stop)
    return processes.local(state.phi, parts.replicated_here)


def check_grows(parts: Parts, dataset: Dataset, steps: int) -> None:
    """Checks that a begun run can be trained on; all processes meet here.

    Args:
        parts: The parts of the run.
        dataset: The images.
        steps: The new number of training steps.

    Raises:
        UserError: It is not larger than the old one, or the run cannot be trained.
    """
    training.check_trained(parts)
    training.check_batch(parts)
    limits.check(parts, dataset)
    before = parts.config.train.steps
    if processes.any_of(steps <= before):
        raise UserError(
            f"train.steps: {steps} must be above {before}, with which the run began"
        )


def set_tables_aside(before: int, steps: int, workdir: Path) -> None:
    """Renames the tables of a run that is trained on: its older phi made them.

    Args:
        before: The old number of training steps.
        steps: The new number.
        workdir: The work directory.
    """
    if not processes.first():
        return
    files.report(
        f"train.steps: {before} becomes {steps}; from the next step on the learning "
        f"rate follows the schedule of {steps} steps"
    )
    for name in ("scores", "retrain"):
        if (workdir / name).exists():
            moved = files.set_aside(workdir / name, f".{before}")
            files.report(
                f"{name}/ of the phi of {before} steps is now {moved.name}/"
            )


def restore_phi(parts: Parts, workdir: Path) -> Params:
    """Reads the parameters of the trained generator.

    Args:
        parts: The parts of the run.
        workdir: The work directory.

    Returns:
        phi, on every device of this process.

    Raises:
        UserError: Training has not ended.
    """
    restored = None
    directory = workdir / "checkpoints"
    if directory.is_dir():
        with Checkpoints(directory) as checkpoints:
            like = training.abstract_state(parts, parts.replicated_here)
            restored = checkpoints.restore(like)
    done, state = restored or (0, None)
    steps = parts.config.train.steps
    if state is None or done < steps:
        raise UserError(
            f"workdir: {workdir} has {done} of {steps} training steps: run "
            f"jaxhypernas train --workdir {workdir}"
        )
    return state.phi


def begin(parts: Parts, dataset: Dataset, workdir: Path) -> None:
    """Makes the work directory of a run, unless the run cannot begin here.

    Args:
        parts: The parts of the run.
        dataset: The images.
        workdir: The work directory.

    Raises:
        UserError: The run cannot begin; nothing is written.
    """
    path = workdir / "config.json"
    stored = config_file.load(path) if path.exists() else None
    if parts.config != stored:
        limits.check(parts, dataset)
    config_file.begin(workdir, parts.config, stored)
    is_known = (workdir / data_file.NAME).exists()
    if processes.first() and not is_known:
        data_file.save(workdir, data_file.identify(dataset))


def describe(dataset: Dataset) -> None:
    """Says on standard error what the images are.

    Args:
        dataset: The images.
    """
    if processes.first():
        for line in summary.lines(dataset):
            files.report(line)


@contextmanager
def scoring_bar(
    name: str, total: int, scorer: Scorer
) -> Iterator[Callable[[int, int], None]]:
    """Shows a progress bar for `Scorer.score_missing`.

    Args:
        name: Name of the bar.
        total: Number of candidates.
        scorer: The scorer.

    Yields:
        ``observe(known, scored)``.
    """
    with progress.bar(name, total, "candidates") as bar:

        def observe(known: int, scored: int) -> None:
            best = scorer.table.lowest
            note = f"best {best:.3f}" if len(scorer.table) else ""
            bar.advance(known + scored, scored, note)

        yield observe


def score_pieces(
    parts: Parts, scorer: Scorer, pieces: Iterable[Arch], total: int
) -> Iterator[np.ndarray]:
    """Scores a stream of populations.

    Args:
        parts: The parts of the run.
        scorer: The scorer of the run.
        pieces: The populations.
        total: Number of candidates in all of them.

    Yields:
        uint64 ids [A] of each population, in order.
    """
    with scoring_bar("score", total, scorer) as observe:
        for population in pieces:
            yield scorer.score_missing(population, observe)
    scorer.table.compact()


def score(parts: Parts, scorer: Scorer, archs: Sequence[str]) -> pa.Table:
    """Scores architectures.

    Args:
        parts: The parts of the run.
        scorer: The scorer of the run.
        archs: At least one architecture string, or id of a candidate in the table.

    Returns:
        Their rows, in order.

    Raises:
        UserError: A string is not an architecture of the space, or there is none;
            nothing is scored.
    """
    if isinstance(archs, str) or not len(archs):
        raise UserError(
            "archs: give a list of at least one architecture string"
        )
    # All strings are parsed before the first one is scored.
    strings = map(scorer.table.named, archs)
    pieces = list(populations.iter_parsed(parts.searched.space, strings))
    id_As = list(score_pieces(parts, scorer, pieces, len(archs)))
    return scorer.table.rows(np.concatenate(id_As))


def search(parts: Parts, scorer: Scorer, workdir: Path) -> None:
    """Runs the strategy; it replays the candidates that are scored already.

    Args:
        parts: The parts of the run.
        scorer: The scorer of the run.
        workdir: The work directory.
    """
    table = scorer.table
    metrics = Metrics(workdir)
    with scoring_bar("search", parts.strategy.total, scorer) as observe:

        def evaluate(population: Arch) -> np.ndarray:
            id_A = scorer.score_missing(population, observe)
            metrics.append(
                {
                    "scored": len(table),
                    "best": table.lowest,
                    "compilations": compilations.total(),
                }
            )
            return table.loss(id_A)

        run_search(parts.strategy, jax.random.fold_in(parts.key, 1), evaluate)
    table.compact()


def retrain(
    parts: Parts,
    scorer: Scorer,
    from_scratch: Callable[[], FromScratch],
    retrained: Table,
    workdir: Path,
    archs: Sequence[str] = (),
) -> None:
    """Trains candidates from scratch: given ones, or the best and a random sample.

    Args:
        parts: The parts of the run.
        scorer: The scorer of the run.
        from_scratch: Returns the function that trains and scores candidates.
        retrained: The table of retrained candidates.
        workdir: The work directory.
        archs: Architecture strings or ids, if any are given.

    Raises:
        UserError: No candidate is scored yet, a string is no architecture, or images
            are streamed.
    """
    training.check_not_streamed(parts.config)
    config = parts.config.retrain
    table = scorer.table
    wanted = _wanted(parts, scorer, archs)
    left = retraining.missing(retrained, wanted)

    begun = len(wanted) - len(left)
    with progress.bar("retrain", len(wanted), UNIT, start=begun) as bar:
        note = ""

        def observe_steps(steps: int) -> None:
            work = steps * config.train.batch * parts.mesh.size
            bar.advance(0, work, note)

        def observe(number: int, accuracy: float) -> None:
            nonlocal note
            note = f"test accuracy {accuracy:.3f}"
            bar.advance(number, 0, note)

        retraining.retrain(
            parts.searched.space,
            retrained,
            left,
            from_scratch(),
            parts.mesh.size,
            observe_steps,
            observe,
            partial(weights.save, workdir),
        )
    table.compact()
    retrained.compact()


def _wanted(
    parts: Parts, scorer: Scorer, archs: Sequence[str]
) -> list[Wanted]:
    """The candidates to train, each scored."""
    table = scorer.table
    if archs:
        strings = map(table.named, archs)
        population = populations.parse(parts.searched.space, strings)
        id_A = dict.fromkeys(scorer.score_missing(population).tolist())
        chosen = table.rows(np.array([*id_A], np.uint64)).to_pylist()
        return [Wanted("chosen", row) for row in chosen]
    best = table.best(parts.config.retrain.top).to_pylist()
    random = table.rows(_score_sample(parts, scorer)).to_pylist()
    return [
        *(Wanted("top", row) for row in best),
        *(Wanted("sample", row) for row in random),
    ]


def _score_sample(parts: Parts, scorer: Scorer) -> np.ndarray:
    """The ids of the random sample, scored where the table lacks it."""
    draw = within(parts.searched.space, parts.config.search)
    key = jax.random.fold_in(parts.key, 2)
    sample = draw.sample(key, parts.config.retrain.sample)
    return scorer.score_missing(sample)


def report(
    parts: Parts,
    images: Identity,
    table: ScoreTable,
    retrained: Table,
    workdir: Path,
) -> dict:
    """Writes the report of a run.

    Args:
        parts: The parts of the run.
        images: What identifies the images.
        table: The table of scores.
        retrained: The table of retrained candidates.
        workdir: The work directory.

    Returns:
        The figures of the report; of several processes, the first one writes it and the
        others return nothing.

    Raises:
        UserError: No candidate has been trained from scratch.
    """
    if not len(retrained):
        raise UserError(
            f"workdir: {workdir} has no candidate trained from scratch: run "
            "jaxhypernas retrain first"
        )
    if not processes.first():
        return {}
    return write_report(
        workdir,
        parts.searched.space,
        "Search report",
        _setting(parts, images),
        table.best(5).to_pylist(),
        table.column("loss"),
        retrained.read().to_pylist(),
    )


def _setting(parts: Parts, images: Identity) -> str:
    """One line on data, seeds and hardware."""
    config = parts.config
    names = config.names
    scored_on = config.score.taken(images.valid)
    batches, size = batch_shape(scored_on, config.score.batch)
    device = parts.mesh.devices.flat[0].device_kind
    named = ""
    if images.class_names:
        named = f" ({', '.join(images.class_names)})"
    return (
        f"{config.data.dataset}{named}: {images.train} training, {images.valid} "
        f"held-out, {images.test} test images; space {names['space']}, "
        f"generator {names['generator']} ({config.train.steps} steps), strategy "
        f"{names['strategy']}; BatchNorm by statistics of the evaluated batch ({size} "
        f"images, {batches} batches); one seed ({config.seed}); retraining "
        f"{config.retrain.train.steps} steps; {parts.mesh.size} {device} device(s), "
        f"{parts.chunk} candidate(s) side by side on each, form {parts.form}."
    )
