"""An encoding for SMASH's hypernetwork of any architecture with a graph, such as cells.

The paper lays the encoding of memory banks out over the generated weights; this file
does so for the weights of nodes. The grid has a position for every node of every cell,
and as many rows as a node's weights need. Its channels describe the node: ops, the
nodes it reads, the nodes that read it, its place in the cell, its stage.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.generators.node_weights import (
    graph_shape,
    names_of_node_weights,
)
from jaxhypernas.types import Arch, Encoding, Params, Space, Target


class _Leaf(NamedTuple):
    """A weight leaf of theta: kernels of nodes."""

    shape: tuple[int, ...]
    """Shape of the leaf: first axes that count nodes, then a kernel's."""

    nodes: np.ndarray
    """Ids of the nodes, over the leaf's first axes."""

    stage: int
    """Index of the leaf's stage."""

    size: int
    """Weights of one node."""


def graph_encoding(space: Space, target: Target) -> Encoding:
    """Lays out graphs and all weights that belong to nodes.

    Stages are the groups of leaves that belong to the same nodes. A place of the grid
    holds as many weights as a node has in the stage where a node has fewest, so a wider
    stage takes more rows.

    Args:
        space: The space whose graphs are encoded.
        target: The networks.

    Returns:
        The encoding; ``decode`` divides every kernel by its norm.
    """
    names = names_of_node_weights(target)
    spec = {name: target.weight_spec[name] for name in names}
    treedef = jax.tree.structure(spec)
    stages, leaves = _stages(spec, {n: target.nodes[n] for n in names})

    # Weights of a node in each stage, and the rows of the grid that these take.
    weights = [0] * len(stages)
    for leaf in leaves:
        weights[leaf.stage] += leaf.size
    per_place = min(weights)
    rows = [-(-n // per_place) for n in weights]

    # Positions of the grid are the stages' nodes, one stage after the other.
    nodes_of_cell, ops = graph_shape(space)
    lengths = [ids.size for ids in stages]
    place_S = np.concatenate([ids.ravel() for ids in stages]) % nodes_of_cell
    stage_S = np.repeat(np.arange(len(stages)), lengths)
    fixed_SxF = np.concatenate(
        [np.eye(nodes_of_cell)[place_S], np.eye(len(stages))[stage_S]], 1
    ).astype(np.int32)
    live_GxS = np.arange(max(rows))[:, None] < np.array(rows)[stage_S][None]

    def encode(arch: Arch) -> jax.Array:
        graph = space.graph(arch)
        parts = [graph.op_NxO, graph.edge_NxN, graph.edge_NxN.T]
        node_SxF = jnp.concatenate(parts, 1)[place_S]
        feature_SxC = jnp.concatenate([node_SxF, jnp.asarray(fixed_SxF)], 1)
        live_GxSx1 = jnp.asarray(live_GxS)[..., None]
        return jnp.where(live_GxSx1 & (feature_SxC > 0)[None], 1.0, -1.0)

    def decode(w_GxSxW: jax.Array, arch: Arch) -> Params:
        start = np.cumsum([0, *lengths])
        used = [0] * len(stages)
        kernels = []
        for leaf in leaves:
            g = leaf.stage
            at_stage = w_GxSxW[: rows[g], start[g] : start[g + 1]]
            # A node's weights are the column of places at its position.
            of_node = at_stage.swapaxes(0, 1).reshape(leaf.nodes.size, -1)
            w = of_node[:, used[g] : used[g] + leaf.size]
            used[g] += leaf.size
            squares = jnp.square(w).sum(1, keepdims=True)
            w = w * jax.lax.rsqrt(squares + 1e-12)
            kernels.append(w.reshape(leaf.shape))
        return treedef.unflatten(kernels)

    channels = ops + 3 * nodes_of_cell + len(stages)
    return Encoding(channels, per_place, names, encode, decode)


def _stages(spec: dict, nodes: dict) -> tuple[list[np.ndarray], list[_Leaf]]:
    """The node ids of each stage, and all leaves in the order of the pytree."""
    node_ids = jax.tree.leaves(nodes)
    stages = {ids.tobytes(): ids for ids in node_ids}
    index = {ids: i for i, ids in enumerate(stages)}
    leaves = [
        _Leaf(
            leaf.shape,
            ids,
            index[ids.tobytes()],
            math.prod(leaf.shape[ids.ndim :]),
        )
        for leaf, ids in zip(jax.tree.leaves(spec), node_ids, strict=True)
    ]
    return list(stages.values()), leaves
