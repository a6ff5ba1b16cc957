"""Every experiment runs, at a size of seconds, and says how it is run.

``test_plugins.py`` runs the plug-ins.
"""

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pytest
from conftest import ROOT
from helpers import population, row
from tiny import TINY, tiny

from jaxhypernas.archs.sizes import GhnCellConfig, Nasbench201Config
from jaxhypernas.programs import training, training_verbs
from jaxhypernas.run import Run
from jaxhypernas.store.checkpoints import Checkpoints

EXPERIMENTS = ROOT / "experiments"
FILES = sorted(EXPERIMENTS.rglob("*.py"))

pytestmark = pytest.mark.usefixtures("quick_compiler")


@pytest.fixture
def experiment(monkeypatch):
    """``experiment("pnas/efficiency")``: the module."""

    def load(place: str) -> ModuleType:
        path = EXPERIMENTS / place
        monkeypatch.syspath_prepend(str(path.parent))
        return importlib.import_module(path.name)

    return load


def lines_of(capsys) -> list[str]:
    """The lines printed so far."""
    return capsys.readouterr().out.splitlines()


def begin(run: Run) -> Run:
    """Begins a run; it goes on as if its first parameters were trained."""
    training_verbs.begin(run.parts, run.dataset, run.workdir)
    with Checkpoints(run.workdir / "checkpoints") as checkpoints:
        state = training.start_everywhere(run.parts)
        checkpoints.save(run.config.train.steps, state)
    return run


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> Run:
    """A run on NAS-Bench-201's cells."""
    directory = tmp_path_factory.mktemp("experiments") / "cells"
    return begin(Run(directory, tiny("nasbench201", "shared", "random")))


@pytest.fixture(scope="module")
def memory_banks(tmp_path_factory) -> Run:
    """A run on memory banks, with a sample that seems to be trained from scratch."""
    directory = tmp_path_factory.mktemp("experiments") / "memory_banks"
    run = begin(Run(directory, TINY))
    space = run.parts.searched.space
    sample = population(space, 4)
    columns = {
        "group": ["sample"] * 4,
        "arch": [space.to_string(row(sample, i)) for i in range(4)],
        "test_loss": [0.1, 0.3, 0.2, 0.4],
    }
    run.retrained.append(pa.table(columns))
    return run


def test_rank(cells, experiment, tmp_path, capsys):
    """Ranks cells of a table against its columns."""
    rank = experiment("nasbench201/rank")
    space = cells.parts.searched.space
    some = population(space, 5)
    archs = [space.to_string(row(some, i)) for i in range(5)]
    header = ["arch", "cifar10_test_200", *rank.PUBLISHED]
    numbers = [str(i) for i in range(len(header) + len(archs))]
    rows = [[arch, *numbers[i : i + 4]] for i, arch in enumerate(archs)]
    truth = tmp_path / "truth.csv"
    truth.write_text("\n".join(map(",".join, [header, *rows])))
    picture = tmp_path / "picture.png"
    rank.main(rank.Args((cells.workdir,), truth, picture))
    lines = lines_of(capsys)
    assert lines[0].startswith("5 cells, ")
    assert lines[0].endswith(", generator shared")
    for name in ("generated weights: loss", "live FLOPs", *rank.PUBLISHED):
        assert any(line.startswith(name) for line in lines)
    assert picture.stat().st_size > 1000


def test_ablation(cells, experiment, tmp_path, capsys):
    """Prints a row for each part of the score, and draws them."""
    ablation = experiment("ranking/ablation")
    space = cells.parts.searched.space
    some = population(space, 6)
    lines = [f"{space.to_string(row(some, i))},{i}" for i in range(6)]
    truth, picture = tmp_path / "truth.csv", tmp_path / "picture.png"
    truth.write_text("\n".join(["arch,cifar10_test_200", *lines]))
    both = cells.workdir, cells.workdir
    ablation.main(ablation.Args(both, str(truth), picture=picture))
    found = lines_of(capsys)
    assert found[0] == "6 architectures, 2 seeds"
    names = [line.split(" | ")[0].strip("| ") for line in found[3:]]
    assert {"score", "capacity", "score without separability"} < set(names)
    assert picture.stat().st_size > 1000


