"""Facts about a target's weights and a space's graphs that generators share."""

from typing import Any

import jax

from jaxhypernas.types import Space, Target


def names_of_node_weights(target: Target) -> tuple[str, ...]:
    """Names of the entries of theta whose weights belong to nodes of the graph.

    Args:
        target: The target.

    Returns:
        The names, in the order of ``target.nodes``.
    """

    def has_nodes(ids: Any) -> bool:
        return any(leaf.ndim for leaf in jax.tree.leaves(ids))

    return tuple(n for n, ids in target.nodes.items() if has_nodes(ids))


def graph_shape(space: Space) -> tuple[int, int]:
    """Size of a space's graphs; nothing is computed.

    Args:
        space: The space.

    Returns:
        The number of nodes of a padded graph, and of ops.
    """

    def example():
        return space.graph(space.sample(jax.random.key(0), 1.0))

    nodes, ops = jax.eval_shape(example).op_NxO.shape
    return nodes, ops
