"""NAS-Bench-101: published counts, cells up to isomorphism, networks.

Networks are compared with plain ones built from each cell's string.
"""

import csv
import re
from itertools import permutations, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import row, same, stack
from reference_nasbench101 import Plain
from tiny import NEEDS_COMPILER, generator

from jaxhypernas.archs.nasbench101 import (
    MAX_EDGES,
    MAX_INTERIOR,
    MAX_VERTICES,
    OPS,
    Nasbench101Arch,
    compact,
    prune,
    vertex_channels,
)
from jaxhypernas.archs.population import rows
from jaxhypernas.archs.sizes import Nasbench101Config
from jaxhypernas.numerics import cpu
from jaxhypernas.spaces.nasbench101 import nasbench101
from jaxhypernas.spaces.nasbench101_codes import (
    CELLS_OF_VERTICES,
    adjacencies,
    canonical,
    edges_of,
)
from jaxhypernas.spaces.nasbench101_sampling import mutate
from jaxhypernas.targets.nasbench101 import nasbench101 as network
from jaxhypernas.types import UserError

pytestmark = pytest.mark.usefixtures("quick_compiler")

IMAGE, CLASSES, BATCH, DRAWN = (8, 8, 3), 5, 4, 600
CONFIG = Nasbench101Config(channels=7, cells=2)
SPACE = nasbench101(CONFIG, IMAGE, CLASSES)

# Every way of splitting 7 channels, vertices of several widths, the input at the
# output, no interior vertex.
CELLS = [
    "input output|0-1",
    "input maxpool3x3 output|0-1 0-2 1-2",
    "input conv3x3-bn-relu conv1x1-bn-relu maxpool3x3 output"
    "|0-1 0-2 0-3 0-4 1-4 2-4 3-4",
    "input conv1x1-bn-relu conv3x3-bn-relu maxpool3x3 conv3x3-bn-relu output"
    "|0-1 0-4 1-2 1-3 2-5 3-5 3-4 4-5",
    "input maxpool3x3 conv3x3-bn-relu conv1x1-bn-relu conv3x3-bn-relu maxpool3x3 output"
    "|0-1 1-2 1-3 2-4 2-6 3-5 4-6 5-6 0-6",
    "input conv1x1-bn-relu conv3x3-bn-relu conv1x1-bn-relu maxpool3x3 output"
    "|0-1 0-2 0-3 0-4 1-5 2-5 3-5 4-5",
]


def close(a, b):
    np.testing.assert_allclose(
        a, b, rtol=2e-4, atol=2e-4 * float(np.abs(b).max())
    )


def relabel(arch, order):
    """The interior vertices in another order; None where edges would go backwards."""
    at = [0, *(i + 1 for i in order), MAX_VERTICES - 1]
    edge = arch.edge_VxV[np.ix_(at, at)]
    return (
        None
        if np.tril(edge).any()
        else Nasbench101Arch(arch.op_N[list(order)], edge)
    )


def paths(arch):
    """The vertices on a path from input to output, by walking every path."""
    ops = [1, *arch.op_N.tolist(), 1]
    found, walks = set(), [[0]]
    while walks:
        walk = walks.pop()
        if walk[-1] == MAX_VERTICES - 1:
            found |= set(walk)
        walks += [
            [*walk, v]
            for v in range(MAX_VERTICES)
            if arch.edge_VxV[walk[-1], v] and ops[v]
        ]
    return found


canonical_one, canonical_all, mutate_all = (
    jax.jit(canonical),
    jax.jit(jax.vmap(canonical)),
    jax.jit(jax.vmap(mutate)),
)


@pytest.fixture(scope="module")
def drawn():
    """600 samples and a mutation of each, NumPy."""
    keys = jax.random.split(jax.random.key(0), DRAWN)
    samples = jax.jit(jax.vmap(lambda key: SPACE.sample(key, 1.0)))(keys)
    mutated = mutate_all(keys, samples)
    return jax.tree.map(np.asarray, samples), jax.tree.map(np.asarray, mutated)


# The space


