"""Graph hypernetworks against message passing as loops, as the paper describes it."""

import dataclasses
import math
from collections import deque
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import population, row
from tiny import SPACES

from jaxhypernas.archs.sizes import CellConfig
from jaxhypernas.families import FAMILIES
from jaxhypernas.generators import GENERATORS
from jaxhypernas.generators.configs import GhnConfig
from jaxhypernas.generators.ghn import ghn
from jaxhypernas.generators.graph_net import GraphNet
from jaxhypernas.types import Graph, UserError

pytestmark = pytest.mark.usefixtures("quick_compiler")

OPS, HIDDEN = 5, 6
CONFIGS = {
    "paper": GhnConfig(HIDDEN, passes=2),
    "one pass": GhnConfig(HIDDEN, passes=1),
    "synchronous": GhnConfig(HIDDEN, passes=3, synchronous=True),
    "virtual": GhnConfig(HIDDEN, passes=2, virtual_edges=3),
    "far": GhnConfig(HIDDEN, passes=1, virtual_edges=50),
    "synchronous virtual": GhnConfig(
        HIDDEN, passes=2, virtual_edges=2, synchronous=True
    ),
    "norm": GhnConfig(HIDDEN, passes=1, layer_norm=True),
}


def random_graph(seed, V=7):
    """A chain with other edges thrown in, so that paths of many lengths occur."""
    rng = np.random.default_rng(seed)
    edge = np.tril(rng.random((V, V)) < 0.25, -1) | np.eye(V, k=-1, dtype=bool)
    op = np.eye(OPS)[rng.integers(0, OPS, V)]
    # A node of two ops.
    op[2, 0] = 1
    return Graph(*(jnp.asarray(x, jnp.int32) for x in (op, edge, np.ones(V))))


