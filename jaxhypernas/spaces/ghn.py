"""The cells of Graph HyperNetworks (Zhang et al. 2019, section 5): nodes in a random directed acyclic graph, 8 ops.

Trained on cells of 7 nodes, evaluated on 17. Choices where the text at hand is silent, and deviations:
1. The ops: identity, 1x1, separable 3x3 and 5x5, dilated separable 3x3 and 5x5, average and max pooling.
2. A node reads one or two earlier states; the cell's output is the sum of the nodes that nothing reads.
3. A node's op is applied to the sum of what it reads, not to each term.
4. Residual blocks halve the resolution and double the channels between the stages, as in NAS-Bench-201.
"""

from jaxhypernas.spaces.cells import CellConfig, CellStructure
from jaxhypernas.spaces.dag import DagConfig, dag_space
from jaxhypernas.types import Space

OPS = (
    "skip_connect",
    "nor_conv_1x1",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "avg_pool_3x3",
    "max_pool_3x3",
)


def dag(nodes: int) -> DagConfig:
    """Cells of so many nodes."""
    structure = CellStructure(
        OPS,
        1,
        write_N=tuple(range(1, nodes + 1)),
        reads=2,
        ops_at_once=1,
        stack="residual",
    )
    return DagConfig("ghn", structure, block=1, loose=True)


def ghn(
    image: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    channels: int = 32,
    cells: int = 6,
    nodes: int = 7,
) -> Space:
    """The space for images (H, W, C); three stages of 6 cells make the published 18."""
    return dag_space(
        dag(nodes), CellConfig(channels, cells, nodes), image, classes
    )
