"""Ordinary weights: phi is theta. Training them trains one network from scratch."""

import math

import jax
import jax.numpy as jnp

from jaxhypernas.types import Generator, WeightSpec


def standalone(weight_spec: WeightSpec) -> Generator:
    """A generator that ignores the architecture: every leaf of the target's maximal weights is learned.

    Kernels start as He normal (variance 2 / fan-in, the fan-in of the maximal kernel), vectors as 0; weight decay
    applies to kernels.
    """

    def init(key):
        leaves, treedef = jax.tree.flatten(weight_spec)
        keys = jax.random.split(key, len(leaves))
        return treedef.unflatten([_initial(k, leaf) for k, leaf in zip(keys, leaves, strict=True)])

    return Generator(init, lambda phi, arch: phi, lambda phi: jax.tree.map(lambda w: w.ndim > 1, phi))


def _initial(key, leaf):
    if leaf.ndim == 1:
        return jnp.zeros(leaf.shape, leaf.dtype)
    fan_in = math.prod(leaf.shape[-4:-1])  # a fifth, leading axis counts ops
    return jax.random.normal(key, leaf.shape, leaf.dtype) * math.sqrt(2 / fan_in)
