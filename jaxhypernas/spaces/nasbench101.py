"""NAS-Bench-101 (Ying et al. 2019): graphs of up to 7 vertices and 9 edges with an op per vertex; 423,624 cells.

Vertices are in topological order: input, the interior vertices, output. Only those on a path from input to output are
part of a network, and an architecture holds no others: interior vertices come first, the places left have op 0.
Deviations:
1. Counts include BatchNorm's scale and shift, as the published table does (the networks here have none).
2. Samples are close to uniform over the cells (the published random search draws 21 edges with probability 1/2 and gets
   small cells far more often than there are), and a mutation is one change (published: about three edges and an op).

There is no growth: the output's channels are split over the vertices that feed it, so that a cell with one vertex more
is another network throughout; for the same reason there is no network that has all paths.
"""

import math
from functools import cache, partial
from itertools import permutations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxhypernas.spaces.cells import STAGES, CellConfig, check_image
from jaxhypernas.types import Array, Cost, Graph, Space, UserError

VERTICES, EDGES = 7, 9  # at most
N = VERTICES - 2  # interior vertices at most
NAMES = (
    "conv3x3-bn-relu",
    "conv1x1-bn-relu",
    "maxpool3x3",
)  # in the order of the published labels
UNIQUE = {
    2: 1,
    3: 6,
    4: 84,
    5: 2441,
    6: 62_010,
    7: 359_082,
}  # cells by their number of vertices
TRIES = 1000  # of a mutation, about every other of which is valid


class Nasbench101Arch(NamedTuple):
    """One cell."""

    op_N: Array  # of interior vertices: 1 + an index into NAMES, 0 where there is no vertex
    edge_VxV: Array  # edge[u, v] = 1 where vertex u feeds v; upper triangular; the output is the last


def nasbench101(
    image: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    channels: int = 128,
    cells: int = 3,
) -> Space:
    """The space for images (H, W, C), at the published size by default; counts are the published ones.

    Raises:
        UserError: the images cannot be halved twice.
    """
    check_image(image)
    return Space(
        name="nasbench101",
        sample=sample,
        mutate=mutate,
        canonical=canonical,
        graph=graph,
        cost=partial(cost, CellConfig(channels, cells), image, classes),
        to_string=to_string,
        from_string=from_string,
        log10_size=math.log10(sum(UNIQUE.values())),
    )


def _numpy(x):
    return jnp if isinstance(x, jax.Array) else np


def prune(arch: Nasbench101Arch) -> Nasbench101Arch:
    """Without the vertices off every path from input to output; places kept. NumPy or JAX, any leading axes."""
    xp = _numpy(arch.edge_VxV)
    exists_N: Any = xp.asarray(arch.op_N) > 0
    end = xp.ones_like(exists_N[..., :1])
    exists_V = xp.concatenate([end, exists_N, end], -1)
    edge_VxV: Any = (
        (arch.edge_VxV > 0) & exists_V[..., None] & exists_V[..., None, :]
    )
    reached, needed = [end[..., 0]], [end[..., 0]]
    for v in range(1, VERTICES):
        reached.append((edge_VxV[..., :v, v] & xp.stack(reached, -1)).any(-1))
        needed.insert(
            0, (edge_VxV[..., -v - 1, -v:] & xp.stack(needed, -1)).any(-1)
        )
    alive_V = xp.stack(reached, -1) & xp.stack(needed, -1)
    edge_VxV = edge_VxV & alive_V[..., None] & alive_V[..., None, :]
    return Nasbench101Arch(
        xp.where(alive_V[..., 1:-1], arch.op_N, 0), edge_VxV.astype(np.int32)
    )


def _relabel(arch, order_N):
    """The cell whose i-th interior vertex is this one's ``order_N[i]``-th."""
    xp = _numpy(arch.edge_VxV)
    at_V = xp.pad(order_N + 1, (1, 1), constant_values=(0, VERTICES - 1))
    return Nasbench101Arch(arch.op_N[order_N], arch.edge_VxV[at_V][:, at_V])


def tidy(arch: Nasbench101Arch) -> Nasbench101Arch:
    """Pruned, with interior vertices in the first places; NumPy or JAX."""
    arch = prune(arch)
    return _relabel(
        arch, _numpy(arch.op_N).argsort(arch.op_N == 0, stable=True)
    )


def valid(arch: Nasbench101Arch):
    """Whether a pruned cell is one of the published: input and output are connected, by 9 edges at most."""
    edges = arch.edge_VxV.sum((-2, -1))
    return (edges > 0) & (edges <= EDGES)


def _bit(start, end):
    """The place of an edge in the published code of a cell's edges: column by column."""
    return start + end * (end - 1) // 2


