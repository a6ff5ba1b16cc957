"""Weights of trained candidates: a safetensors file each, its checksum in its name.

A file is ``ID.CRC.safetensors``; leaves are under their places, as in ``cells.0.nor``.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from etils.epath import Path

from jaxhypernas.store import files
from jaxhypernas.types import UserError

NAME = "weights"
"""Name of the directory in the work directory."""


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as a safetensors file, whole or not at all.

    Args:
        path: The file.
        arrays: The arrays by name.
    """
    whole = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
    with files.replacing(path) as file:
        file.write(safetensors.numpy.save(whole))


def save(workdir: Path, id_text: str, theta: Any) -> None:
    """Saves the weights of a candidate.

    Args:
        workdir: The work directory.
        id_text: The candidate's id.
        theta: A pytree of arrays.
    """
    directory = workdir / NAME
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{id_text}.safetensors"
    write(path, dict(zip(_places(theta), _leaves(theta), strict=True)))
    path.rename(directory / f"{id_text}.{files.checksum(path)}.safetensors")


def load(workdir: Path, id_text: str, like: Any) -> Any | None:
    """Returns the weights of a candidate; None if they were not saved.

    Args:
        workdir: The work directory.
        id_text: The candidate's id.
        like: A pytree of arrays, or of their shapes.

    Raises:
        UserError: The file is damaged, or holds weights of other networks.
    """
    found = sorted((workdir / NAME).glob(f"{id_text}.*.safetensors"))
    if not found:
        return None
    path = found[-1]
    if files.checksum(path) != path.name.split(".")[1]:
        raise UserError(
            f"weights: {path} is damaged: its bytes differ from the checksum in its "
            "name"
        )
    arrays = safetensors.numpy.load(path.read_bytes())
    leaves = [arrays.get(place) for place in _places(like)]
    wanted = [leaf.shape for leaf in jax.tree.leaves(like)]
    if [leaf is not None and leaf.shape for leaf in leaves] != wanted:
        raise UserError(f"weights: {path} holds weights of other networks")
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _places(tree: Any) -> list[str]:
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, _ in paths
    ]


def _leaves(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
