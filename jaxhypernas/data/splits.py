"""A split of an image set: `Split` in the host's memory, or `Stored` on disk."""

from typing import NamedTuple

import numpy as np


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
            index_B: Indices in 0 .. size - 1, or a mask.
        """
        return Split(self.x_NxHxWxC[index_B], self.y_N[index_B])
