"""A convolution whose kernel size and dilation are data, for SMASH's networks."""

from collections.abc import Callable
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax import lax

from jaxhypernas.numerics.convolution_forms import as_matrix, xla_conv


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def dynamic_conv(
    x_BxHxWxI: jax.Array,
    w_KxKxIxO: jax.Array,
    kernel_2: jax.Array,
    dilation_2: jax.Array,
    extent: int,
) -> jax.Array:
    """Convolves with the centre of a kernel; one program serves all sizes, dilations.

    On TPU and GPU it is one dense convolution of the extent. On CPU it is one product
    with a matrix for images of up to 4x4, otherwise one product for each tap in use.

    Args:
        x_BxHxWxI: Images.
        w_KxKxIxO: The largest kernel. Its centre of size ``kernel_2`` is used; the
            rest is not read and its gradient is 0.
        kernel_2: int32: height and width in use, odd, at most K.
        dilation_2: int32: vertical and horizontal dilation.
        extent: The largest ``(kernel - 1) * dilation + 1`` that can occur; static.

    Returns:
        The outputs, y_BxHxWxO, with zero padding.
    """
    y, _ = _dynamic_conv_fwd(
        x_BxHxWxI, w_KxKxIxO, kernel_2, dilation_2, extent
    )
    return y


def _dynamic_conv_fwd(
    x: jax.Array,
    w: jax.Array,
    kernel_2: jax.Array,
    dilation_2: jax.Array,
    extent: int,
):
    chex.assert_rank([x, w], 4)
    chex.assert_shape([kernel_2, dilation_2], (2,))

    def dense(x, w, kernel_2, dilation_2):
        return xla_conv(x, crop(w, kernel_2, dilation_2, extent))

    def by_taps(x, w, kernel_2, dilation_2):
        padded = _pad(x, extent)

        def body(y, index, offset):
            return y + _moved(padded, x.shape, offset) @ w[index[0], index[1]]

        zeros = jnp.zeros((*x.shape[:3], w.shape[3]), x.dtype)
        K = w.shape[0]
        return _for_each_tap(kernel_2, dilation_2, K, extent, body, zeros)

    on_cpu = as_matrix if _is_small(x) else by_taps
    y = lax.platform_dependent(
        x, w, kernel_2, dilation_2, cpu=on_cpu, default=dense
    )
    return y, (x, w, kernel_2, dilation_2)


def _dynamic_conv_bwd(extent: int, residuals: tuple, g: jax.Array):
    x, w, kernel_2, dilation_2 = residuals

    def dense(x, w, kernel_2, dilation_2, g):
        def run(x, w):
            return xla_conv(x, crop(w, kernel_2, dilation_2, extent))

        return jax.vjp(run, x, w)[1](g)

    def matrix(x, w, kernel_2, dilation_2, g):
        def run(x, w):
            return as_matrix(x, w, kernel_2, dilation_2)

        return jax.vjp(run, x, w)[1](g)

    def by_taps(x, w, kernel_2, dilation_2, g):
        x_padded = _pad(x, extent)
        g_padded = _pad(g, extent)

        def body(carry, index, offset):
            dx, dw = carry
            # The tap that reads an input reaches it from the opposite side.
            mirrored = [2 * (extent // 2) - o for o in offset]
            g_moved = _moved(g_padded, g.shape, mirrored)
            dx = dx + g_moved @ w[index[0], index[1]].T
            x_moved = _moved(x_padded, x.shape, offset)
            tap = jnp.einsum("bhwi,bhwo->io", x_moved, g)
            return dx, dw.at[index[0], index[1]].set(tap)

        zeros = (jnp.zeros_like(x), jnp.zeros_like(w))
        K = w.shape[0]
        return _for_each_tap(kernel_2, dilation_2, K, extent, body, zeros)

    on_cpu = matrix if _is_small(x) else by_taps
    dx, dw = lax.platform_dependent(
        x, w, kernel_2, dilation_2, g, cpu=on_cpu, default=dense
    )
    # Kernel sizes and dilations are integers: they have no gradient.
    return dx, dw, None, None


dynamic_conv.defvjp(_dynamic_conv_fwd, _dynamic_conv_bwd)


def _is_small(x_BxHxWxC: jax.Array) -> bool:
    """Whether a matrix from all to all positions is faster than a loop over taps."""
    return x_BxHxWxC.shape[1] * x_BxHxWxC.shape[2] <= 16


def crop(
    w_KxKxIxO: jax.Array,
    kernel_2: jax.Array,
    dilation_2: jax.Array,
    extent: int,
) -> jax.Array:
    """Writes the centre of a kernel, dilated, into a dense kernel.

    Args:
        w_KxKxIxO: The largest kernel.
        kernel_2: int32: height and width of the centre, odd.
        dilation_2: int32: vertical and horizontal dilation.
        extent: Height and width of the dense kernel; static.

    Returns:
        The dense kernel, w_ExExIxO, E the extent.
    """
    K = w_KxKxIxO.shape[0]
    offset_K = jnp.arange(K) - K // 2
    place_E = jnp.arange(extent) - extent // 2

    # 0/1 maps move rows and columns: a product is faster than a scatter.
    def places(kernel, dilation):
        live_K = jnp.abs(offset_K) <= kernel // 2
        meets_ExK = place_E[:, None] == (offset_K * dilation)[None, :]
        return (meets_ExK & live_K[None, :]).astype(w_KxKxIxO.dtype)

    rows_ExK = places(kernel_2[0], dilation_2[0])
    columns_ExK = places(kernel_2[1], dilation_2[1])
    return jnp.einsum("yk,xl,klio->yxio", rows_ExK, columns_ExK, w_KxKxIxO)


def _for_each_tap(
    kernel_2: jax.Array,
    dilation_2: jax.Array,
    K: int,
    extent: int,
    body: Callable[[Any, list, list], Any],
    carry: Any,
) -> Any:
    """Runs ``body(carry, index, offset)`` for each tap in use.

    ``index`` is the tap's row and column in the kernel; ``offset`` its row and column
    in an image with a border of ``extent // 2`` zeros.
    """

    def step(t, carry):
        tap = (t // kernel_2[1], t % kernel_2[1])
        index = [
            K // 2 - k // 2 + i for k, i in zip(kernel_2, tap, strict=True)
        ]
        offset = [
            extent // 2 + (i - k // 2) * d
            for k, i, d in zip(kernel_2, tap, dilation_2, strict=True)
        ]
        return body(carry, index, offset)

    return lax.fori_loop(0, kernel_2[0] * kernel_2[1], step, carry)


def _moved(
    padded: jax.Array, shape: tuple[int, ...], offset: list
) -> jax.Array:
    return lax.dynamic_slice(padded, (0, offset[0], offset[1], 0), shape)


def _pad(x: jax.Array, extent: int) -> jax.Array:
    border = (extent // 2, extent // 2)
    return jnp.pad(x, ((0, 0), border, border, (0, 0)))
