"""Trains the best candidates and a random sample from scratch: rows of retrain/."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import pyarrow as pa

from jaxhypernas.hosts import interrupt, processes
from jaxhypernas.programs.populations import parse
from jaxhypernas.programs.truth import FromScratch
from jaxhypernas.store.score_table import ids_from_text
from jaxhypernas.store.tables import Table
from jaxhypernas.types import Params, Space


class Wanted(NamedTuple):
    """A candidate to train from scratch."""

    group: str
    """``top``, of the best, ``sample``, of the random sample, ``active``, by
    what was trained before, or ``chosen``, by the user."""

    row: dict
    """The candidate's row of the score table."""


def missing(table: Table, wanted: list[Wanted]) -> list[Wanted]:
    """Returns the candidates that are not in the table of retrained ones.

    Args:
        table: The table of retrained candidates.
        wanted: Candidates.
    """
    rows = table.read().to_pylist()
    done = {(row["group"], row["id"]) for row in rows}
    return [
        each for each in wanted if (each.group, each.row["id"]) not in done
    ]


def retrain(
    space: Space,
    table: Table,
    wanted: list[Wanted],
    from_scratch: FromScratch,
    devices: int,
    observe_steps: Callable[[int], None],
    observe: Callable[[int, float], None],
    keep: Callable[[str, Params], None],
) -> None:
    """Trains candidates from scratch and appends their rows, a piece at a time.

    Args:
        space: The space of the candidates.
        table: The table of retrained candidates.
        wanted: Candidates that are not in it.
        from_scratch: Trains and scores candidates.
        devices: Devices of all processes: candidates per piece.
        observe_steps: ``observe_steps(steps)``: called now and then with the number of
            steps that each candidate of the piece has done since the last time.
        observe: ``observe(number, accuracy)``: called after each piece with the number
            of candidates and their mean test accuracy.
        keep: ``keep(id, theta)``: called with the weights of each candidate that is not
            of the random sample, before its row is there.

    Raises:
        StoppedError: A signal has come; the pieces before it are in the table.
    """
    for first in range(0, len(wanted), devices):
        piece = wanted[first : first + devices]
        mine = piece[processes.share(len(piece))]
        rows = []
        if mine:
            rows = _rows(space, mine, from_scratch, observe_steps, keep)
        table.append(pa.Table.from_pylist(rows))
        interrupt.check()
        accuracies = table.read(["test_accuracy"])["test_accuracy"].to_numpy()
        observe(len(piece), float(accuracies[-len(piece) :].mean()))


def _rows(
    space: Space,
    piece: list[Wanted],
    from_scratch: FromScratch,
    observe_steps: Callable[[int], None],
    keep: Callable[[str, Params], None],
) -> list[dict]:
    """The rows of a piece; none if a signal came before its end."""
    population = parse(space, [each.row["arch"] for each in piece])
    id_A = ids_from_text([each.row["id"] for each in piece])
    truth = from_scratch(population, id_A, observe_steps)
    if truth is None:
        return []
    for i, each in enumerate(piece):
        if each.group != "sample":
            keep(
                each.row["id"], jax.tree.map(lambda w, i=i: w[i], truth.theta)
            )
    return [
        {
            "group": each.group,
            **each.row,
            "trained_valid_loss": float(truth.valid.loss[i]),
            "trained_valid_accuracy": float(truth.valid.accuracy[i]),
            "test_loss": float(truth.test.loss[i]),
            "test_accuracy": float(truth.test.accuracy[i]),
        }
        for i, each in enumerate(piece)
    ]
