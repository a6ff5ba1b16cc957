"""Graph HyperNetworks (Zhang, Ren, Urtasun 2019): message passing over an architecture's graph writes its weights.

Node states start as embeddings of the ops. A pass visits the nodes in topological order, then in reverse; each takes
the sum of its neighbours' messages through a GRU cell. A decoder shared by all nodes maps states to weights: as many
channels as a kernel has by concatenating chunks of the narrowest stage's width. In a stack of cells, a cell's mean
state is a message to the next one's first node. Options of GHN-2 (Knyazev et al. 2021, section 4). Deviations:
1. Weights that belong to no node (stem, reductions, projections, head) are learned, shared by all architectures.
2. Chunks of one kernel differ by a learned embedding of their place, added in the decoder's hidden layer.
3. Each kind of kernel has its own last layer of the decoder, and no kernel is sliced from a larger one.
4. Virtual edges leave out neighbours, which have messages of their own (published code: they get both).
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from jaxhypernas.generators.standalone import standalone
from jaxhypernas.types import Arch, Generator, Graph, Space, Target, UserError

MOST = 10_000  # of any size: a typing error asks for more


@dataclass(frozen=True)
class GhnConfig:
    """The hypernetwork's size; defaults are the published one."""

    hidden: int = 32  # units of a node's state and of a message
    decoder: int = 64  # hidden units of the decoder
    passes: int = 5  # T
    synchronous: bool = (
        False  # all nodes at once, from both directions (the paper's ablation)
    )
    virtual_edges: int = 0  # GHN-2: messages over paths up to this length, divided by it; 0: none
    layer_norm: bool = False  # GHN-2: of node states before decoding
    fan_in: bool = False  # GHN-2: kernels times sqrt(2 / fan-in)

    def __post_init__(self):
        for name in ("hidden", "decoder", "passes"):
            if not 1 <= getattr(self, name) <= MOST:
                raise UserError(
                    f"ghn.{name}: {getattr(self, name)} must be at least 1 and at most {MOST}"
                )
        if not 0 <= self.virtual_edges <= MOST:
            raise UserError(
                f"ghn.virtual_edges: {self.virtual_edges} must be 0 (none) or more, at most {MOST}"
            )


