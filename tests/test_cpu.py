"""Cells as C++ against XLA's own, in float64, where rounding flips no ReLU."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import NEEDS_COMPILER

from jaxhypernas.archs.cells import CellArch, CellStructure
from jaxhypernas.archs.sizes import CellConfig
from jaxhypernas.execution.choice import choose
from jaxhypernas.execution.config import ExecutionConfig
from jaxhypernas.numerics import cpu
from jaxhypernas.numerics.normalisation import conv_norm
from jaxhypernas.targets.cell import cell_network
from jaxhypernas.targets.cell_forms import branching, native
from jaxhypernas.targets.ops import OPS, convolutions, separable
from jaxhypernas.types import UserError

pytestmark = NEEDS_COMPILER


@pytest.fixture(autouse=True)
def float64(quick_compiler):
    assert cpu.available()
    with jax.enable_x64(True):
        yield


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def close(actual, expected):
    for a, e in zip(
        jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
    ):
        atol = 1e-9 * (1 + np.abs(e).max())
        np.testing.assert_allclose(a, e, rtol=1e-9, atol=atol)
        assert not np.asarray(a)[np.asarray(e) == 0].any()


# Images (H, W, channels), outputs, kernel (height, width), stride, ReLU.
SHAPES = [
    ((8, 8, 4), 4, (1, 1), 1, True),
    ((8, 8, 3), 8, (3, 3), 1, False),  # fewer inputs than a vector has
    ((7, 5, 8), 6, (3, 3), 1, True),  # odd, and fewer outputs
    ((2, 2, 16), 16, (3, 3), 1, True),
    ((8, 6, 5), 12, (3, 3), 2, True),
    ((7, 9, 8), 8, (3, 1), 2, True),
    ((8, 8, 4), 4, (1, 7), 1, True),
    ((8, 12, 16), 20, (3, 3), 1, True),  # by transformed tiles
    ((16, 16, 32), 16, (3, 3), 1, False),
    ((6, 6, 24), 24, (5, 5), 1, True),
]


@pytest.mark.parametrize(
    ("image", "outputs", "kernel", "stride", "relu"), SHAPES
)
def test_conv_norm_is_xlas(image, outputs, kernel, stride, relu):
    x, w = normal(0, 3, *image), normal(1, *kernel, image[2], outputs)

    def run(conv_norm, x, w):
        y, pull = jax.vjp(lambda x, w: conv_norm(x, w, stride, relu), x, w)
        return y, pull(normal(2, *y.shape))

    found, expected = (
        jax.jit(partial(run, f))(x, w) for f in (cpu.conv_norm, conv_norm)
    )
    close(found, expected)
    single = cpu.conv_norm(
        x.astype(jnp.float32), w.astype(jnp.float32), stride, relu
    )
    np.testing.assert_allclose(single, expected[0], rtol=1e-4, atol=2e-5)


def test_what_is_not_a_number_stays_so():
    """Training that has diverged must be seen."""
    x, w = (
        normal(0, 2, 8, 8, 8).at[0, 3, 3, 2].set(jnp.nan),
        normal(1, 3, 3, 8, 8),
    )
    assert np.isnan(cpu.conv_norm(x, w, 1, True)).all()


def test_candidates_side_by_side_are_the_loop():
    x, w = normal(0, 3, 2, 8, 8, 8), normal(1, 3, 3, 3, 8, 8)
    loop = jnp.stack(
        [cpu.conv_norm(*one, 1, True) for one in zip(x, w, strict=True)]
    )
    close(jax.vmap(lambda x, w: cpu.conv_norm(x, w, 1, True))(x, w), loop)


def cells(structure, arch, C=6):
    """Output and gradients of a cell, by C++ and by XLA."""
    specs = [
        (name, leaf, shape)
        for name in structure.ops
        for leaf, shape in OPS[name].shapes(C).items()
    ]
    w: dict = {name: {} for name, *_ in specs}
    for i, (name, leaf, shape) in enumerate(specs):
        w[name][leaf] = normal(i, len(structure.write_N), *shape)
    inputs = [normal(100 + i, 2, 6, 8, C) for i in range(structure.inputs)]

    def run(of, w, inputs):
        y, pull = jax.vjp(
            lambda w, inputs: of(structure, arch, w, inputs), w, inputs
        )
        return y, pull(normal(99, *y.shape))

    return [jax.jit(partial(run, of))(w, inputs) for of in (native, branching)]


@pytest.mark.parametrize("name", OPS)
def test_cells_of_every_op_are_xlas(name):
    """Three nodes: of two states, of the first node's state, and without an op."""
    structure = CellStructure(
        ("skip_connect", name), 2, (2, 3, 4), 2, 1, "projected"
    )
    op = np.array([[0, 1], [0, 1], [0, 0]], np.int32)
    read = np.array(
        [[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [1, 0, 0, 0, 0]], np.int32
    )
    found, expected = cells(
        structure, CellArch(op, read, np.zeros(5, np.int32))
    )
    close(found, expected)
    assert not found[0][..., -6:].any()  # nothing


@pytest.mark.parametrize(
    "op", [separable(3, 5), separable(3, 6, 2), convolutions(*[(3, 3)] * 9)]
)
def test_an_op_has_any_number_of_layers(op, monkeypatch):
    monkeypatch.setitem(OPS, "deep", op)
    structure = CellStructure(("deep",), 1, (1, 2), 1, 1, "residual")
    read = np.array([[1, 0, 0], [0, 1, 0]], np.int32)
    arch = CellArch(np.ones((2, 1), np.int32), read, np.array([0, 1, 1]))
    found, expected = cells(structure, arch, C=5)
    close(found, expected)


@pytest.mark.parametrize("seed", range(4))
def test_paths_dropped_at_random(seed):
    """Nodes with several ops, states with several writers, nodes that read nothing."""
    ops = ("nor_conv_3x3", "max_pool_3x3", "skip_connect", "sep_conv_3x3")
    structure = CellStructure(ops, 1, (1, 1, 2, 3), 4, 4, "residual")
    rng = np.random.default_rng(seed)
    op, read = (
        rng.integers(0, 2, (4, 4), np.int32),
        rng.integers(0, 3, (4, 4), np.int32),
    )
    read *= np.arange(4)[None] < np.array(structure.write_N)[:, None]
    read[seed] = 0
    close(
        *cells(structure, CellArch(op, read, np.array([0, 1, 0, 1], np.int32)))
    )


def test_without_a_compiler_cells_branch(monkeypatch):
    structure = CellStructure(("nor_conv_3x3",), 1, (1,), 1, 1, "residual")
    target = cell_network(structure, CellConfig(4, 1), (8, 8, 3), 2)
    assert choose(ExecutionConfig(), target, "cpu")[:2] == (1, "native")
    monkeypatch.setattr(cpu, "available", lambda: False)
    assert choose(ExecutionConfig(), target, "cpu") == (1, "branch", target)
    with pytest.raises(
        UserError,
        match=r"execution\.form: native needs a CPU and a C\+\+ compiler",
    ):
        choose(ExecutionConfig(form="native"), target, "cpu")


@pytest.mark.parametrize("compiler", ["/nowhere/c++", "/bin/false"])
def test_a_compiler_that_fails_is_none(compiler, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not cpu.available.__wrapped__()
    assert not list(tmp_path.rglob("*.so"))