@cache
def adjacencies(vertices: int) -> np.ndarray:
    """The codes of all valid labelled graphs of so many vertices, each on a path from input to output."""
    last = vertices - 1
    codes = np.zeros(1, np.int64)
    for v in range(1, vertices):
        reads = np.arange(1, 2**v) << _bit(
            0, v if v < last else VERTICES - 1
        )  # at least one edge into each
        codes = (codes[:, None] | reads).ravel()
        codes = codes[np.bitwise_count(codes) <= EDGES]
    for u in range(1, last):
        feeds = sum(
            2 ** _bit(u, v) for v in (*range(u + 1, last), VERTICES - 1)
        )
        codes = codes[codes & feeds != 0]  # and out of each
    return codes.astype(np.int32)


def decode(code):
    """The adjacency of a code; NumPy or JAX, any leading axes."""
    xp = _numpy(code)
    start, end = np.indices((VERTICES, VERTICES))
    bit_VxV = xp.asarray(
        np.where(start < end, _bit(start, end), 31).astype(np.int32)
    )
    return (
        code[..., None, None]
        >> bit_VxV.reshape((1,) * code.ndim + bit_VxV.shape)
        & 1
    )


def sample(
    key: jax.Array, progress: jax.Array | float = 1.0
) -> Nasbench101Arch:
    """Each number of vertices as often as among the published cells, then uniform over the labelled cells."""
    size_key, graph_key, op_key = jax.random.split(key, 3)
    tables = [adjacencies(vertices) for vertices in UNIQUE]
    share = np.array(list(UNIQUE.values())) / sum(UNIQUE.values())
    size = jax.random.choice(
        size_key, len(tables), p=jnp.asarray(share, jnp.float32)
    )  # interior vertices
    length = np.array([len(table) for table in tables])
    row = jax.random.randint(graph_key, (), 0, jnp.asarray(length)[size])
    code = jnp.asarray(np.concatenate(tables))[
        jnp.asarray(np.cumsum(length) - length)[size] + row
    ]
    op_N = jax.random.randint(op_key, (N,), 1, len(NAMES) + 1, jnp.int32)
    return Nasbench101Arch(
        jnp.where(jnp.arange(N) < size, op_N, 0), decode(code)
    )


def mutate(key: jax.Array, arch: Nasbench101Arch) -> Nasbench101Arch:
    """One change: a vertex's op; an edge more, less or elsewhere; a vertex on an edge or beside it, or one taken out.

    Drawn again until the cell is a valid one, is another, and has no vertex to prune.
    """
    arch = jax.tree.map(lambda x: jnp.asarray(x, jnp.int32), arch)

    def body(carry):
        tries, _, _ = carry
        changed = _change(jax.random.fold_in(key, tries), arch)
        new = tidy(changed)
        whole = (new.op_N > 0).sum() == (changed.op_N > 0).sum()
        found = (
            whole
            & valid(new)
            & (
                (new.op_N != arch.op_N).any()
                | (new.edge_VxV != arch.edge_VxV).any()
            )
        )
        return (
            tries + 1,
            found,
            jax.tree.map(lambda a, b: jnp.where(found, a, b), new, arch),
        )

    return lax.while_loop(
        lambda carry: ~carry[1] & (carry[0] < TRIES),
        body,
        (0, jnp.array(False), arch),
    )[2]


def _one_of(key, marked):
    """One of the marked places, as an array that marks it; none where none is marked."""
    value = jnp.where(marked, jax.random.uniform(key, marked.shape), -1.0)
    return (marked & (value == value.max())).astype(jnp.int32)


