"""Functions that all spaces of cells share: a cell's graph, and dropped paths.

`archs.cells` describes the arrays, `spaces.cell_cost` counts weights and operations.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.archs.cells import CellArch, CellStructure
from jaxhypernas.types import Graph


def graph(structure: CellStructure, arch: CellArch) -> Graph:
    """Makes the graph of one cell: its inputs, its op nodes, its output.

    Args:
        structure: The structure of the space's cells.
        arch: The cell.

    Returns:
        A graph of V = inputs + N + 1 nodes without padding. Columns of ``op_NxO`` are
        input, output, then the ops of the space; a node without ops is of no kind and
        has no edges.
    """
    inputs = structure.inputs
    nodes = len(structure.write_N)
    states = structure.states
    vertices = inputs + nodes + 1

    # Which vertices make each state: an input its own, a node the one it writes.
    makes_SxV = np.zeros((states, vertices), np.int32)
    makes_SxV[np.arange(inputs), np.arange(inputs)] = 1
    write_N = np.array(structure.write_N)
    makes_SxV[write_N, inputs + np.arange(nodes)] = 1

    active_N = jnp.asarray(arch.op_NxO).max(1)
    first_I = jnp.ones(inputs, jnp.int32)
    last_1 = jnp.zeros(1, jnp.int32)
    exists_V = jnp.concatenate([first_I, active_N, last_1])
    makes_SxV = makes_SxV * exists_V[None]

    # Rows of the nodes and of the output; inputs read nothing.
    read_NxS = arch.read_NxS * active_N[:, None]
    out_1xS = jnp.asarray(arch.out_S)[None]
    readers = jnp.concatenate([read_NxS, out_1xS])
    feeds = readers @ makes_SxV > 0
    edge_VxV = jnp.zeros((vertices, vertices), jnp.int32)
    edge_VxV = edge_VxV.at[inputs:].set(feeds.astype(jnp.int32))

    columns = 2 + len(structure.ops)
    op_VxO = jnp.zeros((vertices, columns), jnp.int32)
    op_VxO = op_VxO.at[:inputs, 0].set(1)
    op_VxO = op_VxO.at[-1, 1].set(1)
    op_VxO = op_VxO.at[inputs:-1, 2:].set(arch.op_NxO)
    return Graph(op_VxO, edge_VxV, jnp.ones(vertices, jnp.int32))


def op_names(structure: CellStructure) -> tuple[str, ...]:
    """Names the ops of `graph`.

    Args:
        structure: The structure of the space's cells.
    """
    return ("input", "output", *structure.ops)


def keep_paths(
    key: jax.Array, paths_NxK: jax.Array, rate: jax.Array
) -> jax.Array:
    """Drops marked paths at random (Bender et al. 2018, section 3.2).

    Args:
        key: A random key; consumed.
        paths_NxK: int32, 1 where there is a path.
        rate: The probability that a row loses all its paths: each of its k paths is
            dropped with probability ``rate ** (1 / k)``.

    Returns:
        int32 [N, K], 1 where the path is kept.
    """
    k_Nx1 = jnp.maximum(paths_NxK.sum(-1, keepdims=True), 1)
    drop_rate_Nx1 = rate ** (1 / k_Nx1.astype(jnp.float32))
    uniform_NxK = jax.random.uniform(key, paths_NxK.shape)
    dropped_NxK = uniform_NxK < drop_rate_Nx1
    kept_NxK = jnp.where(dropped_NxK, 0, paths_NxK)
    return kept_NxK.astype(jnp.int32)
