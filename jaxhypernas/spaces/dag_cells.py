"""Cells of `dag.dag_space`: how they are drawn, changed and sorted."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.archs.cells import CellArch, CellStructure, array_module
from jaxhypernas.spaces.cells import keep_paths
from jaxhypernas.types import Array


class DagConfig(NamedTuple):
    """The cells that a space allows."""

    name: str
    """Name of the space in messages."""

    structure: CellStructure
    """Ops, states and stack, shared by all cells."""

    block_nodes: int
    """Nodes per block, n. They write one state, and their order means nothing."""

    unread_output: bool
    """True: a cell's output is made of the states that nothing reads; False: of all
    blocks."""


def with_output(dag: DagConfig, op_NxO: Array, read_NxS: Array) -> CellArch:
    """Completes a cell: its output follows from its nodes.

    Args:
        dag: The cells of the space.
        op_NxO: int32 ops of the nodes, NumPy or JAX, with any leading axes.
        read_NxS: int32 states that the nodes read, with the same leading axes.

    Returns:
        The cell with its output states.
    """
    xp: Any = array_module(read_NxS)
    states = np.eye(dag.structure.states, dtype=np.int32)
    write_NxS = states[list(dag.structure.write_N)]
    active_Nx1: Any = op_NxO.max(-1)[..., None]
    exists_S = (active_Nx1 * write_NxS).max(-2)
    out_S = exists_S
    if dag.unread_output:
        read_S = (read_NxS * active_Nx1).max(-2)
        out_S = exists_S * (1 - read_S)
    return CellArch(op_NxO, read_NxS, out_S.astype(xp.int32))


def sample(
    dag: DagConfig, key: jax.Array, progress: jax.Array | float
) -> CellArch:
    """Draws a cell: each node's numbers of reads and of ops uniformly, then the sets.

    Args:
        dag: The cells of the space.
        key: A random key; consumed.
        progress: Not used: cells have all their blocks from the beginning.

    Returns:
        The cell.
    """
    read_key, op_key = jax.random.split(key)
    structure = dag.structure
    read_NxS = _subsets(read_key, _earlier(structure), structure.reads)
    op_NxO = _subsets(op_key, _all_ops(structure), structure.ops_at_once)
    return with_output(dag, op_NxO, read_NxS)


def paths(dag: DagConfig, key: jax.Array, rate: jax.Array) -> CellArch:
    """Draws the one-shot network: nodes read and apply everything but dropped paths.

    Args:
        dag: The cells of the space.
        key: A random key; consumed.
        rate: The probability that a node loses all its reads, or all its ops.

    Returns:
        The cell; nodes may read any earlier states and apply any ops.
    """
    read_key, op_key = jax.random.split(key)
    op_NxO = keep_paths(op_key, _all_ops(dag.structure), rate)
    read_NxS = keep_paths(read_key, _earlier(dag.structure), rate)
    return with_output(dag, op_NxO, read_NxS)


def mutate(dag: DagConfig, key: jax.Array, arch: CellArch) -> CellArch:
    """Draws the reads or the ops of one node again.

    Args:
        dag: The cells of the space.
        key: A random key; consumed.
        arch: The cell.

    Returns:
        A cell that may be the same.
    """
    new_key, node_key, part_key = jax.random.split(key, 3)
    new = sample(dag, new_key, 1.0)
    nodes = len(dag.structure.write_N)
    node = jax.random.randint(node_key, (), 0, nodes)
    here_N = jnp.arange(nodes) == node
    change_ops = jax.random.bernoulli(part_key)

    new_op_Nx1 = (here_N & change_ops)[:, None]
    new_read_Nx1 = (here_N & ~change_ops)[:, None]
    op_NxO = jnp.where(new_op_Nx1, new.op_NxO, arch.op_NxO)
    read_NxS = jnp.where(new_read_Nx1, new.read_NxS, arch.read_NxS)
    return with_output(dag, op_NxO, read_NxS)


def canonical(dag: DagConfig, arch: CellArch) -> CellArch:
    """Sorts the nodes of each block. Blocks in another order are not recognised.

    Args:
        dag: The cells of the space.
        arch: The cell.

    Returns:
        The cell with the nodes of each block in lexical order.
    """
    if dag.block_nodes == 1:
        return arch
    nodes, states = arch.read_NxS.shape
    parts = jnp.asarray(arch.read_NxS), jnp.asarray(arch.op_NxO)
    row_NxF = jnp.concatenate(parts, -1)

    row_BxnxF = row_NxF.reshape(nodes // dag.block_nodes, dag.block_nodes, -1)
    # `lexsort` takes the last key as the first to sort by.
    keys_FxBxn = jnp.moveaxis(row_BxnxF, -1, 0)
    order_Bxn = jnp.lexsort(keys_FxBxn[::-1], -1)
    row_BxnxF = jnp.take_along_axis(row_BxnxF, order_Bxn[..., None], 1)

    row_NxF = row_BxnxF.reshape(nodes, -1)
    return arch._replace(
        read_NxS=row_NxF[:, :states], op_NxO=row_NxF[:, states:]
    )


def _earlier(structure: CellStructure) -> jax.Array:
    """Marks the states that each node may read: int32 [N, S]."""
    write_N = jnp.array(structure.write_N)
    earlier_NxS = jnp.arange(structure.states)[None] < write_N[:, None]
    return earlier_NxS.astype(jnp.int32)


def _all_ops(structure: CellStructure) -> jax.Array:
    """Marks all ops of every node: int32 [N, O]."""
    shape = len(structure.write_N), len(structure.ops)
    return jnp.ones(shape, jnp.int32)


def _subsets(key: jax.Array, marked_NxK: jax.Array, most: int) -> jax.Array:
    """Draws a random subset of each row's marked entries.

    Its size is uniform in 1 to ``most``, or to as many as are marked.
    """
    size_key, set_key = jax.random.split(key)
    largest_N = jnp.minimum(most, marked_NxK.sum(-1))
    size_N = jax.random.randint(size_key, largest_N.shape, 1, largest_N + 1)
    # Entries that aren't marked come last.
    place_NxK = jax.random.uniform(set_key, marked_NxK.shape)
    place_NxK = jnp.where(marked_NxK > 0, place_NxK, 2.0)
    rank_NxK = jnp.argsort(jnp.argsort(place_NxK, -1), -1)
    return (rank_NxK < size_N[:, None]).astype(jnp.int32)