def _change(key, arch):
    """One change, valid or not; none where what was drawn for it does not exist."""
    spread_key, kind_key, place_key, op_key, *keys = jax.random.split(key, 9)
    # Vertices in random places, in order, so that a new one may come anywhere.
    rank_N = jnp.argsort(jnp.argsort(jax.random.uniform(spread_key, (N,))))
    taken_N = rank_N < (arch.op_N > 0).sum()
    op_N, edge_VxV = jax.tree.map(
        jnp.asarray,
        _relabel(arch, jnp.argsort(jnp.argsort(~taken_N, stable=True))),
    )

    place = jax.random.randint(place_key, (), 0, N)
    at_V, here_N, v, exists = (
        jnp.arange(VERTICES),
        jnp.arange(N) == place,
        place + 1,
        op_N[place] > 0,
    )
    exists_V = jnp.pad(op_N > 0, (1, 1), constant_values=True)
    shift = jax.random.randint(op_key, (), 1, len(NAMES), jnp.int32)
    other_N = jnp.where(
        here_N & exists, (op_N - 1 + shift) % len(NAMES) + 1, op_N
    )

    free_VxV = (
        (edge_VxV == 0)
        & exists_V[:, None]
        & exists_V[None]
        & (at_V[:, None] < at_V[None])
    )
    less_VxV, more_VxV = (
        _one_of(keys[0], edge_VxV > 0),
        _one_of(keys[1], free_VxV),
    )

    across_VxV = (edge_VxV > 0) & (at_V[:, None] < v) & (at_V[None] > v)
    split_VxV = jnp.where(exists, 0, _one_of(keys[2], across_VxV))
    between_VxV = (
        edge_VxV.at[v].set(split_VxV.max(0)).at[:, v].set(split_VxV.max(1))
    )
    between_VxV -= split_VxV * jax.random.bernoulli(keys[3]).astype(jnp.int32)
    new_N = jnp.where(
        here_N,
        jnp.where(
            exists, 0, jax.random.randint(keys[4], (), 1, len(NAMES) + 1)
        ),
        op_N,
    )

    kind = jax.random.randint(kind_key, (), 0, 5)
    edges = (
        edge_VxV,
        edge_VxV + more_VxV,
        edge_VxV - less_VxV,
        edge_VxV + more_VxV - less_VxV,
        between_VxV,
    )
    ops = other_N, op_N, op_N, op_N, new_N
    return Nasbench101Arch(jnp.stack(ops)[kind], jnp.stack(edges)[kind])


def _codes() -> tuple[np.ndarray, ...]:
    """All R relabellings, and what an edge, an op and a vertex add to the code of each.

    The code is that of the published enumeration: bits of the edges, column by column, then labels.
    """
    order_RxN = np.array(list(permutations(range(N))), np.int32)
    place_RxN = np.argsort(order_RxN, -1)
    place_RxV = np.pad(
        place_RxN + 1, ((0, 0), (1, 1)), constant_values=(0, VERTICES - 1)
    )
    start, end = place_RxV[:, :, None], place_RxV[:, None, :]
    edge_RxVxV = np.where(start < end, 2 ** (2 * N + _bit(start, end)), 0)
    return (
        order_RxN,
        edge_RxVxV,
        start > end,
        4 ** (N - 1 - place_RxN),
        2**place_RxN,
    )


def canonical(arch: Nasbench101Arch) -> Nasbench101Arch:
    """The first of all isomorphic cells in the published enumeration, which is the one that was trained.

    Recognised: vertices off every path, and every relabelling of interior vertices. Isomorphic cells count as one, as
    published, though where channels do not divide evenly, the vertices that get one more depend on the labels.
    """
    order_RxN, edge_RxVxV, backward_RxVxV, op_RxN, place_RxN = (
        jnp.asarray(x, jnp.int32) for x in _codes()
    )
    arch = tidy(jax.tree.map(lambda x: jnp.asarray(x, jnp.int32), arch))
    exists_N, edge_F = (arch.op_N > 0).astype(jnp.int32), arch.edge_VxV.ravel()
    code_R = edge_RxVxV.reshape(-1, edge_F.size) @ edge_F + op_RxN @ arch.op_N
    sorted_R = backward_RxVxV.reshape(-1, edge_F.size) @ edge_F == 0
    first_R = place_RxN @ exists_N == 2 ** exists_N.sum() - 1
    best = jnp.argmin(
        jnp.where(sorted_R & first_R, code_R, np.iinfo(np.int32).max)
    )
    return _relabel(arch, order_RxN[best])


def graph(arch: Nasbench101Arch) -> Graph:
    """The cell's graph. Columns of op_NxO: input, output, then NAMES."""
    op_VxO = (
        jnp.zeros((VERTICES, 2 + len(NAMES)), jnp.int32)
        .at[0, 0]
        .set(1)
        .at[-1, 1]
        .set(1)
    )
    op_VxO = op_VxO.at[1:-1, 2:].set(
        jax.nn.one_hot(arch.op_N - 1, len(NAMES), dtype=jnp.int32)
    )
    mask_V = jnp.pad(
        (jnp.asarray(arch.op_N) > 0).astype(jnp.int32),
        (1, 1),
        constant_values=1,
    )
    return Graph(op_VxO, jnp.asarray(arch.edge_VxV).T, mask_V)


