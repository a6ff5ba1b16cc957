"""Depth of cells: how few ops an image can meet on its way through one."""

import numpy as np

from jaxhypernas.archs.cells import CellArch, CellStructure

COPY = "skip_connect"
"""Name of the op that copies its input; a path through it is no longer."""


def depth(structure: CellStructure, arch: CellArch) -> np.ndarray:
    """Counts the ops of the shortest path from an input of a cell to its output.

    Args:
        structure: The structure of the space's cells.
        arch: A cell, or a population: any leading axes.

    Returns:
        float64 with the leading axes of ``arch``; infinite where no path leads to the
        output.
    """
    op_NxO, read_NxS, out_S = (np.asarray(x, bool) for x in arch)
    length_O = np.array([float(name != COPY) for name in structure.ops])
    op_N = _least(op_NxO, length_O)

    steps_S = np.full(out_S.shape, np.inf)
    steps_S[..., : structure.inputs] = 0
    for n, state in enumerate(structure.write_N):
        through_n = op_N[..., n] + _least(read_NxS[..., n, :], steps_S)
        steps_S[..., state] = np.minimum(steps_S[..., state], through_n)
    return _least(out_S, steps_S)


def _least(chosen: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Returns the smallest chosen value along the last axis; infinite if none is."""
    return np.where(chosen, value, np.inf).min(-1)
