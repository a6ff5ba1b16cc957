"""How long the parts of a search take on this machine: a little of each is done."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
from etils.epath import Path

from jaxhypernas.archs.population import rows
from jaxhypernas.data.dataset import Dataset
from jaxhypernas.execution.mesh import ARCH
from jaxhypernas.execution.pace import Pace
from jaxhypernas.hosts import interrupt, processes
from jaxhypernas.programs import scorers, training
from jaxhypernas.programs.parts import Parts
from jaxhypernas.programs.scoring import Part, zeros
from jaxhypernas.programs.truth import make_programs
from jaxhypernas.report import progress
from jaxhypernas.search.budget import within
from jaxhypernas.store.score_table import ScoreTable
from jaxhypernas.types import Arch, Params

SECONDS = 3.0
"""How long each part is tried, compilation left out."""

SAMPLES = 1024
"""Random candidates that are there to be scored."""

COUNTED = 64
"""Number of random candidates whose weights and multiply-adds are counted."""

ALONE = 5
"""Candidates that are scored one by one."""

SHARE = 0.65
"""Share of random candidates that are smaller than those trained from scratch: the best
are larger than most, and a piece lasts as long as its largest candidate."""


class Measured(NamedTuple):
    """How long work of one kind takes."""

    begin: float
    """Seconds before the first unit: programs are traced and read, not compiled."""

    unit: float
    """Seconds of a unit."""


class Trial(NamedTuple):
    """How long the parts of a search take."""

    train: Measured
    """A training step of the generator."""

    score: Measured
    """A candidate among many."""

    alone: float
    """Seconds of a population of one candidate."""

    retrain: Measured
    """A training step from scratch of a candidate on each device."""

    test: Measured
    """A batch of images through a trained candidate on each device."""

    compiling: float
    """Seconds that compilers took; programs are in the cache from then on."""


class _Clock:
    """A clock that stands still while compilers work."""

    def __init__(self) -> None:
        self.compiling = 0.0

    def __call__(self) -> float:
        return time.time() - self.compiling

    def listen(self, event: str, duration_secs: float, **_: Any) -> None:
        """Listens to JAX, whose time of compiling includes reading the cache."""
        if event == "/jax/core/compile/backend_compile_duration":
            self.compiling += duration_secs
        elif event == "/jax/compilation_cache/cache_retrieval_time_sec":
            self.compiling -= duration_secs


@contextmanager
def _clock() -> Iterator[_Clock]:
    clock = _Clock()
    jax.monitoring.register_event_duration_secs_listener(clock.listen)
    try:
        yield clock
    finally:
        jax.monitoring.unregister_event_duration_listener(clock.listen)


def measure(parts: Parts, dataset: Dataset, place: Path) -> Trial:
    """Tries each part of a search for a few seconds.

    Args:
        parts: The parts of the search.
        dataset: The images.
        place: A directory that does not exist; it is there meanwhile. All processes
            share it.

    Returns:
        The same in all processes.

    Raises:
        StoppedError: A signal has come.
    """
    train, score, alone = Measured(0.0, 0.0), Measured(0.0, 0.0), 0.0
    with _clock() as clock:
        if parts.searched.generator.trained:
            phi, train = _train(parts, dataset, clock)
            try:
                score, alone = _score(parts, dataset, phi, place, clock)
            finally:
                with processes.in_turn():
                    if processes.first() and place.exists():
                        place.rmtree()
        retrain, test = _retrain(parts, dataset, clock)
    trial = Trial(train, score, alone, retrain, test, clock.compiling)
    return jax.tree.map(processes.largest, trial)


def _train(
    parts: Parts, dataset: Dataset, clock: _Clock
) -> tuple[Params, Measured]:
    began = clock()
    state = training.start_everywhere(parts)
    with closing(training.train(parts, dataset, state)) as calls:
        done = next(calls)
        begin = clock() - began - done.seconds
        steps, seconds = done.steps, done.seconds
        for count, done in enumerate(calls):
            interrupt.check()
            if not count:
                # The first call warms up.
                steps, seconds = 0, 0.0
            steps += done.steps
            seconds += done.seconds
            if seconds > SECONDS:
                break
    phi = processes.local(done.state.phi, parts.replicated_here)
    return phi, Measured(begin, seconds / steps)


def _score(
    parts: Parts, dataset: Dataset, phi: Params, place: Path, clock: _Clock
) -> tuple[Measured, float]:
    """Random candidates, first many and then one by one."""
    began = clock()
    table = ScoreTable(place)
    scorer = scorers.generated_scorer(parts, table, dataset, lambda: phi)
    draw = within(parts.searched.space, parts.config.search)
    population = draw.sample(jax.random.fold_in(parts.key, 5), SAMPLES)

    def score(first: int, number: int) -> float:
        began = time.time()
        scorer.score_missing(rows(population, slice(first, first + number)))
        return time.time() - began

    number = parts.mesh.size * parts.chunk
    score(0, number)
    first, begin = number, clock() - began
    most = SAMPLES - ALONE
    unit = tried = 0.0
    while first < most and tried < SECONDS:
        known = len(table)
        seconds = score(first, number)
        first += number
        number = min(4 * number, most - first)
        tried += seconds
        if len(table) > known:
            unit = seconds / (len(table) - known)
    alone = [score(i, 1) for i in range(most, SAMPLES)]
    return Measured(begin, unit), float(np.median(alone))


def _retrain(
    parts: Parts, dataset: Dataset, clock: _Clock
) -> tuple[Measured, Measured]:
    """A candidate on each device is trained, and looks at held-out images."""
    programs = make_programs(parts)
    images = training.images_on(parts.config, dataset, parts.replicated_here)
    devices = parts.local_mesh.shape[ARCH]
    arch = _typical(parts)
    population = jax.tree.map(lambda x: np.stack([x] * devices), arch)
    seed_D = np.zeros(devices, np.int32)
    state = programs.begin(jax.random.fold_in(parts.key, 5), seed_D)
    config = parts.config.retrain.train
    per_call = training.steps_per_call(config)
    train = _paced(
        clock,
        "training from scratch",
        programs.train,
        lambda number: (
            (images, np.int32(number), np.int32(config.steps)),
            (population, state),
        ),
        per_call,
    )
    batches = scorers.batches_of(parts, dataset, dataset.valid)
    sums = jax.device_get(zeros(devices))
    test = _paced(
        clock,
        "scoring on held-out images",
        programs.score,
        lambda number: (
            Part(batches, np.array([0, number], np.int32)),
            (population, state, sums),
        ),
        len(batches.y_TxB),
    )
    return train, test


def sample(parts: Parts) -> Arch:
    """Returns `COUNTED` random candidates, whose sizes stand for all.

    Args:
        parts: The parts of the search.
    """
    draw = within(parts.searched.space, parts.config.search)
    return draw.sample(jax.random.fold_in(parts.key, 6), COUNTED)


def _typical(parts: Parts) -> Arch:
    """A candidate that is larger than most."""
    population = sample(parts)
    order = np.argsort(parts.searched.space.cost(population).live_flops)
    return rows(population, order[int(SHARE * len(order))])


def _paced(
    clock: _Clock,
    name: str,
    program: jax.stages.Wrapped,
    arguments: Callable[[int], tuple[Any, ...]],
    most: int,
) -> Measured:
    """Calls a program with more and more units, ``most`` at most."""

    def call(number: int) -> float:
        interrupt.check()
        began = time.time()
        jax.block_until_ready(program(*arguments(number)))
        return time.time() - began

    began = clock()
    with progress.waiting(f"compiling the program of {name}"):
        program.lower(*arguments(1)).compile()
    pace = Pace(SECONDS / 2, most=most)
    unit = tried = call(1)
    begin = clock() - began - unit
    while tried < SECONDS:
        number = pace.number
        seconds = call(number)
        pace.took(number, seconds)
        unit = seconds / number
        tried += seconds
    return Measured(begin, unit)
