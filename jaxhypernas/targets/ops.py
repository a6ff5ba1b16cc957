"""The ops of cells, by name, in `OPS`. An op keeps resolution and channels.

Ops with weights are ReLU, convolution, BatchNorm, as published. BatchNorm uses the
statistics of the evaluated batch and has no affine parameters.

Add an op of your own with one entry; a space names it in its structure and gives its
cost in `spaces.cell_cost.OP_COSTS`::

    OPS["sep_conv_9x9"] = separable(9, times=2)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxhypernas.numerics import cpu
from jaxhypernas.numerics.convolution import depthwise_conv
from jaxhypernas.numerics.normalisation import batch_norm, conv_norm
from jaxhypernas.numerics.pooling import average_pool_3x3, max_pool_3x3

Weights = dict[str, jax.Array]
"""Weights of one op, by name."""


class OpModule(NamedTuple):
    """An op in the source of an exported network: a layer, a function, or neither."""

    layer: str = ""
    """What makes its layer of `targets.modules.layers`; ``channels`` and ``rngs`` are
    known there."""

    function: str = ""
    """Name of its function, where it has no weights; empty: it changes nothing."""

    weights: Callable[[dict[str, Any]], dict[str, Any]] = lambda weights: {}
    """``weights(own)``: the op's weights by their names in the layer."""


class Op(NamedTuple):
    """An op. Only ``shapes`` and ``apply`` are needed; the rest makes it faster."""

    shapes: Callable[[int], dict[str, Any]]
    """``shapes(C)``: shapes of its weights for C channels, by name."""

    apply: Callable[[Weights, jax.Array], jax.Array]
    """``apply(weights, x_BxHxWxC)``: y_BxHxWxC."""

    kernel: Callable[[Weights, int], jax.Array] | None = None
    """``kernel(weights, C)``: the op as one convolution, w_3x3xCxC. An op with weights
    has ReLU before the convolution and BatchNorm after it. None: it is no such
    convolution, and its space has no fused form."""

    mean: bool = False
    """Whether the convolution gives sums that are divided by `window_count`."""

    native: cpu.NativeOp | None = None
    """The op in C++, for weights in the order of ``shapes``. None: C++ does not have
    it, and its space has no native form."""

    module: OpModule | None = None
    """The op in exported networks. None: its networks cannot be exported."""


def convolutions(*kernels: tuple[int, int]) -> Op:
    """Makes an op of dense convolutions, each with ReLU before and BatchNorm after it.

    Args:
        *kernels: Height and width of each kernel, odd.

    Returns:
        The op.
    """

    def shapes(C):
        return {f"conv{i}": (*k, C, C) for i, k in enumerate(kernels)}

    def apply(w, x):
        for i in range(len(kernels)):
            x = conv_norm(x, w[f"conv{i}"], 1, True)
        return x

    def kernel(w, C):
        height, width = kernels[0]
        above = (3 - height) // 2
        left = (3 - width) // 2
        around = ((above, above), (left, left), (0, 0), (0, 0))
        return jnp.pad(w["conv0"], around)

    def module_weights(w):
        if len(kernels) == 1:
            return {"conv.kernel": w["conv0"]}
        return {
            f"layers.{i}.conv.kernel": w[f"conv{i}"]
            for i in range(len(kernels))
        }

    made = ", ".join(
        f"ConvNorm(channels, channels, {k}, rngs=rngs)" for k in kernels
    )
    if len(kernels) > 1:
        made = f"Chain({made})"
    fits = len(kernels) == 1 and max(kernels[0]) <= 3
    return Op(
        shapes,
        apply,
        kernel=kernel if fits else None,
        native=cpu.layers(*(cpu.Layer(kernel=k) for k in kernels)),
        module=OpModule(layer=made, weights=module_weights),
    )


def separable(kernel: int, times: int, dilation: int = 1) -> Op:
    """Makes an op of separable convolutions: ReLU, depthwise, 1x1, BatchNorm.

    Args:
        kernel: Height and width of the depthwise kernels, odd.
        times: Number of separable convolutions, one after the other.
        dilation: Dilation of the depthwise convolutions.

    Returns:
        The op.
    """

    def shapes(C):
        found: dict[str, tuple[int, ...]] = {}
        for i in range(times):
            found[f"deep{i}"] = (kernel, kernel, C)
            found[f"wide{i}"] = (C, C)
        return found

    def apply(w, x):
        for i in range(times):
            x = depthwise_conv(jax.nn.relu(x), w[f"deep{i}"], dilation)
            x = batch_norm(x @ w[f"wide{i}"])
        return x

    def module_weights(w):
        found = {}
        for i in range(times):
            found[f"deep.{i}.kernel"] = w[f"deep{i}"][:, :, None]
            found[f"wide.{i}.conv.kernel"] = w[f"wide{i}"][None, None]
        return found

    layer = cpu.Layer(depthwise=kernel, dilation=dilation)
    made = f"Separable(channels, {kernel}, {times}, {dilation}, rngs=rngs)"
    return Op(
        shapes,
        apply,
        native=cpu.layers(*[layer] * times),
        module=OpModule(layer=made, weights=module_weights),
    )


def _without_weights(
    apply: Callable[[jax.Array], jax.Array],
    native: cpu.NativeOp,
    function: str,
    taps_3x3: list[list[int]] | None = None,
    mean: bool = False,
) -> Op:
    def shapes(C):
        return {}

    def kernel(w, C):
        taps_3x3x1x1 = jnp.array(taps_3x3, float)[:, :, None, None]
        return taps_3x3x1x1 * jnp.eye(C)[None, None]

    return Op(
        shapes,
        lambda w, x: apply(x),
        kernel=kernel if taps_3x3 else None,
        mean=mean,
        native=native,
        module=OpModule(function=function),
    )


def _identity(x: jax.Array) -> jax.Array:
    return x


_CENTRE = [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
_ALL = [[1, 1, 1]] * 3

OPS: dict[str, Op] = {
    "skip_connect": _without_weights(_identity, cpu.SKIP, "", _CENTRE),
    "nor_conv_1x1": convolutions((1, 1)),
    "nor_conv_3x3": convolutions((3, 3)),
    "avg_pool_3x3": _without_weights(
        average_pool_3x3,
        cpu.AVERAGE_POOL,
        "average_pool_3x3",
        _ALL,
        mean=True,
    ),
    "max_pool_3x3": _without_weights(
        max_pool_3x3, cpu.MAX_POOL, "max_pool_3x3"
    ),
    "sep_conv_3x3": separable(3, 2),
    "sep_conv_5x5": separable(5, 2),
    "sep_conv_7x7": separable(7, 2),
    "dil_conv_3x3": separable(3, 1, 2),
    "dil_conv_5x5": separable(5, 1, 2),
    "conv_1x7_7x1": convolutions((1, 7), (7, 1)),
}
"""All ops; a cell's structure names those of its space."""
