"""Scoring: validation loss of each candidate under its generated weights.

A call of the program lasts a few seconds: it scores several candidates on all batches
or, where one takes long, one on some of the batches.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxhypernas.archs.population import rows, size
from jaxhypernas.data.batches import Batches
from jaxhypernas.execution.candidates import (
    deal_places,
    map_first,
    split_candidates,
)
from jaxhypernas.execution.mesh import ARCH
from jaxhypernas.execution.pace import Pace
from jaxhypernas.numerics.losses import cross_entropy
from jaxhypernas.report import progress
from jaxhypernas.types import Arch, Array, Generator, Params, Scores, Target

CALL_SECONDS = 2.0
"""How long a call of the program should take."""

PER_CALL = 64
"""Largest number of candidates that a device scores per call of the program."""


class Part(NamedTuple):
    """Some of the batches that candidates are scored on."""

    batches: Batches
    """All T batches."""

    range_2: Array
    """int32: the first one to score on, and the first one after those."""


def add_scores(
    logits: Callable[[jax.Array], jax.Array], part: Part, sums: Scores
) -> Scores:
    """Scores a network on some batches.

    Args:
        logits: ``logits(x_BxHxWxC) -> logits_BxL``: the network.
        part: The batches.
        sums: Sums over the batches before these.

    Returns:
        The sums with these batches. However batches are cut into parts, terms are added
        one after the other: the result is the same bit for bit.
    """

    def add(t, sums):
        y_B = part.batches.y_TxB[t]
        logits_BxL = logits(part.batches.x_TxBxHxWxC[t])
        correct_B = logits_BxL.argmax(-1) == y_B
        accuracy = correct_B.astype(jnp.float32).mean()
        loss = cross_entropy(logits_BxL, y_B)
        return Scores(sums.loss + loss, sums.accuracy + accuracy)

    first, end = part.range_2
    return jax.lax.fori_loop(first, end, add, sums)


def zeros(*shape: int) -> Scores:
    """Returns sums before the first batch.

    Args:
        *shape: Shape of each.
    """
    return Scores(*(np.zeros(shape, np.float32) for _ in Scores._fields))


def score_program(
    target: Target, generator: Generator, mesh: Mesh, chunk: int
) -> jax.stages.Wrapped:
    """Makes the program that `make_score` calls.

    Args:
        target: The networks.
        generator: The generator of their weights.
        mesh: The devices.
        chunk: Candidates side by side on a device.

    Returns:
        ``program((phi, part), (population, sums), number_D) -> sums``, where the part
        is a `Part`. The population has a multiple of ``chunk`` candidates for each of D
        devices, of which the first ``number_D`` are scored, rounded up to chunks: calls
        of any size are one program.
    """

    def one(replicated, candidate):
        phi, part = replicated
        arch, sums = candidate
        theta = generator.generate(phi, arch)
        return add_scores(partial(target.apply, theta, arch), part, sums)

    def local(replicated, candidates, number_1):
        return map_first(
            partial(one, replicated), candidates, chunk, number_1[0]
        )

    return jax.jit(split_candidates(mesh, local))


class _Call(NamedTuple):
    """A call that devices may still work on."""

    sums: Scores
    """Sums over all batches so far; [D * M]."""

    place_A: np.ndarray
    """The place of each candidate among them."""

    units: int
    """Chunks times batches of each device."""

    began: float
    """When it began."""


class _Score:
    """What `make_score` returns."""

    def __init__(self, program: jax.stages.Wrapped, devices: int, chunk: int):
        self._program = program
        self._devices = devices
        self._chunk = chunk
        self._most_chunks = -(-PER_CALL // chunk)
        # Its unit is a chunk on a batch.
        self._pace = Pace(CALL_SECONDS)
        self._last_end = 0.0
        self._compiled = False

    def __call__(
        self,
        replicated: tuple[Params, Batches],
        population: Arch,
        work_A: np.ndarray,
        stop: Callable[[], bool] = lambda: False,
    ) -> Scores:
        batches = len(replicated[1].y_TxB)
        begun: list[_Call] = []
        done: list[Scores] = [zeros(0)]
        first = 0
        while first < size(population) and not stop():
            fitting = self._pace.number // batches
            chunks = max(1, min(fitting, self._most_chunks))
            number = self._devices * chunks * self._chunk
            part = slice(first, first + number)
            first += number
            if not fitting and begun:
                # What takes several calls waits in between, but not for others.
                done.append(self._fetch(begun.pop(), batches))
            call = self._begin(
                replicated, rows(population, part), work_A[part], stop
            )
            if call is None:
                break
            begun.append(call)
            # The host fetches results while the devices work on the next call.
            if len(begun) == 2:
                done.append(self._fetch(begun.pop(0), batches))
        done += [self._fetch(call, batches) for call in begun]
        return Scores(*map(np.concatenate, zip(*done, strict=True)))

    def _begin(
        self,
        replicated: tuple[Params, Batches],
        population: Arch,
        work_A: np.ndarray,
        stop: Callable[[], bool],
    ) -> _Call | None:
        """Begins to score candidates; None: it was stopped."""
        phi, batches = replicated
        number = self._most_chunks * self._chunk
        index, number_D, place_A = deal_places(work_A, self._devices, number)
        candidates = jax.tree.map(lambda x: np.asarray(x)[index], population)
        chunks = -(-int(number_D.max()) // self._chunk)
        end = len(batches.y_TxB)

        call = _Call(zeros(len(index)), place_A, 0, 0.0)
        first = 0
        while first < end:
            if first:
                # On the host, as the zeros were: arguments on devices are another
                # program's.
                call = call._replace(sums=jax.device_get(self._wait(call)))
                if stop():
                    return None
            after = min(end, first + max(1, self._pace.number // chunks))
            arguments = (
                (phi, Part(batches, np.array([first, after], np.int32))),
                (candidates, call.sums),
                number_D,
            )
            if not self._compiled:
                with progress.waiting("compiling the program of scoring"):
                    self._program.lower(*arguments).compile()
                self._compiled = True
            began = time.time()
            sums = self._program(*arguments)
            units = chunks * (after - first)
            call = _Call(sums, place_A, units, began)
            first = after
        return call

    def _wait(self, call: _Call) -> Scores:
        jax.block_until_ready(call.sums)
        # A call begins when the one before it ends.
        began = max(call.began, self._last_end)
        self._last_end = time.time()
        self._pace.took(call.units, self._last_end - began)
        return call.sums

    def _fetch(self, call: _Call, batches: int) -> Scores:
        sums = jax.device_get(self._wait(call))
        return Scores(*(x[call.place_A] / np.float32(batches) for x in sums))


def make_score(
    target: Target, generator: Generator, mesh: Mesh, chunk: int
) -> Callable[..., Scores]:
    """Makes a function that scores any number of candidates with one program.

    A score never depends on the other candidates, their order, the number of devices or
    how the work is cut into calls.

    Args:
        target: The networks.
        generator: The generator of their weights.
        mesh: The devices.
        chunk: Candidates side by side on a device.

    Returns:
        ``score((phi, batches), population, work_A, stop)``: NumPy arrays [A]: loss and
        accuracy, averaged over batches. ``work_A`` is the cost of each candidate in any
        unit; devices get about equal sums. As soon as ``stop()`` is true, the scores of
        the first candidates are returned, and candidates under way are left.
    """
    program = score_program(target, generator, mesh, chunk)
    return _Score(program, mesh.shape[ARCH], chunk)
