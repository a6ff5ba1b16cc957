"""Separability of candidates: their networks with random weights, on a few images."""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh

from jaxhypernas.archs.population import rows, size
from jaxhypernas.execution.candidates import (
    deal_places,
    map_first,
    split_candidates,
)
from jaxhypernas.execution.mesh import ARCH
from jaxhypernas.generators.standalone import standalone
from jaxhypernas.numerics import evidence
from jaxhypernas.programs.scoring import PER_CALL
from jaxhypernas.report import progress
from jaxhypernas.types import Arch, Params, Target

IMAGES = 32
"""Images that a network tells apart."""

DRAWS = 4
"""Draws of random weights, over which the mean is taken."""


Separability = Callable[[Arch, np.ndarray, np.ndarray], np.ndarray]
"""``separability(population, id_A, work_A)``: float64 [A], from `make_separability`."""


def separability_program(
    target: Target, mesh: Mesh, chunk: int
) -> jax.stages.Wrapped:
    """Makes the program that `make_separability` calls.

    Args:
        target: The networks; they have `Target.features`.
        mesh: The devices.
        chunk: Candidates side by side on a device.

    Returns:
        ``program((key, x_BxHxWxC), (population, seed_Ax2), number_D) -> [A]``. The
        population has a multiple of ``chunk`` candidates for each of D devices, of
        which the first ``number_D`` count, rounded up to chunks.
    """
    generator = standalone(target.weight_spec, target.nodes)

    def of_draw(arch: Arch, x: jax.Array, key: jax.Array) -> jax.Array:
        theta: Params = generator.init(key)
        assert target.features is not None
        return evidence.separability(target.features(theta, arch, x))

    def one(replicated, candidate):
        key, x_BxHxWxC = replicated
        arch, seed_2 = candidate
        for half in seed_2:
            key = jax.random.fold_in(key, half)
        of_key = partial(of_draw, arch, x_BxHxWxC)
        return jax.lax.map(of_key, jax.random.split(key, DRAWS)).mean()

    def local(replicated, candidates, number_1):
        return map_first(
            partial(one, replicated), candidates, chunk, number_1[0]
        )

    return jax.jit(split_candidates(mesh, local))


def make_separability(
    target: Target,
    mesh: Mesh,
    chunk: int,
    replicated: Callable[[], tuple[jax.Array, jax.Array]],
) -> Separability:
    """Makes a function that tells how well candidates separate images.

    The weights of a candidate depend on the key and its id alone, so that the result
    does not depend on the other candidates, their order, the devices or restarts.

    Args:
        target: The networks.
        mesh: The devices.
        chunk: Candidates side by side on a device.
        replicated: Returns a key and images x_BxHxWxC, on all devices; called once.

    Returns:
        ``separability(population, id_A, work_A)``: float64 [A], the mean of
        `evidence.separability` over `DRAWS` draws of He normal weights; NaN if networks
        have no features. ``work_A`` is the cost of each candidate in any unit.
    """
    devices = mesh.shape[ARCH]
    most = -(-PER_CALL // chunk) * chunk
    program = separability_program(target, mesh, chunk)
    shared: list[tuple[jax.Array, jax.Array]] = []

    def call(candidates: tuple[Arch, np.ndarray], work_A: np.ndarray):
        index, number_D, place_A = deal_places(work_A, devices, most)
        arguments = shared[0], rows(candidates, index), number_D
        return jax.device_get(program(*arguments))[place_A]

    def begin(candidates: tuple[Arch, np.ndarray]) -> None:
        shared.append(replicated())
        index = np.zeros(devices * most, int)
        nothing = np.zeros(devices, np.int32)
        with progress.waiting("compiling the program of separability"):
            program.lower(
                shared[0], rows(candidates, index), nothing
            ).compile()

    def separability(
        population: Arch, id_A: np.ndarray, work_A: np.ndarray
    ) -> np.ndarray:
        if target.features is None:
            return np.full(size(population), np.nan)
        seed_Ax2 = id_A.astype("<u8").view(np.uint32).reshape(-1, 2)
        candidates = jax.tree.map(np.asarray, population), seed_Ax2
        if not shared:
            begin(candidates)
        parts = [
            call(rows(candidates, piece), work_A[piece])
            for piece in _pieces(size(population), devices * most)
        ]
        return np.concatenate(parts).astype(np.float64)

    return separability


def _pieces(number: int, most: int) -> list[slice]:
    return [slice(i, i + most) for i in range(0, number, most)]
