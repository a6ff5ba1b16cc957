"""Image sets as arrays, and the pure functions that batch, augment and normalise them on the device.

Sources: scikit-learn's handwritten digits (nothing to download), a user's ``.npz``, and any image classification set
that tensorflow-datasets has prepared in the array_record format, read without TensorFlow.
"""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.types import UserError

CHUNK = 2048  # images read, or converted to float64, at once
AGAIN = 'prepare it again with file_format="array_record", or save it as an .npz'
NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
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
    """

    dataset: str = "digits"
    data_dir: str | None = None
    valid: float = 0.2
    limit: int | None = None
    pad: int = 0
    flip: bool = False

    def __post_init__(self):
        if not 0 < self.valid < 1:
            raise UserError(f"data.valid: {self.valid} must be between 0 and 1, the share held out for scoring")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"data.limit: {self.limit} must be a number of images, or left out for all")
        if self.pad < 0:
            raise UserError(f"data.pad: {self.pad} must be 0 (no crop) or more pixels")


class Split(NamedTuple):
    """Images and their labels."""

    x_NxHxWxC: np.ndarray  # uint8 or float32
    y_N: np.ndarray  # int32, 0 .. classes - 1


class Dataset(NamedTuple):
    """A set in memory. The splits share no image."""

    name: str
    classes: int
    train: Split
    valid: Split  # held out from the training images
    test: Split
    mean_C: np.ndarray  # float32, over the training split, in the unit of its pixels
    std_C: np.ndarray  # float32; 1 for a channel that never changes

    @property
    def image(self) -> tuple[int, int, int]:
        """(H, W, C) of an image."""
        return self.train.x_NxHxWxC.shape[1:]


def load(config: DataConfig, seed: int) -> Dataset:
    """Read, check and split a set. The seed decides which images are used and held out, never the test split.

    Raises:
        UserError: the set cannot be found or read, is not image classification of one image size, or is too small for
            ``config.valid`` or ``config.limit``.
    """
    if seed < 0:
        raise UserError(f"seed: {seed} must be 0 or more")
    path = Path(config.dataset).expanduser()
    if config.dataset == "digits":
        train, test = _digits()
    elif config.dataset.endswith(".npz") or path.is_file():
        train, test = _npz(path)
    else:
        train, test = _tfds(config.dataset, config.data_dir)
    train, test, classes = _check(config.dataset, train, test)

    order = np.random.default_rng(seed).permutation(len(train.y_N))[: config.limit]
    held = _held(config, len(order), classes)
    valid, train = (Split(train.x_NxHxWxC[i], train.y_N[i]) for i in (order[:held], order[held:]))
    return Dataset(config.dataset, classes, train, valid, test, *_moments(train.x_NxHxWxC))


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
        Split(np.zeros((n, *image), np.uint8), np.zeros(n, np.int32)) for n in (images - held, held, tests)
    )
    return Dataset(config.dataset, classes, train, valid, test, *np.ones((2, image[-1]), np.float32))


def _held(config: DataConfig, images: int, classes: int) -> int:
    """How many of the training images are held out."""
    if config.limit is not None and config.limit < classes:
        raise UserError(f"data.limit: {config.limit} images are fewer than the {classes} classes: raise it")
    held = round(images * config.valid)
    if not 0 < held < images:
        what = "training" if held else "held-out"
        raise UserError(f"data.valid: {config.valid} of {images} images leaves no {what} image: change it")
    return held


def _moments(x_NxHxWxC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per channel, chunk by chunk: a float64 copy of a large set might not fit."""

    def mean(f: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        starts = range(0, len(x_NxHxWxC), CHUNK)
        total_C = sum(f(x_NxHxWxC[i : i + CHUNK].astype(np.float64)).sum((0, 1, 2)) for i in starts)
        return total_C / (x_NxHxWxC.size // x_NxHxWxC.shape[-1])

    mean_C = mean(lambda x: x)
    std_C = np.sqrt(mean(lambda x: np.square(x - mean_C)))
    # What is left of a constant channel is rounding error; divided by itself it would be noise of size 1.
    std_C = np.where(std_C > 1e-6 * np.abs(mean_C), std_C, 1)
    return mean_C.astype(np.float32), std_C.astype(np.float32)


def _digits() -> tuple[Split, Split]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x = (x.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)  # 0..16 to 0..255
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=0, stratify=y)
    return Split(x_train, y_train), Split(x_test, y_test)


def _npz(path: Path) -> tuple[Split, Split]:
    if not path.is_file():
        raise UserError(f"data.dataset: {path} does not exist: give the path of an .npz file")
    if not zipfile.is_zipfile(path):
        raise UserError(f"data.dataset: {path} is damaged or no .npz file: write it with np.savez")
    try:
        with np.load(path, allow_pickle=False) as file:
            if missing := [k for k in NPZ_KEYS if k not in file]:
                raise UserError(f"data.dataset: {path} lacks {', '.join(missing)}: save them under these names")
            x_train, y_train, x_test, y_test = (file[k] for k in NPZ_KEYS)
    except UserError:
        raise
    except Exception as error:  # a damaged file makes zipfile, zlib and NumPy raise almost anything
        raise UserError(
            f"data.dataset: {path} is damaged or holds more than numbers: write it anew with np.savez ({_line(error)})"
        ) from None
    return Split(x_train, y_train), Split(x_test, y_test)


def _line(error: Exception) -> str:
    """An error of another library, cut to one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _tfds(name: str, data_dir: str | None) -> tuple[Split, Split]:
    """The splits "train" and "test" of a prepared set."""
    builder, root = _builder(name, data_dir)
    there = [name for name, split in builder.info.splits.items() if split.num_examples]
    if absent := [s for s in ("train", "test") if s not in there]:
        found = ", ".join(there) or "none"
        raise UserError(f"data.dataset: {name!r} has no images in {absent[0]!r} (only {found}): save it as an .npz")
    image, label = _keys(name, builder.info.features)
    try:
        train, test = (_read(builder.as_data_source(split=s), image, label) for s in ("train", "test"))
    except NotImplementedError:  # the format has no random access
        found = builder.info.file_format.name
        raise UserError(f"data.dataset: {name!r} in {root} is {found}: {AGAIN}") from None
    except Exception as error:
        raise UserError(f"data.dataset: {name!r} in {root} cannot be read: {AGAIN} ({_line(error)})") from None
    return train, test


def _builder(name: str, data_dir: str | None) -> tuple[Any, Any]:
    """What reads a prepared set, and the directory it lies in.

    Made from the set's files alone: ``tfds.data_source`` would import the set's own code, which may want TensorFlow,
    insist on another version, or download.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.read_only_builder import builder_from_files

    try:
        root = tfds.core.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
        exists = root.is_dir()
        there = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name != "downloads") if exists else []
    except Exception as error:  # of whatever serves a remote file system
        raise UserError(f"data.data_dir: {data_dir} cannot be listed: check it ({_line(error)})") from None
    if data_dir is not None and not exists:
        raise UserError(f"data.data_dir: {data_dir} is no directory: give the one with the prepared sets")
    try:
        return builder_from_files(name, data_dir=root), root
    except tfds.core.DatasetNotFoundError:
        found = f"there is {', '.join(there[:8])}{', ...' if len(there) > 8 else ''}" if there else "nothing is there"
        hint = 'set data.data_dir to where it is, or use "digits" or the path of an .npz'
        if (folder := name.split("/")[0].split(":")[0]) in there:
            inside = sorted(p.name for p in (root / folder).iterdir())
            found = f"{folder} holds {', '.join(inside[:8]) or 'nothing'}"
            hint = f'name it as "set/config:version", or {AGAIN}'
        raise UserError(f"data.dataset: {name!r} is not prepared in {root} ({found}): {hint}") from None
    except Exception as error:
        raise UserError(f"data.dataset: {name!r} in {root} cannot be read: {AGAIN} ({_line(error)})") from None


