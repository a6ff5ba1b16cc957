"""Writes an image set as tensorflow-datasets prepares one, without TensorFlow.

The set is then read row by row, streamed, or read by several hosts (`prepared`). Its
files are ArrayRecord, which has random access. They are written into
``NAME/VERSION.incomplete``, which gets its name when all of them are there.
"""

import io
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxhypernas.data.splits import Split

VERSION = "1.0.0"
"""Version of the sets that are written."""

SHARD_IMAGES = 4096
"""Images of a file; a stopped command loses at most those of one."""


def write(
    data_dir: Path,
    name: str,
    splits: Mapping[str, Split],
    class_names: Sequence[str],
    observe: Callable[[int, int], None] = lambda images, work: None,
) -> Path:
    """Writes a set; a call that was stopped goes on where it was.

    Args:
        data_dir: Directory of prepared sets.
        name: Name of the set: lower-case letters, digits and underscores.
        splits: The images of each split, all of one shape and type. uint8 images of 1,
            3 or 4 channels are written as PNG, others as arrays; no value changes.
        class_names: A name for each class.
        observe: ``observe(images, written)``: called after each file with its number of
            images, and how many of them were not there before.

    Returns:
        The directory of the set.

    Raises:
        OSError: A file cannot be written.
    """
    done = data_dir / name / VERSION
    if done.exists():
        return done
    unfinished = done.with_name(f"{VERSION}.incomplete")
    unfinished.mkdir(parents=True, exist_ok=True)

    features = _features(next(iter(splits.values())), class_names)
    infos = []
    for split, images in splits.items():
        starts = range(0, images.size, SHARD_IMAGES)
        sizes = []
        for index, start in enumerate(starts):
            part = images.take(
                np.arange(start, min(start + SHARD_IMAGES, images.size))
            )
            place = f"{index:05d}-of-{len(starts):05d}"
            path = unfinished / f"{name}-{split}.array_record-{place}"
            written = _write_shard(path, part, features)
            sizes.append((part.size, path.stat().st_size))
            observe(part.size, written)
        infos.append(_split_info(split, sizes))

    features.save_metadata(str(unfinished))
    features.save_config(str(unfinished))
    info = {
        "fileFormat": "array_record",
        "moduleName": __name__,
        "name": name,
        "splits": infos,
        "supervisedKeys": {
            "tuple": {
                "items": [{"featureKey": "image"}, {"featureKey": "label"}]
            }
        },
        "version": VERSION,
    }
    text = json.dumps(info, indent=2)
    (unfinished / "dataset_info.json").write_text(text)
    for path in unfinished.glob("*.crc"):
        path.unlink()
    unfinished.rename(done)
    return done


def _features(images: Split, class_names: Sequence[str]) -> Any:
    """How tensorflow-datasets describes a row."""
    import tensorflow_datasets as tfds

    shape = images.x_NxHxWxC.shape[1:]
    dtype = images.x_NxHxWxC.dtype
    if dtype == np.uint8 and shape[-1] in (1, 3, 4):
        image = tfds.features.Image(shape=shape, encoding_format="png")
    else:
        image = tfds.features.Tensor(shape=shape, dtype=dtype)
    label = tfds.features.ClassLabel(names=list(class_names))
    return tfds.features.FeaturesDict({"image": image, "label": label})


def _split_info(name: str, sizes: list[tuple[int, int]]) -> dict[str, Any]:
    return {
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "name": name,
        "numBytes": str(sum(number for _, number in sizes)),
        "shardLengths": [str(images) for images, _ in sizes],
    }


def _write_shard(path: Path, images: Split, features: Any) -> int:
    """Writes a file unless it is there; returns how many images were written."""
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.core import example_serializer

    # A file of another source, or of the source before it changed, is written anew.
    crc = f"{_checksum(images):08x}"
    noted = path.with_name(f"{path.name}.crc")
    if path.exists() and noted.exists() and noted.read_text() == crc:
        return 0

    serializer = example_serializer.ExampleSerializer(
        features.get_serialized_info()
    )
    is_png = "Image" in type(features["image"]).__name__
    noted.unlink(missing_ok=True)
    # "group_size:1" makes each row readable alone, as tensorflow-datasets wants it.
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for x_HxWxC, y in zip(images.x_NxHxWxC, images.y_N, strict=True):
        row = {
            "image": _png(x_HxWxC) if is_png else x_HxWxC,
            "label": np.int64(y),
        }
        writer.write(serializer.serialize_example(row))
    writer.close()
    noted.write_text(crc)
    return images.size


def _checksum(images: Split) -> int:
    labels = zlib.crc32(np.ascontiguousarray(images.y_N).data)
    return zlib.crc32(np.ascontiguousarray(images.x_NxHxWxC).data, labels)


def _png(x_HxWxC: np.ndarray) -> bytes:
    from PIL import Image

    # Pillow wants no channel axis for grey images.
    pixels = x_HxWxC[..., 0] if x_HxWxC.shape[-1] == 1 else x_HxWxC
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()