def test_counts(experiment, tmp_path, capsys):
    """Prints a row for each count of a table of cells."""
    counts = experiment("ranking/counts")
    archs = [
        "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
        "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|none~2|",
        "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|nor_conv_1x1~1|none~2|",
    ]
    lines = [f"{arch},{i}" for i, arch in enumerate((*archs, archs[2]))]
    truth = tmp_path / "truth.csv"
    truth.write_text("\n".join(["arch,accuracy", *lines]))
    args = counts.Args(str(truth), "nasbench201", column="accuracy")
    counts.main(args)
    found = lines_of(capsys)
    assert found[0].startswith("4 architectures, Nasbench201Config(")
    assert found[-1].startswith("capacity")


def test_efficiency(cells, experiment, capsys):
    """Compares strategies by the candidates that they score."""
    efficiency = experiment("pnas/efficiency")
    args = efficiency.Args(
        cells.workdir, number=8, population=4, beam=3, seeds=1
    )
    efficiency.main(args)
    lines = lines_of(capsys)
    assert lines[0].startswith("mlp, seed 0: rho fitted/random/chosen")
    assert len(lines) == 1 + 2 * 3


def test_encoding(memory_banks, experiment, capsys):
    """Scores a sample under its own and other encodings."""
    encoding = experiment("smash/encoding")
    encoding.main(encoding.Args(memory_banks.workdir))
    lines = lines_of(capsys)
    assert lines[0].startswith("own encoding: loss")
    assert lines[1].startswith("another's encoding: loss")
    assert lines[2].startswith("difference in loss")


def test_bench_ghn(experiment, capsys):
    ghn = experiment("bench/ghn")
    sizes = GhnCellConfig(channels=4, cells=1, nodes=3)
    ghn.main(ghn.Args(sizes, candidates=2, json=True))
    ratios = json.loads(lines_of(capsys)[-1])["ratios"]
    assert {row["case"] for row in ratios} == {
        "ghn/weights",
        "ghn/node states",
    }


def test_bench_candidates(experiment, capsys, monkeypatch):
    candidates = experiment("bench/candidates")
    # Devices share the candidates, as many each.
    shape = candidates.Shape((8, 8, 1), 4, 1, batch=8, candidates=4)
    monkeypatch.setitem(candidates.SHAPES, "tiny", shape)
    monkeypatch.setattr(candidates, "peak_gflops", lambda: 1.0)
    args = candidates.Args(
        shapes=("tiny",), schemes=("ours", "naive"), repeats=1, json=True
    )
    candidates.main(args)
    result = json.loads(lines_of(capsys)[-1])
    cases = [f"tiny/{mode}/naive" for mode in ("score", "train")]
    assert [row["case"] for row in result["ratios"]] == cases


def test_bench_accelerator(experiment, capsys, monkeypatch):
    """Times programs on the device that is there."""
    accelerator = experiment("bench/accelerator")
    fused, naive = accelerator.WAYS[1], accelerator.WAYS[-1]
    monkeypatch.setattr(accelerator, "WAYS", [fused, naive])
    args = accelerator.Args(
        space=Nasbench201Config(channels=4, cells=1),
        candidates=5,
        batch=2,
        json=True,
    )
    accelerator.main(args)
    rows = json.loads(lines_of(capsys)[-1])["rows"]
    passes = [(row["way"], row["pass"]) for row in rows]
    assert len(set(passes)) == len(passes) == 4
    assert not [row for row in rows if "error" in row]


def test_bench_growth():
    """Measures a row, in a process of its own as the number of devices asks."""
    program = (
        "import growth; growth.ENOUGH_S = 1e-9; "
        "print(growth.measure(growth.Row(candidates=8, devices=2, nodes=3)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=EXPERIMENTS / "bench",
        env={**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    figures = ast.literal_eval(done.stdout)
    assert figures["us_per_candidate"] > 0 and figures["grown_mib"] >= 0


@pytest.mark.parametrize(
    "path", FILES, ids=lambda path: str(path.relative_to(EXPERIMENTS))
)
def test_a_script_says_how_it_is_run(path: Path):
    source = path.read_text()
    about = ast.get_docstring(ast.parse(source))
    assert about
    if "__main__" in source:
        place = path.parent if path.name == "__main__.py" else path
        assert f"python {place.relative_to(ROOT)}" in " ".join(about.split())
