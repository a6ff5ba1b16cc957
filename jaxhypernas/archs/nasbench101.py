"""NAS-Bench-101's cells as integer arrays, and the channels of their vertices.

Vertices are in topological order: input, interior vertices, output. A cell may have
fewer interior vertices than there are places. All functions take NumPy or JAX arrays.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxhypernas.archs.cells import array_module
from jaxhypernas.types import Array

MAX_VERTICES = 7
"""Largest number of vertices of a cell, V: the arrays have a place for each."""

MAX_INTERIOR = MAX_VERTICES - 2
"""Largest number of interior vertices, N: all but the input and the output."""

MAX_EDGES = 9
"""Largest number of edges of a cell."""

OPS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
"""Ops of interior vertices, in the order of the published labels."""


class Nasbench101Arch(NamedTuple):
    """One cell."""

    op_N: Array
    """int32: 1 + an index into `OPS`; 0 where there is no vertex."""

    edge_VxV: Array
    """int32: ``edge[u, v]`` is 1 where vertex u feeds v; upper triangular. The output
    is always the last vertex."""


def prune(arch: Nasbench101Arch) -> Nasbench101Arch:
    """Removes vertices that lie on no path from input to output; others keep places.

    Args:
        arch: A cell, or a population: any leading axes.

    Returns:
        The cell without those vertices and their edges.
    """
    xp: Any = array_module(arch.edge_VxV)
    exists_N = xp.asarray(arch.op_N) > 0
    end = xp.ones_like(exists_N[..., :1])
    exists_V = xp.concatenate([end, exists_N, end], -1)
    both_exist_VxV = exists_V[..., None] & exists_V[..., None, :]
    edge_VxV = (arch.edge_VxV > 0) & both_exist_VxV

    # From the input forwards, and from the output backwards.
    reached = [end[..., 0]]
    needed = [end[..., 0]]
    for v in range(1, MAX_VERTICES):
        into_v = edge_VxV[..., :v, v]
        feeds_v = into_v & xp.stack(reached, -1)
        reached.append(feeds_v.any(-1))

        out_of_v = edge_VxV[..., -v - 1, -v:]
        fed_by_v = out_of_v & xp.stack(needed, -1)
        needed.insert(0, fed_by_v.any(-1))

    alive_V = xp.stack(reached, -1) & xp.stack(needed, -1)
    alive_N = alive_V[..., 1:-1]
    both_alive_VxV = alive_V[..., None] & alive_V[..., None, :]
    edge_VxV = edge_VxV & both_alive_VxV
    return Nasbench101Arch(
        op_N=xp.where(alive_N, arch.op_N, 0),
        edge_VxV=edge_VxV.astype(np.int32),
    )


def relabel(arch: Nasbench101Arch, order_N: Array) -> Nasbench101Arch:
    """Puts the interior vertices of one cell in another order.

    Args:
        arch: The cell.
        order_N: The new cell's i-th interior vertex is the old one's ``order_N[i]``-th.

    Returns:
        The same graph with its vertices in the new order.
    """
    xp: Any = array_module(arch.edge_VxV)
    ends = (0, MAX_VERTICES - 1)
    at_V = xp.pad(order_N + 1, (1, 1), constant_values=ends)
    from_VxV = arch.edge_VxV[at_V]
    return Nasbench101Arch(
        op_N=arch.op_N[order_N],
        edge_VxV=from_VxV[:, at_V],
    )


def compact(arch: Nasbench101Arch) -> Nasbench101Arch:
    """Prunes one cell and moves its interior vertices to the first places.

    Args:
        arch: The cell.

    Returns:
        The pruned cell; vertices keep their order, unused places come last.
    """
    arch = prune(arch)
    xp: Any = array_module(arch.op_N)
    unused_N = arch.op_N == 0
    order_N = xp.argsort(unused_N, stable=True)
    return relabel(arch, order_N)


def valid(arch: Nasbench101Arch) -> Array:
    """Tells whether a pruned cell is one of the published cells.

    Args:
        arch: A pruned cell, or a population: any leading axes.

    Returns:
        bool: input and output are connected, by at most `MAX_EDGES` edges.
    """
    edges = arch.edge_VxV.sum((-2, -1))
    return (edges > 0) & (edges <= MAX_EDGES)


def vertex_channels(edge_VxV: Array, channels: int) -> Array:
    """Counts the channels of the interior vertices of a pruned cell.

    Vertices that feed the output share its channels; the first of them take the
    remainder (with fewer channels than such vertices, the last have none). Any other
    vertex has as many channels as the widest vertex that it feeds.

    Args:
        edge_VxV: Edges of a pruned cell, with any leading axes.
        channels: Channels of the cell's output.

    Returns:
        channels_N, int32.
    """
    xp: Any = array_module(edge_VxV)
    feeds_N: Any = edge_VxV[..., 1:-1, -1]
    number = xp.maximum(feeds_N.sum(-1, keepdims=True), 1)
    extra_N = xp.cumsum(feeds_N, -1) <= channels % number
    each_N = channels // number + extra_N.astype(np.int32)
    share_N = feeds_N * each_N

    # From the last vertex to the first: ``found[i]`` belongs to vertex N - i.
    found: list[Any] = []
    for n in reversed(range(MAX_INTERIOR)):
        width = share_N[..., n]
        for i, channel in enumerate(found):
            fed_channel = edge_VxV[..., n + 1, MAX_INTERIOR - i] * channel
            wider = xp.maximum(width, fed_channel)
            width = xp.where(feeds_N[..., n] > 0, width, wider)
        found.append(width)
    found.reverse()
    channels_N = xp.stack(found, -1)
    return channels_N.astype(np.int32)
