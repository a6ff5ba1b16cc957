"""The cells of Graph HyperNetworks (Zhang et al. 2019, section 5).

Nodes in a random directed acyclic graph apply one of 8 ops each. Generators are trained
on cells of 7 nodes and evaluated on cells of 17. Choices where the available text of
the paper is silent, and deviations:

1. The ops: identity, 1x1, separable 3x3 and 5x5, dilated separable 3x3 and 5x5, average
   and max pooling.
2. A node reads one or two earlier states; the cell's output is the sum of the nodes
   that nothing reads.
3. A node's op is applied to the sum of the states that it reads, not to each of them.
4. Residual blocks halve the resolution and double the channels between the stages, as
   in NAS-Bench-201.
"""

from jaxhypernas.archs.cells import CellStructure
from jaxhypernas.archs.sizes import GhnCellConfig
from jaxhypernas.spaces.dag import DagConfig, dag_space
from jaxhypernas.types import ImageShape, Space

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
"""The ops of a node."""


def dag(nodes: int) -> DagConfig:
    """Describes the cells of a number of nodes.

    Args:
        nodes: Number of nodes of a cell, N.

    Returns:
        The cells that the space allows: node n writes state n + 1.
    """
    structure = CellStructure(
        OPS,
        inputs=1,
        write_N=tuple(range(1, nodes + 1)),
        reads=2,
        ops_at_once=1,
        stack="residual",
    )
    return DagConfig("ghn", structure, block_nodes=1, unread_output=True)


def ghn(config: GhnCellConfig, image: ImageShape, classes: int) -> Space:
    """Makes the space of random graphs.

    A string has ``nodes`` nodes with one op and one or two states, as in
    ``sep_conv_3x3(0);max_pool_3x3(0,1)``; `dag_text.to_string` has the grammar.

    Args:
        config: Sizes of the networks (published: 18 cells, 6 in each stage).
        image: Height, width and channels of an image.
        classes: Number of classes.

    Returns:
        The space.

    Raises:
        UserError: The images cannot be halved twice.
    """
    return dag_space(dag(config.nodes), config, image, classes)
