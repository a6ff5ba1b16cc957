"""Arrays in a work directory: a safetensors file each, its checksum in its name.

A file is ``NAME.CRC.safetensors``; the name of a trained candidate's weights is its id.
Leaves are under their places, as in ``cells.0.nor``.
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


def save(workdir: Path, name: str, theta: Any) -> None:
    """Saves a pytree of arrays.

    Args:
        workdir: The work directory.
        name: Its name.
        theta: The pytree.
    """
    directory = workdir / NAME
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.safetensors"
    write(path, dict(zip(_places(theta), _leaves(theta), strict=True)))
    before = set(directory.glob(f"{name}.*.safetensors"))
    place = directory / f"{name}.{files.checksum(path)}.safetensors"
    path.rename(place)
    # Of a training that was killed before its row was written.
    for old in before - {place}:
        old.unlink(missing_ok=True)


def load(workdir: Path, name: str, like: Any) -> Any | None:
    """Returns a pytree of arrays; None if it was not saved.

    Args:
        workdir: The work directory.
        name: Its name.
        like: A pytree of arrays of these shapes.

    Raises:
        UserError: The file is damaged, or holds weights of other networks.
    """
    arrays = read(workdir, name)
    if arrays is None:
        return None
    leaves = [arrays.get(place) for place in _places(like)]
    wanted = [leaf.shape for leaf in jax.tree.leaves(like)]
    if [leaf is not None and leaf.shape for leaf in leaves] != wanted:
        raise UserError(
            f"weights: {_file(workdir, name)} holds weights of other networks"
        )
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def read(workdir: Path, name: str) -> dict[str, np.ndarray] | None:
    """Returns arrays by their places; None if they were not saved.

    Args:
        workdir: The work directory.
        name: Their name.

    Raises:
        UserError: The file is damaged.
    """
    path = _file(workdir, name)
    if path is None:
        return None
    if files.checksum(path) != path.name.split(".")[1]:
        raise UserError(
            f"weights: {path} is damaged: its bytes differ from the checksum in its "
            "name"
        )
    return safetensors.numpy.load(path.read_bytes())


def _file(workdir: Path, name: str) -> Path | None:
    found = sorted((workdir / NAME).glob(f"{name}.*.safetensors"))
    return found[-1] if found else None


def _places(tree: Any) -> list[str]:
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, _ in paths
    ]


def _leaves(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