def network(config, seed=0):
    """A network with biases other than 0, and its parameters in float64."""
    net = GraphNet(OPS, config, nnx.Rngs(seed))
    rng = np.random.default_rng(seed)
    state = jax.tree.map(
        lambda w: jnp.asarray(rng.normal(size=w.shape) * 0.5, jnp.float32),
        nnx.state(net, nnx.Param),
    )
    nnx.update(net, state)
    return net, jax.tree.map(
        lambda w: np.asarray(w, np.float64), nnx.to_pure_dict(state)
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dense(w, x):
    return x @ w["kernel"] + w.get("bias", 0)


def mlp(w, x):
    first, last = w["layers"][0], w["layers"][2]
    return dense(last, np.maximum(dense(first, x), 0))


def gru(w, h, x):
    """Cho et al. 2014, in the form of the usual libraries."""
    (xr, xz, xn), (hr, hz, hn) = (
        np.split(dense(w[name], v), 3)
        for name, v in (("dense_i", x), ("dense_h", h))
    )
    r, z = sigmoid(xr + hr), sigmoid(xz + hz)
    n = np.tanh(xn + r * hn)
    return (1 - z) * n + z * h


def distances(neighbours, start):
    """Edges on the shortest path from a node to every other that it reaches."""
    found, queue = {start: 0}, deque([start])
    while queue:
        v = queue.popleft()
        for u in neighbours[v]:
            if u not in found:
                found[u] = found[v] + 1
                queue.append(u)
    return found


def reference(w, config, graph, cells):
    """States of all nodes of all cells."""
    graph, V = jax.tree.map(np.asarray, graph), len(graph.mask_N)
    sources = [np.flatnonzero(graph.edge_NxN[v]).tolist() for v in range(V)]
    targets = [np.flatnonzero(graph.edge_NxN[:, v]).tolist() for v in range(V)]
    message_of_cell, states = np.zeros(HIDDEN), []

    def received(h, v, neighbours):
        m = np.zeros(HIDDEN)
        for u, s in distances(neighbours, v).items():
            if s == 1:
                m = m + mlp(w["message"], h[u])
            elif 1 < s <= config.virtual_edges:
                m = m + mlp(w["virtual"], h[u]) / s
        return m

    for _ in range(cells):
        h = [dense(w["embed"], graph.op_NxO[v]) for v in range(V)]
        for _ in range(config.passes):
            if config.synchronous:
                new = []
                for v in range(V):
                    m = received(h, v, sources) + received(h, v, targets)
                    new.append(
                        gru(
                            w["gru"],
                            h[v],
                            m + message_of_cell if v == 0 else m,
                        )
                    )
                h = new
                continue
            # In topological order.
            for v in range(V):
                m = received(h, v, sources)
                h[v] = gru(
                    w["gru"], h[v], m + message_of_cell if v == 0 else m
                )
            # And back: 2 V - 1 updates.
            for v in reversed(range(V - 1)):
                m = received(h, v, targets)
                h[v] = gru(
                    w["gru"], h[v], m + message_of_cell if v == 0 else m
                )
        message_of_cell = np.mean(h, 0)
        states.append(h)
    found = np.array(states)
    if config.layer_norm:
        centred = found - found.mean(-1, keepdims=True)
        found = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        found = found * w["norm"]["scale"] + w["norm"]["bias"]
    return found


# Message passing


@pytest.mark.parametrize("name", CONFIGS)
def test_message_passing_is_the_loop(name):
    config = CONFIGS[name]
    net, w = network(config)
    run = nnx.jit(lambda net, graph: net(graph, 3))
    for seed in range(3):
        graph = random_graph(seed)
        np.testing.assert_allclose(
            run(net, graph),
            reference(w, config, graph, 3),
            rtol=1e-4,
            atol=1e-5,
        )


def test_cells_are_a_chain_of_messages():
    net, _ = network(CONFIGS["paper"])
    h_KxVxD = np.asarray(net(random_graph(0), 3))
    np.testing.assert_allclose(
        h_KxVxD[:1], net(random_graph(0), 1), rtol=1e-5, atol=1e-6
    )
    assert (
        np.abs(h_KxVxD[0] - h_KxVxD[1]).max()
        > 1e-4
        < np.abs(h_KxVxD[1] - h_KxVxD[2]).max()
    )


@pytest.mark.parametrize(
    "at",
    [[0, 1, 2, 5, 6, 8, 10], [0, 1, 2, 3, 4, 5, 6]],
    ids=["between", "behind"],
)
@pytest.mark.parametrize("name", CONFIGS)
def test_absent_nodes_change_nothing(name, at):
    """Padding between real nodes, and behind the last one."""
    net, _ = network(CONFIGS[name])
    graph = random_graph(1)
    op, edge, mask = (
        np.zeros((11, OPS), np.int32),
        np.zeros((11, 11), np.int32),
        np.zeros(11, np.int32),
    )
    op[at], mask[at] = graph.op_NxO, 1
    edge[np.ix_(at, at)] = graph.edge_NxN
    run = nnx.jit(lambda net, graph: net(graph, 2))
    padded = np.asarray(run(net, Graph(*map(jnp.asarray, (op, edge, mask)))))
    np.testing.assert_allclose(
        padded[:, at], run(net, graph), rtol=1e-5, atol=1e-6
    )
    if not CONFIGS[name].layer_norm:
        assert not np.delete(padded, at, 1).any()


def test_vmap_over_graphs_is_the_loop():
    net, _ = network(CONFIGS["virtual"])
    graphs = [random_graph(seed) for seed in range(4)]
    graphdef, state = nnx.split(net)

    def run(graph):
        return nnx.merge(graphdef, state)(graph, 2)

    batched = jax.jit(jax.vmap(run))(
        jax.tree.map(lambda *x: jnp.stack(x), *graphs)
    )
    for graph, h in zip(graphs, batched, strict=True):
        np.testing.assert_allclose(
            h, jax.jit(run)(graph), rtol=1e-4, atol=1e-5
        )


def test_every_node_hears_of_every_other():
    """After one pass, ops at both ends of a chain matter to all nodes."""
    net, _ = network(CONFIGS["one pass"])
    graph = random_graph(2)
    base = np.asarray(net(graph, 1))[0]
    for v in (0, 6):
        other = graph._replace(
            op_NxO=graph.op_NxO.at[v].set(jnp.roll(graph.op_NxO[v], 1))
        )
        assert (
            np.abs(np.asarray(net(other, 1))[0] - base).max(-1) > 1e-7
        ).all()


# Generated weights


TINY_GHN = GhnConfig(hidden=8, decoder=8, passes=1)


@cache
def parts(name, ghn_config=TINY_GHN, channels=4, cells=2):
    """A space, its target and a graph hypernetwork for them."""
    config = SPACES[name]
    if isinstance(config, CellConfig):
        config = dataclasses.replace(config, channels=channels, cells=cells)
    space, target = FAMILIES[name].build(config, (8, 8, 1), 10)
    return space, target, ghn(ghn_config, space, target)


def varied_phi(generator, seed=1):
    """Biases and all off their initial values."""
    phi, rng = (
        generator.init(jax.random.key(seed)),
        np.random.default_rng(seed),
    )
    return jax.tree.map(
        lambda w: w + 0.2 * jnp.asarray(rng.normal(size=w.shape), jnp.float32),
        phi,
    )


@pytest.mark.parametrize("space", SPACES)
def test_weights_have_the_targets_shapes(space):
    for config in (
        TINY_GHN,
        dataclasses.replace(
            TINY_GHN, virtual_edges=5, layer_norm=True, fan_in=True
        ),
    ):
        space_, target, generator = parts(space, config)
        phi = jax.eval_shape(generator.init, jax.random.key(0))
        arch = jax.eval_shape(space_.sample, jax.random.key(1), 1.0)
        theta = jax.eval_shape(generator.generate, phi, arch)
        assert jax.tree.structure(theta) == jax.tree.structure(
            target.weight_spec
        )
        for a, b in zip(
            jax.tree.leaves(theta),
            jax.tree.leaves(target.weight_spec),
            strict=True,
        ):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)


