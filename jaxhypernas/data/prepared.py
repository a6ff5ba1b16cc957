"""Image sets that tensorflow-datasets has prepared as array_record files.

They are read without TensorFlow, and nothing is downloaded.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxhypernas.data.errors import PREPARE_AGAIN, one_line, unreadable
from jaxhypernas.data.splits import Stored
from jaxhypernas.types import UserError


def stored_splits(
    name: str, data_dir: str | None, splits: tuple[str, ...]
) -> tuple[list[Stored], int | None, tuple[str, ...] | None]:
    """Opens splits of a prepared set. No image is read yet.

    Args:
        name: The set, as in "cifar10" or "name/config:1.0.0".
        data_dir: Directory of prepared sets; None: the default of
            tensorflow-datasets.
        splits: Names of the splits.

    Returns:
        The splits, and the number of classes and their names, each None where the set
        does not know it.

    Raises:
        UserError: The set or a split cannot be found or opened, or its rows are not
            one image of a fixed size and one label.
    """
    builder, root = _builder(name, data_dir)
    found = [
        split
        for split, info in builder.info.splits.items()
        if info.num_examples
    ]
    absent = [split for split in splits if split not in found]
    if absent:
        listed = ", ".join(found) or "none"
        raise UserError(
            f"data.dataset: {name!r} has no images in {absent[0]!r} (only {listed}): "
            "save it as an .npz"
        )

    features = builder.info.features
    image, label = _keys(name, features)
    where = f"{name!r} in {root}"
    try:
        sources = [builder.as_data_source(split=split) for split in splits]
    except NotImplementedError:
        # The format has no random access.
        raise UserError(
            f"data.dataset: {where} is {builder.info.file_format.name}: {PREPARE_AGAIN}"
        ) from None
    except Exception as error:
        raise unreadable(where, error) from None

    stored = [
        Stored(where, source, image, label, np.arange(len(source)))
        for source in sources
    ]
    classes = getattr(features[label], "num_classes", None)
    names = getattr(features[label], "names", None)
    return stored, classes, tuple(names) if names else None


def _builder(name: str, data_dir: str | None) -> tuple[Any, Any]:
    """The reader of a prepared set, and the directory of prepared sets.

    The reader is made from the set's files alone: ``tfds.data_source`` would import
    the set's own code, which may want TensorFlow, insist on another version, or
    download.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.read_only_builder import builder_from_files

    # A remote file system may raise anything.
    try:
        root = tfds.core.Path(data_dir or tfds.core.constants.DATA_DIR)
        root = root.expanduser()
        exists = root.is_dir()
        sets = _set_names(root) if exists else []
    except Exception as error:
        raise UserError(
            f"data.data_dir: {data_dir} cannot be listed: check it ({one_line(error)})"
        ) from None
    if data_dir is not None and not exists:
        raise UserError(
            f"data.data_dir: {data_dir} is no directory: give the one with the "
            "prepared sets"
        )

    try:
        return builder_from_files(name, data_dir=root), root
    except tfds.core.DatasetNotFoundError:
        raise _not_prepared(name, root, sets) from None
    except Exception as error:
        raise unreadable(f"{name!r} in {root}", error) from None


def _set_names(root: Any) -> list[str]:
    """Names of the sets that a directory holds."""
    folders = [path.name for path in root.iterdir() if path.is_dir()]
    return sorted(name for name in folders if name != "downloads")


def _not_prepared(name: str, root: Any, sets: list[str]) -> UserError:
    """The error for a set that is not there; it names the sets or versions there."""
    folder = name.split("/")[0].split(":")[0]
    if folder in sets:
        inside = sorted(path.name for path in (root / folder).iterdir())
        found = f"{folder} holds {_listed(inside) or 'nothing'}"
        fix = f'name it as "set/config:version", or {PREPARE_AGAIN}'
    else:
        found = f"there is {_listed(sets)}" if sets else "nothing is there"
        fix = 'set data.data_dir to where it is, or use "digits" or the path of an .npz'
    return UserError(
        f"data.dataset: {name!r} is not prepared in {root} ({found}): {fix}"
    )


def _listed(names: list[str]) -> str:
    """The first eight names."""
    more = ", ..." if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def _keys(name: str, features: Any) -> tuple[str, str]:
    """Keys of a row's image and label: the usual keys, or the only keys that fit."""
    from tensorflow_datasets import features as kinds

    def is_image(feature: Any) -> bool:
        is_array = isinstance(feature, kinds.Image | kinds.Tensor)
        return is_array and len(feature.shape) in (2, 3)

    def is_label(feature: Any) -> bool:
        is_scalar = isinstance(feature, kinds.Tensor) and feature.shape == ()
        return is_scalar and np.issubdtype(feature.np_dtype, np.integer)

    def is_class_label(feature: Any) -> bool:
        return isinstance(feature, kinds.ClassLabel)

    image = _key(features, "image", is_image)
    label = _key(features, "label", is_label, is_class_label)
    if image is None or label is None:
        found = ", ".join(sorted(features))
        raise UserError(
            f"data.dataset: {name!r} has {found}, not one image and one label: save "
            "these as an .npz"
        )
    if None in features[image].shape:
        raise UserError(
            f"data.dataset: the images of {name!r} vary in size: save them in one size "
            "as an .npz"
        )
    return image, label


def _key(
    features: Any, usual: str, *tests: Callable[[Any], bool]
) -> str | None:
    """The usual key if it passes the first test, or the only key that passes a test.

    Later tests are tried only where an earlier one does not leave exactly one key.
    """
    if usual in features and tests[0](features[usual]):
        return usual
    for test in tests:
        passing = [key for key, feature in features.items() if test(feature)]
        if len(passing) == 1:
            return passing[0]
    return None
