"""Training of single networks: the steps of `steps`, standalone weights."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxhypernas.archs.population import size
from jaxhypernas.data.batches import Batches, Images
from jaxhypernas.execution.candidates import bind, split_candidates
from jaxhypernas.execution.mesh import ARCH
from jaxhypernas.execution.pace import Pace
from jaxhypernas.generators.standalone import standalone
from jaxhypernas.hosts import interrupt
from jaxhypernas.programs import training
from jaxhypernas.programs.parts import Parts
from jaxhypernas.programs.scoring import (
    CALL_SECONDS,
    Part,
    add_scores,
    zeros,
)
from jaxhypernas.programs.steps import (
    TrainState,
    init_state,
    make_optimizer,
    make_steps,
)
from jaxhypernas.report import progress
from jaxhypernas.types import Arch, Params, Scores


class Truth(NamedTuple):
    """Scores of candidates after training from scratch."""

    valid: Scores
    """On the validation images."""

    test: Scores
    """On the test images."""

    theta: Params
    """Their weights, with a leading axis A."""


class Programs(NamedTuple):
    """The programs that train and score a candidate on each device."""

    begin: jax.stages.Wrapped
    """``begin(key, seed_D) -> state``, a `TrainState` with a leading axis D."""

    train: jax.stages.Wrapped
    """``train((images, steps, total), (population, state)) -> state``."""

    score: jax.stages.Wrapped
    """``score(part, (population, state, sums)) -> sums``."""


def make_programs(parts: Parts) -> Programs:
    """Makes the programs that train and score a candidate on each device.

    Args:
        parts: The parts of the run.
    """
    config = parts.config.retrain.train
    target = parts.searched.target
    generator = standalone(target.weight_spec, target.nodes)
    optimizer = make_optimizer(config, config.steps)
    logits = bind(target, generator)

    def begin(key, seed):
        return init_state(generator, optimizer, jax.random.fold_in(key, seed))

    def train(replicated, candidate):
        images, steps, total = replicated
        arch, state = candidate

        def sample(key, progress):
            return jax.tree.map(lambda x: x[None], arch)

        def mean(f, batch, population):
            return f(batch, jax.tree.map(lambda x: x[0], population))

        run = make_steps(
            config,
            parts.config.data,
            logits,
            generator.decay,
            sample,
            mean,
            training.steps_per_call(config),
        )
        state, _ = run(state, images, steps, total)
        return state

    def score(part, candidate):
        arch, state, sums = candidate
        return add_scores(partial(logits, state.phi, arch), part, sums)

    def on_each(f: Callable[[Any, Any], Any]) -> jax.stages.Wrapped:
        """Maps a function of one candidate; each device has one."""

        def local(replicated, candidates):
            candidate = jax.tree.map(lambda x: x[0], candidates)
            result = f(replicated, candidate)
            return jax.tree.map(lambda x: x[None], result)

        return jax.jit(split_candidates(parts.local_mesh, local))

    return Programs(on_each(begin), on_each(train), on_each(score))


class FromScratch:
    """Trains candidates and scores them, as many as devices at a time.

    A candidate's random weights and batches depend on the run's key and the
    candidate's id only, not on the other candidates.

    Args:
        parts: The parts of the run.
        images: Training images, on the devices of this process.
        valid: Validation images.
        test: Test images.
    """

    def __init__(
        self, parts: Parts, images: Images, valid: Batches, test: Batches
    ):
        self._key = jax.random.fold_in(parts.key, 3)
        self._images = images
        self._valid = valid
        self._test = test
        self._devices = parts.local_mesh.shape[ARCH]
        config = parts.config.retrain.train
        self._steps = config.steps
        self._per_call = training.steps_per_call(config)
        self._programs = make_programs(parts)
        self._train_pace = Pace(CALL_SECONDS)
        self._score_pace = Pace(CALL_SECONDS)
        self._compiled: set[str] = set()

    def __call__(
        self,
        population: Arch,
        id_A: np.ndarray,
        observe: Callable[[int], None] = lambda steps: None,
        theta_A: Params | None = None,
    ) -> Truth | None:
        """Trains and scores candidates, at most one per device.

        Args:
            population: Canonical architectures.
            id_A: Their ids, uint64.
            observe: ``observe(steps)``: called now and then with the number of steps
                that each candidate has done since the last time.
            theta_A: Weights to begin with, with a leading axis A; None: random ones.

        Returns:
            Their scores, NumPy arrays [A]; None: a signal came before the end.
        """
        A = size(population)
        seed_A = (id_A >> np.uint64(36)).astype(np.int32)
        # Devices without a candidate repeat the last one.
        index_D = np.minimum(np.arange(self._devices), A - 1)
        population, seed_D, theta_D = jax.tree.map(
            lambda x: np.asarray(x)[index_D], (population, seed_A, theta_A)
        )
        state = self._programs.begin(self._key, seed_D)
        if theta_D is not None:
            # Weights of standalone networks are phi itself.
            state = state._replace(phi=theta_D)
        state = self._train(population, state, observe)
        if state is None:
            return None
        valid = self._score(self._valid, "held-out", population, state)
        test = self._score(self._test, "test", population, state)
        if valid is None or test is None:
            return None
        theta = jax.device_get(state.phi)
        return jax.tree.map(lambda x: x[:A], Truth(valid, test, theta))

    def _train(
        self,
        population: Arch,
        state: TrainState,
        observe: Callable[[int], None],
    ) -> TrainState | None:
        done = 0
        while done < self._steps:
            steps = min(
                self._train_pace.number, self._per_call, self._steps - done
            )
            state = self._call(
                self._programs.train,
                "training from scratch",
                self._train_pace,
                steps,
                (self._images, np.int32(steps), np.int32(self._steps)),
                (population, state),
            )
            done += steps
            observe(steps)
            if interrupt.pending():
                return None
        return state

    def _score(
        self,
        batches: Batches,
        name: str,
        population: Arch,
        state: TrainState,
    ) -> Scores | None:
        end = len(batches.y_TxB)
        sums = zeros(self._devices)
        first = 0
        while first < end:
            after = min(end, first + self._score_pace.number)
            sums = self._call(
                self._programs.score,
                f"scoring on {name} images",
                self._score_pace,
                after - first,
                Part(batches, np.array([first, after], np.int32)),
                (population, state, jax.device_get(sums)),
            )
            first = after
            if interrupt.pending():
                return None
        return Scores(*(x / np.float32(end) for x in jax.device_get(sums)))

    def _call(
        self,
        program: jax.stages.Wrapped,
        name: str,
        pace: Pace,
        number: int,
        *arguments: Any,
    ) -> Any:
        """Calls a program, and measures it once it is compiled."""
        if name not in self._compiled:
            with progress.waiting(f"compiling the program of {name}"):
                program.lower(*arguments).compile()
            self._compiled.add(name)
        began = time.time()
        result = jax.block_until_ready(program(*arguments))
        pace.took(number, time.time() - began)
        return result
