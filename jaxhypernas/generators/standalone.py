"""Ordinary weights: phi is theta.

Trained for one network it is plain training; trained over many it is One-Shot's weight
sharing.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxhypernas.types import Arch, Generator, Params, WeightSpec


def standalone(weight_spec: WeightSpec, nodes: Any) -> Generator:
    """Makes a generator that ignores the architecture.

    Every leaf of the target's largest weights is learned. Kernels start as He normal
    (variance 2 / fan-in, with the fan-in of the largest kernel), vectors as 0. Weight
    decay applies to kernels.

    Args:
        weight_spec: Shapes of the weights.
        nodes: The graph nodes of each leaf, as in `Target.nodes`; these leading axes
            are not part of a kernel.

    Returns:
        The generator.

    Example::

        generator = standalone(target.weight_spec, target.nodes)
        theta = generator.init(jax.random.key(0))
    """

    def init(key: jax.Array) -> Params:
        leaves, treedef = jax.tree.flatten(weight_spec)
        keys = jax.random.split(key, len(leaves))
        node_ids = jax.tree.leaves(nodes)
        weights = [
            _initial(key, leaf, ids.ndim)
            for key, leaf, ids in zip(keys, leaves, node_ids, strict=True)
        ]
        return treedef.unflatten(weights)

    def generate(phi: Params, arch: Arch) -> Params:
        return phi

    def decay(phi: Params) -> Any:
        return jax.tree.map(lambda w: w.ndim > 1, phi)

    return Generator(init, generate, decay)


def _initial(
    key: jax.Array, leaf: jax.ShapeDtypeStruct, node_axes: int
) -> jax.Array:
    """The initial values of one leaf."""
    if leaf.ndim == 1:
        return jnp.zeros(leaf.shape, leaf.dtype)
    fan_in = math.prod(leaf.shape[node_axes:-1])
    deviation = math.sqrt(2 / fan_in)
    return jax.random.normal(key, leaf.shape, leaf.dtype) * deviation
