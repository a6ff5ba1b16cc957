"""Work of compiled programs; a run's programs compiled without devices or images."""

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
from tiny import flags, tiny

from jaxhypernas.data.config import DataConfig
from jaxhypernas.data.dataset import blank
from jaxhypernas.programs.ahead import figures, hlo, text
from jaxhypernas.programs.ahead.lowering import lowered, plan
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
            lax.scan(lambda x, _: (repeat(5)(x, w), None), x, None, length=3)[
                0
            ]
            @ w
        )

    assert work(nested, (N, N), (N, N)).flops == 16 * PRODUCT


def test_a_loop_of_unknown_length_counts_once_and_is_reported():
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
    # Each turn reading all of x would be 64 * whole.
    found = work(total, (64, 1000), (1000,)).bytes
    assert 2 * whole <= found <= 5 * whole


SHARED = tiny("nasbench201", "shared")


def program(name, devices):
    programs = lowered(SHARED, jax.devices()[:devices])
    # Those after it are not lowered.
    found = next(program for program in programs if program.name == name)
    return hlo.read(found.lowered.compile())


EIGHT = """
import json
from test_ahead import program

work = program("score", 8)
print(json.dumps([work.flops, work.collectives]))
"""


def test_scoring_on_more_devices():
    """Eight devices take eight times the candidates; each does as much as one alone."""
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
    parts, _ = plan(SHARED, jax.devices())
    phi = parts.searched.target.weight_spec
    floats = sum(leaf.size for leaf in jax.tree.leaves(phi))
    loss = 1
    _, size = program("train", 4).collectives["all-reduce"]
    assert size == 4 * (floats + loss)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (tiny("nasbench201", "standalone"), ["retrain"]),
        (
            tiny(
                "nasbench201",
                "shared",
                data=DataConfig(limit=120, stream=True),
            ),
            ["train", "score"],
        ),
    ],
    ids=["standalone", "streamed"],
)
def test_programs_of_a_run(config, names):
    found = list(lowered(config, jax.devices()))
    assert [program.name for program in found] == names


def test_architectures_are_raised_to_fit_the_devices():
    devices = jax.devices()
    assert figures.fitting(SHARED, devices) == (SHARED, None)
    train = dataclasses.replace(SHARED.train, architectures=6, batch=15)
    config = dataclasses.replace(SHARED, train=train)
    changed, line = figures.fitting(config, devices)
    assert changed.train == dataclasses.replace(train, architectures=8)
    assert line is not None and "--train.architectures 8" in line
    alone = dataclasses.replace(
        config, generator=tiny(generator="standalone").generator
    )
    assert figures.fitting(alone, devices) == (alone, None)


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("train", "64 images*candidates/s, 32 by"),
        ("score", "4 candidates/s, 2 by"),
        ("retrain", "14,400.0 candidates/h, 7,200.0 by"),
    ],
)
def test_figures_as_text(name, rate):
    found = figures.Figures(
        program=name,
        compile_s=1.5,
        arguments=2**20,
        outputs=2 * 2**20,
        temporaries=3 * 2**20,
        memory=2**30,
        candidates=0.5,
        images=16,
        flops=2e9,
        bytes=1e9,
        collectives={"all-reduce": (3.0, 2.0**20)},
        candidates_per_s=4.0,
        candidates_per_s_by_cycles=2.0,
        bound="arithmetic",
    )
    lines = text.lines(found).splitlines()
    assert lines[0].startswith(
        f"{name}: 0.5 candidate(s) per device, 16 images"
    )
    assert "6 MiB of 1,024: 1 arguments, 2 outputs, 3 temporaries" in lines[1]
    assert "2.00 GFLOP, 1.00 GB" in lines[2]
    assert lines[3].endswith("all-reduce x3 (1.00 MiB)")
    assert rate in lines[4] and lines[4].endswith("bound by arithmetic")


def test_blank_has_the_shapes_of_the_set():
    dataset = blank(DataConfig("cifar10", valid=0.1), 0)
    assert (dataset.image, dataset.classes) == ((32, 32, 3), 10)
    splits = (dataset.train, dataset.valid, dataset.test)
    assert [len(split.y_N) for split in splits] == [45_000, 5_000, 10_000]
    with pytest.raises(UserError, match=r"data\.data_dir"):
        blank(DataConfig("cifar10", data_dir="no/such/place"), 0)


@pytest.mark.parametrize(
    "message",
    [
        "Ran out of memory on HBM, the total memory required (22.50G) exceeds "
        "available HBM (15.75G).",
        "Ran out of memory in memory space hbm. Used 22.50G of 15.75G hbm. "
        "Exceeded hbm capacity by 6.75G.",
    ],
)
def test_what_does_not_fit_is_one_line(message):
    assert (
        figures._excess(message)
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


def test_topology_must_be_given():
    done = shell()
    assert done.returncode == 2
    assert done.stderr.startswith("jaxhypernas: topology: it is missing")


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
        "--topology",
        "v5e:2x4",
        "--json",
        *flags(SHARED),
        "--train.batch",
        "15",
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