def test_params_are_the_published(shared):
    with (shared / "data" / "nasbench101_dev.csv").open() as file:
        table = list(csv.DictReader(file))
    sizes = Nasbench101Config(channels=128, cells=3)
    published = nasbench101(sizes, (32, 32, 3), 10)
    texts = [f"{row['ops']}|{row['edges']}" for row in table]
    archs = [published.from_string(text) for text in texts]
    assert [published.to_string(arch) for arch in archs] == texts
    params = np.array([int(row["params"]) for row in table])
    first = jax.tree.map(np.asarray, canonical_all(stack(archs)))
    counts = published.cost(first)
    np.testing.assert_array_equal(counts.params, params)
    np.testing.assert_array_equal(counts.live_params, params)
    # The table lists some cells under other labels than the labels that were counted:
    # there, other vertices get the remainder of the channels.
    listed = published.cost(stack(archs)).params
    assert (listed == params).sum() == 2948
    assert np.abs(listed / params - 1).max() < 0.01


def test_cost_counts_the_weights_of_the_plain_network(drawn):
    theta = random_theta(network(CONFIG, IMAGE, CLASSES), 0)
    for arch in [SPACE.from_string(text) for text in CELLS] + [
        row(drawn[0], i) for i in range(5)
    ]:
        plain = Plain(theta, SPACE.to_string(arch), 2)
        plain(np.ones((1, *IMAGE), np.float32))
        cost = SPACE.cost(arch)
        assert (cost.params, cost.flops) == (plain.params, plain.flops)
        assert cost.live_cell_flops == plain.cell_flops
        assert cost.params.dtype == cost.flops.dtype == np.int64


def test_cost_of_a_population_is_that_of_each(drawn):
    population = SPACE.cost(rows(drawn[0], slice(0, 12)))
    assert same(
        population, stack([SPACE.cost(row(drawn[0], i)) for i in range(12)])
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("input output", "not 'input OP"),
        ("input conv3x3-bn-relu|0-1", "not 'input OP"),
        ("|0-1", "not 'input OP"),
        (
            "input conv5x5 output|0-1 1-2",
            "op 'conv5x5' is not one of conv3x3-bn-relu,",
        ),
        (
            "input " + "maxpool3x3 " * 6 + "output|0-1",
            "8 vertices: there are 7 at most",
        ),
        (
            "input maxpool3x3 output|0-1 1-3",
            "edge '1-3' is not FROM-TO with 0 <= FROM < TO <= 2",
        ),
        ("input maxpool3x3 output|0-1 1-1", "edge '1-1' is not"),
        ("input maxpool3x3 output|0-1,1-2", "edge '0-1,1-2' is not"),
        ("input maxpool3x3 output|0-1", "no path from input to output"),
        (
            "input maxpool3x3 maxpool3x3 maxpool3x3 output"
            "|0-1 0-2 0-3 0-4 1-2 1-3 1-4 2-3 2-4 3-4",
            "10 edges on paths",
        ),
    ],
)
def test_wrong_strings(text, message):
    with pytest.raises(UserError, match=re.escape(message)):
        SPACE.from_string(text)


def test_images_that_cannot_be_halved_twice():
    for make in nasbench101, network:
        with pytest.raises(UserError, match="multiples of 4"):
            make(CONFIG, (30, 32, 3), 10)


def test_strings_of_drawn_cells_come_back(drawn):
    for population in drawn:
        for i in range(100):
            arch = row(population, i)
            assert same(SPACE.from_string(SPACE.to_string(arch)), arch)


def test_dangling_vertices_of_a_string_are_pruned():
    text = "input maxpool3x3 conv3x3-bn-relu conv1x1-bn-relu output|0-1 0-3 2-4 3-4"
    assert (
        SPACE.to_string(SPACE.from_string(text))
        == "input conv1x1-bn-relu output|0-1 1-2"
    )


def test_samples_and_mutations_are_valid(drawn):
    for population in drawn:
        for i in range(DRAWN):
            arch = row(population, i)
            assert arch.op_N.dtype == arch.edge_VxV.dtype == np.int32
            vertices = (arch.op_N > 0).sum()
            assert (
                set(arch.op_N[:vertices].tolist()) <= {1, 2, 3}
                and not arch.op_N[vertices:].any()
            )
            assert (
                set(arch.edge_VxV.ravel().tolist()) <= {0, 1}
                and not np.tril(arch.edge_VxV).any()
            )
            assert 1 <= arch.edge_VxV.sum() <= MAX_EDGES
            assert paths(arch) == {
                0,
                *range(1, vertices + 1),
                MAX_VERTICES - 1,
            }
            assert set(np.argwhere(arch.edge_VxV).ravel().tolist()) == paths(
                arch
            )


