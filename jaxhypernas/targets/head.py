"""The last layer that all networks share: global mean, linear."""

from collections.abc import Callable

import jax

from jaxhypernas.types import Arch, Params

Network = Callable[[Params, Arch, jax.Array], jax.Array]
"""``network(theta, arch, x_BxHxWxC)``."""


def with_head(features: Network) -> Network:
    """Puts the last layer on a network.

    Args:
        features: ``features(theta, arch, x_BxHxWxC)``: activations, BxHxWxC. The
            weights of the last layer are ``theta["head"]``, C x L, and
            ``theta["bias"]``, L.

    Returns:
        ``apply(theta, arch, x_BxHxWxC)``: logits_BxL.
    """

    def apply(theta: Params, arch: Arch, x: jax.Array) -> jax.Array:
        x_BxC = features(theta, arch, x).mean((1, 2))
        return x_BxC @ theta["head"] + theta["bias"][None]

    return apply
