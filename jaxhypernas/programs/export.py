"""One architecture as files that need Flax alone: source, weights, StableHLO."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils.epath import Path

from jaxhypernas import __version__
from jaxhypernas.data.batches import make_batches
from jaxhypernas.data.dataset import Dataset
from jaxhypernas.programs import networks, scorers
from jaxhypernas.programs.export_text import (
    PREDICT,
    Accuracies,
    card,
    network_text,
)
from jaxhypernas.programs.parts import Parts
from jaxhypernas.store import files, weights
from jaxhypernas.store.tables import Table
from jaxhypernas.types import Arch, Module, Params, UserError

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


class Chosen(NamedTuple):
    """The architecture to export, with weights."""

    arch: str
    """Its string."""

    theta: Params
    """Its weights, as `Target.apply` takes them."""

    origin: str
    """Where its weights come from, for the card."""

    row: dict
    """What training it from scratch gave; empty if it was not."""


def ranked(retrained: Table, rank: int) -> dict:
    """Finds the row of a candidate among the best that were trained from scratch.

    Args:
        retrained: The table of retrained candidates.
        rank: 1 is the winner, of lowest validation loss.

    Raises:
        UserError: There is no such candidate.
    """
    rows = [
        row
        for row in retrained.read().to_pylist()
        if row["group"] in ("top", "active")
    ]
    finite = [row for row in rows if np.isfinite(row["trained_valid_loss"])]
    finite.sort(key=lambda row: row["trained_valid_loss"])
    if not 1 <= rank <= len(finite):
        raise UserError(
            f"rank: {rank} must be in 1 .. {len(finite)}, of the candidates trained "
            "from scratch (jaxhypernas retrain), or give --arch"
        )
    return finite[rank - 1]


def trained(parts: Parts, retrained: Table, text: str) -> dict | None:
    """Finds the row of an architecture among those that were trained from scratch.

    Args:
        parts: The parts of the run.
        retrained: The table of retrained candidates.
        text: The architecture's string.

    Returns:
        The row; None if its weights were not kept.

    Raises:
        UserError: It is no architecture of the space.
    """
    space = parts.searched.space
    arch = jax.tree.map(jnp.asarray, space.from_string(text))
    canonical = space.to_string(jax.device_get(space.canonical(arch)))
    for row in retrained.read().to_pylist():
        if row["arch"] == canonical and row["group"] != "sample":
            return row
    return None


def from_scratch(parts: Parts, workdir: Path, row: dict) -> Chosen:
    """Takes a candidate with the weights that training from scratch gave it.

    Args:
        parts: The parts of the run.
        workdir: The work directory.
        row: The candidate's row of the table of retrained candidates.

    Raises:
        UserError: Its weights were not kept, or are damaged.
    """
    like = parts.searched.target.weight_spec
    theta = weights.load(workdir, row["id"], like)
    if theta is None:
        raise UserError(
            f"workdir: {workdir} has no weights of {row['id']}, which an older "
            "version trained: give --generated for generated weights"
        )
    return Chosen(row["arch"], theta, "trained from scratch", row)


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
    )
    files.write_text(out / "card.md", about)
    return [out / name for name in NAMES]


def generated(parts: Parts, phi: Params, text: str) -> Chosen:
    """Writes the weights of an architecture with the run's generator.

    Args:
        parts: The parts of the run.
        phi: The generator's parameters.
        text: The architecture's string.

    Raises:
        UserError: It is no architecture of the space, or the generator writes no
            weights.
    """
    space, target, generator = parts.searched
    if not generator.trained:
        raise UserError(
            f"arch: generator {parts.config.names['generator']} writes no weights: "
            "train it first (jaxhypernas retrain --archs FILE)"
        )
    arch: Arch = jax.tree.map(jnp.asarray, space.from_string(text))
    theta = jax.jit(generator.generate)(phi, arch)
    # Axes that count nodes may have size 1 where all nodes share a weight.
    whole = jax.tree.map(_broadcast, theta, target.weight_spec)
    canonical = space.to_string(jax.device_get(arch))
    names = parts.config.names
    origin = f"written by the generator {names['generator']}, not trained"
    return Chosen(canonical, whole, origin, {})


def _broadcast(w: jax.Array, spec: Any) -> jax.Array:
    # A memory bank cuts shared kernels by itself.
    return w if w.shape == spec.shape else jnp.broadcast_to(w, spec.shape)


def _training_batches(parts: Parts, dataset: Dataset) -> np.ndarray:
    """Normalised training images in batches, [T, B, H, W, C]."""
    source = dataset.source
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
