"""Ordinary weights: phi is theta. Trained for one network it is plain training, over many it is One-Shot's sharing."""

import math

import jax
import jax.numpy as jnp

from jaxhypernas.types import Generator, WeightSpec


def standalone(weight_spec: WeightSpec, nodes) -> Generator:
    """A generator that ignores the architecture: every leaf of the target's maximal weights is learned.

    Kernels start as He normal (variance 2 / fan-in, the fan-in of the maximal kernel), vectors as 0; weight decay
    applies to kernels. ``nodes`` is the target's: the axes it has in front of a kernel's count nodes.
    """

    def init(key):
        leaves, treedef = jax.tree.flatten(weight_spec)
        keys = jax.random.split(key, len(leaves))
        per_leaf = zip(keys, leaves, jax.tree.leaves(nodes), strict=True)
        return treedef.unflatten(
            [_initial(k, leaf, ids.ndim) for k, leaf, ids in per_leaf]
        )

    return Generator(
        init,
        lambda phi, arch: phi,
        lambda phi: jax.tree.map(lambda w: w.ndim > 1, phi),
    )


def _initial(key, leaf, leading):
    if leaf.ndim == 1:
        return jnp.zeros(leaf.shape, leaf.dtype)
    return jax.random.normal(key, leaf.shape, leaf.dtype) * math.sqrt(
        2 / math.prod(leaf.shape[leading:-1])
    )
