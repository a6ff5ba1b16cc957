"""Cell spaces and their networks against plain ones built from each architecture's string."""

import csv
import dataclasses
import itertools
import random
import re
from collections import Counter
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_cells as ref
from tiny import NEEDS_COMPILER, TINY

from jaxhypernas.execution.candidates import ExecutionConfig, choose
from jaxhypernas.generators import standalone
from jaxhypernas.numerics import cpu
from jaxhypernas.programs.scoring import divergence_one
from jaxhypernas.spaces import (
    SPACES,
    CellConfig,
    ghn,
    nasbench201,
    one_shot,
    pnas,
)
from jaxhypernas.spaces.nasbench201 import at, choices, from_choices
from jaxhypernas.spaces.pnas import PNASNET_5
from jaxhypernas.targets import TARGETS
from jaxhypernas.types import UserError

CELL_SPACES = [
    name for name in SPACES if name not in ("memory_bank", "nasbench101")
]
IMAGE, CLASSES, BATCH, DRAWN = (8, 8, 3), 5, 6, 300
SIZES = {
    "nasbench201": CellConfig(4, 2),
    "ghn": CellConfig(4, 1, 4),
    "pnas": CellConfig(4, 2),
    "one_shot": CellConfig(4, 1),
}
NODES = {"nasbench201": 6, "ghn": 4, "pnas": 10, "one_shot": 4}


def rows(tree, i):
    return jax.tree.map(lambda x: np.asarray(x)[i], tree)


def stack(trees):
    return jax.tree.map(lambda *x: np.stack(x), *trees)