def test_samples_have_vertices_as_the_published_cells(drawn):
    share = np.bincount((drawn[0].op_N > 0).sum(1), minlength=6) / DRAWN
    np.testing.assert_allclose(
        share,
        np.array(list(CELLS_OF_VERTICES.values()))
        / sum(CELLS_OF_VERTICES.values()),
        atol=0.05,
    )
    strings = {SPACE.to_string(row(drawn[0], i)) for i in range(DRAWN)}
    assert len(strings) > 0.98 * DRAWN
    assert all(
        set((drawn[0].op_N[:, n]).tolist()) == {1, 2, 3} for n in range(3)
    )


def test_mutations_are_one_change(drawn):
    kinds: set = set()
    for i in range(DRAWN):
        a, b = row(drawn[0], i), row(drawn[1], i)
        assert not same(a, b)
        vertices = int((b.op_N > 0).sum() - (a.op_N > 0).sum())
        edges = int(b.edge_VxV.sum() - a.edge_VxV.sum())
        changed = (
            int((a.op_N != b.op_N).sum()),
            int((a.edge_VxV != b.edge_VxV).sum()),
        )
        if vertices == 0:
            assert changed in {(1, 0), (0, 1), (0, 2)}
            kinds.add((*changed, edges))
        else:
            assert abs(vertices) == 1
            kinds.add(vertices)
    assert kinds == {(1, 0, 0), (0, 1, 1), (0, 1, -1), (0, 2, 0), 1, -1}


def test_a_cell_without_interior_vertices_has_neighbours():
    arch = SPACE.from_string("input output|0-1")
    found = mutate_all(
        jax.random.split(jax.random.key(0), DRAWN), stack([arch] * DRAWN)
    )
    strings = {SPACE.to_string(row(found, i)) for i in range(DRAWN)}
    edges = "0-1 1-2", "0-1 0-2 1-2"
    assert strings == {
        f"input {op} output|{e}" for op, e in product(OPS, edges)
    }


