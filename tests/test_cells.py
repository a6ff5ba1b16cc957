"""Networks of cells against plain ones built from each architecture's string."""

import itertools
from collections import Counter
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_cells as ref
from cell_cases import (
    CELL_SPACES,
    CLASSES,
    IMAGE,
    NODES,
    SPECIAL,
    build,
    choice_numbers,
    chosen,
    drawn,
    parts,
    texts_of,
)
from helpers import row, same, stack
from tiny import NEEDS_COMPILER

from jaxhypernas.archs.population import rows
from jaxhypernas.execution.choice import choose
from jaxhypernas.execution.config import ExecutionConfig
from jaxhypernas.numerics import cpu
from jaxhypernas.spaces.nasbench201 import cell
from jaxhypernas.types import UserError

pytestmark = pytest.mark.usefixtures("quick_compiler")

X = np.random.default_rng(0).normal(size=(6, *IMAGE))

# Compiling gradients takes long: not all spaces, but both stacks.
GRADIENTS = ("nasbench201", "ghn", "one_shot")


def random_theta(name, seed, dtype=np.float64):
    """Weights of the right scale whose biases aren't 0."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (rng.normal(size=leaf.shape) * 0.4).astype(dtype),
        parts(name)[1].weight_spec,
    )


def loss(logits):
    return jnp.sin(logits * 3).sum()


@cache
def network(name):
    """(theta, arch) -> gradients or None, logits.

    In float64, so that rounding flips no ReLU.
    """
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
    """Exactly none for ops not chosen and nodes on no path to the output.

    All others get some.
    """
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
        others = {k: v for k, v in gradient.items() if k != "cells"}
        for leaf, g in jax.tree.leaves_with_path(others if any(alive) else {}):
            # A projection also has rows for inputs and channels that are not used.
            least = 0.25 if leaf[0].key == "project" else 0.5
            assert (g != 0).mean() > least
    assert any(
        not all(ref.live(name, ref.parse(name, text))[0])
        for text in chosen(name)
    )


def test_fused_candidates_side_by_side_are_the_loop():
    """Logits and gradients: one convolution per node against a branch per op."""
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
    """Logits and gradients; test_cpu.py compares other ops and wirings by the cell."""
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
        ("gpu", 32, fused),
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
    with pytest.raises(
        UserError, match=r"execution\.form: native needs a CPU"
    ):
        choose(ExecutionConfig(form="native"), target, "tpu")
    large = jax.ShapeDtypeStruct((1001, 1000), jnp.float32)
    target = target._replace(weight_spec={"w": large})
    assert choose(ExecutionConfig(), target, "gpu")[0] == 8
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
    """Cells with one canonical id, under weights that all edges share, are equal."""
    space = parts("nasbench201")[0]
    ids = choice_numbers(
        jax.jit(jax.vmap(space.canonical))(cell(np.arange(5**6)))
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
                    tied("nasbench201"), row(cell(np.arange(5**6)), int(i))
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
        i for i in range(8) if not same(row(archs, i), row(canonical, i))
    ][:2]
    assert len(moved) == 2
    with jax.enable_x64(True):
        for i in moved:
            a, b = (
                network("pnas")(tied("pnas"), row(population, i))[1]
                for population in (archs, canonical)
            )
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


# PNAS has One-Shot's stack; NAS-Bench-201's strings have one op.
@pytest.mark.parametrize("name", ["ghn", "one_shot"])
def test_network_of_all_paths_and_what_dropping_them_changes(name):
    """Logits of the one-shot network, whole and with paths dropped: the reference's."""
    space, target, _, _ = parts(name)
    assert space.paths is not None and target.relaxed is not None
    sampled = jax.tree.map(
        np.asarray, jax.jit(space.paths)(jax.random.key(4), jnp.float32(0.02))
    )
    whole = jax.tree.map(
        np.asarray, jax.jit(space.paths)(jax.random.key(4), jnp.float32(0))
    )
    with jax.enable_x64(True):
        theta, x = jax.tree.map(jnp.asarray, (random_theta(name, 0), X))
        relaxed = jax.jit(target.relaxed)
        texts = [space.to_string(arch) for arch in (whole, sampled)]
        assert len(ref.parse(name, texts[0])[0].ops) == len(
            ref.RULES[name].ops
        )
        assert "()" not in texts[1], "the reference has no node without inputs"
        expected = [
            np.asarray(ref.logits(name, text, theta, x)) for text in texts
        ]
        for arch, logits in zip((whole, sampled), expected, strict=True):
            np.testing.assert_allclose(
                relaxed(theta, arch, x), logits, rtol=1e-9, atol=1e-9
            )


# Counts


@pytest.mark.parametrize("cells", [1, 2, 3])
@pytest.mark.parametrize("name", CELL_SPACES)
def test_costs_are_the_references(name, cells):
    """See `ref.Network` for the rows that count."""
    image = (16, 12, 1)
    space, target = build(name, image, 7, channels=6, cells=cells)
    texts = [*texts_of(name, rows(drawn(name), slice(10, 13))), *SPECIAL[name]]
    archs = stack([space.from_string(text) for text in texts])
    population = space.cost(archs)
    for i, text in enumerate(texts):
        expected = ref.counts(name, text, target.weight_spec, image)
        assert tuple(int(n) for n in space.cost(row(archs, i))) == expected, (
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
    """An input that nothing reads is not projected on a live path."""
    space, target = build(name, IMAGE, CLASSES, cells=2)
    node = "sep_conv_3x3(0)"
    text = ";".join([node] * NODES[name])
    cost = space.cost(space.from_string(text))
    assert tuple(int(n) for n in cost) == ref.counts(
        name, text, target.weight_spec, IMAGE
    )
    assert cost.live_params < cost.params
