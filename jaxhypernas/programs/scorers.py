"""Makes the scorers of a run: under generated weights, or trained from scratch."""

from collections.abc import Callable
from functools import cache, partial

from jaxhypernas.data.batches import Batches, make_batches
from jaxhypernas.data.dataset import Dataset
from jaxhypernas.data.splits import Split
from jaxhypernas.programs import training
from jaxhypernas.programs.parts import Parts
from jaxhypernas.programs.scorer import Candidates, Scorer
from jaxhypernas.programs.scoring import make_score, score_one
from jaxhypernas.programs.truth import FromScratch
from jaxhypernas.store.score_table import ScoreTable
from jaxhypernas.types import Params, Scores

PER_SHARD = 32
"""Smallest number of candidates of a shard, for each device."""

SHARDS = 100
"""A shard holds 1 / SHARDS of the rows so far, if these are more."""


def make_from_scratch(parts: Parts, dataset: Dataset) -> FromScratch:
    """Makes the function that trains candidates from scratch.

    Args:
        parts: The parts of the run.
        dataset: The images.

    Raises:
        UserError: The training images are streamed.
    """
    images = training.images_on(parts.config, dataset, parts.replicated_here)
    valid, test = (
        batches_of(parts, dataset, split)
        for split in (dataset.valid, dataset.test)
    )
    return FromScratch(parts, images, valid, test)


def scratch_scorer(
    parts: Parts, table: ScoreTable, from_scratch: FromScratch
) -> Scorer:
    """Makes the scorer that trains every candidate from scratch.

    Args:
        parts: The parts of the run.
        table: The table of scores.
        from_scratch: Trains and scores candidates, as many as devices at a time.
    """
    devices = parts.mesh.size

    def evaluate(candidates: Candidates) -> Scores:
        return from_scratch(candidates.arch, candidates.id_A).valid

    return Scorer(parts.searched.space, table, evaluate, lambda rows: devices)


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
    devices = parts.mesh.size
    one = partial(score_one, target, generator)
    score = make_score(one, parts.local_mesh, parts.chunk)

    @cache
    def replicated() -> tuple[Params, Batches]:
        return phi(), batches_of(parts, dataset, dataset.valid)

    def evaluate(candidates: Candidates) -> Scores:
        work_A = candidates.cost.flops
        return score(replicated(), candidates.arch, work_A)

    def piece(rows: int) -> int:
        return max(PER_SHARD * devices, rows // SHARDS)

    return Scorer(space, table, evaluate, piece)


def batches_of(parts: Parts, dataset: Dataset, split: Split) -> Batches:
    """Cuts a split of a run's images into batches to score on.

    Args:
        parts: The parts of the run.
        dataset: The images.
        split: Their validation or test split.
    """
    batch = parts.config.score.batch
    return make_batches(split, dataset.mean_C, dataset.std_C, batch)
