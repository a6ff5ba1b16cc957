"""Cells that grow block by block, for `dag.dag_space`. NumPy, on the host."""

import math
from collections.abc import Iterable
from functools import partial
from itertools import combinations, combinations_with_replacement, product

import numpy as np

from jaxhypernas.archs.cells import CellArch
from jaxhypernas.spaces.dag_cells import DagConfig, with_output
from jaxhypernas.types import Array, Growth


def growth(dag: DagConfig) -> Growth:
    """Describes how the cells of a space grow.

    Args:
        dag: The cells of the space.

    Returns:
        A level for each block. Each node has a field for every state that it may read,
        then for every op that it may apply.
    """
    structure = dag.structure

    def values(number: int, most: int) -> tuple[int, ...]:
        # With several fields, 0 says that there are no more.
        return (number + (most > 1),) * most

    reads = values(structure.states, structure.reads)
    ops = values(len(structure.ops), structure.ops_at_once)
    kinds = (0,) * len(reads) + (1,) * len(ops)
    return Growth(
        levels=structure.written,
        children=partial(_children, dag),
        tokens=partial(_tokens, dag),
        vocabulary=(reads + ops) * dag.block_nodes,
        kinds=kinds * dag.block_nodes,
    )


def log10_size(dag: DagConfig) -> float:
    """Counts the cells of a space, up to the order of the nodes of a block.

    Args:
        dag: The cells of the space.

    Returns:
        log10 of their number.
    """
    structure = dag.structure

    def number_of_sets(of: int, most: int) -> int:
        return sum(math.comb(of, size) for size in range(1, most + 1))

    total = 0.0
    for level in range(1, structure.written + 1):
        states = structure.inputs + level - 1
        reads = number_of_sets(states, structure.reads)
        ops = number_of_sets(len(structure.ops), structure.ops_at_once)
        # Multisets of as many nodes as a block has.
        n = dag.block_nodes
        total += math.log10(math.comb(reads * ops + n - 1, n))
    return total


def _children(
    dag: DagConfig, population: CellArch | None, level: int
) -> CellArch:
    """Adds every block, up to the order of its nodes, to every cell."""
    structure = dag.structure
    nodes, n = len(structure.write_N), dag.block_nodes
    shapes = (nodes, len(structure.ops)), (nodes, structure.states)
    if population is None:
        parents = [np.zeros((1, *shape), np.int32) for shape in shapes]
    else:
        parents = [
            np.asarray(x) for x in (population.op_NxO, population.read_NxS)
        ]

    options = _node_options(dag, level)
    blocks = list(combinations_with_replacement(options, n))
    op_KxnxO = np.zeros((len(blocks), n, len(structure.ops)), np.int32)
    read_KxnxS = np.zeros((len(blocks), n, structure.states), np.int32)
    for k, block in enumerate(blocks):
        for i, (reads, ops) in enumerate(block):
            op_KxnxO[k, i, list(ops)] = 1
            read_KxnxS[k, i, list(reads)] = 1

    rows = slice((level - 1) * n, level * n)
    children = []
    for parent, block in zip(parents, (op_KxnxO, read_KxnxS), strict=True):
        child = np.repeat(parent[:, None], len(blocks), 1)
        child[:, :, rows] = block
        children.append(child.reshape(-1, *parent.shape[1:]))
    return with_output(dag, *children)


def _node_options(
    dag: DagConfig, level: int
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Lists all (reads, ops) of a node of this block, as tuples of indices."""
    structure = dag.structure

    def sets(of: Iterable[int], most: int) -> list[tuple[int, ...]]:
        sizes = range(1, most + 1)
        return [chosen for size in sizes for chosen in combinations(of, size)]

    states = range(structure.inputs + level - 1)
    reads = sets(states, structure.reads)
    ops = sets(range(len(structure.ops)), structure.ops_at_once)
    return list(product(reads, ops))


def _tokens(dag: DagConfig, population: CellArch, level: int) -> np.ndarray:
    """Lists each node's reads, then its ops, lowest first.

    Where there may be several, they are counted from 1, and 0 stands for none.
    """
    structure = dag.structure

    def fields(marked_AxNxK: Array, most: int) -> np.ndarray:
        nodes = level * dag.block_nodes
        marked_AxNxK = np.asarray(marked_AxNxK)[:, :nodes]
        order = np.argsort(1 - marked_AxNxK, -1, kind="stable")
        order = order[..., :most]
        chosen = np.take_along_axis(marked_AxNxK, order, -1)
        return (order + (most > 1)) * chosen

    reads = fields(population.read_NxS, structure.reads)
    ops = fields(population.op_NxO, structure.ops_at_once)
    token = np.concatenate([reads, ops], -1)
    token = token.reshape(token.shape[0], level, -1)
    return token.astype(np.int32)
