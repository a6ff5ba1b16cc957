"""Makes the scorers of a run: under generated weights, or trained from scratch."""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.data.batches import Batches, make_batches, normalise
from jaxhypernas.data.dataset import Dataset
from jaxhypernas.data.splits import Split, stratified
from jaxhypernas.execution.pace import Pace
from jaxhypernas.hosts import interrupt
from jaxhypernas.programs import training
from jaxhypernas.programs.parts import Parts
from jaxhypernas.programs.scorer import Candidates, Scorer
from jaxhypernas.programs.scoring import make_score
from jaxhypernas.programs.separability import (
    IMAGES,
    Separability,
    make_separability,
)
from jaxhypernas.programs.truth import FromScratch
from jaxhypernas.store.score_table import ScoreTable
from jaxhypernas.types import Params, Scores

PIECE_SECONDS = 5.0
"""How long it should take until rows are saved."""


def make_from_scratch(parts: Parts, dataset: Dataset) -> FromScratch:
    """Makes the function that trains candidates from scratch.

    Args:
        parts: The parts of the run.
        dataset: The images.

    Raises:
        UserError: The training images are streamed.
    """
    images = training.images_on(parts.config, dataset, parts.replicated_here)
    number = parts.config.score.taken_when_trained(dataset.valid.size)
    valid, test = (
        batches_of(parts, dataset, split)
        for split in (_drawn(parts, dataset, number), dataset.test)
    )
    return FromScratch(parts, images, valid, test)


def scratch_scorer(
    parts: Parts,
    table: ScoreTable,
    dataset: Dataset,
    from_scratch: Callable[[], FromScratch],
) -> Scorer:
    """Makes the scorer that trains every candidate from scratch.

    Args:
        parts: The parts of the run.
        table: The table of scores.
        dataset: The images.
        from_scratch: Returns what trains and scores candidates, as many as devices at a
            time; called when the first one is scored.

    Raises:
        UserError: The training images are streamed.
    """
    training.check_not_streamed(parts.config)
    devices = parts.mesh.size

    def evaluate(candidates: Candidates) -> Scores | None:
        truth = from_scratch()(candidates.arch, candidates.id_A)
        return None if truth is None else truth.valid

    pace = Pace(PIECE_SECONDS, least=devices, most=devices)
    separability = _separability(parts, dataset)
    return Scorer(parts.searched.space, table, evaluate, separability, pace)


def generated_scorer(
    parts: Parts,
    table: ScoreTable,
    dataset: Dataset,
    phi: Callable[[], Params],
) -> Scorer:
    """Makes the scorer that scores candidates under generated weights.

    Args:
        parts: The parts of the run.
        table: The table of scores.
        dataset: The images.
        phi: Returns the parameters of the trained generator; called when the first
            candidate is scored.
    """
    space, target, generator = parts.searched
    score = make_score(target, generator, parts.local_mesh, parts.chunk)

    @cache
    def replicated() -> tuple[Params, Batches]:
        return phi(), batches_of(parts, dataset, scored_on(parts, dataset))

    def evaluate(candidates: Candidates) -> Scores:
        work_A = candidates.cost.flops
        return score(replicated(), candidates.arch, work_A, interrupt.pending)

    pace = Pace(PIECE_SECONDS, least=parts.mesh.size * parts.chunk)
    separability = _separability(parts, dataset)
    return Scorer(space, table, evaluate, separability, pace)


def _separability(parts: Parts, dataset: Dataset) -> Separability:
    """The separability of candidates of a run."""

    def replicated() -> tuple[jax.Array, jax.Array]:
        # The images are drawn: some sets list held-out images class by class.
        valid = dataset.valid
        rng = np.random.default_rng(parts.config.seed)
        chosen = valid.take(rng.permutation(valid.size)[:IMAGES])
        x_BxHxWxC = normalise(
            jnp.asarray(chosen.x_NxHxWxC),
            jnp.asarray(dataset.mean_C),
            jnp.asarray(dataset.std_C),
        )
        x_BxHxWxC = jax.device_put(x_BxHxWxC, parts.replicated_here)
        return jax.random.fold_in(parts.key, 4), x_BxHxWxC

    return make_separability(
        parts.searched.target, parts.local_mesh, parts.chunk, replicated
    )


def scored_on(parts: Parts, dataset: Dataset) -> Split:
    """Returns the held-out images that candidates are scored on.

    Args:
        parts: The parts of the run.
        dataset: The images.
    """
    number = parts.config.score.taken(dataset.valid.size)
    return _drawn(parts, dataset, number)


def _drawn(parts: Parts, dataset: Dataset, number: int) -> Split:
    """Draws some of the held-out images, class by class."""
    valid = dataset.valid
    if number == valid.size:
        return valid
    rng = np.random.default_rng(parts.config.seed)
    chosen, _ = stratified(valid.y_N, number, rng)
    return valid.take(chosen)


def batches_of(parts: Parts, dataset: Dataset, split: Split) -> Batches:
    """Cuts a split of a run's images into batches to score on, on all devices.

    Args:
        parts: The parts of the run.
        dataset: The images.
        split: Their validation or test split.
    """
    batch = parts.config.score.batch
    batches = make_batches(split, dataset.mean_C, dataset.std_C, batch)
    return jax.device_put(batches, parts.replicated_here)
