"""Rows of files that a user gives: CSV, Parquet, or text."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from etils.epath import Path

from jaxhypernas.store import files
from jaxhypernas.types import UserError

_BATCH_ROWS = 4096


def read_rows(
    path: Path, field: str, columns: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Reads the rows of a file, one at a time::

        for row in read_rows(Path("truth.csv"), "truth", ("arch", "accuracy")):
            print(row["arch"], row["accuracy"])

    Args:
        path: A CSV with a header, a Parquet file, or a text file with one architecture
            per line, which has the column arch.
        field: The flag that names the file; messages begin with it.
        columns: Columns that every row must have.

    Raises:
        UserError: The file cannot be read, is empty, or a row lacks a value.
    """
    row = None
    try:
        for row in _iter_rows(path):
            for column in columns:
                _check_value(row, column, path, field)
            yield row
    except (
        OSError,
        pa.ArrowException,
        UnicodeDecodeError,
        csv.Error,
    ) as error:
        reason = files.one_line(error, 120)
        raise UserError(f"{field}: cannot read {path} ({reason})") from None
    if row is None:
        raise UserError(f"{field}: {path} is empty")


def _iter_rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".parquet":
        with path.open("rb") as file:
            parquet = pq.ParquetFile(file)
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS):
                yield from batch.to_pylist()
        return
    with io.TextIOWrapper(
        path.open("rb"), encoding="utf-8", newline=""
    ) as lines:
        if path.suffix == ".csv":
            yield from csv.DictReader(lines)
            return
        for line in lines:
            if line.strip():
                yield {"arch": line.strip()}


def _check_value(
    row: dict[str, Any], column: str, path: Path, field: str
) -> None:
    if column not in row:
        there = ", ".join(map(str, row))
        raise UserError(
            f"{field}: {path} has no column {column}: it has {there}"
        )
    value = row[column]
    is_text = isinstance(value, str)
    if value is None or (column == "arch" and not is_text):
        raise UserError(
            f"{field}: {path} has a row whose {column} is {value!r:.40}"
        )