def same(a, b):
    return all(
        np.array_equal(x, y)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@cache
def parts(name):
    """The space, the target, and jitted sampling and mutation of DRAWN architectures."""
    config = dataclasses.replace(TINY, cells=SIZES[name])
    space = SPACES[name](config, IMAGE, CLASSES)
    sample = jax.jit(jax.vmap(lambda key: space.sample(key, 1.0)))
    return (
        space,
        TARGETS[name](config, IMAGE, CLASSES),
        sample,
        jax.jit(jax.vmap(space.mutate)),
    )


def keys(seed, number=DRAWN):
    return jax.random.split(jax.random.key(seed), number)


@cache
def drawn(name, seed=0):
    return jax.tree.map(np.asarray, parts(name)[2](keys(seed)))


def texts_of(name, archs):
    space = parts(name)[0]
    return [space.to_string(rows(archs, i)) for i in range(len(archs.out_S))]


def random_theta(name, seed, dtype=np.float64):
    """Weights of the right scale whose biases aren't 0."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (rng.normal(size=leaf.shape) * 0.4).astype(dtype),
        parts(name)[1].weight_spec,
    )


X = np.random.default_rng(0).normal(size=(BATCH, *IMAGE))

# Beside random architectures: absent nodes, nodes on no path, several ops and reads.
SPECIAL = {
    "nasbench201": [
        "|none~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|skip_connect~2|",
        "|nor_conv_1x1~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|",
    ],
    "ghn": [
        "nor_conv_1x1(0);-;sep_conv_3x3(1,2);dil_conv_5x5(2)",
        "sep_conv_5x5(0);dil_conv_3x3(0,1);max_pool_3x3(1,2);avg_pool_3x3(2)",
    ],
    "pnas": [
        "sep_conv_3x3(0);skip_connect(1);-;-;-;-;dil_conv_3x3(2);conv_1x7_7x1(4);-;-"
    ],
    "one_shot": [
        "skip_connect+sep_conv_7x7(0,1);-;max_pool_3x3+conv_1x7_7x1(2,3);avg_pool_3x3(1)"
    ],
}
GRADIENTS = ("nasbench201", "ghn")  # what compiles for long, once per stack


def chosen(name):
    """Two random architectures and the special ones."""
    return [*texts_of(name, rows(drawn(name), slice(0, 2))), *SPECIAL[name]]


# --- networks --------------------------------------------------------------------------------------------------------


def loss(logits):
    return jnp.sin(logits * 3).sum()


@cache
def network(name):
    """(theta, arch) -> gradients or None, logits; float64, so that rounding flips no ReLU."""
    target = parts(name)[1]

    def forward(theta, arch):
        logits = target.apply(theta, arch, jnp.asarray(X))
        return loss(logits), logits

    return jax.jit(
        jax.grad(forward, has_aux=True)
        if name in GRADIENTS
        else lambda *a: (None, forward(*a)[1])
    )


@cache
def evaluated(name):
    """Logits and gradients of the chosen architectures."""
    found = []
    with jax.enable_x64(True):
        for i, text in enumerate(chosen(name)):
            gradient, logits = network(name)(
                random_theta(name, i), parts(name)[0].from_string(text)
            )
            found.append(
                (np.asarray(logits), jax.tree.map(np.asarray, gradient))
            )
    return found


@pytest.mark.parametrize("name", CELL_SPACES)
def test_logits_and_gradients_are_the_references(name):
    def forward(theta, text):
        logits = ref.logits(name, text, theta, jnp.asarray(X))
        return loss(logits), logits

    with jax.enable_x64(True):
        for i, (text, (logits, gradient)) in enumerate(
            zip(chosen(name), evaluated(name), strict=True)
        ):
            theta = jax.tree.map(jnp.asarray, random_theta(name, i))
            if gradient is None or i % 2:
                np.testing.assert_allclose(
                    logits, forward(theta, text)[1], rtol=1e-9, atol=1e-9
                )
                continue
            expected, found = jax.grad(forward, has_aux=True)(theta, text)
            np.testing.assert_allclose(logits, found, rtol=1e-9, atol=1e-9)
            for a, b in zip(
                jax.tree.leaves(gradient),
                jax.tree.leaves(expected),
                strict=True,
            ):
                np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)
            assert np.abs(logits).min() > 1e-4


@pytest.mark.parametrize("name", GRADIENTS)
def test_unused_weights_get_no_gradient(name):
    """Exactly none for ops not chosen and nodes on no path to the output; some for all others."""
    for text, (_, gradient) in zip(chosen(name), evaluated(name), strict=True):
        nodes = ref.parse(name, text)
        alive, _ = ref.live(name, nodes)
        for weights, n in itertools.product(
            gradient["cells"], range(len(nodes))
        ):
            for op, leaves in weights.items():
                for g in leaves.values():
                    used = alive[n] and op in nodes[n].ops
                    assert (
                        (g[:, n] != 0).any((*range(1, g.ndim - 1),)).all()
                        if used
                        else not g[:, n].any()
                    )
        for g in jax.tree.leaves(
            {k: v for k, v in gradient.items() if k != "cells"}
            if any(alive)
            else {}
        ):
            assert (g != 0).mean() > 0.5
    assert any(
        not all(ref.live(name, ref.parse(name, text))[0])
        for text in chosen(name)
    )


def test_fused_candidates_side_by_side_are_the_loop():
    """Logits and gradients in float64: one convolution per node against a branch per op."""
    space, target, *_ = parts("nasbench201")
    texts = chosen("nasbench201")
    thetas = stack([random_theta("nasbench201", i) for i in range(len(texts))])
    archs = stack([space.from_string(text) for text in texts])

    def forward(theta, arch):
        logits = target.forms["fused"].apply(theta, arch, jnp.asarray(X))
        return loss(logits), logits

    with jax.enable_x64(True):
        gradients, logits = jax.jit(jax.vmap(jax.grad(forward, has_aux=True)))(
            thetas, archs
        )
    expected = stack([gradient for _, gradient in evaluated("nasbench201")])
    np.testing.assert_allclose(
        logits,
        stack([x for x, _ in evaluated("nasbench201")]),
        rtol=1e-9,
        atol=1e-9,
    )
    for a, b in zip(*map(jax.tree.leaves, (gradients, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


@NEEDS_COMPILER
@pytest.mark.parametrize("name", GRADIENTS)
def test_cells_as_cpp_are_the_branches(name):
    """Logits and gradients in float64; the other ops and wirings are compared cell by cell in test_cpu.py."""
    assert cpu.available()
    space, target, *_ = parts(name)

    def forward(theta, arch):
        logits = target.forms["native"].apply(theta, arch, jnp.asarray(X))
        return loss(logits), logits

    with jax.enable_x64(True):
        run = jax.jit(jax.grad(forward, has_aux=True))
        for i, (text, (logits, gradient)) in enumerate(
            zip(chosen(name), evaluated(name), strict=True)
        ):
            found, found_logits = run(
                random_theta(name, i), space.from_string(text)
            )
            np.testing.assert_allclose(
                found_logits, logits, rtol=1e-9, atol=1e-9
            )
            for a, b in zip(
                jax.tree.leaves(found), jax.tree.leaves(gradient), strict=True
            ):
                np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", CELL_SPACES)
def test_the_form_is_chosen_by_platform(name):
    target = parts(name)[1]
    assert ("fused" in target.forms) == (name == "nasbench201")
    fused = "fused" if name == "nasbench201" else "branch"
    native = "native" if cpu.available() else "branch"
    for platform, chunk, form in (
        ("cpu", 1, native),
        ("tpu", 1, fused),
        ("gpu", 8, fused),
    ):
        assert choose(ExecutionConfig(), target, platform) == (
            chunk,
            form,
            target.forms.get(form, target),
        )
    assert choose(ExecutionConfig(chunk=3, form="branch"), target, "tpu") == (
        3,
        "branch",
        target,
    )
    with pytest.raises(UserError, match=r"execution\.form: native needs a CPU"):
        choose(ExecutionConfig(form="native"), target, "tpu")
    if fused == "branch":
        with pytest.raises(
            UserError,
            match=r"execution\.form: the cells of this space have no form fused",
        ):
            choose(ExecutionConfig(form="fused"), target, "cpu")


@pytest.mark.parametrize("name", CELL_SPACES)
def test_vmap_over_candidates_is_the_loop(name):
    space, target, *_ = parts(name)
    texts = chosen(name)
    thetas = stack(
        [random_theta(name, i, np.float32) for i in range(len(texts))]
    )
    archs = stack([space.from_string(text) for text in texts])
    logits = jax.jit(jax.vmap(target.apply, (0, 0, None)))(
        thetas, archs, jnp.asarray(X, jnp.float32)
    )
    for one, (expected, _) in zip(
        np.asarray(logits), evaluated(name), strict=True
    ):
        np.testing.assert_allclose(
            one, expected, rtol=5e-3, atol=5e-3 * np.abs(expected).max()
        )


def tied(name):
    """The same weights for every node, so that nodes can change places."""

    def tie(leaf, ids):
        return (
            np.broadcast_to(leaf[:, :1], leaf.shape) if ids.ndim == 2 else leaf
        )

    return jax.tree.map(tie, random_theta(name, 7), parts(name)[1].nodes)


def test_twins_give_equal_logits():
    """Cells with one canonical id, under weights that all edges share; others differ."""
    space = parts("nasbench201")[0]
    ids = choice_numbers(
        jax.jit(jax.vmap(space.canonical))(at(np.arange(5**6)))
    )
    families = [
        np.flatnonzero(ids == i)
        for i, n in Counter(ids.tolist()).most_common()
        if 2 <= n <= 5
    ][::90]
    assert len(families) >= 10
    with jax.enable_x64(True):
        firsts = []
        for family in families:
            logits = [
                network("nasbench201")(
                    tied("nasbench201"), rows(at(np.arange(5**6)), int(i))
                )[1]
                for i in family
            ]
            firsts.append(logits[0])
            for other in logits[1:]:
                np.testing.assert_allclose(
                    other, logits[0], rtol=1e-8, atol=1e-8
                )
    for a, b in itertools.combinations(firsts, 2):
        assert np.abs(a - b).max() > 1e-6


def test_canonical_form_keeps_pnas_logits():
    space = parts("pnas")[0]
    archs = rows(drawn("pnas"), slice(0, 8))
    canonical = jax.vmap(space.canonical)(archs)
    moved = [
        i for i in range(8) if not same(rows(archs, i), rows(canonical, i))
    ][:2]
    assert len(moved) == 2
    with jax.enable_x64(True):
        for i in moved:
            a, b = (
                network("pnas")(tied("pnas"), rows(population, i))[1]
                for population in (archs, canonical)
            )
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


# --- counts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [1, 2, 3])
@pytest.mark.parametrize("name", CELL_SPACES)
def test_costs_are_the_references(name, cells):
    """See `ref.Network` for the rows that count."""
    image = (16, 12, 1)
    config = dataclasses.replace(TINY, cells=CellConfig(6, cells, NODES[name]))
    space, target = (
        SPACES[name](config, image, 7),
        TARGETS[name](config, image, 7),
    )
    texts = [*texts_of(name, rows(drawn(name), slice(10, 13))), *SPECIAL[name]]
    archs = stack([space.from_string(text) for text in texts])
    population = space.cost(archs)
    for i, text in enumerate(texts):
        expected = ref.counts(name, text, target.weight_spec, image)
        assert tuple(int(n) for n in space.cost(rows(archs, i))) == expected, (
            text
        )
        assert tuple(int(field[i]) for field in population) == expected
    assert all(field.dtype == np.int64 for field in population)
    grid = space.cost(jax.tree.map(lambda x: np.stack([x, x]), archs))
    assert all(
        np.array_equal(g[1], f) for g, f in zip(grid, population, strict=True)
    )


@pytest.mark.parametrize("name", ["pnas", "one_shot"])
def test_costs_without_the_oldest_input(name):
    """What nothing reads isn't projected on a live path."""
    config = dataclasses.replace(TINY, cells=CellConfig(4, 2))
    space, target = (
        SPACES[name](config, IMAGE, CLASSES),
        TARGETS[name](config, IMAGE, CLASSES),
    )
    node = "sep_conv_3x3(0)"
    text = ";".join([node] * NODES[name])
    cost = space.cost(space.from_string(text))
    assert tuple(int(n) for n in cost) == ref.counts(
        name, text, target.weight_spec, IMAGE
    )
    assert cost.live_params < cost.params


# --- NAS-Bench-201 ---------------------------------------------------------------------------------------------------


def choice_numbers(archs):
    return np.asarray(choices(archs)) @ 5 ** np.arange(6)[::-1]


def test_the_published_table(shared):
    with open(shared / "data" / "nasbench201_dev.csv") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 3000
    space = nasbench201()
    archs = [space.from_string(row["arch"]) for row in table]
    assert [space.to_string(arch) for arch in archs] == [
        row["arch"] for row in table
    ]
    cost = space.cost(stack(archs))
    for field, column in (
        ("params", "params_m"),
        ("flops", "flops_m"),
        ("live_params", "eff_params_m"),
    ):
        expected = np.array([float(row[column]) for row in table])
        np.testing.assert_allclose(
            getattr(cost, field) / 1e6, expected, rtol=6e-6, err_msg=field
        )


def test_all_cells():
    archs = at(np.arange(5**6))
    assert len(set(choice_numbers(archs).tolist())) == 15_625
    space = parts("nasbench201")[0]
    assert round(10**space.log10_size) == 15_625
    canonical = jax.jit(jax.vmap(space.canonical))(archs)
    ids = choice_numbers(canonical)
    assert len(set(ids.tolist())) == 6_466
    assert same(
        jax.jit(jax.vmap(space.canonical))(canonical),
        jax.tree.map(np.asarray, canonical),
    )
    # By another way: cells as functions of one number, ops as functions without a common law that keep zero.
    functions = (
        lambda x: 0 * x,
        lambda x: x,
        lambda x: np.sin(x * 1.7),
        lambda x: np.tanh(x) * 2.3,
        np.arctan,
    )
    op_Ax6, states = (
        np.asarray(choices(archs)),
        [np.full(15_625, 0.7), *np.zeros((3, 15_625))],
    )
    for e, (to, start) in enumerate(
        ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
    ):
        states[to] = states[to] + np.choose(
            op_Ax6[:, e], [f(states[start]) for f in functions]
        )
    value = np.round(states[3], 9)
    # Fewer functions than ids: sums of zeros, and sums in another order, have ids of their own.
    assert len(set(value.tolist())) == 4_930
    for i in np.flatnonzero(ids != np.arange(15_625)):
        assert value[i] == value[ids[i]]


# --- PNAS ------------------------------------------------------------------------------------------------------------


def test_pnas_blocks():
    space = pnas()
    assert space.growth is not None
    first = space.growth.children(None, 1)
    second = space.growth.children(first, 2)
    canonical = jax.jit(jax.vmap(space.canonical))
    for population, number in (
        (first, 136),
        (rows(second, slice(0, 300)), 300),
        (second, 136 * 300),
    ):
        flat = np.concatenate(
            [np.asarray(x).reshape(number, -1) for x in canonical(population)],
            -1,
        )
        forms = {row.tobytes() for row in flat}
        assert len(forms) == number
    assert (
        abs(space.log10_size - np.log10(136.0 * 300 * 528 * 820 * 1176)) < 1e-6
    )
    assert abs(space.log10_size - 13.32) < 0.005


def test_pnasnet_5():
    space = pnas(channels=48, cells=3)
    arch = space.from_string(PNASNET_5)
    assert space.to_string(arch) == PNASNET_5
    ref.assert_valid("pnas", PNASNET_5, 10)
    cost = space.cost(arch)
    assert int(cost.params) == 3_148_474
    spec = TARGETS["pnas"](
        dataclasses.replace(TINY, cells=CellConfig(48, 3)), (32, 32, 3), 10
    ).weight_spec
    assert tuple(int(n) for n in cost) == ref.counts(
        "pnas", PNASNET_5, spec, (32, 32, 3)
    )
    # Published: the cell before is -1 there, the one before that is -2.
    published = [
        {("sep5", -2), ("max", -2)},
        {("sep7", -1), ("max", -1)},
        {("sep5", -1), ("sep3", -1)},
    ]
    published += [{("sep3", 3), ("max", -1)}, {("sep3", -2), ("identity", -1)}]
    short = {
        "sep_conv_3x3": "sep3",
        "sep_conv_5x5": "sep5",
        "sep_conv_7x7": "sep7",
    }
    short |= {"max_pool_3x3": "max", "skip_connect": "identity"}
    nodes = [
        (short[n.ops[0]], {0: -1, 1: -2}.get(n.reads[0], n.reads[0] - 1))
        for n in ref.parse("pnas", PNASNET_5)
    ]
    assert [set(nodes[i : i + 2]) for i in range(0, 10, 2)] == published


# --- every space -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CELL_SPACES)
def test_samples_and_mutants_are_valid(name):
    space, _, _, mutate = parts(name)
    archs = drawn(name)
    for step in range(3):
        texts = texts_of(name, archs)
        for i, text in enumerate(texts):
            ref.assert_valid(name, text, NODES[name])
            assert same(space.from_string(text), rows(archs, i))
        assert len(set(texts)) > 0.9 * DRAWN
        before, archs = (
            texts,
            jax.tree.map(np.asarray, mutate(keys(100 + step), archs)),
        )
        changed = 0
        for a, b in zip(before, texts_of(name, archs), strict=True):
            old, new = ref.parse(name, a), ref.parse(name, b)
            ops = sum(
                set(x.ops) != set(y.ops) for x, y in zip(old, new, strict=True)
            )
            reads = sum(
                set(x.reads) != set(y.reads)
                for x, y in zip(old, new, strict=True)
            )
            assert ops + reads <= 1
            changed += ops + reads
        assert (
            changed == DRAWN if name == "nasbench201" else changed > DRAWN // 2
        )


@pytest.mark.parametrize("name", CELL_SPACES)
def test_sampling_is_uniform(name):
    """Ops, numbers of ops and reads: within five standard deviations of their share."""
    rules = ref.RULES[name]
    nodes = [
        node
        for text in texts_of(name, drawn(name, 3))
        for node in ref.parse(name, text)
    ]

    def check(counted, number, total):
        share = total / number
        assert len(counted) == number
        assert all(abs(n - share) < 5 * share**0.5 for n in counted.values())

    ops = Counter(op for node in nodes for op in node.ops or ("none",))
    check(ops, len(rules.ops) + (name == "nasbench201"), sum(ops.values()))
    many = [node for node in nodes if node.writes >= 2]
    if name != "nasbench201":
        check(
            Counter(len(node.ops) for node in nodes), rules.most_ops, len(nodes)
        )
        check(
            Counter(len(node.reads) for node in many),
            rules.most_reads,
            len(many),
        )
        last = [
            s
            for node in nodes
            if node.writes == nodes[-1].writes
            for s in node.reads
        ]
        check(Counter(last), nodes[-1].writes, len(last))


@pytest.mark.parametrize("name", CELL_SPACES)
def test_canonical_is_idempotent_and_keeps_the_cell(name):
    space = parts(name)[0]
    canonical = jax.jit(jax.vmap(space.canonical))
    archs = canonical(drawn(name))
    assert same(canonical(archs), archs)
    if name == "nasbench201":
        return  # see test_all_cells
    size = ref.RULES[name].per_block

    def blocks(text):
        nodes = [(set(n.ops), set(n.reads)) for n in ref.parse(name, text)]
        return [
            sorted(map(str, nodes[i : i + size]))
            for i in range(0, len(nodes), size)
        ]

    for a, b in zip(
        texts_of(name, drawn(name)), texts_of(name, archs), strict=True
    ):
        assert blocks(a) == blocks(b)
    if size == 2:
        swapped = [
            ";".join(
                p
                for i in range(0, 10, 2)
                for p in t.split(";")[i : i + 2][::-1]
            )
            for t in texts_of(name, archs)
        ]
        assert same(
            canonical(stack([space.from_string(t) for t in swapped])), archs
        )


@pytest.mark.parametrize("name", CELL_SPACES)
def test_graphs_are_the_strings(name):
    space = parts(name)[0]
    graph_of = jax.jit(space.graph)
    for text in [
        *texts_of(name, rows(drawn(name), slice(0, 40))),
        *SPECIAL[name],
    ]:
        graph = jax.tree.map(np.asarray, graph_of(space.from_string(text)))
        kinds, edges = ref.edges(name, ref.parse(name, text))
        assert {tuple(e) for e in np.argwhere(graph.edge_NxN).tolist()} == edges
        assert not np.triu(graph.edge_NxN).any() and set(
            np.unique(graph.edge_NxN)
        ) <= {0, 1}
        columns = ("input", "output", *ref.RULES[name].ops)
        assert [
            {columns[c] for c in np.flatnonzero(row)} for row in graph.op_NxO
        ] == [set(k) for k in kinds]
        assert graph.mask_N.tolist() == [1] * len(kinds)
        assert {x.dtype for x in graph} == {np.dtype(np.int32)}


UNDECIDED = {
    "nasbench201": ("skip_connect",)
}  # the ops of a node not yet grown; elsewhere none


@pytest.mark.parametrize("name", CELL_SPACES)
def test_growth(name):
    space = parts(name)[0]
    growth, rules = space.growth, ref.RULES[name]
    assert growth is not None
    assert growth.levels == (
        6 if name == "nasbench201" else NODES[name] // rules.per_block
    )
    canonical, population, size = jax.jit(jax.vmap(space.canonical)), None, 1
    for level in range(1, growth.levels + 1):
        parents = 1 if population is None else len(population.out_S)
        population = growth.children(population, level)
        number = len(population.out_S)
        assert number % parents == 0
        size *= number // parents
        forms = canonical(population) if name != "nasbench201" else population
        assert (
            len(
                {
                    row.tobytes()
                    for row in np.concatenate(
                        [x.reshape(number, -1) for x in forms], -1
                    )
                }
            )
            == number
        )
        tokens = growth.tokens(population, level)
        assert tokens.dtype == np.int32 and tokens.shape == (
            number,
            level,
            len(growth.vocabulary),
        )
        assert (tokens >= 0).all() and (
            tokens < np.array(growth.vocabulary)
        ).all()
        assert len({row.tobytes() for row in tokens}) == number
        few = np.random.default_rng(level).permutation(number)[:4]
        population = rows(population, few)
        for text in texts_of(name, population):
            nodes = ref.parse(name, text)
            done = level if name == "nasbench201" else level * rules.per_block
            assert {node.ops for node in nodes[done:]} <= {
                UNDECIDED.get(name, ())
            }
            assert name == "nasbench201" or all(
                node.ops for node in nodes[:done]
            )
            assert same(
                space.from_string(text),
                rows(population, texts_of(name, population).index(text)),
            )
    for text in texts_of(name, population):
        ref.assert_valid(name, text, NODES[name])
    assert len(growth.kinds) == len(growth.vocabulary)
    assert abs(space.log10_size - np.log10(size)) < 1e-6


@pytest.mark.parametrize("name", CELL_SPACES)
def test_growth_adds_a_block_and_keeps_the_rest(name):
    space = parts(name)[0]
    assert space.growth is not None
    parents = rows(space.growth.children(None, 1), slice(0, 3))
    children = space.growth.children(parents, 2)
    number = len(children.out_S) // 3
    first = 1 if name == "nasbench201" else ref.RULES[name].per_block
    for i in (0, number - 1, number, 3 * number - 1):
        parent, child = (
            ref.parse(name, space.to_string(rows(p, j)))
            for p, j in ((parents, i // number), (children, i))
        )
        assert parent[:first] == child[:first]
        assert {node.ops for node in child[2 * first :]} <= {
            UNDECIDED.get(name, ())
        }


def test_all_ghn_cells_of_three_nodes():
    """Growing without a beam lists the space: every string once, as many as its size says."""
    space, population = ghn(IMAGE, CLASSES, 4, 1, 3), None
    assert space.growth is not None
    for level in (1, 2, 3):
        population = space.growth.children(population, level)
    assert population is not None
    texts = {
        space.to_string(rows(population, i))
        for i in range(len(population.out_S))
    }
    assert len(texts) == 8 * (3 * 8) * (6 * 8) == round(10**space.log10_size)
    reads = ["0"], ["0", "1", "0,1"], ["0", "1", "2", "0,1", "0,2", "1,2"]
    options = [
        [
            f"{op}({r})"
            for op, r in itertools.product(ref.RULES["ghn"].ops, some)
        ]
        for some in reads
    ]
    assert texts == {";".join(nodes) for nodes in itertools.product(*options)}


@pytest.mark.parametrize("name", CELL_SPACES)
def test_paths(name):
    space = parts(name)[0]
    assert space.paths is not None
    many = jax.jit(jax.vmap(space.paths, (0, None)))
    whole = rows(many(keys(0, 2), jnp.float32(0)), 0)
    assert whole.op_NxO.all()
    writes = [node.writes for node in ref.parse(name, chosen(name)[0])]
    if name == "nasbench201":
        expected = rows(drawn(name), 0).read_NxS
    else:
        expected = np.arange(max(writes) + 1)[None] < np.array(writes)[:, None]
    assert np.array_equal(whole.read_NxS, expected)
    trials, rate = 3000, 0.4
    archs = jax.tree.map(np.asarray, many(keys(1, trials), jnp.float32(rate)))

    def check(dropped, k):
        p = rate ** (1 / k)
        assert np.all(
            np.abs(dropped.mean(0) - p) < 5 * (p * (1 - p) / trials) ** 0.5
        )
        all_dropped = dropped.all(-1).mean()
        assert abs(all_dropped - rate) < 5 * (rate * (1 - rate) / trials) ** 0.5

    for n, to in enumerate(writes):
        check(archs.op_NxO[:, n] == 0, len(ref.RULES[name].ops))
        if name != "nasbench201":
            check(archs.read_NxS[:, n, :to] == 0, to)
    if name != "nasbench201":
        assert not (archs.read_NxS * ~expected[None]).any()
        assert set(np.unique(archs.op_NxO)) == {0, 1}
        for text, i in zip(
            texts_of(name, rows(archs, slice(0, 30))), range(30), strict=True
        ):
            nodes = ref.parse(name, text.replace("()", "(99)"))
            kept = [
                n if n.reads != (99,) else dataclasses.replace(n, reads=())
                for n in nodes
            ]
            assert (
                ref.output(name, kept)
                == np.flatnonzero(archs.out_S[i]).tolist()
            )


@pytest.mark.parametrize(
    "name", ["ghn", "one_shot"]
)  # PNAS has One-Shot's stack; NAS-Bench-201's strings have one op
def test_network_of_all_paths_and_what_dropping_them_changes(name):
    """Logits of the one-shot network, whole and with paths dropped, and One-Shot's confidence, from the reference's."""
    space, target, _, _ = parts(name)
    assert space.paths is not None and target.relaxed is not None
    generator = standalone(target.weight_spec, target.nodes)
    sampled = jax.tree.map(
        np.asarray, jax.jit(space.paths)(jax.random.key(4), jnp.float32(0.02))
    )
    whole = jax.tree.map(
        np.asarray, jax.jit(space.paths)(jax.random.key(4), jnp.float32(0))
    )
    candidate = space.from_string(chosen(name)[0])
    with jax.enable_x64(True):
        theta, x = jax.tree.map(jnp.asarray, (random_theta(name, 0), X))
        relaxed = jax.jit(target.relaxed)
        texts = [space.to_string(arch) for arch in (whole, sampled)]
        assert len(ref.parse(name, texts[0])[0].ops) == len(ref.RULES[name].ops)
        assert "()" not in texts[1], "the reference has no node without inputs"
        expected = [
            np.asarray(ref.logits(name, text, theta, x)) for text in texts
        ]
        for arch, logits in zip((whole, sampled), expected, strict=True):
            np.testing.assert_allclose(
                relaxed(theta, arch, x), logits, rtol=1e-9, atol=1e-9
            )

        p, q = (
            np.exp(logits)
            for logits in (
                expected[0],
                ref.logits(name, chosen(name)[0], theta, x),
            )
        )
        p, q = (e / e.sum(-1, keepdims=True) for e in (p, q))
        both_ways = (p * np.log(p / q) + q * np.log(q / p)).sum(-1).mean()
        divergence = jax.jit(partial(divergence_one, target, generator, whole))
        np.testing.assert_allclose(
            divergence((theta, x), candidate), both_ways, rtol=1e-9
        )


BAD = {
    "nasbench201": [
        "",
        "|",
        "|none~0|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~3|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|conv_9x9~2|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|+|none~0|",
        "none",
        "\n\n|none~0|\n+",
        "sep_conv_3x3(0)",
    ],
    "ghn": [
        "",
        ";;;",
        "skip_connect(0)",
        "skip_connect(1);skip_connect(0);skip_connect(0);skip_connect(0)",
        "skip_connect(0);skip_connect(0);skip_connect(0,1,2);skip_connect(0)",
        "skip_connect+nor_conv_1x1(0);skip_connect(0);skip_connect(0);skip_connect(0)",
        "conv(0);skip_connect(0);skip_connect(0);skip_connect(0)",
        "skip_connect();skip_connect(0);skip_connect(0);skip_connect(0)",
        "skip_connect(-1);skip_connect(0);skip_connect(0);skip_connect(0)",
        "skip_connect(a\nb);skip_connect(0);skip_connect(0);skip_connect(0)",
        "skip_connect\n(0);skip_connect(0);skip_connect(0);skip_connect(0)",
    ],
    "pnas": [
        "",
        "skip_connect(0)",
        ";".join(["skip_connect(0,1)"] * 10),
        ";".join(["nor_conv_1x1(0)"] * 10),
    ],
    "one_shot": [
        "",
        ";".join(["skip_connect(2)"] * 4),
        ";".join(["skip_connect+max_pool_3x3+avg_pool_3x3(0)"] * 4),
        ";".join(["skip_connect(0,0,1,1,7)"] * 4),
    ],
}


@pytest.mark.parametrize("name", CELL_SPACES)
def test_bad_strings_are_one_line(name):
    for text in BAD[name]:
        with pytest.raises(UserError) as error:
            parts(name)[0].from_string(text)
        assert (
            "\n" not in str(error.value)
            and str(error.value).startswith("arch: ")
            and len(str(error.value)) < 300
        )


@pytest.mark.parametrize("name", CELL_SPACES)
def test_damaged_strings_are_refused_or_understood(name):
    """One character gone, doubled or another one: an architecture that round trips, or a UserError."""
    space, rng, refused = parts(name)[0], random.Random(0), 0
    for text in texts_of(name, drawn(name)):
        at = rng.randrange(len(text))
        damaged = (
            text[:at]
            + rng.choice(["", text[at] * 2, rng.choice("|~+;(),-_01239x\n ")])
            + text[at + 1 :]
        )
        try:
            arch = space.from_string(damaged)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            again = space.to_string(arch)
            assert same(space.from_string(again), arch)
            ref.assert_valid(
                name,
                re.sub(r"(?<=;)-|^-", "skip_connect(0)", again),
                NODES[name],
            )
    assert refused > DRAWN // 2


@pytest.mark.parametrize("image", [(7, 8, 3), (8, 6, 3), (0, 8, 3), (32, 2, 3)])
@pytest.mark.parametrize("make", [nasbench201, ghn, pnas, one_shot])
def test_images_that_cannot_be_halved_twice(make, image):
    with pytest.raises(UserError, match="multiples of 4") as error:
        make(image, 10)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("field", ["channels", "cells", "nodes"])
def test_sizes_below_one(field):
    with pytest.raises(UserError, match=f"cells\\.{field}: 0"):
        CellConfig(**{field: 0})


def test_populations_of_choices():
    """In NumPy and in JAX, with leading axes."""
    choice = np.random.default_rng(0).integers(0, 5, (2, 3, 6)).astype(np.int32)
    for array in (choice, jnp.asarray(choice)):
        assert np.array_equal(choices(from_choices(array)), choice)
        assert from_choices(array).read_NxS.shape == (2, 3, 6, 4)
