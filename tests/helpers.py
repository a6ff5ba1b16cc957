"""What many tests use: populations, comparisons, meshes of a few devices."""

import contextlib
import io
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from jaxhypernas.cli.main import main
from jaxhypernas.execution.mesh import ARCH, DATA
from jaxhypernas.types import Arch, Space


def population(space: Space, number: int, seed: int = 0) -> Arch:
    """Random architectures, NumPy arrays with a leading axis."""
    keys = jax.random.split(jax.random.key(seed), number)
    sample = jax.jit(jax.vmap(lambda key: space.sample(key, 1.0)))
    return jax.tree.map(np.asarray, sample(keys))


def row(tree: Any, index: Any) -> Any:
    """One candidate of a population, or several."""
    return jax.tree.map(lambda x: np.asarray(x)[index], tree)


def stack(trees: list) -> Any:
    """A population of some candidates."""
    return jax.tree.map(lambda *x: np.stack(x), *trees)


def separability(
    population: Arch, id_A: np.ndarray, work_A: np.ndarray
) -> np.ndarray:
    """Stands for the separability of candidates: all are equal."""
    return np.zeros(len(id_A))


def same(a: Any, b: Any) -> bool:
    """Whether two pytrees are equal bit for bit."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y, equal_nan=True) for x, y in leaves)


def assert_same(a: Any, b: Any) -> None:
    """Fails if two pytrees differ in a bit."""
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(
    a: Any, b: Any, rtol: float = 1e-4, atol: float = 1e-6
) -> None:
    """Fails if two pytrees differ by more than a share of each leaf's largest value."""

    def close(x: Any, y: Any) -> None:
        largest = np.abs(y).max(initial=0.0)
        np.testing.assert_allclose(x, y, rtol=0, atol=atol + rtol * largest)

    jax.tree.map(close, a, b)


def mesh_of(devices: int) -> Mesh:
    """A mesh over the first devices, each with candidates of its own."""
    return jax.make_mesh(
        (devices, 1),
        (ARCH, DATA),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=jax.devices()[:devices],
    )


PROGRAM = "jaxhypernas: "
"""How a complaint of the command line begins."""


def complaint(words: Sequence[str]) -> str:
    """Runs a command that must be refused; returns its one line of complaint.

    Fails if the exit code is not 2, or anything else is printed.
    """
    said = io.StringIO()
    printed = io.StringIO()
    with (
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(printed),
    ):
        code = main(words)
    text = said.getvalue()
    assert not printed.getvalue(), printed.getvalue()
    assert code == 2, f"exit code {code}: {text}"
    is_one_line = text.startswith(PROGRAM) and text.find("\n") == len(text) - 1
    assert is_one_line, f"not one line: {text}"
    return text[len(PROGRAM) : -1]


def assert_names(line: str, names: Sequence[str]) -> None:
    """Fails unless a complaint has one of some names of fields, as a word.

    A field is spelt with - on the command line and with _ in Python.
    """

    def plain(text: str) -> str:
        return re.sub(r"(?<=\w)-(?=\w)", "_", text)

    found = [
        re.search(rf"(?<![\w.]){re.escape(plain(name))}(?!\w)", plain(line))
        for name in names
    ]
    assert any(found), f"names none of {names}: {line}"
