"""From node states to the weights of nodes: the decoder of graph hypernetworks.

All nodes share it. A kernel has as many channels as it needs by concatenation of
chunks; a chunk has the greatest width that divides all stages' widths.
"""

import math
from typing import Any

import chex
import jax
from flax import nnx

from jaxhypernas.generators.configs import GhnConfig

Shape = tuple[int, ...]


class NodeDecoder(nnx.Module):
    """Maps node states to weights.

    Parameters, with D units of a state and E of the decoder: ``hidden`` [D, E]; for
    each kind of kernel ``heads`` [E, weights of a chunk] and ``places``, for each axis
    of the kernel the embeddings of a chunk's place, [chunks, E].

    Args:
        spec: Shapes of the weights to generate.
        nodes: The nodes that own them, as in `Target.nodes`.
        config: The size of the hypernetwork.
        rngs: Random keys; stream ``params`` is used.
    """

    def __init__(
        self,
        spec: dict[str, Any],
        nodes: dict[str, Any],
        config: GhnConfig,
        rngs: nnx.Rngs,
    ):
        self.hidden = nnx.Linear(config.hidden, config.decoder, rngs=rngs)
        self.fan_in = config.fan_in

        def embeddings(number):
            shape = (number, config.decoder)
            return nnx.Param(0.1 * jax.random.normal(rngs.params(), shape))

        heads = {}
        places = {}
        chunks = {}
        for kind, shapes in _shapes_by_kind(spec, nodes).items():
            axes = list(zip(*shapes, strict=True))
            chunk = tuple(math.gcd(*sizes) for sizes in axes)
            weights = math.prod(chunk)
            most = [max(s) // n for s, n in zip(axes, chunk, strict=True)]
            heads[kind] = nnx.Linear(config.decoder, weights, rngs=rngs)
            places[kind] = nnx.List([embeddings(number) for number in most])
            chunks[kind] = chunk

        self.heads = nnx.Dict(heads)
        self.places = nnx.Dict(places)
        self.chunks = chunks

    def __call__(
        self, h_VxD: jax.Array, spec: dict[str, Any], nodes: dict[str, Any]
    ) -> dict[str, Any]:
        """Computes the weights of all nodes.

        Args:
            h_VxD: States of the V nodes of all cells.
            spec: Shapes of the weights.
            nodes: The nodes that own them, as in `Target.nodes`.

        Returns:
            The weights, shaped like ``spec``.
        """
        chex.assert_rank(h_VxD, 2)
        hidden_VxE = self.hidden(h_VxD)

        def decode(path, leaf, ids):
            hidden = hidden_VxE[ids.ravel()]
            shape = leaf.shape[ids.ndim :]
            w = self._kernels(_kind(path), hidden, shape).reshape(leaf.shape)
            if not self.fan_in:
                return w
            return w * math.sqrt(2 / math.prod(shape[:-1]))

        return jax.tree_util.tree_map_with_path(decode, spec, nodes)

    def _kernels(
        self, kind: str, hidden_VxE: jax.Array, shape: Shape
    ) -> jax.Array:
        """Kernels of one kind and shape, [V, *shape]."""
        chunk = self.chunks[kind]
        grid = [n // size for n, size in zip(shape, chunk, strict=True)]
        axes = len(grid)
        V = len(hidden_VxE)

        # A chunk's place is the sum of its places along the axes: [V, *grid, E].
        x = hidden_VxE.reshape(V, *(1,) * axes, -1)
        for axis, number in enumerate(grid):
            place = self.places[kind][axis][...][:number]
            before = (1,) * (axis + 1)
            after = (1,) * (axes - axis - 1)
            x = x + place.reshape((*before, number, *after, -1))

        # Chunks go side by side along each axis: [V, *grid, *chunk] becomes
        # [V, grid * chunk, ...].
        w = self.heads[kind](jax.nn.relu(x)).reshape(V, *grid, *chunk)
        order = [0]
        for axis in range(1, axes + 1):
            order += [axis, axis + axes]
        return w.transpose(order).reshape(V, *shape)


def _kind(path: tuple[Any, ...]) -> str:
    """The kind of a leaf, whatever its stage: its path without the second key."""
    keys = [str(getattr(key, "key", getattr(key, "idx", key))) for key in path]
    return "_".join(keys[:1] + keys[2:])


def _shapes_by_kind(
    spec: dict[str, Any], nodes: dict[str, Any]
) -> dict[str, list[Shape]]:
    """Shapes of the kernels of each kind."""
    leaves = jax.tree_util.tree_leaves_with_path(spec)
    node_ids = jax.tree.leaves(nodes)
    shapes: dict[str, list[Shape]] = {}
    for (path, leaf), ids in zip(leaves, node_ids, strict=True):
        shapes.setdefault(_kind(path), []).append(leaf.shape[ids.ndim :])
    return shapes