@pytest.mark.parametrize("space", SPACES)
def test_the_architecture_matters(space):
    space_, target, generator = parts(space)
    thetas = jax.jit(jax.vmap(generator.generate, (None, 0)))(
        varied_phi(generator), population(space_, 3)
    )
    leaves = list(
        zip(
            jax.tree.leaves(thetas), jax.tree.leaves(target.nodes), strict=True
        )
    )
    differ = [
        bool(np.abs(theta_A[0] - theta_A[1]).max() > 1e-5)
        for theta_A, _ in leaves
    ]
    of_nodes = [ids.ndim > 0 for _, ids in leaves]
    # Memory banks have absent nodes, which are the same everywhere.
    if space == "memory_bank":
        assert any(differ) and all(
            o for d, o in zip(differ, of_nodes, strict=True) if d
        )
        return
    assert differ == of_nodes
    for theta_A, ids in leaves:
        if ids.ndim:
            flat = np.asarray(theta_A[0]).reshape(ids.size, -1).round(6)
            assert np.isfinite(flat).all()
            assert len(np.unique(flat, axis=0)) > ids.size // 2, "nodes differ"
            assert len(np.unique(flat[0])) > flat.shape[1] // 2, (
                "chunks of a kernel differ"
            )


@pytest.mark.parametrize("space", ["nasbench201", "memory_bank"])
def test_vmap_over_candidates_is_the_loop(space):
    space_, _, generator = parts(space)
    phi, archs = varied_phi(generator), population(space_, 3)
    batched = jax.jit(jax.vmap(generator.generate, (None, 0)))(phi, archs)
    run = jax.jit(generator.generate)
    for i in range(3):
        for a, b in zip(
            *map(jax.tree.leaves, (row(batched, i), run(phi, row(archs, i)))),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def fan_in(path, shape):
    """Inputs that one output adds up."""
    kernel = path[-1].key
    # K x L x C: each channel has its own kernel.
    if kernel.startswith("deep"):
        return shape[0] * shape[1]
    return shape[0] if kernel.startswith("wide") else math.prod(shape[:3])


@pytest.mark.parametrize("space", ["ghn", "pnas"])
def test_fan_in(space):
    space_, target, plain = parts(space)
    scaled = parts(space, dataclasses.replace(TINY_GHN, fan_in=True))[2]
    phi, arch = varied_phi(plain), space_.sample(jax.random.key(3), 1.0)
    a, b = (jax.jit(g.generate)(phi, arch) for g in (plain, scaled))
    leaves = zip(
        jax.tree_util.tree_leaves_with_path(a),
        *map(jax.tree.leaves, (b, target.nodes)),
        strict=True,
    )
    for (path, w), v, ids in leaves:
        factor = (
            math.sqrt(2 / fan_in(path, w.shape[ids.ndim :])) if ids.ndim else 1
        )
        np.testing.assert_allclose(v, w * factor, rtol=1e-5, atol=1e-7)


def test_stages_share_a_decoder_by_chunks_of_the_narrowest():
    """phi does not grow with the number of cells; wider stages add places only."""

    def size(cells, channels):
        sizes = {"channels": channels, "cells": cells}
        generator = parts("nasbench201", **sizes)[2]
        phi = jax.eval_shape(generator.init, jax.random.key(0))
        return sum(math.prod(w.shape) for w in jax.tree.leaves(phi["hyper"]))

    assert size(1, 4) == size(5, 4) < size(1, 8)


def test_gradients_reach_every_parameter():
    space_, _, generator = parts(
        "nasbench201",
        dataclasses.replace(TINY_GHN, virtual_edges=3, layer_norm=True),
    )
    phi, archs = varied_phi(generator), population(space_, 8)

    @jax.jit
    def gradient(phi):
        def total(phi):
            thetas = jax.vmap(generator.generate, (None, 0))(phi, archs)
            return jnp.stack(
                [jnp.sin(w).sum() for w in jax.tree.leaves(thetas)]
            ).sum()

        return jax.grad(total)(phi)

    for g in jax.tree.leaves(gradient(phi)):
        assert np.isfinite(g).all() and (np.asarray(g) != 0).any()


def test_decay_is_of_shared_kernels_only():
    _, _, generator = parts("nasbench201")
    phi = generator.init(jax.random.key(0))
    decay = generator.decay(phi)
    assert not any(decay["hyper"])
    for w, wanted in zip(
        *map(jax.tree.leaves, (phi["shared"], decay["shared"])), strict=True
    ):
        assert wanted == (w.ndim > 1)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("hidden", GhnConfig(hidden=0)),
        ("decoder", GhnConfig(decoder=-1)),
        ("passes", GhnConfig(passes=0)),
    ],
)
def test_sizes_below_one(name, config):
    with pytest.raises(UserError, match=f"^{name}: .*at least 1"):
        config.check()


def test_registry():
    space, target, generator = parts("ghn")
    built = GENERATORS["ghn"].build(TINY_GHN, space, target)
    phi = built.init(jax.random.key(0))
    same = jax.tree.map(np.array_equal, phi, generator.init(jax.random.key(0)))
    assert all(jax.tree.leaves(same))
