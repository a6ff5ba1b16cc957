"""Cells of NAS-Bench-101 as text."""

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
from jaxhypernas.types import UserError


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
    """Reads the text that `to_string` writes.

    Args:
        text: The text. Vertices off every path are pruned, as published.

    Returns:
        The cell, as NumPy arrays.

    Raises:
        UserError: The text is no cell of this space.
    """
    ops, bar, edges = text.strip().partition("|")
    names = ops.split()
    ends = names[:1], names[-1:]
    if not bar or len(names) < 2 or ends != (["input"], ["output"]):
        raise UserError(
            f"arch: {text[:80]!r} is not 'input OP ... output|0-1 1-2 ...'"
        )
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
