"""What is read from compiled programs, and a run's programs compiled without devices or data."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from tiny import TINY, flags

from jaxhypernas.cli import main as cli
from jaxhypernas.data import dataset as data
from jaxhypernas.programs.ahead import hlo, preflight
from jaxhypernas.types import UserError

N = 32
PRODUCT = 2 * N**3  # FLOPs of w @ w


def work(f, *shapes, branches: hlo.Branches = "mean"):
    shapes = [
        s if hasattr(s, "dtype") else jax.ShapeDtypeStruct(s, jnp.float32)
        for s in shapes
    ]
    return hlo.read(jax.jit(f).lower(*shapes).compile(), branches)


def repeat(times):
    return lambda x, w: lax.fori_loop(0, times, lambda i, x: jnp.sin(x @ w), x)


def test_a_loop_counts_as_often_as_it_runs():
    assert work(jnp.matmul, (N, N), (N, N)).flops == PRODUCT
    assert work(repeat(7), (N, N), (N, N)).flops == 7 * PRODUCT

    def nested(x, w):
        return (
            lax.scan(lambda x, _: (repeat(5)(x, w), None), x, None, length=3)[0]
            @ w
        )

    assert work(nested, (N, N), (N, N)).flops == 16 * PRODUCT


def test_a_loop_of_unknown_length_counts_once_and_is_told():
    def f(n, x, w):
        return lax.fori_loop(0, n, lambda i, x: jnp.sin(x @ w), x)

    found = work(f, jax.ShapeDtypeStruct((), jnp.int32), (N, N), (N, N))
    assert (found.flops, found.unknown) == (PRODUCT, 1)


@pytest.mark.parametrize(("branches", "products"), [("mean", 2), ("max", 4)])
def test_a_conditional_counts_as_its_branches(branches, products):
    def f(i, x, w):
        return lax.switch(
            i,
            [
                lambda x, w: x,
                lambda x, w: repeat(2)(x, w),
                lambda x, w: repeat(4)(x, w),
            ],
            x,
            w,
        )

    assert (
        work(
            f,
            jax.ShapeDtypeStruct((), jnp.int32),
            (N, N),
            (N, N),
            branches=branches,
        ).flops
        == products * PRODUCT
    )


@pytest.mark.parametrize(
    ("stride", "dilate", "spread", "groups"),
    [(1, 1, 1, 1), (2, 1, 1, 1), (1, 2, 1, 1), (1, 1, 2, 1), (1, 1, 1, 4)],
)
def test_convolutions_count_as_xla_counts_them(stride, dilate, spread, groups):
    def f(x, w):
        return lax.conv_general_dilated(
            x,
            w,
            (stride,) * 2,
            ((1, 1), (2, 0)),
            lhs_dilation=(spread,) * 2,
            rhs_dilation=(dilate,) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    compiled = (
        jax.jit(f)
        .lower(jnp.zeros((2, 9, 9, 8)), jnp.zeros((3, 3, 8 // groups, 16)))
        .compile()
    )
    assert hlo.read(compiled).flops == pytest.approx(
        (compiled.cost_analysis() or {})["flops"], rel=1e-6
    )


def test_a_slice_in_a_loop_reads_its_part():
    def total(x_AxN, w):
        return lax.map(lambda x: jnp.sin(x * w), x_AxN)

    whole = 4 * 64 * 1000
    assert (
        2 * whole <= work(total, (64, 1000), (1000,)).bytes <= 5 * whole
    )  # not 64 * whole


SHARED = dataclasses.replace(TINY, space="nasbench201", generator="shared")


def program(name, devices):
    found = preflight.lowered(SHARED, jax.devices()[:devices])
    return hlo.read(
        next(
            lowered for called, lowered, *_ in found if called == name
        ).compile()
    )


EIGHT = """
import json
from test_preflight import program

work = program("score", 8)
print(json.dumps([work.flops, work.collectives]))
"""


def test_scoring_on_more_devices():
    """The program takes eight times the candidates on eight devices: each does what one alone does for an eighth."""
    environment = {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": "8",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    eight = subprocess.run(
        [sys.executable, "-c", EIGHT],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    flops, collectives = json.loads(eight.stdout)
    assert collectives == {}
    assert flops == program("score", 1).flops > 0


def test_training_averages_gradients_once_per_step():
    target = preflight.Planned(SHARED, jax.devices()).target
    phi = sum(leaf.size for leaf in jax.tree.leaves(target.weight_spec))
    assert program("train", 4).collectives["all-reduce"][1] == 4 * (
        phi + 1
    )  # and the loss


def test_blank_has_the_shapes_of_the_set():
    blank = data.blank(data.DataConfig("cifar10", valid=0.1), 0)
    assert (blank.image, blank.classes) == ((32, 32, 3), 10)
    assert [len(s.y_N) for s in (blank.train, blank.valid, blank.test)] == [
        45_000,
        5_000,
        10_000,
    ]
    with pytest.raises(UserError, match=r"data\.data_dir"):
        data.blank(data.DataConfig("cifar10", data_dir="no/such/place"), 0)


@pytest.mark.parametrize(
    "message",
    [
        "Ran out of memory on HBM, the total memory required (22.50G) exceeds available HBM (15.75G).",
        "Ran out of memory in memory space hbm. Used 22.50G of 15.75G hbm. Exceeded hbm capacity by 6.75G.",
    ],
)
def test_what_does_not_fit_is_one_line(message):
    assert (
        preflight._excess(message)
        == "needs 22.50 GiB of 15.75 GiB on a device, 6.75 GiB too much"
    )


def shell(*words):
    command = [sys.executable, "-m", "jaxhypernas", "compile", *words]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
        timeout=300,
    )


def test_topology_must_be_given(capsys, monkeypatch):
    monkeypatch.setattr(cli, "set_up", lambda: None)
    with pytest.raises(SystemExit) as stop:
        cli.main(["compile"])
    assert stop.value.code == 2 and capsys.readouterr().err.startswith(
        "jaxhypernas: topology: name the slice"
    )


tpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="needs the TPU compiler: extra tpu",
)


@tpu
@pytest.mark.parametrize("topology", ["v5e:3x99", "v1:2x2", "v5e"])
def test_wrong_topology(topology):
    done = shell("--topology", topology)
    assert done.returncode == 2 and done.stderr.startswith(
        "jaxhypernas: topology: "
    )
    assert len(done.stderr.splitlines()) == 1


@tpu
def test_compile_for_a_slice():
    done = shell(
        "--topology", "v5e:2x4", "--json", *flags(SHARED), "--train.batch", "15"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (
        found["devices"] == 8 and "--train.architectures 8" in found["changed"]
    )
    train, score, _ = found["programs"]
    assert (
        set(train["collectives"]) == {"all-reduce"}
        and score["collectives"] == {}
    )
    assert 0 < score["temporaries"] < score["memory"]
