"""Image sets split for training and scoring, and the pure functions that batch, augment and normalise them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.data import sources
from jaxhypernas.data.sources import Split, Stored
from jaxhypernas.types import UserError

CHUNK = 2048  # images converted to float64 at once
SAMPLE = 10_000  # images that the moments of a set on disk come from
KNOWN = {  # image, classes, training and test images of sets that a program can be compiled for without having them
    "mnist": ((28, 28, 1), 10, 60_000, 10_000),
    "fashion_mnist": ((28, 28, 1), 10, 60_000, 10_000),
    "cifar10": ((32, 32, 3), 10, 50_000, 10_000),
    "cifar100": ((32, 32, 3), 100, 50_000, 10_000),
    "svhn_cropped": ((32, 32, 3), 10, 73_257, 26_032),
}


@dataclass(frozen=True)
class DataConfig:
    """What to train on. Raises UserError for a value out of range.

    Attributes:
        dataset: "digits" (1,797 images of 8x8x1), the path of an ``.npz`` with the arrays x_train, y_train, x_test and
            y_test, or the name of a tensorflow-datasets set, as in "cifar10" or "name/config:1.0.0".
        data_dir: the directory in which tensorflow-datasets prepared the set; None for its own default.
        valid: share of the training images held out for scoring, between 0 and 1.
        limit: use only so many training images, chosen by the seed, before some are held out; None for all.
        pad: augmentation: crop at random after padding each side by so many pixels; 0 for no crop.
        flip: augmentation: flip left to right with probability 1/2.
        stream: for training images that don't fit in the memory of a device: they are sent as training comes to them,
            those of ``train.every`` steps at once, and the next as many beside them. Those of tensorflow-datasets stay
            on disk until then, for sets that don't fit in the host's memory either; moments are then those of the first
            10,000 training images, and the split "test" isn't needed. ``valid`` should be small: held-out images are
            in memory. Candidates can't be trained from scratch.
    """

    dataset: str = "digits"
    data_dir: str | None = None
    valid: float = 0.2
    limit: int | None = None
    pad: int = 0
    flip: bool = False
    stream: bool = False

    def __post_init__(self):
        if not 0 < self.valid < 1:
            raise UserError(
                f"data.valid: {self.valid} must be between 0 and 1, the share held out for scoring"
            )
        if self.limit is not None and self.limit < 1:
            raise UserError(
                f"data.limit: {self.limit} must be a number of images, or left out for all"
            )
        if self.pad < 0:
            raise UserError(
                f"data.pad: {self.pad} must be 0 (no crop) or more pixels"
            )


class Dataset(NamedTuple):
    """A set. The splits share no image."""

    name: str
    classes: int
    train: Split
    valid: Split  # held out from the training images
    test: Split
    mean_C: (
        np.ndarray
    )  # float32, over the training split, in the unit of its pixels
    std_C: np.ndarray  # float32; 1 for a channel that never changes
    stored: Stored | None = (
        None  # the training split where it stays on disk; train and test have no images then
    )

    @property
    def image(self) -> tuple[int, int, int]:
        """(H, W, C) of an image."""
        return self.valid.x_NxHxWxC.shape[1:]

    @property
    def source(self) -> Split | Stored:
        """The training split, wherever it is."""
        return self.stored or self.train


def load(config: DataConfig, seed: int) -> Dataset:
    """Read, check and split a set. The seed decides which images are used and held out, never the test split.

    Raises:
        UserError: the set cannot be found or read, is not image classification of one image size, or is too small for
            ``config.valid`` or ``config.limit``.
    """
    if seed < 0:
        raise UserError(f"seed: {seed} must be 0 or more")
    if config.stream and (
        found := sources.on_disk(config.dataset, config.data_dir)
    ):
        stored, classes = found
        held, kept = _parts(config, seed, stored.size, classes)
        valid, stored = stored.take(held), stored._replace(index_N=kept)
        none, sample = (
            Split(*(v[:0] for v in valid)),
            stored.take(np.arange(min(SAMPLE, stored.size))),
        )
        return Dataset(
            config.dataset,
            classes,
            none,
            valid,
            none,
            *_moments(sample.x_NxHxWxC),
            stored,
        )
    train, test, classes = sources.in_memory(config.dataset, config.data_dir)
    valid, train = (
        train.take(index) for index in _parts(config, seed, train.size, classes)
    )
    return Dataset(
        config.dataset, classes, train, valid, test, *_moments(train.x_NxHxWxC)
    )


def blank(config: DataConfig, seed: int) -> Dataset:
    """What `load` gives; of a set in KNOWN that ``config.data_dir`` doesn't locate, black images of its shapes.

    Raises:
        UserError: as `load`.
    """
    if config.data_dir is not None or config.dataset not in KNOWN:
        return load(config, seed)
    image, classes, images, tests = KNOWN[config.dataset]
    images = min(images, config.limit or images)
    held = _held(config, images, classes)
    train, valid, test = (
        Split(np.zeros((n, *image), np.uint8), np.zeros(n, np.int32))
        for n in (images - held, held, tests)
    )
    mean_C, std_C = np.ones((2, image[-1]), np.float32)
    return Dataset(config.dataset, classes, train, valid, test, mean_C, std_C)


def _parts(
    config: DataConfig, seed: int, images: int, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which training images are held out, and which train."""
    order = np.random.default_rng(seed).permutation(images)[: config.limit]
    held = _held(config, len(order), classes)
    return order[:held], order[held:]


