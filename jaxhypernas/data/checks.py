"""Checks of images and labels: shapes, dtypes and values that networks can train on."""

import numpy as np

from jaxhypernas.types import UserError


def check_images(
    where: str, part: str, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Checks one split and converts it to standard shapes and dtypes.

    Args:
        where: Beginning of messages: the field and the set.
        part: Name of the split in messages, "train" or "test".
        x: Images [N, H, W] or [N, H, W, C], of integers or floats.
        y: Labels [N], integers from 0.

    Returns:
        x_NxHxWxC, uint8 or float32, and y_N, int32.

    Raises:
        UserError: A shape, a dtype or a value is of no use.
    """
    x = x[..., None] if x.ndim == 3 else x
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


def check_test_images(
    where: str, x_train: np.ndarray, x_test: np.ndarray
) -> None:
    """Checks that test images are like the training images.

    Args:
        where: Beginning of messages: the field and the set.
        x_train: Training images [N, H, W, C].
        x_test: Test images [N, H, W, C].

    Raises:
        UserError: The shapes or the dtypes differ.
    """
    train_shape = x_train.shape[1:]
    test_shape = x_test.shape[1:]
    if train_shape != test_shape:
        raise UserError(
            f"{where} images of x_train are {train_shape}, of x_test {test_shape}: "
            "make them one size"
        )
    if x_train.dtype != x_test.dtype:
        raise UserError(
            f"{where} x_train is {x_train.dtype}, x_test {x_test.dtype}: save both in "
            "one dtype and range"
        )


def check_classes(where: str, y_train: np.ndarray, y_test: np.ndarray) -> int:
    """Checks the labels of a whole set and returns its number of classes.

    Args:
        where: Beginning of messages: the field and the set.
        y_train: Training labels [N].
        y_test: Test labels [N].

    Raises:
        UserError: A class has no training image, or there is only one class.
    """
    classes = len(np.unique(y_train))
    last = int(y_train.max())
    if classes != last + 1:
        raise UserError(
            f"{where} y_train goes up to {last} but has {classes} labels: number the "
            "classes from 0"
        )
    if classes < 2:
        raise UserError(
            f"{where} y_train has one class: at least two are needed"
        )
    if y_test.max() > last:
        raise UserError(
            f"{where} y_test has label {y_test.max()}, y_train only up to {last}: drop "
            "what it lacks"
        )
    return classes
