"""Cells grown from blocks: every node reads some earlier states and applies some ops. Makes the spaces of the papers.

`ghn`, `pnas` and `one_shot` are `dag_space` with their own sizes; so can a space of your own be (docs in README).
"""

import math
from functools import partial
from itertools import (
    combinations,
    combinations_with_replacement,
    compress,
    product,
)
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.spaces.cells import (
    CellArch,
    CellConfig,
    CellStructure,
    check_image,
    cost,
    graph,
    keep_paths,
)
from jaxhypernas.types import Growth, Space, UserError


class DagConfig(NamedTuple):
    """What the cells of a space may be."""

    name: str
    structure: CellStructure
    block: int  # nodes per block, all of which write one state; their order means nothing
    loose: bool  # the output is made of the states that nothing reads (else of all blocks)


def dag_space(
    dag: DagConfig,
    config: CellConfig,
    image: tuple[int, int, int],
    classes: int,
) -> Space:
    """The space for images (H, W, C). ``log10_size`` counts blocks up to the order of their nodes.

    Raises:
        UserError: the images cannot be halved twice.
    """
    check_image(image)
    levels = range(1, dag.structure.written + 1)
    size = [
        math.comb(_number_of_options(dag, level) + dag.block - 1, dag.block)
        for level in levels
    ]
    fields = (
        (dag.structure.states, dag.structure.reads),
        (len(dag.structure.ops), dag.structure.ops_at_once),
    )
    per_node = tuple(
        values + (most > 1) for values, most in fields for _ in range(most)
    )
    return Space(
        name=dag.name,
        sample=partial(sample, dag),
        mutate=partial(mutate, dag),
        canonical=partial(canonical, dag),
        graph=partial(graph, dag.structure),
        cost=partial(cost, dag.structure, config, image, classes),
        to_string=partial(to_string, dag),
        from_string=partial(from_string, dag),
        log10_size=sum(math.log10(n) for n in size),
        growth=Growth(
            levels=dag.structure.written,
            children=partial(children, dag),
            tokens=partial(tokens, dag),
            vocabulary=per_node * dag.block,
            kinds=(
                (0,) * dag.structure.reads + (1,) * dag.structure.ops_at_once
            )
            * dag.block,
        ),
        paths=partial(paths, dag),
    )


def with_output(dag: DagConfig, op_NxO, read_NxS) -> CellArch:
    """The cell of these nodes: its output follows from them. Works in NumPy and JAX, with any leading axes."""
    xp = jnp if isinstance(read_NxS, jax.Array) else np
    write_NxS = np.eye(dag.structure.states, dtype=np.int32)[
        list(dag.structure.write_N)
    ]
    exists_S = (op_NxO.max(-1)[..., None] * write_NxS).max(-2)
    read_S = (read_NxS * op_NxO.max(-1)[..., None]).max(-2)
    out_S = exists_S * (1 - read_S) if dag.loose else exists_S
    return CellArch(op_NxO, read_NxS, out_S.astype(xp.int32))


def _some(key, candidates_NxS, most):
    """A random subset of each row's marked entries: its size uniform in 1..most, as far as there are so many."""
    size_key, set_key = jax.random.split(key)
    rows = candidates_NxS.shape[:-1]
    size_N = jax.random.randint(
        size_key, rows, 1, jnp.minimum(most, candidates_NxS.sum(-1)) + 1
    )
    order_NxS = jnp.where(
        candidates_NxS > 0,
        jax.random.uniform(set_key, candidates_NxS.shape),
        2.0,
    )
    return (
        jnp.argsort(jnp.argsort(order_NxS, -1), -1) < size_N[..., None]
    ).astype(jnp.int32)


