"""NAS-Bench-201 (Dong and Yang 2020): four states, an op on each of the six edges between them; 15,625 cells."""

import math
from functools import cache, partial
from itertools import product

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
from jaxhypernas.types import Enumeration, Growth, Space, UserError

NAMES = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = (
    (1, 0),
    (2, 0),
    (2, 1),
    (3, 0),
    (3, 1),
    (3, 2),
)  # (to, from), in the order of the strings
PLACES = 5 ** np.arange(
    5, -1, -1, dtype=np.int32
)  # of an op in a cell's number
STRUCTURE = CellStructure(
    ops=NAMES[1:],
    inputs=1,
    write_N=tuple(to for to, _ in EDGES),
    reads=1,
    ops_at_once=1,
    stack="residual",
    wiring_N=tuple(start for _, start in EDGES),
)


def nasbench201(
    image: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    channels: int = 16,
    cells: int = 5,
) -> Space:
    """The space for images (H, W, C), at the published size by default; counts are the published ones."""
    check_image(image)
    config = CellConfig(channels, cells)
    return Space(
        name="nasbench201",
        sample=sample,
        mutate=mutate,
        canonical=canonical,
        graph=partial(graph, STRUCTURE),
        cost=partial(cost, STRUCTURE, config, image, classes),
        to_string=to_string,
        from_string=from_string,
        log10_size=6 * math.log10(5),
        growth=Growth(6, children, tokens, (6, 5), (0, 1)),
        paths=paths,
        all=Enumeration(5**6, at),
    )


def from_choices(choice_6) -> CellArch:
    """The cell with these ops (indices into NAMES) on its edges; [..., 6] in NumPy or JAX."""
    xp = jnp if isinstance(choice_6, jax.Array) else np
    op_NxO = xp.asarray(np.eye(5, dtype=np.int32)[:, 1:])[choice_6]
    read_NxS = np.eye(4, dtype=np.int32)[[start for _, start in EDGES]]
    out_S = np.array([0, 0, 0, 1], np.int32)
    lead = choice_6.shape[:-1]
    return CellArch(
        op_NxO,
        *(
            xp.broadcast_to(xp.asarray(x), lead + x.shape)
            for x in (read_NxS, out_S)
        ),
    )


def choices(arch: CellArch):
    """The op on each edge, an index into NAMES."""
    return arch.op_NxO @ np.arange(1, 5, dtype=np.int32)


def sample(key: jax.Array, progress: jax.Array | float = 1.0) -> CellArch:
    """Each edge's op uniformly."""
    return from_choices(jax.random.randint(key, (6,), 0, 5, jnp.int32))


def paths(key: jax.Array, rate: jax.Array) -> CellArch:
    """All ops on every edge, but for those dropped."""
    arch = from_choices(jnp.zeros(6, jnp.int32))
    return arch._replace(
        op_NxO=keep_paths(key, jnp.ones((6, 4), jnp.int32), rate)
    )


def mutate(key: jax.Array, arch: CellArch) -> CellArch:
    """Another op on one edge."""
    edge_key, op_key = jax.random.split(key)
    edge = jax.random.randint(edge_key, (), 0, 6)
    old_6 = jnp.asarray(choices(arch))
    return from_choices(
        old_6.at[edge].set(
            (old_6[edge] + jax.random.randint(op_key, (), 1, 5, jnp.int32)) % 5
        )
    )


def at(index_A) -> CellArch:
    """The cells whose ops, read as a number of base 5, are these; in NumPy or JAX."""
    return from_choices((index_A[..., None] // PLACES % 5).astype(np.int32))


@cache
def _representatives() -> np.ndarray:
    """For each cell, by its ops read as a number of base 5, the first cell with the same description of its function.

    As published: a state is described by the ops that reach it, skips are replaced by what they copy and an op on a
    state of a single zero is zero. Sums of zeros and the order of nested sums are not recognised (with both, 4,930
    functions would be left, not 6,466).
    """
    first, found = {}, np.zeros(5**6, np.int32)
    for index, ops in enumerate(product(range(5), repeat=6)):
        states = ["x", "", "", ""]
        for to in (1, 2, 3):
            terms = [
                "#"
                if op == 0 or states[start] == "#"
                else states[start]
                if op == 1
                else f"({states[start]}){op}"
                for (end, start), op in zip(EDGES, ops, strict=True)
                if end == to
            ]
            states[to] = "+".join(sorted(terms))
        found[index] = first.setdefault(states[3], index)
    return found


def canonical(arch: CellArch) -> CellArch:
    """The first of all cells that compute the same function (6,466 of them are left)."""
    return at(jnp.asarray(_representatives())[choices(arch) @ PLACES])


def to_string(arch: CellArch) -> str:
    """The official string, as in ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|``."""
    names = [
        f"{NAMES[op]}~{start}"
        for op, (_, start) in zip(np.asarray(choices(arch)), EDGES, strict=True)
    ]
    return "+".join(
        f"|{'|'.join(part)}|" for part in (names[:1], names[1:3], names[3:])
    )


def from_string(text: str) -> CellArch:
    """Parse an official string.

    Raises:
        UserError: it isn't one.
    """
    parts = [part.split("|") for part in text.strip().split("+")]
    expected = [
        ["", *(f"~{start}" for to, start in EDGES if to == end), ""]
        for end in (1, 2, 3)
    ]
    if [[p[-2:] for p in part] for part in parts] != expected:
        raise UserError(
            f"arch: {text[:80]!r} is not |op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
        )
    names = [p[:-2] for part in parts for p in part[1:-1]]
    for name in names:
        if name not in NAMES:
            raise UserError(
                f"arch: {name[:40]!r} is not one of {', '.join(NAMES)}"
            )
    return from_choices(
        np.array([NAMES.index(name) for name in names], np.int32)
    )


def children(population: CellArch | None, level: int) -> CellArch:
    """Cells of ``level`` edges: each op on the next edge, skips on those after it: cells of every level connect."""
    if population is None:
        population = from_choices(
            np.full((1, 6), NAMES.index("skip_connect"), np.int32)
        )
    new_Ax5x6 = np.repeat(np.asarray(choices(population))[:, None], 5, 1)
    new_Ax5x6[:, :, level - 1] = np.arange(5)
    return from_choices(new_Ax5x6.reshape(-1, 6))


def tokens(population: CellArch, level: int) -> np.ndarray:
    """(edge, op) of each of the first ``level`` edges."""
    op_Axb = np.asarray(choices(population))[:, :level]
    return np.stack(
        [
            np.broadcast_to(np.arange(level, dtype=np.int32), op_Axb.shape),
            op_Axb,
        ],
        -1,
    ).astype(np.int32)
