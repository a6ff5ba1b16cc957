"""Cells of NAS-Bench-101 as text."""

import re
from typing import Any

import chex
import numpy as np

from jaxhypernas.archs.nasbench101 import (
    MAX_EDGES,
    MAX_INTERIOR,
    MAX_VERTICES,
    OPS,
    Nasbench101Arch,
    compact,
    valid,
)
from jaxhypernas.spaces import foreign
from jaxhypernas.types import UserError

_OTHER_NAMES = {
    "conv1x1": "conv1x1-bn-relu",
    "conv3x3": "conv3x3-bn-relu",
}


def to_string(arch: Nasbench101Arch) -> str:
    """Writes a cell as text: the ops of its vertices, then the edges between them.

    The grammar::

        cell  = "input" (" " op)* " output" "|" edges
        edges = edge (" " edge)*
        edge  = vertex "-" vertex        from, to

    Vertices are numbered from 0, the input, in the order of their ops. Ops are those of
    `archs.nasbench101.OPS`.

    Example: ``input maxpool3x3 output|0-1 0-2 1-2``.

    Args:
        arch: One cell.

    Returns:
        The text of the pruned cell.
    """
    chex.assert_shape(arch.op_N, (MAX_INTERIOR,))
    chex.assert_shape(arch.edge_VxV, (MAX_VERTICES, MAX_VERTICES))
    arrays = (np.asarray(x) for x in arch)
    op_N, edge_VxV = compact(Nasbench101Arch(*arrays))
    names = [OPS[op - 1] for op in op_N if op > 0]

    # The output is the last place of the array, but the next number of the text.
    number = list(range(MAX_VERTICES))
    number[-1] = len(names) + 1
    edges = [f"{number[u]}-{number[v]}" for u, v in np.argwhere(edge_VxV)]
    return f"{' '.join(['input', *names, 'output'])}|{' '.join(edges)}"


def from_string(text: str) -> Nasbench101Arch:
    """Reads a cell as this and other programs write it.

    The forms, besides that of `to_string`:

    - the matrix and the ops of the published API, in either order, as ``[[0, 1], [0,
      0]], ["input", "output"]``, or as keywords, ``ModelSpec(matrix=..., ops=...)``;
    - lists for the ops and the edges, as ``["input", "output"]|[(0, 1)]``.

    Ops may leave out ``-bn-relu``.

    Args:
        text: The text; quotes and spaces round it do not matter. Vertices off every
            path are pruned, as published.

    Returns:
        The cell, as NumPy arrays.

    Raises:
        UserError: The text is no cell of this space.
    """
    names, edges = _parts(foreign.clean(text))
    op_N = _read_ops(names)
    edge_VxV = _read_edges(edges, len(names))

    arch = compact(Nasbench101Arch(op_N, edge_VxV))
    if not np.any(arch.edge_VxV):
        raise UserError(
            f"arch: {text[:120]!r} has no path from input to output"
        )
    if not valid(arch):
        raise UserError(
            f"arch: {arch.edge_VxV.sum()} edges on paths from input to output: "
            f"there are {MAX_EDGES} at most"
        )
    return arch


def _parts(text: str) -> tuple[list[str], str]:
    """The ops of all vertices, and the edges as `to_string` writes them."""
    if re.fullmatch("[0-9a-f]{32}", text):
        raise UserError(
            f"arch: {text!r} is the hash of a cell, which does not tell the cell: give "
            "its ops and edges"
        )
    ops, bar, edges = text.partition("|")
    if bar and ops.lstrip()[:1] not in ("[", "("):
        names = ops.split()
    elif bar:
        names = foreign.literal(ops)
        pairs = foreign.literal(edges)
        edges = edges if pairs is None else _edges_of_pairs(pairs)
    else:
        names, edges = _of_matrix(foreign.literal(text))
    names = [_OTHER_NAMES.get(str(name), str(name)) for name in names or ()]
    if len(names) < 2 or (names[0], names[-1]) != ("input", "output"):
        raise UserError(
            f"arch: {text[:80]!r} is not 'input OP ... output|0-1 1-2 ...', nor a "
            "matrix with its ops"
        )
    return names, edges


def _edges_of_pairs(pairs: Any) -> str:
    try:
        return " ".join(f"{int(u)}-{int(v)}" for u, v in pairs)
    except (TypeError, ValueError):
        return "?"


def _of_matrix(value: Any) -> tuple[list[Any], str]:
    """Ops and edges from a matrix with its ops; no ops if the value is none."""
    try:
        if isinstance(value, dict):
            matrix = value.get("matrix", value.get("module_adjacency"))
            names = value.get("ops", value.get("module_operations"))
        else:
            matrix, names = value
            if isinstance(matrix[0], str):
                matrix, names = names, matrix
        marks_VxV = np.array(matrix, np.int64)
        if marks_VxV.shape != (len(names), len(names)):
            return [], ""
    except (TypeError, ValueError, LookupError, OverflowError):
        return [], ""
    return list(names), _edges_of_pairs(np.argwhere(marks_VxV).tolist())


def _read_ops(names: list[str]) -> np.ndarray:
    """Reads op_N from the names of all vertices, input and output included."""
    if len(names) > MAX_VERTICES:
        raise UserError(
            f"arch: {len(names)} vertices: there are {MAX_VERTICES} at most, input "
            "and output counted"
        )
    interior = names[1:-1]
    if unknown := set(interior) - set(OPS):
        raise UserError(
            f"arch: op {min(unknown)[:40]!r} is not one of {', '.join(OPS)}"
        )
    op_N = np.zeros(MAX_INTERIOR, np.int32)
    op_N[: len(interior)] = [1 + OPS.index(name) for name in interior]
    return op_N


def _read_edges(edges: str, vertices: int) -> np.ndarray:
    """Reads edge_VxV from the edges of a cell of so many vertices."""
    last = vertices - 1
    legal = {f"{u}-{v}": (u, v) for v in range(vertices) for u in range(v)}
    edge_VxV = np.zeros((MAX_VERTICES, MAX_VERTICES), np.int32)
    for edge in edges.split():
        if edge not in legal:
            raise UserError(
                f"arch: edge {edge[:40]!r} is not FROM-TO with 0 <= FROM < TO <= {last}"
            )
        u, v = legal[edge]
        edge_VxV[u, MAX_VERTICES - 1 if v == last else v] = 1
    return edge_VxV
