"""NAS-Bench-201's networks as a user of JAX would write them without this library.

`lax.switch` under `jax.vmap`, XLA's convolutions, automatic differentiation. The same
function of the same weights as `jaxhypernas.targets.cell.cell_network`: stem, three
stages of cells, residual reductions, head; BatchNorm by the statistics of the batch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxhypernas.spaces.nasbench201 import EDGES
from jaxhypernas.types import Array


def jax_network(
    theta: Any, choice_6: "Array | tuple[int, ...]", x_BxHxWxC: jax.Array
) -> jax.Array:
    """Returns the logits of an architecture.

    Args:
        theta: Its weights.
        choice_6: Indices into the space's EDGE_OPS: an array, or a tuple to compile one
            architecture alone.
        x_BxHxWxC: Images.
    """
    x = _norm(_conv(x_BxHxWxC, theta["stem"]))
    for stage, cells in enumerate(theta["cells"]):
        if stage > 0:
            x = _reduce(theta["reduce"][stage - 1], x)
        for n in range(jax.tree.leaves(cells)[0].shape[0]):
            w = jax.tree.map(lambda v, n=n: v[n], cells)
            x = _cell(w, choice_6, x)
    pooled_BxC = jax.nn.relu(_norm(x)).mean((1, 2))
    return pooled_BxC @ theta["head"] + theta["bias"][None]


def _cell(w: Any, choice_6: Any, x: jax.Array) -> jax.Array:
    alone = isinstance(choice_6, tuple)
    states = [x]
    for to in (1, 2, 3):
        state = jnp.zeros_like(x)
        for edge, (end, start) in enumerate(EDGES):
            if end != to:
                continue
            ops = _ops(w, edge)
            choice = choice_6[edge]
            if alone:
                state += ops[choice](states[start])
            else:
                state += lax.switch(choice, ops, states[start])
        states.append(state)
    return states[3]


def _ops(w: Any, edge: int) -> tuple[Callable[[jax.Array], jax.Array], ...]:
    """The ops of an edge, in the order of EDGE_OPS."""

    def convolution(name: str) -> Callable[[jax.Array], jax.Array]:
        kernel = w[name]["conv0"][edge]
        return lambda x: _norm(_conv(jax.nn.relu(x), kernel))

    return (
        jnp.zeros_like,
        lambda x: x,
        convolution("nor_conv_1x1"),
        convolution("nor_conv_3x3"),
        _window_mean,
    )


def _reduce(w: Any, x: jax.Array) -> jax.Array:
    y = _norm(_conv(jax.nn.relu(x), w["a"], 2))
    y = _norm(_conv(jax.nn.relu(y), w["b"]))
    B, H, W, C = x.shape
    halved = x.reshape(B, H // 2, 2, W // 2, 2, C).mean((2, 4))
    return y + _conv(halved, w["skip"][None, None])


def _conv(x: jax.Array, w: jax.Array, stride: int = 1) -> jax.Array:
    pad = [(k // 2, k // 2) for k in w.shape[:2]]
    return lax.conv_general_dilated(
        x, w, (stride, stride), pad, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _norm(x: jax.Array) -> jax.Array:
    mean = x.mean((0, 1, 2), keepdims=True)
    variance = x.var((0, 1, 2), keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-5)


def _window_mean(x: jax.Array) -> jax.Array:
    sums = partial(
        lax.reduce_window,
        init_value=0.0,
        computation=lax.add,
        window_dimensions=(1, 3, 3, 1),
        window_strides=(1, 1, 1, 1),
        padding="SAME",
    )
    pixels = jnp.ones((1, *x.shape[1:3], 1))
    return sums(x) / sums(pixels)
