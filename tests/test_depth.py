"""Depth: the shortest path, found again in each architecture's graph."""

import jax
import numpy as np
import pytest

from jaxhypernas.archs.population import rows
from jaxhypernas.families import FAMILIES
from jaxhypernas.spaces import ghn, nasbench201, one_shot, pnas

NUMBER = 60

OPS = {
    "nasbench201": nasbench201.STRUCTURE.ops,
    "pnas": pnas.STRUCTURE.ops,
    "one_shot": one_shot.STRUCTURE.ops,
    "ghn": ghn.OPS,
    "nasbench101": ("conv3x3", "conv1x1", "maxpool3x3"),
}
"""The ops of each space; columns of its graphs, after input and output."""


def space_of(name):
    family = FAMILIES[name]
    return family.build(family.config(), (8, 8, 1), 10)[0]


def shortest(space, arch, ops):
    """The length of the shortest path of the architecture's graph."""
    op_NxO, edge_NxN, _ = map(np.asarray, space.graph(arch))
    steps: list[float] = []
    for n, kinds in enumerate(op_NxO):
        lengths = [ops[k - 2] != "skip_connect" for k in np.flatnonzero(kinds)]
        if kinds[0]:
            steps.append(0)
        elif kinds[1]:
            steps.append(min(before(steps, edge_NxN[n]), default=np.inf))
        else:
            reached = min(before(steps, edge_NxN[n]), default=np.inf)
            steps.append(reached + min(lengths, default=np.inf))
    return steps[-1]


def before(steps, edge_N):
    return [steps[m] for m in np.flatnonzero(edge_N)]


@pytest.mark.parametrize("name", OPS)
def test_depth_is_the_shortest_path(name):
    space = space_of(name)
    keys = jax.random.split(jax.random.key(0), NUMBER)
    sample = jax.jit(jax.vmap(lambda key: space.sample(key, 1.0)))
    archs = jax.device_get(sample(keys))
    depth_A = space.depth(archs)
    expected = [
        shortest(space, rows(archs, i), OPS[name]) for i in range(NUMBER)
    ]
    assert depth_A.tolist() == expected
    assert len(set(expected)) > 1


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        # The edge from input to output is a copy, a convolution, or absent.
        (
            "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
            0,
        ),
        ("|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|", 1),
        (
            "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|",
            2,
        ),
        ("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|", np.inf),
    ],
)
def test_depth_of_cells(text, depth):
    space = space_of("nasbench201")
    assert space.depth(space.from_string(text)) == depth


def test_memory_is_a_way_round_all_ops():
    space = space_of("memory_bank")
    arch = space.sample(jax.random.key(0), 1.0)
    assert space.depth(arch) == 0
