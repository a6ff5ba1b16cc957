"""The cells of PNAS (Liu et al. 2018, section 3): five blocks (I1, I2, O1, O2) that add two ops, 8 ops.

Deviations: those of the stack (`targets.cell`); a cell of fewer blocks keeps the width of five, with zeros.
"""

from jaxhypernas.spaces.cells import CellConfig, CellStructure
from jaxhypernas.spaces.dag import DagConfig, dag_space
from jaxhypernas.types import Space

OPS = (
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "conv_1x7_7x1",
    "skip_connect",
    "avg_pool_3x3",
    "max_pool_3x3",
    "dil_conv_3x3",
)
STRUCTURE = CellStructure(
    OPS,
    2,
    tuple(2 + n // 2 for n in range(10)),
    reads=1,
    ops_at_once=1,
    stack="projected",
)
DAG = DagConfig("pnas", STRUCTURE, block=2, loose=False)

PNASNET_5 = (
    "sep_conv_5x5(1);max_pool_3x3(1);sep_conv_7x7(0);max_pool_3x3(0);sep_conv_5x5(0);sep_conv_3x3(0);"
    "sep_conv_3x3(4);max_pool_3x3(0);sep_conv_3x3(1);skip_connect(0)"
)
"""The published best cell. State 0 is the cell before, 1 the one before that, 2 to 6 are the blocks."""


def pnas(
    image: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    channels: int = 48,
    cells: int = 3,
) -> Space:
    """The space for images (H, W, C), at the size of the published CIFAR-10 result by default."""
    return dag_space(DAG, CellConfig(channels, cells), image, classes)
