"""A layer, convolution and BatchNorm, as one call of C++, with its gradients."""

from functools import partial

import chex
import jax
import numpy as np

from jaxhypernas.numerics.cpu.library import call, result_like

VECTOR_BYTES = 32
"""Bytes of a vector in vectors.h: channels are padded to whole vectors."""


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv_norm(
    x_BxHxWxI: jax.Array, w_KxLxIxO: jax.Array, stride: int, relu: bool
) -> jax.Array:
    """Computes `numerics.normalisation.conv_norm` on one core.

    Args:
        x_BxHxWxI: Images, float32 or float64.
        w_KxLxIxO: The kernel, K and L odd.
        stride: The stride, vertically and horizontally.
        relu: Whether the convolution reads the images' ReLU.

    Returns:
        y_BxHxWxO, height and width divided by the stride, rounded up.
    """
    return _conv_norm_fwd(x_BxHxWxI, w_KxLxIxO, stride, relu)[0]


def _conv_norm_fwd(x: jax.Array, w: jax.Array, stride: int, relu: bool):
    chex.assert_rank([x, w], 4)
    B, H, W, _ = x.shape
    O = w.shape[3]
    image = (B, -(-H // stride), -(-W // stride))
    vectors = -(-O * x.dtype.itemsize // VECTOR_BYTES)
    padded = vectors * VECTOR_BYTES // x.dtype.itemsize

    # The result; then the convolution's own output, BatchNorm's mean and scale, which
    # the gradients need.
    shapes = ((*image, O), (*image, padded), (padded,), (padded,))
    results = [result_like(x, shape) for shape in shapes]
    z, *kept = call(
        "conv_norm", results, x, w, stride=np.int64(stride), relu=relu
    )
    return z, (x, w, kept)


def _conv_norm_bwd(stride: int, relu: bool, residuals: tuple, g: jax.Array):
    x, w, kept = residuals
    attributes = {"stride": np.int64(stride), "relu": relu}

    # XLA drops the call whose result is not used: the stem needs no gradient of images.
    dx = call("conv_norm_dx", result_like(x), x, w, *kept, g, **attributes)
    dw = call("conv_norm_dw", result_like(w), x, *kept, g, **attributes)
    return dx, dw


conv_norm.defvjp(_conv_norm_fwd, _conv_norm_bwd)
