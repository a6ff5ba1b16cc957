"""The table of scored candidates: rows on disk, found by id, loss or count.

In memory are 24 bytes of each candidate: its id, its evidence and the place of its row.
"""

import re
from typing import Literal

import numpy as np
import pyarrow as pa
from etils.epath import PathLike

from jaxhypernas.hosts import processes
from jaxhypernas.numerics.evidence import Evidence, score
from jaxhypernas.store.ids import ids_from_text
from jaxhypernas.store.tables import Table
from jaxhypernas.types import UserError

COUNTS = ("params", "flops", "live_params", "live_flops")
"""Columns of counts; `types.Cost` explains them."""

EVIDENCE = ("capacity", "separability")
"""Columns of evidence; `numerics.evidence` explains them."""

COLUMNS = ("id", "arch", "loss", "accuracy", *EVIDENCE, *COUNTS)
"""Columns of the table."""

Order = Literal["evidence", "loss"]
"""What candidates are ordered by: `evidence.score`, or the loss alone."""

SHORT_ID = 8
"""Digits of an id that are shown; so many or more are understood."""

_LOSS = Evidence._fields.index("loss")

NO_ROWS = pa.table(
    {"id": pa.array([], pa.string()), "loss": pa.array([], pa.float64())}
)
"""What a process without candidates appends."""


