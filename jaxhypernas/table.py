"""Tables that only grow: Parquet shards in a directory, each written whole or not at all, with a checksum of its rows.

Parquet alone reads many a flipped byte silently as another value.
"""

import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

CHECKSUM = b"jaxhypernas.crc32"


class Table:
    """Rows as dicts of one schema; what was appended before a crash is there after it.

    Args:
        directory: made if it does not exist.
        report: called with one line for each damaged shard, which is moved aside; its rows are then missing.
    """

    def __init__(self, directory: Path, report: Callable[[str], None] = lambda line: print(line, file=sys.stderr)):
        self._directory = Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict] = []
        self._shards = 0
        for path in sorted(p for p in self._directory.glob("*.parquet") if p.stem.isdecimal()):
            try:
                self.rows += _read(path)
            except Exception as error:  # damaged bytes make Arrow raise almost anything
                report(f"{path}: damaged, its rows will be made again ({' '.join(str(error).split())[:100]})")
                path.rename(_unused(path.with_suffix(".damaged")))
            self._shards = int(path.stem) + 1

    def append(self, rows: list[dict]) -> None:
        """Add rows and make them durable."""
        path = self._directory / f"{self._shards:06d}.parquet"
        write(path, rows)
        self.rows += rows
        self._shards += 1


def write(path: Path, rows: list[dict]) -> None:
    """One Parquet file, replaced whole."""
    temporary = path.with_name(f"{path.name}.tmp")
    table = pa.Table.from_pylist(rows)
    pq.write_table(table.replace_schema_metadata({CHECKSUM: _checksum(table.to_pylist())}), temporary)
    os.replace(temporary, path)


def _read(path: Path) -> list[dict]:
    table = pq.read_table(path)
    rows, saved = table.to_pylist(), (table.schema.metadata or {}).get(CHECKSUM)
    if saved is not None and saved != _checksum(rows):  # a file of another program has none
        raise ValueError("its rows differ from their checksum")
    return rows


def _checksum(rows: list[dict]) -> bytes:
    return str(zlib.crc32(repr(rows).encode())).encode()


def _unused(path: Path) -> Path:
    while path.exists():
        path = path.with_name(f"{path.name}+")
    return path
