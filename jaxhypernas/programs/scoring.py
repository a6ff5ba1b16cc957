"""Scoring: validation loss of each candidate under its generated weights."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxhypernas.archs.population import rows, size
from jaxhypernas.data.batches import Batches
from jaxhypernas.execution.candidates import deal, map_first, split_candidates
from jaxhypernas.execution.mesh import ARCH
from jaxhypernas.numerics.losses import cross_entropy
from jaxhypernas.types import Arch, Generator, Params, Scores, Target

PER_CALL = 64
"""Largest number of candidates that a device scores per call of the program."""


def score_one(
    target: Target,
    generator: Generator,
    replicated: tuple[Params, Batches],
    arch: Arch,
) -> Scores:
    """Scores one candidate; its weights are generated once.

    Args:
        target: The networks.
        generator: The generator of their weights.
        replicated: phi, and the validation images in T batches.
        arch: The candidate.

    Returns:
        Loss and accuracy, averaged over batches.
    """
    phi, batches = replicated
    theta = generator.generate(phi, arch)

    def one_batch(batch):
        x, y = batch
        logits = target.apply(theta, arch, x)
        correct_B = logits.argmax(-1) == y
        accuracy = correct_B.astype(jnp.float32).mean()
        return Scores(cross_entropy(logits, y), accuracy)

    return jax.tree.map(jnp.mean, jax.lax.map(one_batch, batches))


def score_program(
    score: Callable[[Any, Arch], Any], mesh: Mesh, chunk: int
) -> jax.stages.Wrapped:
    """Makes the program that `make_score` calls.

    Args:
        score: ``score(replicated, arch)``: a pytree of scalars, of one candidate.
        mesh: The devices.
        chunk: Candidates side by side on a device.

    Returns:
        ``program(replicated, population, number_D)``. The population has a multiple of
        ``chunk`` candidates for each of D devices, of which the first ``number_D`` are
        scored, rounded up to chunks: calls of any size are one program.
    """

    def local(replicated, population, number_1):
        one = partial(score, replicated)
        return map_first(one, population, chunk, number_1[0])

    return jax.jit(split_candidates(mesh, local))


def make_score(
    score: Callable[[Any, Arch], Any], mesh: Mesh, chunk: int
) -> Callable[[Any, Arch, np.ndarray], Any]:
    """Makes a function that scores any number of candidates with one program.

    A score never depends on the other candidates, their order or the number of devices.
    While the devices work on a call, the host fetches the results of the call before;
    no more than these two are in memory.

    Args:
        score: ``score(replicated, arch)``: a pytree of scalars, of one candidate; for
            example `score_one` with its first two arguments bound.
        mesh: The devices.
        chunk: Candidates side by side on a device.

    Returns:
        ``score_all(replicated, population, work_A)``: results as NumPy arrays [A].
        ``work_A`` is the cost of each candidate in any unit; devices get about equal
        sums.
    """
    program = score_program(score, mesh, chunk)
    devices = mesh.shape[ARCH]
    most = -(-PER_CALL // chunk) * chunk

    def begin(replicated, population, work_A):
        """Results [D * M] of a call, and the place of each candidate among them."""
        shares = deal(work_A, devices)
        index_DxM = np.zeros((devices, most), int)
        place_A = np.zeros(len(work_A), int)
        for device, share in enumerate(shares):
            index_DxM[device, : len(share)] = share
            place_A[share] = device * most + np.arange(len(share))
        filled = jax.tree.map(
            lambda x: np.asarray(x)[index_DxM.ravel()], population
        )
        number_D = np.array([len(share) for share in shares], np.int32)
        return program(replicated, filled, number_D), place_A

    def fetch(results, place_A):
        return jax.tree.map(lambda x: np.asarray(x)[place_A], results)

    def score_all(replicated, population, work_A):
        done, begun = [], []
        for first in range(0, size(population), devices * most):
            part = slice(first, first + devices * most)
            begun.append(
                begin(replicated, rows(population, part), work_A[part])
            )
            if len(begun) == 2:
                done.append(fetch(*begun.pop(0)))
        done.append(fetch(*begun.pop()))
        return jax.tree.map(lambda *x: np.concatenate(x), *done)

    return score_all
