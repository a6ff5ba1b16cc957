"""Networks of cells, written for one architecture, for all spaces of `archs.cells`.

Stem (3x3 convolution, BatchNorm), three stages of cells, BatchNorm, ReLU, global mean,
linear. Deviations from the papers:

1. BatchNorm uses the statistics of the evaluated batch and has no affine parameters.
2. Projected stacks (PNAS, One-Shot) halve the resolution by pooling the inputs of a
   stage's first cell, not by strides inside it. The 1x1 that every cell has brings the
   pooled inputs to C channels; there is no factorised reduction.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxhypernas.archs.cells import STAGES, CellArch, CellStructure
from jaxhypernas.archs.sizes import CellConfig
from jaxhypernas.numerics import cpu
from jaxhypernas.numerics.normalisation import (
    batch_norm,
    conv_affine_norm,
    conv_norm,
)
from jaxhypernas.numerics.pooling import average_pool
from jaxhypernas.targets.cell_forms import branching, fused, native
from jaxhypernas.targets.head import with_head
from jaxhypernas.targets.modules.cell import cell_module
from jaxhypernas.targets.ops import OPS
from jaxhypernas.types import ImageShape, Params, Target, WeightSpec


class _Form(NamedTuple):
    """One way to compute a network."""

    cell: Callable[[CellArch, Params, Sequence[jax.Array]], jax.Array]
    """``cell(arch, weights, inputs)``: the output of a cell."""

    conv_norm: Callable[[jax.Array, jax.Array, int, bool], jax.Array]
    """`normalisation.conv_norm`, or a function equal to it."""


def cell_network(
    structure: CellStructure,
    config: CellConfig,
    image: ImageShape,
    classes: int,
) -> Target:
    """Builds the target of a space of cells.

    Its weights theta, with c the channels of the stage and W the states that are
    concatenated to a cell's output (1 where output states are added)::

        stem            3 x 3 x image channels x W*C
        cells[s][op]    cells x N x the op's own shapes, for each op with weights
        reduce[s - 1]   residual stacks: kernels "a" and "b", 3 x 3, and "skip", a 1x1
        project[s]      projected stacks: cells x I x W*c x c
        head            W*4C x classes
        bias            classes

    Example::

        ops = ("skip_connect", "nor_conv_3x3")
        chain = CellStructure(ops, 1, (1, 2), 1, 1, "residual", wiring_N=(0, 1))
        target = cell_network(chain, CellConfig(channels=8), (32, 32, 3), 10)

    Args:
        structure: The facts that all cells of the space share; its ops are in
            `ops.OPS`.
        config: Channels of the first stage, and cells per stage.
        image: Height, width and channels of the images.
        classes: Number of classes.

    Returns:
        The target. Its forms: "native", where C++ has all ops; "fused", where all
        cells are wired alike and all ops are one 3x3 convolution.
    """
    weight_spec = _weight_spec(structure, config, image, classes)
    nodes = _nodes(structure, config, weight_spec)

    def module(arch, theta):
        return cell_module(structure, config, image, classes, arch, theta)

    def network(cell, norm):
        return partial(_features, structure, config, _Form(cell, norm))

    def target(cell, norm, forms):
        features = network(partial(cell, structure), norm)
        relaxed = network(partial(cell, structure.relaxed), norm)
        return Target(
            weight_spec,
            with_head(features),
            nodes,
            with_head(relaxed),
            forms,
            module,
            features,
        )

    ops = [OPS[name] for name in structure.ops]
    forms = {}
    if all(op.native for op in ops):
        forms["native"] = target(native, cpu.conv_norm, {})
    if structure.wiring_N is not None and all(op.kernel for op in ops):
        # Recomputed in the backward pass, so that only a cell's inputs are kept.
        cell = jax.checkpoint(partial(fused, structure))
        features = network(cell, conv_affine_norm)
        forms["fused"] = target(branching, conv_norm, {})._replace(
            apply=with_head(features), features=features
        )
    return target(branching, conv_norm, forms)


def _weight_spec(
    structure: CellStructure,
    config: CellConfig,
    image: ImageShape,
    classes: int,
) -> WeightSpec:
    N = len(structure.write_N)
    residual = structure.stack == "residual"
    width = _width(structure)
    channels = [config.channels * 2**s for s in range(STAGES)]

    def leaf(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    def stage(C):
        weights = {}
        for name in structure.ops:
            shapes = OPS[name].shapes(C)
            if shapes:
                weights[name] = {
                    own: leaf(config.cells, N, *shape)
                    for own, shape in shapes.items()
                }
        return weights

    def reduction(C):
        return {
            "a": leaf(3, 3, C // 2, C),
            "b": leaf(3, 3, C, C),
            "skip": leaf(C // 2, C),
        }

    weight_spec: WeightSpec = {
        "stem": leaf(3, 3, image[2], width * channels[0]),
        "cells": [stage(C) for C in channels],
        "head": leaf(width * channels[-1], classes),
        "bias": leaf(classes),
    }
    if residual:
        weight_spec["reduce"] = [reduction(C) for C in channels[1:]]
    else:
        weight_spec["project"] = [
            leaf(config.cells, structure.inputs, width * C, C)
            for C in channels
        ]
    return weight_spec


def _width(structure: CellStructure) -> int:
    """Channels of a cell's output, in channels of its stage."""
    return 1 if structure.stack == "residual" else structure.written