def _keys(name: str, features: Any) -> tuple[str, str]:
    """The names of the image and the label among a set's features: the usual ones, or the only ones that fit."""
    from tensorflow_datasets import features as kinds

    def is_image(f):
        return isinstance(f, kinds.Image | kinds.Tensor) and len(f.shape) in (2, 3)

    def is_label(f):
        return isinstance(f, kinds.Tensor) and f.shape == () and np.issubdtype(f.np_dtype, np.integer)  # type: ignore

    def key(usual, *tests):
        if usual in features and tests[0](features[usual]):
            return usual
        fits = ([k for k, f in features.items() if test(f)] for test in tests)
        return next((keys[0] for keys in fits if len(keys) == 1), None)

    image, label = key("image", is_image), key("label", is_label, lambda f: isinstance(f, kinds.ClassLabel))
    if image is None or label is None:
        found = ", ".join(sorted(features))
        raise UserError(f"data.dataset: {name!r} has {found}, not one image and one label: save these as an .npz")
    if None in features[image].shape:
        raise UserError(f"data.dataset: the images of {name!r} vary in size: save them in one size as an .npz")
    return image, label


def _read(source: Any, image: str, label: str) -> Split:
    xs, ys = [], []
    for start in range(0, len(source), CHUNK):
        examples = source.__getitems__(range(start, min(start + CHUNK, len(source))))
        xs.append(np.stack([e[image] for e in examples]))
        ys.append([e[label] for e in examples])
    return Split(np.concatenate(xs), np.concatenate(ys))


