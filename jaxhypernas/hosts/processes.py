"""The processes of a run: all run one program, each on its share of the candidates.

All processes make the same decisions (the candidates that are known, the candidates
that a search asks for, whether to stop), since each receives the results of the others.
A lone process is process 0 of one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding


def count() -> int:
    """Returns the number of processes."""
    # JAX takes the accelerator to answer, which a lone process that only reads tables
    # must leave to others.
    return jax.process_count() if jax.distributed.is_initialized() else 1


def index() -> int:
    """Returns this process's number, from 0."""
    return jax.process_index() if jax.distributed.is_initialized() else 0


def first() -> bool:
    """Returns whether this is process 0: it alone writes shared files and prints."""
    return index() == 0


def share(number: int) -> slice:
    """Returns this process's share of candidates.

    Shares are consecutive, in the order of processes; sizes differ by at most one.

    Args:
        number: Number of candidates of all processes.
    """
    start = index() * number // count()
    end = (index() + 1) * number // count()
    return slice(start, end)


def gather(rows: np.ndarray) -> np.ndarray:
    """Returns the rows of all processes, in the order of processes.

    Args:
        rows: [R, ...]; R may differ between processes, the rest may not.
    """
    if count() == 1:
        return rows
    # As bytes: JAX would cut 64 bits to 32.
    mine = np.frombuffer(rows.tobytes(), np.uint8)
    length_P = multihost_utils.process_allgather(np.int32(len(mine)))

    # Padded to a power of two: each size compiles a program.
    longest = int(length_P.max())
    padded = np.zeros(1 << longest.bit_length(), np.uint8)
    padded[: len(mine)] = mine
    padded_P = multihost_utils.process_allgather(padded)

    parts = []
    for part, length in zip(padded_P, length_P, strict=True):
        parts.append(np.asarray(part[:length]).tobytes())
    everything = np.frombuffer(b"".join(parts), rows.dtype)
    return everything.reshape(-1, *rows.shape[1:])


def any_of(flag: bool) -> bool:
    """Returns whether a flag is set in at least one process.

    Args:
        flag: This process's flag.
    """
    return bool(gather(np.array([flag])).any())


def largest(number: float) -> float:
    """Returns the largest number of all processes.

    Args:
        number: This process's number.
    """
    return float(gather(np.array([number])).max())


def broadcast(tree: Any) -> Any:
    """Returns process 0's pytree of NumPy arrays.

    Args:
        tree: In process 0, the pytree; in other processes, arrays of the same shapes
            and dtypes.
    """
    if count() == 1:
        return tree

    def as_bytes(x: np.ndarray) -> np.ndarray:
        return np.frombuffer(x.tobytes(), np.uint8)

    def from_bytes(received: np.ndarray, like: np.ndarray) -> np.ndarray:
        values = np.frombuffer(np.asarray(received).tobytes(), like.dtype)
        return values.reshape(like.shape)

    # As bytes: JAX would cut 64 bits to 32.
    sent = jax.tree.map(as_bytes, tree)
    received = multihost_utils.broadcast_one_to_all(sent)
    return jax.tree.map(from_bytes, received, tree)


@contextmanager
def in_turn() -> Iterator[None]:
    """Process 0 runs the body first; the others wait for it, then run it."""
    if not first():
        gather(np.zeros(1))
    yield
    if first():
        gather(np.zeros(1))


def compiled(program: jax.stages.Wrapped, *args: Any) -> jax.stages.Compiled:
    """Compiles a program, and returns it once all processes have compiled it.

    One process may compile a program that another has in its cache. Gloo connects the
    devices of a program when it first runs, and fails if one comes 30 s after another.

    Args:
        program: A function that ``jax.jit`` has wrapped.
        *args: Arguments, or ``jax.ShapeDtypeStruct`` like them.
    """
    done = program.lower(*args).compile()
    gather(np.zeros(1))
    return done


def local(tree: Any, sharding: NamedSharding) -> Any:
    """Returns arrays of all processes as arrays on this process's devices; no copy.

    Args:
        tree: A pytree of arrays that are the same on every device of all processes.
        sharding: Replicated over this process's devices.
    """

    def here(x: jax.Array) -> jax.Array:
        shards = [shard.data for shard in x.addressable_shards]
        return jax.make_array_from_single_device_arrays(
            x.shape, sharding, shards
        )

    return jax.tree.map(here, tree)
