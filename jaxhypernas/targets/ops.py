"""The ops of cells: ReLU, convolution, BatchNorm as published, resolution and channels kept.

BatchNorm uses the statistics of the evaluated batch and has no affine parameters.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxhypernas.numerics import nn


class Op(NamedTuple):
    """An op: shapes of its weights for C channels, kernels with height and width first, and what it computes."""

    shapes: Callable[[int], dict[str, Any]]
    apply: Callable[
        [dict[str, jax.Array], jax.Array], jax.Array
    ]  # (weights, x_BxHxWxC) -> y_BxHxWxC
    kernel: Callable[[dict[str, jax.Array], int], jax.Array] | None = (
        None  # (weights, C) -> 3x3xCxC: the op as one
    )
    # convolution, with ReLU before it and BatchNorm after it if it has weights; None: it isn't one
    mean: bool = False  # that convolution adds what the op averages
    native: tuple[
        int, ...
    ] = ()  # the op as numbers for `cpu.cell_states`, its weights in the order of ``shapes``;
    # none: it isn't there


def _conv(*kernels: tuple[int, int]) -> Op:
    """Convolutions one after the other."""
    [(height, width), *more] = kernels

    def kernel(w, C):
        around = [((3 - n) // 2,) * 2 for n in (height, width)]
        return jnp.pad(w["conv0"], (*around, (0, 0), (0, 0)))

    def apply(w, x):
        for i in range(len(kernels)):
            x = nn.conv_norm(x, w[f"conv{i}"], 1, True)
        return x

    fits = not more and max(height, width) <= 3
    native = (3, len(kernels), *(n for k in kernels for n in (0, 0, *k)))
    return Op(
        lambda C: {f"conv{i}": (*k, C, C) for i, k in enumerate(kernels)},
        apply,
        kernel if fits else None,
        native=native,
    )


def _separable(kernel: int, times: int, dilation: int = 1) -> Op:
    """Depthwise and 1x1 convolutions, without BatchNorm between them."""

    def shapes(C):
        return {
            f"{name}{i}": s
            for i in range(times)
            for name, s in (("deep", (kernel, kernel, C)), ("wide", (C, C)))
        }

    def apply(w, x):
        for i in range(times):
            x = nn.batch_norm(
                nn.depthwise_conv(jax.nn.relu(x), w[f"deep{i}"], dilation)
                @ w[f"wide{i}"]
            )
        return x

    return Op(
        shapes, apply, native=(3, times, *(kernel, dilation, 1, 1) * times)
    )


def _plain(
    apply: Callable[[jax.Array], jax.Array],
    kind: int,
    taps_3x3: list[list[int]] | None = None,
    mean: bool = False,
) -> Op:
    def kernel(w, C):
        return (
            jnp.array(taps_3x3, float)[:, :, None, None]
            * jnp.eye(C)[None, None]
        )

    return Op(
        lambda C: {},
        lambda w, x: apply(x),
        kernel if taps_3x3 else None,
        mean,
        (kind, 0),
    )


OPS = {
    "skip_connect": _plain(lambda x: x, 0, [[0, 0, 0], [0, 1, 0], [0, 0, 0]]),
    "nor_conv_1x1": _conv((1, 1)),
    "nor_conv_3x3": _conv((3, 3)),
    "avg_pool_3x3": _plain(nn.average_pool_3x3, 1, [[1, 1, 1]] * 3, mean=True),
    "max_pool_3x3": _plain(nn.max_pool_3x3, 2),
    "sep_conv_3x3": _separable(3, 2),
    "sep_conv_5x5": _separable(5, 2),
    "sep_conv_7x7": _separable(7, 2),
    "dil_conv_3x3": _separable(3, 1, 2),
    "dil_conv_5x5": _separable(5, 1, 2),
    "conv_1x7_7x1": _conv((1, 7), (7, 1)),
}
