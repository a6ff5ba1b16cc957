"""Where images come from, read into memory or row by row, and checked.

Scikit-learn's handwritten digits (nothing to download), a user's ``.npz``, and any image classification set that
tensorflow-datasets has prepared in the array_record format, read without TensorFlow.
"""

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxhypernas.types import UserError

CHUNK = 2048  # images read at once
AGAIN = (
    'prepare it again with file_format="array_record", or save it as an .npz'
)
NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")


class Split(NamedTuple):
    """Images and their labels."""

    x_NxHxWxC: np.ndarray  # uint8 or float32
    y_N: np.ndarray  # int32, 0 .. classes - 1

    @property
    def size(self) -> int:
        """How many."""
        return len(self.y_N)

    def take(self, index_B: np.ndarray) -> "Split":
        """Some of them."""
        return Split(self.x_NxHxWxC[index_B], self.y_N[index_B])


class Stored(NamedTuple):
    """Images of a prepared set that stay on disk until they are taken, by any number of threads."""

    where: str  # the set and its directory
    source: Any  # random access by row
    image: str  # what a row calls its image
    label: str
    index_N: np.ndarray  # the rows that belong to it

    @property
    def size(self) -> int:
        """How many."""
        return len(self.index_N)

    def take(self, index_B: np.ndarray) -> Split:
        """Read some of them, each an index in 0 .. size - 1.

        Raises:
            UserError: they cannot be read, or are not what `Split` takes.
        """
        return _check_split(
            f"data.dataset: {self.where}:",
            "train",
            self._read(self.index_N[index_B]),
        )

    def _read(self, row_B: np.ndarray) -> Split:
        xs, ys = [], []
        try:
            for start in range(0, len(row_B), CHUNK):
                examples = self.source.__getitems__(
                    row_B[start : start + CHUNK].tolist()
                )
                xs.append(np.stack([e[self.image] for e in examples]))
                ys.append([e[self.label] for e in examples])
            return Split(np.concatenate(xs), np.concatenate(ys))
        except Exception as error:
            raise _unreadable(self.where, error) from None

    def everything(self) -> Split:
        """Read all, unchecked."""
        return self._read(self.index_N)


def in_memory(name: str, data_dir: str | None) -> tuple[Split, Split, int]:
    """The training and test split of a set, and its number of classes.

    Raises:
        UserError: the set cannot be found or read, or is not image classification of one image size.
    """
    path = Path(name).expanduser()
    if name == "digits":
        train, test = _digits()
    elif _is_npz(name):
        train, test = _npz(path)
    else:
        (train, test), _ = _tfds(name, data_dir, ("train", "test"))
        train, test = train.everything(), test.everything()
    return _check(name, train, test)


def on_disk(name: str, data_dir: str | None) -> tuple[Stored, int] | None:
    """The training split of a prepared set, and its number of classes; None of other sets, which are read as a whole.

    Raises:
        UserError: as `in_memory`, or the features of the set don't tell its number of classes.
    """
    if name == "digits" or _is_npz(name):
        return None
    (train,), classes = _tfds(name, data_dir, ("train",))
    if classes is None:
        raise UserError(
            f"data.stream: {name!r} doesn't tell its number of classes: set it to False"
        )
    return train, classes


def _is_npz(name: str) -> bool:
    return name.endswith(".npz") or Path(name).expanduser().is_file()


def _digits() -> tuple[Split, Split]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x = (x.reshape(-1, 8, 8, 1) * (255 / 16)).astype(
        np.uint8
    )  # 0..16 to 0..255
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=0.2, random_state=0, stratify=y
    )
    return Split(x_train, y_train), Split(x_test, y_test)


