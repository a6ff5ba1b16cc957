"""Exact counts of networks of cells: weights, and multiply-adds for one image.

Counts include the scale and shift of BatchNorm, as the published tables do (the
networks here have none), and the multiply-adds of convolutions and linear layers.
"""

import itertools
from collections.abc import Callable
from functools import partial

import numpy as np

from jaxhypernas.archs.cells import STAGES, CellArch, CellStructure
from jaxhypernas.archs.sizes import CellConfig
from jaxhypernas.types import Cost, ImageShape

_Count = Callable[[int], tuple[int, int]]


def _nothing(channels: int) -> tuple[int, int]:
    return 0, 0


def _dense(height: int, width: int, times: int = 1) -> _Count:
    """Counts convolutions, each followed by a BatchNorm."""

    def count(channels: int) -> tuple[int, int]:
        kernel = height * width * channels * channels
        return times * (kernel + 2 * channels), times * kernel

    return count


def _separable(size: int, times: int) -> _Count:
    """Counts depthwise and 1x1 convolutions, each pair followed by a BatchNorm."""

    def count(channels: int) -> tuple[int, int]:
        kernels = size**2 * channels + channels * channels
        return times * (kernels + 2 * channels), times * kernels

    return count


OP_COSTS: dict[str, _Count] = {
    "skip_connect": _nothing,
    "nor_conv_1x1": _dense(1, 1),
    "nor_conv_3x3": _dense(3, 3),
    "avg_pool_3x3": _nothing,
    "max_pool_3x3": _nothing,
    "sep_conv_3x3": _separable(3, 2),
    "sep_conv_5x5": _separable(5, 2),
    "sep_conv_7x7": _separable(7, 2),
    "dil_conv_3x3": _separable(3, 1),
    "dil_conv_5x5": _separable(5, 1),
    "conv_1x7_7x1": _dense(1, 7, times=2),
}
"""``OP_COSTS[name](channels)``: an op's weights and its multiply-adds per position."""


def cost(
    structure: CellStructure,
    config: CellConfig,
    image: ImageShape,
    classes: int,
    arch: CellArch,
) -> Cost:
    """Counts the weights and multiply-adds of networks of cells.

    Args:
        structure: The structure of the space's cells.
        config: Channels and cells of the network.
        image: Height, width and channels of an image.
        classes: Number of classes.
        arch: A cell, or a population: any leading axes.

    Returns:
        int64 counts with the leading axes of ``arch``.
    """
    op_NxO = np.asarray(arch.op_NxO, np.int64)
    live_N, live_I = _live(structure, arch)
    count = partial(_count, structure, config, image, classes)

    all_I = np.ones(live_I.shape, np.int64)
    params, flops, _ = count(op_NxO.sum(-2), all_I)
    live_op_NxO = op_NxO * live_N[..., None]
    live = count(live_op_NxO.sum(-2), live_I.astype(np.int64))
    return Cost(params, flops, *live)


def _live(
    structure: CellStructure, arch: CellArch
) -> tuple[np.ndarray, np.ndarray]:
    """Finds live nodes and inputs: bool [..., N] and [..., I].

    A node is live if it lies on a path from an input to the output; an input is live if
    a live node, or the output, reads it.
    """
    op_NxO, read_NxS, out_S = (np.array(x, bool) for x in arch)
    active_N = np.asarray(op_NxO.any(-1))
    order = list(enumerate(structure.write_N))

    reached_S = np.zeros(out_S.shape, bool)
    reached_S[..., : structure.inputs] = True
    from_input_N = np.zeros(active_N.shape, bool)
    for n, state in order:
        reads = (read_NxS[..., n, :] & reached_S).any(-1)
        from_input_N[..., n] = active_N[..., n] & reads
        reached_S[..., state] |= from_input_N[..., n]

    needed_S = out_S.copy()
    to_output_N = np.zeros(active_N.shape, bool)
    for n, state in reversed(order):
        to_output_N[..., n] = active_N[..., n] & needed_S[..., state]
        needed_S |= to_output_N[..., n, None] & read_NxS[..., n, :]

    live_N = from_input_N & to_output_N
    used_S = out_S | (live_N[..., None] & read_NxS).any(-2)
    return live_N, used_S[..., : structure.inputs]


def _count(
    structure: CellStructure,
    config: CellConfig,
    image: ImageShape,
    classes: int,
    uses_O: np.ndarray,
    project_I: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts weights and multiply-adds of a network, and multiply-adds of its cells.

    Each of its cells applies op o ``uses_O[o]`` times. In projected stacks it projects
    input i if ``project_I[i]`` is 1.
    """
    residual = structure.stack == "residual"
    # Channels of a cell's output, in channels of its stage.
    width = 1 if residual else structure.written

    C = config.channels
    area = image[0] * image[1]
    lead = uses_O.shape[:-1]
    stem = np.full(lead, image[2] * 9 * width * C, np.int64)
    params = stem + 2 * width * C
    flops = stem * area
    cell_flops = np.zeros(lead, np.int64)

    for stage in range(STAGES):
        C = config.channels * 2**stage
        area = image[0] * image[1] // 4**stage
        costs = [OP_COSTS[name](C) for name in structure.ops]
        ops_2 = uses_O @ np.array(costs, np.int64)
        params = params + config.cells * ops_2[..., 0]
        cell_flops = cell_flops + config.cells * ops_2[..., 1] * area

        if residual and stage > 0:
            block = 9 * (C // 2) * C + 9 * C * C + C // 2 * C
            params = params + block + 4 * C
            flops = flops + block * area

        if not residual:
            back = range(structure.inputs)
            for cell, i in itertools.product(range(config.cells), back):
                # The cell that made this input; numbers below 0 are the stem.
                source = stage * config.cells + cell - 1 - i
                source_stage = max(source // config.cells, 0)
                source_channels = width * config.channels * 2**source_stage
                weights = source_channels * project_I[..., i] * C
                params = params + weights + 2 * project_I[..., i] * C
                cell_flops = cell_flops + weights * area

    head = width * C * classes
    params = params + 2 * width * C + head + classes
    return params, flops + cell_flops + head, cell_flops
