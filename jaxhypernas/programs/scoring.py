"""Scoring: mean validation loss of each candidate under its generated weights, many candidates per call."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxhypernas.archs.population import size
from jaxhypernas.data import dataset as data
from jaxhypernas.execution.candidates import deal, map_first, split_candidates
from jaxhypernas.execution.mesh import ARCH
from jaxhypernas.numerics.nn import cross_entropy
from jaxhypernas.types import Arch, Generator, Params, Scores, Target, UserError

MIN_BATCHES = 10
PER_CALL = 64  # candidates that a device scores per call, at most


@dataclass(frozen=True)
class ScoreConfig:
    """How to score."""

    batch: int = 64  # images per batch at most: BatchNorm's statistics come from it, and there are at least 10 batches

    def __post_init__(self):
        if self.batch < 2:
            raise UserError(
                f"score.batch: {self.batch} must be at least 2, BatchNorm needs a batch"
            )


class Batches(NamedTuple):
    """A fixed set of images, cut into T equal batches, normalised."""

    x_TxBxHxWxC: jax.Array
    y_TxB: jax.Array


def batch_shape(images: int, batch: int) -> tuple[int, int]:
    """How many batches `make_batches` cuts so many images into, and the size of each.

    Raises:
        UserError: fewer than two images per batch.
    """
    number = max(MIN_BATCHES, -(-images // batch))
    if images < 2 * number:
        raise UserError(
            f"data.valid: {images} held-out or test images are too few for {number} batches: take more"
        )
    return number, images // number


def make_batches(split: data.Split, mean_C, std_C, batch: int) -> Batches:
    """At least MIN_BATCHES equal batches of at most ``batch`` images; up to T - 1 images are left over.

    Raises:
        UserError: fewer than two images per batch.
    """
    number, size = batch_shape(len(split.y_N), batch)
    x = data.normalise(
        jnp.asarray(split.x_NxHxWxC[: number * size]),
        jnp.asarray(mean_C),
        jnp.asarray(std_C),
    )
    y = jnp.asarray(split.y_N[: number * size])
    return Batches(
        x.reshape(number, size, *x.shape[1:]), y.reshape(number, size)
    )


def score_one(
    target: Target,
    generator: Generator,
    replicated: tuple[Params, Batches],
    arch: Arch,
) -> Scores:
    """Loss and accuracy of one candidate, averaged over batches; its weights are generated once."""
    phi, batches = replicated
    theta = generator.generate(phi, arch)

    def one_batch(batch):
        x, y = batch
        logits = target.apply(theta, arch, x)
        return Scores(
            cross_entropy(logits, y),
            (logits.argmax(-1) == y).astype(jnp.float32).mean(),
        )

    return jax.tree.map(jnp.mean, jax.lax.map(one_batch, batches))


def divergence_one(
    target: Target,
    generator: Generator,
    whole: Arch,
    replicated: tuple[Params, jax.Array],
    arch: Arch,
) -> jax.Array:
    """How far dropping the paths of a candidate moves predictions: One-Shot's confidence (Bender et al. 2018, 4.3).

    The Kullback-Leibler divergences, both ways added, between predictions for x_BxHxWxC (published: 64 training images)
    of the network of all paths, ``whole`` (`Space.paths` at rate 0), and the candidate; mean over images, in nats. No
    labels are needed; lower means that the candidate keeps what the whole network has learned.

    Raises:
        UserError: the space has no network of all paths.
    """
    if target.relaxed is None:
        raise UserError(
            "space: it has no network of all paths to compare candidates with"
        )
    phi, x_BxHxWxC = replicated
    networks = ((target.relaxed, whole), (target.apply, arch))
    one, other = (
        jax.nn.log_softmax(run(generator.generate(phi, a), a, x_BxHxWxC))
        for run, a in networks
    )
    return ((jnp.exp(one) - jnp.exp(other)) * (one - other)).sum(-1).mean()


def score_program(
    score: Callable[[Any, Arch], Any], mesh: Mesh, chunk: int
) -> jax.stages.Wrapped:
    """What `make_score` calls: ``program(replicated, population, number_D)``.

    The population has a multiple of ``chunk`` candidates for each of D devices, of which the first ``number_D`` are
    scored, rounded up to chunks: calls of any size are one program.
    """

    def local(replicated, population, number_1):
        return map_first(
            partial(score, replicated), population, chunk, number_1[0]
        )

    return jax.jit(split_candidates(mesh, local))


def make_score(
    score: Callable[[Any, Arch], Any],
    mesh: Mesh,
    chunk: int,
    work: Callable[[Arch], np.ndarray] = lambda population: np.zeros(
        size(population)
    ),
) -> Callable[[Any, Arch], Any]:
    """``score(replicated, population)`` for any number of candidates with one program; results as NumPy arrays.

    There is nothing random in a score, and none depends on the others, their order or the number of devices. While the
    devices work on a call the host fetches the results of the one before; no more than these two are in memory.

    Args:
        score: (replicated, arch) -> a pytree of scalars, of one candidate; as `score_one` with its first arguments set.
        work: population -> how long each candidate takes, in any unit: devices get about the same.
    """
    program, devices = score_program(score, mesh, chunk), mesh.shape[ARCH]
    most = -(-PER_CALL // chunk) * chunk

    def begin(replicated, population):
        """Results DxM of a call on at most ``devices * most`` candidates, and where theirs lie in them."""
        shares = deal(work(population), devices)
        index_DxM, place_A = (
            np.zeros((devices, most), int),
            np.zeros(size(population), int),
        )
        for device, share in enumerate(shares):
            index_DxM[device, : len(share)] = share
            place_A[share] = device * most + np.arange(len(share))
        filled = jax.tree.map(
            lambda x: np.asarray(x)[index_DxM.ravel()], population
        )
        return program(
            replicated,
            filled,
            np.array([len(share) for share in shares], np.int32),
        ), place_A

    def fetch(results, place_A):
        return jax.tree.map(lambda x: np.asarray(x)[place_A], results)

    def score_all(replicated, population):
        done, begun = [], []
        for start in range(0, size(population), devices * most):
            part = jax.tree.map(
                lambda x, start=start: x[start : start + devices * most],
                population,
            )
            begun.append(begin(replicated, part))
            if len(begun) == 2:
                done.append(fetch(*begun.pop(0)))
        return jax.tree.map(
            lambda *x: np.concatenate(x), *done, fetch(*begun.pop())
        )

    return score_all
