"""What a search will do, how long it takes here, and how to fit it into a time."""

import math
from dataclasses import replace
from typing import NamedTuple

from jaxhypernas.config.config import Config
from jaxhypernas.config.sections import RetrainConfig
from jaxhypernas.data.batches import batch_shape
from jaxhypernas.data.dataset import Dataset
from jaxhypernas.programs.candidate_verbs import sampled
from jaxhypernas.programs.parts import Parts, build
from jaxhypernas.programs.trial import Trial, sample
from jaxhypernas.report import duration
from jaxhypernas.search.configs import scaled
from jaxhypernas.types import UserError

START_SECONDS = 4.0
"""How long the program takes to start, before a verb runs."""

REPORT_SECONDS = 4.0
"""How long the report takes."""

SPEED = 3e9
"""Multiply-adds per second of a CPU core, roughly, in large networks."""

FEWEST_STEPS = 10
"""Smallest number of training steps that a search is fitted to."""

FEWEST_SAMPLE = 8
"""Smallest random sample: with fewer candidates a correlation says nothing."""

_TRIES = 30


class Phase(NamedTuple):
    """A part of a search."""

    name: str
    """Its name, as progress bars have it."""

    work: str
    """What it does."""

    seconds: float
    """How long it takes, with programs in the cache."""


def phases(parts: Parts, dataset: Dataset, trial: Trial) -> list[Phase]:
    """Says what a search does and how long it takes.

    Args:
        parts: The parts of the search.
        dataset: The images.
        trial: What its parts take here.
    """
    config = parts.config
    train, retrain = config.train, config.retrain
    devices = parts.mesh.size
    valid = config.score.taken(dataset.valid.size)
    total = parts.strategy.total + sampled(parts)

    tested = config.score.taken_when_trained(dataset.valid.size)
    tested += dataset.test.size
    batches = tested / batch_shape(dataset.valid.size, config.score.batch)[1]
    alone = retrain.train.steps * trial.retrain.unit
    alone += batches * trial.test.unit
    trained = retrain.top + retrain.active + retrain.sample
    begin = trial.retrain.begin + 2 * trial.test.begin

    is_trained = parts.searched.generator.trained
    per_candidate = trial.score.unit if is_trained else alone / devices
    search = total * per_candidate + trial.score.begin
    # Each population costs more than its candidates do among many.
    search += parts.strategy.rounds * max(0.0, trial.alone - trial.score.unit)
    found = [
        Phase(
            "search",
            f"{total:,} candidates on {valid:,} images",
            search if is_trained else search + begin,
        ),
        Phase(
            "retrain",
            f"{trained:,} candidates, {retrain.train.steps:,} steps of "
            f"{retrain.train.batch} images each",
            begin + math.ceil(trained / devices) * alone,
        ),
        Phase("report", "", REPORT_SECONDS),
    ]
    if is_trained:
        work = (
            f"{train.steps:,} steps of {train.architectures} architectures x "
            f"{train.batch} images"
        )
        seconds = trial.train.begin + train.steps * trial.train.unit
        found.insert(0, Phase("train", work, seconds))
    return found


def fitted(
    parts: Parts, dataset: Dataset, trial: Trial, seconds: float, most: float
) -> Config:
    """Fits a search into a time: steps, candidates and retraining grow or shrink.

    Args:
        parts: The parts of the search.
        dataset: The images.
        trial: What its parts take here.
        seconds: The time that it should take from now on.
        most: The time that it may take if it cannot be smaller.

    Returns:
        Its configuration, changed in ``train.steps``, the numbers of ``strategy``,
        ``retrain.train.steps`` and ``retrain.sample``.

    Raises:
        UserError: The time is too short.
    """

    def takes(factor: float) -> float:
        config = _scaled(parts.config, factor)
        other = build(config, parts.image, parts.classes)
        return sum(phase.seconds for phase in phases(other, dataset, trial))

    low, high = math.log(1e-4), math.log(1e4)
    least = takes(math.exp(low))
    if least > most:
        raise UserError(
            f"minutes: too short: of this kind the smallest search takes "
            f"{duration.text(least)} here, and compiling took "
            f"{duration.text(trial.compiling)}, which need not be done again: give "
            "more, or other images, space or generator"
        )
    for _ in range(_TRIES):
        middle = (low + high) / 2
        fits = takes(math.exp(middle)) <= seconds
        low, high = (middle, high) if fits else (low, middle)
    return _scaled(parts.config, math.exp(low))


def _scaled(config: Config, factor: float) -> Config:
    """Scales a search so that it takes about ``factor`` times as long."""
    train = replace(
        config.train,
        steps=max(FEWEST_STEPS, round(factor * config.train.steps)),
    )
    return replace(
        config,
        train=train,
        strategy=scaled(config.strategy, factor),
        retrain=_scaled_retrain(config.retrain, factor),
    )


def _scaled_retrain(retrain: RetrainConfig, factor: float) -> RetrainConfig:
    """Scales retraining; the sample only shrinks, as longer training tells more."""
    shrink = min(1.0, math.sqrt(factor))
    sample = max(
        min(FEWEST_SAMPLE, retrain.sample), round(shrink * retrain.sample)
    )
    candidates = retrain.top + retrain.active
    steps = factor * retrain.train.steps
    steps *= (candidates + retrain.sample) / (candidates + sample)
    train = replace(retrain.train, steps=max(FEWEST_STEPS, round(steps)))
    return replace(retrain, sample=sample, train=train)


def counted(parts: Parts, dataset: Dataset) -> float:
    """Counts how long a search takes on CPU, roughly, from below; in seconds.

    Args:
        parts: The parts of the search.
        dataset: The images.

    Returns:
        The time; 0 on other platforms, whose speeds differ too much.
    """
    if parts.mesh.devices.flat[0].platform != "cpu":
        return 0.0
    config = parts.config
    train, retrain = config.train, config.retrain
    space = parts.searched.space
    each = float(space.cost(sample(parts)).live_flops.mean())

    # Backward passes take twice as long as the one forward.
    alone = 3 * retrain.train.steps * retrain.train.batch
    alone += config.score.taken_when_trained(dataset.valid.size)
    alone += dataset.test.size
    trained = retrain.top + retrain.active + retrain.sample
    scored = parts.strategy.total + sampled(parts)
    images = trained * alone
    if parts.searched.generator.trained:
        images += 3 * train.steps * train.architectures * train.batch
        images += scored * config.score.taken(dataset.valid.size)
    else:
        images += scored * alone
    return images * each / (SPEED * parts.mesh.size)
