"""Tables that only grow: Parquet shards in a directory, each written whole or not at all."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


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
        for path in sorted(self._directory.glob("*.parquet")):
            try:
                self.rows += pq.read_table(path).to_pylist()
            except (pa.ArrowException, OSError) as error:
                report(f"{path}: damaged, its rows will be made again ({' '.join(str(error).split())[:100]})")
                path.rename(path.with_suffix(".damaged"))
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
    pq.write_table(pa.Table.from_pylist(rows), temporary)
    os.replace(temporary, path)
