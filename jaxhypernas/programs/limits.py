"""Whether this machine can begin a run.

Memory is counted roughly, from below: a typo of one digit too many is reported before
the run starts. `ahead` tells whether a run fits to the byte.
"""

import math
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax

from jaxhypernas.config.sections import TrainConfig
from jaxhypernas.data import batches
from jaxhypernas.data.dataset import Dataset
from jaxhypernas.programs.parts import Parts
from jaxhypernas.programs.training import check_batch, steps_per_call
from jaxhypernas.types import UserError


def check(parts: Parts, dataset: Dataset) -> None:
    """Checks that a run can begin here.

    Args:
        parts: The parts of the run.
        dataset: The images.

    Raises:
        UserError: Numbers do not divide, images are too few, memory is too small, or no
            candidate is within the limits of the search.
    """
    config = parts.config
    numbers = [config.score.taken(dataset.valid.size), dataset.valid.size]
    if not dataset.stored:
        numbers.append(dataset.test.size)
    for number in numbers:
        batches.batch_shape(number, config.score.batch)
    _check_memory(parts)
    if parts.searched.generator.trained:
        check_batch(parts)
    for place, train in _trainings(parts):
        _check_order(place, train, dataset.source.size)
    if config.search.max_params or config.search.max_flops:
        parts.strategy.ask(parts.strategy.init(parts.key))


def _trainings(parts: Parts) -> Iterator[tuple[str, TrainConfig]]:
    """Place and configuration of each training of the run."""
    config = parts.config
    if not config.data.stream:
        yield "retrain.train", config.retrain.train
    if parts.searched.generator.trained:
        yield "train", config.train


def _check_order(place: str, train: TrainConfig, size: int) -> None:
    """Raises UserError if the order of images cannot be computed."""
    order = partial(
        batches.batch_order,
        size=size,
        batch=train.drawn,
        steps=steps_per_call(train),
        start=0,
    )
    try:
        jax.eval_shape(order, jax.random.key(0))
    except UserError as error:
        # The complaint names its field "train.batch", wherever the section is.
        raise UserError(str(error).replace("train", place, 1)) from None


def _check_memory(parts: Parts) -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for fields, needed in _needs(parts):
        if needed > memory:
            raise UserError(
                f"{fields}: this takes {needed / 2**30:,.0f} GiB of memory or more, "
                f"the machine has {memory / 2**30:,.0f}: lower it"
            )


def _needs(parts: Parts) -> Iterator[tuple[str, int]]:
    """Fields, and the bytes that their values take at least."""
    config = parts.config
    space, target, generator = parts.searched
    arch = _bytes(jax.eval_shape(space.sample, parts.key, 1.0))
    yield "space", _bytes(target.weight_spec)
    phi = jax.eval_shape(generator.init, parts.key)
    yield "generator, space", _bytes(phi)
    yield "execution.chunk", parts.chunk * arch

    height, width, channels = parts.image
    pad = 2 * config.data.pad
    pixels = (height + pad) * (width + pad) * channels
    yield "data.pad", 4 * pixels
    sections = {"retrain.train": config.retrain.train, "train": config.train}
    for place, train in sections.items():
        yield f"{place}.batch, {place}.ghosts", 4 * train.drawn * pixels
        order = 4 * train.drawn * steps_per_call(train)
        yield f"{place}.every, {place}.batch", order

    yield "train.architectures", config.train.architectures * arch
    yield "retrain.sample", config.retrain.sample * arch
    for field, number in parts.strategy.at_once.items():
        yield f"strategy.{field}", number * arch


def _bytes(tree: Any) -> int:
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