class GraphNet(nnx.Module):
    """Gated message passing: graphs to node states."""

    def __init__(self, ops: int, config: GhnConfig, rngs: nnx.Rngs):
        D = config.hidden
        self.config = config
        self.embed = nnx.Linear(ops, D, use_bias=False, rngs=rngs)
        self.message = nnx.Sequential(
            nnx.Linear(D, D, rngs=rngs),
            jax.nn.relu,
            nnx.Linear(D, D, rngs=rngs),
        )
        self.virtual = (
            nnx.Sequential(
                nnx.Linear(D, D, rngs=rngs),
                jax.nn.relu,
                nnx.Linear(D, D, rngs=rngs),
            )
            if config.virtual_edges
            else None
        )
        self.gru = nnx.GRUCell(D, D, rngs=rngs)
        self.norm = nnx.LayerNorm(D, rngs=rngs) if config.layer_norm else None

    def __call__(self, graph: Graph, cells: int) -> jax.Array:
        """h_KxVxD: states of the V nodes of each of K stacked cells of this graph."""
        start_VxD = self.embed(graph.op_NxO.astype(jnp.float32))
        near_VxV, far_VxV = _weights(graph.edge_NxN, self.config.virtual_edges)

        def cell(before_D, _):
            h_VxD = self._pass(
                start_VxD, near_VxV, far_VxV, graph.mask_N, before_D
            )
            return h_VxD.sum(0) / graph.mask_N.sum().astype(jnp.float32), h_VxD

        _, h_KxVxD = lax.scan(
            cell, jnp.zeros(start_VxD.shape[1]), None, length=cells
        )
        return h_KxVxD if self.norm is None else self.norm(h_KxVxD)

    def _messages(self, h):
        """What nodes say to neighbours, and over virtual edges, side by side."""
        return (
            self.message(h)
            if self.virtual is None
            else jnp.concatenate([self.message(h), self.virtual(h)], -1)
        )

    def _pass(self, h_VxD, near_VxV, far_VxV, mask_V, before_D):
        V, D = h_VxD.shape
        mask_V = mask_V.astype(jnp.float32)

        def received(near, far, messages):
            m = near @ messages[:, :D]
            return m if self.virtual is None else m + far @ messages[:, D:]

        if self.config.synchronous:

            def step(h_VxD, _):
                m_VxD = received(
                    near_VxV + near_VxV.T,
                    far_VxV + far_VxV.T,
                    self._messages(h_VxD),
                )
                m_VxD = m_VxD.at[0].add(before_D)
                return self.gru(h_VxD, m_VxD)[0] * mask_V[:, None], None

            return lax.scan(step, h_VxD, None, length=self.config.passes)[0]

        def visit(carry, at):
            h_VxD, messages = carry
            v, forward = at
            near_V = jnp.where(forward, near_VxV[v], near_VxV[:, v])
            far_V = jnp.where(forward, far_VxV[v], far_VxV[:, v])
            m_D = received(near_V, far_V, messages) + jnp.where(
                v == 0, before_D, 0
            )
            h_D = self.gru(h_VxD[v], m_D)[0] * mask_V[v]
            message = self._messages(h_D) * mask_V[v]
            # The last node, where the direction turns, is visited once.
            turned = forward | (v != last)
            h_VxD = h_VxD.at[v].set(jnp.where(turned, h_D, h_VxD[v]))
            return (
                h_VxD,
                messages.at[v].set(jnp.where(turned, message, messages[v])),
            ), None

        last = jnp.where(mask_V > 0, jnp.arange(V), 0).max()
        order = np.concatenate([np.arange(V), np.arange(V)[::-1]])
        forward = np.arange(2 * V) < V
        visits = (
            jnp.asarray(np.tile(order, self.config.passes)),
            jnp.asarray(np.tile(forward, self.config.passes)),
        )
        messages = self._messages(h_VxD) * mask_V[:, None]
        return lax.scan(visit, (h_VxD, messages), visits)[0][0]


def _weights(edge_VxV, cutoff):
    """Weights of neighbours, and of nodes 1 < s <= cutoff edges away: 1 / s."""
    near_VxV = edge_VxV.astype(jnp.float32)

    def further(s, carry):
        reached, far = carry  # reached in less than s edges
        new = ((near_VxV @ reached > 0) | (reached > 0)).astype(
            jnp.float32
        ) - reached
        return reached + new, far + new / s.astype(jnp.float32)

    self_VxV = jnp.eye(edge_VxV.shape[0])
    _, far_VxV = lax.fori_loop(
        2, cutoff + 1, further, (self_VxV + near_VxV, jnp.zeros_like(near_VxV))
    )
    return near_VxV, far_VxV


