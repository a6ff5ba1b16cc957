"""The cells of One-Shot (Bender et al. 2018, section 3).

A cell has four choice blocks of one or two inputs and one or two of 7 ops. Deviations:

1. Those of the stack (`targets.cell`).
2. A choice block takes the sum of its inputs, which the cell's own 1x1 has brought to C
   channels (published: a 1x1 of the concatenation in every block).
3. ReLU, convolution, BatchNorm in this order (published: BatchNorm, ReLU, convolution).
"""

from jaxhypernas.archs.cells import CellStructure
from jaxhypernas.archs.sizes import OneShotConfig
from jaxhypernas.spaces.dag import DagConfig, dag_space
from jaxhypernas.types import ImageShape, Space

OPS = (
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "conv_1x7_7x1",
    "max_pool_3x3",
    "avg_pool_3x3",
)
"""The ops of a choice block."""

STRUCTURE = CellStructure(
    OPS,
    inputs=2,
    write_N=(2, 3, 4, 5),
    reads=2,
    ops_at_once=2,
    stack="projected",
)
"""The structure of all cells."""


def one_shot(config: OneShotConfig, image: ImageShape, classes: int) -> Space:
    """Makes the space of cells of four choice blocks.

    A string has four nodes with one or two ops and states each, as in
    ``sep_conv_3x3(0);skip_connect+max_pool_3x3(0,2)``. State 0 is the output of the
    cell before, 1 the output of the cell before that, 2 to 5 are the choice blocks;
    `dag_text.to_string` has the grammar.

    Args:
        config: Sizes of the networks.
        image: Height, width and channels of an image.
        classes: Number of classes.

    Returns:
        The space.

    Raises:
        UserError: The images cannot be halved twice.
    """
    dag = DagConfig("one_shot", STRUCTURE, block_nodes=1, unread_output=False)
    return dag_space(dag, config, image, classes)
