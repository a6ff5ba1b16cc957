"""What verbs do to a work directory in training: begin, resume, save, stop.

The computation is in the other files of this folder. Every function does what is
missing and leaves the rest as it is.
"""

from collections.abc import Generator
from functools import partial

from etils.epath import Path

from jaxhypernas.config import data_file
from jaxhypernas.config import file as config_file
from jaxhypernas.data import summary
from jaxhypernas.data.dataset import Dataset
from jaxhypernas.execution import compilations
from jaxhypernas.hosts import interrupt, processes
from jaxhypernas.programs import limits, training
from jaxhypernas.programs.parts import Parts
from jaxhypernas.programs.training import Trained
from jaxhypernas.report import progress
from jaxhypernas.store import files
from jaxhypernas.store.checkpoints import Checkpoints
from jaxhypernas.store.metrics import Metrics
from jaxhypernas.types import Params, UserError

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
    calls = training_of(parts, dataset, workdir)
    while True:
        try:
            next(calls)
        except StopIteration as end:
            return end.value


def training_of(
    parts: Parts, dataset: Dataset, workdir: Path
) -> Generator[Trained, None, Params]:
    """Trains the generator as `train` does, a call of its program at a time.

    Args:
        parts: The parts of the run.
        dataset: The images.
        workdir: The work directory.

    Yields:
        The state after each call; what was due is saved.

    Returns:
        As `train`.

    Raises:
        UserError: As `train`.
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
                if stop or is_end:
                    rate = round(work_of_segment / seconds, 1)
                    checkpoints.save(step, state)
                    metrics.append(
                        {
                            "step": step,
                            "loss": done.loss,
                            "images_candidates_per_s": rate,
                            "compilations": compilations.total(),
                            "chunk": parts.chunk,
                            "form": parts.form,
                        }
                    )
                    work_of_segment, seconds = 0, 0.0
                if stop:
                    raise interrupt.StoppedError(stop)
                yield done
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
