"""One architecture as files that need Flax alone: source, weights, StableHLO."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils.epath import Path

from jaxhypernas import __version__
from jaxhypernas.data.batches import make_batches
from jaxhypernas.data.dataset import Dataset
from jaxhypernas.programs import networks, scorers
from jaxhypernas.programs.chosen import Chosen
from jaxhypernas.programs.export_text import (
    PREDICT,
    Accuracies,
    card,
    network_text,
)
from jaxhypernas.programs.parts import Parts
from jaxhypernas.report import drawing
from jaxhypernas.store import files, weights
from jaxhypernas.types import Module, UserError

BATCHES = 64
"""Most batches of training images that BatchNorm's statistics are means of."""

NAMES = (
    "network.py",
    "weights.safetensors",
    "network.stablehlo",
    "predict.py",
    "card.md",
)
"""The files of a network."""

PLATFORMS = ("cpu", "cuda", "tpu")
"""Platforms that the StableHLO is for."""


def network(
    parts: Parts, dataset: Dataset, chosen: Chosen
) -> tuple[Module, Any]:
    """Makes the network of an architecture.

    Args:
        parts: The parts of the run.
        dataset: The images, which give BatchNorm its running statistics.
        chosen: The architecture.

    Returns:
        Its source and weights, and the Flax NNX module.

    Raises:
        UserError: The family has no source, or the network does not depend on images.
    """
    space, target, _ = parts.searched
    if target.module is None:
        raise UserError(f"space: networks of {space.name} cannot be exported")
    arch = space.from_string(chosen.arch)
    module = target.module(arch, jax.device_get(chosen.theta))
    with _mixing():
        made = networks.build(module)
        networks.calibrate(made, _training_batches(parts, dataset))
    return module, made


@contextmanager
def _mixing() -> Iterator[None]:
    """Flax mixes types and ranks."""
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


def export(
    parts: Parts, dataset: Dataset, chosen: Chosen, out: Path
) -> list[Path]:
    """Writes the files of a network.

    Args:
        parts: The parts of the run.
        dataset: The images.
        chosen: The architecture.
        out: The directory to write to.

    Returns:
        The files.

    Raises:
        UserError: As `network`.
    """
    module, made = network(parts, dataset, chosen)
    with _mixing():
        accuracies = _accuracies(parts, dataset, made)
        compiled = _stablehlo(dataset, made)

    out.mkdir(parents=True, exist_ok=True)
    weights.write(out / "weights.safetensors", networks.weights(made))
    with files.replacing(out / "network.stablehlo") as file:
        file.write(compiled)
    text = network_text(chosen.arch, dataset, networks.source(module))
    files.write_text(out / "network.py", text)
    files.write_text(out / "predict.py", PREDICT)
    space = parts.searched.space
    arch = space.from_string(chosen.arch)
    cost = space.cost(jax.tree.map(lambda x: np.asarray(x)[None], arch))
    about = card(
        parts.config,
        __version__,
        dataset,
        chosen,
        accuracies,
        {k: int(v[0]) for k, v in cost._asdict().items()},
        sum(array.size for array in module.weights.values()),
        drawing.mermaid(space.graph(arch), space.op_names),
    )
    files.write_text(out / "card.md", about)
    return [out / name for name in NAMES]


def _training_batches(parts: Parts, dataset: Dataset) -> np.ndarray:
    """Normalised training images in batches, [T, B, H, W, C]."""
    # A pretrained hypernetwork comes without training images.
    source = dataset.source if dataset.source.size else dataset.valid
    batch = parts.config.score.batch
    number = min(source.size, BATCHES * batch)
    split = source.take(np.arange(number))
    batches = make_batches(split, dataset.mean_C, dataset.std_C, batch)
    return np.asarray(batches.x_TxBxHxWxC)


def _accuracies(parts: Parts, dataset: Dataset, network: Any) -> Accuracies:
    """Test accuracies with either kind of statistics."""
    split = dataset.test if dataset.test.size else dataset.valid
    batches = scorers.batches_of(parts, dataset, split)
    y_TxB = np.asarray(batches.y_TxB)

    def accuracy() -> float:
        found = networks.logits(network, batches.x_TxBxHxWxC)
        return float((found.argmax(-1) == y_TxB).mean())

    running = accuracy()
    network.train()
    by_batch = accuracy()
    network.eval()
    return Accuracies(running, by_batch, y_TxB.size)


def _stablehlo(dataset: Dataset, network: Any) -> bytes:
    """The network with its preprocessing, for any number of images."""
    from flax import nnx

    definition, state = nnx.split(network)
    mean_C, std_C = dataset.mean_C, dataset.std_C

    def classify(images):
        x = (images.astype(jnp.float32) - mean_C) / std_C
        return nnx.merge(definition, state)(x)

    height, width, channels = dataset.image
    shape = jax.export.symbolic_shape(f"b, {height}, {width}, {channels}")
    dtype = dataset.valid.x_NxHxWxC.dtype
    exported = jax.export.export(jax.jit(classify), platforms=PLATFORMS)(
        jax.ShapeDtypeStruct(shape, dtype)
    )
    return bytes(exported.serialize())
