"""What a run asks of this machine, before it begins: numbers that don't divide, data too small, memory it hasn't.

Memory is counted roughly, from below: a digit too many is told at once, not by an error in the middle of a run. Whether
a run fits to the byte is what `preflight` tells.
"""

import math
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax

from jaxhypernas.config.config import full_name
from jaxhypernas.data import dataset as data
from jaxhypernas.programs.parts import Components
from jaxhypernas.programs.scoring import batch_shape
from jaxhypernas.types import UserError

AT_ONCE = {  # fields of search that count candidates in memory at once, by strategy
    "random": ("number",),
    "smash": ("number", "perturbed"),
    "evolution": ("population", "children", "tournament"),
    "nsga2": ("population",),
    "progressive": ("beam",),
}


def check(run: Components) -> None:
    """Raise UserError if the run cannot begin here."""
    c, size = run.config, run.dataset.source.size
    for split in (run.dataset.valid, run.dataset.test)[
        : 1 if run.dataset.stored else 2
    ]:
        batch_shape(split.size, c.score.batch)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for fields, needed in _needs(run):
        if needed > memory:
            raise UserError(
                f"{fields}: this takes {needed / 2**30:,.0f} GiB of memory or more, the machine has "
                f"{memory / 2**30:,.0f}: lower it"
            )
    trainings = (
        []
        if c.data.stream
        else [("retrain.train", c.retrain.train, c.retrain.train.steps)]
    )
    if c.generator != "standalone":
        _ = run.train_program
        trainings.append(("train", c.train, run.segment))
    for group, config, steps in trainings:
        order = partial(
            data.batch_order,
            size=size,
            batch=config.ghosts * config.batch,
            steps=steps,
            start=0,
        )
        try:
            jax.eval_shape(order, run.key)
        except UserError as error:
            raise UserError(full_name(group, error)) from None


def _needs(run: Components) -> Iterator[tuple[str, int]]:
    """Fields, and bytes that their values take at least."""
    c, (height, width, channels) = run.config, run.dataset.image
    arch = _bytes(jax.eval_shape(run.space.sample, run.key, 1.0))
    sizes = "memory_bank" if c.space == "memory_bank" else "cells"
    yield sizes, _bytes(run.target.weight_spec)
    yield (
        f"{c.generator}, {sizes}",
        _bytes(jax.eval_shape(run.generator.init, run.key)),
    )
    yield "execution.chunk", run.chunk * arch
    pixels = (height + 2 * c.data.pad) * (width + 2 * c.data.pad) * channels
    yield "data.pad", 4 * pixels
    trainings = [
        ("retrain.train", c.retrain.train, c.retrain.train.steps),
        ("train", c.train, run.segment),
    ]
    for group, config, steps in trainings:
        images = config.batch * config.ghosts
        yield f"{group}.batch, {group}.ghosts", 4 * images * pixels
        yield f"{group}.steps, {group}.batch", 4 * images * steps
    yield "train.architectures", c.train.architectures * arch
    yield "retrain.sample", c.retrain.sample * arch
    for field in AT_ONCE[c.strategy]:
        yield f"search.{field}", getattr(c.search, field) * arch


def _bytes(tree: Any) -> int:
    return sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
