"""The cells of One-Shot (Bender et al. 2018, section 3): four choice blocks of one or two inputs and ops, 7 ops.

Deviations: those of the stack (`targets.cell`), and
1. A choice block takes the sum of its inputs, which the cell's own 1x1 has brought to C channels (published: a 1x1 of
   the concatenation in every block).
2. ReLU, convolution, BatchNorm in this order (published: BatchNorm, ReLU, convolution).
"""

from jaxhypernas.spaces.cells import CellConfig, CellStructure
from jaxhypernas.spaces.dag import DagConfig, dag_space
from jaxhypernas.types import Space

OPS = (
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "conv_1x7_7x1",
    "max_pool_3x3",
    "avg_pool_3x3",
)
STRUCTURE = CellStructure(
    OPS,
    inputs=2,
    write_N=(2, 3, 4, 5),
    reads=2,
    ops_at_once=2,
    stack="projected",
)
DAG = DagConfig("one_shot", STRUCTURE, block=1, loose=False)


def one_shot(
    image: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    channels: int = 32,
    cells: int = 2,
) -> Space:
    """The space for images (H, W, C)."""
    return dag_space(DAG, CellConfig(channels, cells), image, classes)