def test_canonical_is_the_first_of_all_relabellings(drawn):
    """The code of the published enumeration: the graph's bits, then its labels."""

    def code(arch):
        bits = sum(
            2 ** (u + v * (v - 1) // 2)
            for u, v in np.argwhere(arch.edge_VxV).tolist()
        )
        return bits, arch.op_N.tolist()

    for i in range(40):
        arch = row(drawn[1], i)
        vertices = int((arch.op_N > 0).sum())
        orders = [
            [*order, *range(vertices, MAX_INTERIOR)]
            for order in permutations(range(vertices))
        ]
        relabelled = [
            r for order in orders if (r := relabel(arch, order)) is not None
        ]
        expected = min(relabelled, key=code)
        for other in relabelled[:8]:
            assert same(canonical_one(other), expected)


def test_canonical_prunes_what_is_off_every_path():
    def cells(seed):
        rng = np.random.default_rng(seed)
        edge = np.triu(
            rng.random((MAX_VERTICES, MAX_VERTICES)) < 0.35, 1
        ).astype(np.int32)
        return Nasbench101Arch(
            rng.integers(0, 4, MAX_INTERIOR).astype(np.int32), edge
        )

    archs = [cells(seed) for seed in range(60)]
    found, sizes = canonical_all(stack(archs)), set()
    for i, arch in enumerate(archs):
        alive = paths(arch)
        pruned = prune(arch)
        assert set(np.argwhere(pruned.edge_VxV).ravel().tolist()) == alive
        assert {n + 1 for n in np.flatnonzero(pruned.op_N)} == alive - {
            0,
            MAX_VERTICES - 1,
        }
        assert same(row(found, i), canonical_one(compact(arch)))
        assert same(SPACE.cost(arch), SPACE.cost(compact(arch)))
        sizes.add(len(alive))
    assert len(sizes) > 3


@pytest.mark.parametrize("vertices", CELLS_OF_VERTICES)
def test_as_many_cells_as_published(vertices):
    """The classes that canonical makes of all labelled cells: the published 423,624."""
    ops = np.array(
        list(product((1, 2, 3), repeat=vertices - 2)), np.int32
    ).reshape(3 ** (vertices - 2), vertices - 2)
    ops_KxN = np.pad(ops, ((0, 0), (0, MAX_VERTICES - vertices)))
    codes = adjacencies(vertices)
    codes = (
        np.pad(codes, (0, -len(codes) % 400), mode="edge")
        if len(codes) > 400
        else codes
    )

    @jax.jit
    def ids(codes):
        def one(arch):
            first = canonical(arch)
            place = np.arange(MAX_VERTICES)
            bit_VxV = place[:, None] + (place * (place - 1) // 2)[None]
            bits = (
                first.edge_VxV
                << np.where(place[:, None] < place[None], bit_VxV, 0)
            ).sum()
            return bits, (first.op_N * 4 ** np.arange(MAX_INTERIOR)).sum()

        pairs = Nasbench101Arch(
            jnp.tile(ops_KxN, (len(codes), 1)),
            jnp.repeat(edges_of(codes), len(ops_KxN), 0).astype(jnp.int32),
        )
        return jax.lax.map(one, pairs, batch_size=256)

    found = set()
    for i in range(0, len(codes), 400):
        bits, labels = (
            np.asarray(x, np.int64)
            for x in ids(jnp.asarray(codes[i : i + 400]))
        )
        found.update((bits * 1024 + labels).tolist())
    assert len(found) == CELLS_OF_VERTICES[vertices]


def test_graph():
    graph = SPACE.graph(
        SPACE.from_string(
            "input conv1x1-bn-relu maxpool3x3 output|0-1 0-3 1-2 2-3"
        )
    )
    assert [int(op.argmax()) for op in graph.op_NxO] == [0, 3, 4, 0, 0, 0, 1]
    assert (
        graph.op_NxO.sum(1).tolist()
        == graph.mask_N.tolist()
        == [1, 1, 1, 0, 0, 0, 1]
    )
    assert np.argwhere(graph.edge_NxN).tolist() == [
        [1, 0],
        [2, 1],
        [6, 0],
        [6, 2],
    ]


def test_log10_size():
    assert 10**SPACE.log10_size == pytest.approx(423_624)


# The networks


def random_theta(target, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
        target.weight_spec,
    )


@pytest.fixture(scope="module")
def case(drawn):
    target = network(CONFIG, IMAGE, CLASSES)
    archs = [SPACE.from_string(text) for text in CELLS] + [
        row(population, i) for population in drawn for i in range(5)
    ]
    x = (
        np.random.default_rng(0)
        .normal(size=(BATCH, *IMAGE))
        .astype(np.float32)
    )
    apply = jax.jit(target.apply)
    return target, apply, random_theta(target, 3), archs, x


@NEEDS_COMPILER
def test_logits_by_cpp_are_the_same(case):
    assert cpu.available()
    target, apply, theta, archs, x = case
    native = jax.jit(target.forms["native"].apply)
    for arch in archs:
        close(native(theta, arch, x), apply(theta, arch, x))


def test_logits_are_those_of_the_plain_network(case):
    _, apply, theta, archs, x = case
    for arch in archs:
        close(
            apply(theta, arch, x),
            Plain(theta, SPACE.to_string(arch), CONFIG.cells)(x),
        )
    assert apply._cache_size() == 1


def test_isomorphic_cells_with_their_weights_have_equal_logits(case, drawn):
    """If weights move with their vertices, and vertices that feed the output keep their
    order: that of the concatenation."""
    _, apply, theta, _, x = case
    seen = 0
    for arch in (row(drawn[0], i) for i in range(60)):
        feeding = np.flatnonzero(arch.edge_VxV[1:-1, -1]).tolist()
        orders = [
            order
            for order in permutations(range(MAX_INTERIOR))
            if [n for n in order if n in feeding] == feeding
            and relabel(arch, order) is not None
        ]
        if len(orders) > 1:
            at = list(orders[-1])
            cells = [
                {
                    name: w[
                        :, [*at, MAX_INTERIOR] if name == "project" else at
                    ]
                    for name, w in stage.items()
                }
                for stage in theta["cells"]
            ]
            close(
                apply({**theta, "cells": cells}, relabel(arch, at), x),
                apply(theta, arch, x),
            )
            seen += 1
    assert seen > 5


def test_vertices_off_every_path_change_nothing(case):
    _, apply, theta, _, x = case
    text = "input maxpool3x3 conv3x3-bn-relu output|0-1 0-2 1-2 2-3"
    arch = SPACE.from_string(text)
    edge = arch.edge_VxV.copy()
    edge[1, 4] = edge[0, 5] = edge[3, 6] = 1
    dangling = Nasbench101Arch(np.array([3, 1, 1, 2, 1], np.int32), edge)
    np.testing.assert_array_equal(
        apply(theta, dangling, x), apply(theta, arch, x)
    )


def used(target, arch):
    """Which weights the network of a cell uses, from its arrays."""
    masks = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, bool), target.weight_spec
    )
    for name in ("stem", "head", "bias"):
        masks[name][...] = True
    inputs = CONFIG.channels
    for s, mask in enumerate(masks["cells"]):
        c = CONFIG.channels * 2**s
        width = [*vertex_channels(arch.edge_VxV, c), c]
        for i, t in product(range(CONFIG.cells), range(MAX_INTERIOR + 1)):
            w = width[t]
            mask["project"][i, t, :inputs, :w] = arch.edge_VxV[0, t + 1]
            inputs = c if t == MAX_INTERIOR else inputs
            if t < MAX_INTERIOR:
                mask["conv3x3"][i, t, :, :, :w, :w] = arch.op_N[t] == 1
                mask["conv1x1"][i, t, :w, :w] = arch.op_N[t] == 2
    return masks


