"""What all cell spaces share: a cell as integer arrays, its graph, its counts, the stack of cells that makes a network.

A cell has S states: its inputs, then those that its N op nodes write. A node takes the sum of the states it reads,
applies its ops (one, or several that are added; none gives zero) and adds the result to the state it writes. The states
marked in ``out_S`` are the cell's output. What a node writes is fixed by the space and nodes are
in topological order, so that every candidate runs through one program.

Networks have three stages of C, 2C and 4C channels, each half the resolution of the one before. Counts include
BatchNorm's scale and shift, as the published tables do (the networks here have none), and multiply-adds of
convolutions and linear layers.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.types import Array, Cost, Graph, UserError

STAGES = 3
MOST = {
    "channels": 10_000,
    "cells": 1000,
    "nodes": 1000,
    "train_nodes": 1000,
}  # a typing error asks for more


@dataclass(frozen=True)
class CellConfig:
    """The size of a network of cells."""

    channels: int = 16  # C: of the first stage
    cells: int = 5  # N: per stage; in projected stacks a later stage's first is the reduction cell
    nodes: int = 7  # of a cell, where the space leaves it open (ghn)
    train_nodes: int = (
        0  # ... and of those that the generator is trained on; 0: as many
    )

    def __post_init__(self):
        for name, value in vars(self).items():
            if not (name != "train_nodes") <= value <= MOST[name]:
                raise UserError(
                    f"cells.{name}: {value} must be at least 1 and at most {MOST[name]}"
                )


class CellArch(NamedTuple):
    """One cell."""

    op_NxO: Array  # 1 where the node applies the op
    read_NxS: Array  # 1 where the node reads the state
    out_S: Array  # 1 where the state is part of the output


class CellStructure(NamedTuple):
    """What all cells of a space have in common."""

    ops: tuple[str, ...]  # names in OP_COSTS, and in the target's ops
    inputs: int  # 1: the cell before; 2: the one before that, too
    write_N: tuple[int, ...]  # the state that each node writes, never falling
    reads: int  # states that a node reads at most; one that applies an op reads one at least
    ops_at_once: int  # ops that it applies at most
    stack: Literal["residual", "projected"]
    # residual (NAS-Bench-201): output states are added; between stages a residual block halves the resolution.
    # projected (NASNet): all written states are concatenated; a 1x1 brings each input of a cell to C channels; the
    # first cell of a later stage takes inputs that are pooled to its resolution.
    wiring_N: tuple[int, ...] | None = (
        None  # where all cells are wired alike, from one input to the last state: the
    )
    # state that each node reads

    @property
    def states(self) -> int:
        """S."""
        return max(self.write_N) + 1

    @property
    def relaxed(self) -> "CellStructure":
        """That of the one-shot network: nodes read and apply anything at once."""
        return self._replace(reads=self.states, ops_at_once=len(self.ops))

    @property
    def written(self) -> int:
        """States that are written: those that may be concatenated."""
        return self.states - self.inputs


def _conv(kernel_h: int, kernel_w: int) -> Callable[[int], tuple[int, int]]:
    return lambda C: (
        kernel_h * kernel_w * C * C + 2 * C,
        kernel_h * kernel_w * C * C,
    )


def _separable(kernel: int, times: int) -> Callable[[int], tuple[int, int]]:
    return lambda C: (
        times * (kernel**2 * C + C * C + 2 * C),
        times * (kernel**2 * C + C * C),
    )


OP_COSTS: dict[
    str, Callable[[int], tuple[int, int]]
] = {  # C -> parameters, multiply-adds per position
    "skip_connect": lambda C: (0, 0),
    "nor_conv_1x1": _conv(1, 1),
    "nor_conv_3x3": _conv(3, 3),
    "avg_pool_3x3": lambda C: (0, 0),
    "max_pool_3x3": lambda C: (0, 0),
    "sep_conv_3x3": _separable(3, 2),
    "sep_conv_5x5": _separable(5, 2),
    "sep_conv_7x7": _separable(7, 2),
    "dil_conv_3x3": _separable(3, 1),
    "dil_conv_5x5": _separable(5, 1),
    "conv_1x7_7x1": lambda C: (14 * C * C + 4 * C, 14 * C * C),
}


def check_image(image: tuple[int, int, int]) -> None:
    """Raise UserError if images (H, W, C) cannot be halved twice."""
    if image[0] % 4 or image[1] % 4 or min(image[:2]) < 4:
        raise UserError(
            f"space: images of {image[0]}x{image[1]}: height and width must be multiples of 4"
        )


def graph(structure: CellStructure, arch: CellArch) -> Graph:
    """The cell's graph: inputs, op nodes, output. Columns of op_NxO: input, output, then the space's ops."""
    I, N, S = structure.inputs, len(structure.write_N), structure.states
    V, write = I + N + 1, np.array(structure.write_N)
    made_SxV = np.zeros((S, V), np.int32)  # which nodes make a state
    made_SxV[np.arange(I), np.arange(I)] = 1
    made_SxV[write, I + np.arange(N)] = 1
    active_N = jnp.asarray(arch.op_NxO).max(1)
    exists_V = jnp.concatenate(
        [jnp.ones(I, jnp.int32), active_N, jnp.zeros(1, jnp.int32)]
    )
    made_SxV = jnp.asarray(made_SxV) * exists_V[None]
    readers_QxS = jnp.concatenate(
        [arch.read_NxS * active_N[:, None], jnp.asarray(arch.out_S)[None]]
    )
    edge_VxV = (
        jnp.zeros((V, V), jnp.int32)
        .at[I:]
        .set((readers_QxS @ made_SxV > 0).astype(jnp.int32))
    )
    op_VxO = jnp.zeros((V, 2 + len(structure.ops)), jnp.int32)
    op_VxO = (
        op_VxO.at[:I, 0]
        .set(1)
        .at[V - 1, 1]
        .set(1)
        .at[I : I + N, 2:]
        .set(arch.op_NxO)
    )
    return Graph(op_VxO, edge_VxV, jnp.ones(V, jnp.int32))


def live(
    structure: CellStructure, arch: CellArch
) -> tuple[np.ndarray, np.ndarray]:
    """Which nodes lie on a path from an input to the output, and which inputs (bool, [..., N] and [..., I]).

    Inputs of a cell are live in the sense that some live node, or the output, reads them.
    """
    op, read, out = (np.array(x, bool) for x in arch)
    active = np.asarray(op.any(-1))
    reached = np.zeros(out.shape, bool)
    reached[..., : structure.inputs] = True
    from_input = np.zeros(active.shape, bool)
    for n, state in enumerate(structure.write_N):
        from_input[..., n] = active[..., n] & (read[..., n, :] & reached).any(
            -1
        )
        reached[..., state] |= from_input[..., n]
    needed, to_output = out.copy(), np.zeros(active.shape, bool)
    for n, state in reversed(list(enumerate(structure.write_N))):
        to_output[..., n] = active[..., n] & needed[..., state]
        needed |= to_output[..., n, None] & read[..., n, :]
    alive = from_input & to_output
    used = out | (alive[..., None] & read).any(-2)
    return alive, used[..., : structure.inputs]


def keep_paths(key, paths_NxK, rate):
    """Each row's k marked paths, every one dropped with probability rate^(1/k) (Bender et al. 2018, section 3.2)."""
    k_Nx1 = jnp.maximum(paths_NxK.sum(-1, keepdims=True), 1).astype(jnp.float32)
    dropped_NxK = jax.random.uniform(key, paths_NxK.shape) < rate ** (1 / k_Nx1)
    return jnp.where(dropped_NxK, 0, paths_NxK).astype(jnp.int32)