def _held(config: DataConfig, images: int, classes: int) -> int:
    """How many of the training images are held out."""
    if config.limit is not None and config.limit < classes:
        raise UserError(
            f"data.limit: {config.limit} images are fewer than the {classes} classes: raise it"
        )
    held = round(images * config.valid)
    if not 0 < held < images:
        what = "training" if held else "held-out"
        raise UserError(
            f"data.valid: {config.valid} of {images} images leaves no {what} image: change it"
        )
    return held


def _moments(x_NxHxWxC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per channel, chunk by chunk: a float64 copy of a large set might not fit."""

    def mean(f: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        starts = range(0, len(x_NxHxWxC), CHUNK)
        total_C = sum(
            f(x_NxHxWxC[i : i + CHUNK].astype(np.float64)).sum((0, 1, 2))
            for i in starts
        )
        return total_C / (x_NxHxWxC.size // x_NxHxWxC.shape[-1])

    mean_C = mean(lambda x: x)
    std_C = np.sqrt(mean(lambda x: np.square(x - mean_C)))
    # What is left of a constant channel is rounding error; divided by itself it would be noise of size 1.
    std_C = np.where(std_C > 1e-6 * np.abs(mean_C), std_C, 1)
    return mean_C.astype(np.float32), std_C.astype(np.float32)


def permutation(key: jax.Array, size: int, epoch: jax.Array | int) -> jax.Array:
    """The order of ``size`` images in an epoch of the stream that `batch_order` reads; int32 [size]."""
    return jax.random.permutation(
        jax.random.fold_in(key, epoch), jnp.arange(size, dtype=jnp.int32)
    )


def batch_order(
    key: jax.Array, size: int, batch: int, steps: int, start: jax.Array | int
) -> jax.Array:
    """Which images steps ``start .. start + steps - 1`` train on.

    The steps read an endless stream of epochs, each a permutation of all ``size`` images that depends only on ``key``
    and the epoch's number. So an index depends only on its place in the stream, however the stream is cut into calls;
    no image is dropped, and a batch may straddle two epochs.

    Args:
        key: of the whole stream, the same for every call.
        size: images in the training split.
        batch: images per step.
        steps: of this call.
        start: the first step, int32, may be traced.

    Returns:
        int32 [steps, batch], in 0 .. size - 1.

    Raises:
        UserError: ``size * batch`` does not fit int32.
    """
    if size * batch >= 2**31:
        raise UserError(
            f"train.batch: {batch} times {size} training images must be below 2^31: lower it"
        )
    # Epoch and offset of image start * batch, a product that may not fit int32: ``size`` steps are ``batch`` epochs.
    cycle, within = start // size, start % size * batch
    first_epoch, offset = cycle * batch + within // size, within % size
    epochs = -(-steps * batch // size) + 1

    # Not a vmap: under one, some of JAX's generators give a key other numbers.
    numbers = first_epoch + jnp.arange(epochs, dtype=jnp.int32)
    stream = jax.lax.map(
        lambda epoch: permutation(key, size, epoch), numbers
    ).ravel()
    return jax.lax.dynamic_slice(stream, (offset,), (steps * batch,)).reshape(
        steps, batch
    )


def normalise(
    x_BxHxWxC: jax.Array, mean_C: jax.Array, std_C: jax.Array
) -> jax.Array:
    """Shift and scale each channel by a dataset's moments, from uint8 or float to float32."""
    return (x_BxHxWxC.astype(jnp.float32) - mean_C[None, None, None]) / std_C[
        None, None, None
    ]


def augment(
    key: jax.Array, x_BxHxWxC: jax.Array, pad: int, flip: bool
) -> jax.Array:
    """Move each image at random and flip it at random; dtype and shape stay.

    Args:
        key: of this batch.
        x_BxHxWxC: normalised images, so that the zeros of the padding are the mean colour.
        pad: pixels of zeros put on each side before an image of the old size is cut out at random; 0 for none.
        flip: flip left to right with probability 1/2.
    """
    crop_key, flip_key = jax.random.split(key)
    B, shape = x_BxHxWxC.shape[0], x_BxHxWxC.shape[1:]
    if pad:
        padded = jnp.pad(x_BxHxWxC, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        corner_Bx2 = jax.random.randint(crop_key, (B, 2), 0, 2 * pad + 1)
        x_BxHxWxC = jax.vmap(
            lambda x, c: jax.lax.dynamic_slice(x, (c[0], c[1], 0), shape)
        )(padded, corner_Bx2)
    if flip:
        flip_B = jax.random.bernoulli(flip_key, shape=(B,))
        x_BxHxWxC = jnp.where(
            flip_B[:, None, None, None], x_BxHxWxC[:, :, ::-1], x_BxHxWxC
        )
    return x_BxHxWxC
