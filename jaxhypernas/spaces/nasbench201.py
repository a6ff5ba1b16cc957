"""NAS-Bench-201 (Dong and Yang 2020): 15,625 cells.

A cell has four states, the first of them its input, and an op on each of the six edges
between them. Its number, 0 to 15,624, has the ops as its digits in base 5.
"""

import math
from functools import cache, partial
from itertools import product
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.archs.cells import (
    CellArch,
    CellStructure,
    array_module,
    check_image,
)
from jaxhypernas.archs.sizes import Nasbench201Config
from jaxhypernas.spaces import nasbench201_text
from jaxhypernas.spaces.cell_cost import cost
from jaxhypernas.spaces.cell_depth import depth
from jaxhypernas.spaces.cells import graph, keep_paths, op_names
from jaxhypernas.spaces.nasbench201_text import EDGE_OPS, EDGES
from jaxhypernas.types import (
    Array,
    Enumeration,
    Growth,
    ImageShape,
    Space,
)

# A node for each edge: nodes that write one state are added.
STRUCTURE = CellStructure(
    ops=EDGE_OPS[1:],
    inputs=1,
    write_N=tuple(to for to, _ in EDGES),
    reads=1,
    ops_at_once=1,
    stack="residual",
    wiring_N=tuple(start for _, start in EDGES),
)
"""The structure of all cells."""

# Worth of each edge's digit in a cell's number.
_WORTH_6 = 5 ** np.arange(5, -1, -1, dtype=np.int32)


def nasbench201(
    config: Nasbench201Config, image: ImageShape, classes: int
) -> Space:
    """Makes the space of NAS-Bench-201; counts are the published ones.

    Args:
        config: Sizes of the networks (published: 16 channels, 5 cells).
        image: Height, width and channels of an image.
        classes: Number of classes.

    Returns:
        The space; `to_string` has the grammar of its strings.

    Raises:
        UserError: The images cannot be halved twice.
    """
    check_image(image)
    return Space(
        name="nasbench201",
        sample=_sample,
        mutate=_mutate,
        canonical=_canonical,
        graph=partial(graph, STRUCTURE),
        cost=partial(cost, STRUCTURE, config, image, classes),
        depth=partial(depth, STRUCTURE),
        to_string=to_string,
        from_string=from_string,
        log10_size=6 * math.log10(5),
        growth=Growth(
            levels=6,
            children=_children,
            tokens=_tokens,
            vocabulary=(6, 5),
            kinds=(0, 1),
        ),
        paths=_paths,
        all=Enumeration(5**6, cell),
        op_names=op_names(STRUCTURE),
    )


def from_choices(choice_6: Array) -> CellArch:
    """Makes the cell that has these ops on its edges.

    Args:
        choice_6: int32 indices into `EDGE_OPS`, NumPy or JAX, with any leading axes.

    Returns:
        The cell, or the cells.
    """
    xp: Any = array_module(choice_6)
    op_of_choice = np.eye(5, dtype=np.int32)[:, 1:]
    starts = [start for _, start in EDGES]
    read_NxS = np.eye(4, dtype=np.int32)[starts]
    out_S = np.array([0, 0, 0, 1], np.int32)

    lead = choice_6.shape[:-1]
    return CellArch(
        op_NxO=xp.asarray(op_of_choice)[choice_6],
        read_NxS=xp.broadcast_to(xp.asarray(read_NxS), lead + read_NxS.shape),
        out_S=xp.broadcast_to(xp.asarray(out_S), lead + out_S.shape),
    )


def choices(arch: CellArch) -> Array:
    """Returns the op on each edge of a cell.

    Args:
        arch: A cell of this space, NumPy or JAX, with any leading axes.

    Returns:
        choice_6: int32 indices into `EDGE_OPS`.
    """
    return arch.op_NxO @ np.arange(1, 5, dtype=np.int32)


def cell(number: Array) -> CellArch:
    """Returns the cell of a number.

    Args:
        number: Numbers from 0 to 15,624, NumPy or JAX, of any shape.

    Returns:
        The cell; the shape of ``number`` gives its leading axes.
    """
    digit_6: Any = number[..., None] // _WORTH_6 % 5
    return from_choices(digit_6.astype(np.int32))


def to_string(arch: CellArch) -> str:
    """Writes a cell as the official string.

    The grammar::

        cell = "|" edge "|+|" edge "|" edge "|+|" edge "|" edge "|" edge "|"
        edge = op "~" state

    The three groups are the edges into states 1, 2 and 3; within a group, edges come
    from states 0, 1, 2 in this order. Ops are those of `EDGE_OPS`.

    Example: ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|none~2|``.

    Args:
        arch: One cell.

    Returns:
        The string.
    """
    chex.assert_shape(arch.op_NxO, (6, 4))
    return nasbench201_text.to_string(np.asarray(choices(arch)).tolist())


