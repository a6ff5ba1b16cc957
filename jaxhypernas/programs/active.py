"""Chooses whom to train next, from those that were trained."""

import itertools

import jax
import numpy as np

from jaxhypernas.archs.population import in_batches
from jaxhypernas.hosts import processes
from jaxhypernas.numerics.evidence import terms
from jaxhypernas.numerics.labels import Prediction, predict
from jaxhypernas.programs.populations import parse
from jaxhypernas.store.ids import ids_from_text
from jaxhypernas.store.score_table import Order, ScoreTable
from jaxhypernas.types import Arch, Space

POOL = 4096
"""Number of candidates to choose from: the best of the table."""

DEEPEST = 10
"""Ops of a shortest path beyond which it makes no difference."""


class Pool:
    """Candidates to choose from, and those that were trained before.

    Args:
        space: The space of the candidates.
        table: The table of scores.
        order: What candidates are ordered by.
        trained: Rows of candidates trained from scratch.
    """

    def __init__(
        self,
        space: Space,
        table: ScoreTable,
        order: Order,
        trained: list[dict],
    ):
        best = table.best(POOL, order=order)["id"].to_pylist()
        ids = [*dict.fromkeys(best + [row["id"] for row in trained])]
        # A damaged shard takes rows out of the table of scores alone.
        id_A = ids_from_text(ids)
        held_A = table.holds(id_A)
        ids, id_A = [*itertools.compress(ids, held_A)], id_A[held_A]
        self._rows = table.rows(id_A).to_pylist()
        self._place = {id_: i for i, id_ in enumerate(ids)}
        self._worth_A = table.worth(id_A, order)
        population = parse(space, [row["arch"] for row in self._rows])
        counts_AxF = np.array(
            [[row["live_params"], row["live_flops"]] for row in self._rows]
        )
        self._features_AxF = np.concatenate(
            [
                np.stack(terms(table.evidence(id_A)), -1),
                np.log1p(counts_AxF),
                np.minimum(space.depth(population), DEEPEST)[:, None],
                _ops(space, population),
            ],
            -1,
        )

    def predict(self, trained: list[dict]) -> Prediction:
        """Predicts validation losses of all candidates of the pool, as ranks.

        Args:
            trained: Rows of candidates trained from scratch.
        """
        trained = [row for row in trained if row["id"] in self._place]
        return predict(
            self._worth_A,
            self._features_AxF,
            np.array([self._place[row["id"]] for row in trained], int),
            np.array([-row["trained_valid_loss"] for row in trained]),
        )

    def choose(self, trained: list[dict], number: int) -> list[dict]:
        """Returns the rows of those to train next: the best, if all goes well.

        Args:
            trained: As for `predict`; none of these is chosen.
            number: How many; fewer if no others are left.
        """
        mean_A, deviation_A = self.predict(trained)
        hope_A = mean_A + deviation_A
        known = {row["id"] for row in trained}
        # Processes round otherwise; they must choose the same.
        order_A = processes.broadcast(np.argsort(-hope_A, kind="stable"))
        rows = (self._rows[i] for i in order_A.tolist())
        return [row for row in rows if row["id"] not in known][:number]


def _ops(space: Space, population: Arch) -> np.ndarray:
    """How often each architecture applies each op; [A, O]."""

    def count(arch: Arch) -> jax.Array:
        return space.graph(arch).op_NxO.sum(0)

    return in_batches(jax.jit(jax.vmap(count)), population).astype(float)
