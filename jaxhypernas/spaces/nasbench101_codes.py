"""The codes by which NAS-Bench-101 enumerates cells, and the first of isomorphic cells.

The code of a cell has a bit for every edge, column by column of its adjacency, then the
labels of its vertices. Of isomorphic cells, the one with the lowest code was trained.
"""

from functools import cache
from itertools import permutations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.archs.nasbench101 import (
    MAX_EDGES,
    MAX_INTERIOR,
    MAX_VERTICES,
    Nasbench101Arch,
    compact,
    relabel,
)

CELLS_OF_VERTICES = {2: 1, 3: 6, 4: 84, 5: 2441, 6: 62_010, 7: 359_082}
"""Number of cells that are not isomorphic, by their number of vertices."""


@cache
def adjacencies(vertices: int) -> np.ndarray:
    """Lists all valid graphs whose vertices are labelled.

    Args:
        vertices: Number of vertices; each is on a path from input to output.

    Returns:
        The codes of their edges, int32.
    """
    last = vertices - 1
    codes = np.zeros(1, np.int64)
    # Every vertex but the input has at least one edge into it ...
    for v in range(1, vertices):
        column = _edge_bit(0, v if v < last else MAX_VERTICES - 1)
        into_v = np.arange(1, 2**v) << column
        codes = (codes[:, None] | into_v).ravel()
        codes = codes[np.bitwise_count(codes) <= MAX_EDGES]

    # ... and every vertex but the output has at least one edge out of it.
    for u in range(1, last):
        later = (*range(u + 1, last), MAX_VERTICES - 1)
        out_of_u = sum(2 ** _edge_bit(u, v) for v in later)
        codes = codes[codes & out_of_u != 0]
    return codes.astype(np.int32)


def edges_of(code: jax.Array) -> jax.Array:
    """Returns the adjacency of a code of `adjacencies`.

    Args:
        code: int32 codes of any shape.

    Returns:
        edge_VxV, with the leading axes of ``code``.
    """
    start, end = np.indices((MAX_VERTICES, MAX_VERTICES))
    # Bit 31 is never set.
    bit_VxV = np.where(start < end, _edge_bit(start, end), 31)
    shape = (1,) * code.ndim + bit_VxV.shape
    bit_VxV = jnp.asarray(bit_VxV.astype(np.int32)).reshape(shape)
    return code[..., None, None] >> bit_VxV & 1


def canonical(arch: Nasbench101Arch) -> Nasbench101Arch:
    """Returns the first of all isomorphic cells in the published enumeration.

    Recognised are vertices off every path and all relabellings of interior vertices.
    Isomorphic cells count as one, as published, though where channels do not divide
    evenly, the vertices that get one more depend on the labels.

    Args:
        arch: The cell.

    Returns:
        The cell that was trained for all of them.
    """
    order_RxN, edge_RxVxV, backward_RxVxV, op_RxN, place_RxN = _relabellings()
    arch = jax.tree.map(lambda x: jnp.asarray(x, jnp.int32), arch)
    arch = compact(arch)
    exists_N: Any = (arch.op_N > 0).astype(jnp.int32)
    edge_E = arch.edge_VxV.ravel()

    def of_edges(worth_RxVxV: np.ndarray) -> jax.Array:
        return _int32(worth_RxVxV).reshape(-1, edge_E.size) @ edge_E

    code_R = of_edges(edge_RxVxV) + _int32(op_RxN) @ arch.op_N
    # Edges lead forwards, and vertices are in the first places.
    sorted_R = of_edges(backward_RxVxV) == 0
    first_R = _int32(place_RxN) @ exists_N == 2 ** exists_N.sum() - 1
    largest = np.iinfo(np.int32).max
    code_R = jnp.where(sorted_R & first_R, code_R, largest)
    best = jnp.argmin(code_R)
    return relabel(arch, _int32(order_RxN)[best])


def _int32(x: np.ndarray) -> jax.Array:
    return jnp.asarray(x, jnp.int32)


def _edge_bit(start: Any, end: Any) -> Any:
    """Returns the bit of an edge in a code."""
    return start + end * (end - 1) // 2


def _relabellings() -> tuple[np.ndarray, ...]:
    """Lists all R orders of interior vertices, and worths of a cell's parts in each.

    The worths are: of an edge, in the code; 1 for an edge that leads backwards; of an
    op, in the code; of a vertex, 2 to the power of its place.
    """
    orders = list(permutations(range(MAX_INTERIOR)))
    order_RxN = np.array(orders, np.int32)
    place_RxN = np.argsort(order_RxN, -1)
    place_RxV = np.pad(
        place_RxN + 1,
        ((0, 0), (1, 1)),
        constant_values=(0, MAX_VERTICES - 1),
    )
    start = place_RxV[:, :, None]
    end = place_RxV[:, None, :]
    # Labels have the lowest bits: two for each interior vertex.
    worth = 2 ** (2 * MAX_INTERIOR + _edge_bit(start, end))
    return (
        order_RxN,
        np.where(start < end, worth, 0),
        start > end,
        4 ** (MAX_INTERIOR - 1 - place_RxN),
        2**place_RxN,
    )