def _npz(path: Path) -> tuple[Split, Split]:
    if not path.is_file():
        raise UserError(
            f"data.dataset: {path} does not exist: give the path of an .npz file"
        )
    if not zipfile.is_zipfile(path):
        raise UserError(
            f"data.dataset: {path} is damaged or no .npz file: write it with np.savez"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            if missing := [k for k in NPZ_KEYS if k not in file]:
                raise UserError(
                    f"data.dataset: {path} lacks {', '.join(missing)}: save them under these names"
                )
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


def _tfds(
    name: str, data_dir: str | None, splits: tuple[str, ...]
) -> tuple[list[Stored], int | None]:
    """Some splits of a prepared set, and its number of classes if its features tell."""
    builder, root = _builder(name, data_dir)
    there = [
        name
        for name, split in builder.info.splits.items()
        if split.num_examples
    ]
    if absent := [s for s in splits if s not in there]:
        found = ", ".join(there) or "none"
        raise UserError(
            f"data.dataset: {name!r} has no images in {absent[0]!r} (only {found}): save it as an .npz"
        )
    image, label = _keys(name, builder.info.features)
    where = f"{name!r} in {root}"
    try:
        sources = [builder.as_data_source(split=s) for s in splits]
    except NotImplementedError:  # the format has no random access
        raise UserError(
            f"data.dataset: {where} is {builder.info.file_format.name}: {AGAIN}"
        ) from None
    except Exception as error:
        raise _unreadable(where, error) from None
    found = [
        Stored(where, source, image, label, np.arange(len(source)))
        for source in sources
    ]
    return found, getattr(builder.info.features[label], "num_classes", None)


def _unreadable(where: str, error: Exception) -> UserError:
    return UserError(
        f"data.dataset: {where} cannot be read: {AGAIN} ({_line(error)})"
    )


def _builder(name: str, data_dir: str | None) -> tuple[Any, Any]:
    """What reads a prepared set, and the directory it lies in.

    Made from the set's files alone: ``tfds.data_source`` would import the set's own code, which may want TensorFlow,
    insist on another version, or download.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.read_only_builder import builder_from_files

    try:
        root = tfds.core.Path(
            data_dir or tfds.core.constants.DATA_DIR
        ).expanduser()
        exists = root.is_dir()
        there = (
            sorted(
                p.name
                for p in root.iterdir()
                if p.is_dir() and p.name != "downloads"
            )
            if exists
            else []
        )
    except Exception as error:  # of whatever serves a remote file system
        raise UserError(
            f"data.data_dir: {data_dir} cannot be listed: check it ({_line(error)})"
        ) from None
    if data_dir is not None and not exists:
        raise UserError(
            f"data.data_dir: {data_dir} is no directory: give the one with the prepared sets"
        )
    try:
        return builder_from_files(name, data_dir=root), root
    except tfds.core.DatasetNotFoundError:
        found = (
            f"there is {', '.join(there[:8])}{', ...' if len(there) > 8 else ''}"
            if there
            else "nothing is there"
        )
        hint = 'set data.data_dir to where it is, or use "digits" or the path of an .npz'
        if (folder := name.split("/")[0].split(":")[0]) in there:
            inside = sorted(p.name for p in (root / folder).iterdir())
            found = f"{folder} holds {', '.join(inside[:8]) or 'nothing'}"
            hint = f'name it as "set/config:version", or {AGAIN}'
        raise UserError(
            f"data.dataset: {name!r} is not prepared in {root} ({found}): {hint}"
        ) from None
    except Exception as error:
        raise _unreadable(f"{name!r} in {root}", error) from None


def _keys(name: str, features: Any) -> tuple[str, str]:
    """The names of the image and the label among a set's features: the usual ones, or the only ones that fit."""
    from tensorflow_datasets import features as kinds

    def is_image(f):
        return isinstance(f, kinds.Image | kinds.Tensor) and len(f.shape) in (
            2,
            3,
        )

    def is_label(f):
        return (
            isinstance(f, kinds.Tensor)
            and f.shape == ()
            and np.issubdtype(f.np_dtype, np.integer)
        )  # type: ignore

    def key(usual, *tests):
        if usual in features and tests[0](features[usual]):
            return usual
        fits = ([k for k, f in features.items() if test(f)] for test in tests)
        return next((keys[0] for keys in fits if len(keys) == 1), None)

    image, label = (
        key("image", is_image),
        key("label", is_label, lambda f: isinstance(f, kinds.ClassLabel)),
    )
    if image is None or label is None:
        found = ", ".join(sorted(features))
        raise UserError(
            f"data.dataset: {name!r} has {found}, not one image and one label: save these as an .npz"
        )
    if None in features[image].shape:
        raise UserError(
            f"data.dataset: the images of {name!r} vary in size: save them in one size as an .npz"
        )
    return image, label


def _check(name: str, train: Split, test: Split) -> tuple[Split, Split, int]:
    """The splits in standard shapes and dtypes, and the number of classes."""
    where = f"data.dataset: {name}:"
    train, test = (
        _check_split(where, "train", train),
        _check_split(where, "test", test),
    )
    shapes = [s.x_NxHxWxC.shape[1:] for s in (train, test)]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"{where} images of x_train are {shapes[0]}, of x_test {shapes[1]}: make them one size"
        )
    dtypes = [s.x_NxHxWxC.dtype for s in (train, test)]
    if dtypes[0] != dtypes[1]:
        raise UserError(
            f"{where} x_train is {dtypes[0]}, x_test {dtypes[1]}: save both in one dtype and range"
        )
    seen, last = np.unique(train.y_N), int(train.y_N.max())
    if len(seen) != last + 1:
        raise UserError(
            f"{where} y_train goes up to {last} but has {len(seen)} labels: number the classes from 0"
        )
    if len(seen) < 2:
        raise UserError(
            f"{where} y_train has one class: at least two are needed"
        )
    if test.y_N.max() > last:
        raise UserError(
            f"{where} y_test has label {test.y_N.max()}, y_train only up to {last}: drop what it lacks"
        )
    return train, test, len(seen)


def _check_split(where: str, part: str, split: Split) -> Split:
    x, y = split
    x = x[..., None] if x.ndim == 3 else x
    if x.ndim != 4:
        raise UserError(
            f"{where} x_{part} has shape {x.shape}: save it as NxHxW or NxHxWxC"
        )
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise UserError(
            f"{where} y_{part} is {y.dtype} of shape {y.shape}: save one integer per image"
        )
    if len(x) != len(y):
        raise UserError(
            f"{where} x_{part} has {len(x)} images, y_{part} {len(y)} labels: save one label per image"
        )
    if x.size == 0:
        raise UserError(
            f"{where} x_{part} has shape {x.shape} and so no pixels: save at least one image"
        )
    if not 0 <= y.min() <= y.max() < 2**31:
        raise UserError(
            f"{where} y_{part} has labels from {y.min()} to {y.max()}: number the classes from 0"
        )
    if not (
        np.issubdtype(x.dtype, np.floating)
        or np.issubdtype(x.dtype, np.integer)
    ):
        raise UserError(
            f"{where} x_{part} is {x.dtype}: save it as uint8 or float32"
        )
    if x.dtype != np.uint8:
        with np.errstate(over="ignore"):  # the next line tells
            x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise UserError(
                f"{where} x_{part} has NaN or infinite pixels as float32: replace them"
            )
    return Split(x, y.astype(np.int32))
