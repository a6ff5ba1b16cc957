"""Shards of a table: Parquet files, each with its checksum.

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

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from etils.epath import Path, PathLike

from jaxhypernas.store import files

GROUP_ROWS = 1 << 14
"""Least number of rows of a merged shard that are read together (a row group)."""

LARGEST_GROUP = 1 << 20
"""Most rows of a row group; Arrow's writer allows no more."""


class DamagedError(Exception):
    """The bytes of a shard are not those that were written."""


class Shard(NamedTuple):
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
            writer.write_table(part, row_group_size=LARGEST_GROUP)


def write_shard(directory: Path, name: str, parts: Iterable[pa.Table]) -> str:
    """Writes a shard, and then puts its checksum into its name.

    A process killed in between leaves a whole shard without a checksum.

    Args:
        directory: Directory of the table.
        name: The name, without checksum and suffix.
        parts: As for `write_parts`.

    Returns:
        The checksum.
    """
    path = directory / f"{name}.parquet"
    write_parts(path, parts)
    crc = files.checksum(path)
    path.rename(directory / f"{name}.{crc}.parquet")
    return crc


def regrouped(paths: list[Path]) -> Iterator[pa.Table]:
    """Returns all rows in order, `GROUP_ROWS` or a little more at a time.

    Args:
        paths: The files.
    """
    # Every part has all columns, as the first one sets those of the file.
    no_rows = [_no_rows(path) for path in paths]
    waiting: list[pa.Table] = []
    for path in paths:
        with path.open("rb") as file:
            for batch in open_parquet(file).iter_batches(GROUP_ROWS):
                waiting.append(pa.Table.from_batches([batch]))
                if sum(map(len, waiting)) >= GROUP_ROWS:
                    yield concatenated([*no_rows, *waiting])
                    waiting = []
    if waiting:
        yield concatenated([*no_rows, *waiting])


def _no_rows(path: Path) -> pa.Table:
    with path.open("rb") as file:
        return open_parquet(file).schema_arrow.empty_table()


def concatenated(tables: list[pa.Table]) -> pa.Table:
    """Returns the rows of all tables.

    Args:
        tables: The tables; a column that one of them lacks is null there.
    """
    return pa.concat_tables(map(bare, tables), promote_options="default")


def bare(rows: pa.Table) -> pa.Table:
    """Returns rows without metadata, which older versions wrote a checksum into.

    Args:
        rows: The rows.
    """
    return rows.replace_schema_metadata()


def open_parquet(file: IO[bytes]) -> pq.ParquetFile:
    """Opens a shard; reading a page checks its checksum.

    Args:
        file: The open file.
    """
    return pq.ParquetFile(file, page_checksum_verification=True)


def group_sizes(shard: Shard) -> list[int]:
    """Returns the numbers of rows of a shard's row groups.

    Args:
        shard: The shard.

    Raises:
        DamagedError: Its bytes are not those that were written.
    """
    if shard.crc and files.checksum(shard.path) != shard.crc:
        raise DamagedError("its bytes differ from the checksum in its name")
    with shard.path.open("rb") as file:
        if not shard.crc:
            _check_values(file)
        found = open_parquet(file).metadata
        groups = range(found.num_row_groups)
        return [found.row_group(group).num_rows for group in groups]


def _check_values(file: IO[bytes]) -> None:
    """Reads all values: without a checksum of all bytes, only this shows damage."""
    # Damaged bytes make Arrow raise almost any error, but none of the system's: a
    # disk that cannot be read now says nothing about the file.
    try:
        open_parquet(file).read()
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise DamagedError(files.one_line(error)) from None
    file.seek(0)


def name_of(number: int, process: int) -> str:
    """Returns the name of a shard, without checksum and suffix.

    Args:
        number: Which append writes it.
        process: The process that writes it.
    """
    return f"{number:06d}-{process}" if process else f"{number:06d}"


def shard_of(path: Path) -> Shard | None:
    """Returns the shard that a file's name stands for; None for files of others.

    Args:
        path: The file.
    """
    pattern = r"(\d+)(?:-(\d+|all))?(?:\.([0-9a-f]{8}))?\.parquet"
    found = re.fullmatch(pattern, path.name)
    if found is None:
        return None
    number, writer, crc = found.groups()
    merged = writer == "all"
    process = 0 if merged else int(writer or 0)
    return Shard(int(number), process, merged, crc or "", path)
