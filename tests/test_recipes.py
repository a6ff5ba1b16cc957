"""Losses, optimisers and augmentations by name; training step by step; objectives."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_same, complaint
from tiny import flags, tiny

import jaxhypernas as jhn
from jaxhypernas.cli.main import main
from jaxhypernas.numerics.recipes import AUGMENTATIONS, LOSSES, OPTIMIZERS
from jaxhypernas.run import Run

pytestmark = pytest.mark.usefixtures("quick_compiler")

PLUGIN = ["--plugin", "experiments/plugins/recipe.py"]
CHOSEN = {
    "train.loss": "smooth",
    "train.optimizer": "lion",
    "retrain.train.loss": "smooth",
    "data.augment": "cutout",
}
BASE = tiny("nasbench201", "shared")


@pytest.fixture(autouse=True)
def registries():
    """Entries that a test adds are gone when it ends."""
    before: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (each, dict(each)) for each in (LOSSES, OPTIMIZERS, AUGMENTATIONS)
    ]
    yield
    for registry, entries in before:
        registry.clear()
        registry.update(entries)


def trained(tmp_path, name, **changes):
    """phi of a run that is trained in another way."""
    train = dataclasses.replace(BASE.train, **changes.pop("train", {}))
    data = dataclasses.replace(BASE.data, **changes.pop("data", {}))
    config = dataclasses.replace(BASE, train=train, data=data)
    return Run(tmp_path / name, config).train()


def pairs(a, b):
    return zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)


def test_entries_that_do_the_same_change_nothing(tmp_path):
    jhn.LOSSES["mine"] = lambda logits_BxL, y_B: (
        optax.softmax_cross_entropy_with_integer_labels(logits_BxL, y_B).mean()
    )
    jhn.OPTIMIZERS["mine"] = lambda schedule: optax.adam(
        schedule, 0.5, 0.999, 1e-4
    )
    jhn.AUGMENTATIONS["mine"] = lambda key, x_BxHxWxC: x_BxHxWxC + 0
    own = trained(tmp_path, "own")
    mine = trained(
        tmp_path,
        "mine",
        train={"loss": "mine", "optimizer": "mine"},
        data={"augment": "mine"},
    )
    for a, b in pairs(own, mine):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["loss", "optimizer", "augment"])
def test_each_is_used(tmp_path, name):
    jhn.LOSSES["twice"] = lambda logits_BxL, y_B: (
        LOSSES["cross_entropy"](logits_BxL, y_B) + (logits_BxL**2).mean()
    )
    jhn.OPTIMIZERS["twice"] = optax.sgd
    jhn.AUGMENTATIONS["twice"] = lambda key, x_BxHxWxC: -x_BxHxWxC
    section = "data" if name == "augment" else "train"
    own = trained(tmp_path, "own")
    other = trained(tmp_path, "other", **{section: {name: "twice"}})
    assert any(not jnp.allclose(a, b) for a, b in pairs(own, other))


def test_a_search_with_a_plugin_of_all_three(tmp_path):
    words = [
        "search",
        "--workdir",
        str(tmp_path / "run"),
        *PLUGIN,
        *flags(BASE),
    ]
    for place, value in CHOSEN.items():
        words += [f"--{place.replace('_', '-')}", value]
    words += ["--train.learning-rate", "1e-3"]
    assert main(words) == 0
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    for place, value in CHOSEN.items():
        found = stored
        for part in place.split("."):
            found = found[part]
        assert found == value


@pytest.mark.parametrize("place", CHOSEN)
def test_unknown_names_are_one_line(tmp_path, place):
    words = ["train", "--workdir", str(tmp_path / "run")]
    line = complaint([*words, f"--{place}", "nonsense"])
    assert place.replace("_", "-") in line.replace("_", "-")
    assert "nonsense" in line
    assert not (tmp_path / "run").exists()


def test_training_by_calls_is_training(tmp_path):
    whole = Run(tmp_path / "whole", BASE).train()
    run = Run(tmp_path / "calls", BASE)
    steps = [int(done.state.step) for done in run.training()]
    assert steps == sorted(steps) and steps[-1] == BASE.train.steps
    assert_same(run.phi, whole)


def test_who_stops_between_calls_goes_on_later(tmp_path):
    whole = Run(tmp_path / "whole", BASE).train()
    run = Run(tmp_path / "calls", BASE)
    for done in run.training():
        if int(done.state.step) >= 4:
            break
    assert (tmp_path / "calls" / "checkpoints" / "4").is_dir()
    assert_same(run.train(), whole)


def test_a_search_by_an_objective_of_ones_own(tmp_path):
    evolution = tiny("nasbench201", "shared", "evolution")
    asked = []

    def smallest(rows):
        asked.append(rows.column_names)
        return [-count for count in rows["params"].to_pylist()]

    by_size = Run(tmp_path / "size", evolution)
    by_size.train()
    table = by_size.search(smallest)
    assert "score" in asked[0] and "loss" in asked[0]
    by_score = Run(tmp_path / "score", evolution)
    by_score.begin_from(tmp_path / "size")
    by_score.train()
    own = by_score.search()
    assert table.column("params").mean() < own.column("params").mean()


def test_figures_are_matplotlibs(tmp_path):
    run = Run(tmp_path / "run", BASE)
    run.train()
    run.search()
    run.retrain()
    for name, figure in run.figures().items():
        figure.savefig(tmp_path / f"{name}.svg")
        assert figure.axes[0].get_xlabel()
    assert (tmp_path / "search.svg").stat().st_size > 1000
