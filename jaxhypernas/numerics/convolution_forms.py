"""Forms of one convolution: XLA's own, and matrix products for CPU.

XLA's convolution gradients on CPU are 10 to 500 times slower than matrix products.
"""

import jax
import jax.numpy as jnp
from jax import lax

# Measured on two AVX2 cores (experiments/LOG.md).
WIDE_PRODUCT = 32
"""Columns of a matrix product from which its time per column no longer falls."""

CACHE_BYTES = 256 * 1024
"""Bytes of images that stay in a core's cache."""


def xla_conv(
    x_BxHxWxI: jax.Array,
    w_KxLxIxO: jax.Array,
    strides: tuple[int, int] = (1, 1),
    padding: tuple[int, int] | None = None,
) -> jax.Array:
    """Convolves images by XLA's own convolution.

    Args:
        x_BxHxWxI: Images.
        w_KxLxIxO: The kernel; K and L odd where ``padding`` is None.
        strides: Vertical and horizontal stride.
        padding: Rows of zeros above and below, columns of zeros left and right; None
            centres the kernel on each position.

    Returns:
        The outputs, y_BxHxWxO.
    """
    K, L = w_KxLxIxO.shape[:2]
    vertical, horizontal = padding or (K // 2, L // 2)
    pads = ((vertical, vertical), (horizontal, horizontal))
    return lax.conv_general_dilated(
        x_BxHxWxI,
        w_KxLxIxO,
        strides,
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def side_by_side(
    x_BxHxWxI: jax.Array, w_KxLxIxO: jax.Array, padding: tuple[int, int]
) -> jax.Array:
    """Convolves with stride 1, computing neighbouring positions as more channels.

    The outputs of up to 2x2 neighbours become the channels of one convolution with a
    larger kernel and stride. That is up to twice the arithmetic and still faster,
    because products with few columns are slow.

    Args:
        x_BxHxWxI: Images.
        w_KxLxIxO: The kernel.
        padding: Zeros on each side, vertically and horizontally.

    Returns:
        The outputs, y_BxHxWxO.
    """
    K, L, _, O = w_KxLxIxO.shape
    B = x_BxHxWxI.shape[0]
    H = x_BxHxWxI.shape[1] + 2 * padding[0] + 1 - K
    W = x_BxHxWxI.shape[2] + 2 * padding[1] + 1 - L

    # Neighbours in a row, then in a column, as long as the product stays narrow.
    n = 2 if L > 1 and W % 2 == 0 and 2 * O <= WIDE_PRODUCT else 1
    m = 2 if K > 1 and H % 2 == 0 and 2 * n * O <= WIDE_PRODUCT else 1
    moved = [
        jnp.pad(w_KxLxIxO, ((i, m - 1 - i), (j, n - 1 - j), (0, 0), (0, 0)))
        for i in range(m)
        for j in range(n)
    ]
    y = xla_conv(x_BxHxWxI, jnp.concatenate(moved, -1), (m, n), padding)
    y = y.reshape(B, H // m, W // n, m, n, O).swapaxes(2, 3)
    return y.reshape(B, H, W, O)


def product_gradients(
    x_BxHxWxI: jax.Array,
    w_KxLxIxO: jax.Array,
    g_BxHxWxO: jax.Array,
    padding: tuple[int, int],
) -> tuple[jax.Array, jax.Array]:
    """Gradients of a convolution with stride 1, as matrix products.

    Args:
        x_BxHxWxI: Images.
        w_KxLxIxO: The kernel.
        g_BxHxWxO: The gradient with respect to the convolution's outputs.
        padding: Zeros on each side of the images, vertically and horizontally.

    Returns:
        The gradients with respect to images and kernel.
    """
    K, L, I, O = w_KxLxIxO.shape
    B, H, _, _ = x_BxHxWxI.shape
    width = g_BxHxWxO.shape[2]
    above = K - 1 - padding[0]
    left = L - 1 - padding[1]
    mirrored = w_KxLxIxO[::-1, ::-1].swapaxes(2, 3)
    dx = side_by_side(g_BxHxWxO, mirrored, (above, left))

    # The largest divisor of B whose images stay in cache.
    most = max(CACHE_BYTES * B // x_BxHxWxI.nbytes, 1)
    images = max(n for n in range(1, min(most, B) + 1) if B % n == 0)

    # The kernel's gradient is one product: x moved by each of the kernel's columns
    # with g moved by each of its rows.
    def add_images(i, dw_LIxKO):
        x = lax.dynamic_slice_in_dim(x_BxHxWxI, i * images, images)
        g = lax.dynamic_slice_in_dim(g_BxHxWxO, i * images, images)
        x = jnp.pad(x, ((0, 0), (0, 0), (padding[1],) * 2, (0, 0)))
        g = jnp.pad(g, ((0, 0), (above,) * 2, (0, 0), (0, 0)))
        columns = [x[:, :, i : i + width] for i in range(L)]
        rows = [g[:, K - 1 - k : K - 1 - k + H] for k in range(K)]
        x_PxLI = jnp.concatenate(columns, -1).reshape(-1, L * I)
        g_PxKO = jnp.concatenate(rows, -1).reshape(-1, K * O)
        return dw_LIxKO + x_PxLI.T @ g_PxKO

    zeros = jnp.zeros((L * I, K * O), x_BxHxWxI.dtype)
    dw_LIxKO = lax.fori_loop(0, B // images, add_images, zeros)
    return dx, dw_LIxKO.reshape(L, I, K, O).transpose(2, 0, 1, 3)


def without_stride(
    stride: int, x_BxHxWxI: jax.Array, w_KxLxIxO: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Rewrites a strided convolution as one with stride 1.

    Args:
        stride: The stride, vertically and horizontally.
        x_BxHxWxI: Images.
        w_KxLxIxO: The kernel, K and L odd.

    Returns:
        Images and kernel whose convolution with stride 1, without padding, has the
        same outputs: squares of ``stride`` x ``stride`` positions become channels.
    """
    B, H, W, I = x_BxHxWxI.shape
    K, L, _, O = w_KxLxIxO.shape

    # Sizes in squares: of the kernel (k, l), of the padded images (h, v).
    k = -(-K // stride)
    l = -(-L // stride)
    h = -(-H // stride) + k - 1
    v = -(-W // stride) + l - 1

    # `lax.pad` crops rows and columns that no output reads: its padding is negative.
    below = h * stride - H - K // 2
    right = v * stride - W - L // 2
    around = ((0, 0, 0), (K // 2, below, 0), (L // 2, right, 0), (0, 0, 0))
    x = lax.pad(x_BxHxWxI, 0.0, around)
    x = x.reshape(B, h, stride, v, stride, I).transpose(0, 1, 3, 2, 4, 5)
    w = jnp.pad(
        w_KxLxIxO, ((0, k * stride - K), (0, l * stride - L), (0, 0), (0, 0))
    )
    w = w.reshape(k, stride, l, stride, I, O).transpose(0, 2, 1, 3, 4, 5)
    return x.reshape(B, h, v, -1), w.reshape(k, l, -1, O)


def as_matrix(
    x_BxHxWxI: jax.Array,
    w_KxLxIxO: jax.Array,
    kernel_2: jax.Array | tuple[int, ...],
    dilation_2: jax.Array | tuple[int, ...],
    stride: int = 1,
) -> jax.Array:
    """Convolves by one product with a matrix from all positions to all positions.

    Args:
        x_BxHxWxI: Images; the matrix has H*W*I rows, so they should be small.
        w_KxLxIxO: The kernel; its centre of size ``kernel_2`` is used.
        kernel_2: int32: height and width that are used, odd.
        dilation_2: int32: vertical and horizontal dilation.
        stride: The stride, vertically and horizontally.

    Returns:
        The outputs, y_BxHxWxO.
    """
    B, H, W, I = x_BxHxWxI.shape
    K, L = w_KxLxIxO.shape[:2]

    # 0/1 maps: which tap of the kernel connects an input position, of H or W, to an
    # output position, of Y or X.
    def connections(size, taps, kernel, dilation):
        input_S = jnp.arange(size)
        output_Y = jnp.arange(0, size, stride)
        apart_SxY = input_S[:, None] - output_Y[None]
        offset_K = jnp.arange(taps) - taps // 2
        live_K = jnp.abs(offset_K) <= kernel // 2
        reached_K = (offset_K * dilation)[None, None]
        meets_SxYxK = apart_SxY[:, :, None] == reached_K
        connected_SxYxK = meets_SxYxK & live_K[None, None]
        return connected_SxYxK.astype(w_KxLxIxO.dtype)

    rows_HxYxK = connections(H, K, kernel_2[0], dilation_2[0])
    columns_WxXxL = connections(W, L, kernel_2[1], dilation_2[1])
    matrix = jnp.einsum(
        "hyk,wxl,klio->hwiyxo", rows_HxYxK, columns_WxXxL, w_KxLxIxO
    )
    y = x_BxHxWxI.reshape(B, -1) @ matrix.reshape(H * W * I, -1)
    return y.reshape(B, -(-H // stride), -(-W // stride), -1)
