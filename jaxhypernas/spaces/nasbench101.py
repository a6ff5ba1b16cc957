"""NAS-Bench-101 (Ying et al. 2019): 423,624 cells.

A cell is a graph of up to 7 vertices and 9 edges with an op on each interior vertex.
Only vertices on a path from input to output are part of a network, and an architecture
holds no others: interior vertices come first, op 0 marks the unused places. Deviations:

1. Counts include BatchNorm's scale and shift, as the published table does (the networks
   here have none).
2. Samples are close to uniform over the cells (the published random search draws 21
   edges with probability 1/2 and so prefers small cells), and a mutation is one change
   (published: about three edges and an op).

There is no growth: the vertices that feed the output share its channels, so that a cell
with one vertex more is another network throughout. For the same reason no network has
all paths.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.archs.cells import STAGES, check_image
from jaxhypernas.archs.nasbench101 import (
    MAX_VERTICES,
    OPS,
    Nasbench101Arch,
    prune,
    vertex_channels,
)
from jaxhypernas.archs.sizes import Nasbench101Config
from jaxhypernas.spaces.nasbench101_codes import CELLS_OF_VERTICES, canonical
from jaxhypernas.spaces.nasbench101_sampling import mutate, sample
from jaxhypernas.spaces.nasbench101_text import from_string, to_string
from jaxhypernas.types import Cost, Graph, ImageShape, Space


def nasbench101(
    config: Nasbench101Config, image: ImageShape, classes: int
) -> Space:
    """Makes the space of NAS-Bench-101; counts are the published ones.

    Args:
        config: Sizes of the networks (published: 128 channels, 3 cells).
        image: Height, width and channels of an image.
        classes: Number of classes.

    Returns:
        The space; `nasbench101_text.to_string` has the grammar of its strings.

    Raises:
        UserError: The images cannot be halved twice.
    """
    check_image(image)
    return Space(
        name="nasbench101",
        sample=sample,
        mutate=mutate,
        canonical=canonical,
        graph=_graph,
        cost=partial(_cost, config, image, classes),
        depth=_depth,
        to_string=to_string,
        from_string=from_string,
        log10_size=math.log10(sum(CELLS_OF_VERTICES.values())),
        op_names=("input", "output", *OPS),
    )


def _graph(arch: Nasbench101Arch) -> Graph:
    """Makes the cell's graph. Columns of op_NxO: input, output, then `OPS`."""
    op_NxO = jax.nn.one_hot(arch.op_N - 1, len(OPS), dtype=jnp.int32)
    op_VxO = jnp.zeros((MAX_VERTICES, 2 + len(OPS)), jnp.int32)
    op_VxO = op_VxO.at[0, 0].set(1)
    op_VxO = op_VxO.at[-1, 1].set(1)
    op_VxO = op_VxO.at[1:-1, 2:].set(op_NxO)

    exists_N = (jnp.asarray(arch.op_N) > 0).astype(jnp.int32)
    mask_V = jnp.pad(exists_N, (1, 1), constant_values=1)
    return Graph(op_VxO, jnp.asarray(arch.edge_VxV).T, mask_V)


def _depth(arch: Nasbench101Arch) -> np.ndarray:
    """Counts the interior vertices of the shortest path from input to output."""
    edge_VxV = np.asarray(arch.edge_VxV) > 0
    steps_V = np.full(edge_VxV.shape[:-1], np.inf)
    # Input and output are no ops: a path is as long as its interior vertices.
    steps_V[..., 0] = 0
    for v in range(1, MAX_VERTICES):
        before = np.where(edge_VxV[..., v], steps_V, np.inf)
        steps_V[..., v] = before.min(-1) + (v < MAX_VERTICES - 1)
    return steps_V[..., -1]


def _cost(
    config: Nasbench101Config,
    image: ImageShape,
    classes: int,
    arch: Nasbench101Arch,
) -> Cost:
    """Counts weights and multiply-adds, with any leading axes; all of them are live."""
    arrays = (np.asarray(x, np.int64) for x in arch)
    op_N, edge_VxV = prune(Nasbench101Arch(*arrays))
    # Positions of the kernel of each op; op 0 is no vertex.
    kernel_N = np.array([0, 9, 1, 0])[op_N]

    C = config.channels
    area = image[0] * image[1]
    lead = op_N.shape[:-1]
    stem = np.full(lead, image[2] * 9 * C, np.int64)
    params = stem + 2 * C
    flops = stem * area
    cell_flops = np.zeros(lead, np.int64)

    inputs = C
    for stage in range(STAGES):
        C = config.channels * 2**stage
        area = image[0] * image[1] // 4**stage
        channel_N = np.asarray(vertex_channels(edge_VxV, C), np.int64)
        weights = (kernel_N * channel_N**2).sum(-1)

        # Channels that the input is projected to, by every vertex that it feeds.
        into_N = edge_VxV[..., 0, 1:-1]
        into_output = edge_VxV[..., 0, -1]
        projected = (channel_N * into_N).sum(-1) + C * into_output
        convolved = ((kernel_N > 0) * channel_N).sum(-1)
        norms = 2 * (projected + convolved)

        for _ in range(config.cells):
            cell = weights + projected * inputs
            params = params + cell + norms
            flops = flops + cell * area
            cell_flops = cell_flops + cell * area
            inputs = C

    params = params + (C + 1) * classes
    flops = flops + C * classes
    return Cost(params, flops, params, flops, cell_flops)
