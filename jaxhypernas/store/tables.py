"""Tables that only grow: Parquet files in a directory, their shards."""

import functools
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from etils.epath import Path, PathLike

from jaxhypernas.hosts import processes
from jaxhypernas.store import files
from jaxhypernas.store.shards import (
    LARGEST_GROUP,
    DamagedError,
    Shard,
    bare,
    concatenated,
    group_sizes,
    name_of,
    open_parquet,
    regrouped,
    shard_of,
    write_shard,
)
from jaxhypernas.types import UserError

MOST_SHARDS = 100
"""Number of shards after which they are merged."""

_TRIES = 10
"""How often a directory is listed again if another program changes it meanwhile."""


def _reopening(read: Callable) -> Callable:
    """Repeats a method that reads, if another program merged shards meanwhile."""

    @functools.wraps(read)
    def repeated(table: "Table", *args):
        for _ in range(_TRIES):
            try:
                return read(table, *args)
            except FileNotFoundError:
                table._reopen()
        return read(table, *args)

    return repeated


class Table:
    """Rows on disk; rows appended before a crash are there after it.

    Columns that some of the rows lack are null there.

    Of several processes each writes shards of its own and knows those of the others::

        table = Table("runs/mine/scores")
        table.append(pa.table({"x": [1, 2]}))
        table.read().to_pylist()

    Args:
        directory: Made when the first rows are appended.
        report: Called with one line for each damaged shard, which is set aside; its
            rows are then missing.
    """

    def __init__(
        self,
        directory: PathLike,
        report: Callable[[str], None] = files.report,
    ):
        self.directory = Path(directory)
        self._report = report
        # Process 0 sets damaged shards aside before the other processes look.
        with processes.in_turn():
            self._open()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __repr__(self) -> str:
        return f"Table({str(self.directory)!r}: {len(self):,} rows)"

    def refresh(self) -> bool:
        """Reads the directory again if another program added shards.

        Returns:
            Whether it did: positions of rows are then others.
        """
        # Listings of several processes may differ for a while, and no other program
        # writes while they hold the work directory.
        if processes.count() > 1:
            return False
        known = {*self._paths(), *self._covered}
        if known == {path for path in self._listed() if shard_of(path)}:
            return False
        self._open()
        return True

    def append(self, rows: pa.Table) -> None:
        """Adds each process's rows, those of process 0 first, and makes them durable.

        Args:
            rows: This process's rows; there may be none.

        Raises:
            OSError: The rows cannot be written; none of them is in the table.
        """
        crc = "0"
        if len(rows):
            self.directory.mkdir(parents=True, exist_ok=True)
            name = name_of(self._next, processes.index())
            crc = write_shard(self.directory, name, [rows])
        mine = np.array([[len(rows), int(crc, 16)]])
        for process, (number, crc) in enumerate(
            processes.gather(mine).tolist()
        ):
            if number:
                name = name_of(self._next, process)
                path = self.directory / f"{name}.{crc:08x}.parquet"
                full, rest = divmod(number, LARGEST_GROUP)
                sizes = [LARGEST_GROUP] * full + [rest]
                self._add(path, sizes)
        self._next += 1
        if self._is_scattered():
            self.compact()

    @_reopening
    def read(self, columns: list[str] | None = None) -> pa.Table:
        """Reads all rows, in the order they were appended.

        Args:
            columns: Names of the columns to read; all by default. A column that no row
                has is left out.
        """
        if not self._groups:
            return pa.table({})
        tables = []
        for path in self._paths():
            with path.open("rb") as file:
                tables.append(open_parquet(file).read(columns))
        return concatenated(tables)

    @_reopening
    def take(self, position_A: np.ndarray) -> pa.Table:
        """Reads some rows, and only the row groups that they lie in.

        Args:
            position_A: Int [A], positions in the order of appending.

        Returns:
            A rows, in the order of the positions.
        """
        if not len(position_A):
            return self._read_group(0).slice(0, 0)
        order_A = np.argsort(position_A, kind="stable")
        sorted_A = position_A[order_A]
        group_A = np.searchsorted(self._ends, sorted_A, side="right")
        parts = []
        for group in np.unique(group_A):
            rows = self._read_group(group)
            start = self._ends[group] - len(rows)
            parts.append(rows.take(sorted_A[group_A == group] - start))
        return concatenated(parts).take(np.argsort(order_A))

    def compact(self) -> None:
        """Merges all shards into one; the rows and their order stay as they are.

        All processes call this, and process 0 merges. A process killed at any moment
        leaves each row there once: the merged shard appears whole, and from then on the
        shards that it covers do not count. On a full disk nothing is merged.
        """
        with processes.in_turn():
            if processes.first():
                self._merge()
            else:
                self._reopen()
        # No process appends before the others have listed the shards.
        processes.gather(np.zeros(1))

    def _is_scattered(self) -> bool:
        """Whether there are many shards, and much in them beside the merged one.

        So every row is merged a few times at most.
        """
        paths = self._paths()
        if len(paths) < MOST_SHARDS:
            return False
        groups = sum(path == paths[0] for path, _ in self._groups)
        return 4 * (len(self) - self._ends[groups - 1]) > len(self)

    def _merge(self) -> None:
        paths = self._paths()
        if len(paths) > 1:
            name = f"{self._next - 1:06d}-all"
            try:
                write_shard(self.directory, name, regrouped(paths))
            except OSError as error:
                if error.errno not in files.UNWRITABLE:
                    raise
                return
            # Reading the merged shard back checks it before the others are deleted.
            self._open()
        for path in self._covered:
            path.unlink(missing_ok=True)
        self._covered = []

    def _open(self) -> None:
        """Finds the shards, and again if another program merges them meanwhile."""
        for _ in range(_TRIES):
            try:
                self._find(self._listed())
                return
            except FileNotFoundError:
                continue
        self._find(self._listed())

    def _listed(self) -> list[Path]:
        """The files of the directory."""
        # Object stores have no empty directories.
        if not self.directory.is_dir():
            return []
        files_now = sorted(self.directory.iterdir())
        # A listing that another program's merge overtakes may lack both the merged
        # shard and the shards that it covers; the next listing then differs.
        for _ in range(_TRIES):
            before, files_now = files_now, sorted(self.directory.iterdir())
            if files_now == before:
                break
        return files_now

    def _find(self, there: list[Path]) -> None:
        """Checks the shards among these files and counts their rows."""
        self._groups: list[tuple[Path, int]] = []
        # Number of rows up to the end of each row group.
        self._ends: list[int] = []
        shards = sorted(filter(None, map(shard_of, there)))
        self._next = shards[-1].number + 1 if shards else 0

        # The newest whole merged shard holds all rows of the shards up to its number,
        # which are still there if a process was killed before it deleted them.
        merged = [shard for shard in reversed(shards) if shard.merged]
        first = next(filter(self._add_if_whole, merged), None)
        last_covered = first.number if first else -1
        self._covered = [path for path in there if self._is_leftover(path)]
        for shard in shards:
            if shard.number <= last_covered:
                if shard != first:
                    self._covered.append(shard.path)
            elif not shard.merged:
                self._add_if_whole(shard)

    def _is_leftover(self, path: Path) -> bool:
        """Whether a process was killed while it wrote this file."""
        shard = (
            shard_of(path.with_suffix("")) if path.suffix == ".tmp" else None
        )
        return shard is not None and shard.number < self._next

    def _add_if_whole(self, shard: Shard) -> bool:
        try:
            self._add(shard.path, group_sizes(shard))
        except DamagedError as error:
            self._report(
                f"{shard.path}: damaged, its rows will be made again "
                f"({files.one_line(error, 100)})"
            )
            files.set_aside(shard.path)
            return False
        return True

    def _add(self, path: Path, sizes: list[int]) -> None:
        for group, rows in enumerate(sizes):
            self._groups.append((path, group))
            self._ends.append(len(self) + rows)

    def _reopen(self) -> None:
        rows = len(self)
        self._open()
        if len(self) < rows:
            raise UserError(
                f"workdir: {self.directory} lost rows while it was read: give the "
                "same command again"
            )

    def _paths(self) -> list[Path]:
        """The files, in the order of their rows."""
        return list(dict.fromkeys(path for path, _ in self._groups))

    def _read_group(self, index: int) -> pa.Table:
        path, group = self._groups[index]
        with path.open("rb") as file:
            return bare(open_parquet(file).read_row_group(group))
