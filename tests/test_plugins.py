"""A family, a generator and a strategy of one's own, with every verb.

The plug-ins are the documented examples in experiments/plugins.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jaxhypernas.cli.main import main
from jaxhypernas.families import FAMILIES
from jaxhypernas.generators import GENERATORS
from jaxhypernas.search import STRATEGIES

pytestmark = pytest.mark.usefixtures("quick_compiler")

PLUGINS = Path(__file__).resolve().parents[1] / "experiments" / "plugins"
FLAGS = [
    flag
    for name in ("residual", "scaled", "climb")
    for flag in ("--plugin", str(PLUGINS / f"{name}.py"))
]
SIZES = {
    "space": {"name": "residual", "channels": 4, "cells": 1, "nodes": 2},
    "generator": {"name": "scaled", "reach": 0.25},
    "strategy": {"name": "climb", "start": 12, "rounds": 2, "children": 3},
}
TINY = [
    *("--data.limit", "120", "--score.batch", "8"),
    *("--train.steps", "4", "--train.every", "2", "--train.batch", "16"),
    *("--retrain.top", "1", "--retrain.sample", "3"),
    *("--retrain.train.steps", "2", "--retrain.train.batch", "16"),
]


@pytest.fixture(scope="module", autouse=True)
def registries():
    """Plug-ins of this file are gone when it ends."""
    yield
    for registry, name in (
        (FAMILIES, "residual"),
        (GENERATORS, "scaled"),
        (STRATEGIES, "climb"),
    ):
        registry.pop(name, None)


def choices():
    for slot, section in SIZES.items():
        for field, value in section.items():
            name = slot if field == "name" else f"{slot}.{field}"
            yield from (f"--{name}", str(value))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A finished search of three plug-ins."""
    directory = tmp_path_factory.mktemp("plugins") / "run"
    words = ["search", "--workdir", str(directory), *FLAGS, *choices(), *TINY]
    assert main(words) == 0
    return directory


def test_sizes_are_in_the_configuration(workdir):
    stored = json.loads((workdir / "config.json").read_text())
    assert {slot: stored[slot] for slot in SIZES} == SIZES
    assert (workdir / "report.md").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["train"],
        ["score", "--random", "5"],
        ["top", "--number", "3"],
        ["retrain"],
        ["report"],
    ],
    ids=lambda words: words[0],
)
def test_verbs(workdir, words):
    assert main([*words, "--workdir", str(workdir), *FLAGS]) == 0


def test_without_the_plugin_a_line_says_so(workdir):
    command = [sys.executable, "-m", "jaxhypernas", "score", "--random", "2"]
    done = subprocess.run(
        [*command, "--workdir", str(workdir)], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "space: 'residual' is not one of" in done.stderr
    assert "--plugin" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["no/such.py", "no_such_module"])
def test_a_plugin_that_is_not_there(name, capsys, tmp_path):
    words = ["train", "--workdir", str(tmp_path / "run"), "--plugin", name]
    assert main(words) == 2
    assert "plugin: " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
