"""Pictures in one folder per class, with or without a folder per part above them."""

from pathlib import Path

import numpy as np

from jaxhypernas.data import pictures
from jaxhypernas.data.npz import PARTS
from jaxhypernas.data.pictures import Picture
from jaxhypernas.data.splits import Source, Split
from jaxhypernas.types import UserError

SUFFIXES = (".png", ".jpg", ".jpeg")
"""Suffixes of pictures, in lower case."""


def find(root: Path) -> dict[str, dict[str, list[Path]]] | None:
    """Finds the pictures of each class of each part.

    Args:
        root: The directory.

    Returns:
        For each part, for each class, its pictures; without folders of parts, all is
        in the part "train". None if there is no picture in a folder of its class.
    """
    part_of = {name: part for part, names in PARTS.items() for name in names}
    folders = _folders(root)
    parts = {}
    for folder in folders:
        part = part_of.get(folder.name.lower())
        classes = _classes(folder)
        if part is not None and classes:
            parts[part] = classes
    if not parts:
        classes = _classes(root)
        parts = {"train": classes} if classes else {}
    return parts or None


def read(root: Path, parts: dict[str, dict[str, list[Path]]]) -> Source:
    """Reads the pictures that `find` found.

    Args:
        root: The directory, for messages.
        parts: The result of `find`.

    Raises:
        UserError: There are no training pictures, a class is only in another part, or
            pictures cannot be read or vary in size.
    """
    where = f"data.dataset: {root}:"
    if "train" not in parts:
        raise UserError(f"{where} there is no folder train")
    names = sorted(parts["train"])
    for part, classes in parts.items():
        if unknown := set(classes) - set(names):
            raise UserError(
                f"{where} class {min(unknown)} is in {part} but not in train"
            )
    read_of = {
        part: _read(where, root, classes, names)
        for part, classes in parts.items()
    }
    return Source(
        read_of["train"],
        read_of.get("valid"),
        read_of.get("test"),
        tuple(names),
    )


def _read(
    where: str,
    root: Path,
    classes: dict[str, list[Path]],
    names: list[str],
) -> Split:
    found = [
        (path, label)
        for label, name in enumerate(names)
        for path in classes.get(name, [])
    ]
    x_NxHxWxC = pictures.read(
        where,
        [
            Picture(
                str(path.relative_to(root)), lambda path=path: path.open("rb")
            )
            for path, _ in found
        ],
    )
    return Split(x_NxHxWxC, np.array([label for _, label in found], np.int32))


def _classes(folder: Path) -> dict[str, list[Path]]:
    """The pictures of each folder in this one."""
    found = {each.name: _pictures(each) for each in _folders(folder)}
    return {name: paths for name, paths in found.items() if paths}


def _folders(folder: Path) -> list[Path]:
    return sorted(
        each
        for each in folder.iterdir()
        if each.is_dir() and not each.name.startswith(".")
    )


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        each
        for each in folder.iterdir()
        if each.suffix.lower() in SUFFIXES and not each.name.startswith(".")
    )
