"""Where target, generator and the execution of many candidates meet: the only composition point.

A function of one candidate runs over a population in chunks: `jax.vmap` inside a chunk, one chunk after the other, the
population split over devices. With ``chunk=1`` there is no `vmap` at all: branches on the architecture really branch.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxhypernas.mesh import ARCH
from jaxhypernas.types import Arch, Generator, Params, Target


def bind(target: Target, generator: Generator) -> Callable[[Params, Arch, jax.Array], jax.Array]:
    """``logits(phi, arch, x_BxHxWxC) -> logits_BxL`` of the architecture under its generated weights."""
    return lambda phi, arch, x: target.apply(generator.generate(phi, arch), arch, x)


def default_chunk(mesh: Mesh) -> int:
    """Candidates side by side: 1 on CPU, where they stay in cache and branch; 8 on accelerators."""
    return 1 if mesh.devices.flat[0].platform == "cpu" else 8


def map_candidates(f: Callable[[Any], Any], population: Any, chunk: int) -> Any:
    """``f`` of each candidate, stacked along the leading axis A, ``chunk`` of them side by side (A any size)."""
    return lax.map(f, population) if chunk == 1 else lax.map(f, population, batch_size=chunk)


def mean_candidates(f: Callable[[Any], Any], population: Any, chunk: int) -> Any:
    """The mean over candidates of a pytree of arrays, accumulated chunk by chunk; A must be a multiple of the chunk."""
    A = jax.tree.leaves(population)[0].shape[0]
    chunks = jax.tree.map(lambda x: x.reshape(A // chunk, chunk, *x.shape[1:]), population)

    def partial_sum(chunk_population):
        if chunk == 1:
            return f(jax.tree.map(lambda x: x[0], chunk_population))
        return jax.tree.map(lambda x: x.sum(0), jax.vmap(f)(chunk_population))

    zero = jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(partial_sum, jax.tree.map(lambda x: x[0], chunks))
    )
    total, _ = lax.scan(lambda sum_, c: (jax.tree.map(jnp.add, sum_, partial_sum(c)), None), zero, chunks)
    return jax.tree.map(lambda x: x / A, total)


def split_candidates(mesh: Mesh, f: Callable[..., Any]) -> Callable[..., Any]:
    """``f(replicated, population)`` with the population split over devices, results stacked; no collective."""
    return jax.shard_map(f, mesh=mesh, in_specs=(P(), P(ARCH)), out_specs=P(ARCH), check_vma=False)


def mean_over_mesh(mesh: Mesh, f: Callable[..., Any]) -> Callable[..., Any]:
    """``f(replicated, population)``, a mean over its share of the population on each device, averaged over devices."""
    g = lambda *args: lax.pmean(f(*args), ARCH)  # noqa: E731
    return jax.shard_map(g, mesh=mesh, in_specs=(P(), P(ARCH)), out_specs=P(), check_vma=False)
