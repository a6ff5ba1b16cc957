"""The candidates scored: their rows on disk, and in memory 16 bytes of each: id, loss and where its row is."""

import hashlib

import jax
import numpy as np
import pyarrow as pa
from etils.epath import PathLike

from jaxhypernas.hosts import processes
from jaxhypernas.store.tables import Table
from jaxhypernas.types import Arch

COUNTS = ("params", "flops", "live_params", "live_flops")
COLUMNS = ("id", "arch", "loss", "accuracy", *COUNTS)
NO_ROWS = pa.table(
    {"id": pa.array([], pa.string()), "loss": pa.array([], pa.float64())}
)


class Scored:
    """A table with `COLUMNS`, one row per candidate, found by ids: in Parquet 16 hexadecimal digits, here uint64."""

    def __init__(self, directory: PathLike):
        self.table = Table(directory)
        self._id_A, self._loss_A, self._position_A = (
            np.empty(0, t) for t in (np.uint64, np.float32, np.int32)
        )
        if len(self.table):
            self._insert(*_ids_and_losses(self.table.read(["id", "loss"])), 0)

    def _insert(self, id_A: np.ndarray, loss_A: np.ndarray, start: int) -> None:
        id_A, first = np.unique(id_A, return_index=True)
        place = np.searchsorted(self._id_A, id_A)
        self._id_A = np.insert(self._id_A, place, id_A)
        self._loss_A = np.insert(self._loss_A, place, loss_A[first])
        self._position_A = np.insert(self._position_A, place, start + first)

    def __len__(self) -> int:
        return len(self._id_A)

    def append(self, rows: pa.Table) -> None:
        """Add each process's rows, of candidates that are not in the table, and make them durable."""
        start = len(self.table)
        self.table.append(rows)
        id_A, loss_A = _ids_and_losses(rows)
        self._insert(processes.gather(id_A), processes.gather(loss_A), start)

    def known(self, id_A: np.ndarray) -> np.ndarray:
        """Whether each candidate is in the table."""
        if not len(self):
            return np.zeros(len(id_A), bool)
        return (
            self._id_A[
                np.minimum(np.searchsorted(self._id_A, id_A), len(self) - 1)
            ]
            == id_A
        )

    def loss(self, id_A: np.ndarray) -> np.ndarray:
        """The losses of candidates in the table, float32."""
        return self._loss_A[np.searchsorted(self._id_A, id_A)]

    def rows(self, id_A: np.ndarray) -> pa.Table:
        """The rows of candidates in the table, in this order."""
        return self.table.take(
            self._position_A[np.searchsorted(self._id_A, id_A)]
        )

    @property
    def lowest(self) -> float:
        """The lowest loss."""
        return float(np.fmin.reduce(self._loss_A, initial=np.inf))

    def best(
        self, number: int, max_params: int = 0, max_flops: int = 0
    ) -> pa.Table:
        """The rows of lowest loss, best first, then by id; 0 sets no limit."""
        fits = self._within(max_params, max_flops)
        loss_A = np.nan_to_num(self._loss_A[fits], nan=np.inf)
        return self.rows(
            self._id_A[fits][np.lexsort((self._id_A[fits], loss_A))[:number]]
        )

    def pareto(
        self, count: str, max_params: int = 0, max_flops: int = 0
    ) -> pa.Table:
        """The rows that no other beats in loss and in this count (one of `COUNTS`), the smallest first.

        Beaten is what another equals or betters in both, and betters in one.
        """
        fits = self._within(max_params, max_flops) & np.isfinite(self._loss_A)
        count_A, loss_A = self._by_id(count)[fits], self._loss_A[fits]
        order = np.lexsort((self._id_A[fits], loss_A, count_A))
        count_A, loss_A = count_A[order], loss_A[order]
        first_A = np.searchsorted(
            count_A, count_A
        )  # the best that counts as much
        smaller_A = np.append(
            np.float32(np.inf), np.minimum.accumulate(loss_A)
        )[first_A]
        return self.rows(
            self._id_A[fits][order][
                (loss_A == loss_A[first_A]) & (loss_A < smaller_A)
            ]
        )

    def column(self, name: str) -> np.ndarray:
        """A column of all rows, in the order they were appended."""
        return self.table.read([name])[name].to_numpy()

    def _by_id(self, name: str) -> np.ndarray:
        return self.column(name)[self._position_A]

    def _within(self, max_params: int, max_flops: int) -> np.ndarray:
        fits = np.ones(len(self), bool)
        for name, most in (("params", max_params), ("flops", max_flops)):
            if most:
                fits &= self._by_id(name) <= most
        return fits


def _ids_and_losses(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    id_A = [numbers(shard.to_pylist()) for shard in rows["id"].chunks]
    return np.concatenate([*id_A, np.empty(0, np.uint64)]), rows[
        "loss"
    ].to_numpy()


def identities(population: Arch) -> np.ndarray:
    """The ids of canonical architectures: a 64-bit hash of each one's arrays."""
    flat = [
        np.asarray(leaf, np.int32).reshape(len(leaf), -1)
        for leaf in jax.tree.leaves(population)
    ]
    digests = (
        hashlib.blake2b(row, digest_size=8).digest()
        for row in np.concatenate(flat, 1)
    )
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)


def numbers(digits_A: list[str]) -> np.ndarray:
    """Ids as Parquet has them -> uint64."""
    return np.frombuffer(bytes.fromhex("".join(digits_A)), ">u8").astype(
        np.uint64
    )


def digits(id_A: np.ndarray) -> list[str]:
    """uint64 -> ids as Parquet has them."""
    return [f"{x:016x}" for x in id_A.tolist()]
