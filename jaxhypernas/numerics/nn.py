"""Layers of the target networks as pure functions; NHWC, float32.

Convolutions have two forms, equal to rounding, chosen for the platform that the program is compiled for (also when that
is not the platform compiling it): XLA's own on TPU and GPU, and one written as matrix products on CPU, where XLA's
convolution gradients are 10 to 500 times slower than the products.
"""

from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def batch_norm(x_BxHxWxC: jax.Array, epsilon: float = 1e-5) -> jax.Array:
    """Normalise each channel by the statistics of this batch; no affine parameters. Channels that are all 0 stay 0."""
    mean_1x1x1xC = x_BxHxWxC.mean((0, 1, 2), keepdims=True)
    centred = x_BxHxWxC - mean_1x1x1xC
    return centred * lax.rsqrt(
        jnp.square(centred).mean((0, 1, 2), keepdims=True) + epsilon
    )


def conv_norm(
    x_BxHxWxI: jax.Array, w_KxLxIxO: jax.Array, stride: int, relu: bool
) -> jax.Array:
    """`batch_norm` of `conv` of the images, or of their ReLU."""
    return batch_norm(
        conv(jax.nn.relu(x_BxHxWxI) if relu else x_BxHxWxI, w_KxLxIxO, stride)
    )


def affine_norm(
    x_BxHxWxC: jax.Array, epsilon: float = 1e-5
) -> tuple[jax.Array, jax.Array]:
    """`batch_norm` as a factor and a summand of each channel, 1 x 1 x 1 x C.

    Moments are taken in one pass, which compilers for accelerators make part of the convolution before it. A variance
    is then the difference of two means: its error is 1 + (mean / deviation)^2 roundings, that of `batch_norm` is one.
    """
    mean, square = (
        v.mean((0, 1, 2), keepdims=True)
        for v in (x_BxHxWxC, jnp.square(x_BxHxWxC))
    )
    factor = lax.rsqrt(jnp.maximum(square - jnp.square(mean), 0) + epsilon)
    return factor, -mean * factor


def conv_affine_norm(
    x_BxHxWxI: jax.Array, w_KxLxIxO: jax.Array, stride: int, relu: bool
) -> jax.Array:
    """`conv_norm` by `affine_norm`."""
    y = conv(jax.nn.relu(x_BxHxWxI) if relu else x_BxHxWxI, w_KxLxIxO, stride)
    factor, summand = affine_norm(y)
    return y * factor + summand


def cross_entropy(logits_BxL: jax.Array, y_B: jax.Array) -> jax.Array:
    """Mean over images, in nats."""
    return -jnp.take_along_axis(
        jax.nn.log_softmax(logits_BxL), y_B[:, None], 1
    ).mean()


