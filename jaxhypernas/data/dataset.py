"""Image sets split for training and scoring, with the moments of their channels."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxhypernas.data import sources
from jaxhypernas.data.config import DataConfig
from jaxhypernas.data.splits import Split, Stored, stratified
from jaxhypernas.types import ImageShape, UserError

IMAGES_PER_SUM = 2048
"""Images converted to float64 at once: a float64 copy of a large set might not fit."""

MOMENTS_SAMPLE = 10_000
"""Training images that the moments of a set on disk come from."""


class Dataset(NamedTuple):
    """An image set. Its splits share no image."""

    name: str
    """Name of the set, as the configuration gives it."""

    classes: int
    """Number of classes."""

    train: Split
    """Training images; empty where they stay on disk."""

    valid: Split
    """Images held out from the training images, to score on."""

    test: Split
    """Test images; empty where the training images stay on disk."""

    mean_C: np.ndarray
    """float32: mean of each channel over the training images, as pixels are stored."""

    std_C: np.ndarray
    """float32: standard deviation of each channel; 1 for a constant channel."""

    stored: Stored | None = None
    """The training images where they stay on disk."""

    class_names: tuple[str, ...] | None = None
    """A name for each class; None: the set has none."""

    @property
    def image(self) -> ImageShape:
        """Shape of an image, (H, W, C)."""
        return self.valid.x_NxHxWxC.shape[1:]

    @property
    def source(self) -> Split | Stored:
        """The training images, in memory or on disk."""
        return self.stored or self.train


class _Published(NamedTuple):
    """Shapes and numbers of images of a well-known set."""

    image: ImageShape
    classes: int
    train: int
    test: int


# Programs can be compiled for these sets without having them.
_PUBLISHED = {
    "mnist": _Published((28, 28, 1), 10, 60_000, 10_000),
    "fashion_mnist": _Published((28, 28, 1), 10, 60_000, 10_000),
    "cifar10": _Published((32, 32, 3), 10, 50_000, 10_000),
    "cifar100": _Published((32, 32, 3), 100, 50_000, 10_000),
    "svhn_cropped": _Published((32, 32, 3), 10, 73_257, 26_032),
}


def load(config: DataConfig, seed: int) -> Dataset:
    """Reads, checks and splits an image set::

        dataset = load(DataConfig("digits", valid=0.1), seed=0)

    Args:
        config: The set, and how it is split.
        seed: Decides which training images are used and held out; the test images
            are always the same. 0 or more.

    Raises:
        UserError: The set cannot be found or read, is not image classification of one
            image size, or is too small for ``config.valid`` or ``config.limit``.
    """
    if seed < 0:
        raise UserError(f"seed: {seed} must be 0 or more")
    if config.stream:
        found = sources.on_disk(config.dataset, config.data_dir)
        if found:
            return _split_on_disk(config, seed, *found)

    source, classes = sources.in_memory(
        config.dataset, config.data_dir, config.limit, seed
    )
    return _split(config, seed, source, classes)


def from_arrays(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray] | None = None,
    valid: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    class_names: Sequence[str] | None = None,
    config: DataConfig = DataConfig("arrays"),  # noqa: B008
    seed: int = 0,
) -> Dataset:
    """Makes an image set from arrays::

        dataset = from_arrays((x_train, y_train), (x_test, y_test))
        run = Run("runs/mine", PRESETS["small"], dataset)

    Args:
        train: Training images [N, H, W] or [N, H, W, C], and their labels [N].
        test: Test images and labels; None: a part of the training images.
        valid: Images to score on; None: ``config.valid`` of the training images.
        class_names: A name for each class.
        config: How the set is split.
        seed: Decides which training images are used and held out.

    Raises:
        UserError: As `load`.
    """
    names = None if class_names is None else tuple(class_names)
    parts = [
        None if part is None else Split(*map(np.asarray, part))
        for part in (train, valid, test)
    ]
    source = sources.Source(*parts, names)  # type: ignore[arg-type]
    found, classes = sources.checked(f"{config.dataset}:", source)
    return _split(config, seed, found, classes)


def _split(
    config: DataConfig, seed: int, source: sources.Source, classes: int
) -> Dataset:
    """Holds images out, unless the set has images of its own to score on."""
    train, valid = source.train, source.valid
    assert source.test is not None
    rng = np.random.default_rng(seed)
    images = min(train.size, config.limit or train.size)
    held = _held(config, images, classes)
    if images < train.size:
        chosen, _ = stratified(train.y_N, images, rng)
        train = train.take(chosen)
    if valid is None:
        chosen, kept = stratified(train.y_N, held, rng)
        train, valid = train.take(kept), train.take(chosen)
    return Dataset(
        config.dataset,
        classes,
        train,
        valid,
        source.test,
        *_moments(train.x_NxHxWxC),
        class_names=source.class_names,
    )


def _split_on_disk(
    config: DataConfig,
    seed: int,
    stored: Stored,
    classes: int,
) -> Dataset:
    """Splits a stored set at random; only the held-out images are in memory.

    It is not stratified: the labels of all images would have to be read.
    """
    held, kept = _held_and_kept(config, seed, stored.size, classes)
    valid = stored.take(held)
    none = valid.take(np.arange(0))
    train = stored._replace(index_N=kept)
    sample = train.take(np.arange(min(MOMENTS_SAMPLE, train.size)))
    moments = _moments(sample.x_NxHxWxC)
    return Dataset(config.dataset, classes, none, valid, none, *moments, train)


def blank(config: DataConfig, seed: int) -> Dataset:
    """Returns a set with the shapes of the one that `load` reads, to compile for.

    Its images are black, for MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100 and SVHN; any
    other set is read, and so are these where ``config.data_dir`` locates them.

    Args:
        config: The set, and how it is split.
        seed: As for `load`.

    Raises:
        UserError: As `load`.
    """
    if config.data_dir is not None or config.dataset not in _PUBLISHED:
        return load(config, seed)
    image, classes, images, test_images = _PUBLISHED[config.dataset]
    images = min(images, config.limit or images)
    held = _held(config, images, classes)

    def black(number: int) -> Split:
        x_NxHxWxC = np.zeros((number, *image), np.uint8)
        return Split(x_NxHxWxC, np.zeros(number, np.int32))

    one_C = np.ones(image[-1], np.float32)
    return Dataset(
        config.dataset,
        classes,
        train=black(images - held),
        valid=black(held),
        test=black(test_images),
        mean_C=one_C,
        std_C=one_C,
    )


def _held_and_kept(
    config: DataConfig,
    seed: int,
    images: int,
    classes: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training images that are held out, and of those that train."""
    order = np.random.default_rng(seed).permutation(images)[: config.limit]
    held = _held(config, len(order), classes)
    return order[:held], order[held:]