def sample(
    dag: DagConfig, key: jax.Array, progress: jax.Array | float = 1.0
) -> CellArch:
    """Numbers of reads and ops uniform, then sets of them."""
    read_key, op_key = jax.random.split(key)
    N, O, S = (
        len(dag.structure.write_N),
        len(dag.structure.ops),
        dag.structure.states,
    )
    earlier_NxS = (
        jnp.arange(S)[None] < jnp.array(dag.structure.write_N)[:, None]
    )
    read_NxS = _some(
        read_key, earlier_NxS.astype(jnp.int32), dag.structure.reads
    )
    return with_output(
        dag,
        _some(op_key, jnp.ones((N, O), jnp.int32), dag.structure.ops_at_once),
        read_NxS,
    )


def paths(dag: DagConfig, key: jax.Array, rate: jax.Array) -> CellArch:
    """Every node reads all earlier states and applies all ops, but for those dropped."""
    read_key, op_key = jax.random.split(key)
    N, O, S = (
        len(dag.structure.write_N),
        len(dag.structure.ops),
        dag.structure.states,
    )
    earlier_NxS = (
        jnp.arange(S)[None] < jnp.array(dag.structure.write_N)[:, None]
    ).astype(jnp.int32)
    op_NxO = keep_paths(op_key, jnp.ones((N, O), jnp.int32), rate)
    return with_output(dag, op_NxO, keep_paths(read_key, earlier_NxS, rate))


def mutate(dag: DagConfig, key: jax.Array, arch: CellArch) -> CellArch:
    """The reads or the ops of one node drawn again."""
    new_key, node_key, part_key = jax.random.split(key, 3)
    new, N = sample(dag, new_key), len(dag.structure.write_N)
    at_N = jnp.arange(N) == jax.random.randint(node_key, (), 0, N)
    ops = jax.random.bernoulli(part_key)
    op_NxO = jnp.where((at_N & ops)[:, None], new.op_NxO, arch.op_NxO)
    return with_output(
        dag,
        op_NxO,
        jnp.where((at_N & ~ops)[:, None], new.read_NxS, arch.read_NxS),
    )