class ScoreTable:
    """A table with `COLUMNS` and one row per candidate, found by id.

    An id is 64 bits, as `store.ids` explains::

        scores = ScoreTable("runs/mine/scores")
        scores.best(10).to_pylist()

    Args:
        directory: Directory of the table's files; made when the first rows are
            appended.
    """

    def __init__(self, directory: PathLike):
        self.table = Table(directory)
        self._index()

    def _index(self) -> None:
        """Finds all rows by their ids."""
        # Sorted by id, so that a candidate is found by bisection.
        self._id_A = np.empty(0, np.uint64)
        self._value_AxE = np.empty((0, len(Evidence._fields)), np.float32)
        self._position_A = np.empty(0, np.int32)
        # Ids whose loss was not finite when this program scored them.
        self._tried_A = np.empty(0, np.uint64)
        if len(self.table):
            rows = self.table.read(["id", *Evidence._fields])
            self._insert(_ids(rows), _values(rows), 0)

    def __len__(self) -> int:
        return len(self._id_A)

    def __repr__(self) -> str:
        return (
            f"ScoreTable({str(self.table.directory)!r}: {len(self):,} candidates, "
            f"lowest loss {self.lowest:.4f})"
        )

    def append(self, rows: pa.Table) -> None:
        """Adds each process's rows and makes them durable.

        Args:
            rows: This process's rows with `COLUMNS`, of candidates that are not in the
                table; or `NO_ROWS`.

        Raises:
            OSError: The rows cannot be written; none of them is in the table.
        """
        start = len(self.table)
        self.table.append(rows)
        id_A = processes.gather(_ids(rows))
        value_AxE = processes.gather(_values(rows))
        tried_A = id_A[~np.isfinite(value_AxE[:, _LOSS])]
        self._tried_A = np.concatenate([self._tried_A, tried_A])
        self._insert(id_A, value_AxE, start)

    def known(self, id_A: np.ndarray) -> np.ndarray:
        """Returns whether each candidate need not be scored, bool [A].

        A candidate must be scored again if its loss was not finite in another program.

        Args:
            id_A: uint64 ids.
        """
        held_A = self.holds(id_A)
        # The places of other candidates mean nothing.
        finite_A = np.isfinite(self.loss(id_A)) if len(self) else held_A
        return held_A & (finite_A | np.isin(id_A, self._tried_A))

    def holds(self, id_A: np.ndarray) -> np.ndarray:
        """Returns whether each candidate has a row, bool [A].

        Args:
            id_A: uint64 ids.
        """
        if not len(self):
            return np.zeros(len(id_A), bool)
        return self._id_A[self._places(id_A)] == id_A

    def loss(self, id_A: np.ndarray) -> np.ndarray:
        """Returns the losses of candidates, float32 [A].

        Args:
            id_A: uint64 ids of candidates in the table.
        """
        return self._losses()[self._places(id_A)]

    def worth(self, id_A: np.ndarray, order: Order) -> np.ndarray:
        """Returns what candidates are ordered by, float64 [A]; higher is better.

        Args:
            id_A: uint64 ids of candidates in the table.
            order: Scores among the whole table, or negative losses.
        """
        if order == "loss":
            return -_worst_last(self.loss(id_A)).astype(np.float64)
        return self._scores()[self._places(id_A)]

    def rows(self, id_A: np.ndarray) -> pa.Table:
        """Reads the rows of candidates, in the order of their ids given.

        Args:
            id_A: uint64 ids of candidates in the table.

        Raises:
            UserError: A row has another id than the one asked for: another program
                changed the table's files after they were opened.
        """
        rows = self.table.take(self._position_A[self._places(id_A)])
        rows = _with_evidence(rows)
        if not np.array_equal(_ids(rows), id_A):
            raise UserError(
                f"workdir: {self.table.directory} changed while it was read: give the "
                "same command again"
            )
        return rows

    @property
    def lowest(self) -> float:
        """The lowest finite loss; infinite if there is none."""
        return float(_worst_last(self._losses()).min(initial=np.inf))

    def evidence(self, id_A: np.ndarray) -> Evidence:
        """Returns the evidence on candidates.

        Args:
            id_A: uint64 ids of candidates in the table.
        """
        return _evidence(self._value_AxE[self._places(id_A)])

    def best(
        self,
        number: int,
        max_params: int = 0,
        max_flops: int = 0,
        order: Order = "evidence",
    ) -> pa.Table:
        """Reads the best rows, best first, ties by id.

        Args:
            number: How many, or all if there are fewer.
            max_params: Most weights of a candidate; 0 sets no limit.
            max_flops: Most multiply-adds of a candidate; 0 sets no limit.
            order: What is best: the highest score or the lowest loss.

        Returns:
            The rows, with a column ``score``.

        Raises:
            UserError: The table has no rows.
        """
        self._check_rows()
        fits = self._within(max_params, max_flops)
        id_A = self._id_A[fits]
        score_A = self._scores()[fits]
        badness_A = -score_A
        if order == "loss":
            badness_A = _worst_last(self._losses()[fits])
        best = np.lexsort((id_A, badness_A))[:number]
        return self.rows(id_A[best]).append_column("score", [score_A[best]])

    def pareto(
        self,
        count: str,
        max_params: int = 0,
        max_flops: int = 0,
        order: Order = "evidence",
    ) -> pa.Table:
        """Reads the rows that no other row beats in score, or loss, and count.

        A row beats another if it is as good in both and better in one.

        Args:
            count: The count, one of `COUNTS`.
            max_params: Most weights of a candidate; 0 sets no limit.
            max_flops: Most multiply-adds of a candidate; 0 sets no limit.
            order: As for `best`.

        Returns:
            The rows, the smallest count first, with a column ``score``.

        Raises:
            UserError: The table has no rows.
        """
        self._check_rows()
        fits = self._within(max_params, max_flops) & np.isfinite(
            self._losses()
        )
        id_A = self._id_A[fits]
        score_A = self._scores()[fits]
        badness_A = self._losses()[fits] if order == "loss" else -score_A
        count_A = self._by_id(count)[fits]
        sorting = np.lexsort((id_A, badness_A, count_A))
        badness_A = badness_A[sorting]
        count_A = count_A[sorting]

        # Rows of one count lie side by side, the best one first.
        first_A = np.searchsorted(count_A, count_A)
        running = np.minimum.accumulate(badness_A)
        # The best of all rows that count less.
        smaller_A = np.append(np.inf, running)[first_A]
        unbeaten = (badness_A == badness_A[first_A]) & (badness_A < smaller_A)
        chosen = sorting[unbeaten]
        found = self.rows(id_A[chosen])
        return found.append_column("score", [score_A[chosen]])

    def named(self, text: str) -> str:
        """Returns the string of the architecture that a text names.

        Args:
            text: The first `SHORT_ID` digits or more of the id of a candidate, or an
                architecture string, which is returned as it is.

        Raises:
            UserError: No candidate has the id, or several have.
        """
        if not re.fullmatch(f"[0-9a-f]{{{SHORT_ID},16}}", text):
            return text
        lowest, highest = (int(text.ljust(16, c), 16) for c in "0f")
        first = np.searchsorted(self._id_A, np.uint64(lowest))
        end = np.searchsorted(self._id_A, np.uint64(highest), side="right")
        if end - first != 1:
            number = (
                "no candidate" if first == end else f"{end - first} candidates"
            )
            raise UserError(
                f"arch: {number} of {self.table.directory} has the id {text}"
            )
        return self.rows(self._id_A[first:end])["arch"][0].as_py()

    def column(self, name: str) -> np.ndarray:
        """Reads a column of all candidates, in the order they were appended.

        Args:
            name: One of `COLUMNS`.
        """
        return self._rows_of(name)[np.sort(self._position_A)]

    def compact(self) -> None:
        """Merges the table's files into one; rows and their order stay as they are."""
        self.refresh()
        self.table.compact()

    def refresh(self) -> None:
        """Reads the rows that another program added."""
        if self.table.refresh():
            self._index()

    def _check_rows(self) -> None:
        if not len(self):
            workdir = self.table.directory.parent
            raise UserError(
                f"workdir: {workdir} has no scores: run jaxhypernas score --workdir "
                f"{workdir} first, or search"
            )

    def _insert(
        self,
        id_A: np.ndarray,
        value_AxE: np.ndarray,
        start: int,
    ) -> None:
        """Indexes rows that begin at a position.

        Of equal ids the first row with a finite loss counts, or the first row.
        """
        position_A = np.arange(start, start + len(id_A), dtype=np.int32)
        order = np.lexsort((~np.isfinite(value_AxE[:, _LOSS]), id_A))
        id_A, first = np.unique(id_A[order], return_index=True)
        chosen = order[first]
        value_AxE = value_AxE[chosen]
        position_A = position_A[chosen]

        place = np.searchsorted(self._id_A, id_A)
        there = np.zeros(len(id_A), bool)
        if len(self):
            there = self._id_A[np.minimum(place, len(self) - 1)] == id_A
        # A score that was tried again takes the place of one that was not finite.
        old = place[there]
        finite = np.isfinite(value_AxE[there, _LOSS])
        better = finite & ~np.isfinite(self._losses()[old])
        self._value_AxE[old[better]] = value_AxE[there][better]
        self._position_A[old[better]] = position_A[there][better]

        place = place[~there]
        self._id_A = np.insert(self._id_A, place, id_A[~there])
        self._value_AxE = np.insert(
            self._value_AxE, place, value_AxE[~there], 0
        )
        self._position_A = np.insert(
            self._position_A, place, position_A[~there]
        )

    def _places(self, id_A: np.ndarray) -> np.ndarray:
        """Where the ids are, or would be, in the sorted ids."""
        place_A = np.searchsorted(self._id_A, id_A)
        return np.minimum(place_A, len(self) - 1)

    def _by_id(self, name: str) -> np.ndarray:
        """A column in the order of the sorted ids."""
        return self._rows_of(name)[self._position_A]

    def _rows_of(self, name: str) -> np.ndarray:
        """A column of all rows on disk."""
        return self.table.read([name])[name].to_numpy()

    def _losses(self) -> np.ndarray:
        return self._value_AxE[:, _LOSS]

    def _scores(self) -> np.ndarray:
        """The scores of all candidates, in the order of the sorted ids."""
        return score(_evidence(self._value_AxE))

    def _within(self, max_params: int, max_flops: int) -> np.ndarray:
        fits = np.ones(len(self), bool)
        if max_params:
            fits &= self._by_id("params") <= max_params
        if max_flops:
            fits &= self._by_id("flops") <= max_flops
        return fits


