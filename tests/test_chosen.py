"""Architectures of the user's choice, trained in another way than the run's."""

import dataclasses
import json
import re

import jax
import pytest
from helpers import complaint, population
from tiny import SPACES, tiny

from jaxhypernas.cli.main import main
from jaxhypernas.config.changes import changed, changes
from jaxhypernas.data.config import DataConfig
from jaxhypernas.families import FAMILIES
from jaxhypernas.programs import chosen, networks, retraining
from jaxhypernas.run import Run
from jaxhypernas.types import Settings

pytestmark = pytest.mark.usefixtures("quick_compiler")

STILL = ("--retrain.train.learning-rate", "1e-12")
"""Flags with which training changes nothing."""

WIDER = {
    name: {"unit": 4} if name == "memory_bank" else {"channels": 8, "cells": 2}
    for name in SPACES
}
"""Larger sizes of each family."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    made = Run(workdir, tiny("nasbench201", "shared"))
    made.train()
    made.search()
    made.retrain()
    return made


def retrain(run, *words) -> list[dict]:
    """Calls the verb; returns the rows that it added."""
    before = len(run.retrained)
    words = ["retrain", "--workdir", str(run.workdir), *words]
    assert main(words) == 0
    run.retrained.refresh()
    return run.retrained.read().to_pylist()[before:]


def larger(name: str) -> Settings:
    """`SPACES` with the larger sizes."""
    own = SPACES[name]
    return type(own)(**{**vars(own), **WIDER[name]})


def close(row, other, names=("trained_valid_loss", "test_loss")):
    for name in names:
        assert row[name] == pytest.approx(other[name], rel=1e-4)


def test_longer(run, capsys, tmp_path):
    winner = run.report()["winner"]
    (row,) = retrain(run, "--rank", "1", "--steps", "30")
    assert row["id"] == winner["id"] and row["group"] == "chosen"
    assert json.loads(row["changes"]) == {"retrain.train.steps": 30}
    assert row["start"] == "scratch"
    assert row["test_loss"] != winner["test_loss"]
    shown = capsys.readouterr().out
    assert (
        f"{row['id'][:8]}  test accuracy {row['test_accuracy']:.4f}" in shown
    )
    # The same again is there already.
    assert not retrain(run, "--rank", "1", "--steps", "30")

    # The run's own report stays as it was, with a section on it.
    figures = run.report()
    assert figures["winner"] == winner and row in figures["chosen"]
    text = (run.workdir / "report.md").read_text()
    assert f"| `{row['id'][:8]}` | scratch | retrain.train.steps: 30 |" in text

    words = ["--workdir", str(run.workdir), "--out", str(tmp_path)]
    assert main(["export", *words, "--arch", row["id"]]) == 0
    card = (tmp_path / "card.md").read_text()
    best = min(
        (each for each in figures["chosen"] + [winner]),
        key=lambda each: each["trained_valid_loss"],
    )
    by_batch = re.search(r"candidates are compared \| (0\.\d+)", card)
    assert by_batch is not None
    assert float(by_batch[1]) == pytest.approx(best["test_accuracy"], abs=1e-4)


def test_on_from_trained_weights(run):
    winner = run.report()["winner"]
    words = ("--archs", str(run.workdir / "archs.txt"), "--start", "trained")
    (run.workdir / "archs.txt").write_text(f"{winner['id']}\n")
    (row,) = retrain(run, *words, *STILL)
    begun = [
        each
        for each in run.retrained.read().to_pylist()
        if f"trained {each['id']}" in row["start"] and each["id"] == row["id"]
    ]
    best = min(begun, key=lambda each: each["trained_valid_loss"])
    close(row, best)


def test_from_generated_weights(run):
    arch = run.scores.best(5)["arch"][4].as_py()
    train = dataclasses.replace(run.config.retrain.train, learning_rate=1e-12)
    config = dataclasses.replace(
        run.config,
        retrain=dataclasses.replace(run.config.retrain, train=train),
    )
    rows = run.retrain_chosen([arch, arch], config=config, start="generated")
    (row,) = rows.to_pylist()
    (score,) = run.score([arch]).to_pylist()
    assert row["start"] == "generated"
    assert row["trained_valid_loss"] == pytest.approx(score["loss"], rel=1e-4)


def test_wider_and_deeper(run, tmp_path):
    words = ("--space.channels", "8", "--space.cells", "2")
    (row,) = retrain(run, "--top", "1", *words)
    own = run.score([row["id"]]).to_pylist()[0]
    assert row["params"] > 4 * own["params"] and row["arch"] == own["arch"]

    # Further, at these sizes.
    (more,) = retrain(run, "--top", "1", *words, "--start", "trained", *STILL)
    close(more, row)
    assert more["start"] == f"trained {chosen.file_name(row)}"

    made = networks.weights(run.network(arch=row["id"]))
    numbers = sum(array.size for array in made.values())
    assert numbers > 4 * own["live_params"]


def test_other_images(run):
    words = ("--data.flip", "--data.pad", "2", "--data.limit", "200")
    (row,) = retrain(run, "--top", "1", *words)
    changes = {"data.flip": True, "data.limit": 200, "data.pad": 2}
    assert json.loads(row["changes"]) == changes


def test_the_run_goes_on_as_before(run):
    before = run.retrained.read().to_pylist()
    again = Run(run.workdir)
    assert again.retrain().read().to_pylist() == before
    own = retraining.by_run(before)
    assert {row["group"] for row in own} <= {"top", "sample", "chosen"}
    assert len([row for row in own if row["group"] == "sample"]) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--top", "1", "--rank", "1"], "give one of"),
        (["--steps", "9"], "steps: it is for architectures that you choose"),
        (["--start", "trained"], "start: it is for"),
        (["--rank", "99"], "rank: 99 must be in 1 .."),
        (["--rank", "-1"], "rank: -1 must be"),
        (["--top", "1", "--steps", "-1"], "steps: -1 must be"),
        (["--top", "1", "--train.steps", "9"], "train.steps: it says nothing"),
        (["--top", "1", "--space", "pnas"], "space: it says nothing"),
        (
            ["--top", "1", "--start", "generated", "--space.channels", "16"],
            "start: the generator writes weights of the run's own sizes",
        ),
        (
            ["--top", "1", "--start", "trained", "--space.channels", "16"],
            "has no kept weights of these sizes",
        ),
        # Their weights have seen images that would be held out then.
        (
            ["--top", "1", "--start", "trained", "--seed", "7"],
            "has no kept weights of these sizes and this split",
        ),
        (
            ["--top", "1", "--start", "generated", "--data.valid", "0.3"],
            "leave data.valid out",
        ),
        (["--space.channels", "16"], "was begun with 4, not 16"),
        (["--retrain.train.steps", "9"], "was begun with 4, not 9"),
    ],
)
def test_mistakes_are_one_line(run, words, said):
    before = run.retrained.read()
    line = complaint(["retrain", "--workdir", str(run.workdir), *words])
    assert said in line
    assert run.retrained.read().equals(before)


def test_a_directory_without_a_run(tmp_path):
    for words in ([], ["--top", "1"]):
        line = complaint(["retrain", "--workdir", str(tmp_path / "x"), *words])
        assert "holds no run" in line


def test_a_run_without_scores_and_trainings(tmp_path):
    """Then chosen ones are trained all the same, but make no report."""
    run = Run(tmp_path / "run", tiny("nasbench201", "shared"))
    run.train()
    words = ["--workdir", str(run.workdir)]
    assert "has no scores" in complaint(["retrain", *words, "--top", "2"])
    assert "rank: 1 must be" in complaint(["retrain", *words, "--rank", "1"])
    arch = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    (row,) = run.retrain_chosen([arch], start="generated").to_pylist()
    assert row["group"] == "chosen" and row["start"] == "generated"
    assert "jaxhypernas retrain first" in complaint(["report", *words])


@pytest.mark.parametrize("name", FAMILIES)
def test_strings_mean_the_same_at_other_sizes(name):
    """And there the networks are larger."""
    small, _ = FAMILIES[name].build(SPACES[name], (8, 8, 1), 10)
    large, _ = FAMILIES[name].build(larger(name), (8, 8, 1), 10)
    archs = population(small, 10)
    for i in range(10):
        arch = jax.tree.map(lambda x, i=i: x[i], archs)
        text = small.to_string(arch)
        assert large.to_string(large.from_string(text)) == text
    small_A, large_A = small.cost(archs).params, large.cost(archs).params
    assert (large_A > small_A).all()


@pytest.mark.parametrize(
    ("space", "generator"), [("pnas", "ghn"), ("memory_bank", "smash")]
)
def test_changes_are_read_as_they_were_written(space, generator):
    own = tiny(space, generator)
    other = dataclasses.replace(
        own,
        space=larger(space),
        data=DataConfig(limit=50, flip=True, dataset="elsewhere.npz"),
        seed=3,
    )
    text = changes(own, other)
    found = changed(own, text)
    assert found.data.dataset == own.data.dataset
    elsewhere = dataclasses.replace(found.data, dataset="elsewhere.npz")
    assert dataclasses.replace(found, data=elsewhere) == other
    assert changes(own, own) == "" and changed(own, "") == own