def vertex_channels(edge_VxV, channels: int):
    """Channels of the interior vertices of a pruned cell with so many output channels; NumPy or JAX, any leading axes.

    Those that feed the output share its channels, the first of them take the remainder (with fewer channels than such
    vertices, the last have none); others have as many as the widest that they feed.
    """
    xp = _numpy(edge_VxV)
    feeds_N = edge_VxV[..., 1:-1, -1]
    number = xp.maximum(feeds_N.sum(-1, keepdims=True), 1)
    extra_N = xp.cumsum(feeds_N, -1) <= channels % number
    share_N = feeds_N * (channels // number + extra_N.astype(np.int32))
    found = []  # from the last vertex on
    for n in reversed(range(N)):
        width = share_N[..., n]
        for i, channel in enumerate(found):
            width = xp.where(
                feeds_N[..., n] > 0,
                width,
                xp.maximum(width, edge_VxV[..., n + 1, N - i] * channel),
            )
        found.append(width)
    return xp.stack(found[::-1], -1).astype(np.int32)


def cost(
    config: CellConfig,
    image: tuple[int, int, int],
    classes: int,
    arch: Nasbench101Arch,
) -> Cost:
    """Exact counts of one cell's network, or of a population's (any leading axes); all of it is live."""
    op_N, edge_VxV = prune(
        Nasbench101Arch(*(np.asarray(x, np.int64) for x in arch))
    )
    C, area = config.channels, image[0] * image[1]
    stem = image[2] * 9 * C
    params, flops = (
        np.full(op_N.shape[:-1], stem + 2 * C, np.int64),
        np.full(op_N.shape[:-1], stem * area, np.int64),
    )
    inputs = C
    for s in range(STAGES):
        C, area = config.channels * 2**s, image[0] * image[1] // 4**s
        channel_N = vertex_channels(edge_VxV, C).astype(np.int64)
        kernel_N = np.array([0, 9, 1, 0])[op_N]
        width_U = np.concatenate(
            [channel_N, np.full((*op_N.shape[:-1], 1), C)], -1
        )  # vertices but the input
        projected = (width_U * edge_VxV[..., 0, 1:]).sum(
            -1
        )  # channels that the input is projected to
        weights = (kernel_N * channel_N**2).sum(-1)
        norms = 2 * (projected + ((kernel_N > 0) * channel_N).sum(-1))
        for _ in range(config.cells):
            params, flops = (
                params + weights + projected * inputs + norms,
                flops + (weights + projected * inputs) * area,
            )
            inputs = C
    params, flops = params + (C + 1) * classes, flops + C * classes
    return Cost(params, flops, params, flops)


def to_string(arch: Nasbench101Arch) -> str:
    """Ops of all vertices and edges between them, as in ``input maxpool3x3 output|0-1 0-2 1-2``."""
    op_N, edge_VxV = tidy(Nasbench101Arch(*(np.asarray(x) for x in arch)))
    names = [NAMES[op - 1] for op in op_N if op > 0]
    last = {VERTICES - 1: len(names) + 1}
    edges = " ".join(
        f"{u}-{last.get(v, v)}" for u, v in np.argwhere(edge_VxV).tolist()
    )
    return f"{' '.join(['input', *names, 'output'])}|{edges}"


def from_string(text: str) -> Nasbench101Arch:
    """Parse what `to_string` writes; vertices off every path are pruned, as published.

    Raises:
        UserError: it isn't a cell of this space.
    """
    ops, bar, pairs = text.strip().partition("|")
    names = ops.split()
    if (
        not bar
        or len(names) < 2
        or (names[0], names[-1]) != ("input", "output")
    ):
        raise UserError(
            f"arch: {text[:80]!r} is not 'input OP ... output|0-1 1-2 ...'"
        )
    if len(names) > VERTICES:
        raise UserError(
            f"arch: {len(names)} vertices: there are {VERTICES} at most, input and output counted"
        )
    if unknown := set(names[1:-1]) - set(NAMES):
        raise UserError(
            f"arch: op {min(unknown)[:40]!r} is not one of {', '.join(NAMES)}"
        )
    op_N, edge_VxV = (
        np.zeros(N, np.int32),
        np.zeros((VERTICES, VERTICES), np.int32),
    )
    op_N[: len(names) - 2] = [NAMES.index(name) + 1 for name in names[1:-1]]
    legal = {f"{u}-{v}": (u, v) for v in range(len(names)) for u in range(v)}
    for pair in pairs.split():
        if pair not in legal:
            raise UserError(
                f"arch: edge {pair[:40]!r} is not FROM-TO with 0 <= FROM < TO <= {len(names) - 1}"
            )
        u, v = legal[pair]
        edge_VxV[u, VERTICES - 1 if v == len(names) - 1 else v] = 1
    arch = tidy(Nasbench101Arch(op_N, edge_VxV))
    if not arch.edge_VxV.any():
        raise UserError(
            f"arch: {text[:120]!r} has no path from input to output"
        )
    if not valid(arch):
        raise UserError(
            f"arch: {arch.edge_VxV.sum()} edges on paths from input to output: there are {EDGES} at most"
        )
    return arch
