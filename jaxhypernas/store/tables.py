"""Tables that only grow: Parquet files in a directory, each with its checksum.

Parquet alone reads many a flipped byte silently as another value. So the CRC-32 of a
shard's bytes is in its name, as in ``000003.89abcdef.parquet``, and its pages have
checksums of their own, which other programs check too.

======================  ========================================================
``N.CRC.parquet``       rows that process 0 appended, the N-th time
``N-P.CRC.parquet``     rows that process P appended, the N-th time
``N-all.CRC.parquet``   all rows appended up to the N-th time, merged
``N.parquet``           as above, without a checksum: written by older versions,
                        by other programs, or by a process killed in between
======================  ========================================================
"""

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils.epath import Path, PathLike

from jaxhypernas.hosts import processes
from jaxhypernas.store import files
from jaxhypernas.types import UserError

GROUP_ROWS = 1 << 14
"""Least number of rows of a merged shard that are read together (a row group)."""

_LARGEST_GROUP = 1 << 20
"""Most rows of a row group; Arrow's writer allows no more."""

MOST_SHARDS = 100
"""Number of shards after which they are merged."""

_TRIES = 10
"""How often a directory is listed again if another program changes it meanwhile."""


class _DamagedError(Exception):
    """The bytes of a shard are not those that were written."""


class _Shard(NamedTuple):
    """A file of a table."""

    number: int
    """Which append wrote it, or the last append that it covers."""

    process: int
    """Process that wrote it."""

    merged: bool
    """Whether it holds the rows of all appends up to ``number``."""

    crc: str
    """CRC-32 of its bytes; empty where its name has none."""

    path: Path
    """The file."""


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
        if known == {path for path in self._listed() if _shard(path)}:
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
            name = _name(self._next, processes.index())
            crc = _write_shard(self.directory, name, [rows])
        mine = np.array([[len(rows), int(crc, 16)]])
        for process, (number, crc) in enumerate(
            processes.gather(mine).tolist()
        ):
            if number:
                name = _name(self._next, process)
                path = self.directory / f"{name}.{crc:08x}.parquet"
                full, rest = divmod(number, _LARGEST_GROUP)
                sizes = [_LARGEST_GROUP] * full + [rest]
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
                tables.append(_parquet(file).read(columns))
        return _concatenated(tables)

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
        return _concatenated(parts).take(np.argsort(order_A))

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
                _write_shard(self.directory, name, _regrouped(paths))
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
        shards = sorted(filter(None, map(_shard, there)))
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
        shard = _shard(path.with_suffix("")) if path.suffix == ".tmp" else None
        return shard is not None and shard.number < self._next

    def _add_if_whole(self, shard: _Shard) -> bool:
        try:
            self._add(shard.path, _group_sizes(shard))
        except _DamagedError as error:
            self._report(
                f"{shard.path}: damaged, its rows will be made again "
                f"({files.one_line(error, 100)})"
            )
            files.set_aside(shard.path)
            return False
        return True

    def _add(self, path: Path, group_sizes: list[int]) -> None:
        for group, rows in enumerate(group_sizes):
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
            return _bare(_parquet(file).read_row_group(group))


def write_parts(path: PathLike, parts: Iterable[pa.Table]) -> None:
    """Writes one Parquet file, whole or not at all.

    Args:
        path: The file to replace or make.
        parts: Tables of one schema, at least one of them; one at a time is in memory.
            Each becomes a row group.

    Raises:
        OSError: The file cannot be written.
    """
    parts = iter(parts)
    first = next(parts)
    with (
        files.replacing(path) as file,
        pq.ParquetWriter(
            file, first.schema, write_page_checksum=True
        ) as writer,
    ):
        for part in itertools.chain([first], parts):
            writer.write_table(part, row_group_size=_LARGEST_GROUP)


def _write_shard(directory: Path, name: str, parts: Iterable[pa.Table]) -> str:
    """Writes a shard and then puts its checksum into its name; returns the checksum.

    A process killed in between leaves a whole shard without a checksum.
    """
    path = directory / f"{name}.parquet"
    write_parts(path, parts)
    crc = files.checksum(path)
    path.rename(directory / f"{name}.{crc}.parquet")
    return crc


def _regrouped(paths: list[Path]) -> Iterator[pa.Table]:
    """All rows of these files in order, `GROUP_ROWS` or a little more at a time."""
    # Every part has all columns, as the first one sets those of the file.
    no_rows = [_no_rows(path) for path in paths]
    waiting: list[pa.Table] = []
    for path in paths:
        with path.open("rb") as file:
            for batch in _parquet(file).iter_batches(GROUP_ROWS):
                waiting.append(pa.Table.from_batches([batch]))
                if sum(map(len, waiting)) >= GROUP_ROWS:
                    yield _concatenated([*no_rows, *waiting])
                    waiting = []
    if waiting:
        yield _concatenated([*no_rows, *waiting])


def _no_rows(path: Path) -> pa.Table:
    with path.open("rb") as file:
        return _parquet(file).schema_arrow.empty_table()


def _concatenated(tables: list[pa.Table]) -> pa.Table:
    """The rows of all tables; columns that an older version lacked are null there."""
    bare = [_bare(table) for table in tables]
    return pa.concat_tables(bare, promote_options="default")


def _bare(rows: pa.Table) -> pa.Table:
    """The rows without metadata, which older versions wrote a checksum into."""
    return rows.replace_schema_metadata()


def _parquet(file: IO[bytes]) -> pq.ParquetFile:
    return pq.ParquetFile(file, page_checksum_verification=True)


def _group_sizes(shard: _Shard) -> list[int]:
    """Numbers of rows of a shard's row groups; raises if the shard is damaged."""
    if shard.crc and files.checksum(shard.path) != shard.crc:
        raise _DamagedError("its bytes differ from the checksum in its name")
    with shard.path.open("rb") as file:
        if not shard.crc:
            _check_values(file)
        found = _parquet(file).metadata
        groups = range(found.num_row_groups)
        return [found.row_group(group).num_rows for group in groups]


def _check_values(file: IO[bytes]) -> None:
    """Reads all values: without a checksum of all bytes, only this shows damage."""
    # Damaged bytes make Arrow raise almost any error, but none of the system's: a
    # disk that cannot be read now says nothing about the file.
    try:
        _parquet(file).read()
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise _DamagedError(files.one_line(error)) from None
    file.seek(0)


def _name(number: int, process: int) -> str:
    """The name of a shard, without checksum and suffix."""
    return f"{number:06d}-{process}" if process else f"{number:06d}"


def _shard(path: Path) -> _Shard | None:
    """The shard that a file's name stands for; None for files of others."""
    pattern = r"(\d+)(?:-(\d+|all))?(?:\.([0-9a-f]{8}))?\.parquet"
    found = re.fullmatch(pattern, path.name)
    if found is None:
        return None
    number, writer, crc = found.groups()
    merged = writer == "all"
    process = 0 if merged else int(writer or 0)
    return _Shard(int(number), process, merged, crc or "", path)