def _held(config: DataConfig, images: int, classes: int) -> int:
    """Number of training images held out."""
    if config.limit is not None and config.limit < classes:
        raise UserError(
            f"data.limit: {config.limit} images are fewer than the {classes} classes: "
            "raise it"
        )
    held = round(images * config.valid)
    if not 0 < held < images:
        part = "training" if held else "held-out"
        raise UserError(
            f"data.valid: {config.valid} of {images} images leaves no {part} image: "
            "change it"
        )
    return held


def _moments(x_NxHxWxC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, float32."""
    pixels = x_NxHxWxC.size // x_NxHxWxC.shape[-1]

    def mean(term: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        total_C = 0
        for start in range(0, len(x_NxHxWxC), IMAGES_PER_SUM):
            part = x_NxHxWxC[start : start + IMAGES_PER_SUM]
            terms = term(part.astype(np.float64))
            total_C = total_C + terms.sum((0, 1, 2))
        return total_C / pixels

    mean_C = mean(lambda x: x)
    std_C = np.sqrt(mean(lambda x: np.square(x - mean_C)))
    # The deviation of a constant channel is rounding error: divided by it, the channel
    # would be noise of size 1.
    std_C = np.where(std_C > 1e-6 * np.abs(mean_C), std_C, 1)
    return mean_C.astype(np.float32), std_C.astype(np.float32)
