"""Cells of `dag.dag_space` as text."""

from itertools import compress

import chex
import numpy as np

from jaxhypernas.archs.cells import CellArch
from jaxhypernas.spaces import foreign
from jaxhypernas.spaces.dag_cells import DagConfig, with_output
from jaxhypernas.types import UserError


def to_string(dag: DagConfig, arch: CellArch) -> str:
    """Writes a cell as text.

    The grammar::

        cell   = node (";" node)*           one for each of the N op nodes, in order
        node   = ops "(" states ")" | "-"   "-": a node without ops, absent
        ops    = op ("+" op)*               added to each other
        states = number ("," number)*       added before the ops are applied

    States are numbered from 0: the cell's inputs, then one for each block of nodes. In
    the output are all blocks, or all that nothing reads: the space says which.

    Example: ``sep_conv_3x3(0);skip_connect+max_pool_3x3(0,2)``.

    Args:
        dag: The cells of the space.
        arch: One cell.

    Returns:
        The text.
    """
    structure = dag.structure
    nodes, ops = len(structure.write_N), len(structure.ops)
    chex.assert_shape(arch.op_NxO, (nodes, ops))
    chex.assert_shape(arch.read_NxS, (nodes, structure.states))

    op_NxO = np.asarray(arch.op_NxO)
    read_NxS = np.asarray(arch.read_NxS)
    texts = []
    for op_O, read_S in zip(op_NxO, read_NxS, strict=True):
        names = "+".join(compress(structure.ops, op_O))
        read = np.flatnonzero(read_S)
        states = ",".join(map(str, read))
        texts.append(f"{names}({states})" if names else "-")
    return ";".join(texts)


def from_string(dag: DagConfig, text: str) -> CellArch:
    """Reads the text that `to_string` writes.

    Args:
        dag: The cells of the space.
        text: The text.

    Returns:
        The cell, as NumPy arrays.

    Raises:
        UserError: The text is no cell of this space.
    """
    structure = dag.structure
    number = len(structure.write_N)
    nodes = [node.strip() for node in foreign.clean(text).split(";")]
    if len(nodes) != number:
        raise UserError(
            f"arch: {text[:60]!r} has {len(nodes)} nodes, {dag.name} has "
            f"{number}, separated by ;"
        )
    op_NxO = np.zeros((number, len(structure.ops)), np.int32)
    read_NxS = np.zeros((number, structure.states), np.int32)
    for n, node in enumerate(nodes):
        if node != "-":
            ops, states = _read_node(dag, n, node)
            op_NxO[n, ops] = 1
            read_NxS[n, states] = 1
    arch = with_output(dag, op_NxO, read_NxS)
    _check_reads(dag, arch)
    return arch


def _check_reads(dag: DagConfig, arch: CellArch) -> None:
    """Refuses a cell without nodes, and nodes that read a block without nodes."""
    structure = dag.structure
    op_NxO = np.asarray(arch.op_NxO)
    active_N = op_NxO.any(1)
    if not active_N.any():
        raise UserError("arch: the cell has no node: give ops to one at least")
    write_N = np.array(structure.write_N)
    there = {*range(structure.inputs), *write_N[active_N].tolist()}
    for n in np.flatnonzero(active_N):
        absent = set(np.flatnonzero(arch.read_NxS[n]).tolist()) - there
        if absent:
            raise UserError(
                f"arch: node {n} reads state {min(absent)}, whose nodes are all absent "
                "(-)"
            )


def _read_node(
    dag: DagConfig, n: int, node: str
) -> tuple[list[int], list[int]]:
    """Reads the ops and the states of node ``n``, as indices."""
    structure = dag.structure
    names, _, states = node.partition("(")
    if not states.endswith(")"):
        raise UserError(f"arch: node {n} is {node[:60]!r}, not OPS(STATES)")
    ops = [op.strip(" ") for op in names.split("+")]
    reads = [state.strip() for state in states[:-1].split(",")]

    if unknown := set(ops) - set(structure.ops):
        raise UserError(
            f"arch: op {min(unknown)[:40]!r} of node {n} is not one of "
            f"{', '.join(structure.ops)}"
        )
    legal = [str(state) for state in range(structure.write_N[n])]
    if not set(reads) <= set(legal):
        raise UserError(
            f"arch: node {n} reads {','.join(reads)[:40]!r}: states 0 to "
            f"{legal[-1]} come before it"
        )
    many_reads = len(set(reads)) > structure.reads
    if many_reads or len(set(ops)) > structure.ops_at_once:
        raise UserError(
            f"arch: node {n} may read {structure.reads} states and apply "
            f"{structure.ops_at_once} ops at most"
        )
    indices = [structure.ops.index(op) for op in ops]
    return indices, [int(state) for state in reads]
