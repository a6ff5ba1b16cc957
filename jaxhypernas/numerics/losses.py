"""The loss that networks are trained with and scored by."""

import chex
import jax
import jax.numpy as jnp


def cross_entropy(logits_BxL: jax.Array, y_B: jax.Array) -> jax.Array:
    """Returns the mean cross-entropy of a batch.

    Args:
        logits_BxL: Unnormalised log-probabilities of the L classes.
        y_B: int32: the class of each image.

    Returns:
        The mean over images, in nats, shape ().
    """
    chex.assert_rank([logits_BxL, y_B], [2, 1])
    log_p_BxL = jax.nn.log_softmax(logits_BxL)
    return -jnp.take_along_axis(log_p_BxL, y_B[:, None], 1).mean()
