"""A split of an image set: `Split` in the host's memory, or `Stored` on disk."""

from typing import Any, NamedTuple

import numpy as np

from jaxhypernas.data.checks import check_images
from jaxhypernas.data.errors import unreadable

ROWS_PER_READ = 2048
"""Rows of a stored split that are decoded before they are stacked."""


class Split(NamedTuple):
    """Images and their labels, in the host's memory."""

    x_NxHxWxC: np.ndarray
    """uint8 or float32: the images."""

    y_N: np.ndarray
    """int32: the labels, 0 .. classes - 1."""

    @property
    def size(self) -> int:
        """Number of images, N."""
        return len(self.y_N)

    def take(self, index_B: np.ndarray) -> "Split":
        """Returns the images at these indices, with their labels.

        Args:
            index_B: Indices in 0 .. size - 1.
        """
        return Split(self.x_NxHxWxC[index_B], self.y_N[index_B])


class Stored(NamedTuple):
    """Images of a prepared set that stay on disk until they are taken.

    Any number of threads may take images at a time.
    """

    where: str
    """The set and its directory, for messages."""

    source: Any
    """The set's rows: ``source.__getitems__(indices)`` reads them, each a dict."""

    image: str
    """The key of a row's image."""

    label: str
    """The key of a row's label."""

    index_N: np.ndarray
    """int64: the rows that belong to the split."""

    @property
    def size(self) -> int:
        """Number of images, N."""
        return len(self.index_N)

    def take(self, index_B: np.ndarray) -> Split:
        """Reads the images at these indices, with their labels.

        Args:
            index_B: Indices in 0 .. size - 1.

        Raises:
            UserError: The rows cannot be read, or are no images with labels.
        """
        rows = self._read(self.index_N[index_B])
        return Split(
            *check_images(f"data.dataset: {self.where}:", "train", *rows)
        )

    def everything(self) -> Split:
        """Reads all images, unchecked."""
        return self._read(self.index_N)

    def _read(self, row_B: np.ndarray) -> Split:
        xs, ys = [], []
        # Files that are damaged make the reading library raise almost anything.
        try:
            for start in range(0, len(row_B), ROWS_PER_READ):
                wanted = row_B[start : start + ROWS_PER_READ].tolist()
                rows = self.source.__getitems__(wanted)
                xs.append(np.stack([row[self.image] for row in rows]))
                ys.append([row[self.label] for row in rows])
            return Split(np.concatenate(xs), np.concatenate(ys))
        except Exception as error:
            raise unreadable(self.where, error) from None
