"""One architecture with weights: of training, or of the generator."""

import math
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils.epath import Path

from jaxhypernas.programs.parts import Parts
from jaxhypernas.store import weights
from jaxhypernas.types import Arch, Params, UserError

_ORIGINS = {
    "scratch": "trained from scratch",
    "generated": "trained, from weights that the generator wrote",
    "trained": "trained, from weights of an earlier training",
}


class Chosen(NamedTuple):
    """An architecture with weights."""

    arch: str
    """Its string."""

    theta: Params
    """The architecture's weights, as `Target.apply` takes them."""

    origin: str
    """Where its weights come from, for people."""

    row: dict
    """What training it gave; empty if it was not trained."""


def by_loss(rows: Sequence[dict]) -> list[dict]:
    """Returns trained candidates whose weights are kept, best first.

    Args:
        rows: Rows of the table of retrained candidates. Those of the random sample, and
            those that diverged, are left out.
    """
    kept = [
        row
        for row in rows
        if row["group"] != "sample"
        and math.isfinite(row["trained_valid_loss"])
    ]
    return sorted(kept, key=lambda row: row["trained_valid_loss"])


def ranked(rows: Sequence[dict], rank: int) -> dict:
    """Finds a candidate among those that were trained.

    Args:
        rows: Rows of the table of retrained candidates.
        rank: 1 is the one of lowest validation loss.

    Raises:
        UserError: There is no such candidate.
    """
    best = by_loss(rows)
    if not 1 <= rank <= len(best):
        raise UserError(
            f"rank: {rank} must be in 1 .. {len(best)}, of the candidates that were "
            "trained (jaxhypernas retrain), or give --arch"
        )
    return best[rank - 1]


def trained(parts: Parts, rows: Sequence[dict], text: str) -> dict | None:
    """Finds the best training of an architecture.

    Args:
        parts: The parts of the run.
        rows: Rows of the table of retrained candidates.
        text: The architecture's string.

    Returns:
        The row; None if its weights were not kept.

    Raises:
        UserError: It is no architecture of the space.
    """
    space = parts.searched.space
    arch = jax.tree.map(jnp.asarray, space.from_string(text))
    canonical = space.to_string(jax.device_get(space.canonical(arch)))
    same = [row for row in by_loss(rows) if row["arch"] == canonical]
    return same[0] if same else None


def file_name(row: dict) -> str:
    """Names the weights of a trained candidate.

    Args:
        row: Its row of the table of retrained candidates.
    """
    start, changes = start_of(row), row.get("changes") or ""
    if start == "scratch" and not changes:
        return row["id"]
    how = zlib.crc32(f"{start} {changes}".encode())
    return f"{row['id']}-{how:08x}"


def start_of(row: dict) -> str:
    """Says what weights a trained candidate began with.

    Args:
        row: Its row of the table of retrained candidates.

    Returns:
        ``scratch``, ``generated``, or ``trained`` and the name of the weights.
    """
    return row.get("start") or "scratch"


def kept(parts: Parts, workdir: Path, row: dict) -> Chosen:
    """Takes a candidate with the weights that training gave it.

    Args:
        parts: Parts with the sizes that it was trained at.
        workdir: The work directory.
        row: The candidate's row of the table of retrained candidates.

    Raises:
        UserError: Its weights were not kept, or are damaged.
    """
    like = parts.searched.target.weight_spec
    theta = weights.load(workdir, file_name(row), like)
    if theta is None:
        raise UserError(
            f"workdir: {workdir} has no weights of {row['id']}, which an older "
            "version trained: train it again, or take generated weights"
        )
    origin = _ORIGINS[start_of(row).split()[0]]
    return Chosen(row["arch"], theta, origin, row)


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
    name = parts.config.names["generator"]
    if not generator.trained:
        raise UserError(
            f"generator: {name} writes no weights: train the architecture first "
            "(jaxhypernas retrain --archs FILE)"
        )
    arch: Arch = jax.tree.map(jnp.asarray, space.from_string(text))
    theta = jax.jit(generator.generate)(phi, arch)
    # Axes that count nodes may have size 1 where all nodes share a weight.
    whole = jax.tree.map(_broadcast, theta, target.weight_spec)
    canonical = space.to_string(jax.device_get(arch))
    origin = f"written by the generator {name}, not trained"
    return Chosen(canonical, whole, origin, {})


def _broadcast(w: jax.Array, spec: Any) -> jax.Array:
    # A memory bank cuts shared kernels by itself.
    return w if w.shape == spec.shape else jnp.broadcast_to(w, spec.shape)
