"""Does a graph hypernetwork generate weights faster for many architectures at once?

Claim: per candidate, `jax.vmap` over 256 candidates of 17 nodes takes a half of the
time of a Python loop over calls compiled for one candidate, and a third for message
passing alone (node states). The rest is the decoder, whose work grows with candidates.
Command: python experiments/bench/ghn.py [--candidates 256] [--space.nodes 17] [--json]
Hardware: two AVX-512 CPU cores; a minute.
Numbers: weights 2.2x, node states 3.1x (experiments/LOG.md).

Both are compiled before they are timed, on the same candidates; the best of three
counts.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import tyro
from flax import nnx
from measures import best_seconds

from jaxhypernas.archs.sizes import GhnCellConfig
from jaxhypernas.families import FAMILIES
from jaxhypernas.generators.configs import GhnConfig
from jaxhypernas.generators.ghn import ghn
from jaxhypernas.generators.graph_net import GraphNet
from jaxhypernas.types import Arch, Params

IMAGE = (32, 32, 3)
CLASSES = 10
STAGES = 3


@dataclass(frozen=True)
class Args:
    """Arguments."""

    space: GhnCellConfig = GhnCellConfig(channels=8, cells=1, nodes=17)
    """sizes of the networks"""

    candidates: int = 256
    """number of architectures"""

    json: bool = False
    """print one JSON object as the last line"""


def functions(
    args: Args,
) -> tuple[dict[str, Callable[[Params, Arch], Any]], Params, Arch]:
    """Returns the functions of one candidate by name, phi, and the candidates."""
    space, target = FAMILIES["ghn"].build(args.space, IMAGE, CLASSES)
    generator = ghn(GhnConfig(), space, target)
    phi = generator.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), args.candidates)
    archs = jax.jit(jax.vmap(lambda key: space.sample(key, 1.0)))(keys)

    example = jax.eval_shape(space.graph, jax.tree.map(lambda x: x[0], archs))
    net = GraphNet(example.op_NxO.shape[1], GhnConfig(), nnx.Rngs(0))
    graphdef, params = nnx.split(net)

    def node_states(phi: Params, arch: Arch) -> jax.Array:
        module = nnx.merge(graphdef, params)
        return module(space.graph(arch), STAGES * args.space.cells)

    cases = {"weights": generator.generate, "node states": node_states}
    return cases, phi, archs


def main(args: Args) -> None:
    """Times each function in a loop and under vmap."""
    cases, phi, archs = functions(args)
    single = [
        jax.tree.map(lambda x, i=i: x[i], archs)
        for i in range(args.candidates)
    ]
    ratios = []
    for name, function in cases.items():
        one = jax.jit(function)
        many = jax.jit(jax.vmap(function, (None, 0)))
        loop = best_seconds(
            lambda one=one: [one(phi, arch) for arch in single]
        )
        at_once = best_seconds(lambda many=many: many(phi, archs))
        ratio = loop / at_once
        ratios.append({"case": f"ghn/{name}", "ratio": round(ratio, 1)})
        loop_ms = loop / args.candidates * 1e3
        at_once_ms = at_once / args.candidates * 1e3
        print(
            f"{name}: ms per candidate {loop_ms:.3f} in a loop, {at_once_ms:.4f} by "
            f"vmap, {ratio:.1f}x"
        )

    theta = jax.eval_shape(cases["weights"], phi, single[0])
    size = sum(leaf.size for leaf in jax.tree.leaves(theta))
    print(
        f"{args.candidates} candidates of {args.space.nodes} nodes, {size:,} weights "
        f"each, {jax.devices()[0].device_kind}"
    )
    if args.json:
        print(json.dumps({"ratios": ratios}))


if __name__ == "__main__":
    main(tyro.cli(Args))
