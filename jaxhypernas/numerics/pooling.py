"""Pooling of images, NHWC: 2x2 windows that halve them, 3x3 windows with stride 1."""

from collections.abc import Callable
from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax


def average_pool(x_BxHxWxC: jax.Array) -> jax.Array:
    """Halves height and width by the mean of 2x2 windows.

    Args:
        x_BxHxWxC: Images; an odd last row or column is dropped.

    Returns:
        y_BxHxWxC of half the height and width, rounded down.
    """
    B, H, W, C = x_BxHxWxC.shape

    def mean_of_windows(x):
        even = x[:, : H // 2 * 2, : W // 2 * 2]
        return even.reshape(B, H // 2, 2, W // 2, 2, C).mean((2, 4))

    return lax.platform_dependent(
        x_BxHxWxC, cpu=mean_of_windows, default=mean_of_corners
    )


def mean_of_corners(x_BxHxWxC: jax.Array) -> jax.Array:
    """Computes `average_pool` as a sum of four strided slices.

    Compilers fuse the sum with the code that reads it; on TPU, a reduction costs as
    much as a convolution.

    Args:
        x_BxHxWxC: Images; an odd last row or column is dropped.

    Returns:
        y_BxHxWxC of half the height and width, rounded down.
    """
    _, H, W, _ = x_BxHxWxC.shape
    corners = (
        x_BxHxWxC[:, i : H // 2 * 2 : 2, j : W // 2 * 2 : 2]
        for i in (0, 1)
        for j in (0, 1)
    )
    return reduce(jnp.add, corners) / 4


def average_pool_3x3(x_BxHxWxC: jax.Array) -> jax.Array:
    """Averages 3x3 windows, stride 1, over their positions inside the image.

    Args:
        x_BxHxWxC: Images.

    Returns:
        y_BxHxWxC.
    """
    return _combine_3x3(x_BxHxWxC, jnp.add, 0) / window_count(x_BxHxWxC)


def window_count(x_BxHxWxC: jax.Array) -> jax.Array:
    """Counts the positions of each 3x3 window that lie inside the image.

    Args:
        x_BxHxWxC: Images; only their height, width and type matter.

    Returns:
        The counts, 1 x H x W x 1, in the type of the images.
    """
    _, H, W, _ = x_BxHxWxC.shape
    ones = jnp.ones((1, H, W, 1), x_BxHxWxC.dtype)
    return _combine_3x3(ones, jnp.add, 0)


def max_pool_3x3(x_BxHxWxC: jax.Array) -> jax.Array:
    """Takes the largest value of 3x3 windows, stride 1.

    Args:
        x_BxHxWxC: Images.

    Returns:
        y_BxHxWxC.
    """
    return _combine_3x3(x_BxHxWxC, jnp.maximum, -jnp.inf)


def _combine_3x3(
    x_BxHxWxC: jax.Array,
    combine: Callable[[jax.Array, jax.Array], jax.Array],
    fill: float,
) -> jax.Array:
    """``combine`` over 3x3 windows, axis by axis; ``fill`` outside the image."""
    # Two passes of three are fewer operations than one of nine.
    for axis in (1, 2):
        border = [(int(a == axis), int(a == axis)) for a in range(4)]
        padded = jnp.pad(x_BxHxWxC, border, constant_values=fill)
        size = x_BxHxWxC.shape[axis]
        moved = (
            lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(3)
        )
        x_BxHxWxC = reduce(combine, moved)
    return x_BxHxWxC
