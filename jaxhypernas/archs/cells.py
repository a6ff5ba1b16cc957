"""Cells as integer arrays, and the facts that all cells of a space share.

A cell has S states: first its inputs, then the states that its N op nodes write. A
node adds the states that it reads, applies its ops to the sum (several ops are added;
a node without ops gives zero) and adds the result to the state that it writes.

Networks have three stages of C, 2C and 4C channels. Each stage has half the resolution
of the stage before.
"""

from types import ModuleType
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.types import Array, ImageShape, UserError

STAGES = 3
"""Stages of a network of cells."""


class CellArch(NamedTuple):
    """One cell."""

    op_NxO: Array
    """int32: 1 where the node applies the op."""

    read_NxS: Array
    """int32: 1 where the node reads the state."""

    out_S: Array
    """int32: 1 where the state is part of the cell's output."""


class CellStructure(NamedTuple):
    """The facts that all cells of a space share.

    The space fixes which state each node writes, and nodes are in topological order, so
    that one compiled program runs every cell.
    """

    ops: tuple[str, ...]
    """Names of the ops, in `targets.ops.OPS` and `spaces.cell_cost.OP_COSTS`."""

    inputs: int
    """1: the output of the cell before; 2: also the output of the cell before that."""

    write_N: tuple[int, ...]
    """The state that each node writes; never falls from one node to the next."""

    reads: int
    """Largest number of states that a node reads; with ops it reads at least one."""

    ops_at_once: int
    """Largest number of ops that a node applies."""

    stack: Literal["residual", "projected"]
    """How cells make a network.

    ``residual`` (NAS-Bench-201): a cell's output is the sum of its output states; a
    residual block between stages halves the resolution. ``projected`` (NASNet): a
    cell's output is the concatenation of all written states; a 1x1 brings each input
    of a cell to C channels; the inputs of a later stage's first cell are pooled.
    """

    wiring_N: tuple[int, ...] | None = None
    """The state that each node reads, where all cells are wired alike, from one input
    to the last state; None where wirings differ."""

    @property
    def states(self) -> int:
        """Number of states, S."""
        return max(self.write_N) + 1

    @property
    def written(self) -> int:
        """Number of states that nodes write; projected stacks concatenate them."""
        return self.states - self.inputs

    @property
    def relaxed(self) -> "CellStructure":
        """Structure of the one-shot network: nodes read all states, apply all ops."""
        return self._replace(reads=self.states, ops_at_once=len(self.ops))


def check_image(image: ImageShape) -> None:
    """Checks that images can be halved twice.

    Args:
        image: Height, width and channels of an image.

    Raises:
        UserError: Height or width is not a multiple of 4.
    """
    height, width, _ = image
    if height % 4 or width % 4 or min(height, width) < 4:
        raise UserError(
            f"space: images of {height}x{width}: height and width must be "
            "multiples of 4"
        )


def array_module(array: Array) -> ModuleType:
    """Returns `jax.numpy` for a JAX array, `numpy` for any other.

    Args:
        array: Any array; functions that also run on the host pass their argument.

    Returns:
        The module whose functions keep results where the argument lives.
    """
    return jnp if isinstance(array, jax.Array) else np
