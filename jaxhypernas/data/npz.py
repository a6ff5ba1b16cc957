"""Images in an ``.npz``, under the names that people give to the arrays."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxhypernas.data import memory
from jaxhypernas.data.errors import one_line
from jaxhypernas.data.splits import Source, Split
from jaxhypernas.types import UserError

PARTS = {
    "train": ("train", "training"),
    "valid": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Words for each part of a set."""

_IMAGES = ("x", "image", "images", "data")
_LABELS = ("y", "label", "labels", "target", "targets")


def read(path: Path) -> Source:
    """Reads the arrays of an ``.npz``, unchecked.

    Names are a word for the part and one for its content, in either order, such as
    ``x_train`` (Keras) or ``val_labels`` (MedMNIST).

    Args:
        path: The file.

    Raises:
        UserError: It is no ``.npz`` of training and test images, or too large.
    """
    if not path.is_file():
        raise UserError(
            f"data.dataset: {path} does not exist: give the path of an .npz file"
        )
    if not zipfile.is_zipfile(path):
        raise UserError(
            f"data.dataset: {path} is damaged or no .npz file: write it with np.savez"
        )
    memory.check(f"data.dataset: {path}", _bytes(path))
    # A damaged file makes zipfile, zlib and NumPy raise almost anything.
    try:
        with np.load(path, allow_pickle=False) as file:
            place_of = _places(path, file.files)
            arrays = {place: file[key] for place, key in place_of.items()}
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"data.dataset: {path} is damaged or holds more than numbers: write it "
            f"anew with np.savez ({one_line(error)})"
        ) from None

    def split(part: str) -> Split:
        return Split(arrays[part, "x"], arrays[part, "y"])

    valid = split("valid") if ("valid", "x") in arrays else None
    return Source(split("train"), valid, split("test"))


def _places(path: Path, keys: list[str]) -> dict[tuple[str, str], str]:
    """The array of each (part, "x" or "y")."""
    place_of: dict[tuple[str, str], str] = {}
    for key in keys:
        words = key.lower().split("_")
        part = next(
            (p for p, names in PARTS.items() if {*names} & {*words}), ""
        )
        content = "x" if {*_IMAGES} & {*words} else ""
        content = "y" if {*_LABELS} & {*words} else content
        if len(words) != 2 or not part or not content:
            continue
        if (part, content) in place_of:
            raise UserError(
                f"data.dataset: {path} has both {place_of[part, content]} and {key}: "
                "leave one out"
            )
        place_of[part, content] = key

    wanted = [(part, c) for part in ("train", "test") for c in "xy"]
    if ("valid", "x") in place_of or ("valid", "y") in place_of:
        wanted += [("valid", "x"), ("valid", "y")]
    missing = [
        f"{c}_{part}" for part, c in wanted if (part, c) not in place_of
    ]
    if missing:
        there = ", ".join(keys)[:120] or "nothing"
        raise UserError(
            f"data.dataset: {path} lacks {', '.join(missing)} (there is {there}): save "
            "them under these names"
        )
    return place_of


def _bytes(path: Path) -> int:
    """Bytes of all arrays in memory, as their headers say."""
    total = 0
    try:
        with zipfile.ZipFile(path) as file:
            for name in file.namelist():
                with file.open(name) as member:
                    total += _bytes_of(member)
    except Exception as error:
        raise UserError(
            f"data.dataset: {path} is damaged or no .npz file: write it anew with "
            f"np.savez ({one_line(error)})"
        ) from None
    return total


def _bytes_of(member: Any) -> int:
    version = np.lib.format.read_magic(member)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read_header(member)
    number = 1
    for length in shape:
        number *= length
    return number * dtype.itemsize
