"""A cell of one architecture, computed in three ways that are equal to rounding.

``branching`` runs on every platform, ``native`` is C++ on CPU, ``fused`` computes one
convolution whatever the ops. Each takes a cell's weights by op and by name, with the
nodes along the leading axis, and its inputs, and returns its output.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxhypernas.archs.cells import CellArch, CellStructure
from jaxhypernas.numerics import cpu
from jaxhypernas.numerics.convolution import conv
from jaxhypernas.numerics.normalisation import affine_norm
from jaxhypernas.numerics.pooling import window_count
from jaxhypernas.targets.ops import OPS
from jaxhypernas.types import Params


def _output(
    structure: CellStructure, arch: CellArch, states_SxBxHxWxC: jax.Array
) -> jax.Array:
    """The output of a cell: the sum of its output states, or all written states."""
    if structure.stack == "residual":
        out_S = arch.out_S.astype(states_SxBxHxWxC.dtype)
        return jnp.tensordot(out_S, states_SxBxHxWxC, 1)
    return jnp.concatenate(list(states_SxBxHxWxC[structure.inputs :]), -1)


def native(
    structure: CellStructure,
    arch: CellArch,
    weights: Params,
    inputs: Sequence[jax.Array],
) -> jax.Array:
    """Computes a cell as one call of C++.

    Args:
        structure: The facts that all cells of the space share.
        arch: The cell.
        weights: ``weights[op][name]``, each N x ....
        inputs: The cell's inputs, each BxHxWxC.

    Returns:
        The cell's output, BxHxWxC; C times the written states in projected stacks.
    """
    ops = [OPS[name] for name in structure.ops]
    cell = cpu.NativeCell(
        ops=tuple(op.native for op in ops if op.native),
        inputs=structure.inputs,
        write_N=structure.write_N,
    )
    listed = [
        weights[name][leaf]
        for name, op in zip(structure.ops, ops, strict=True)
        for leaf in op.shapes(1)
    ]
    states = cpu.cell_states(
        cell, arch.op_NxO, arch.read_NxS, listed, jnp.stack(inputs)
    )
    return _output(structure, arch, states)


def branching(
    structure: CellStructure,
    arch: CellArch,
    weights: Params,
    inputs: Sequence[jax.Array],
) -> jax.Array:
    """Computes a cell node by node; each op is a branch.

    Under ``vmap`` over architectures every branch is computed.

    Args:
        structure: The facts that all cells of the space share.
        arch: The cell.
        weights: ``weights[op][name]``, each N x ....
        inputs: The cell's inputs, each BxHxWxC.

    Returns:
        The cell's output, BxHxWxC; C times the written states in projected stacks.
    """
    weight_NxR, read_NxR = lax.top_k(arch.read_NxS, structure.reads)
    # The branch of nodes without an op comes after those of all ops.
    no_op = len(structure.ops)
    nodes = {
        "op": arch.op_NxO,
        "chosen": jnp.where(
            arch.op_NxO.max(1) > 0, arch.op_NxO.argmax(1), no_op
        ),
        "read": read_NxR,
        "weight": weight_NxR.astype(inputs[0].dtype),
        "write": jnp.array(structure.write_N, jnp.int32),
    }
    states = _states(structure, weights, nodes, jnp.stack(inputs))
    return _output(structure, arch, states)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _states(
    structure: CellStructure,
    weights: Params,
    nodes: dict[str, jax.Array],
    inputs_IxBxHxWxC: jax.Array,
) -> jax.Array:
    """All states of one cell, SxBxHxWxC.

    Its own VJP adds to states, and to their gradients, in place, and keeps nothing but
    the states: a state is complete before a node reads it. Autodiff would keep the
    intermediate results of every op, chosen or not.
    """

    def step(states, own):
        w, node = own
        # The barrier lets XLA write into the states in place: it reads them before.
        states, x = lax.optimization_barrier(
            (states, _read(structure, node, states))
        )
        return states.at[node["write"]].add(_ops(structure, w, node, x)), None

    zeros = jnp.zeros(
        (structure.written, *inputs_IxBxHxWxC.shape[1:]),
        inputs_IxBxHxWxC.dtype,
    )
    states = jnp.concatenate([inputs_IxBxHxWxC, zeros])
    return lax.scan(step, states, (weights, nodes))[0]


def _states_fwd(
    structure: CellStructure,
    weights: Params,
    nodes: dict[str, jax.Array],
    inputs: jax.Array,
):
    states = _states(structure, weights, nodes, inputs)
    return states, (weights, nodes, states)


def _states_bwd(
    structure: CellStructure, residuals: tuple, g_states: jax.Array
):
    weights, nodes, states = residuals

    def step(g_states, own):
        w, node = own
        g_states, g = lax.optimization_barrier(
            (g_states, g_states[node["write"]])
        )
        x = _read(structure, node, states)
        g_w, g_x = _ops_gradient(structure, w, node, x, g)
        for r in range(structure.reads):
            g_read = g_x if structure.reads == 1 else node["weight"][r] * g_x
            g_states = g_states.at[node["read"][r]].add(g_read)
        return g_states, g_w

    g_states, g_w = lax.scan(step, g_states, (weights, nodes), reverse=True)
    return g_w, None, g_states[: structure.inputs]


_states.defvjp(_states_fwd, _states_bwd)


def _read(
    structure: CellStructure, node: dict[str, jax.Array], states: jax.Array
) -> jax.Array:
    """The sum of the states that a node reads."""
    if structure.reads == 1:
        return states[node["read"][0]]
    weighted = (
        node["weight"][r] * states[node["read"][r]]
        for r in range(structure.reads)
    )
    # The sum begins with the number 0: zeros of a state would be one more array.
    total: Any = sum(weighted)
    return total


def _ops(
    structure: CellStructure,
    w: Params,
    node: dict[str, jax.Array],
    x: jax.Array,
) -> jax.Array:
    """The sum of the ops that a node applies to x."""
    branches = [partial(_apply_op, name) for name in structure.ops]

    def nothing(w, x):
        return jnp.zeros_like(x)

    return _sum_of_branches(structure, node, branches, nothing, w, x)


def _ops_gradient(
    structure: CellStructure,
    w: Params,
    node: dict[str, jax.Array],
    x: jax.Array,
    g: jax.Array,
) -> tuple[Params, jax.Array]:
    """Gradients of `_ops` with respect to w and x."""

    def gradient(name, w, x, g):
        return jax.vjp(partial(_apply_op, name), w, x)[1](g)

    branches = [partial(gradient, name) for name in structure.ops]

    def nothing(w, x, g):
        return jax.tree.map(jnp.zeros_like, (w, x))

    return _sum_of_branches(structure, node, branches, nothing, w, x, g)


def _apply_op(name: str, w: Params, x: jax.Array) -> jax.Array:
    return OPS[name].apply(w.get(name, {}), x)


def _sum_of_branches(
    structure: CellStructure,
    node: dict[str, jax.Array],
    branches: Sequence[Callable[..., Any]],
    nothing: Callable[..., Any],
    *operands: Any,
) -> Any:
    """Adds the results of the branches of the ops that a node applies.

    A node with at most one op is one switch, otherwise each op is a conditional.
    """
    if structure.ops_at_once == 1:
        return lax.switch(node["chosen"], [*branches, nothing], *operands)

    def skip(total, *operands):
        return total

    total = nothing(*operands)
    for applies, branch in zip(node["op"], branches, strict=True):

        def add(total, *operands, branch=branch):
            return jax.tree.map(jnp.add, total, branch(*operands))

        total = lax.cond(applies > 0, add, skip, total, *operands)
    return total


def fused(
    structure: CellStructure,
    arch: CellArch,
    weights: Params,
    inputs: Sequence[jax.Array],
) -> jax.Array:
    """Computes a cell whose space fixes the wiring, state by state.

    All nodes that read a state become one 3x3 convolution of it, whatever their ops.

    Args:
        structure: The facts that all cells of the space share, with ``wiring_N``.
        arch: The cell; each node applies at most one op.
        weights: ``weights[op][name]``, each N x ....
        inputs: The cell's inputs, each BxHxWxC.

    Returns:
        The cell's output, its last state, BxHxWxC.
    """
    C = inputs[0].shape[-1]
    ops = {name: OPS[name] for name in structure.ops}

    # The kernel of the chosen op is selected, rather than the op's output.
    def kernel(w, op_O):
        kernels = [
            op.kernel(w.get(name, {}), C)
            for name, op in ops.items()
            if op.kernel
        ]
        selected = (
            applies * kernel_3x3xCxC
            for applies, kernel_3x3xCxC in zip(op_O, kernels, strict=True)
        )
        return reduce(jnp.add, selected)

    op_NxO = jnp.asarray(arch.op_NxO)
    kernel_Nx3x3xCxC = jax.vmap(kernel)(
        weights, op_NxO.astype(inputs[0].dtype)
    )
    has_weights_O = np.array(
        [bool(op.shapes(C)) for op in ops.values()], np.int32
    )
    is_mean_O = np.array([op.mean for op in ops.values()], np.int32)
    weighted_N = op_NxO @ has_weights_O > 0
    mean_N = op_NxO @ is_mean_O > 0

    states: list[Any] = [*inputs, *[0] * structure.written]
    for state in range(structure.states - 1):
        readers = np.flatnonzero(np.array(structure.wiring_N) == state)
        outputs = _fused_nodes(
            states[state],
            kernel_Nx3x3xCxC[readers],
            weighted_N[readers],
            mean_N[readers],
        )
        for node, y in zip(readers, outputs, strict=True):
            states[structure.write_N[node]] += y
    return states[-1]


def _fused_nodes(
    x: jax.Array,
    kernel_Nx3x3xCxC: jax.Array,
    weighted_N: jax.Array,
    mean_N: jax.Array,
) -> list[jax.Array]:
    """Outputs of N nodes that read the same state."""
    # Ops with weights read the ReLU of x, the others x itself: the convolution reads
    # both, and one of the two kernels is 0.
    weighted_Nx1x1x1x1 = weighted_N[:, None, None, None, None]
    of_relu = jnp.where(weighted_Nx1x1x1x1, kernel_Nx3x3xCxC, 0)
    of_x = kernel_Nx3x3xCxC - of_relu
    kernel_Nx3x3x2CxC = jnp.concatenate([of_relu, of_x], 3)
    N, _, _, inputs, C = kernel_Nx3x3x2CxC.shape
    kernel = jnp.moveaxis(kernel_Nx3x3x2CxC, 0, 3).reshape(3, 3, inputs, N * C)
    y_BxHxWxNC = conv(jnp.concatenate([jax.nn.relu(x), x], -1), kernel)

    # Only ops with weights are normalised.
    weighted = jnp.repeat(weighted_N, C)[None, None, None]
    factor, summand = affine_norm(y_BxHxWxNC)
    factor = jnp.where(weighted, factor, 1)
    summand = jnp.where(weighted, summand, 0)

    # Normalised node by node, where outputs are added to states: normalising all of
    # them together would write and read one more array.
    nodes = zip(
        mean_N,
        *(jnp.split(v, N, -1) for v in (y_BxHxWxNC, factor, summand)),
        strict=True,
    )
    count = window_count(x)
    return [
        y * (1 / jnp.where(mean, count, 1)) * factor + summand
        for mean, y, factor, summand in nodes
    ]
