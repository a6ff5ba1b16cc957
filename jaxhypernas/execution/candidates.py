"""Where target, generator and the execution of many candidates meet: the only composition point.

A function of one candidate runs over a population in chunks: `jax.vmap` inside a chunk, one chunk after the other, the
population split over devices. With ``chunk=1`` there is no `vmap` at all: branches on the architecture really branch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxhypernas.execution.mesh import ARCH, DATA
from jaxhypernas.numerics import cpu
from jaxhypernas.types import Arch, Generator, Params, Target, UserError


def bind(
    target: Target, generator: Generator
) -> Callable[[Params, Arch, jax.Array], jax.Array]:
    """``logits(phi, arch, x_BxHxWxC) -> logits_BxL`` of the architecture under its generated weights."""
    return lambda phi, arch, x: target.apply(
        generator.generate(phi, arch), arch, x
    )


@dataclass(frozen=True)
class ExecutionConfig:
    """How candidates run: the same results to rounding, at another speed."""

    chunk: int = 0  # candidates side by side on a device; 0: chosen by platform
    form: Literal["auto", "branch", "fused", "native"] = (
        "auto"  # branch: each op of a node is a branch, of which vmap
    )
    # computes all; fused: one convolution whatever the op, in spaces that allow it; native: cells as C++, on CPU

    def __post_init__(self):
        if self.chunk < 0:
            raise UserError(
                f"execution.chunk: {self.chunk} must be 0 (automatic) or more"
            )


def choose(
    config: ExecutionConfig, target: Target, platform: str
) -> tuple[int, str, Target]:
    """The chunk, the form, and the target in that form, for a platform ("cpu", "tpu", "gpu").

    What was measured, or estimated by compilers (experiments/LOG.md): on CPU one candidate at a time, which stays in
    cache, its cells as C++ where there is a compiler, else branching; on TPU one at a time, fused where ops can be; on
    GPU, which small kernels one after the other would leave idle, 8 side by side, which computes every branch where ops
    can't be fused.

    Raises:
        UserError: a form that the space, or this machine, doesn't have.
    """
    form = config.form
    if form == "auto":
        best = (
            ("native" if cpu.available() else "branch")
            if platform == "cpu"
            else "fused"
        )
        form = best if best in target.forms else "branch"
    elif form != "branch" and form not in target.forms:
        raise UserError(
            f"execution.form: the cells of this space have no form {form}: set it to branch"
        )
    elif form == "native" and not (platform == "cpu" and cpu.available()):
        raise UserError(
            "execution.form: native needs a CPU and a C++ compiler (CXX, or c++): set it to branch"
        )
    return (
        config.chunk or (8 if platform == "gpu" else 1),
        form,
        target.forms.get(form, target),
    )


def map_candidates(f: Callable[[Any], Any], population: Any, chunk: int) -> Any:
    """``f`` of each candidate, stacked along the leading axis A, ``chunk`` of them side by side (A any size)."""
    return (
        lax.map(f, population)
        if chunk == 1
        else lax.map(f, population, batch_size=chunk)
    )


def map_first(
    f: Callable[[Any], Any], population: Any, chunk: int, number: jax.Array
) -> Any:
    """`map_candidates` of the first ``number`` candidates (traced), rounded up to chunks; other results are 0.

    A must be a multiple of the chunk.
    """
    results = jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype),
        jax.eval_shape(jax.vmap(f), population),
    )

    def one_chunk(i, results):
        candidates = jax.tree.map(
            lambda x: lax.dynamic_slice_in_dim(x, i * chunk, chunk), population
        )
        new = map_candidates(f, candidates, chunk)
        return jax.tree.map(
            lambda x, y: lax.dynamic_update_slice_in_dim(x, y, i * chunk, 0),
            results,
            new,
        )

    return lax.fori_loop(0, (number + chunk - 1) // chunk, one_chunk, results)


def mean_candidates(
    f: Callable[[Any], Any], population: Any, chunk: int
) -> Any:
    """The mean over candidates of a pytree of arrays, accumulated chunk by chunk; A must be a multiple of the chunk."""
    A = jax.tree.leaves(population)[0].shape[0]
    chunks = jax.tree.map(
        lambda x: x.reshape(A // chunk, chunk, *x.shape[1:]), population
    )

    def partial_sum(chunk_population):
        if chunk == 1:
            return f(jax.tree.map(lambda x: x[0], chunk_population))
        return jax.tree.map(lambda x: x.sum(0), jax.vmap(f)(chunk_population))

    zero = jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype),
        jax.eval_shape(partial_sum, jax.tree.map(lambda x: x[0], chunks)),
    )
    total, _ = lax.scan(
        lambda sum_, c: (jax.tree.map(jnp.add, sum_, partial_sum(c)), None),
        zero,
        chunks,
    )
    return jax.tree.map(lambda x: x / A, total)


def deal(work_A: np.ndarray, hands: int) -> list[np.ndarray]:
    """Indices of the candidates that each of some devices takes: as many for all, but for one, and about the same work.

    The most laborious first, to and fro: candidates that branch take as long as the ops that they chose.
    """
    turn_A, seat_A = divmod(np.arange(len(work_A)), hands)
    hand_A = np.where(turn_A % 2, hands - 1 - seat_A, seat_A)
    order_A = np.argsort(-work_A, kind="stable")
    return [order_A[hand_A == hand] for hand in range(hands)]


def split_candidates(mesh: Mesh, f: Callable[..., Any]) -> Callable[..., Any]:
    """``f(replicated, *populations)``, populations split over devices, results stacked; no collective."""

    def split(replicated, *populations):
        specs = (P(), *(P(ARCH) for _ in populations))
        g = jax.shard_map(
            f, mesh=mesh, in_specs=specs, out_specs=P(ARCH), check_vma=False
        )
        return g(replicated, *populations)

    return split


def mean_over_mesh(mesh: Mesh, f: Callable[..., Any]) -> Callable[..., Any]:
    """``f(replicated, population)``, a mean over its share of the population on each device, averaged over devices.

    Only candidates are split here; `split_images` makes the compiler split what is computed of each.
    """
    g = lambda *args: lax.pmean(f(*args), ARCH)  # noqa: E731
    return jax.shard_map(
        g,
        mesh=mesh,
        in_specs=(P(), P(ARCH)),
        out_specs=P(),
        check_vma=False,
        axis_names={ARCH},
    )


def split_images(mesh: Mesh, arrays: Any) -> Any:
    """Arrays GxBx... with B split over the devices that share a candidate: the compiler splits what depends on them."""
    return lax.with_sharding_constraint(
        arrays, NamedSharding(mesh, P(None, DATA))
    )
