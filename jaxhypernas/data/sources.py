"""Sources of images: files of one's own, scikit-learn's digits, or a prepared set.

`in_memory` reads a whole set; `on_disk` opens a prepared set to read row by row.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from jaxhypernas.data import arrow, checks, folders, npz, prepared
from jaxhypernas.data.splits import Source, Split, Stored, stratified
from jaxhypernas.types import UserError

TEST_SHARE = 0.2
"""Share of the images of each class that are for testing where a set keeps none."""


def in_memory(
    name: str,
    data_dir: str | None,
    limit: int | None = None,
    seed: int = 0,
) -> tuple[Source, int]:
    """Reads and checks a whole set.

    Args:
        name: "digits", the path of an ``.npz``, of a directory of pictures or of a set
            of Hugging Face, or the name of a prepared set.
        data_dir: Directory of prepared sets; None: the default of
            tensorflow-datasets.
        limit: Number of training images that are used; of a prepared set, the others
            are not decoded.
        seed: Decides which these are.

    Returns:
        The parts, with test images, and the number of classes.

    Raises:
        UserError: The set cannot be found or read, or is not image classification of
            one image size.
    """
    where = f"data.dataset: {name}:"
    read = _reader(name, data_dir)
    if read is not None:
        return checked(where, read())
    return checked(where, *_prepared(name, data_dir, limit, seed))


def checked(
    where: str, source: Source, known: int | None = None
) -> tuple[Source, int]:
    """Checks the parts of a set, and keeps test images apart where it has none.

    Args:
        where: Beginning of messages: the field and the set.
        source: The parts, unchecked.
        known: The number of classes, if the set knows it.

    Returns:
        The parts, with test images, and the number of classes.

    Raises:
        UserError: The set is not image classification of one image size.
    """
    train = Split(*checks.check_images(where, "train", *source.train))
    others = {}
    for part, split in (("valid", source.valid), ("test", source.test)):
        if split is not None:
            others[part] = Split(*checks.check_images(where, part, *split))
            checks.check_alike(
                where, part, train.x_NxHxWxC, others[part].x_NxHxWxC
            )
    labels = {part: split.y_N for part, split in others.items()}
    if source.class_names is not None:
        known = len(source.class_names)
    classes = checks.check_classes(where, train.y_N, labels, known)

    test = others.get("test")
    if test is None:
        number = round(train.size * TEST_SHARE)
        rng = np.random.default_rng(0)
        chosen, kept = stratified(train.y_N, number, rng)
        train, test = train.take(kept), train.take(chosen)
    found = source._replace(train=train, valid=others.get("valid"), test=test)
    return found, classes


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
    if _reader(name, data_dir) is not None:
        return None
    (train,), classes, _ = prepared.stored_splits(name, data_dir, ("train",))
    if classes is None:
        raise UserError(
            f"data.stream: {name!r} doesn't tell its number of classes: set it to False"
        )
    return train, classes


def _reader(name: str, data_dir: str | None) -> Callable[[], Source] | None:
    """What reads a set of one's own, or the digits; None: it is a prepared set."""
    if name == "digits":
        return _digits
    path = Path(name).expanduser()
    if name.endswith(".npz") or path.is_file():
        return partial(npz.read, path)
    # A directory under a bare name may be a prepared set of that name.
    is_place = "/" in name or data_dir is None
    if not name or not is_place or not path.is_dir():
        return None
    if arrow.is_saved(path):
        return partial(arrow.read, path)
    parts = folders.find(path)
    if parts is not None:
        return partial(folders.read, path, parts)
    if data_dir is not None or not path.is_absolute():
        return None
    raise UserError(_not_understood(path))


def _not_understood(path: Path) -> str:
    if any(path.glob("**/features.json")):
        return (
            f"data.dataset: {path} is of tensorflow-datasets: give its name, and the "
            "directory above it with --data-dir"
        )
    return (
        f"data.dataset: {path} is not understood: it has no folders of "
        f"{', '.join(folders.SUFFIXES)} (CLASS/ or train/CLASS/), and no state.json or "
        "dataset_dict.json of Hugging Face's save_to_disk"
    )


def _prepared(
    name: str, data_dir: str | None, limit: int | None, seed: int
) -> tuple[Source, int | None]:
    """Reads a prepared set; of the training images, those that are used."""
    (train, test), classes, names = prepared.stored_splits(
        name, data_dir, ("train", "test")
    )
    if limit is not None and limit < train.size:
        order = np.random.default_rng(seed).permutation(train.size)
        train = train._replace(index_N=order[:limit])
    source = Source(train.everything(), None, test.everything(), names)
    return source, classes


def _digits() -> Source:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    # From 0 .. 16 to 0 .. 255.
    x = (x.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=0.2, random_state=0, stratify=y
    )
    return Source(Split(x_train, y_train), None, Split(x_test, y_test))
