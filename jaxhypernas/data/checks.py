"""Checks of images and labels: shapes, dtypes and values that networks can train on."""

import numpy as np

from jaxhypernas.data.labels import to_integers
from jaxhypernas.types import UserError

SCALES = 50
"""Largest ratio of the largest pixels of two parts of a set."""


def check_images(
    where: str, part: str, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Checks one split and converts it to standard shapes and dtypes.

    Args:
        where: Beginning of messages: the field and the set.
        part: Name of the split in messages, "train" or "test".
        x: Images [N, H, W] or [N, H, W, C], of integers or floats.
        y: Labels: integers from 0, or what `labels.to_integers` makes such.

    Returns:
        x_NxHxWxC, uint8 or float32, and y_N, int32.

    Raises:
        UserError: A shape, a dtype or a value is of no use.
    """
    x = x[..., None] if x.ndim == 3 else x
    y = to_integers(y)
    _check_channels_last(where, part, x)
    if x.ndim != 4:
        raise UserError(
            f"{where} x_{part} has shape {x.shape}: save it as NxHxW or NxHxWxC"
        )
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise UserError(
            f"{where} y_{part} is {y.dtype} of shape {y.shape}: save one integer per "
            "image"
        )
    if len(x) != len(y):
        raise UserError(
            f"{where} x_{part} has {len(x)} images, y_{part} {len(y)} labels: save one "
            "label per image"
        )
    if x.size == 0:
        raise UserError(
            f"{where} x_{part} has shape {x.shape} and so no pixels: save at least one "
            "image"
        )
    if not 0 <= y.min() <= y.max() < 2**31:
        raise UserError(
            f"{where} y_{part} has labels from {y.min()} to {y.max()}: number the "
            "classes from 0"
        )
    return _pixels(where, part, x), y.astype(np.int32)


def _check_channels_last(where: str, part: str, x: np.ndarray) -> None:
    if x.ndim != 4:
        return
    _, first, height, width = x.shape
    if first in (1, 3, 4) and width not in (1, 3, 4) and height == width:
        raise UserError(
            f"{where} x_{part} has shape {x.shape}, with channels first: save "
            "x.transpose(0, 2, 3, 1), N x H x W x C"
        )


def _pixels(where: str, part: str, x: np.ndarray) -> np.ndarray:
    """The images as uint8 or, of any other dtype, as finite float32."""
    is_number = np.issubdtype(x.dtype, np.floating) or np.issubdtype(
        x.dtype, np.integer
    )
    if not is_number:
        raise UserError(
            f"{where} x_{part} is {x.dtype}: save it as uint8 or float32"
        )
    if x.dtype == np.uint8:
        return x

    # Pixels beyond float32 become infinite, which the next check reports.
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        raise UserError(
            f"{where} x_{part} has NaN or infinite pixels as float32: replace them"
        )
    return x


def check_alike(
    where: str, part: str, x_train: np.ndarray, x: np.ndarray
) -> None:
    """Checks that images of another part are like the training images.

    Args:
        where: Beginning of messages: the field and the set.
        part: Name of the other part, "valid" or "test".
        x_train: Training images [N, H, W, C].
        x: Images of the other part [N, H, W, C].

    Raises:
        UserError: The shapes, the dtypes or the scales differ.
    """
    train_shape, shape = x_train.shape[1:], x.shape[1:]
    if train_shape != shape:
        raise UserError(
            f"{where} images of x_train are {train_shape}, of x_{part} {shape}: "
            "make them one size"
        )
    if x_train.dtype != x.dtype:
        raise UserError(
            f"{where} x_train is {x_train.dtype}, x_{part} {x.dtype}: save both in "
            "one dtype and range"
        )
    scales = _scale(x_train), _scale(x)
    if max(scales) > SCALES * min(scales):
        raise UserError(
            f"{where} pixels of x_train go up to {x_train.max():g}, of x_{part} to "
            f"{x.max():g}: save both in one range"
        )


def _scale(x: np.ndarray) -> float:
    return max(abs(float(x.min())), abs(float(x.max())))


def check_classes(
    where: str,
    y_train: np.ndarray,
    others: dict[str, np.ndarray],
    known: int | None,
) -> int:
    """Checks the labels of a whole set and returns its number of classes.

    Args:
        where: Beginning of messages: the field and the set.
        y_train: Training labels [N].
        others: Labels of the other parts, by name.
        known: The number of classes, if the set knows it; some may have no image.

    Raises:
        UserError: A class of an unknown number has no training image, there is only
            one class, or a label is too large.
    """
    found = len(np.unique(y_train))
    last = int(y_train.max())
    classes = known or last + 1
    if known is None and found != classes:
        raise UserError(
            f"{where} y_train goes up to {last} but has {found} labels: number the "
            "classes from 0"
        )
    if classes < 2 or found < 2:
        raise UserError(
            f"{where} y_train has one class: at least two are needed"
        )
    for part, y in {"train": y_train, **others}.items():
        if y.max() >= classes:
            raise UserError(
                f"{where} y_{part} has label {y.max()}, y_train only up to "
                f"{classes - 1}: drop what it lacks"
            )
    return classes
