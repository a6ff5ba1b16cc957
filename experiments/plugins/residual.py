"""A family of your own: chains of ops, each of which may look back.

    jaxhypernas search --plugin experiments/plugins/residual.py \
        --space residual --space.nodes 4 --generator ghn --strategy random

Two minutes on two cores, on digits. The family trains and scores with every generator
and is searched by every strategy, on the command line and from Python.

A space of cells is a `DagConfig`: the ops (names in `targets.ops.OPS`, where you can
add more), what each node may read, and what makes the output. For networks that are
not cells, write a `Space` and a `Target` (types.py), as memory_bank does.
"""

from dataclasses import dataclass

from jaxhypernas import FAMILIES, Family, Space, Target
from jaxhypernas.archs.cells import CellStructure
from jaxhypernas.archs.sizes import CellConfig, check_size
from jaxhypernas.spaces.dag import DagConfig, dag_space
from jaxhypernas.targets.cell import cell_network

OPS = ("skip_connect", "nor_conv_1x1", "nor_conv_3x3", "max_pool_3x3")


@dataclass(frozen=True)
class ResidualConfig(CellConfig):
    """Sizes of the networks."""

    nodes: int = 3
    """nodes of a cell"""

    def check(self) -> None:
        """Raises `UserError` for a size out of range."""
        super().check()
        check_size("nodes", self.nodes, most=20)


def build(
    config: ResidualConfig, image: tuple[int, int, int], classes: int
) -> tuple[Space, Target]:
    """Returns the space and its target."""
    structure = CellStructure(
        OPS,
        inputs=1,
        write_N=tuple(range(1, config.nodes + 1)),
        reads=2,
        ops_at_once=1,
        stack="residual",
    )
    dag = DagConfig("residual", structure, block_nodes=1, unread_output=True)
    return (
        dag_space(dag, config, image, classes),
        cell_network(structure, config, image, classes),
    )


FAMILIES["residual"] = Family(ResidualConfig, build)
