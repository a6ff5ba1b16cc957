"""Files that a verb writes for the user: Parquet, CSV or TSV, by their names."""

import gzip
from collections.abc import Iterable
from contextlib import nullcontext
from itertools import chain
from typing import Any

import pyarrow as pa
from etils.epath import Path
from pyarrow import csv

from jaxhypernas.store import files, shards
from jaxhypernas.types import UserError

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def check(path: Path, field: str) -> None:
    """Checks before long work that a table can be written at its end.

    Args:
        path: The file.
        field: The flag that names the file; the message begins with it.

    Raises:
        UserError: The name does not say the format, or the file cannot be written.
    """
    kind, _ = _kind(path)
    if kind != ".parquet" and kind not in _DELIMITERS:
        raise UserError(
            f"{field}: {path} must end in .parquet, .csv, .tsv, .csv.gz or .tsv.gz"
        )
    files.check_writable(path, field)


def write(path: Path, parts: Iterable[pa.Table]) -> None:
    """Writes a table, whole or not at all.

    Args:
        path: The file, which `check` has passed.
        parts: Tables of one schema, at least one; one at a time is in memory.

    Raises:
        OSError: The file cannot be written.
    """
    kind, is_gzip = _kind(path)
    if kind == ".parquet":
        shards.write_parts(path, parts)
        return
    parts = iter(parts)
    first = next(parts)
    options = csv.WriteOptions(delimiter=_DELIMITERS[kind])
    with files.replacing(path) as file:
        packed: Any = nullcontext(file)
        if is_gzip:
            packed = gzip.GzipFile(fileobj=file, mode="wb")
        with (
            packed as target,
            csv.CSVWriter(
                target, first.schema, write_options=options
            ) as writer,
        ):
            for part in chain([first], parts):
                writer.write_table(part)


def _kind(path: Path) -> tuple[str, bool]:
    """The suffix that names the format, and whether the file is compressed."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    is_gzip = suffixes[-1:] == [".gz"]
    if is_gzip:
        suffixes.pop()
    kind = suffixes[-1] if suffixes else ""
    return ("", True) if is_gzip and kind == ".parquet" else (kind, is_gzip)
