"""A run begins with the weights of another run."""

import json
from dataclasses import replace

import jax
import pytest
from helpers import assert_same, complaint, same
from tiny import SPACES, TINY, flags, tiny

from jaxhypernas.archs.sizes import Nasbench201Config
from jaxhypernas.cli.main import main
from jaxhypernas.programs import training
from jaxhypernas.run import Run
from jaxhypernas.store.checkpoints import Checkpoints

pytestmark = pytest.mark.usefixtures("quick_compiler")

SETTINGS = tiny(
    "nasbench201",
    "shared",
    "random",
    train=replace(TINY.train, steps=2),
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A trained run."""
    workdir = tmp_path_factory.mktemp("from") / "source"
    words = ["train", "--workdir", str(workdir), *flags(SETTINGS)]
    assert main(words) == 0
    return workdir


@pytest.fixture(scope="module")
def words(source, tmp_path_factory) -> list[str]:
    """A command that began another run from it, with another optimiser and seed."""
    workdir = tmp_path_factory.mktemp("to") / "run"
    train = replace(SETTINGS.train, optimizer="sgd", steps=1)
    chosen = flags(replace(SETTINGS, train=train, seed=5))
    words = ["train", "--workdir", str(workdir), *chosen, "--from"]
    assert main([*words, str(source)]) == 0
    return words


def test_the_first_state_has_the_other_phi(source, words):
    run = Run(words[2])
    like = training.abstract_state(run.parts, run.parts.replicated)
    directory = run.workdir / "checkpoints"
    steps = sorted(path.name for path in directory.iterdir())
    assert steps == ["0", "1"]
    (directory / "1").rename(run.workdir / "1")
    with Checkpoints(directory) as checkpoints:
        restored = checkpoints.restore(like)
    (run.workdir / "1").rename(directory / "1")
    assert restored is not None
    step, state = restored
    assert step == 0 and int(state.step) == 0
    assert_same(state.phi, Run(source).phi)
    own = jax.random.key_data(training.start_everywhere(run.parts).key)
    assert_same(jax.random.key_data(state.key), own)
    assert not same(state.phi, run.phi)


def test_where_it_came_from_is_kept(source, words):
    text = (Run(words[2]).workdir / "from.json").read_text()
    assert json.loads(text) == {"workdir": str(source), "step": 2}
    assert main([*words, str(source)]) == 0
    line = complaint([*words, str(source.parent)])
    assert line.startswith("from:") and str(source) in line


def test_a_begun_run_is_not_begun_again(source, words):
    line = complaint(["train", "--workdir", str(source), "--from", words[2]])
    assert line.startswith("from:") and "no other run" in line


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            {"space": Nasbench201Config(channels=8, cells=1)},
            "space.channels: 4",
        ),
        ({"space": SPACES["pnas"]}, "space: nasbench201"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(source, tmp_path, change, named):
    chosen = flags(replace(SETTINGS, **change))
    begin = ["train", "--workdir", str(tmp_path / "new"), *chosen]
    line = complaint([*begin, "--from", str(source)])
    assert line.startswith("from:") and named in line
    assert not (tmp_path / "new").exists()


def test_no_run_is_one_line(tmp_path):
    begin = ["train", "--workdir", str(tmp_path / "new"), *flags(SETTINGS)]
    line = complaint([*begin, "--from", str(tmp_path / "nothing")])
    assert line.startswith("from:") and "holds no run" in line
    assert not list(tmp_path.iterdir())
