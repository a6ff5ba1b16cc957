"""Sets that Hugging Face's ``datasets`` saved with ``save_to_disk``, by pyarrow."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jaxhypernas.data import pictures
from jaxhypernas.data.errors import one_line
from jaxhypernas.data.npz import PARTS
from jaxhypernas.data.pictures import Picture
from jaxhypernas.data.splits import Source, Split
from jaxhypernas.types import UserError


def is_saved(root: Path) -> bool:
    """Returns whether a directory is one of ``save_to_disk``.

    Args:
        root: The directory.
    """
    return (root / "dataset_dict.json").is_file() or _is_split(root)


def read(root: Path) -> Source:
    """Reads a saved set: its column of images and its column of labels.

    Args:
        root: The directory.

    Raises:
        UserError: The files are damaged, or hold no training images with labels.
    """
    where = f"data.dataset: {root}:"
    try:
        found = _splits(root)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{where} it cannot be read ({one_line(error)})"
        ) from None
    if "train" not in found:
        raise UserError(f"{where} it has no split train")

    names = _read_names(where, found["train"])
    splits = {part: _split(where, folder) for part, folder in found.items()}
    return Source(
        splits["train"], splits.get("valid"), splits.get("test"), names
    )


def _is_split(folder: Path) -> bool:
    return (folder / "state.json").is_file() and (
        folder / "dataset_info.json"
    ).is_file()


def _splits(root: Path) -> dict[str, Path]:
    """The folder of each part."""
    if _is_split(root):
        return {"train": root}
    part_of = {name: part for part, names in PARTS.items() for name in names}
    listed = json.loads((root / "dataset_dict.json").read_text())["splits"]
    found = {}
    for name in listed:
        part = part_of.get(name.lower())
        folder = root / Path(name).name
        if part is not None and _is_split(folder):
            found[part] = folder
    return found


def _features(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "dataset_info.json").read_text())["features"]


def _columns(where: str, folder: Path) -> tuple[str, str]:
    """The names of the only image column and the only label column."""
    features = _features(folder)
    images = [k for k, v in features.items() if v.get("_type") == "Image"]
    labels = [k for k, v in features.items() if v.get("_type") == "ClassLabel"]
    if not labels:
        labels = [k for k in features if k in ("label", "labels")]
    # CIFAR-100 has fine and coarse labels.
    labels = [k for k in labels if k == "fine_label"] or labels
    if len(images) != 1 or len(labels) != 1:
        raise UserError(
            f"{where} its columns are {', '.join(features)}: one of images and one of "
            "class labels are needed"
        )
    return images[0], labels[0]


def _read_names(where: str, folder: Path) -> tuple[str, ...] | None:
    _, label = _columns(where, folder)
    names = _features(folder)[label].get("names")
    return tuple(names) if names else None


def _split(where: str, folder: Path) -> Split:
    image, label = _columns(where, folder)
    try:
        table = _table(folder).select([image, label])
        rows = table[image].to_pylist()
        y_N = np.array(table[label].to_pylist())
    except Exception as error:
        raise UserError(
            f"{where} {folder.name} cannot be read ({one_line(error)})"
        ) from None

    found = []
    for number, row in enumerate(rows):
        data = row.get("bytes") if isinstance(row, dict) else None
        if data is None:
            raise UserError(
                f"{where} image {number} of {folder.name} is not in the file: save the "
                "set with its images decoded"
            )
        name = f"image {number} of {folder.name}"
        found.append(Picture(name, lambda data=data: io.BytesIO(data)))
    return Split(pictures.read(where, found), y_N)


def _table(folder: Path) -> pa.Table:
    state = json.loads((folder / "state.json").read_text())
    tables = []
    for entry in state["_data_files"]:
        # A name that leads out of the folder is not followed.
        path = folder / Path(entry["filename"]).name
        with pa.memory_map(str(path)) as file:
            tables.append(pa.ipc.open_stream(file).read_all())
    return pa.concat_tables(tables)
