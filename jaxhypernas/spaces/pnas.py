"""The cells of PNAS (Liu et al. 2018, section 3).

A cell has five blocks (I1, I2, O1, O2); a block adds two of 8 ops. Deviations:

1. Those of the stack (`targets.cell`).
2. A cell of fewer blocks keeps the width of five blocks, with zeros.
"""

from jaxhypernas.archs.cells import CellArch, CellStructure
from jaxhypernas.archs.sizes import PnasConfig
from jaxhypernas.spaces import genotype
from jaxhypernas.spaces.dag import DagConfig, dag_space
from jaxhypernas.types import ImageShape, Space

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
"""The ops of a node."""

# Two nodes write each block's state; states 0 and 1 are the cell's inputs.
STRUCTURE = CellStructure(
    OPS,
    inputs=2,
    write_N=(2, 2, 3, 3, 4, 4, 5, 5, 6, 6),
    reads=1,
    ops_at_once=1,
    stack="projected",
)
"""The structure of all cells."""

PNASNET_5 = (
    "sep_conv_5x5(1);max_pool_3x3(1);sep_conv_7x7(0);max_pool_3x3(0);"
    "sep_conv_5x5(0);sep_conv_3x3(0);sep_conv_3x3(4);max_pool_3x3(0);"
    "sep_conv_3x3(1);skip_connect(0)"
)
"""The best cell that was published."""


def pnas(config: PnasConfig, image: ImageShape, classes: int) -> Space:
    """Makes the space of cells of five blocks.

    A string has ten nodes, two for each block, with one op and one state each, as in
    `PNASNET_5`. State 0 is the output of the cell before, 1 the output of the cell
    before that, 2 to 6 are the blocks; `dag_text.to_string` has the grammar. The normal
    cell of a ``Genotype(...)`` as DARTS prints it is read, too.

    Args:
        config: Sizes of the networks (published for CIFAR-10: 48 channels, 3 cells).
        image: Height, width and channels of an image.
        classes: Number of classes.

    Returns:
        The space.

    Raises:
        UserError: The images cannot be halved twice.
    """
    dag = DagConfig("pnas", STRUCTURE, block_nodes=2, unread_output=False)
    space = dag_space(dag, config, image, classes)

    def from_string(text: str) -> CellArch:
        if genotype.is_genotype(text):
            text = genotype.to_nodes(text, len(STRUCTURE.write_N))
        return space.from_string(text)

    return space._replace(from_string=from_string)
