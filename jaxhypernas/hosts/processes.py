"""The processes of a run, on one host or several. All run the same program, each on its share of the candidates.

Whatever decides what comes next (which candidates are known, what a search asks for, whether to stop) is the same in
all of them, as each is told everything that the others found. A lone process is the first of one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding


def count() -> int:
    """How many there are."""
    return jax.process_count()


def index() -> int:
    """Which this one is."""
    return jax.process_index()


def first() -> bool:
    """Whether this is the process that writes what is written once, and that tells the user."""
    return index() == 0


def share(number: int) -> slice:
    """Which of ``number`` candidates are this process's: the shares follow each other, and differ by one at most."""
    start, end = (np.arange(2) + index()) * number // count()
    return slice(int(start), int(end))


def gather(x_Ax: np.ndarray) -> np.ndarray:
    """The rows of all processes, the first's first; there may be a different number in each."""
    if count() == 1:
        return x_Ax
    mine = np.frombuffer(
        x_Ax.tobytes(), np.uint8
    )  # JAX would cut 64 bits to 32
    length_P = multihost_utils.process_allgather(np.int32(len(mine)))
    padded = np.zeros(
        1 << int(length_P.max()).bit_length(), np.uint8
    )  # of few sizes, as each compiles a program
    padded[: len(mine)] = mine
    everyone = zip(
        multihost_utils.process_allgather(padded), length_P, strict=True
    )
    joined = b"".join(
        np.asarray(part[:length]).tobytes() for part, length in everyone
    )
    return np.frombuffer(joined, x_Ax.dtype).reshape(-1, *x_Ax.shape[1:])


def any_of(flag: bool) -> bool:
    """Whether it is set in one of the processes."""
    return bool(gather(np.array([flag])).any())


def broadcast(tree: Any) -> Any:
    """The first process's pytree of NumPy arrays; the others give arrays of the same shapes and dtypes."""
    if count() == 1:
        return tree
    sent = jax.tree.map(lambda x: np.frombuffer(x.tobytes(), np.uint8), tree)
    got = multihost_utils.broadcast_one_to_all(sent)
    return jax.tree.map(
        lambda x, y: np.frombuffer(np.asarray(x).tobytes(), y.dtype).reshape(
            y.shape
        ),
        got,
        tree,
    )


@contextmanager
def in_turn() -> Iterator[None]:
    """The first process does what is inside before the others do."""
    if not first():
        gather(np.zeros(1))
    yield
    if first():
        gather(np.zeros(1))


def compiled(program: jax.stages.Wrapped, *args: Any) -> jax.stages.Compiled:
    """The program for arguments like these, once all processes have compiled it.

    Gloo connects the devices of a program when it first runs, and fails if one comes 30 s after another: one process
    may compile what another has in its cache.
    """
    done = program.lower(*args).compile()
    gather(np.zeros(1))
    return done


def local(tree: Any, sharding: NamedSharding) -> Any:
    """Arrays that are the same on every device of all processes, as arrays on this process's devices; no copy."""

    def of_one(x: jax.Array) -> jax.Array:
        return jax.make_array_from_single_device_arrays(
            x.shape, sharding, [s.data for s in x.addressable_shards]
        )

    return jax.tree.map(of_one, tree)
