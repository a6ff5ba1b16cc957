"""BatchNorm by the statistics of the evaluated batch, alone and after a convolution.

There are no affine parameters and no running averages: a candidate's score depends on
its weights and on the batch, on nothing else.
"""

import chex
import jax
import jax.numpy as jnp
from jax import lax

from jaxhypernas.numerics.convolution import conv


def batch_norm(x_BxHxWxC: jax.Array, epsilon: float = 1e-5) -> jax.Array:
    """Normalises each channel by its mean and variance over images and positions.

    Args:
        x_BxHxWxC: Activations.
        epsilon: Added to the variance.

    Returns:
        y_BxHxWxC. A channel of zeros stays 0.
    """
    chex.assert_rank(x_BxHxWxC, 4)
    mean_1x1x1xC = x_BxHxWxC.mean((0, 1, 2), keepdims=True)
    centred = x_BxHxWxC - mean_1x1x1xC
    variance_1x1x1xC = jnp.square(centred).mean((0, 1, 2), keepdims=True)
    return centred * lax.rsqrt(variance_1x1x1xC + epsilon)


def conv_norm(
    x_BxHxWxI: jax.Array, w_KxLxIxO: jax.Array, stride: int, relu: bool
) -> jax.Array:
    """Convolves images, or their ReLU, and normalises the result by `batch_norm`.

    Args:
        x_BxHxWxI: Images.
        w_KxLxIxO: The kernel, K and L odd.
        stride: The stride, vertically and horizontally.
        relu: Whether the convolution reads the images' ReLU.

    Returns:
        y_BxHxWxO, height and width divided by the stride, rounded up.
    """
    x = jax.nn.relu(x_BxHxWxI) if relu else x_BxHxWxI
    return batch_norm(conv(x, w_KxLxIxO, stride))


def affine_norm(
    x_BxHxWxC: jax.Array, epsilon: float = 1e-5
) -> tuple[jax.Array, jax.Array]:
    """Returns `batch_norm` as a factor and a summand for each channel.

    It takes moments in one pass, which compilers for accelerators fuse with the
    convolution before it. Its variance is the difference of two means: the error is
    1 + (mean / deviation)^2 roundings, where that of `batch_norm` is one.

    Args:
        x_BxHxWxC: Activations.
        epsilon: Added to the variance.

    Returns:
        Factor and summand, each 1 x 1 x 1 x C: ``x * factor + summand`` is normalised.
    """
    mean = x_BxHxWxC.mean((0, 1, 2), keepdims=True)
    square = jnp.square(x_BxHxWxC).mean((0, 1, 2), keepdims=True)
    # Rounding can make the difference of the two means negative.
    variance = jnp.maximum(square - jnp.square(mean), 0)
    factor = lax.rsqrt(variance + epsilon)
    return factor, -mean * factor


def conv_affine_norm(
    x_BxHxWxI: jax.Array, w_KxLxIxO: jax.Array, stride: int, relu: bool
) -> jax.Array:
    """Computes `conv_norm` by means of `affine_norm`.

    Args:
        x_BxHxWxI: Images.
        w_KxLxIxO: The kernel, K and L odd.
        stride: The stride, vertically and horizontally.
        relu: Whether the convolution reads the images' ReLU.

    Returns:
        y_BxHxWxO, height and width divided by the stride, rounded up.
    """
    x = jax.nn.relu(x_BxHxWxI) if relu else x_BxHxWxI
    y = conv(x, w_KxLxIxO, stride)
    factor, summand = affine_norm(y)
    return y * factor + summand
