"""Image sets as arrays, and the pure functions that batch, augment and normalise them on the device.

Sources: scikit-learn's handwritten digits (no download), a user's ``.npz``, and any image classification set that
tensorflow-datasets has prepared in the array_record format, read without TensorFlow.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.types import UserError

CHUNK = 2048  # records read at once from a tensorflow-datasets source


@dataclass(frozen=True)
class DataConfig:
    """What to train on."""

    dataset: str = "digits"  # "digits", the path of an .npz, or a tensorflow-datasets name
    data_dir: str | None = None  # where tensorflow-datasets finds the set; its own default if None
    valid: float = 0.2  # share of the training images held out for scoring
    limit: int = 0  # use only so many training images; 0: all
    pad: int = 0  # augmentation: crop at random after padding by so many pixels
    flip: bool = False  # augmentation: flip left to right at random

    def __post_init__(self):
        if not 0 < self.valid < 1:
            raise UserError(f"data.valid: {self.valid} must be between 0 and 1, the share held out for scoring")
        for name in ("limit", "pad"):
            if getattr(self, name) < 0:
                raise UserError(f"data.{name}: {getattr(self, name)} must be 0 or more")


class Split(NamedTuple):
    """Images and their labels."""

    x_NxHxWxC: np.ndarray  # uint8 or float32
    y_N: np.ndarray  # int32


class Dataset(NamedTuple):
    """A set in three parts, with what normalises it."""

    name: str
    classes: int
    train: Split
    valid: Split  # held out from the training images
    test: Split
    mean_C: np.ndarray  # of the training split
    std_C: np.ndarray

    @property
    def image(self) -> tuple[int, int, int]:
        """(H, W, C)"""
        return self.train.x_NxHxWxC.shape[1:]


def load(config: DataConfig, seed: int) -> Dataset:
    """Read, check and split a set; the held-out images depend on the seed.

    Raises:
        UserError: the set cannot be found or read, or is not image classification of one image size.
    """
    if config.dataset == "digits":
        train, test = _digits()
    elif config.dataset.endswith(".npz") or Path(config.dataset).is_file():
        train, test = _npz(Path(config.dataset))
    else:
        train, test = _tfds(config.dataset, config.data_dir)
    train, test, classes = _check(config.dataset, train, test)
    order = np.random.default_rng(seed).permutation(len(train.y_N))
    order = order[: config.limit or None]
    held = round(len(order) * config.valid)
    if held < 1 or held >= len(order):
        raise UserError(f"data.valid: {config.valid} of {len(order)} training images leaves an empty split")
    valid, train = (Split(train.x_NxHxWxC[i], train.y_N[i]) for i in (order[:held], order[held:]))
    if len(train.y_N) < classes:
        raise UserError(f"data.limit: {config.limit} leaves {len(train.y_N)} images for {classes} classes: raise it")
    mean, std = _moments(train.x_NxHxWxC)
    return Dataset(config.dataset, classes, train, valid, test, mean, std)


def _moments(x_NxHxWxC):
    """Mean and standard deviation per channel, chunk by chunk: a float64 copy of a large set would not fit."""
    sums = [
        (c.sum((0, 1, 2)), np.square(c).sum((0, 1, 2)))
        for c in (x_NxHxWxC[i : i + CHUNK].astype(np.float64) for i in range(0, len(x_NxHxWxC), CHUNK))
    ]
    total, squares = (np.sum(s, 0) / (x_NxHxWxC.size / x_NxHxWxC.shape[-1]) for s in zip(*sums, strict=True))
    return total.astype(np.float32), np.sqrt(np.maximum(squares - total**2, 1e-12)).astype(np.float32)


def _digits():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x = (x.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=0, stratify=y)
    return Split(x_train, y_train), Split(x_test, y_test)


def _npz(path: Path):
    if not path.is_file():
        raise UserError(f"data.dataset: {path} does not exist")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [k for k in ("x_train", "y_train", "x_test", "y_test") if k not in file]
            if missing:
                raise UserError(
                    f"data.dataset: {path} lacks {', '.join(missing)}: save it with np.savez and these names"
                )
            arrays = {k: file[k] for k in ("x_train", "y_train", "x_test", "y_test")}
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"data.dataset: {path} is no readable .npz of plain arrays ({_line(error)})") from None
    return Split(arrays["x_train"], arrays["y_train"]), Split(arrays["x_test"], arrays["y_test"])


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _tfds(name: str, data_dir: str | None):
    import tensorflow_datasets as tfds

    if data_dir is not None and not Path(data_dir).is_dir() and "://" not in data_dir:
        raise UserError(f"data.data_dir: {data_dir} is no directory")
    root = Path(data_dir) if data_dir else Path(tfds.core.constants.DATA_DIR)
    root = root.expanduser()
    if "://" not in (data_dir or ""):
        there = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
        if name.split("/")[0].split(":")[0] not in there:
            found = f"there are {', '.join(there[:8])}" if there else "nothing is there"
            raise UserError(f"data.dataset: {name!r} is not in {root}: {found}; give data.data_dir, digits or an .npz")
    try:
        sources = {split: tfds.data_source(name, data_dir=data_dir, split=split) for split in ("train", "test")}
    except Exception as error:
        hint = ""
        if any("tfrecord" in p.name for p in root.glob(f"{name.split(':')[0]}/**/*")):
            hint = ': it is in the TFRECORD format, prepare it again with file_format="array_record"'
        raise UserError(f"data.dataset: cannot read {name!r} in {root}{hint} ({_line(error)})") from None
    return tuple(_read(name, source) for source in sources.values())


def _read(name: str, source) -> Split:
    features = source.dataset_info.features
    keys = features.supervised_keys if hasattr(features, "supervised_keys") else None
    image, label = keys or source.dataset_info.supervised_keys or ("image", "label")
    if image not in features or label not in features:
        raise UserError(f"data.dataset: {name!r} has {', '.join(features)}, not an image and a label")
    xs, ys = [], []
    for start in range(0, len(source), CHUNK):
        for example in source.__getitems__(range(start, min(start + CHUNK, len(source)))):
            xs.append(example[image])
            ys.append(example[label])
    if len({np.shape(x) for x in xs}) > 1:
        raise UserError(f"data.dataset: the images of {name!r} differ in size: resize them into an .npz")
    return Split(np.stack(xs) if xs else np.zeros((0, 1, 1, 1), np.uint8), np.asarray(ys, np.int64))


def _check(name: str, train: Split, test: Split) -> tuple[Split, Split, int]:
    """The splits in standard shapes and dtypes, and the number of classes."""
    where = f"data.dataset: {name}:"
    train, test = (_check_split(where, part, split) for part, split in (("train", train), ("test", test)))
    if train.x_NxHxWxC.shape[1:] != test.x_NxHxWxC.shape[1:]:
        raise UserError(f"{where} train images are {train.x_NxHxWxC.shape[1:]}, test images {test.x_NxHxWxC.shape[1:]}")
    if train.x_NxHxWxC.dtype != test.x_NxHxWxC.dtype:
        raise UserError(f"{where} x_train is {train.x_NxHxWxC.dtype}, x_test {test.x_NxHxWxC.dtype}: save both alike")
    seen = np.unique(train.y_N)
    if len(seen) != seen[-1] + 1:
        raise UserError(f"{where} labels go up to {seen[-1]} but only {len(seen)} occur: number classes from 0")
    if len(seen) < 2:
        raise UserError(f"{where} y_train has one class: at least two are needed")
    if test.y_N.max() > seen[-1]:
        raise UserError(f"{where} y_test has label {test.y_N.max()}, y_train only up to {seen[-1]}")
    return train, test, len(seen)


def _check_split(where: str, part: str, split: Split) -> Split:
    x, y = np.asarray(split.x_NxHxWxC), np.asarray(split.y_N)
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4:
        raise UserError(f"{where} x_{part} has shape {x.shape}: images must be NxHxW or NxHxWxC")
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise UserError(f"{where} y_{part} is {y.dtype} of shape {y.shape}: labels must be one integer per image")
    if len(x) != len(y):
        raise UserError(f"{where} x_{part} has {len(x)} images, y_{part} {len(y)} labels")
    if len(x) == 0:
        raise UserError(f"{where} x_{part} is empty")
    if min(x.shape[1:]) < 1:
        raise UserError(f"{where} x_{part} has shape {x.shape}: images have no pixels")
    if y.min() < 0:
        raise UserError(f"{where} y_{part} has label {y.min()}: number classes from 0")
    if x.dtype == np.uint8:
        return Split(x, y.astype(np.int32))
    if not (np.issubdtype(x.dtype, np.floating) or np.issubdtype(x.dtype, np.integer)):
        raise UserError(f"{where} x_{part} is {x.dtype}: images must be uint8 or float")
    x = x.astype(np.float32)
    if not np.isfinite(x).all():
        raise UserError(f"{where} x_{part} holds NaN or infinite values")
    return Split(x, y.astype(np.int32))


def batch_order(key: jax.Array, size: int, batch: int, steps: int, start: jax.Array | int) -> jax.Array:
    """Which images steps ``start .. start + steps - 1`` train on, int32 [steps, batch].

    A stream of epochs, each a permutation of ``size`` images keyed by its number: an index depends only on its place in
    the stream, however it is cut into calls. No image is dropped; a batch may straddle two epochs.
    """
    # Places fit int32 up to 2e9 images seen; epochs are counted from start's, so the product stays small.
    first_epoch = start // size * batch + start % size * batch // size
    offset = start % size * batch % size
    epochs = -(-steps * batch // size) + 1
    keys = jax.vmap(lambda e: jax.random.fold_in(key, first_epoch + e))(jnp.arange(epochs))
    stream = jax.vmap(lambda k: jax.random.permutation(k, size))(keys).ravel()
    return jax.lax.dynamic_slice(stream, (offset,), (steps * batch,)).reshape(steps, batch)


def normalise(x_BxHxWxC: jax.Array, mean_C: jax.Array, std_C: jax.Array) -> jax.Array:
    """float32, mean 0 and standard deviation 1 per channel."""
    return (x_BxHxWxC.astype(jnp.float32) - mean_C[None, None, None]) / std_C[None, None, None]


def augment(key: jax.Array, x_BxHxWxC: jax.Array, pad: int, flip: bool) -> jax.Array:
    """Per image, a random crop after padding by ``pad`` zeros, and a random flip left to right."""
    crop_key, flip_key = jax.random.split(key)
    B, shape = x_BxHxWxC.shape[0], x_BxHxWxC.shape[1:]
    if pad:
        padded = jnp.pad(x_BxHxWxC, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        corner_Bx2 = jax.random.randint(crop_key, (B, 2), 0, 2 * pad + 1)
        x_BxHxWxC = jax.vmap(lambda x, c: jax.lax.dynamic_slice(x, (c[0], c[1], 0), shape))(padded, corner_Bx2)
    if flip:
        flip_B = jax.random.bernoulli(flip_key, shape=(B,))
        x_BxHxWxC = jnp.where(flip_B[:, None, None, None], x_BxHxWxC[:, :, ::-1], x_BxHxWxC)
    return x_BxHxWxC