def average_pool(x_BxHxWxC: jax.Array) -> jax.Array:
    """Mean of 2x2 windows; an odd last row or column is dropped."""
    B, H, W, C = x_BxHxWxC.shape

    def reduced(x):
        return (
            x[:, : H // 2 * 2, : W // 2 * 2]
            .reshape(B, H // 2, 2, W // 2, 2, C)
            .mean((2, 4))
        )

    return lax.platform_dependent(x_BxHxWxC, cpu=reduced, default=_corner_mean)


def _corner_mean(x_BxHxWxC):
    """`average_pool` as a sum, part of what reads it: on TPU, a reduction costs as much as a convolution."""
    _, H, W, _ = x_BxHxWxC.shape
    return (
        reduce(
            jnp.add,
            (
                x_BxHxWxC[:, i : H // 2 * 2 : 2, j : W // 2 * 2 : 2]
                for i in (0, 1)
                for j in (0, 1)
            ),
        )
        / 4
    )


def _window_sum(x_BxHxWxC, combine, fill):
    """``combine`` over 3x3 windows, one axis after the other; ``fill`` outside the image."""
    for axis in (1, 2):
        padded = jnp.pad(
            x_BxHxWxC,
            [(int(a == axis),) * 2 for a in range(4)],
            constant_values=fill,
        )
        size = x_BxHxWxC.shape[axis]
        x_BxHxWxC = reduce(
            combine,
            (
                lax.slice_in_dim(padded, i, i + size, axis=axis)
                for i in range(3)
            ),
        )
    return x_BxHxWxC


def average_pool_3x3(x_BxHxWxC: jax.Array) -> jax.Array:
    """Mean of the 3x3 window's positions inside the image, stride 1."""
    return _window_sum(x_BxHxWxC, jnp.add, 0) / window_count(x_BxHxWxC)


def window_count(x_BxHxWxC: jax.Array) -> jax.Array:
    """How many positions of the 3x3 window around each lie inside the image, 1 x H x W x 1."""
    return _window_sum(
        jnp.ones((1, *x_BxHxWxC.shape[1:3], 1), x_BxHxWxC.dtype), jnp.add, 0
    )


def max_pool_3x3(x_BxHxWxC: jax.Array) -> jax.Array:
    """Largest value of the 3x3 window, stride 1."""
    return _window_sum(x_BxHxWxC, jnp.maximum, -jnp.inf)


def depthwise_conv(
    x_BxHxWxC: jax.Array, w_KxLxC: jax.Array, dilation: int = 1
) -> jax.Array:
    """Each channel convolved with its own kernel, zero padding that keeps H and W; K and L odd."""
    K, L, C = w_KxLxC.shape
    reach = [(n // 2 * dilation,) * 2 for n in (K, L)]

    def native(x, w):
        return lax.conv_general_dilated(
            x,
            w[:, :, None],
            (1, 1),
            reach,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=C,
        )

    def dense(x, w):
        # A diagonal of zeros and kernels: C times the work, and still faster than XLA's own up to tens of channels.
        rows, columns = (
            (np.arange(n) - n // 2) * dilation + n // 2 * dilation
            for n in (K, L)
        )
        spread = jnp.zeros(
            (reach[0][0] * 2 + 1, reach[1][0] * 2 + 1, C), w.dtype
        )
        spread = spread.at[rows[:, None], columns[None]].set(w)
        return conv(
            x, spread[:, :, :, None] * jnp.eye(C, dtype=w.dtype)[None, None]
        )

    return lax.platform_dependent(x_BxHxWxC, w_KxLxC, cpu=dense, default=native)


def _native(
    x, w, stride: int | tuple[int, int] = 1, pad: tuple[int, int] | None = None
):
    vertical, horizontal = pad or (w.shape[0] // 2, w.shape[1] // 2)
    strides = stride if isinstance(stride, tuple) else (stride, stride)
    pads = ((vertical, vertical), (horizontal, horizontal))
    return lax.conv_general_dilated(
        x, w, strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(
    x_BxHxWxI: jax.Array, w_KxLxIxO: jax.Array, stride: int = 1
) -> jax.Array:
    """Convolution centred on every stride-th position from the first on, zero padding; K and L odd."""
    return _conv_fwd(x_BxHxWxI, w_KxLxIxO, stride)[0]


def _conv_fwd(x, w, stride):
    def cpu(x, w):
        if _is_tiny(x, stride):
            return _whole(x, w, stride)
        return (
            _native(x, w, stride)
            if stride > 1
            else _side_by_side(x, w, (w.shape[0] // 2, w.shape[1] // 2))
        )

    return lax.platform_dependent(
        x, w, cpu=cpu, default=partial(_native, stride=stride)
    ), (x, w)


def _conv_bwd(stride, residuals, g):
    x, w = residuals

    def native(x, w, g):
        return jax.vjp(partial(_native, stride=stride), x, w)[1](g)

    def products(x, w, g):
        if _is_tiny(x, stride):
            return jax.vjp(partial(_whole, stride=stride), x, w)[1](g)
        if stride == 1:
            return _products(x, w, g, (w.shape[0] // 2, w.shape[1] // 2))
        plain, back = jax.vjp(partial(_without_stride, stride), x, w)
        return back(_products(*plain, g, (0, 0)))

    return lax.platform_dependent(x, w, g, cpu=products, default=native)


conv.defvjp(_conv_fwd, _conv_bwd)

# Measured on two AVX2 cores (experiments/LOG.md): columns of a product below which its cost no longer falls, bytes of
# images that stay in a core's cache.
WIDE, CACHE = 32, 256 * 1024


def _side_by_side(x, w, pad):
    """The convolution without stride, neighbouring positions' outputs as channels of one with a larger kernel and
    stride: it does up to twice the arithmetic and is faster, as products with few columns are slow."""
    (K, L, _, O), (B, H, W, _) = w.shape, x.shape
    H, W = H + 2 * pad[0] + 1 - K, W + 2 * pad[1] + 1 - L
    n = 2 if L > 1 and W % 2 == 0 and 2 * O <= WIDE else 1
    m = 2 if K > 1 and H % 2 == 0 and 2 * n * O <= WIDE else 1
    moved = [
        jnp.pad(w, ((i, m - 1 - i), (j, n - 1 - j), (0, 0), (0, 0)))
        for i in range(m)
        for j in range(n)
    ]
    y = _native(x, jnp.concatenate(moved, -1), (m, n), pad)
    return (
        y.reshape(B, H // m, W // n, m, n, O).swapaxes(2, 3).reshape(B, H, W, O)
    )


def _products(x, w, g, pad):
    """Gradients with respect to x and w of a convolution without stride, its own ``pad`` per axis.

    The kernel's: products of x, moved by each of the kernel's columns, with g, moved by each of its rows; of as many
    images at once as stay in cache.
    """
    (K, L, I, O), B, H, width = w.shape, x.shape[0], x.shape[1], g.shape[2]
    dx = _side_by_side(
        g, w[::-1, ::-1].swapaxes(2, 3), (K - 1 - pad[0], L - 1 - pad[1])
    )
    most = max(CACHE * B // x.nbytes, 1)
    images = max(n for n in range(1, min(most, B) + 1) if B % n == 0)

    def add_images(i, dw_LIxKO):
        x_, g_ = (
            lax.dynamic_slice_in_dim(v, i * images, images) for v in (x, g)
        )
        x_ = jnp.pad(x_, ((0, 0), (0, 0), (pad[1],) * 2, (0, 0)))
        g_ = jnp.pad(g_, ((0, 0), (K - 1 - pad[0],) * 2, (0, 0), (0, 0)))
        x_BxHxWxLI = jnp.concatenate(
            [x_[:, :, i : i + width] for i in range(L)], -1
        )
        g_BxHxWxKO = jnp.concatenate(
            [g_[:, K - 1 - k : K - 1 - k + H] for k in range(K)], -1
        )
        return dw_LIxKO + x_BxHxWxLI.reshape(-1, L * I).T @ g_BxHxWxKO.reshape(
            -1, K * O
        )

    dw_LIxKO = lax.fori_loop(
        0, B // images, add_images, jnp.zeros((L * I, K * O), x.dtype)
    )
    return dx, dw_LIxKO.reshape(L, I, K, O).transpose(2, 0, 1, 3)


def _without_stride(stride, x, w):
    """Images and kernel whose plain convolution without padding is the strided one: squares become channels."""
    (B, H, W, I), (K, L, _, O) = x.shape, w.shape
    k, m = (-(-n // stride) for n in (K, L))  # the kernel's size, in squares
    h, v = (
        -(-n // stride) + extent - 1 for n, extent in ((H, k), (W, m))
    )  # the padded images'
    x = lax.pad(
        x,
        0.0,
        (
            (0, 0, 0),
            (K // 2, h * stride - H - K // 2, 0),
            (L // 2, v * stride - W - L // 2, 0),
            (0, 0, 0),
        ),
    )
    x = x.reshape(B, h, stride, v, stride, I).transpose(0, 1, 3, 2, 4, 5)
    w = jnp.pad(w, ((0, k * stride - K), (0, m * stride - L), (0, 0), (0, 0)))
    w = w.reshape(k, stride, m, stride, I, O).transpose(0, 2, 1, 3, 4, 5)
    return x.reshape(B, h, v, -1), w.reshape(k, m, -1, O)


def _crop(w_KxKxIxO, kernel_2, dilation_2, extent: int):
    """The dense kernel of size ``extent`` that equals a centre-cropped, dilated one: 0/1 maps move rows and columns."""
    K = w_KxKxIxO.shape[0]
    offset_K = jnp.arange(K) - K // 2  # taps relative to the centre
    place_E = jnp.arange(extent) - extent // 2

    def axis(kernel, dilation):
        live_K = jnp.abs(offset_K) <= kernel // 2
        return (
            (place_E[:, None] == (offset_K * dilation)[None, :])
            & live_K[None, :]
        ).astype(w_KxKxIxO.dtype)

    rows_ExK, columns_ExK = (
        axis(kernel_2[0], dilation_2[0]),
        axis(kernel_2[1], dilation_2[1]),
    )
    return jnp.einsum("yk,xl,klio->yxio", rows_ExK, columns_ExK, w_KxKxIxO)


def _taps(kernel_2, dilation_2, K: int, extent: int, body, init):
    """Run body(carry, [row, column] of w, [row, column] in an image padded by extent // 2) for each live tap."""

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

    return lax.fori_loop(0, kernel_2[0] * kernel_2[1], step, init)


def _shifted(x_pad, shape, offset):
    return lax.dynamic_slice(x_pad, (0, offset[0], offset[1], 0), shape)


def _pad(x, extent):
    p = extent // 2
    return jnp.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))


def _is_small(x_BxHxWxC) -> bool:
    """Whether a matrix from all positions to all positions is faster than a loop over taps."""
    return x_BxHxWxC.shape[1] * x_BxHxWxC.shape[2] <= 16


def _as_matrix(x_BxHxWxI, w_KxLxIxO, kernel_2, dilation_2, stride: int = 1):
    """The convolution as one product; 0/1 maps say by which tap a position is moved to another."""
    B, H, W, _ = x_BxHxWxI.shape
    h, v = -(-H // stride), -(-W // stride)

    def moves(size, taps, kernel, dilation):
        apart_SxS = (
            jnp.arange(size)[:, None] - jnp.arange(0, size, stride)[None]
        )
        offset_K = jnp.arange(taps) - taps // 2
        live_K = jnp.abs(offset_K) <= kernel // 2
        by_tap_SxSxK = (
            apart_SxS[:, :, None] == (offset_K * dilation)[None, None]
        ) & live_K[None, None]
        return by_tap_SxSxK.astype(w_KxLxIxO.dtype)

    rows_HxHxK, columns_WxWxL = (
        moves(*of)
        for of in zip(
            (H, W), w_KxLxIxO.shape[:2], kernel_2, dilation_2, strict=True
        )
    )
    matrix = jnp.einsum(
        "hyk,wxl,klio->hwiyxo", rows_HxHxK, columns_WxWxL, w_KxLxIxO
    )
    return (
        x_BxHxWxI.reshape(B, -1)
        @ matrix.reshape(H * W * w_KxLxIxO.shape[2], -1)
    ).reshape(B, h, v, -1)


def _is_tiny(x_BxHxWxC, stride: int) -> bool:
    """Whether that matrix is faster than XLA's convolution, too."""
    return (
        -(-x_BxHxWxC.shape[1] // stride) * -(-x_BxHxWxC.shape[2] // stride) <= 4
    )


def _whole(x, w, stride):
    return _as_matrix(x, w, w.shape[:2], (1, 1), stride)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def dynamic_conv(x_BxHxWxI, w_KxKxIxO, kernel_2, dilation_2, extent: int):
    """Convolution whose kernel height and width and dilations are data: the same program for all of them.

    Args:
        x_BxHxWxI: images.
        w_KxKxIxO: the largest kernel; its centre of size ``kernel_2`` is used, the rest gets gradient 0.
        kernel_2: int32 odd height and width, at most K.
        dilation_2: int32 dilation per axis.
        extent: the largest ``(kernel - 1) * dilation + 1`` that can occur (static).

    Returns:
        BxHxWxO, zero padding. On CPU one product with a matrix for images of up to 4x4, and otherwise one for each live
        tap; elsewhere one dense convolution of the extent.
    """
    return _dynamic_conv_fwd(
        x_BxHxWxI, w_KxKxIxO, kernel_2, dilation_2, extent
    )[0]


def _dynamic_conv_fwd(x, w, kernel_2, dilation_2, extent):
    def native(x, w, kernel_2, dilation_2):
        return _native(x, _crop(w, kernel_2, dilation_2, extent))

    def taps(x, w, kernel_2, dilation_2):
        x_pad = _pad(x, extent)

        def body(y, index, offset):
            return y + _shifted(x_pad, x.shape, offset) @ w[index[0], index[1]]

        return _taps(
            kernel_2,
            dilation_2,
            w.shape[0],
            extent,
            body,
            jnp.zeros((*x.shape[:3], w.shape[3]), x.dtype),
        )

    cpu = _as_matrix if _is_small(x) else taps
    y = lax.platform_dependent(
        x, w, kernel_2, dilation_2, cpu=cpu, default=native
    )
    return y, (x, w, kernel_2, dilation_2)


def _dynamic_conv_bwd(extent, residuals, g):
    x, w, kernel_2, dilation_2 = residuals

    def native(x, w, kernel_2, dilation_2, g):
        return jax.vjp(
            lambda x, w: _native(x, _crop(w, kernel_2, dilation_2, extent)),
            x,
            w,
        )[1](g)

    def taps(x, w, kernel_2, dilation_2, g):
        x_pad, g_pad = _pad(x, extent), _pad(g, extent)

        def body(carry, index, offset):
            dx, dw = carry
            mirrored = [2 * (extent // 2) - o for o in offset]
            dx = (
                dx
                + _shifted(g_pad, g.shape, mirrored) @ w[index[0], index[1]].T
            )
            tap = jnp.einsum(
                "bhwi,bhwo->io", _shifted(x_pad, x.shape, offset), g
            )
            return dx, dw.at[index[0], index[1]].set(tap)

        return _taps(
            kernel_2,
            dilation_2,
            w.shape[0],
            extent,
            body,
            (jnp.zeros_like(x), jnp.zeros_like(w)),
        )

    def matrix(x, w, kernel_2, dilation_2, g):
        return jax.vjp(
            lambda x, w: _as_matrix(x, w, kernel_2, dilation_2), x, w
        )[1](g)

    cpu = matrix if _is_small(x) else taps
    dx, dw = lax.platform_dependent(
        x, w, kernel_2, dilation_2, g, cpu=cpu, default=native
    )
    return dx, dw, None, None


dynamic_conv.defvjp(_dynamic_conv_fwd, _dynamic_conv_bwd)