def _check(name: str, train: Split, test: Split) -> tuple[Split, Split, int]:
    """The splits in standard shapes and dtypes, and the number of classes."""
    where = f"data.dataset: {name}:"
    train, test = _check_split(where, "train", train), _check_split(where, "test", test)
    shapes = [s.x_NxHxWxC.shape[1:] for s in (train, test)]
    if shapes[0] != shapes[1]:
        raise UserError(f"{where} images of x_train are {shapes[0]}, of x_test {shapes[1]}: make them one size")
    dtypes = [s.x_NxHxWxC.dtype for s in (train, test)]
    if dtypes[0] != dtypes[1]:
        raise UserError(f"{where} x_train is {dtypes[0]}, x_test {dtypes[1]}: save both in one dtype and range")
    seen, last = np.unique(train.y_N), int(train.y_N.max())
    if len(seen) != last + 1:
        raise UserError(f"{where} y_train goes up to {last} but has {len(seen)} labels: number the classes from 0")
    if len(seen) < 2:
        raise UserError(f"{where} y_train has one class: at least two are needed")
    if test.y_N.max() > last:
        raise UserError(f"{where} y_test has label {test.y_N.max()}, y_train only up to {last}: drop what it lacks")
    return train, test, len(seen)


def _check_split(where: str, part: str, split: Split) -> Split:
    x, y = split
    x = x[..., None] if x.ndim == 3 else x
    if x.ndim != 4:
        raise UserError(f"{where} x_{part} has shape {x.shape}: save it as NxHxW or NxHxWxC")
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise UserError(f"{where} y_{part} is {y.dtype} of shape {y.shape}: save one integer per image")
    if len(x) != len(y):
        raise UserError(f"{where} x_{part} has {len(x)} images, y_{part} {len(y)} labels: save one label per image")
    if x.size == 0:
        raise UserError(f"{where} x_{part} has shape {x.shape} and so no pixels: save at least one image")
    if not 0 <= y.min() <= y.max() < 2**31:
        raise UserError(f"{where} y_{part} has labels from {y.min()} to {y.max()}: number the classes from 0")
    if not (np.issubdtype(x.dtype, np.floating) or np.issubdtype(x.dtype, np.integer)):
        raise UserError(f"{where} x_{part} is {x.dtype}: save it as uint8 or float32")
    if x.dtype != np.uint8:
        with np.errstate(over="ignore"):  # the next line tells
            x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise UserError(f"{where} x_{part} has NaN or infinite pixels as float32: replace them")
    return Split(x, y.astype(np.int32))


def batch_order(key: jax.Array, size: int, batch: int, steps: int, start: jax.Array | int) -> jax.Array:
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
        raise UserError(f"train.batch: {batch} times {size} training images must be below 2^31: lower it")
    # Epoch and offset of image start * batch, a product that may not fit int32: ``size`` steps are ``batch`` epochs.
    cycle, within = start // size, start % size * batch
    first_epoch, offset = cycle * batch + within // size, within % size
    epochs = -(-steps * batch // size) + 1

    def permutation(epoch):
        return jax.random.permutation(jax.random.fold_in(key, epoch), jnp.arange(size, dtype=jnp.int32))

    # Not a vmap: under one, some of JAX's generators give a key other numbers.
    stream = jax.lax.map(permutation, first_epoch + jnp.arange(epochs, dtype=jnp.int32)).ravel()
    return jax.lax.dynamic_slice(stream, (offset,), (steps * batch,)).reshape(steps, batch)


def normalise(x_BxHxWxC: jax.Array, mean_C: jax.Array, std_C: jax.Array) -> jax.Array:
    """Shift and scale each channel by a dataset's moments, from uint8 or float to float32."""
    return (x_BxHxWxC.astype(jnp.float32) - mean_C[None, None, None]) / std_C[None, None, None]


def augment(key: jax.Array, x_BxHxWxC: jax.Array, pad: int, flip: bool) -> jax.Array:
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
        x_BxHxWxC = jax.vmap(lambda x, c: jax.lax.dynamic_slice(x, (c[0], c[1], 0), shape))(padded, corner_Bx2)
    if flip:
        flip_B = jax.random.bernoulli(flip_key, shape=(B,))
        x_BxHxWxC = jnp.where(flip_B[:, None, None, None], x_BxHxWxC[:, :, ::-1], x_BxHxWxC)
    return x_BxHxWxC
