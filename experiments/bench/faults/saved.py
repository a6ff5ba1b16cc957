"""Files of a work directory: what a run has finished, and whether two runs agree."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
from claim import must

TABLES = ("scores", "retrain")
"""Directories of tables."""


class Moment:
    """All that a run has finished at a moment."""

    def __init__(self, workdir: Path) -> None:
        self.newest = newest_step(workdir)
        self.config = _config(workdir)
        self.rows = {table: rows(workdir, table) for table in TABLES}
        self.lines = len(_metrics(workdir))

    def is_kept(self, workdir: Path) -> None:
        """Broken if a part of it is lost, has changed or was done again."""
        must(
            self.config in ("", _config(workdir)),
            "the configuration is lost or changed",
        )
        for table, there in self.rows.items():
            lost = there - rows(workdir, table)
            must(not lost, f"{lost.total()} rows of {table} lost or changed")
        must(
            newest_step(workdir) >= self.newest,
            f"lost: checkpoint {self.newest}",
        )
        since = _metrics(workdir)[self.lines :]
        trained = [line["step"] for line in since if "step" in line]
        must(
            min(trained, default=self.newest + 1) > self.newest,
            f"trained again from below {self.newest}",
        )

    def __str__(self) -> str:
        number = sum(there.total() for there in self.rows.values())
        return f"step {self.newest}, {number} rows"


def steps(workdir: Path) -> list[int]:
    """Returns the steps of all checkpoints, ascending."""
    found = [path.name for path in workdir.glob("checkpoints/*")]
    return sorted(int(name) for name in found if name.isdigit())


def newest_step(workdir: Path) -> int:
    """Returns the step of the newest checkpoint; 0 if there is none."""
    return max(steps(workdir), default=0)


def equal(workdir: Path, undisturbed: Path) -> None:
    """Broken if rows or training states of two runs differ.

    Training states are compared by the checksums of their leaves.
    """
    for table in TABLES:
        must(
            rows(workdir, table) == rows(undisturbed, table),
            f"{table} differ from the undisturbed run's",
        )
    ours = _records(workdir)
    theirs = _records(undisturbed)
    must(
        ours == theirs,
        f"training states differ: {sorted(ours)}, {sorted(theirs)}",
    )


def rows(workdir: Path, table: str) -> Counter:
    """Returns how often each row of a table is there."""
    return Counter(
        tuple(map(repr, row.items()))
        for path in workdir.glob(f"{table}/*.parquet")
        for row in pq.read_table(path).to_pylist()
    )


def _config(workdir: Path) -> str:
    path = workdir / "config.json"
    return path.read_text() if path.exists() else ""


def _metrics(workdir: Path) -> list[dict]:
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def _records(workdir: Path) -> dict[int, str]:
    """The record of each checkpoint."""
    return {
        step: (workdir / f"checkpoints/{step}/record/metadata").read_text()
        for step in steps(workdir)
    }
