"""An encoding for SMASH's hypernetwork of any architecture with a graph, such as cells.

The paper lays the encoding of memory banks out over the generated weights; this does so for the weights of nodes. The
grid has a position for every node of every cell and as many rows as a node's weights need, its channels say what the
node is: ops, what it reads, what reads it, its place in the cell, its stage.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.generators.smash import Encoding
from jaxhypernas.types import Arch, Space, Target


def graph_encoding(space: Space, target: Target) -> Encoding:
    """The encoding and the layout of all weights that belong to nodes; every kernel is divided by its norm.

    Stages are the groups of leaves that belong to the same nodes. A place of the grid holds as many weights as a node
    has in the stage where it has fewest, so that a wider stage takes more rows.
    """
    names = tuple(
        name
        for name, ids in target.nodes.items()
        if any(leaf.ndim for leaf in jax.tree.leaves(ids))
    )
    spec, treedef = jax.tree.flatten(
        {name: target.weight_spec[name] for name in names}
    )
    ids = jax.tree.leaves({name: target.nodes[name] for name in names})
    stages = {leaf.tobytes(): leaf for leaf in ids}  # the node ids of each
    stage_of = [list(stages).index(leaf.tobytes()) for leaf in ids]
    sizes = [
        math.prod(s.shape[i.ndim :]) for s, i in zip(spec, ids, strict=True)
    ]
    length = [
        sum(n for n, k in zip(sizes, stage_of, strict=True) if k == g)
        for g in range(len(stages))
    ]
    per_place = min(length)
    rows = [-(-n // per_place) for n in length]

    example = jax.eval_shape(
        lambda: space.graph(space.sample(jax.random.key(0), 1.0))
    )
    V, O = example.op_NxO.shape
    node_S = np.concatenate([leaf.ravel() for leaf in stages.values()])
    stage_S = np.concatenate(
        [np.full(leaf.size, g) for g, leaf in enumerate(stages.values())]
    )
    fixed_SxF = np.concatenate(
        [np.eye(V)[node_S % V], np.eye(len(stages))[stage_S]], 1
    ).astype(np.int32)
    live_GxS = np.arange(max(rows))[:, None] < np.array(rows)[stage_S][None]

    def encode(arch: Arch) -> jax.Array:
        """c_GxSxC of -1 and +1."""
        graph = space.graph(arch)
        node_VxF = jnp.concatenate(
            [graph.op_NxO, graph.edge_NxN, graph.edge_NxN.T], 1
        )
        feature_SxC = jnp.concatenate(
            [node_VxF[node_S % V], jnp.asarray(fixed_SxF)], 1
        )
        return jnp.where(
            jnp.asarray(live_GxS)[..., None] & (feature_SxC > 0)[None],
            1.0,
            -1.0,
        )

    def decode(w_GxSxW: jax.Array, arch: Arch) -> dict:
        """The weights of all nodes."""
        leaves, starts = (
            [],
            np.cumsum([0, *(leaf.size for leaf in stages.values())]),
        )
        used = [0] * len(stages)
        for s, i, g, size in zip(spec, ids, stage_of, sizes, strict=True):
            flat = (
                w_GxSxW[: rows[g], starts[g] : starts[g + 1]]
                .swapaxes(0, 1)
                .reshape(i.size, -1)
            )
            w = flat[:, used[g] : used[g] + size]
            used[g] += size
            leaves.append(
                (
                    w
                    * jax.lax.rsqrt(jnp.square(w).sum(1, keepdims=True) + 1e-12)
                ).reshape(s.shape)
            )
        return treedef.unflatten(leaves)

    return Encoding(O + 3 * V + len(stages), per_place, names, encode, decode)
