"""Drawings of architectures: what lies on a path, with its ops."""

import jax
import pytest
from tiny import SPACES

from jaxhypernas.families import FAMILIES
from jaxhypernas.report.drawing import mermaid
from jaxhypernas.types import Space


def space_of(name: str) -> Space:
    """A space of tiny networks."""
    return FAMILIES[name].build(SPACES[name], (8, 8, 1), 10)[0]


def test_a_cell_is_drawn():
    space = space_of("nasbench201")
    # The third state is read by no op, so that its 1x1 leads nowhere.
    text = (
        "|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|"
        "+|skip_connect~0|avg_pool_3x3~1|none~2|"
    )
    graph = space.graph(space.from_string(text))
    assert mermaid(graph, space.op_names).splitlines() == [
        "flowchart TD",
        '    n0["input"]',
        '    n1["nor_conv_3x3"]',
        '    n4["skip_connect"]',
        '    n5["avg_pool_3x3"]',
        '    n7["output"]',
        "    n0 --> n1",
        "    n0 --> n4",
        "    n1 --> n5",
        "    n4 --> n7",
        "    n5 --> n7",
    ]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_names_for_its_drawings(name):
    space = space_of(name)
    arch = jax.device_get(space.sample(jax.random.key(0), 1.0))
    drawn = mermaid(space.graph(arch), space.op_names)
    assert '["input' in drawn and '["output"]' in drawn and " --> " in drawn
    assert drawn.count("[") == len(
        {line.split("[")[0] for line in drawn.splitlines() if "[" in line}
    )
