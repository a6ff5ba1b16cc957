"""Pictures in files, of any format that Pillow reads, as one array."""

from collections.abc import Callable, Sequence
from typing import IO, Any, NamedTuple

import numpy as np

from jaxhypernas.data import memory
from jaxhypernas.data.errors import one_line
from jaxhypernas.types import UserError

_GREY = ("L", "1")
_COLOUR = ("RGB", "P", "CMYK", "YCbCr", "HSV", "RGBA", "LA", "PA")


class Picture(NamedTuple):
    """A picture that is not read yet."""

    name: str
    """Its name in messages."""

    open: Callable[[], IO[bytes]]
    """Opens its bytes."""


def read(where: str, pictures: Sequence[Picture]) -> np.ndarray:
    """Reads pictures of one size: grey if all are grey, else colour without alpha.

    Args:
        where: Beginning of messages: the field and the set.
        pictures: The pictures, at least one.

    Returns:
        uint8 x_NxHxWxC, C of 1 or 3.

    Raises:
        UserError: A picture cannot be read, has more than 8 bits, or another size than
            the first one; or all together do not fit in memory.
    """
    sizes = [_header(where, picture) for picture in pictures]
    width, height = sizes[0][:2]
    for picture, (w, h, _) in zip(pictures, sizes, strict=True):
        if (w, h) != (width, height):
            raise UserError(
                f"{where} has pictures of several sizes: {pictures[0].name} is "
                f"{height}x{width}, {picture.name} {h}x{w}: make them one size"
            )
    mode = "L" if all(each[2] in _GREY for each in sizes) else "RGB"
    channels = 1 if mode == "L" else 3
    shape = (len(pictures), height, width, channels)
    memory.check(where, int(np.prod(shape, dtype=np.int64)))

    x_NxHxWxC = np.empty(shape, np.uint8)
    for n, picture in enumerate(pictures):
        x_NxHxWxC[n] = _opened(
            where, picture, lambda image: _pixels(image, mode)
        )
    return x_NxHxWxC


def _header(where: str, picture: Picture) -> tuple[int, int, str]:
    """Width, height and mode; no pixel is decoded."""
    width, height, mode = _opened(
        where, picture, lambda image: (*image.size, image.mode)
    )
    if mode not in _GREY + _COLOUR:
        raise UserError(
            f"{where} {picture.name} has pixels of mode {mode}: save it with 8 bits "
            "per channel"
        )
    return width, height, mode


def _pixels(image: Any, mode: str) -> np.ndarray:
    pixels = np.asarray(image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


def _opened(where: str, picture: Picture, use: Callable[[Any], Any]) -> Any:
    """What a function makes of a picture that Pillow has opened."""
    from PIL import Image

    # A damaged file makes Pillow raise almost anything; it refuses huge ones.
    try:
        with picture.open() as file, Image.open(file) as image:
            return use(image)
    except Exception as error:
        raise UserError(
            f"{where} {picture.name} cannot be read as a picture ({one_line(error)})"
        ) from None