def canonical(dag: DagConfig, arch: CellArch) -> CellArch:
    """Nodes of a block in one order. Not recognised: blocks in another order."""
    if dag.block == 1:
        return arch
    N = len(dag.structure.write_N)
    row_NxF = jnp.concatenate(
        [jnp.asarray(arch.read_NxS), jnp.asarray(arch.op_NxO)], -1
    )
    row_BxnxF = row_NxF.reshape(N // dag.block, dag.block, -1)
    order_Bxn = jnp.lexsort(jnp.moveaxis(row_BxnxF, -1, 0)[::-1], -1)
    row_NxF = jnp.take_along_axis(row_BxnxF, order_Bxn[..., None], 1).reshape(
        N, -1
    )
    S = dag.structure.states
    return arch._replace(read_NxS=row_NxF[:, :S], op_NxO=row_NxF[:, S:])


def _number_of_options(dag, level):
    """How many `_node_options` there are."""
    sets = (
        (dag.structure.inputs + level - 1, dag.structure.reads),
        (len(dag.structure.ops), dag.structure.ops_at_once),
    )
    return math.prod(
        sum(math.comb(of, size) for size in range(1, most + 1))
        for of, most in sets
    )


def _node_options(dag, level):
    """All (reads, ops) of a node of this block, as tuples of indices."""
    states, ops = (
        range(dag.structure.inputs + level - 1),
        range(len(dag.structure.ops)),
    )

    def sets(of, most):
        return [
            chosen
            for size in range(1, most + 1)
            for chosen in combinations(of, size)
        ]

    return list(
        product(
            sets(states, dag.structure.reads),
            sets(ops, dag.structure.ops_at_once),
        )
    )


def children(
    dag: DagConfig, population: CellArch | None, level: int
) -> CellArch:
    """Cells of ``level`` blocks: every block, up to the order of its nodes, added to every cell of one less."""
    N, O, S = (
        len(dag.structure.write_N),
        len(dag.structure.ops),
        dag.structure.states,
    )
    options = list(
        combinations_with_replacement(_node_options(dag, level), dag.block)
    )
    op_KxnxO = np.zeros((len(options), dag.block, O), np.int32)
    read_KxnxS = np.zeros((len(options), dag.block, S), np.int32)
    for k, block in enumerate(options):
        for n, (reads, ops) in enumerate(block):
            op_KxnxO[k, n, list(ops)] = 1
            read_KxnxS[k, n, list(reads)] = 1
    if population is None:
        old = np.zeros((1, N, O), np.int32), np.zeros((1, N, S), np.int32)
    else:
        old = np.asarray(population.op_NxO), np.asarray(population.read_NxS)
    rows, new = slice((level - 1) * dag.block, level * dag.block), []
    for parent, block in zip(old, (op_KxnxO, read_KxnxS), strict=True):
        child = np.repeat(parent[:, None], len(options), 1)
        child[:, :, rows] = block
        new.append(child.reshape(-1, *parent.shape[1:]))
    return with_output(dag, *new)


def tokens(dag: DagConfig, population: CellArch, level: int) -> np.ndarray:
    """Per node: its reads, then its ops, lowest first; where there may be several, counted from 1, with 0 for none."""
    fields = []
    for rows, most in (
        (population.read_NxS, dag.structure.reads),
        (population.op_NxO, dag.structure.ops_at_once),
    ):
        rows = np.asarray(rows)[:, : level * dag.block]
        order = np.argsort(1 - rows, -1, kind="stable")[..., :most]
        chosen = np.take_along_axis(rows, order, -1)
        fields.append((order + (most > 1)) * chosen)
    token = np.concatenate(fields, -1).astype(np.int32)
    return token.reshape(token.shape[0], level, -1)


def to_string(dag: DagConfig, arch: CellArch) -> str:
    """Nodes in order, as in ``sep_conv_3x3(0);skip_connect+max_pool_3x3(0,2)``; ``-`` for a node that is absent."""
    nodes = []
    for op_O, read_S in zip(
        np.asarray(arch.op_NxO).tolist(),
        np.asarray(arch.read_NxS).tolist(),
        strict=True,
    ):
        ops = "+".join(compress(dag.structure.ops, op_O))
        nodes.append(
            f"{ops}({','.join(str(s) for s, on in enumerate(read_S) if on)})"
            if ops
            else "-"
        )
    return ";".join(nodes)


def from_string(dag: DagConfig, text: str) -> CellArch:
    """Parse what `to_string` writes.

    Raises:
        UserError: it isn't a cell of this space.
    """
    N, names = len(dag.structure.write_N), dag.structure.ops
    op_NxO = np.zeros((N, len(names)), np.int32)
    read_NxS = np.zeros((N, dag.structure.states), np.int32)
    nodes = text.strip().split(";")
    if len(nodes) != N:
        raise UserError(
            f"arch: {text[:60]!r} has {len(nodes)} nodes, {dag.name} has {N}, separated by ;"
        )
    for n, node in enumerate(nodes):
        if node == "-":
            continue
        ops, _, reads = node.strip().partition("(")
        if not reads.endswith(")"):
            raise UserError(f"arch: node {n} is {node[:60]!r}, not OPS(STATES)")
        ops, reads = ops.split("+"), reads[:-1].split(",")
        if unknown := set(ops) - set(names):
            raise UserError(
                f"arch: op {min(unknown)[:40]!r} of node {n} is not one of {', '.join(names)}"
            )
        legal = [str(s) for s in range(dag.structure.write_N[n])]
        if not set(reads) <= set(legal):
            raise UserError(
                f"arch: node {n} reads {','.join(reads)[:40]!r}: states 0 to {legal[-1]} come before it"
            )
        if (
            len(set(reads)) > dag.structure.reads
            or len(set(ops)) > dag.structure.ops_at_once
        ):
            most = f"read {dag.structure.reads} states and apply {dag.structure.ops_at_once} ops"
            raise UserError(f"arch: node {n} may {most} at most")
        op_NxO[n, [names.index(o) for o in ops]] = 1
        read_NxS[n, [int(s) for s in reads]] = 1
    return with_output(dag, op_NxO, read_NxS)
