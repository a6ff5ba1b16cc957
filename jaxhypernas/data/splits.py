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


class Source(NamedTuple):
    """The parts of a set, as they are read."""

    train: Split
    """Training images."""

    valid: Split | None
    """Images to score on, where the set has some of its own."""

    test: Split | None
    """Test images; None: the set keeps none apart."""

    class_names: tuple[str, ...] | None = None
    """A name for each class; None: the set has none."""


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


def stratified(
    y_N: np.ndarray, number: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses images at random, from each class about the same share.

    Every class of two images or more has one on either side, as far as ``number``
    allows.

    Args:
        y_N: Labels.
        number: How many to choose, fewer than N.
        rng: Decides which.

    Returns:
        Indices of the chosen images, ``number`` of them, and of the others; both in
        random order.
    """
    order_N = rng.permutation(len(y_N))
    sizes_K = np.bincount(y_N)
    quota_K = sizes_K * (number / len(y_N))
    least_K = np.minimum(sizes_K // 2, 1)
    most_K = np.maximum(sizes_K - 1, least_K)
    chosen_K = np.clip(np.floor(quota_K).astype(int), least_K, most_K)

    # What rounding left over goes to, or comes from, the classes farthest from it.
    while (left := number - chosen_K.sum()) != 0:
        step = int(np.sign(left))
        allowed_K = chosen_K < most_K if step > 0 else chosen_K > least_K
        if not allowed_K.any():
            allowed_K = chosen_K < sizes_K if step > 0 else chosen_K > 0
        distance_K = np.where(allowed_K, step * (quota_K - chosen_K), -np.inf)
        chosen_K[distance_K.argmax()] += step

    # Place of each image among those of its class, in the random order.
    label_N = y_N[order_N]
    by_class_N = np.argsort(label_N, kind="stable")
    starts_K = np.cumsum(sizes_K) - sizes_K
    place_N = np.empty(len(y_N), int)
    place_N[by_class_N] = np.arange(len(y_N)) - starts_K[label_N[by_class_N]]
    is_chosen_N = place_N < chosen_K[label_N]
    return order_N[is_chosen_N], order_N[~is_chosen_N]
