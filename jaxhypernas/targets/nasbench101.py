"""NAS-Bench-101's networks (Ying et al. 2019), written for one architecture.

Stem (3x3 convolution, BatchNorm, ReLU), three stages of cells, with a 2x2 max pool and
twice the channels from each to the next, global mean, linear. Every convolution is
followed by BatchNorm and ReLU. A vertex applies its op to a sum: of the vertices that
feed it, cut to its own channels, and of the cell's input, projected by a 1x1. The
output concatenates the vertices that feed it, and adds the projected input if that
feeds it, too.

The channels of a vertex depend on the cell. Weights have the shape of the widest
vertex, C channels, and masks cut them, so that one program runs all cells. Deviations:

1. BatchNorm uses the statistics of the evaluated batch and has no affine parameters.
2. Every convolution inside a cell computes C channels, however few of them are used.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxhypernas.archs.cells import STAGES, check_image
from jaxhypernas.archs.nasbench101 import (
    MAX_INTERIOR,
    MAX_VERTICES,
    Nasbench101Arch,
    prune,
    vertex_channels,
)
from jaxhypernas.archs.sizes import Nasbench101Config
from jaxhypernas.numerics import cpu
from jaxhypernas.numerics.normalisation import conv_norm
from jaxhypernas.numerics.pooling import max_pool_3x3
from jaxhypernas.targets.head import with_head
from jaxhypernas.targets.modules.nasbench101 import nasbench101_module
from jaxhypernas.types import (
    ImageShape,
    Module,
    Params,
    Target,
    WeightSpec,
)

_ConvNorm = Callable[[jax.Array, jax.Array, int, bool], jax.Array]
"""A convolution and its BatchNorm, as `conv_norm`."""

_Conv = Callable[[jax.Array, jax.Array], jax.Array]
"""ReLU of BatchNorm of a convolution: ``conv(x, kernel)``."""


def nasbench101(
    config: Nasbench101Config, image: ImageShape, classes: int
) -> Target:
    """Makes NAS-Bench-101's networks.

    Weights theta, with N = 5 places of interior vertices and c channels of stage s::

        stem          3 x 3 x image channels x C
        cells[s]
            conv3x3   cells x N x 3 x 3 x c x c
            conv1x1   cells x N x c x c
            project   cells x (N + 1) x c x c: from the cell's input to interior
                      vertices and output
        head          4C x classes
        bias          classes

    The first cell of a later stage has c / 2 input channels, padded with zeros.

    Args:
        config: Sizes of the networks (published: 128 channels, 3 cells).
        image: Height, width and channels of an image.
        classes: Number of classes.

    Returns:
        The target; its form ``native`` computes convolutions in C++ on CPU.

    Raises:
        UserError: The images cannot be halved twice.
    """
    check_image(image)
    weight_spec = _weight_spec(config, image, classes)
    nodes = _nodes(config, weight_spec)

    def module(arch: Nasbench101Arch, theta: Params) -> Module:
        return nasbench101_module(config, image, classes, arch, theta)

    def target(norm: _ConvNorm, forms: dict[str, Target]) -> Target:
        features = partial(_features, norm)
        return Target(
            weight_spec,
            with_head(features),
            nodes,
            forms=forms,
            module=module,
            features=features,
        )

    return target(conv_norm, {"native": target(cpu.conv_norm, {})})


def _weight_spec(
    config: Nasbench101Config, image: ImageShape, classes: int
) -> WeightSpec:
    def leaf(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    def stage(c: int) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            "conv3x3": leaf(config.cells, MAX_INTERIOR, 3, 3, c, c),
            "conv1x1": leaf(config.cells, MAX_INTERIOR, c, c),
            "project": leaf(config.cells, MAX_INTERIOR + 1, c, c),
        }

    channels = [config.channels * 2**s for s in range(STAGES)]
    return {
        "stem": leaf(3, 3, image[2], channels[0]),
        "cells": [stage(c) for c in channels],
        "head": leaf(channels[-1], classes),
        "bias": leaf(classes),
    }


def _nodes(config: Nasbench101Config, weight_spec: WeightSpec) -> Any:
    """Numbers the vertices of all cells: `Target.nodes`."""
    nodes = jax.tree.map(lambda _: np.array(-1, np.int32), weight_spec)
    for s in range(STAGES):
        for name, spec in weight_spec["cells"][s].items():
            cell = s * config.cells + np.arange(config.cells, dtype=np.int32)
            # Vertex 0 is the cell's input, which owns no weights.
            vertex = np.arange(1, spec.shape[1] + 1, dtype=np.int32)
            ids = cell[:, None] * MAX_VERTICES + vertex[None]
            nodes["cells"][s][name] = ids
    return nodes


def _features(
    conv_norm: _ConvNorm,
    theta: Params,
    arch: Nasbench101Arch,
    x_BxHxWxC: jax.Array,
) -> jax.Array:
    """Activations before the last layer: `Target.features`."""
    image_channels, channels = theta["stem"].shape[2:]
    chex.assert_shape(x_BxHxWxC, (None, None, None, image_channels))

    def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.nn.relu(conv_norm(x, kernel, 1, False))

    arch = prune(jax.tree.map(jnp.asarray, arch))
    x = conv(x_BxHxWxC, theta["stem"])
    for s in range(STAGES):
        c = channels * 2**s
        if s > 0:
            x = _max_pool_2x2(x)
            added = c - x.shape[-1]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, added)))
        channel_N = jnp.asarray(vertex_channels(arch.edge_VxV, c))
        cell = partial(_cell, conv, arch, channel_N)
        x, _ = lax.scan(cell, x, theta["cells"][s])
    return x


def _max_pool_2x2(x_BxHxWxC: jax.Array) -> jax.Array:
    """Halves the resolution; height and width are even."""
    B, H, W, C = x_BxHxWxC.shape
    windows = x_BxHxWxC.reshape(B, H // 2, 2, W // 2, 2, C)
    return windows.max((2, 4))


def _no_vertex(conv: _Conv, w: Params, x: jax.Array) -> jax.Array:
    return jnp.zeros_like(x)


def _conv3x3(conv: _Conv, w: Params, x: jax.Array) -> jax.Array:
    return conv(x, w["conv3x3"])


def _conv1x1(conv: _Conv, w: Params, x: jax.Array) -> jax.Array:
    return conv(x, w["conv1x1"][None, None])


def _max_pool_3x3(conv: _Conv, w: Params, x: jax.Array) -> jax.Array:
    return max_pool_3x3(x)


_OPS = (_no_vertex, _conv3x3, _conv1x1, _max_pool_3x3)
"""The op of a vertex, by its number in ``Nasbench101Arch.op_N``."""


def _cell(
    conv: _Conv,
    arch: Nasbench101Arch,
    channel_N: jax.Array,
    x_BxHxWxC: jax.Array,
    w: Params,
) -> tuple[jax.Array, None]:
    """Computes the output of one cell, as the body of a scan over cells."""
    edge_VxV = jnp.asarray(arch.edge_VxV)
    nodes = {
        "op": arch.op_N,
        "read": edge_VxV[:-1, 1:-1].T,
        "channels": channel_N,
        "place": jnp.arange(MAX_INTERIOR),
    }
    interior = {**w, "project": w["project"][:MAX_INTERIOR]}

    def step(state_NxBxHxWxC, at):
        w, node = at
        read_N = node["read"][1:].astype(x_BxHxWxC.dtype)
        # A product with zeros and ones: on CPU a sum of chosen states is slower.
        y = jnp.tensordot(read_N, state_NxBxHxWxC, 1, precision="highest")
        y = _vertex(conv, x_BxHxWxC, w, node, y)
        return state_NxBxHxWxC.at[node["place"]].set(y), None

    nothing = jnp.zeros((MAX_INTERIOR, *x_BxHxWxC.shape), x_BxHxWxC.dtype)
    state_NxBxHxWxC, _ = lax.scan(step, nothing, (interior, nodes))

    # States have zeros above their channels: rolled to its place in the output, each
    # can be added to the others.
    feeds_N = edge_VxV[1:-1, -1]
    start_N = jnp.cumsum(feeds_N * channel_N) - feeds_N * channel_N

    def concatenate(out, at):
        feeds, start, state = at

        def shifted(state):
            return jnp.roll(state, start, -1)

        return _add_if(feeds, out, shifted, state), None

    states = feeds_N, start_N, state_NxBxHxWxC
    out, _ = lax.scan(concatenate, jnp.zeros_like(x_BxHxWxC), states)
    project = partial(_project, conv, x_BxHxWxC)
    weights = w["project"][MAX_INTERIOR]
    return _add_if(edge_VxV[0, -1], out, project, weights), None


# The backward pass computes a vertex again: it would store arrays of all ops, the ops
# that are not chosen included.
@partial(jax.checkpoint, static_argnums=0)
def _vertex(
    conv: _Conv, x_BxHxWxC: jax.Array, w: Params, node: Params, y: jax.Array
) -> jax.Array:
    """Computes a vertex from ``y``, the sum of the interior vertices that feed it."""
    used_C = jnp.arange(y.shape[-1]) < node["channels"]
    mask_C = used_C.astype(y.dtype).reshape(1, 1, 1, -1)
    project = partial(_project, conv, x_BxHxWxC)
    y = _add_if(node["read"][0], y, project, w["project"]) * mask_C
    ops = [partial(op, conv) for op in _OPS]
    return lax.switch(node["op"], ops, w, y) * mask_C


def _project(conv: _Conv, x_BxHxWxC: jax.Array, w_CxC: jax.Array) -> jax.Array:
    return conv(x_BxHxWxC, w_CxC[None, None])


def _add_if(
    on: jax.Array,
    y: jax.Array,
    term: Callable[[jax.Array], jax.Array],
    operand: jax.Array,
) -> jax.Array:
    """Returns ``y + term(operand)``, or ``y`` where ``on`` is 0."""

    def add(y, operand):
        return y + term(operand)

    def keep(y, operand):
        return y

    return lax.cond(on > 0, add, keep, y, operand)
