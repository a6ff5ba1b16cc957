"""Cell spaces: sampling, strings, graphs, growth, published counts."""

import csv
import dataclasses
import itertools
import random
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_cells as ref
from cell_cases import (
    CELL_SPACES,
    CLASSES,
    DRAWN,
    IMAGE,
    NODES,
    SPECIAL,
    build,
    choice_numbers,
    chosen,
    drawn,
    keys,
    parts,
    texts_of,
)
from helpers import row, same, stack

from jaxhypernas.archs.population import rows
from jaxhypernas.archs.sizes import (
    CellConfig,
    GhnCellConfig,
    Nasbench201Config,
)
from jaxhypernas.spaces.nasbench201 import (
    EDGES,
    cell,
    choices,
    from_choices,
    nasbench201,
)
from jaxhypernas.spaces.pnas import PNASNET_5
from jaxhypernas.types import UserError

# NAS-Bench-201


def test_the_published_table(shared):
    with open(shared / "data" / "nasbench201_dev.csv") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 3000
    published = Nasbench201Config(channels=16, cells=5)
    space = nasbench201(published, (32, 32, 3), 10)
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
    archs = cell(np.arange(5**6))
    assert len(set(choice_numbers(archs).tolist())) == 15_625
    space = parts("nasbench201")[0]
    assert round(10**space.log10_size) == 15_625
    canonical = jax.jit(jax.vmap(space.canonical))(archs)
    ids = choice_numbers(canonical)
    assert len(set(ids.tolist())) == 4_930
    assert same(
        jax.jit(jax.vmap(space.canonical))(canonical),
        jax.tree.map(np.asarray, canonical),
    )
    # By another way: cells as functions of a number; the ops are functions that keep
    # zero and have no common law.
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
    for e, (to, start) in enumerate(EDGES):
        states[to] = states[to] + np.choose(
            op_Ax6[:, e], [f(states[start]) for f in functions]
        )
    value = np.round(states[3], 9)
    # As many functions as ids.
    assert len(set(value.tolist())) == 4_930
    for i in np.flatnonzero(ids != np.arange(15_625)):
        assert value[i] == value[ids[i]]


# PNAS


def test_pnas_blocks():
    space = parts("pnas")[0]
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
    space, target = build("pnas", (32, 32, 3), 10, channels=48, cells=3)
    arch = space.from_string(PNASNET_5)
    assert space.to_string(arch) == PNASNET_5
    ref.assert_valid("pnas", PNASNET_5, 10)
    cost = space.cost(arch)
    assert int(cost.params) == 3_148_474
    assert tuple(int(n) for n in cost) == ref.counts(
        "pnas", PNASNET_5, target.weight_spec, (32, 32, 3)
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


# Every space


@pytest.mark.parametrize("name", CELL_SPACES)
def test_samples_and_mutants_are_valid(name):
    space, _, _, mutate = parts(name)
    archs = drawn(name)
    for step in range(3):
        texts = texts_of(name, archs)
        for i, text in enumerate(texts):
            ref.assert_valid(name, text, NODES[name])
            assert same(space.from_string(text), row(archs, i))
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
            Counter(len(node.ops) for node in nodes),
            rules.most_ops,
            len(nodes),
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
        assert {
            tuple(e) for e in np.argwhere(graph.edge_NxN).tolist()
        } == edges
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
                row(population, texts_of(name, population).index(text)),
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
            ref.parse(name, space.to_string(row(p, j)))
            for p, j in ((parents, i // number), (children, i))
        )
        assert parent[:first] == child[:first]
        assert {node.ops for node in child[2 * first :]} <= {
            UNDECIDED.get(name, ())
        }


def test_all_ghn_cells_of_three_nodes():
    """Growing without a beam lists the space: as many strings as its size says."""
    space, population = build("ghn", IMAGE, CLASSES, nodes=3)[0], None
    assert space.growth is not None
    for level in (1, 2, 3):
        population = space.growth.children(population, level)
    assert population is not None
    texts = {
        space.to_string(row(population, i))
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
    whole = row(many(keys(0, 2), jnp.float32(0)), 0)
    assert whole.op_NxO.all()
    writes = [node.writes for node in ref.parse(name, chosen(name)[0])]
    if name == "nasbench201":
        expected = row(drawn(name), 0).read_NxS
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
        assert (
            abs(all_dropped - rate) < 5 * (rate * (1 - rate) / trials) ** 0.5
        )

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
    """A character is gone, doubled or another: a `UserError`, or it round trips."""
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


@pytest.mark.parametrize(
    "image", [(7, 8, 3), (8, 6, 3), (0, 8, 3), (32, 2, 3)]
)
@pytest.mark.parametrize("name", CELL_SPACES)
def test_images_that_cannot_be_halved_twice(name, image):
    with pytest.raises(UserError, match="multiples of 4") as error:
        build(name, image, 10)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "config",
    [CellConfig(channels=0), CellConfig(cells=0), GhnCellConfig(nodes=0)],
)
def test_sizes_below_one(config):
    with pytest.raises(UserError, match=r"^(channels|cells|nodes): 0 must be"):
        config.check()


def test_populations_of_choices():
    """In NumPy and in JAX, with leading axes."""
    choice = (
        np.random.default_rng(0).integers(0, 5, (2, 3, 6)).astype(np.int32)
    )
    for array in (choice, jnp.asarray(choice)):
        assert np.array_equal(choices(from_choices(array)), choice)
        assert from_choices(array).read_NxS.shape == (2, 3, 6, 4)
