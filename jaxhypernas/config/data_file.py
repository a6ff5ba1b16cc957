"""What identifies a run's images, wherever they lie: data.json of a work directory."""

import json
import zlib
from typing import NamedTuple

import numpy as np
from etils.epath import Path

from jaxhypernas.data.dataset import Dataset
from jaxhypernas.data.splits import Split
from jaxhypernas.store import files
from jaxhypernas.types import ImageShape, UserError

NAME = "data.json"
"""Name of the file in a work directory."""

STORED_SAMPLE = 1000
"""Images of a set on disk that its checksum comes from."""


class Identity(NamedTuple):
    """What must be the same for images to be those that a run began with."""

    image: ImageShape
    """Shape of an image, (H, W, C)."""

    classes: int
    """Number of classes."""

    train: int
    """Number of training images."""

    valid: int
    """Number of images held out."""

    test: int
    """Number of test images."""

    checksum: str
    """CRC-32 of images and labels, 8 hexadecimal digits."""

    class_names: tuple[str, ...] | None = None
    """A name for each class; names are not compared."""


def identify(dataset: Dataset) -> Identity:
    """Computes what identifies a set.

    Args:
        dataset: The set. Of training images that stay on disk, the first ones count.
    """
    source = dataset.source
    first = dataset.train
    if dataset.stored is not None:
        number = min(STORED_SAMPLE, source.size)
        first = source.take(np.arange(number))
    splits = (first, dataset.valid, dataset.test)
    return Identity(
        dataset.image,
        dataset.classes,
        source.size,
        dataset.valid.size,
        dataset.test.size,
        _checksum(splits),
        dataset.class_names,
    )


def _checksum(splits: tuple[Split, ...]) -> str:
    value = 0
    for split in splits:
        for array in split:
            value = zlib.crc32(str(array.dtype).encode(), value)
            value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return f"{value:08x}"


def load(workdir: Path) -> Identity | None:
    """Reads what identifies the images that a run began with.

    Args:
        workdir: The work directory; it need not exist.

    Returns:
        The identity; None if the run has not begun, or was begun by a version that
        stored none.

    Raises:
        UserError: The file is damaged.
    """
    path = workdir / NAME
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text())
        height, width, channels = values.pop("image")
        names = values.pop("class_names", None)
        return Identity(
            image=(height, width, channels),
            class_names=names and tuple(names),
            **values,
        )
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(
            f"workdir: {path} is damaged ({files.one_line(error)}): put a copy back, "
            "or rename it if --dataset surely holds the images the run began with"
        ) from None


def save(workdir: Path, identity: Identity) -> None:
    """Writes what `load` reads.

    Args:
        workdir: The work directory.
        identity: What identifies the images.
    """
    text = json.dumps(identity._asdict(), indent=2)
    files.write_text(workdir / NAME, text + "\n")


def check(began: Identity, found: Identity, name: str) -> None:
    """Checks that images are those that a run began with.

    Args:
        began: What identifies the images that the run began with.
        found: What identifies the images now.
        name: Name or place of the images now.

    Raises:
        UserError: They are others.
    """
    for field, then, now in zip(began._fields, began, found, strict=True):
        if then != now and field != "class_names":
            raise UserError(
                f"data.dataset: {name} holds other images than the run began with "
                f"({field}: {now}, not {then}): give the place of the same images "
                "with --dataset, or use a new --workdir"
            )
