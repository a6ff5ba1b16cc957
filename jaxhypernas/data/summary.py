"""What a run has read, in two lines, and a warning for classes without images."""

import numpy as np

from jaxhypernas.data.dataset import Dataset

_MOST_NAMES = 10
"""Most names of classes that are listed."""


def lines(dataset: Dataset) -> list[str]:
    """Describes a set: images, sizes, range, classes, images per class of each part.

    Args:
        dataset: The set.

    Returns:
        Two lines, and a third one if a class lacks images in a part.
    """
    parts = {
        "training": dataset.train,
        "held-out": dataset.valid,
        "test": dataset.test,
    }
    shown = {name: split for name, split in parts.items() if split.size}
    numbers = [f"{split.size:,} {name}" for name, split in shown.items()]
    if dataset.stored is not None:
        numbers.insert(0, f"{dataset.stored.size:,} training (on disk)")
    pixels = [split.x_NxHxWxC for split in shown.values()]
    low = min(float(x.min()) for x in pixels)
    high = max(float(x.max()) for x in pixels)
    size = "x".join(map(str, dataset.image))
    dtype = dataset.valid.x_NxHxWxC.dtype
    first = (
        f"{dataset.name}: {', '.join(numbers)} images of {size}, {dtype} {low:g} to "
        f"{high:g}"
    )

    counts = {
        name: np.bincount(split.y_N, minlength=dataset.classes)
        for name, split in shown.items()
    }
    per_class = [
        f"{name} {_range(count_K)}" for name, count_K in counts.items()
    ]
    second = (
        f"{dataset.classes} classes{_named(dataset)}; images per class: "
        f"{', '.join(per_class)}"
    )
    missing = [
        f"{name} images lack class {_listed(dataset, count_K)}"
        for name, count_K in counts.items()
        if not count_K.all()
    ]
    warning = [f"warning: {'; '.join(missing)}"] if missing else []
    return [first, second, *warning]


def _range(count_K: np.ndarray) -> str:
    low, high = int(count_K.min()), int(count_K.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _named(dataset: Dataset) -> str:
    names = dataset.class_names
    if names is None:
        return ""
    more = ", ..." if len(names) > _MOST_NAMES else ""
    return f" ({', '.join(names[:_MOST_NAMES])}{more})"


def _listed(dataset: Dataset, count_K: np.ndarray) -> str:
    """The classes without images."""
    names = dataset.class_names or tuple(map(str, range(dataset.classes)))
    absent = [names[k] for k in np.flatnonzero(count_K == 0)]
    more = ", ..." if len(absent) > _MOST_NAMES else ""
    return f"{', '.join(absent[:_MOST_NAMES])}{more}"
