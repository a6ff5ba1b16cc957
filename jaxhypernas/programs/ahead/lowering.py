"""The programs of a run, lowered for devices that may not be there.

Neither devices nor images are needed: arguments are shapes with their shardings.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxhypernas.config.config import Config
from jaxhypernas.data.batches import Batches, Images, Segment, make_batches
from jaxhypernas.data.dataset import Dataset, blank
from jaxhypernas.data.splits import Split
from jaxhypernas.execution.mesh import ARCH
from jaxhypernas.programs.parts import Parts, build
from jaxhypernas.programs.scorers import scored_on
from jaxhypernas.programs.scoring import Part, score_program, zeros
from jaxhypernas.programs.training import (
    abstract_state,
    streamed_sharding,
    train_program,
)
from jaxhypernas.programs.truth import make_programs
from jaxhypernas.types import Arch


class Program(NamedTuple):
    """A program of a run."""

    name: str
    """"train", "score" or "retrain"."""

    lowered: jax.stages.Lowered
    """The program, ready to be compiled."""

    candidates: float
    """Candidates per device and call; in training per step, where devices may share a
    candidate."""

    images: int
    """Images per candidate."""


def lowered(
    config: Config, devices: Sequence[jax.Device]
) -> Iterator[Program]:
    """Lowers the programs of a run::

        for program in lowered(Config(), jax.devices()):
            executable = program.lowered.compile()

    Args:
        config: The configuration.
        devices: The devices, as if one process had all of them.

    Yields:
        The programs, in the order in which a run calls them: training and scoring if
        the generator is trained, training from scratch if images are not streamed.

    Raises:
        UserError: A field does not fit the space, the images or the devices.
    """
    parts, dataset = plan(config, devices)
    if parts.searched.generator.trained:
        yield _train(parts, dataset)
        yield _score(parts, dataset)
    if not config.data.stream:
        yield _retrain(parts, dataset)


def plan(
    config: Config, devices: Sequence[jax.Device]
) -> tuple[Parts, Dataset]:
    """Builds the parts of a run without its images.

    Args:
        config: The configuration.
        devices: The devices, as if one process had all of them.

    Returns:
        The parts, and images that have the right shapes.

    Raises:
        UserError: A field does not fit the space, the images or the devices.
    """
    dataset = blank(config.data, config.seed)
    return build(config, dataset.image, dataset.classes, devices), dataset


def _train(parts: Parts, dataset: Dataset) -> Program:
    config = parts.config.train
    images: Images | Segment
    if parts.config.data.stream:
        images = _segment(parts, dataset)
    else:
        images = _images(dataset, parts.replicated)
    program = train_program(parts).lower(
        abstract_state(parts, parts.replicated),
        images,
        *[jax.ShapeDtypeStruct((), jnp.int32, sharding=parts.replicated)] * 2,
    )
    per_device = config.architectures / parts.mesh.size
    return Program("train", program, per_device, config.batch)


def _score(parts: Parts, dataset: Dataset) -> Program:
    """Scoring on all batches in one call: the number of turns of its loops is known."""
    # `parts.mesh` is for training: here each device has candidates of its own.
    _, target, generator = parts.searched
    program = score_program(target, generator, parts.local_mesh, parts.chunk)
    valid = _batches(parts, dataset, scored_on(parts, dataset))
    number = parts.local_mesh.size * parts.chunk

    def whole(phi, batches, population, number_D):
        candidates = population, zeros(number)
        return program((phi, _all_of(batches)), candidates, number_D)

    lowered = jax.jit(whole).lower(
        abstract_state(parts, parts.replicated_here).phi,
        valid,
        _population(parts, number),
        _int_per_device(parts),
    )
    return Program("score", lowered, parts.chunk, valid.y_TxB.size)


def _retrain(parts: Parts, dataset: Dataset) -> Program:
    """Training from scratch and scoring in one call."""
    config = parts.config.retrain.train
    programs = make_programs(parts)
    number = parts.local_mesh.size

    def whole(key, images, splits, population, seed_D):
        state = programs.begin(key, seed_D)
        steps = np.int32(config.steps)
        state = programs.train((images, steps, steps), (population, state))
        candidates = population, state, zeros(number)
        return [
            programs.score(_all_of(batches), candidates) for batches in splits
        ]

    lowered = jax.jit(whole).lower(
        _placed(parts.key, parts.replicated_here),
        _images(dataset, parts.replicated_here),
        [
            _batches(parts, dataset, split)
            for split in (dataset.valid, dataset.test)
        ],
        _population(parts, number),
        _int_per_device(parts),
    )
    return Program("retrain", lowered, 1, config.steps * config.batch)


def _all_of(batches: Batches) -> Part:
    return Part(batches, np.array([0, len(batches.y_TxB)], np.int32))


def _placed(tree: Any, sharding: NamedSharding) -> Any:
    """The shapes of a tree's arrays, as they lie on devices."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        tree,
    )


def _images(dataset: Dataset, sharding: NamedSharding) -> Images:
    split = dataset.train
    arrays = (split.x_NxHxWxC, split.y_N, dataset.mean_C, dataset.std_C)
    return Images(*_placed(arrays, sharding))


def _segment(parts: Parts, dataset: Dataset) -> Segment:
    """Streamed images; dtypes are those of the held-out images."""
    config = parts.config.train
    sharding = streamed_sharding(parts)

    # Short segments are padded, so all have the same shape.
    def streamed(array_N: Any) -> Any:
        shape = (config.every, config.drawn, *array_N.shape[1:])
        return jax.ShapeDtypeStruct(shape, array_N.dtype, sharding=sharding)

    return Segment(
        streamed(dataset.valid.x_NxHxWxC),
        streamed(dataset.valid.y_N),
        _placed(dataset.mean_C, parts.replicated),
        _placed(dataset.std_C, parts.replicated),
        _placed(np.zeros((), np.int32), parts.replicated),
    )


def _batches(parts: Parts, dataset: Dataset, split: Split) -> Batches:
    # The size of a batch decides shapes, so it cannot be traced.
    cut = partial(make_batches, batch=parts.config.score.batch)
    batches = jax.eval_shape(cut, split, dataset.mean_C, dataset.std_C)
    return _placed(batches, parts.replicated_here)


def _population(parts: Parts, number: int) -> Arch:
    """So many architectures, split over the devices."""

    def sample(key):
        return parts.searched.space.sample(key, 1.0)

    keys = jax.ShapeDtypeStruct((number,), parts.key.dtype)
    population = jax.eval_shape(jax.vmap(sample), keys)
    return _placed(population, _split(parts))


def _int_per_device(parts: Parts) -> jax.ShapeDtypeStruct:
    shape = (parts.local_mesh.size,)
    return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=_split(parts))


def _split(parts: Parts) -> NamedSharding:
    """Split over the devices that score."""
    return NamedSharding(parts.local_mesh, PartitionSpec(ARCH))
