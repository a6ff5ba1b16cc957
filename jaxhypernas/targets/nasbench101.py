"""NAS-Bench-101's networks (Ying et al. 2019), written for one architecture: `spaces.nasbench101` has the arrays.

Stem (3x3 convolution, BatchNorm, ReLU), three stages of cells, with a 2x2 max pool and twice the channels from one to
the next, global mean, linear. All convolutions are followed by BatchNorm and ReLU. A vertex takes the sum of what feeds
it, cut to its own channels, and of the cell's input, projected by a 1x1; the output is the concatenation of what feeds
it, plus the projected input if that does. How many channels a vertex has depends on the cell: weights have the shape of
the widest vertex, C channels, and masks cut them, so that all cells are one program. Deviations:
1. BatchNorm uses the statistics of the evaluated batch and has no affine parameters.
2. Every convolution inside a cell computes C channels, however few are left of them.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxhypernas.numerics import cpu, nn
from jaxhypernas.spaces.cells import STAGES, CellConfig, check_image
from jaxhypernas.spaces.nasbench101 import (
    VERTICES,
    N,
    Nasbench101Arch,
    prune,
    vertex_channels,
)
from jaxhypernas.types import Params, Target

_ConvNorm = Callable[
    [jax.Array, jax.Array, int, bool], jax.Array
]  # as `nn.conv_norm`


def nasbench101(
    config: CellConfig, image: tuple[int, int, int], classes: int
) -> Target:
    """The target for images of shape (H, W, C).

    Weights theta (N = 5 interior vertices; c: channels of the stage):
        stem: 3 x 3 x image channels x C.
        cells[s]: conv3x3: cells x N x 3 x 3 x c x c, conv1x1: cells x N x c x c, and project: cells x (N + 1) x c x c,
            from the input to interior vertices and output. A later stage's first cell has c / 2 input channels.
        head, bias: 4C x classes, classes.

    Raises:
        UserError: the images cannot be halved twice.
    """
    check_image(image)
    channels = [config.channels * 2**s for s in range(STAGES)]

    def leaf(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    def stage(c):
        return {
            "conv3x3": leaf(config.cells, N, 3, 3, c, c),
            "conv1x1": leaf(config.cells, N, c, c),
            "project": leaf(config.cells, N + 1, c, c),
        }

    weight_spec = {
        "stem": leaf(3, 3, image[2], channels[0]),
        "cells": [stage(c) for c in channels],
        "head": leaf(channels[-1], classes),
        "bias": leaf(classes),
    }
    nodes = jax.tree.map(lambda _: np.array(-1, np.int32), weight_spec)
    for s in range(STAGES):
        for name, spec in weight_spec["cells"][s].items():
            cells = s * config.cells + np.arange(config.cells, dtype=np.int32)
            nodes["cells"][s][name] = (
                cells[:, None] * VERTICES
                + np.arange(1, spec.shape[1] + 1, dtype=np.int32)[None]
            )

    def apply(
        conv_norm: _ConvNorm,
        theta: Params,
        arch: Nasbench101Arch,
        x_BxHxWxC: jax.Array,
    ) -> jax.Array:
        def conv(x, w):
            return jax.nn.relu(conv_norm(x, w, 1, False))

        arch = prune(jax.tree.map(jnp.asarray, arch))
        x = conv(x_BxHxWxC, theta["stem"])
        for s, c in enumerate(channels):
            if s > 0:
                x = jnp.pad(
                    _max_pool(x), ((0, 0), (0, 0), (0, 0), (0, c - x.shape[-1]))
                )
            channel_N = vertex_channels(arch.edge_VxV, c)
            x, _ = lax.scan(
                lambda x, w, n=channel_N: (_cell(conv, arch, n, w, x), None),
                x,
                theta["cells"][s],
            )
        return x.mean((1, 2)) @ theta["head"] + theta["bias"][None]

    native = Target(weight_spec, partial(apply, cpu.conv_norm), nodes)
    return Target(
        weight_spec,
        partial(apply, nn.conv_norm),
        nodes,
        forms={"native": native},
    )


def _max_pool(x):
    """Largest value of 2x2 windows; height and width are even."""
    B, H, W, C = x.shape
    return x.reshape(B, H // 2, 2, W // 2, 2, C).max((2, 4))


OPS = (  # (ReLU of BatchNorm of a convolution, weights of the vertex, its input) -> its output, by its number in op_N
    lambda conv, w, x: jnp.zeros_like(x),
    lambda conv, w, x: conv(x, w["conv3x3"]),
    lambda conv, w, x: conv(x, w["conv1x1"][None, None]),
    lambda conv, w, x: nn.max_pool_3x3(x),
)


def _cell(conv, arch, channel_N, w, x_BxHxWxC):
    """The output of one cell."""

    def add_if(on, y, term, *operands):
        return lax.cond(
            on > 0,
            lambda y, *operands: y + term(*operands),
            lambda y, *_: y,
            y,
            *operands,
        )

    def project(w):
        return conv(x_BxHxWxC, w[None, None])

    # Recomputed in the backward pass: what it would store is stored for ops that aren't chosen, too.
    @jax.checkpoint
    def vertex(w, node, y):
        mask_C = (
            (jnp.arange(y.shape[-1]) < node["channels"])
            .astype(y.dtype)
            .reshape(1, 1, 1, -1)
        )
        y = add_if(node["read"][0], y, project, w["project"]) * mask_C
        return (
            lax.switch(node["op"], [partial(op, conv) for op in OPS], w, y)
            * mask_C
        )

    def step(state_NxBxHxWxC, at):
        w, node = at
        read_N = node["read"][1:].astype(x_BxHxWxC.dtype)
        y = vertex(
            w,
            node,
            jnp.tensordot(read_N, state_NxBxHxWxC, 1, precision="highest"),
        )  # on CPU a sum is slow
        return state_NxBxHxWxC.at[node["place"]].set(y), None

    def concatenate(out, at):
        feeds, start, state = at
        return add_if(
            feeds, out, lambda state: jnp.roll(state, start, -1), state
        ), None

    nodes = {
        "op": arch.op_N,
        "read": arch.edge_VxV[:-1, 1:-1].T,
        "channels": channel_N,
        "place": jnp.arange(N),
    }
    interior = {**w, "project": w["project"][:N]}
    state_NxBxHxWxC, _ = lax.scan(
        step,
        jnp.zeros((N, *x_BxHxWxC.shape), x_BxHxWxC.dtype),
        (interior, nodes),
    )
    # A state has zeros above its channels, so that it can be rolled to where it begins in the output.
    feeds_N = arch.edge_VxV[1:-1, -1]
    start_N = jnp.cumsum(feeds_N * channel_N) - feeds_N * channel_N
    out, _ = lax.scan(
        concatenate,
        jnp.zeros_like(x_BxHxWxC),
        (feeds_N, start_N, state_NxBxHxWxC),
    )
    return add_if(arch.edge_VxV[0, -1], out, project, w["project"][N])
