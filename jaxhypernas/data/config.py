"""Which images a run reads, and how it splits and augments them."""

from dataclasses import dataclass, replace
from pathlib import Path

from jaxhypernas.numerics.recipes import AUGMENTATIONS, check_name
from jaxhypernas.types import Settings, UserError


@dataclass(frozen=True)
class DataConfig(Settings):
    """Images to train and score on."""

    dataset: str = "digits"
    """"digits" (1,797 images of 8x8x1), the path of an .npz, of a directory with a
    folder of pictures per class or of Hugging Face's save_to_disk, or a set of
    tensorflow-datasets, as in "cifar10" or "name/config:1.0.0\""""

    data_dir: str | None = None
    """directory in which tensorflow-datasets prepared the set; None: its default"""

    valid: float = 0.2
    """share of the training images held out for scoring, between 0 and 1, where the set
    has no validation images of its own"""

    limit: int | None = None
    """number of training images to use, chosen by the seed before some are held out;
    None: all"""

    pad: int = 1
    """augmentation: pixels of padding per side before a random crop; 0: no crop"""

    flip: bool = False
    """augmentation: flip left to right with probability 1/2"""

    augment: str = "none"
    """augmentation after crops and flips, of your own"""

    stream: bool = False
    """send training images to the devices as training comes to them, instead of all at
    once; sets of tensorflow-datasets then stay on disk. Held-out images are in memory,
    channel statistics come from the first 10,000 images, and candidates cannot be
    trained from scratch"""

    def check(self) -> None:
        """Raises `UserError` for a value out of range."""
        check_name("augment", self.augment, AUGMENTATIONS)
        if not 0 < self.valid < 1:
            raise UserError(
                f"valid: {self.valid} must be between 0 and 1, the share held out "
                "for scoring"
            )
        if self.limit is not None and self.limit < 1:
            raise UserError(
                f"limit: {self.limit} must be a number of images, or left out for all"
            )
        if self.pad < 0:
            raise UserError(
                f"pad: {self.pad} must be 0 (no crop) or more pixels"
            )

    def absolute(self) -> "DataConfig":
        """Returns the same with absolute paths, to be used from any directory.

        Names of sets stay, and so do paths of what does not exist here.
        """
        dataset, data_dir = self.dataset, self.data_dir
        path = Path(dataset).expanduser()
        # A directory under a bare name may be a prepared set of that name.
        may_be_folder = "/" in dataset and data_dir is None
        is_place = path.is_file() or (may_be_folder and path.is_dir())
        if is_place and dataset != "digits":
            dataset = str(path.absolute())
        if data_dir is not None and Path(data_dir).expanduser().is_dir():
            data_dir = str(Path(data_dir).expanduser().absolute())
        return replace(self, dataset=dataset, data_dir=data_dir)
