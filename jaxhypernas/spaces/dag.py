"""Spaces of cells whose nodes read some earlier states and apply some ops.

`ghn`, `pnas` and `one_shot` are such spaces; `experiments/plugins/residual.py` makes
a space of your own.
"""

from functools import partial

from jaxhypernas.archs.cells import check_image
from jaxhypernas.archs.sizes import CellConfig
from jaxhypernas.spaces import dag_cells, dag_growth, dag_text
from jaxhypernas.spaces.cell_cost import cost
from jaxhypernas.spaces.cell_depth import depth
from jaxhypernas.spaces.cells import graph, op_names
from jaxhypernas.spaces.dag_cells import DagConfig
from jaxhypernas.types import ImageShape, Space


def dag_space(
    dag: DagConfig, config: CellConfig, image: ImageShape, classes: int
) -> Space:
    """Makes a space of cells that grow block by block.

    Example::

        ops = "skip_connect", "nor_conv_3x3", "max_pool_3x3"
        structure = CellStructure(
            ops, inputs=1, write_N=(1, 2, 3), reads=2, ops_at_once=1, stack="residual"
        )
        dag = DagConfig("chain", structure, block_nodes=1, unread_output=True)
        space = dag_space(dag, CellConfig(channels=8, cells=1), (32, 32, 3), 10)

    Args:
        dag: The cells that the space allows.
        config: Channels and cells of the networks; only counts depend on them.
        image: Height, width and channels of an image.
        classes: Number of classes.

    Returns:
        The space. ``log10_size`` counts blocks up to the order of their nodes;
        `dag_text.to_string` has the grammar of its strings.

    Raises:
        UserError: The images cannot be halved twice.
    """
    check_image(image)
    return Space(
        name=dag.name,
        sample=partial(dag_cells.sample, dag),
        mutate=partial(dag_cells.mutate, dag),
        canonical=partial(dag_cells.canonical, dag),
        graph=partial(graph, dag.structure),
        cost=partial(cost, dag.structure, config, image, classes),
        depth=partial(depth, dag.structure),
        to_string=partial(dag_text.to_string, dag),
        from_string=partial(dag_text.from_string, dag),
        log10_size=dag_growth.log10_size(dag),
        growth=dag_growth.growth(dag),
        paths=partial(dag_cells.paths, dag),
        op_names=op_names(dag.structure),
    )
