"""Sources of images: scikit-learn's digits, a user's ``.npz``, or a prepared set.

`in_memory` reads a whole set; `on_disk` opens a prepared set to read row by row.
"""

import zipfile
from pathlib import Path

import numpy as np

from jaxhypernas.data import checks, prepared
from jaxhypernas.data.errors import one_line
from jaxhypernas.data.splits import Split, Stored
from jaxhypernas.types import UserError

NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
"""Names of the arrays of an ``.npz``."""


def in_memory(name: str, data_dir: str | None) -> tuple[Split, Split, int]:
    """Reads and checks a whole set.

    Args:
        name: "digits", the path of an ``.npz``, or the name of a prepared set.
        data_dir: Directory of prepared sets; None: the default of
            tensorflow-datasets.

    Returns:
        The training images, the test images and the number of classes.

    Raises:
        UserError: The set cannot be found or read, or is not image classification of
            one image size.
    """
    if name == "digits":
        train, test = _digits()
    elif _is_npz(name):
        train, test = _npz(Path(name).expanduser())
    else:
        stored, _ = prepared.stored_splits(name, data_dir, ("train", "test"))
        train, test = (split.everything() for split in stored)

    where = f"data.dataset: {name}:"
    train = Split(*checks.check_images(where, "train", *train))
    test = Split(*checks.check_images(where, "test", *test))
    checks.check_test_images(where, train.x_NxHxWxC, test.x_NxHxWxC)
    return train, test, checks.check_classes(where, train.y_N, test.y_N)


def on_disk(name: str, data_dir: str | None) -> tuple[Stored, int] | None:
    """Opens the training split of a prepared set.

    Args:
        name: As for `in_memory`.
        data_dir: As for `in_memory`.

    Returns:
        The split and the number of classes; None for sets that are not prepared sets,
        which can only be read as a whole.

    Raises:
        UserError: As `in_memory`, or the set does not know its number of classes.
    """
    if name == "digits" or _is_npz(name):
        return None
    (train,), classes = prepared.stored_splits(name, data_dir, ("train",))
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
    # From 0 .. 16 to 0 .. 255.
    x = (x.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
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
    # A damaged file makes zipfile, zlib and NumPy raise almost anything.
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in NPZ_KEYS if key not in file]
            arrays = [file[key] for key in NPZ_KEYS if not missing]
    except Exception as error:
        raise UserError(
            f"data.dataset: {path} is damaged or holds more than numbers: write it "
            f"anew with np.savez ({one_line(error)})"
        ) from None
    if missing:
        raise UserError(
            f"data.dataset: {path} lacks {', '.join(missing)}: save them under these "
            "names"
        )
    x_train, y_train, x_test, y_test = arrays
    return Split(x_train, y_train), Split(x_test, y_test)
