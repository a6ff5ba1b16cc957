"""Random cells of NAS-Bench-101: samples, and mutations by one change."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxhypernas.archs.nasbench101 import (
    MAX_INTERIOR,
    MAX_VERTICES,
    OPS,
    Nasbench101Arch,
    compact,
    relabel,
    valid,
)
from jaxhypernas.spaces.nasbench101_codes import (
    CELLS_OF_VERTICES,
    adjacencies,
    edges_of,
)

_MAX_TRIES = 1000
"""Largest number of changes that a mutation tries; about every other is valid."""


def sample(key: jax.Array, progress: jax.Array | float) -> Nasbench101Arch:
    """Draws a cell, close to uniformly over all cells.

    The number of vertices is drawn as often as among the published cells, then one of
    the labelled cells of that number uniformly.

    Args:
        key: A random key; consumed.
        progress: Not used: cells have all sizes from the beginning.

    Returns:
        The cell.
    """
    size_key, graph_key, op_key = jax.random.split(key, 3)
    tables = [adjacencies(vertices) for vertices in CELLS_OF_VERTICES]
    cells = np.array(list(CELLS_OF_VERTICES.values()))
    share = jnp.asarray(cells / cells.sum(), jnp.float32)
    # The number of interior vertices: cells of two vertices have none.
    size = jax.random.choice(size_key, len(tables), p=share)

    length = np.array([len(table) for table in tables])
    start = np.cumsum(length) - length
    rows = jnp.asarray(length)[size]
    row = jax.random.randint(graph_key, (), 0, rows)
    codes = jnp.asarray(np.concatenate(tables))
    code = codes[jnp.asarray(start)[size] + row]

    op_N = _random_ops(op_key, (MAX_INTERIOR,))
    exists_N = jnp.arange(MAX_INTERIOR) < size
    return Nasbench101Arch(jnp.where(exists_N, op_N, 0), edges_of(code))


def mutate(key: jax.Array, arch: Nasbench101Arch) -> Nasbench101Arch:
    """Changes one part of a cell.

    A change is another op of a vertex; an edge more, less or elsewhere; a vertex on an
    edge or beside it; or a vertex less. It is drawn again until the cell is valid, is
    another, and has no vertex to prune.

    Args:
        key: A random key; consumed.
        arch: The cell.

    Returns:
        The neighbour.
    """
    arch = jax.tree.map(lambda x: jnp.asarray(x, jnp.int32), arch)

    def body(carry: tuple):
        tries, _, _ = carry
        changed = _change(jax.random.fold_in(key, tries), arch)
        new = compact(changed)
        vertices = (new.op_N > 0).sum()
        whole = vertices == (changed.op_N > 0).sum()
        another_op = (new.op_N != arch.op_N).any()
        another_edge = (new.edge_VxV != arch.edge_VxV).any()
        found = whole & valid(new) & (another_op | another_edge)
        kept = jax.tree.map(lambda a, b: jnp.where(found, a, b), new, arch)
        return tries + 1, found, kept

    def unfinished(carry: tuple):
        tries, found, _ = carry
        return ~found & (tries < _MAX_TRIES)

    start = 0, jnp.array(False), arch
    return lax.while_loop(unfinished, body, start)[2]


def _random_ops(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.randint(key, shape, 1, len(OPS) + 1, jnp.int32)


def _change(key: jax.Array, arch: Nasbench101Arch) -> Nasbench101Arch:
    """Makes one change, valid or not; none where the part drawn for it is missing."""
    spread_key, kind_key, place_key, op_key, *keys = jax.random.split(key, 9)
    less_key, more_key, *vertex_keys = keys
    arch = _spread(spread_key, arch)
    place = jax.random.randint(place_key, (), 0, MAX_INTERIOR)

    edge_VxV = jnp.asarray(arch.edge_VxV)
    less_VxV = _one_of(less_key, edge_VxV > 0)
    more_VxV = _one_of(more_key, _missing_edges(arch))
    changed = (
        _with_other_op(op_key, arch, place),
        arch._replace(edge_VxV=edge_VxV + more_VxV),
        arch._replace(edge_VxV=edge_VxV - less_VxV),
        arch._replace(edge_VxV=edge_VxV + more_VxV - less_VxV),
        _toggle_vertex(vertex_keys, arch, place),
    )
    kind = jax.random.randint(kind_key, (), 0, len(changed))
    return jax.tree.map(lambda *x: jnp.stack(x)[kind], *changed)


def _spread(key: jax.Array, arch: Nasbench101Arch) -> Nasbench101Arch:
    """Moves interior vertices to random places, in order.

    A new vertex may then come anywhere between them.
    """
    place_N = jax.random.uniform(key, (MAX_INTERIOR,))
    rank_N = jnp.argsort(jnp.argsort(place_N))
    free_N = rank_N >= (arch.op_N > 0).sum()
    order_N = jnp.argsort(jnp.argsort(free_N, stable=True))
    return relabel(arch, order_N)


def _one_of(key: jax.Array, marked: jax.Array) -> jax.Array:
    """Marks one of the marked entries at random; none where none is marked."""
    value = jax.random.uniform(key, marked.shape)
    value = jnp.where(marked, value, -1.0)
    chosen = marked & (value == value.max())
    return chosen.astype(jnp.int32)


def _missing_edges(arch: Nasbench101Arch) -> jax.Array:
    """Marks the edges that a cell does not have between its vertices."""
    exists_V = jnp.pad(arch.op_N > 0, (1, 1), constant_values=True)
    vertex_V = jnp.arange(MAX_VERTICES)
    forwards_VxV = vertex_V[:, None] < vertex_V[None]
    both_exist_VxV = exists_V[:, None] & exists_V[None]
    return (arch.edge_VxV == 0) & both_exist_VxV & forwards_VxV


def _with_other_op(
    key: jax.Array, arch: Nasbench101Arch, place: jax.Array
) -> Nasbench101Arch:
    """Puts another op on the vertex at a place, if there is a vertex."""
    shift = jax.random.randint(key, (), 1, len(OPS), jnp.int32)
    other_N = (arch.op_N - 1 + shift) % len(OPS) + 1
    here_N = jnp.arange(MAX_INTERIOR) == place
    exists = arch.op_N[place] > 0
    op_N = jnp.where(here_N & exists, other_N, arch.op_N)
    return arch._replace(op_N=op_N)


def _toggle_vertex(
    keys: list[jax.Array], arch: Nasbench101Arch, place: jax.Array
) -> Nasbench101Arch:
    """Removes the vertex at a place; where there is none, adds one at an edge."""
    edge_key, bypass_key, op_key = keys
    op_N = jnp.asarray(arch.op_N)
    edge_VxV = jnp.asarray(arch.edge_VxV)
    exists = op_N[place] > 0
    v = place + 1

    # An edge that passes the free place. Where a vertex is removed, none is marked, and
    # all edges into and out of the vertex are cleared.
    vertex_V = jnp.arange(MAX_VERTICES)
    passes_VxV = (vertex_V[:, None] < v) & (vertex_V[None] > v)
    passing_VxV = (edge_VxV > 0) & passes_VxV
    split_VxV = jnp.where(exists, 0, _one_of(edge_key, passing_VxV))
    edge_VxV = edge_VxV.at[v].set(split_VxV.max(0))
    edge_VxV = edge_VxV.at[:, v].set(split_VxV.max(1))

    # The vertex replaces the edge, or the edge stays beside it.
    replaces = jax.random.bernoulli(bypass_key).astype(jnp.int32)
    new_op = jnp.where(exists, 0, _random_ops(op_key, ()))
    return Nasbench101Arch(
        op_N=op_N.at[place].set(new_op),
        edge_VxV=edge_VxV - split_VxV * replaces,
    )
