"""A run is trained on to more steps; what its older phi scored is set aside."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from helpers import complaint, same
from tiny import TINY, flags, tiny

from jaxhypernas.cli.main import main
from jaxhypernas.config import file
from jaxhypernas.run import Run

pytestmark = pytest.mark.usefixtures("quick_compiler")

SETTINGS = tiny(
    "nasbench201",
    "shared",
    "random",
    train=replace(TINY.train, steps=2),
)


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A run of 2 steps with scores that was trained on to 4, and what was said."""
    workdir = tmp_path_factory.mktemp("grown") / "run"
    words = ["--workdir", str(workdir)]
    assert main(["train", *words, *flags(SETTINGS)]) == 0
    phi = Run(workdir).phi
    assert main(["score", "--random", "3", *words]) == 0
    assert main(["train", *words, "--train.steps", "4"]) == 0
    return workdir, phi


def test_training_goes_on(grown):
    workdir, phi = grown
    run = Run(workdir)
    assert run.config == replace(SETTINGS, train=replace(TINY.train, steps=4))
    leaves = jax.tree.leaves(run.phi)
    assert not same(phi, run.phi)
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    steps = sorted(p.name for p in (workdir / "checkpoints").iterdir())
    assert steps == ["2", "4"]


def test_older_scores_are_set_aside(grown):
    workdir, _ = grown
    assert not (workdir / "scores").exists()
    assert len(list((workdir / "scores.2").glob("*.parquet"))) == 1
    words = ["score", "--random", "3", "--workdir", str(workdir)]
    assert main(words) == 0
    assert len(Run(workdir).scores) == 3


def test_only_the_steps_may_grow(grown):
    workdir, _ = grown
    words = ["train", "--workdir", str(workdir), "--train.steps"]
    assert complaint([*words, "3"]).startswith("train.steps:")
    line = complaint([*words, "9", "--train.batch", "8"])
    assert line.startswith("train.batch:")
    assert file.load(workdir / "config.json").train.steps == 4


def test_it_is_said(tmp_path, grown, capsys):
    workdir, _ = grown
    run = Run(workdir)
    (workdir / "scores").mkdir(exist_ok=True)
    run.train_on(5)
    said = capsys.readouterr().err
    assert "4 becomes 5" in said and "schedule of 5 steps" in said
    assert "scores.4/" in said
    assert Run(workdir).config.train.steps == 5
