"""Properties of batching, normalisation and augmentation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxhypernas.data import batches
from jaxhypernas.data.splits import Split
from jaxhypernas.types import UserError

KEY = jax.random.key(3)
order = jax.jit(batches.batch_order, static_argnums=(1, 2, 3))


@pytest.mark.parametrize(("size", "batch"), [(10, 3), (7, 7), (5, 12)])
def test_stream_is_the_same_however_it_is_cut(size, batch):
    whole = np.asarray(order(KEY, size, batch, 24, 0))
    assert whole.shape == (24, batch) and whole.dtype == np.int32
    for lengths in ((1,) * 24, (5, 19)):
        starts = np.cumsum((0, *lengths[:-1]))
        parts = [
            order(KEY, size, batch, n, jnp.int32(s))
            for n, s in zip(lengths, starts, strict=True)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize(("size", "batch"), [(10, 3), (5, 12)])
def test_every_epoch_has_every_image_once(size, batch):
    stream = np.asarray(order(KEY, size, batch, 60, 0)).ravel()
    epochs = stream[: len(stream) // size * size].reshape(-1, size)
    np.testing.assert_array_equal(
        np.sort(epochs), np.broadcast_to(np.arange(size), epochs.shape)
    )
    assert len(np.unique(epochs, axis=0)) > 1
    # Each epoch is keyed by its number alone.
    for number, epoch in enumerate(epochs):
        np.testing.assert_array_equal(
            epoch,
            jax.random.permutation(jax.random.fold_in(KEY, number), size),
        )


def test_stream_depends_on_its_key():
    assert (
        order(KEY, 50, 5, 10, 0) != order(jax.random.key(4), 50, 5, 10, 0)
    ).any()


def test_stream_far_along():
    # Image 6.4e9, beyond int32.
    size, batch, start = 45_000, 128, 50_000_000
    epoch, offset = divmod(start * batch, size)
    expected = jax.random.permutation(jax.random.fold_in(KEY, epoch), size)[
        offset : offset + batch
    ]
    for first in (start, jnp.int32(start)):
        np.testing.assert_array_equal(
            order(KEY, size, batch, 2, first)[0], expected
        )


def test_stream_with_a_key_that_vmap_changes():
    key = jax.random.key(0, impl="rbg")
    whole = np.asarray(order(key, 10, 3, 24, 0))
    np.testing.assert_array_equal(
        order(key, 10, 3, 4, jnp.int32(9)), whole[9:13]
    )


def test_stream_too_long_for_int32():
    with pytest.raises(UserError, match=r"^train\.batch: "):
        batches.batch_order(KEY, 2**20, 2**11, 1, 0)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float32])
def test_normalise(dtype):
    x = jax.random.randint(KEY, (64, 4, 4, 3), 0, 256).astype(dtype)
    mean, std = (
        jnp.asarray(x, jnp.float32).mean((0, 1, 2)),
        jnp.asarray(x, jnp.float32).std((0, 1, 2)),
    )
    y = jax.jit(batches.normalise)(x, mean, std)
    assert y.dtype == jnp.float32 and y.shape == x.shape
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=1e-5)


def windows(x_HxWxC, pad, flip):
    """All images that augmentation may make of one."""
    H, W = x_HxWxC.shape[:2]
    padded = np.pad(x_HxWxC, ((pad, pad), (pad, pad), (0, 0)))
    crops = [
        padded[i : i + H, j : j + W]
        for i in range(2 * pad + 1)
        for j in range(2 * pad + 1)
    ]
    return crops + [crop[:, ::-1] for crop in crops if flip]


@pytest.mark.parametrize(
    ("pad", "flip"), [(0, False), (1, False), (0, True), (1, True), (2, True)]
)
def test_augment_makes_each_possible_image(pad, flip):
    x = 1 + np.arange(4 * 5 * 2, dtype=np.float32).reshape(4, 5, 2)
    batch = jnp.broadcast_to(x, (600, 4, 5, 2))
    y = np.asarray(
        jax.jit(partial(batches.augment, pad=pad, flip=flip))(KEY, batch)
    )
    assert y.dtype == np.float32
    possible = {w.tobytes() for w in windows(x, pad, flip)}
    assert {row.tobytes() for row in y} == possible
    assert len(possible) == (2 * pad + 1) ** 2 * (1 + flip)


def test_augment_moves_images_independently_and_by_key():
    x = jax.random.normal(KEY, (64, 4, 4, 1))
    a, b = (
        batches.augment(KEY, x, 2, True),
        batches.augment(jax.random.key(4), x, 2, True),
    )
    assert (a != b).any()
    np.testing.assert_array_equal(a, batches.augment(KEY, x, 2, True))


def test_augment_under_vmap_is_a_loop():
    keys, x = jax.random.split(KEY, 3), jax.random.normal(KEY, (3, 8, 4, 4, 1))
    f = partial(batches.augment, pad=1, flip=True)
    np.testing.assert_array_equal(
        jax.vmap(f)(keys, x),
        jnp.stack([f(k, v) for k, v in zip(keys, x, strict=True)]),
    )


@pytest.mark.parametrize(
    ("images", "batch", "expected"), [(287, 64, (10, 28)), (700, 64, (11, 63))]
)
def test_batches_to_score_on(images, batch, expected):
    x = np.arange(images, dtype=np.uint8).reshape(-1, 1, 1, 1)
    split = Split(x, np.arange(images, dtype=np.int32))
    mean, std = np.array([2], np.float32), np.array([4], np.float32)
    made = batches.make_batches(split, mean, std, batch)
    assert made.y_TxB.shape == expected == batches.batch_shape(images, batch)
    kept = made.y_TxB.size
    np.testing.assert_array_equal(made.y_TxB.ravel(), np.arange(kept))
    np.testing.assert_array_equal(
        made.x_TxBxHxWxC.ravel(), (x[:kept].ravel().astype(np.float32) - 2) / 4
    )


def test_too_few_images_to_score_on():
    with pytest.raises(UserError, match=r"^data\.valid: 19 "):
        batches.batch_shape(19, 64)
