"""Networks of cells, written for one architecture: the executor of all cell spaces (`spaces.cells` has the arrays).

Stem (3x3, BatchNorm), three stages of cells, BatchNorm, ReLU, global mean, linear. Deviations from the papers:
1. BatchNorm uses the statistics of the evaluated batch and has no affine parameters.
2. Projected stacks (PNAS, One-Shot) halve the resolution by pooling the inputs of a stage's first cell, not by strides
   inside it, and what it pools is brought to C channels by the 1x1 that every cell has (no factorised reduction).
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxhypernas.numerics import cpu, nn
from jaxhypernas.spaces.cells import STAGES, CellArch, CellConfig, CellStructure
from jaxhypernas.targets.ops import OPS
from jaxhypernas.types import Params, Target


def cell_network(
    structure: CellStructure,
    config: CellConfig,
    image: tuple[int, int, int],
    classes: int,
) -> Target:
    """The target for images of shape (H, W, C).

    Weights theta (G: states concatenated to a cell's output, 1 where they are added; c: channels of the stage):
        stem: 3 x 3 x image channels x G*C.
        cells[s][op]: cells x N x the op's own shapes, for each op with weights.
        reduce[s - 1] (residual): a, b: 3 x 3 kernels, skip: a 1x1. project[s] (projected): cells x I x G*c x c.
        head, bias: G*4C x classes, classes.
    """
    residual = structure.stack == "residual"
    width = 1 if residual else structure.written
    weight_spec, nodes = _weights(structure, config, image, classes)

    def apply(
        form: _Form, theta: Params, arch: CellArch, x_BxHxWxC: jax.Array
    ) -> jax.Array:
        x = form.conv_norm(x_BxHxWxC, theta["stem"], 1, False)
        before = (
            x,
        ) * structure.inputs  # the outputs of the last cells, newest first
        for s in range(STAGES):
            if s > 0 and residual:
                before = (_reduce(form, theta["reduce"][s - 1], before[0]),)
            elif s > 0:
                before = tuple(
                    _halve(b, width * config.channels * 2**s) for b in before
                )

            def step(before, w, s=s):
                inputs = before
                if not residual:
                    weights = w["project"][:, None, None]
                    inputs = [
                        form.conv_norm(b, p, 1, True)
                        for b, p in zip(before, weights, strict=True)
                    ]
                return (form.cell(arch, w["cell"], inputs), *before[:-1]), None

            xs = {"cell": theta["cells"][s]}
            if not residual:
                xs["project"] = theta["project"][s]
            before, _ = lax.scan(step, before, xs)
        x_BxC = jax.nn.relu(nn.batch_norm(before[0])).mean((1, 2))
        return x_BxC @ theta["head"] + theta["bias"][None]

    def target(cell, conv_norm, forms):
        of_paths, of_one = (
            _Form(partial(cell, s), conv_norm)
            for s in (structure.relaxed, structure)
        )
        return Target(
            weight_spec,
            partial(apply, of_one),
            nodes,
            partial(apply, of_paths),
            forms,
        )

    forms = {}
    if all(OPS[name].native for name in structure.ops):
        forms["native"] = target(_native, cpu.conv_norm, {})
    if structure.wiring_N is not None and all(
        OPS[name].kernel for name in structure.ops
    ):
        fused = _Form(
            jax.checkpoint(partial(_fused, structure)), nn.conv_affine_norm
        )
        forms["fused"] = target(_branching, nn.conv_norm, {})._replace(
            apply=partial(apply, fused)
        )
    return target(_branching, nn.conv_norm, forms)


def _weights(structure, config, image, classes):
    """The target's weight_spec and nodes."""
    N, V = len(structure.write_N), structure.inputs + len(structure.write_N) + 1
    residual = structure.stack == "residual"
    width = 1 if residual else structure.written
    channels = [config.channels * 2**s for s in range(STAGES)]

    def leaf(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    def stage(s):
        shapes = {name: OPS[name].shapes(channels[s]) for name in structure.ops}
        return {
            op: {
                name: leaf(config.cells, N, *shape)
                for name, shape in own.items()
            }
            for op, own in shapes.items()
            if own
        }

    weight_spec: dict = {
        "stem": leaf(3, 3, image[2], width * channels[0]),
        "cells": [stage(s) for s in range(STAGES)],
        "head": leaf(width * channels[-1], classes),
        "bias": leaf(classes),
    }
    if residual:
        weight_spec["reduce"] = [
            {
                "a": leaf(3, 3, c // 2, c),
                "b": leaf(3, 3, c, c),
                "skip": leaf(c // 2, c),
            }
            for c in channels[1:]
        ]
    else:
        weight_spec["project"] = [
            leaf(config.cells, structure.inputs, width * c, c) for c in channels
        ]
    nodes = jax.tree.map(lambda _: np.array(-1, np.int32), weight_spec)
    for s in range(STAGES):
        cells = s * config.cells + np.arange(config.cells)
        ids = cells[:, None] * V + structure.inputs + np.arange(N)[None]
        nodes["cells"][s] = jax.tree.map(
            lambda _, ids=ids: ids.astype(np.int32), nodes["cells"][s]
        )
    return weight_spec, nodes


class _Form(NamedTuple):
    """How a network runs."""

    cell: Callable[
        [CellArch, Params, Sequence[jax.Array]], jax.Array
    ]  # (arch, weights, inputs) -> its output
    conv_norm: Callable[
        [jax.Array, jax.Array, int, bool], jax.Array
    ]  # as `nn.conv_norm`


def _branching(structure, arch, w, inputs):
    """A cell node by node, each op a branch."""
    weight_NxR, read_NxR = lax.top_k(arch.read_NxS, structure.reads)
    nodes = {
        "op": arch.op_NxO,
        "chosen": jnp.where(
            arch.op_NxO.max(1) > 0, arch.op_NxO.argmax(1), len(structure.ops)
        ),
        "read": read_NxR,
        "weight": weight_NxR.astype(inputs[0].dtype),
        "write": jnp.array(structure.write_N, jnp.int32),
    }
    return _output(
        structure, arch, _states(structure, w, nodes, jnp.stack(inputs))
    )


def _output(structure, arch, states):
    if structure.stack == "residual":
        return jnp.tensordot(arch.out_S.astype(states.dtype), states, 1)
    return jnp.concatenate(list(states[structure.inputs :]), -1)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _states(structure, w, nodes, inputs_IxBxHxWxC):
    """All states of one cell, S x B x H x W x C. Its own VJP: states, and their gradients, are added to in place, and
    nothing else is kept: a state is complete before a node reads it, and what autodiff would keep of ops, it keeps of
    all, chosen or not."""

    def step(states, own):
        w, node = own
        states, x = lax.optimization_barrier(
            (states, _read(structure, node, states))
        )
        return states.at[node["write"]].add(_ops(structure, w, node, x)), None

    zeros = jnp.zeros(
        (structure.written, *inputs_IxBxHxWxC.shape[1:]), inputs_IxBxHxWxC.dtype
    )
    return lax.scan(
        step, jnp.concatenate([inputs_IxBxHxWxC, zeros]), (w, nodes)
    )[0]


def _read(structure, node, states):
    if structure.reads == 1:
        return states[node["read"][0]]
    return sum(
        node["weight"][r] * states[node["read"][r]]
        for r in range(structure.reads)
    )


def _states_fwd(structure, w, nodes, inputs):
    states = _states(structure, w, nodes, inputs)
    return states, (w, nodes, states)


def _states_bwd(structure, residuals, g_states):
    w, nodes, states = residuals

    def step(g_states, own):
        w, node = own
        g_states, g = lax.optimization_barrier(
            (g_states, g_states[node["write"]])
        )
        g_w, g_x = _ops_vjp(
            structure, w, node, _read(structure, node, states), g
        )
        for r in range(structure.reads):
            g_states = g_states.at[node["read"][r]].add(
                g_x if structure.reads == 1 else node["weight"][r] * g_x
            )
        return g_states, g_w

    g_states, g_w = lax.scan(step, g_states, (w, nodes), reverse=True)
    return g_w, None, g_states[: structure.inputs]


_states.defvjp(_states_fwd, _states_bwd)


def _ops(structure, w, node, x):
    """The sum of a node's ops: one branch if it has one op at most, else a branch for each."""
    branches = [partial(_op, name) for name in structure.ops]
    if structure.ops_at_once == 1:
        return lax.switch(
            node["chosen"], [*branches, lambda w, x: jnp.zeros_like(x)], w, x
        )
    y = jnp.zeros_like(x)
    for on, branch in zip(node["op"], branches, strict=True):
        y = lax.cond(
            on > 0,
            lambda y, w, x, f=branch: y + f(w, x),
            lambda y, w, x: y,
            y,
            w,
            x,
        )
    return y


def _ops_vjp(structure, w, node, x, g):
    """Gradients with respect to w and x."""
    branches = [partial(_op_vjp, name) for name in structure.ops]
    zero = jax.tree.map(jnp.zeros_like, (w, x))
    if structure.ops_at_once == 1:
        return lax.switch(
            node["chosen"], [*branches, lambda w, x, g: zero], w, x, g
        )
    total = zero
    for on, branch in zip(node["op"], branches, strict=True):
        total = lax.cond(
            on > 0,
            lambda total, *args, f=branch: jax.tree.map(
                jnp.add, total, f(*args)
            ),
            lambda total, *args: total,
            total,
            *(w, x, g),
        )
    return total


def _op(name, w, x):
    return OPS[name].apply(w.get(name, {}), x)


def _op_vjp(name, w, x, g):
    return jax.vjp(partial(_op, name), w, x)[1](g)


def _native(structure, arch, w, inputs):
    """A cell as one call of C++."""
    return _output(
        structure, arch, _native_states(structure, w, arch, jnp.stack(inputs))
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _native_states(structure, w, arch, inputs_IxBxHxWxC):
    return cpu.cell_states(
        *_description(structure),
        arch.op_NxO,
        arch.read_NxS,
        _listed(structure, w),
        inputs_IxBxHxWxC,
    )


def _description(structure):
    ops = np.array(
        [n for name in structure.ops for n in OPS[name].native], np.int64
    )
    return ops, np.array(structure.write_N, np.int64)


def _listed(structure, w):
    return [
        w[name][leaf] for name in structure.ops for leaf in OPS[name].shapes(1)
    ]


def _native_states_fwd(structure, w, arch, inputs):
    states = _native_states(structure, w, arch, inputs)
    return states, (w, arch, states)


def _native_states_bwd(structure, residuals, g_states):
    w, arch, states = residuals
    g_inputs, g_listed = cpu.cell_states_grad(
        *_description(structure),
        arch.op_NxO,
        arch.read_NxS,
        _listed(structure, w),
        structure.inputs,
        states,
        g_states,
    )
    of = iter(g_listed)
    g_w = {
        name: {leaf: next(of) for leaf in OPS[name].shapes(1)}
        for name in structure.ops
        if name in w
    }
    return g_w, None, g_inputs


_native_states.defvjp(_native_states_fwd, _native_states_bwd)


def _fused(structure, arch, w, inputs):
    """A cell wired like all others, state by state: one convolution for all nodes that read it."""
    C, ops = inputs[0].shape[-1], {name: OPS[name] for name in structure.ops}

    def kernel(w, op_O):  # selected, not the op's output
        kernels = [
            op.kernel(w.get(name, {}), C)
            for name, op in ops.items()
            if op.kernel
        ]
        return reduce(
            jnp.add,
            (
                on * kernel_3x3xCxC
                for on, kernel_3x3xCxC in zip(op_O, kernels, strict=True)
            ),
        )

    kernel_Nx3x3xCxC = jax.vmap(kernel)(w, arch.op_NxO.astype(inputs[0].dtype))
    weighted_N = (
        arch.op_NxO
        @ np.array([bool(op.shapes(C)) for op in ops.values()], np.int32)
        > 0
    )
    mean_N = (
        arch.op_NxO @ np.array([op.mean for op in ops.values()], np.int32) > 0
    )
    states = [*inputs, *[0] * structure.written]
    for state in range(structure.states - 1):
        readers = np.flatnonzero(np.array(structure.wiring_N) == state)
        of_readers = (
            v[readers] for v in (kernel_Nx3x3xCxC, weighted_N, mean_N)
        )
        for node, y in zip(
            readers, _fused_nodes(states[state], *of_readers), strict=True
        ):
            states[structure.write_N[node]] += y
    return states[-1]


def _fused_nodes(x, kernel_Nx3x3xCxC, weighted_N, mean_N):
    """The ops, or none, of nodes that read the same: N arrays."""
    of_relu = jnp.where(
        weighted_N[:, None, None, None, None], kernel_Nx3x3xCxC, 0
    )  # what ops with weights read
    kernel_Nx3x3x2CxC = jnp.concatenate(
        [of_relu, kernel_Nx3x3xCxC - of_relu], 3
    )
    N, _, _, inputs, C = kernel_Nx3x3x2CxC.shape
    kernel = jnp.moveaxis(kernel_Nx3x3x2CxC, 0, 3).reshape(3, 3, inputs, N * C)
    y_BxHxWxNC = nn.conv(jnp.concatenate([jax.nn.relu(x), x], -1), kernel)
    weighted = jnp.repeat(weighted_N, C)[None, None, None]
    affine = (
        jnp.where(weighted, v, plain)
        for v, plain in zip(nn.affine_norm(y_BxHxWxNC), (1, 0), strict=True)
    )
    # Node by node, where outputs are added to states: all of them normalised would be an array more to write and read.
    nodes = zip(
        mean_N,
        *(jnp.split(v, N, -1) for v in (y_BxHxWxNC, *affine)),
        strict=True,
    )
    count = nn.window_count(x)
    return [
        y * (1 / jnp.where(mean, count, 1)) * factor + summand
        for mean, y, factor, summand in nodes
    ]


def _reduce(form, w, x):
    """NAS-Bench-201's residual block with stride 2."""
    y = form.conv_norm(x, w["a"], 2, True)
    y = form.conv_norm(y, w["b"], 1, True)
    return y + nn.average_pool(x) @ w["skip"]


def _halve(x, channels):
    """Pooled, with channels of zeros added: what the cells of the next stage take."""
    return jnp.pad(
        nn.average_pool(x),
        ((0, 0), (0, 0), (0, 0), (0, channels - x.shape[-1])),
    )
