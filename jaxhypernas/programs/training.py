"""Training of a generator: its program, the images it takes, the loop over segments.

A segment is the steps between two checkpoints: several calls of one program, each of
which lasts a few seconds.
"""

import time
from collections.abc import Generator
from contextlib import closing
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from jaxhypernas.config.config import Config
from jaxhypernas.config.sections import TrainConfig
from jaxhypernas.data import loader
from jaxhypernas.data.batches import Images, Segment
from jaxhypernas.data.dataset import Dataset
from jaxhypernas.execution.candidates import (
    bind,
    mean_candidates,
    mean_over_mesh,
    split_images,
)
from jaxhypernas.execution.mesh import ARCH, DATA, PROCESS, by_process
from jaxhypernas.execution.pace import Pace
from jaxhypernas.hosts import processes
from jaxhypernas.programs.parts import Parts
from jaxhypernas.programs.steps import (
    TrainState,
    init_state,
    make_optimizer,
    make_steps,
    split_key,
)
from jaxhypernas.report import progress
from jaxhypernas.types import UserError

CALL_SECONDS = 2.0
"""How long a call of the program should take."""

MOST_STEPS = 1000
"""Most steps of a call: the order of their images is in memory."""


class Trained(NamedTuple):
    """Training after a call of its program."""

    state: TrainState
    """The state."""

    loss: float
    """Mean training loss since the segment began, in nats."""

    steps: int
    """Steps of the call."""

    seconds: float
    """Time that the call took."""


def train(
    parts: Parts, dataset: Dataset, state: TrainState
) -> Generator[Trained]:
    """Trains from a state to the end of training.

    Args:
        parts: The parts of the run.
        dataset: The images.
        state: The state to begin with, on all devices.

    Yields:
        The state after each call; the next call begins when the caller asks for it. No
        call goes on after a multiple of ``config.train.every`` steps.

    Raises:
        UserError: Training diverged, or images do not divide among the devices.
    """
    config = parts.config.train
    jitted = train_program(parts)
    program = None
    pace = Pace(CALL_SECONDS)
    total, number = 0.0, 0
    with closing(segments(parts, dataset, state)) as images_of:
        images = next(images_of, None)
        while (done := int(state.step)) < config.steps:
            segment_ends = min(
                done - done % config.every + config.every, config.steps
            )
            steps = min(
                pace.number, segment_ends - done, steps_per_call(config)
            )
            numbers = np.int32(steps), np.int32(config.steps)
            if program is None:
                with progress.waiting("compiling the program of training"):
                    program = processes.compiled(
                        jitted, state, images, *numbers
                    )
            began = time.time()
            state, loss = program(state, images, *numbers)
            if done + steps == segment_ends:
                # The host reads and sends the next images while the program runs.
                images = next(images_of, None)
            total += steps * float(loss)
            number += steps
            blind = float(np.log(parts.classes))
            if config.loss != "cross_entropy":
                blind = np.inf
            check_progress(total / number, done + steps, blind)
            seconds = time.time() - began
            pace.took(steps, processes.largest(seconds))
            yield Trained(state, total / number, steps, seconds)
            if done + steps == segment_ends:
                total, number = 0.0, 0


def start(parts: Parts, key: jax.Array) -> TrainState:
    """Makes the state before training.

    Args:
        parts: The parts of the run.
        key: The key of training; consumed.
    """
    config = parts.config.train
    optimizer = make_optimizer(config, config.steps)
    return init_state(parts.searched.generator, optimizer, key)


def start_everywhere(parts: Parts) -> TrainState:
    """Makes the state before training, on all devices.

    Args:
        parts: The parts of the run.
    """

    def begin():
        return start(parts, jax.random.fold_in(parts.key, 0))

    return jax.jit(begin, out_shardings=parts.replicated)()


def abstract_state(parts: Parts, sharding: NamedSharding) -> TrainState:
    """Returns the shapes of a state.

    Args:
        parts: The parts of the run.
        sharding: How the arrays lie on devices.
    """
    return jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding),
        jax.eval_shape(partial(start, parts), parts.key),
    )


def steps_per_call(config: TrainConfig) -> int:
    """Returns the largest number of steps in one call of a program.

    Args:
        config: How to train; a program for other numbers of steps is the same.
    """
    return min(config.every, MOST_STEPS)


