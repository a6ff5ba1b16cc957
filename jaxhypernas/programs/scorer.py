"""Scores whatever a table of scores lacks.

A population is made canonical once, costed once, scored and appended.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import pyarrow as pa

from jaxhypernas.archs.population import (
    identities,
    in_batches,
    rows,
)
from jaxhypernas.execution.pace import Pace
from jaxhypernas.hosts import interrupt, processes
from jaxhypernas.numerics import evidence
from jaxhypernas.programs.separability import Separability
from jaxhypernas.store.ids import ids_to_text
from jaxhypernas.store.score_table import COUNTS, NO_ROWS, ScoreTable
from jaxhypernas.types import Arch, Cost, Scores, Space


class Candidates(NamedTuple):
    """Canonical architectures, each one once."""

    arch: Arch
    """The architectures."""

    id_A: np.ndarray
    """uint64: their ids."""

    cost: Cost
    """Their counts."""


class Scorer:
    """Scores candidates and appends them to a table.

    Args:
        space: The space of the candidates.
        table: The table of scores.
        evaluate: ``evaluate(candidates) -> Scores``: with generated weights, or after
            training from scratch; after a signal, of the first candidates or None.
        separability: The function that `make_separability` makes.
        pace: How many candidates are scored and appended together.
    """

    def __init__(
        self,
        space: Space,
        table: ScoreTable,
        evaluate: Callable[[Candidates], Scores | None],
        separability: Separability,
        pace: Pace,
    ):
        self.space = space
        self.table = table
        self._evaluate = evaluate
        self._separability = separability
        self._pace = pace
        self._canonical = jax.jit(jax.vmap(space.canonical))

    def score_missing(
        self,
        population: Arch,
        observe: Callable[[int, int], None] = lambda known, scored: None,
    ) -> np.ndarray:
        """Scores every candidate that is not in the table yet and appends its row.

        Args:
            population: Architectures, with a leading axis A.
            observe: ``observe(known, scored)``: called after each piece with the number
                of candidates that the table knew and that were scored.

        Returns:
            uint64 ids [A] of the whole population, in order.

        Raises:
            StoppedError: A signal has come; what was scored is in the table.
        """
        interrupt.check()
        population = in_batches(self._canonical, population)
        id_A = identities(population)
        new = np.sort(np.unique(id_A, return_index=True)[1])
        new = new[~self.table.known(id_A[new])]
        if len(new) < len(id_A):
            observe(len(id_A) - len(new), 0)
        while len(new):
            number = self._pace.number
            picked, new = new[:number], new[number:]
            mine = picked[processes.share(len(picked))]
            began = time.time()
            self.table.append(self._scored(rows(population, mine), id_A[mine]))
            interrupt.check()
            seconds = processes.largest(time.time() - began)
            self._pace.took(len(picked), seconds)
            observe(0, len(picked))
        return id_A

    def _scored(self, population: Arch, id_A: np.ndarray) -> pa.Table:
        """The rows of this process's share of a piece."""
        if not len(id_A):
            return NO_ROWS
        candidates = Candidates(population, id_A, self.space.cost(population))
        scores = self._evaluate(candidates)
        if scores is None or not len(scores.loss):
            return NO_ROWS
        # After a signal the first ones alone have scores.
        scored = slice(len(scores.loss))
        return self._rows(rows(candidates, scored), scores)

    def _rows(self, candidates: Candidates, scores: Scores) -> pa.Table:
        arch, id_A, cost = candidates
        losses = {
            name: np.asarray(value_A, np.float64)
            for name, value_A in scores._asdict().items()
        }
        strings = [
            self.space.to_string(rows(arch, i)) for i in range(len(id_A))
        ]
        return pa.table(
            {
                "id": ids_to_text(id_A),
                "arch": strings,
                **losses,
                "capacity": evidence.capacity(cost, self.space.depth(arch)),
                "separability": self._separability(arch, id_A, cost.flops),
                **{name: getattr(cost, name) for name in COUNTS},
            }
        )
