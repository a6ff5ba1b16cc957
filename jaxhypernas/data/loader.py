"""Training images sent to the devices as training comes to them, in the order of `data.batch_order`.

What a step takes depends on the key of the order and the step's number alone: the step that a checkpoint holds is the
position in the data, too. Each process reads its own share of every batch.
"""

from collections.abc import Callable, Generator, Iterable
from functools import lru_cache, partial

import jax
import numpy as np
from jax.sharding import NamedSharding

from jaxhypernas.data import dataset as data
from jaxhypernas.data.sources import Split, Stored

THREADS = 8  # that read


def host_order(
    key: jax.Array, size: int, batch: int
) -> Callable[[int], np.ndarray]:
    """``order(step) -> int32 [batch]``: what `data.batch_order` gives for the step."""
    permutation = lru_cache(4)(jax.jit(partial(data.permutation, key, size)))

    def order(step):
        place_B = step * batch + np.arange(batch)
        epochs, index_B = (
            range(place_B[0] // size, place_B[-1] // size + 1),
            place_B % size,
        )
        permutation(
            epochs[-1] + 1
        )  # begun ahead: an accelerator gets to it when the program before it has ended
        return np.concatenate(
            [
                np.asarray(permutation(e))[index_B[place_B // size == e]]
                for e in epochs
            ]
        )

    return order


def process_rows(
    sharding: NamedSharding, batch: int, devices: Iterable[jax.Device]
) -> np.ndarray:
    """Which images of a batch some devices hold, of arrays T x B x ... sharded so; ascending."""
    index_map = sharding.devices_indices_map((1, batch))
    return np.unique(
        np.concatenate(
            [np.arange(batch)[index_map[device][1]] for device in devices]
        )
    )


def read(
    source: Split | Stored,
    order: Callable,
    rows: np.ndarray,
    steps: range,
    ahead: int,
):
    """An iterator over these rows of each step's batch, a `Split` per step; ``ahead`` steps are read in the background.

    Its method ``close`` ends that.
    """
    import grain

    images = grain.MapDataset.source(steps).map(
        lambda step: source.take(order(step)[rows])
    )
    return iter(
        images.to_iter_dataset(grain.ReadOptions(min(THREADS, ahead), ahead))
    )


def segments(
    source: Split | Stored,
    key: jax.Array,
    batch: int,
    steps: range,
    length: int,
    sharding: NamedSharding,
) -> Generator[tuple[jax.Array, jax.Array]]:
    """The images x_TxBxHxWxC and labels y_TxB of ``length`` steps at once, T = length, in order; at the end zeros.

    Args:
        source: the training split.
        key: of the order, as `data.batch_order` takes it, on one device.
        batch: images per step.
        steps: the steps to come.
        length: steps per segment.
        sharding: of T x B x ..., as `mesh.by_process` gives it.

    Raises:
        UserError: images cannot be read.
    """
    rows = process_rows(sharding, batch, sharding.addressable_devices)
    images = read(
        source, host_order(key, source.size, batch), rows, steps, length
    )

    def placed(parts):
        mine = np.zeros(
            (length, *parts[0].shape), parts[0].dtype
        )  # only what this process has read
        np.stack(parts, out=mine[: len(parts)])

        def shard(index):
            first, last, _ = index[1].indices(batch)
            begin = np.searchsorted(rows, first)
            return mine[:, begin : begin + last - first]

        return jax.make_array_from_callback(
            (length, batch, *mine.shape[2:]), sharding, shard
        )

    try:
        for first in range(0, len(steps), length):
            x, y = zip(
                *(next(images) for _ in steps[first : first + length]),
                strict=True,
            )
            yield placed(x), placed(y)
    finally:
        images.close()