class Decoder(nnx.Module):
    """Node states to the weights of nodes."""

    def __init__(
        self, spec: dict, nodes: dict, config: GhnConfig, rngs: nnx.Rngs
    ):
        self.hidden = nnx.Linear(config.hidden, config.decoder, rngs=rngs)
        self.fan_in = config.fan_in
        heads, places = {}, {}
        for kind, shapes in _kinds(spec, nodes).items():
            base = tuple(math.gcd(*axis) for axis in zip(*shapes, strict=True))
            heads[kind] = nnx.Linear(config.decoder, math.prod(base), rngs=rngs)
            most = [
                max(axis) // b
                for axis, b in zip(zip(*shapes, strict=True), base, strict=True)
            ]
            places[kind] = nnx.List(
                [
                    nnx.Param(
                        0.1
                        * jax.random.normal(rngs.params(), (n, config.decoder))
                    )
                    for n in most
                ]
            )
        self.heads, self.places = nnx.Dict(heads), nnx.Dict(places)
        self.base = {
            kind: tuple(math.gcd(*a) for a in zip(*s, strict=True))
            for kind, s in _kinds(spec, nodes).items()
        }

    def __call__(self, h_KVxD: jax.Array, spec: dict, nodes: dict) -> dict:
        """Weights of the given shapes, from the states of all nodes."""
        hidden = self.hidden(h_KVxD)

        def decode(path, leaf, ids):
            kind = _kind(path)
            shape, base = leaf.shape[ids.ndim :], self.base[kind]
            grid = [n // b for n, b in zip(shape, base, strict=True)]
            at = hidden[ids.ravel()].reshape(ids.size, *(1,) * len(grid), -1)
            for axis, n in enumerate(grid):
                place = self.places[kind][axis][...][:n]
                at = at + place.reshape(
                    (1,) * (axis + 1)
                    + (n,)
                    + (1,) * (len(grid) - axis - 1)
                    + (-1,)
                )
            w = self.heads[kind](jax.nn.relu(at)).reshape(
                ids.size, *grid, *base
            )
            # Chunks side by side along each axis: (node, grid..., base...) to (node, grid * base ...).
            order = [
                0,
                *(
                    a + 1 + half * len(grid)
                    for a in range(len(grid))
                    for half in (0, 1)
                ),
            ]
            w = w.transpose(order).reshape(leaf.shape)
            return (
                w * math.sqrt(2 / math.prod(shape[:-1])) if self.fan_in else w
            )

        return jax.tree_util.tree_map_with_path(decode, spec, nodes)


def _kind(path) -> str:
    """What a leaf is, whatever its stage: the keys of its path but the first number."""
    keys = [str(getattr(key, "key", getattr(key, "idx", key))) for key in path]
    return "_".join(keys[:1] + keys[2:])


def _kinds(spec, nodes) -> dict[str, list[tuple[int, ...]]]:
    """The shapes of each kind of kernel."""
    kinds: dict[str, list] = {}
    for (path, leaf), ids in zip(
        jax.tree_util.tree_leaves_with_path(spec),
        jax.tree.leaves(nodes),
        strict=True,
    ):
        kinds.setdefault(_kind(path), []).append(leaf.shape[ids.ndim :])
    return kinds


class _Hyper(nnx.Module):
    def __init__(self, ops, spec, nodes, config, rngs):
        self.graph_net, self.decoder = (
            GraphNet(ops, config, rngs),
            Decoder(spec, nodes, config, rngs),
        )


def ghn(config: GhnConfig, space: Space, target: Target) -> Generator:
    """The generator. phi: ``hyper``, the hypernetwork's parameters, and ``shared``, the weights that have no node.

    Weight decay applies to shared kernels only.
    """
    has_nodes = {
        name: any(leaf.ndim for leaf in jax.tree.leaves(ids))
        for name, ids in target.nodes.items()
    }
    spec, nodes = (
        {n: part[n] for n in part if has_nodes[n]}
        for part in (target.weight_spec, target.nodes)
    )
    shared = standalone(
        *(
            {n: part[n] for n in part if not has_nodes[n]}
            for part in (target.weight_spec, target.nodes)
        )
    )
    V, ops = jax.eval_shape(
        lambda: space.graph(space.sample(jax.random.key(0), 1.0))
    ).op_NxO.shape
    cells = max(int(ids.max()) for ids in jax.tree.leaves(nodes)) // V + 1

    def module(key):
        return _Hyper(ops, spec, nodes, config, nnx.Rngs(params=key))

    abstract = nnx.eval_shape(lambda: module(jax.random.key(0)))
    graphdef, treedef = (
        nnx.graphdef(abstract),
        jax.tree.structure(nnx.state(abstract)),
    )

    def init(key):
        hyper_key, shared_key = jax.random.split(key)
        return {
            "hyper": jax.tree.leaves(nnx.state(module(hyper_key))),
            "shared": shared.init(shared_key),
        }

    def generate(phi, arch: Arch):
        hyper = nnx.merge(graphdef, jax.tree.unflatten(treedef, phi["hyper"]))
        h_KxVxD = hyper.graph_net(space.graph(arch), cells)
        return {
            **phi["shared"],
            **hyper.decoder(h_KxVxD.reshape(cells * V, -1), spec, nodes),
        }

    def decay(phi):
        return {
            "hyper": jax.tree.map(lambda w: False, phi["hyper"]),
            "shared": shared.decay(phi["shared"]),
        }

    return Generator(init, generate, decay)
