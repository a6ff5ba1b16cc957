"""Rows of files that a user gives: CSV, TSV, Parquet, or text; also from a pipe."""

import csv
import gzip
import io
import itertools
import json
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from etils.epath import Path

from jaxhypernas.store import files
from jaxhypernas.store.score_table import ScoreTable
from jaxhypernas.types import Space, UserError

_BATCH_ROWS = 4096

_LONGEST_LINE = 1_000_000
"""Characters of a line; a damaged or hostile file may have one that fills memory."""

_NO_DELIMITER = "\x1f"
"""A character that no table has: a single column may have commas."""

_MATRICES = ("matrix", "adjacency", "module_adjacency")
_OPS = ("ops", "operations", "module_operations")


class Row(NamedTuple):
    """A row of a file."""

    number: int
    """Its number, from 1; a header is not counted."""

    values: dict[str, Any]
    """A value for each of the columns that were asked for."""


class RowFile:
    """A file of rows that can be read as often as wanted, a pipe included::

        truth = RowFile(Path("truth.csv"), "truth")
        for row in truth.rows("arch", "accuracy"):
            print(row.number, row.values)

    A CSV or TSV has a header and may be compressed (``.csv.gz``); a directory holds
    Parquet files; a text file has one architecture per line, which is its column arch.
    Other files are what their first bytes say.

    Args:
        path: The file; ``-`` is standard input.
        field: The flag that names the file; messages begin with it.
    """

    def __init__(self, path: Path, field: str):
        self.path = path
        self._field = field
        self._spooled: IO[bytes] | None = None

    def rows(self, *columns: str) -> Iterator[Row]:
        """Reads the rows, one at a time.

        Args:
            *columns: Columns that every row must have; case does not matter.

        Raises:
            UserError: The file cannot be read, is empty, or a row lacks a value.
        """
        number = 0
        try:
            for number, found in enumerate(self._found(), 1):
                values = {
                    column: self._value(found, column, number)
                    for column in columns
                }
                yield Row(number, values)
        except (
            OSError,
            EOFError,
            MemoryError,
            UnicodeError,
            pa.ArrowException,
            csv.Error,
        ) as error:
            reason = files.one_line(error, 120)
            raise self._error(f"cannot be read ({reason})") from None
        if not number:
            raise self._error("is empty")

    def archs(self, space: Space, scores: ScoreTable) -> Iterator[str]:
        """Reads the architectures, and checks each.

        Args:
            space: Their space.
            scores: The table of scores: a row may have the id of a candidate there.

        Raises:
            UserError: As `rows`, or a row is no architecture of the space.
        """
        for row in self.rows("arch"):
            try:
                text = scores.named(row.values["arch"])
                space.from_string(text)
            except UserError as error:
                where = f"{self._field}: {self.path}, row {row.number}"
                raise UserError(f"{where}: {error}") from None
            yield text

    def _error(self, text: str) -> UserError:
        return UserError(f"{self._field}: {self.path} {text}")

    def _found(self) -> Iterator[dict[str, Any]]:
        """The rows with all their columns."""
        if str(self.path) != "-" and self.path.is_dir():
            parts = [
                part
                for part in sorted(self.path.iterdir())
                if part.suffix.lower() == ".parquet"
            ]
            if not parts:
                raise self._error("is a directory without Parquet files")
            for part in parts:
                with part.open("rb") as file:
                    yield from _parquet_rows(file)
            return
        with self._opened() as file:
            start = file.read(4)
            file.seek(0)
            if start == b"PAR1":
                yield from _parquet_rows(file)
            else:
                yield from self._text_rows(file, start)

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        """The bytes of the file, from their start; without compression."""
        if self._spooled is not None:
            self._spooled.seek(0)
            yield self._spooled
            return
        is_stdin = str(self.path) in ("-", "/dev/stdin")
        with sys.stdin.buffer if is_stdin else self.path.open("rb") as source:
            file = source
            # A pipe gives its bytes once.
            if not source.seekable() or is_stdin:
                file = self._spooled = tempfile.TemporaryFile()  # noqa: SIM115
                weakref.finalize(self, file.close)
                shutil.copyfileobj(source, file)
                file.seek(0)
            is_gzip = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if is_gzip:
                with gzip.open(file) as unpacked:
                    yield unpacked  # type: ignore[misc]
            else:
                yield file

    def _text_rows(
        self, file: IO[bytes], start: bytes
    ) -> Iterator[dict[str, Any]]:
        is_utf16 = start[:2] in (b"\xff\xfe", b"\xfe\xff")
        encoding = "utf-16" if is_utf16 else "utf-8-sig"
        text = io.TextIOWrapper(file, encoding, newline="")
        try:
            yield from self._text_rows_of(self._lines(text))
        finally:
            # The file is read again.
            text.detach()

    def _text_rows_of(self, lines: Iterator[str]) -> Iterator[dict[str, Any]]:
        header = next(lines, "")
        names = [name.lower() for name in self.path.name.split(".")[1:]]
        delimiter = _delimiter(header)
        columns = next(csv.reader([header], delimiter=delimiter), [])
        is_table = {"csv", "tsv"} & set(names)
        if is_table or "arch" in map(_normal, columns):
            yield from self._table_rows(columns, lines, delimiter)
            return
        for line in itertools.chain([header], lines):
            if line.strip():
                yield {"arch": line.strip()}

    def _table_rows(
        self, columns: list[str], lines: Iterator[str], delimiter: str
    ) -> Iterator[dict[str, Any]]:
        names = [name.strip() for name in columns]
        table = csv.DictReader(
            lines, names, delimiter=delimiter, skipinitialspace=True
        )
        for number, row in enumerate(table, 1):
            if None in row:
                raise self._error(
                    f"has more values in row {number} than columns: put quotes around "
                    "a value with a comma"
                )
            yield row

    def _lines(self, file: IO[str]) -> Iterator[str]:
        number = 0
        while line := file.readline(_LONGEST_LINE):
            number += 1
            if len(line) == _LONGEST_LINE:
                raise self._error(
                    f"has {_LONGEST_LINE:,} characters or more in line {number}"
                )
            yield line

    def _value(self, row: dict[str, Any], column: str, number: int) -> Any:
        """The value of a column; of the column arch, text."""
        key = _key(row, column)
        if key is None and column == "arch":
            text = _joined(row)
            if text is not None:
                return text
        if key is None:
            there = ", ".join(map(str, row))
            raise self._error(f"has no column {column}: it has {there}")
        value = row[key]
        if isinstance(value, str):
            value = value.strip()
        is_text = isinstance(value, str)
        if value in (None, "") or (column == "arch" and not is_text):
            raise self._error(f"has {value!r:.40} as {column} of row {number}")
        return value


