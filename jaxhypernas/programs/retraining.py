"""Trains candidates one by one, each on a device: rows of retrain/."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
import pyarrow as pa

from jaxhypernas.hosts import interrupt, processes
from jaxhypernas.programs import chosen
from jaxhypernas.programs.populations import parse
from jaxhypernas.programs.truth import FromScratch
from jaxhypernas.store.ids import ids_from_text
from jaxhypernas.store.tables import Table
from jaxhypernas.types import Params, Space


class Wanted(NamedTuple):
    """A candidate to train."""

    group: str
    """``top``, of the best, ``sample``, of the random sample, ``active``, by
    what was trained before, or ``chosen``, by the user."""

    row: dict
    """The candidate's row of the score table."""

    changes: str = ""
    """How its training differs from that of the run: see `config.changes`."""

    start: str = "scratch"
    """What weights it begins with: see `chosen.start_of`."""

    theta: Callable[[], Params] | None = None
    """Returns these weights; None: random ones."""


def missing(table: Table, wanted: list[Wanted]) -> list[Wanted]:
    """Returns the candidates that are not in the table of retrained ones.

    Args:
        table: The table of retrained candidates.
        wanted: Candidates.
    """
    rows = table.read().to_pylist()
    done = {(row["group"], chosen.file_name(row)) for row in rows}
    kept = {name for group, name in done if group != "sample"}
    # Whoever chooses one of the best gets what is known of it.
    done |= {("chosen", name) for name in kept}
    return [each for each in wanted if (each.group, _name(each)) not in done]


def found(table: Table, wanted: list[Wanted]) -> pa.Table:
    """Returns the rows of trained candidates whose weights are kept.

    Args:
        table: The table of retrained candidates.
        wanted: Candidates; all of them are in it.
    """
    rows = table.read()
    places = {
        chosen.file_name(row): place
        for place, row in enumerate(rows.to_pylist())
        if row["group"] != "sample"
    }
    return rows.take([places[_name(each)] for each in wanted])


def by_run(rows: Sequence[dict]) -> list[dict]:
    """Returns the candidates that were trained as the run's configuration says.

    Args:
        rows: Rows of the table of retrained candidates.
    """
    return [row for row in rows if chosen.file_name(row) == row["id"]]


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
    """Trains candidates and appends their rows, a piece at a time.

    Args:
        space: The space of the candidates, with the sizes to train at.
        table: The table of retrained candidates.
        wanted: Candidates that are not in it; all of them begin with random weights, or
            none.
        from_scratch: Trains and scores candidates.
        devices: Devices of all processes: candidates per piece.
        observe_steps: ``observe_steps(steps)``: called now and then with the number of
            steps that each candidate of the piece has done since the last time.
        observe: ``observe(number, accuracy)``: called after each piece with the number
            of candidates and their mean test accuracy.
        keep: ``keep(name, theta)``: called with the weights of each candidate that is
            not of the random sample, before its row is there.

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
    theta_A = None
    if piece[0].theta is not None:
        thetas = [each.theta() for each in piece if each.theta is not None]
        theta_A = jax.tree.map(lambda *leaves: np.stack(leaves), *thetas)
    truth = from_scratch(population, id_A, observe_steps, theta_A)
    if truth is None:
        return []
    for i, each in enumerate(piece):
        if each.group != "sample":
            theta = jax.tree.map(lambda w, i=i: w[i], truth.theta)
            keep(_name(each), theta)
    # At other sizes than those that were scored, counts are others.
    counts = space.cost(population)._asdict()
    return [
        {
            **_described(each),
            **{
                name: int(count_A[i])
                for name, count_A in counts.items()
                if name in each.row
            },
            "trained_valid_loss": float(truth.valid.loss[i]),
            "trained_valid_accuracy": float(truth.valid.accuracy[i]),
            "test_loss": float(truth.test.loss[i]),
            "test_accuracy": float(truth.test.accuracy[i]),
        }
        for i, each in enumerate(piece)
    ]


def _name(wanted: Wanted) -> str:
    """The name of the weights that a candidate will have."""
    return chosen.file_name(_described(wanted))


def _described(wanted: Wanted) -> dict:
    """A row of the table of retrained candidates, without what training gives."""
    return {
        "group": wanted.group,
        **wanted.row,
        "changes": wanted.changes,
        "start": wanted.start,
    }
