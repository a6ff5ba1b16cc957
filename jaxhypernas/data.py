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
NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")


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

    if config.limit is not None and config.limit < classes:
        raise UserError(f"data.limit: {config.limit} images are fewer than the {classes} classes: raise it")
    order = np.random.default_rng(seed).permutation(len(train.y_N))[: config.limit]
    held = round(len(order) * config.valid)
    if not 0 < held < len(order):
        what = "training" if held else "held-out"
        raise UserError(f"data.valid: {config.valid} of {len(order)} images leaves no {what} image: change it")
    valid, train = (Split(train.x_NxHxWxC[i], train.y_N[i]) for i in (order[:held], order[held:]))
    return Dataset(config.dataset, classes, train, valid, test, *_moments(train.x_NxHxWxC))


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
    import tensorflow_datasets as tfds

    builder, root = _builder(name, data_dir)
    if absent := [s for s in ("train", "test") if s not in builder.info.splits]:
        there = ", ".join(builder.info.splits) or "none"
        raise UserError(f"data.dataset: {name!r} has no split {absent[0]!r} (there is {there}): save it as an .npz")
    keys = _keys(name, builder.info.features)
    try:
        sources = [builder.as_data_source(split=s) for s in ("train", "test")]
    except NotImplementedError:
        is_in = builder.info.file_format.name
        raise UserError(
            f'data.dataset: {name!r} in {root} is {is_in}: prepare it again with file_format="array_record"'
        ) from None
    except Exception as error:
        raise UserError(
            f"data.dataset: {name!r} in {root} cannot be read: prepare it again ({_line(error)})"
        ) from None
    decoders = tfds.decode.PartialDecoding(dict.fromkeys(keys, True))
    del decoders
    try:
        train, test = (_read(source, *keys) for source in sources)
    except Exception as error:
        raise UserError(
            f"data.dataset: {name!r} in {root} cannot be read: prepare it again ({_line(error)})"
        ) from None
    return train, test