def number_of(value: object, where: str) -> float:
    """Returns the number that a table's value stands for; ``86.4 %`` is 0.864.

    Args:
        value: A number or its text.
        where: Field, file and row, for the message.

    Raises:
        UserError: It is no number.
    """
    text = str(value).strip()
    percent = text.endswith("%")
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        raise UserError(
            f"{where}: {text[:40]!r} is not a number, as in 0.864 or 86.4 %"
        ) from None
    return number / 100 if percent else number


def _parquet_rows(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    parquet = pq.ParquetFile(file)
    for batch in parquet.iter_batches(batch_size=_BATCH_ROWS):
        yield from batch.to_pylist()


def _delimiter(header: str) -> str:
    """What separates the columns that a header names."""
    counts = {mark: header.count(mark) for mark in ",;\t"}
    most = max(counts, key=lambda mark: counts[mark])
    return most if counts[most] else _NO_DELIMITER


def _normal(name: str) -> str:
    return name.strip().casefold()


def _key(row: dict[str, Any], column: str) -> str | None:
    """The row's own name of a column."""
    if column in row:
        return column
    wanted = _normal(column)
    return next((name for name in row if _normal(name) == wanted), None)


def _joined(row: dict[str, Any]) -> str | None:
    """An architecture whose ops and edges are in columns of their own."""
    ops = _first(row, _OPS)
    edges = _first(row, ("edges",))
    matrix = _first(row, _MATRICES)
    if ops is None or (edges is None and matrix is None):
        return None
    if matrix is None:
        return f"{ops}|{edges}"
    is_list = ops.lstrip().startswith("[")
    return f"{matrix},{ops if is_list else json.dumps(ops.split())}"


def _first(row: dict[str, Any], columns: Sequence[str]) -> str | None:
    """The text of the first of these columns that a row has."""
    for column in columns:
        key = _key(row, column)
        if key is not None and row[key] is not None:
            value = row[key]
            return value if isinstance(value, str) else json.dumps(value)
    return None
