"""Graph HyperNetworks (Zhang, Ren, Urtasun 2019): message passing writes the weights.

Node states start as embeddings of the ops. A pass visits the nodes in topological
order, then in reverse; each node takes the sum of its neighbours' messages through a
GRU cell. A decoder shared by all nodes maps states to weights. In a stack of cells, a
cell's mean state is a message to the next cell's first node. Options of GHN-2 (Knyazev
et al. 2021, section 4) are in `GhnConfig`. Deviations from the papers:

1. Weights that belong to no node (stem, reductions, projections, head) are learned and
   shared by all architectures.
2. Chunks of one kernel differ by a learned embedding of their place, added in the
   decoder's hidden layer.
3. Each kind of kernel has a last layer of the decoder of its own, and no kernel is
   sliced from a larger one.
4. Virtual edges leave out neighbours, which have messages of their own. (Published
   code: neighbours get both.)
"""

from typing import Any

import jax
from flax import nnx

from jaxhypernas.generators.configs import GhnConfig
from jaxhypernas.generators.graph_net import GraphNet
from jaxhypernas.generators.hyper import hyper_generator
from jaxhypernas.generators.node_decoder import NodeDecoder
from jaxhypernas.generators.node_weights import (
    graph_shape,
    names_of_node_weights,
)
from jaxhypernas.generators.standalone import standalone
from jaxhypernas.types import Arch, Generator, Params, Space, Target


class _GraphHyperNet(nnx.Module):
    """Message passing, then the decoder."""

    def __init__(
        self,
        ops: int,
        spec: dict[str, Any],
        nodes: dict[str, Any],
        config: GhnConfig,
        rngs: nnx.Rngs,
    ):
        self.graph_net = GraphNet(ops, config, rngs)
        self.decoder = NodeDecoder(spec, nodes, config, rngs)


def ghn(config: GhnConfig, space: Space, target: Target) -> Generator:
    """The graph hypernetwork as a generator.

    phi has ``hyper``, the hypernetwork's parameters, and ``shared``, the weights that
    belong to no node. Weight decay applies to shared kernels only.

    Args:
        config: The size of the hypernetwork.
        space: The space whose graphs it reads.
        target: The networks to generate weights for.

    Returns:
        The generator.

    Example::

        generator = ghn(GhnConfig(), space, target)
        phi = generator.init(jax.random.key(0))
        theta = generator.generate(phi, arch)
    """
    generated = names_of_node_weights(target)
    others = [name for name in target.nodes if name not in generated]
    spec = {name: target.weight_spec[name] for name in generated}
    nodes = {name: target.nodes[name] for name in generated}

    # Nodes are numbered over all stacked cells.
    nodes_of_cell, ops = graph_shape(space)
    last_node = max(int(ids.max()) for ids in jax.tree.leaves(nodes))
    cells = last_node // nodes_of_cell + 1

    def make_module(rngs: nnx.Rngs) -> _GraphHyperNet:
        return _GraphHyperNet(ops, spec, nodes, config, rngs)

    def generate_weights(hyper: _GraphHyperNet, arch: Arch) -> Params:
        h_KxNxD = hyper.graph_net(space.graph(arch), cells)
        h_VxD = h_KxNxD.reshape(cells * nodes_of_cell, -1)
        return hyper.decoder(h_VxD, spec, nodes)

    shared = standalone(
        {name: target.weight_spec[name] for name in others},
        {name: target.nodes[name] for name in others},
    )
    return hyper_generator(make_module, generate_weights, shared)