def _nodes(
    structure: CellStructure, config: CellConfig, weight_spec: WeightSpec
) -> WeightSpec:
    """`Target.nodes`: a cell's graph has its inputs, N op nodes and its output."""
    N = len(structure.write_N)
    vertices = structure.inputs + N + 1
    nodes = jax.tree.map(lambda _: np.array(-1, np.int32), weight_spec)
    for s in range(STAGES):
        cells = s * config.cells + np.arange(config.cells)
        first = cells[:, None] * vertices + structure.inputs
        ids = (first + np.arange(N)[None]).astype(np.int32)
        nodes["cells"][s] = jax.tree.map(
            lambda _, ids=ids: ids, nodes["cells"][s]
        )
    return nodes


def _features(
    structure: CellStructure,
    config: CellConfig,
    form: _Form,
    theta: Params,
    arch: CellArch,
    x_BxHxWxC: jax.Array,
) -> jax.Array:
    """Activations before the last layer: `Target.features`."""
    chex.assert_rank(x_BxHxWxC, 4)
    residual = structure.stack == "residual"
    x = form.conv_norm(x_BxHxWxC, theta["stem"], 1, False)

    # Outputs of the cells before, the newest first; the stem stands for cells that
    # are not there.
    before = (x,) * structure.inputs
    for s in range(STAGES):
        if s > 0 and residual:
            before = (_reduce(form, theta["reduce"][s - 1], before[0]),)
        elif s > 0:
            channels = _width(structure) * config.channels * 2**s
            before = tuple(_halve(b, channels) for b in before)

        def run_cell(before, w):
            inputs = before
            if not residual:
                weights = w["project"][:, None, None]
                inputs = [
                    form.conv_norm(b, p, 1, True)
                    for b, p in zip(before, weights, strict=True)
                ]
            return (form.cell(arch, w["cell"], inputs), *before[:-1]), None

        weights = {"cell": theta["cells"][s]}
        if not residual:
            weights["project"] = theta["project"][s]
        before, _ = lax.scan(run_cell, before, weights)

    return jax.nn.relu(batch_norm(before[0]))


def _reduce(form: _Form, w: Params, x: jax.Array) -> jax.Array:
    """NAS-Bench-201's residual block with stride 2."""
    y = form.conv_norm(x, w["a"], 2, True)
    y = form.conv_norm(y, w["b"], 1, True)
    return y + average_pool(x) @ w["skip"]


def _halve(x: jax.Array, channels: int) -> jax.Array:
    """Pools a cell's output; channels of zeros make up those of the next stage."""
    missing = channels - x.shape[-1]
    return jnp.pad(average_pool(x), ((0, 0), (0, 0), (0, 0), (0, missing)))
