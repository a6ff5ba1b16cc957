"""Convolution and depthwise convolution, NHWC, with zero padding.

Each has two forms, equal to rounding, chosen by the platform that a program is compiled
for (which need not be the platform that compiles it): XLA's own convolution on TPU and
GPU, matrix products on CPU.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxhypernas.numerics.convolution_forms import (
    as_matrix,
    product_gradients,
    side_by_side,
    without_stride,
    xla_conv,
)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(
    x_BxHxWxI: jax.Array, w_KxLxIxO: jax.Array, stride: int = 1
) -> jax.Array:
    """Convolves images with a kernel centred on every ``stride``-th position.

    Args:
        x_BxHxWxI: Images.
        w_KxLxIxO: The kernel, K and L odd.
        stride: The stride, vertically and horizontally, from the first position on.

    Returns:
        The outputs, y_BxHxWxO: height and width are divided by the stride, rounded up.
    """
    return _conv_fwd(x_BxHxWxI, w_KxLxIxO, stride)[0]


def _conv_fwd(x: jax.Array, w: jax.Array, stride: int):
    chex.assert_rank([x, w], 4)

    def on_cpu(x, w):
        if _is_tiny(x, stride):
            return _matrix_conv(x, w, stride)
        if stride > 1:
            return xla_conv(x, w, (stride, stride))
        return side_by_side(x, w, (w.shape[0] // 2, w.shape[1] // 2))

    elsewhere = partial(xla_conv, strides=(stride, stride))
    y = lax.platform_dependent(x, w, cpu=on_cpu, default=elsewhere)
    return y, (x, w)


def _conv_bwd(stride: int, residuals: tuple, g: jax.Array):
    x, w = residuals

    def elsewhere(x, w, g):
        _, pull = jax.vjp(partial(xla_conv, strides=(stride, stride)), x, w)
        return pull(g)

    def on_cpu(x, w, g):
        if _is_tiny(x, stride):
            _, pull = jax.vjp(partial(_matrix_conv, stride=stride), x, w)
            return pull(g)
        if stride == 1:
            padding = (w.shape[0] // 2, w.shape[1] // 2)
            return product_gradients(x, w, g, padding)
        plain, pull = jax.vjp(partial(without_stride, stride), x, w)
        return pull(product_gradients(*plain, g, (0, 0)))

    return lax.platform_dependent(x, w, g, cpu=on_cpu, default=elsewhere)


conv.defvjp(_conv_fwd, _conv_bwd)


def _is_tiny(x_BxHxWxC: jax.Array, stride: int) -> bool:
    """Whether a matrix from all to all positions is faster than XLA's convolution."""
    _, H, W, _ = x_BxHxWxC.shape
    return -(-H // stride) * -(-W // stride) <= 4


def _matrix_conv(x: jax.Array, w: jax.Array, stride: int) -> jax.Array:
    return as_matrix(x, w, w.shape[:2], (1, 1), stride)


def depthwise_conv(
    x_BxHxWxC: jax.Array, w_KxLxC: jax.Array, dilation: int = 1
) -> jax.Array:
    """Convolves each channel with a kernel of its own.

    Args:
        x_BxHxWxC: Images.
        w_KxLxC: One kernel per channel, K and L odd.
        dilation: Positions from one tap of the kernel to the next.

    Returns:
        The outputs, y_BxHxWxC.
    """
    chex.assert_rank([x_BxHxWxC, w_KxLxC], [4, 3])
    K, L, C = w_KxLxC.shape
    vertical = K // 2 * dilation
    horizontal = L // 2 * dilation

    def grouped(x, w):
        return lax.conv_general_dilated(
            x,
            w[:, :, None],
            (1, 1),
            [(vertical, vertical), (horizontal, horizontal)],
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=C,
        )

    # A dense kernel with zeros between channels and between taps. It does C times the
    # work and is still faster than XLA's grouped convolution up to tens of channels.
    def dense(x, w):
        rows = (np.arange(K) - K // 2) * dilation + vertical
        columns = (np.arange(L) - L // 2) * dilation + horizontal
        spread = jnp.zeros((vertical * 2 + 1, horizontal * 2 + 1, C), w.dtype)
        spread = spread.at[rows[:, None], columns[None]].set(w)
        diagonal = jnp.eye(C, dtype=w.dtype)[None, None]
        return conv(x, spread[:, :, :, None] * diagonal)

    return lax.platform_dependent(
        x_BxHxWxC, w_KxLxC, cpu=dense, default=grouped
    )
