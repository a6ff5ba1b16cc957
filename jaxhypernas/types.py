"""Names and contracts that every other file shares; no logic.

Array names carry their axes, as in ``x_BxHxWxC``: A candidates, B images of a batch, N nodes of a graph (V where a
cell's inputs and output are counted, too), O ops, S states of a cell, P op slots, M memory banks, H W spatial,
C channels, K kernel size, D hidden units; G x S the grid of an encoding.

A plug-in is a ``NamedTuple`` of functions. Each is written for ONE architecture; batching happens once, in
``predict.map_candidates``.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

Array = jax.Array | np.ndarray
"""Device code takes and gives ``jax.Array``; what also runs on the host over whole populations says ``Array``."""

Arch = Any
"""One candidate: a pytree of int32 arrays of static shape. A population has one more leading axis, A."""

Params = Any
"""A generator's parameters phi, or generated weights theta: a pytree of float arrays."""

WeightSpec = Any
"""A pytree of ``jax.ShapeDtypeStruct``: the maximal weights of a target, the only bond between target and generator."""


class UserError(ValueError):
    """Something the user gave is wrong: the message is one line that names the field and the fix."""


class Graph(NamedTuple):
    """A padded directed acyclic graph, nodes in topological order."""

    op_NxO: jax.Array  # int32, 1 where the node applies the op (or is of that kind); 0 where padded
    edge_NxN: (
        jax.Array
    )  # int32, edge[i, j] = 1 where node j feeds node i; lower triangular
    mask_N: jax.Array  # int32, 1 for real nodes


class Cost(NamedTuple):
    """Exact counts as int64: weights, and multiply-adds of convolutions and linear layers for one image."""

    params: np.ndarray
    flops: np.ndarray
    live_params: (
        np.ndarray
    )  # counting only what lies on a path from input to output
    live_flops: np.ndarray


class Scores(NamedTuple):
    """What scoring says of candidates: mean validation cross-entropy in nats and the share of right answers."""

    loss: Array
    accuracy: Array


class Growth(NamedTuple):
    """How the architectures of a space grow block by block, for progressive search; NumPy, on the host."""

    levels: int  # blocks of a complete architecture
    children: Callable[
        [Arch | None, int], Arch
    ]  # (all of level - 1, or None for level 1; level) -> their children
    tokens: Callable[
        [Arch, int], np.ndarray
    ]  # (population, level) -> int32 A x level x F, F fields per block
    vocabulary: tuple[int, ...]  # number of values of each field
    kinds: tuple[int, ...]  # per field: fields of one kind share an embedding


class Enumeration(NamedTuple):
    """All architectures of a space in an order; NumPy, on the host."""

    size: int
    at: Callable[
        [np.ndarray], Arch
    ]  # indices in 0..size-1, int64 A -> population


class Space(NamedTuple):
    """A search space. Everything but ``cost``, ``growth``, ``all`` and the strings is traceable."""

    name: str
    sample: Callable[
        [jax.Array, jax.Array | float], Arch
    ]  # (key, progress of training in 0..1) -> arch
    mutate: Callable[
        [jax.Array, Arch], Arch
    ]  # (key, arch) -> a valid neighbour
    canonical: Callable[
        [Arch], Arch
    ]  # the representative of all isomorphic candidates
    graph: Callable[[Arch], Graph]
    cost: Callable[
        [Arch], Cost
    ]  # NumPy, any leading axes: int64 has no counterpart in JAX's default 32 bits
    to_string: Callable[[Arch], str]
    from_string: Callable[[str], Arch]  # raises UserError
    log10_size: float  # log10 of the number of architectures (of an upper bound where the docstring says so)
    growth: Growth | None = None  # None: its architectures do not grow
    paths: Callable[[jax.Array, jax.Array], Arch] | None = (
        None  # (key, rate r) -> the one-shot network, all paths on,
    )
    # each of the k that come into an op dropped with probability r^(1/k); None: no such network
    all: Enumeration | None = (
        None  # None: they are too many, or in no simple order
    )


class Target(NamedTuple):
    """A family of networks, one per architecture."""

    weight_spec: WeightSpec
    apply: Callable[
        [Params, Arch, jax.Array], jax.Array
    ]  # (theta, arch, x_BxHxWxC) -> logits_BxL
    nodes: Any  # pytree like weight_spec of int arrays: the node that each slice along a leaf's first axes belongs to,
    # counted through the graphs of all stacked cells; of shape () where a leaf belongs to no node
    relaxed: Callable[[Params, Arch, jax.Array], jax.Array] | None = (
        None  # like apply, of what `Space.paths` gives
    )
    forms: Mapping[str, "Target"] = MappingProxyType(
        {}
    )  # the same networks run in other ways (`predict.choose`), equal
    # to rounding


class Generator(NamedTuple):
    """A map from architectures to weights."""

    init: Callable[[jax.Array], Params]  # key -> phi
    generate: Callable[
        [Params, Arch], Params
    ]  # (phi, arch) -> theta, shaped as the target's weight_spec; axes that count
    # nodes may be 1 where all nodes share a weight
    decay: Callable[
        [Params], Any
    ]  # phi -> pytree of bool: which leaves weight decay applies to


class Strategy(NamedTuple):
    """A search. It sees architectures and scores only, so it replays from a table of scores."""

    total: int  # candidates it asks for at most
    init: Callable[[jax.Array], Any]  # key -> state
    ask: Callable[
        [Any], Arch | None
    ]  # state -> a population to score next, or None when done
    tell: Callable[
        [Any, Arch, np.ndarray], Any
    ]  # (state, population, loss_A) -> state
