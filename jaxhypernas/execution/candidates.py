"""Runs a function of one candidate over a population: in chunks, over devices.

`jax.vmap` runs the candidates of a chunk side by side, chunks run one after the other,
and devices split the population. With ``chunk=1`` there is no `jax.vmap` at all:
branches on the architecture really branch.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxhypernas.execution.mesh import ARCH, DATA
from jaxhypernas.types import Arch, Generator, Params, Target


def bind(
    target: Target, generator: Generator
) -> Callable[[Params, Arch, jax.Array], jax.Array]:
    """Composes a target and a generator.

    Weights that do not depend on the architecture stay unbatched under `jax.vmap`,
    because the composition is inside the mapped function.

    Args:
        target: The networks.
        generator: The generator of their weights.

    Returns:
        ``logits(phi, arch, x_BxHxWxC) -> logits_BxL``: the network of an architecture
        under its generated weights.
    """

    def logits(phi: Params, arch: Arch, x_BxHxWxC: jax.Array) -> jax.Array:
        theta = generator.generate(phi, arch)
        return target.apply(theta, arch, x_BxHxWxC)

    return logits


def map_candidates(
    f: Callable[[Any], Any], population: Any, chunk: int
) -> Any:
    """Applies a function to each candidate.

    Args:
        f: Function of one candidate.
        population: Candidates; any pytree with a leading axis A.
        chunk: Candidates side by side.

    Returns:
        The results, stacked along A.
    """
    if chunk == 1:
        return lax.map(f, population)
    return lax.map(f, population, batch_size=chunk)


def map_first(
    f: Callable[[Any], Any], population: Any, chunk: int, number: jax.Array
) -> Any:
    """Applies a function to the first candidates of a population.

    Args:
        f: Function of one candidate.
        population: Candidates with a leading axis A, a multiple of the chunk.
        chunk: Candidates side by side.
        number: int32, traced: how many candidates; rounded up to chunks.

    Returns:
        The results, stacked along A; those of the other candidates are 0.
    """
    shapes = jax.eval_shape(jax.vmap(f), population)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def one_chunk(i, results):
        def part(x):
            return lax.dynamic_slice_in_dim(x, i * chunk, chunk)

        def put(x, y):
            return lax.dynamic_update_slice_in_dim(x, y, i * chunk, 0)

        candidates = jax.tree.map(part, population)
        new = map_candidates(f, candidates, chunk)
        return jax.tree.map(put, results, new)

    return lax.fori_loop(0, (number + chunk - 1) // chunk, one_chunk, zeros)


def mean_candidates(
    f: Callable[[Any], Any], population: Any, chunk: int
) -> Any:
    """Averages a function over candidates, accumulating chunk by chunk.

    Args:
        f: Function of one candidate; returns a pytree of arrays.
        population: Candidates with a leading axis A, a multiple of the chunk.
        chunk: Candidates side by side.

    Returns:
        The mean over candidates.
    """
    A = jax.tree.leaves(population)[0].shape[0]

    def split(x):
        return x.reshape(A // chunk, chunk, *x.shape[1:])

    def first(tree):
        return jax.tree.map(lambda x: x[0], tree)

    def chunk_sum(candidates):
        if chunk == 1:
            return f(first(candidates))
        return jax.tree.map(lambda x: x.sum(0), jax.vmap(f)(candidates))

    def add(total, candidates):
        return jax.tree.map(jnp.add, total, chunk_sum(candidates)), None

    chunks = jax.tree.map(split, population)
    shapes = jax.eval_shape(chunk_sum, first(chunks))
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total, _ = lax.scan(add, zero, chunks)
    return jax.tree.map(lambda x: x / A, total)


def deal(work_A: np.ndarray, hands: int) -> list[np.ndarray]:
    """Deals candidates to devices.

    Counts differ by at most one; total work is balanced by dealing in snake order from
    the most expensive candidate down.

    Args:
        work_A: Cost of each candidate, in any unit.
        hands: Number of devices.

    Returns:
        The indices of each device's candidates.
    """
    turn_A, seat_A = divmod(np.arange(len(work_A)), hands)
    hand_A = np.where(turn_A % 2, hands - 1 - seat_A, seat_A)
    order_A = np.argsort(-work_A, kind="stable")
    return [order_A[hand_A == hand] for hand in range(hands)]


def deal_places(
    work_A: np.ndarray, devices: int, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Deals candidates to devices that have ``most`` places each.

    Args:
        work_A: Cost of each candidate, in any unit.
        devices: Number of devices, D.
        most: Places of each device, M.

    Returns:
        The candidate of each place, [D * M], the number of candidates of each device,
        int32 [D], and the place of each candidate, [A].
    """
    shares = deal(work_A, devices)
    index_DxM = np.zeros((devices, most), int)
    place_A = np.zeros(len(work_A), int)
    for device, share in enumerate(shares):
        index_DxM[device, : len(share)] = share
        place_A[share] = device * most + np.arange(len(share))
    number_D = np.array([len(share) for share in shares], np.int32)
    return index_DxM.ravel(), number_D, place_A


def split_candidates(mesh: Mesh, f: Callable[..., Any]) -> Callable[..., Any]:
    """Splits populations over devices; there is no collective.

    Args:
        mesh: The devices.
        f: ``f(replicated, *populations)``, on one device's share.

    Returns:
        The same function on whole populations; results are stacked.
    """

    def split(replicated, *populations):
        specs = (P(), *(P(ARCH) for _ in populations))
        shared = jax.shard_map(
            f, mesh=mesh, in_specs=specs, out_specs=P(ARCH), check_vma=False
        )
        return shared(replicated, *populations)

    return split


def mean_over_mesh(mesh: Mesh, f: Callable[..., Any]) -> Callable[..., Any]:
    """Averages a function over the devices that split a population.

    Only candidates are split here; `split_images` makes the compiler split the work on
    each candidate.

    Args:
        mesh: The devices.
        f: ``f(replicated, population)``, the mean over one device's share.

    Returns:
        The same function on whole populations.
    """

    def mean(*arguments):
        return lax.pmean(f(*arguments), ARCH)

    return jax.shard_map(
        mean,
        mesh=mesh,
        in_specs=(P(), P(ARCH)),
        out_specs=P(),
        check_vma=False,
        axis_names={ARCH},
    )


def split_images(mesh: Mesh, arrays: Any) -> Any:
    """Splits mini-batches over the devices that share a candidate.

    Args:
        mesh: The devices.
        arrays: Mini-batches G x B x ...; B is split.

    Returns:
        The arrays; the compiler splits whatever depends on them.
    """
    sharding = NamedSharding(mesh, P(None, DATA))
    return lax.with_sharding_constraint(arrays, sharding)