def from_string(text: str) -> CellArch:
    """Reads a cell as this and other programs write it.

    The forms, besides the official string, whose edges may be in any order:

    - its index in NATS-Bench's topology space, 0 to 15,624, as ``12345``;
    - NASLib's op indices, as ``(4, 0, 3, 1, 4, 3)``;
    - AutoDL's structure, as ``[[('none', 0)], [('none', 0), ('none', 1)], ...]``;
    - a choice for each edge FROM_TO, as ``{"0_1": "conv_3x3", ...}`` of NNI.

    Args:
        text: The text; quotes and spaces round it do not matter.

    Returns:
        The cell, as NumPy arrays.

    Raises:
        UserError: The text is no cell.
    """
    return from_choices(np.array(nasbench201_text.read(text), np.int32))


def _sample(key: jax.Array, progress: jax.Array | float) -> CellArch:
    """Draws each edge's op uniformly."""
    choice_6 = jax.random.randint(key, (6,), 0, 5, jnp.int32)
    return from_choices(choice_6)


def _paths(key: jax.Array, rate: jax.Array) -> CellArch:
    """Applies all ops on every edge, except those that are dropped."""
    arch = from_choices(jnp.zeros(6, jnp.int32))
    all_NxO = jnp.ones((6, 4), jnp.int32)
    op_NxO = keep_paths(key, all_NxO, rate)
    return arch._replace(op_NxO=op_NxO)


def _mutate(key: jax.Array, arch: CellArch) -> CellArch:
    """Puts another op on one edge."""
    edge_key, op_key = jax.random.split(key)
    edge = jax.random.randint(edge_key, (), 0, 6)
    old_6 = jnp.asarray(choices(arch))
    shift = jax.random.randint(op_key, (), 1, 5, jnp.int32)
    new = (old_6[edge] + shift) % 5
    return from_choices(old_6.at[edge].set(new))


def _canonical(arch: CellArch) -> CellArch:
    """Returns the first of all cells with the same description (4,930 remain)."""
    number = choices(arch) @ _WORTH_6
    return cell(jnp.asarray(_representatives())[number])


@cache
def _representatives() -> np.ndarray:
    """Returns, by number, the first cell whose function has the same description.

    A state is described by the terms of its sum, in order. An op that reads nothing
    adds nothing, and a skip adds the terms of the state that it copies. (The published
    rule recognises neither sums of zeros nor the order of nested sums: 6,466 remain.)

    Neither rule tells one convolution whose result is copied from two convolutions.
    """
    first: dict[tuple[str, ...], int] = {}
    found = np.zeros(5**6, np.int32)
    for number, ops in enumerate(product(range(5), repeat=6)):
        states: list[tuple[str, ...]] = [("x",), (), (), ()]
        # Edges come in order of the states that they lead to.
        for (to, start), op in zip(EDGES, ops, strict=True):
            added = _terms(states[start], op)
            states[to] = tuple(sorted(states[to] + added))
        found[number] = first.setdefault(states[3], number)
    return found


def _terms(state: tuple[str, ...], op: int) -> tuple[str, ...]:
    """The terms that an op adds to the sum that it writes to."""
    if op == EDGE_OPS.index("none") or not state:
        return ()
    if op == EDGE_OPS.index("skip_connect"):
        return state
    return (f"({'+'.join(state)}){op}",)


def _children(population: CellArch | None, level: int) -> CellArch:
    """Puts each op on the next edge.

    Edges that no level has decided yet are skips, so that cells of every level connect.
    """
    if population is None:
        skips = np.full((1, 6), EDGE_OPS.index("skip_connect"), np.int32)
        population = from_choices(skips)
    parent_Ax6 = np.asarray(choices(population))
    child_Ax5x6 = np.repeat(parent_Ax6[:, None], 5, 1)
    child_Ax5x6[:, :, level - 1] = np.arange(5)
    return from_choices(child_Ax5x6.reshape(-1, 6))


def _tokens(population: CellArch, level: int) -> np.ndarray:
    """Lists (edge, op) of each of the first ``level`` edges."""
    op_AxE = np.asarray(choices(population))[:, :level]
    edge_E = np.arange(level, dtype=np.int32)
    edge_AxE = np.broadcast_to(edge_E, op_AxE.shape)
    return np.stack([edge_AxE, op_AxE], -1).astype(np.int32)
