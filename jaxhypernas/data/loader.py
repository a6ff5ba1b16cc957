"""Training images streamed to the devices, in the order of `batches.batch_order`.

The images of a step depend only on the key of the order and the step's number, so the
step of a checkpoint is also the position in the data. Each process reads its own share
of every batch.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.sharding import NamedSharding

from jaxhypernas.data.batches import permutation
from jaxhypernas.data.splits import Split, Stored

if TYPE_CHECKING:
    import grain

READ_THREADS = 8
"""Largest number of threads that read."""


def host_order(
    key: jax.Array,
    size: int,
    batch: int,
) -> Callable[[int], np.ndarray]:
    """Returns the function of one step that `batches.batch_order` is of many.

    Args:
        key: The key of the stream, on one device.
        size: Number of training images.
        batch: Images per step.

    Returns:
        ``order(step)``: int32 [batch], the images of the step, on the host.
    """
    epoch_order = lru_cache(4)(jax.jit(partial(permutation, key, size)))

    def order(step: int) -> np.ndarray:
        place_B = step * batch + np.arange(batch)
        epoch_B = place_B // size
        index_B = place_B % size
        last = int(epoch_B[-1])

        # The next epoch is begun ahead: an accelerator computes its order only when
        # the program before it has ended.
        epoch_order(last + 1)
        parts = []
        for epoch in range(int(epoch_B[0]), last + 1):
            images = np.asarray(epoch_order(epoch))
            parts.append(images[index_B[epoch_B == epoch]])
        return np.concatenate(parts)

    return order


def segments(
    source: Split | Stored,
    key: jax.Array,
    batch: int,
    steps: range,
    length: int,
    sharding: NamedSharding,
) -> Generator[tuple[jax.Array, jax.Array]]:
    """Yields the images of ``length`` steps at a time, in order.

    The next segment is read in the background. Every segment ends before a multiple of
    ``length`` or with the last step; zeros fill it up.

    Args:
        source: The training images.
        key: The key of the order, on one device; not consumed.
        batch: Images per step, B.
        steps: The steps to come.
        length: Steps per segment, T.
        sharding: Sharding of arrays T x B x ..., as `mesh.by_process` gives it.

    Yields:
        Images x_TxBxHxWxC and labels y_TxB, on the devices.

    Raises:
        UserError: Images cannot be read.
    """
    rows = _process_rows(sharding, batch, sharding.addressable_devices)
    order = host_order(key, source.size, batch)

    def placed(parts: Sequence[np.ndarray]) -> jax.Array:
        # Only the rows that this process has read.
        mine = np.zeros((length, *parts[0].shape), parts[0].dtype)
        np.stack(parts, out=mine[: len(parts)])

        def shard(index):
            first, last, _ = index[1].indices(batch)
            begin = np.searchsorted(rows, first)
            return mine[:, begin : begin + last - first]

        shape = (length, batch, *mine.shape[2:])
        return jax.make_array_from_callback(shape, sharding, shard)

    with closing(_read(source, order, rows, steps, ahead=length)) as splits:
        first = steps.start
        while first in steps:
            end = min(first - first % length + length, steps.stop)
            x, y = zip(*[next(splits) for _ in range(first, end)], strict=True)
            yield placed(x), placed(y)
            first = end


def _process_rows(
    sharding: NamedSharding,
    batch: int,
    devices: Iterable[jax.Device],
) -> np.ndarray:
    """The images of a batch that some devices hold, ascending."""
    index_of = sharding.devices_indices_map((1, batch))
    every_row = np.arange(batch)
    rows = []
    for device in devices:
        _, of_batch = index_of[device]
        rows.append(every_row[of_batch])
    return np.unique(np.concatenate(rows))


def _read(
    source: Split | Stored,
    order: Callable[[int], np.ndarray],
    rows: np.ndarray,
    steps: range,
    ahead: int,
) -> "grain.DatasetIterator[Split]":
    """Iterates over steps: of each the given rows of its batch, as a `Split`.

    ``ahead`` steps are read in the background, until the iterator's ``close``.
    """
    import grain

    def take(step: int) -> Split:
        return source.take(order(step)[rows])

    options = grain.ReadOptions(min(READ_THREADS, ahead), ahead)
    images = grain.MapDataset.source(steps).map(take)
    return iter(images.to_iter_dataset(options))