def cost(
    structure: CellStructure,
    config: CellConfig,
    image: tuple[int, int, int],
    classes: int,
    arch: CellArch,
) -> Cost:
    """Exact counts of one architecture, or of a population (any leading axes)."""
    op_NxO = np.asarray(arch.op_NxO, np.int64)
    alive_N, used_I = live(structure, arch)
    count = partial(_count, structure, config, image, classes)
    return Cost(
        *count(op_NxO.sum(-2), np.ones(used_I.shape, np.int64)),
        *count((op_NxO * alive_N[..., None]).sum(-2), used_I.astype(np.int64)),
    )


def _count(structure, config, image, classes, uses_O, used_I):
    """Parameters and multiply-adds of a network whose cells apply each op so often and project these inputs."""
    width = (
        structure.written if structure.stack == "projected" else 1
    )  # output channels of a cell, in C
    area, C = image[0] * image[1], config.channels
    flops = np.full(
        uses_O.shape[:-1], image[2] * 9 * width * C * area, np.int64
    )
    params = flops // area + 2 * width * C
    for s in range(STAGES):
        C, area = config.channels * 2**s, image[0] * image[1] // 4**s
        ops_2 = uses_O @ np.array(
            [OP_COSTS[name](C) for name in structure.ops], np.int64
        )
        params, flops = (
            params + config.cells * ops_2[..., 0],
            flops + config.cells * ops_2[..., 1] * area,
        )
        if structure.stack == "residual" and s > 0:
            block = 9 * (C // 2) * C + 9 * C * C + C // 2 * C
            params, flops = params + block + 4 * C, flops + block * area
        if structure.stack == "projected":
            for cell, back in itertools.product(
                range(config.cells), range(structure.inputs)
            ):
                source = (
                    s * config.cells + cell - 1 - back
                )  # the cell that made this input; below 0 the stem
                rows = (
                    width
                    * config.channels
                    * 2 ** max(source // config.cells, 0)
                    * used_I[..., back]
                )
                params, flops = (
                    params + (rows + 2 * used_I[..., back]) * C,
                    flops + rows * C * area,
                )
    return params + 2 * width * C + (
        width * C + 1
    ) * classes, flops + width * C * classes