def _with_evidence(rows: pa.Table) -> pa.Table:
    """The rows with all columns of evidence, NaN where an older version lacked them."""
    for place, name in enumerate(EVIDENCE, COLUMNS.index(EVIDENCE[0])):
        if name not in rows.column_names:
            unknown = pa.array(np.full(len(rows), np.nan))
            rows = rows.add_column(
                min(place, rows.num_columns), name, [unknown]
            )
        elif rows[name].null_count:
            known = rows[name].fill_null(np.nan)
            column = rows.column_names.index(name)
            rows = rows.set_column(column, name, [known.combine_chunks()])
    return rows


def _worst_last(loss_A: np.ndarray) -> np.ndarray:
    """The losses, infinite where they are not finite."""
    return np.where(np.isfinite(loss_A), loss_A, np.inf)


def _ids(rows: pa.Table) -> np.ndarray:
    # One chunk at a time: text takes several times the memory of the ids.
    chunks = [ids_from_text(chunk.to_pylist()) for chunk in rows["id"].chunks]
    return np.concatenate([*chunks, np.empty(0, np.uint64)])


def _values(rows: pa.Table) -> np.ndarray:
    """The evidence, float32 [A, E]; NaN where an older version lacked it."""
    rows = _with_evidence(rows)
    columns = [rows[name].to_numpy() for name in Evidence._fields]
    return np.stack(columns, -1).astype(np.float32)


def _evidence(value_AxE: np.ndarray) -> Evidence:
    return Evidence(*value_AxE.astype(np.float64).T)