def train_program(parts: Parts) -> jax.stages.Wrapped:
    """Makes the program of a segment, `steps.make_steps` on all devices.

    Args:
        parts: The parts of the run.

    Returns:
        ``program(state, images, steps, total) -> (state, loss)``.

    Raises:
        UserError: The images of a batch do not divide among the devices that share it.
    """
    check_batch(parts)
    config = parts.config.train
    mesh = parts.mesh
    per_device = config.architectures // mesh.shape[ARCH]
    most = min(parts.chunk, per_device)
    chunk = max(c for c in range(1, most + 1) if per_device % c == 0)
    space, target, generator = parts.trained

    def mean(f, replicated, population):
        phi, *batch = replicated

        def mean_here(replicated, share):
            return mean_candidates(partial(f, replicated), share, chunk)

        everywhere = mean_over_mesh(mesh, mean_here)
        return everywhere((phi, *split_images(mesh, batch)), population)

    def sample(key, progress):
        key_A = jax.random.split(key, config.architectures)
        if config.path_dropout and space.paths:
            rate = config.path_dropout * progress
            return jax.vmap(lambda k: space.paths(k, rate))(key_A)
        return jax.vmap(lambda k: space.sample(k, progress))(key_A)

    run = make_steps(
        config,
        parts.config.data,
        bind(target, generator),
        generator.decay,
        sample,
        mean,
        steps_per_call(config),
    )
    return jax.jit(run)


def check_trained(parts: Parts) -> None:
    """Checks that the generator is trained before candidates are scored.

    Args:
        parts: The parts of the run.

    Raises:
        UserError: It is not.
    """
    if not parts.searched.generator.trained:
        raise UserError(
            f"generator: {parts.config.names['generator']} is not trained beforehand, "
            "each candidate is when it is scored"
        )


def check_batch(parts: Parts) -> None:
    """Checks that the images of a batch divide among the devices that share it.

    Args:
        parts: The parts of the run.

    Raises:
        UserError: They do not.
    """
    batch = parts.config.train.batch
    shared = parts.mesh.shape[DATA]
    if batch % shared:
        raise UserError(
            f"train.batch: {batch} must be a multiple of the {shared} devices that "
            f"share it: set it to {-(-batch // shared) * shared}, or "
            f"train.architectures to a multiple of {parts.mesh.size}"
        )


def check_not_streamed(config: Config) -> None:
    """Checks that candidates can be trained from scratch.

    Args:
        config: The configuration.

    Raises:
        UserError: The training images are streamed.
    """
    if config.data.stream:
        raise UserError(
            "data.stream: training from scratch needs all images on a device: set it "
            "to False"
        )


def images_on(
    config: Config, dataset: Dataset, sharding: NamedSharding
) -> Images:
    """Puts the training images on devices.

    Args:
        config: The configuration.
        dataset: The images.
        sharding: How the images lie on the devices.

    Raises:
        UserError: The images are streamed.
    """
    check_not_streamed(config)
    split = dataset.train
    arrays = (split.x_NxHxWxC, split.y_N, dataset.mean_C, dataset.std_C)
    return Images(*(jax.device_put(a, sharding) for a in arrays))


def segments(
    parts: Parts, dataset: Dataset, state: TrainState
) -> Generator[Images | Segment]:
    """Yields the images of each call of the training program.

    Args:
        parts: The parts of the run.
        dataset: The images.
        state: The state that the first call begins with.

    Yields:
        All images, again and again; or, where images are streamed, the images of the
        next segment until training ends.

    Raises:
        UserError: Streamed images do not divide among the processes.
    """
    config = parts.config.train
    if not parts.config.data.stream:
        images = images_on(parts.config, dataset, parts.replicated)
        while True:
            yield images
    mean_C, std_C = (
        jax.device_put(a, parts.replicated)
        for a in (dataset.mean_C, dataset.std_C)
    )
    order_key, _ = split_key(state.key.addressable_data(0))
    streamed = loader.segments(
        dataset.source,
        order_key,
        config.drawn,
        range(int(state.step), config.steps),
        config.every,
        streamed_sharding(parts),
    )
    first = int(state.step)
    for x_TxBxHxWxC, y_TxB in streamed:
        at = jax.device_put(np.int32(first), parts.replicated)
        yield Segment(x_TxBxHxWxC, y_TxB, mean_C, std_C, at)
        first += config.every - first % config.every


def streamed_sharding(parts: Parts) -> NamedSharding:
    """Returns how streamed images T x B x ... lie on the devices.

    Args:
        parts: The parts of the run.

    Raises:
        UserError: The images of a step do not divide among the processes.
    """
    config = parts.config.train
    sharding = by_process(parts.mesh)
    number = sharding.mesh.shape[PROCESS]
    if config.drawn % number:
        raise UserError(
            f"train.batch: with data.stream the {config.drawn} images of a step must "
            f"be a multiple of the {number} processes: set it to "
            f"{-(-config.batch // number) * number}"
        )
    return sharding


def check_progress(loss: float, step: int, blind: float) -> None:
    """Checks that training has not diverged.

    Args:
        loss: Mean loss of at least one step.
        step: Steps done.
        blind: Loss of a blind guess, where it is known; infinite where not.

    Raises:
        UserError: The loss is not finite, or ten times the loss of a blind guess.
    """
    if not loss < 10 * blind:
        raise UserError(
            f"train: diverged before step {step} (loss {loss:.3g}): lower "
            "train.learning_rate and start again"
        )
