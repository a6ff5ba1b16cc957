"""Sizes of the networks of each family: the configurations of spaces and targets.

Defaults train on two CPU cores in minutes; `config.presets` has the papers' sizes.
"""

from dataclasses import dataclass, replace

from jaxhypernas.types import ImageShape, Settings, UserError

LARGEST_SIZE = 1000
"""Upper bound for every size; larger values are assumed to be typos."""

LARGEST_WIDTH = 10_000
"""Upper bound for channels."""

SMALL_IMAGE = 16
"""Memory banks keep all pixels of images up to this height and width."""


@dataclass(frozen=True)
class CellConfig(Settings):
    """The size of a network of cells. Families of cells extend this class."""

    channels: int = 8
    """channels of the first stage, C"""

    cells: int = 1
    """cells per stage, N; in projected stacks the first cell of a later stage is the
    reduction cell"""

    def check(self) -> None:
        """Raises `UserError` for a size out of range."""
        check_size("channels", self.channels, most=LARGEST_WIDTH)
        check_size("cells", self.cells)


@dataclass(frozen=True)
class Nasbench101Config(CellConfig):
    """Sizes of NAS-Bench-101's networks (published: 128 channels, 3 cells)."""


@dataclass(frozen=True)
class Nasbench201Config(CellConfig):
    """Sizes of NAS-Bench-201's networks (published: 16 channels, 5 cells)."""


@dataclass(frozen=True)
class PnasConfig(CellConfig):
    """Sizes of PNAS's networks (published for CIFAR-10: 48 channels, 3 cells)."""


@dataclass(frozen=True)
class OneShotConfig(CellConfig):
    """Sizes of One-Shot's networks."""


@dataclass(frozen=True)
class GhnCellConfig(CellConfig):
    """Sizes of the networks of Graph HyperNetworks (published: 6 cells)."""

    nodes: int = 7
    """nodes of a cell"""

    train_nodes: int = 0
    """nodes of the cells that the generator is trained on; 0: as many as nodes"""

    def check(self) -> None:
        """Raises `UserError` for a size out of range."""
        super().check()
        check_size("nodes", self.nodes)
        check_size("train_nodes", self.train_nodes, least=0)


@dataclass(frozen=True)
class MemoryBankConfig(Settings):
    """Sizes of SMASH's networks (Brock et al. 2018)."""

    unit: int = 2
    """channels of the smallest bank, N"""

    units: int = 4
    """k: the largest bank and the largest op output have k * N channels"""

    depth: int = 2
    """reference layers per block: sets the budget"""

    widening: int = 2
    """reference widening factor: sets channels and budget"""

    bottleneck: int = 4
    """largest output of a 1x1, in output channels of its op"""

    max_bottleneck: int = 1
    """largest output of a 1x1, in k * N channels"""

    compression: int = 2
    """units read for each position of the encoding"""

    max_kernel: int = 5
    """largest kernel: 3, 5 or 7"""

    max_dilation: int = 2
    """largest dilation"""

    max_groups: int = 2
    """largest number of groups of a convolution"""

    stem_kernel: int = 3
    """kernel of the first convolution"""

    stem_stride: int = 0
    """stride of the first convolution; 0: 2 where images are larger than 16x16, else 1
    """

    slots: int = 9
    """op slots per block"""

    def check(self) -> None:
        """Raises `UserError` for a size out of range, or sizes that do not fit."""
        for name, value in vars(self).items():
            check_size(name, value, least=int(name != "stem_stride"))
        if self.max_kernel not in (3, 5, 7):
            raise UserError(f"max_kernel: {self.max_kernel} must be 3, 5 or 7")
        if self.stem_kernel % 2 == 0:
            raise UserError(f"stem_kernel: {self.stem_kernel} must be odd")
        if self.units < self.compression:
            raise UserError(
                f"units: {self.units} must be at least compression, "
                f"{self.compression}"
            )
        if min(self.in_units) < self.units:
            raise UserError(
                f"widening: {self.widening} is too small for {self.units} units: "
                "raise it"
            )

    def of_images(self, image: ImageShape) -> "MemoryBankConfig":
        """Returns the sizes for some images, with the stride chosen.

        Args:
            image: Height, width and channels of an image.
        """
        fitting = 1 + (image[0] * image[1] > SMALL_IMAGE**2)
        return replace(self, stem_stride=self.stem_stride or fitting)

    @property
    def in_units(self) -> tuple[int, int, int]:
        """Units of input per block.

        SMASH halves the memory's channels between blocks, in steps of 2N.
        """
        first = 2 * self.widening
        second = (first + 4 * self.widening) // 4 * 2
        return first, second, (second + 4 * self.widening) // 4 * 2

    @property
    def memory_units(self) -> tuple[int, int, int]:
        """Units of memory per block."""
        first, second, _ = self.in_units
        added = 4 * self.widening
        return first + added, second + added, 8 * self.widening

    @property
    def positions(self) -> tuple[int, int, int]:
        """Budget per block, in positions of the encoding.

        A position stands for ``compression`` units read.
        """

        def positions_of(block: int) -> int:
            width = 2 * self.widening * 2**block
            units = self.in_units[block] + self.depth * width
            return units // self.compression

        return positions_of(0), positions_of(1), positions_of(2)

    @property
    def max_banks(self) -> int:
        """Largest number of banks of a block, M: the arrays have places for them."""
        return max(self.memory_units)

    @property
    def group_choices(self) -> tuple[int, ...]:
        """Divisors of N, so that every width can be grouped."""
        groups = range(1, self.max_groups + 1)
        return tuple(g for g in groups if self.unit % g == 0)

    @property
    def extent(self) -> int:
        """The largest reach of a dilated kernel, in pixels."""

        def reach(kernel: int) -> int:
            dilation = min(4 - (kernel - 1) // 2, self.max_dilation)
            return (kernel - 1) * dilation + 1

        return max(map(reach, range(3, self.max_kernel + 1, 2)))


def check_size(
    name: str, value: int, least: int = 1, most: int = LARGEST_SIZE
) -> None:
    """Checks the range of one field.

    Args:
        name: The field.
        value: Its value.
        least: The smallest value allowed.
        most: The largest value allowed.

    Raises:
        UserError: The value is out of range.
    """
    if not least <= value <= most:
        raise UserError(
            f"{name}: {value} must be at least {least} and at most {most}"
        )
