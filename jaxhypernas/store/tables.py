"""Tables that only grow: Parquet shards in a directory, each written whole or not at all, with a checksum of its rows.

Of several processes each writes shards of its own, and knows of the others'.

Parquet alone reads many a flipped byte silently as another value.
"""

import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils.epath import Path, PathLike

from jaxhypernas.hosts import processes

CHECKSUM = b"jaxhypernas.arrow.crc32"


class Table:
    """Rows of one schema, on disk; what was appended before a crash is there after it.

    ``N.parquet`` is what the first process appended the N-th time, ``N-P.parquet`` what process P did.

    Args:
        directory: made when the first rows are appended.
        report: called with one line for each damaged shard, which is moved aside; its rows are then missing.
    """

    def __init__(
        self,
        directory: PathLike,
        report: Callable[[str], None] = lambda line: print(
            line, file=sys.stderr
        ),
    ):
        self.directory = Path(directory)
        self._paths: list[Path] = []
        self._ends: list[int] = []  # number of rows up to the end of each shard
        self._shards = 0
        with processes.in_turn():  # the first moves damaged shards aside
            there = (
                self.directory.iterdir() if self.directory.is_dir() else ()
            )  # object stores have no empty directories
            places = {path: place for path in there if (place := _place(path))}
            for path, (shard, _) in sorted(
                places.items(), key=lambda item: item[1]
            ):
                try:
                    self._add(path, _verified(path))
                except (
                    Exception
                ) as error:  # damaged bytes make Arrow raise almost anything
                    report(
                        f"{path}: damaged, its rows will be made again ({' '.join(str(error).split())[:100]})"
                    )
                    path.rename(_unused(path.with_suffix(".damaged")))
                self._shards = shard + 1

    def _add(self, path: Path, rows: int) -> None:
        self._paths.append(path)
        self._ends.append(len(self) + rows)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def append(self, rows: pa.Table) -> None:
        """Add each process's rows, the first's first, and make them durable; a process may have none."""
        paths = [
            self.directory / f"{self._shards:06d}{f'-{p}' if p else ''}.parquet"
            for p in range(processes.count())
        ]
        if len(rows):
            self.directory.mkdir(parents=True, exist_ok=True)
            write(paths[processes.index()], rows)
        for path, number in zip(
            paths, processes.gather(np.array([len(rows)])).tolist(), strict=True
        ):
            if number:
                self._add(path, number)
        self._shards += 1

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """These columns (all by default) of all rows, in the order they were appended."""
        return (
            pa.concat_tables([_read(path, columns) for path in self._paths])
            if self._paths
            else pa.table({})
        )

    def take(self, position_A: np.ndarray) -> pa.Table:
        """The rows at these positions, in this order; reads the shards they lie in."""
        shard_A = np.searchsorted(self._ends, position_A, side="right")
        parts, place_A, taken = [], np.empty(len(position_A), np.int64), 0
        for shard in np.unique(shard_A):
            (asked,) = np.nonzero(shard_A == shard)
            rows = _read(self._paths[shard])
            parts.append(
                rows.take(position_A[asked] - (self._ends[shard] - len(rows)))
            )
            place_A[asked] = taken + np.arange(len(asked))
            taken += len(asked)
        return (
            pa.concat_tables(parts).take(place_A)
            if parts
            else _read(self._paths[0]).slice(0, 0)
        )


def write(path: PathLike, rows: pa.Table) -> None:
    """One Parquet file, replaced whole."""
    with _writing(Path(path)) as file:
        pq.write_table(
            rows.replace_schema_metadata({CHECKSUM: _checksum(rows)}), file
        )


def write_parts(path: PathLike, parts: Iterable[pa.Table]) -> None:
    """One Parquet file of all parts (one at least), one of them in memory at a time, replaced whole."""
    parts = iter(parts)
    first = next(parts)
    with (
        _writing(Path(path)) as file,
        pq.ParquetWriter(file, first.schema) as writer,
    ):
        writer.write_table(first)
        for part in parts:
            writer.write_table(part)


@contextmanager
def _writing(path: Path) -> Iterator[IO]:
    """What is written here replaces the file at the end; an OSError names the file."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)  # on a full disk, room for others
        if (
            isinstance(error, OSError) and error.errno and not error.filename
        ):  # of Arrow
            raise OSError(
                error.errno, os.strerror(error.errno), str(path)
            ) from None
        raise


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    with path.open("rb") as file:
        return pq.ParquetFile(file).read(columns).replace_schema_metadata()


def _verified(path: Path) -> int:
    """The number of rows, all of them checked."""
    with path.open("rb") as file:
        rows = pq.ParquetFile(file).read()
    saved = (rows.schema.metadata or {}).get(CHECKSUM)
    if saved is not None and saved != _checksum(
        rows
    ):  # a file of another program has none
        raise ValueError("its rows differ from their checksum")
    return len(rows)


def _checksum(rows: pa.Table) -> bytes:
    """Of names, types and values, however Arrow has them in memory."""
    value = zlib.crc32(
        str([(field.name, str(field.type)) for field in rows.schema]).encode()
    )
    for column in rows.columns:
        if pa.types.is_string(column.type):
            text = pa.concat_arrays(column.chunks)
            _, offsets, letters = text.buffers()
            ends = np.frombuffer(offsets, np.int32)[
                text.offset : text.offset + len(text) + 1
            ]
            value = zlib.crc32((ends - ends[0]).tobytes(), value)
            value = zlib.crc32(memoryview(letters)[ends[0] : ends[-1]], value)
        else:
            value = zlib.crc32(column.to_numpy().tobytes(), value)
    return str(value).encode()


def _place(path: Path) -> tuple[int, int] | None:
    """Which shard of which process it is, if one."""
    found = re.fullmatch(r"(\d+)(?:-(\d+))?\.parquet", path.name)
    return found and (int(found[1]), int(found[2] or 0))


def _unused(path: Path) -> Path:
    while path.exists():
        path = path.with_name(f"{path.name}+")
    return path
