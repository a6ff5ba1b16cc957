"""Images on the devices: how they are ordered, batched, normalised and augmented.

Training reads `Images` or, where images are streamed, a `Segment`; scoring reads
`Batches`. The functions are traceable, but for `batch_shape` and `make_batches`.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxhypernas.data.splits import Split
from jaxhypernas.types import Array, UserError

MIN_BATCHES = 10
"""Smallest number of batches that a set is scored in."""


class Images(NamedTuple):
    """All images that training draws its batches from."""

    x_NxHxWxC: jax.Array
    """uint8 or float32: the images as they were read."""

    y_N: jax.Array
    """int32: the labels."""

    mean_C: jax.Array
    """float32: the mean of each channel."""

    std_C: jax.Array
    """float32: the standard deviation of each channel."""


class Segment(NamedTuple):
    """The batches of the next T training steps, in order, where images are streamed."""

    x_TxBxHxWxC: jax.Array
    """uint8 or float32: the images as they were read."""

    y_TxB: jax.Array
    """int32: the labels."""

    mean_C: jax.Array
    """float32: the mean of each channel."""

    std_C: jax.Array
    """float32: the standard deviation of each channel."""

    first: Array
    """int32: the step of the first batch."""


class Batches(NamedTuple):
    """A fixed set of images to score on, cut into T equal batches."""

    x_TxBxHxWxC: jax.Array
    """float32: the images, normalised."""

    y_TxB: jax.Array
    """int32: the labels."""


def batch_shape(images: int, batch: int) -> tuple[int, int]:
    """Returns the number of batches that `make_batches` makes, T, and their size, B.

    Args:
        images: Number of images of the split.
        batch: Largest number of images per batch.

    Raises:
        UserError: A batch would have fewer than two images.
    """
    number = max(MIN_BATCHES, -(-images // batch))
    if images < 2 * number:
        raise UserError(
            f"data.valid: {images} held-out or test images are too few for "
            f"{number} batches: take more"
        )
    return number, images // number


def make_batches(
    split: Split,
    mean_C: Array,
    std_C: Array,
    batch: int,
) -> Batches:
    """Normalises a split and cuts it into at least `MIN_BATCHES` equal batches.

    The last images, T - 1 at most, are left out if the split does not divide evenly.

    Args:
        split: The images.
        mean_C: The mean of each channel.
        std_C: The standard deviation of each channel.
        batch: Largest number of images per batch.

    Raises:
        UserError: A batch would have fewer than two images.
    """
    number, size = batch_shape(len(split.y_N), batch)
    kept = number * size
    x_NxHxWxC = normalise(
        jnp.asarray(split.x_NxHxWxC[:kept]),
        jnp.asarray(mean_C),
        jnp.asarray(std_C),
    )
    y_N = jnp.asarray(split.y_N[:kept])
    image = x_NxHxWxC.shape[1:]
    return Batches(
        x_NxHxWxC.reshape(number, size, *image),
        y_N.reshape(number, size),
    )


def permutation(
    key: jax.Array, size: int, epoch: jax.Array | int
) -> jax.Array:
    """Returns the order of the images in one epoch of the stream of `batch_order`.

    Args:
        key: The key of the stream; the same for every epoch.
        size: Number of images.
        epoch: Number of the epoch, from 0; may be traced.

    Returns:
        int32 [size]: a permutation of 0 .. size - 1.
    """
    epoch_key = jax.random.fold_in(key, epoch)
    return jax.random.permutation(epoch_key, jnp.arange(size, dtype=jnp.int32))


def batch_order(
    key: jax.Array,
    size: int,
    batch: int,
    steps: int,
    start: jax.Array | int,
) -> jax.Array:
    """Returns the images that steps ``start .. start + steps - 1`` train on.

    Steps read an endless stream of epochs. Each epoch is a permutation of all images
    that depends only on ``key`` and the epoch's number, so an index depends only on
    its place in the stream, however the stream is cut into calls. No image is dropped,
    and a batch may straddle two epochs.

    Args:
        key: The key of the stream; the same for every call.
        size: Number of training images.
        batch: Images per step.
        steps: Number of steps of this call.
        start: The first step, int32; may be traced.

    Returns:
        int32 [steps, batch]: indices in 0 .. size - 1.

    Raises:
        UserError: ``size * batch`` does not fit int32.
    """
    if size * batch >= 2**31:
        raise UserError(
            f"train.batch: {batch} times {size} training images must be below 2^31: "
            "lower it"
        )

    # Epoch and offset of image ``start * batch``. The product may not fit int32, but
    # ``size`` steps are exactly ``batch`` epochs.
    cycle = start // size
    within = start % size * batch
    first_epoch = cycle * batch + within // size
    offset = within % size

    def order(epoch: jax.Array) -> jax.Array:
        return permutation(key, size, epoch)

    # Not a vmap: under a vmap some of JAX's random generators draw other numbers from
    # the same key.
    epochs = -(-steps * batch // size) + 1
    epoch_E = first_epoch + jnp.arange(epochs, dtype=jnp.int32)
    stream = jax.lax.map(order, epoch_E).ravel()
    indices = jax.lax.dynamic_slice(stream, (offset,), (steps * batch,))
    return indices.reshape(steps, batch)


def normalise(x_BxHxWxC: jax.Array, mean_C: Array, std_C: Array) -> jax.Array:
    """Shifts and scales each channel to mean 0 and standard deviation 1.

    Args:
        x_BxHxWxC: Images, uint8 or float32.
        mean_C: The mean of each channel.
        std_C: The standard deviation of each channel.

    Returns:
        float32 [B, H, W, C].
    """
    chex.assert_rank([x_BxHxWxC, mean_C, std_C], [4, 1, 1])
    x_BxHxWxC = x_BxHxWxC.astype(jnp.float32)
    # Equal ranks: JAX may be set to refuse rank promotion.
    mean_1x1x1xC = mean_C[None, None, None]
    std_1x1x1xC = std_C[None, None, None]
    return (x_BxHxWxC - mean_1x1x1xC) / std_1x1x1xC


def augment(
    key: jax.Array,
    x_BxHxWxC: jax.Array,
    pad: int,
    flip: bool,
) -> jax.Array:
    """Moves and flips each image at random. Dtype and shape stay.

    Args:
        key: The key of this batch; consumed.
        x_BxHxWxC: Normalised images, so that the zeros of the padding are the mean
            colour.
        pad: Pixels of zeros put on each side before an image of the old size is cut
            out at random; 0: no crop.
        flip: Whether each image is flipped left to right with probability 1/2.
    """
    chex.assert_rank(x_BxHxWxC, 4)
    crop_key, flip_key = jax.random.split(key)
    B, *image = x_BxHxWxC.shape

    def crop(x_HxWxC: jax.Array, corner_2: jax.Array) -> jax.Array:
        top, left = corner_2
        return jax.lax.dynamic_slice(x_HxWxC, (top, left, 0), image)

    if pad:
        both = (pad, pad)
        padded = jnp.pad(x_BxHxWxC, ((0, 0), both, both, (0, 0)))
        corner_Bx2 = jax.random.randint(crop_key, (B, 2), 0, 2 * pad + 1)
        x_BxHxWxC = jax.vmap(crop)(padded, corner_Bx2)

    if flip:
        flip_B = jax.random.bernoulli(flip_key, shape=(B,))
        flip_Bx1x1x1 = flip_B[:, None, None, None]
        mirrored = x_BxHxWxC[:, :, ::-1]
        x_BxHxWxC = jnp.where(flip_Bx1x1x1, mirrored, x_BxHxWxC)

    return x_BxHxWxC
