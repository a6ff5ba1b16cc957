"""Cells as one call of C++, with their gradients."""

from functools import partial
from typing import NamedTuple, TypeAlias

import chex
import jax
import numpy as np

from jaxhypernas.numerics.cpu.library import call, result_like

NativeOp: TypeAlias = tuple[int, ...]
"""An op of a space, in the numbers that `parse` in cell.h reads.

They are the op's kind (0 skip, 1 average pool, 2 max pool, 3 layers), its number of
layers, and four numbers for each layer: kernel size and dilation of the depthwise
convolution, height and width of the dense kernel. Made by `layers`, or `SKIP`,
`AVERAGE_POOL`, `MAX_POOL`.
"""

SKIP: NativeOp = (0, 0)
"""The identity."""

AVERAGE_POOL: NativeOp = (1, 0)
"""`numerics.pooling.average_pool_3x3`."""

MAX_POOL: NativeOp = (2, 0)
"""`numerics.pooling.max_pool_3x3`."""

_LAYERS = 3


class Layer(NamedTuple):
    """ReLU, perhaps a depthwise convolution, a dense convolution, BatchNorm.

    Resolution and channels stay.
    """

    kernel: tuple[int, int] = (1, 1)
    """Height and width of the dense kernel, odd."""

    depthwise: int = 0
    """Height and width of the depthwise kernel, odd; 0: no depthwise convolution."""

    dilation: int = 1
    """Dilation of the depthwise convolution."""


def layers(*run: Layer) -> NativeOp:
    """Describes an op that runs layers one after the other.

    Args:
        *run: One layer or more. In `cell_states` each takes the weights of its
            depthwise convolution, if it has one, then those of its dense one.

    Returns:
        The op, for `NativeCell`.
    """
    numbers = [_LAYERS, len(run)]
    for layer in run:
        numbers += [layer.depthwise, layer.dilation, *layer.kernel]
    return tuple(numbers)


class NativeCell(NamedTuple):
    """The facts that all cells of a space share."""

    ops: tuple[NativeOp, ...]
    """The ops, in the order of the O axis."""

    inputs: int
    """Number of inputs, I: the first states."""

    write_N: tuple[int, ...]
    """The state that each node writes; never falls from one node to the next."""


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def cell_states(
    cell: NativeCell,
    op_NxO: jax.Array,
    read_NxS: jax.Array,
    weights: list[jax.Array],
    inputs_IxBxHxWxC: jax.Array,
) -> jax.Array:
    """Computes all states of a cell on one core.

    Args:
        cell: The facts that all cells of the space share; static.
        op_NxO: int32: 1 where the node applies the op.
        read_NxS: int32: how often the node reads the state.
        weights: Weights of all layers of all ops, in order, each with a leading axis
            N. Those of ops that a node does not apply get gradient 0.
        inputs_IxBxHxWxC: The cell's inputs, float32 or float64.

    Returns:
        The states, SxBxHxWxC; the first I are the inputs.
    """
    chex.assert_rank([op_NxO, read_NxS, inputs_IxBxHxWxC], [2, 2, 5])
    shape = (read_NxS.shape[1], *inputs_IxBxHxWxC.shape[1:])
    return call(
        "cell",
        result_like(inputs_IxBxHxWxC, shape),
        op_NxO,
        read_NxS,
        inputs_IxBxHxWxC,
        *weights,
        **_attributes(cell),
    )


def _attributes(cell: NativeCell) -> dict[str, np.ndarray]:
    ops = [number for op in cell.ops for number in op]
    return {
        "write": np.array(cell.write_N, np.int64),
        "ops": np.array(ops, np.int64),
    }


def _cell_states_fwd(
    cell: NativeCell,
    op_NxO: jax.Array,
    read_NxS: jax.Array,
    weights: list[jax.Array],
    inputs: jax.Array,
):
    states = cell_states(cell, op_NxO, read_NxS, weights, inputs)
    return states, (op_NxO, read_NxS, weights, states)


def _cell_states_bwd(cell: NativeCell, residuals: tuple, g_states: jax.Array):
    op_NxO, read_NxS, weights, states = residuals
    g_inputs_shape = (cell.inputs, *states.shape[1:])
    results = [
        result_like(states, g_inputs_shape),
        *(result_like(w) for w in weights),
    ]
    g_inputs, *g_weights = call(
        "cell_grad",
        results,
        op_NxO,
        read_NxS,
        states,
        g_states,
        *weights,
        **_attributes(cell),
    )
    # The architecture's integers have no gradient.
    return None, None, g_weights, g_inputs


cell_states.defvjp(_cell_states_fwd, _cell_states_bwd)