@pytest.fixture(scope="module")
def loss_and_gradient(case):
    """Of (theta, arch), compiled once."""
    target, x = case[0], case[-1]
    return jax.jit(
        jax.value_and_grad(
            lambda theta, arch: jnp.square(target.apply(theta, arch, x)).sum()
        )
    )


def test_gradients_of_unused_weights_are_zero(case, loss_and_gradient):
    target, _, theta, archs, _ = case
    for arch in archs[:10]:
        gradients = loss_and_gradient(theta, arch)[1]
        for g, m in zip(
            jax.tree.leaves(gradients),
            jax.tree.leaves(used(target, arch)),
            strict=True,
        ):
            assert np.isfinite(g).all()
            assert not np.asarray(g)[~m].any()
            # A kernel from a channel that ReLU leaves dead has no gradient either.
            assert not m.any() or (np.asarray(g)[m] != 0).mean() > 0.5


def test_vmap_is_a_loop(case):
    target, apply, theta, archs, x = case
    logits = jax.jit(jax.vmap(target.apply, (None, 0, None)))(
        theta, stack(archs[:6]), x
    )
    for i, arch in enumerate(archs[:6]):
        close(logits[i], apply(theta, arch, x))


def test_chosen_ops_run_alone(case):
    target, _, theta, archs, x = case
    text = str(
        jax.make_jaxpr(target.apply)(
            theta, jax.tree.map(jnp.asarray, archs[0]), x
        )
    )
    assert text.count("cond[") >= 12


def test_nodes_are_vertices(case):
    nodes = case[0].nodes
    assert (
        nodes["stem"].shape == nodes["head"].shape == nodes["bias"].shape == ()
    )
    for s in range(3):
        first = MAX_VERTICES * (2 * s + np.arange(2)[:, None])
        np.testing.assert_array_equal(
            nodes["cells"][s]["conv3x3"], first + np.arange(1, 6)
        )
        np.testing.assert_array_equal(
            nodes["cells"][s]["conv1x1"], first + np.arange(1, 6)
        )
        np.testing.assert_array_equal(
            nodes["cells"][s]["project"], first + np.arange(1, 7)
        )


@pytest.mark.parametrize("name", ["ghn", "smash", "shared"])
def test_generators_write_its_weights(name, case, drawn, loss_and_gradient):
    target = case[0]
    made = generator(name, SPACE, target)
    phi = made.init(jax.random.key(0))

    @jax.jit
    def generate(phi, arch):
        return made.generate(phi, arch)

    @jax.jit
    def gradient(phi, arch, theta):
        return jax.vjp(lambda phi: made.generate(phi, arch), phi)[1](theta)[0]

    values = set()
    for i in range(3):
        arch = row(drawn[0], i)
        theta = generate(phi, arch)
        assert jax.tree.map(lambda w: w.shape, theta) == jax.tree.map(
            lambda w: w.shape, target.weight_spec
        )
        value, theta_gradient = loss_and_gradient(theta, arch)
        gradients = gradient(phi, arch, theta_gradient)
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
        assert any(
            np.asarray(g).any()
            for g in jax.tree.leaves(gradients.get("hyper", gradients))
        )
        values.add(float(value))
    assert len(values) == 3
