"""What a search will take, said beforehand and fitted into a time."""

import dataclasses
import json
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import complaint
from tiny import STRATEGY_SIZES, TINY, family, flags, tiny

from jaxhypernas import Run
from jaxhypernas.cli.main import main
from jaxhypernas.config import PRESETS
from jaxhypernas.programs import plan, training_verbs, trial
from jaxhypernas.programs.parts import build
from jaxhypernas.programs.trial import Measured, Trial
from jaxhypernas.report import duration
from jaxhypernas.search import STRATEGIES
from jaxhypernas.search.configs import Limits, scaled
from jaxhypernas.types import UserError

INVENTED = Trial(
    train=Measured(10.0, 0.5),
    score=Measured(5.0, 0.1),
    alone=0.3,
    retrain=Measured(7.0, 0.2),
    test=Measured(1.0, 0.01),
    compiling=40.0,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("runs") / "run", TINY)


def by_name(run, config=TINY):
    parts = build(config, run.parts.image, run.parts.classes)
    phases = plan.phases(parts, run.dataset, INVENTED)
    return {phase.name: phase for phase in phases}


def test_phases_add_up(run):
    found = by_name(run)
    assert found["train"].seconds == pytest.approx(10 + 8 * 0.5)
    # 40 samples, 6 perturbed, 4 greedy steps and the random sample of 4.
    search = 5 + (40 + 6 + 4 + 4) * 0.1 + (2 + 4) * (0.3 - 0.1)
    assert found["search"].seconds == pytest.approx(search)
    assert "54 candidates on 24 images" in found["search"].work
    # 24 held-out images are 10 batches of 2, 360 test images in such batches.
    devices = run.parts.mesh.size
    alone = 4 * 0.2 + (24 + 360) / 2 * 0.01
    retrain = 7 + 2 * 1 + math.ceil(6 / devices) * alone
    assert found["retrain"].seconds == pytest.approx(retrain)


def test_candidates_that_are_trained_to_be_scored(run):
    found = by_name(run, tiny("nasbench201", "standalone", "random"))
    assert "train" not in found
    devices = run.parts.mesh.size
    alone = 4 * 0.2 + (24 + 360) / 2 * 0.01
    search = 7 + 2 + 24 * alone / devices + 5 + (0.3 - 0.1)
    assert found["search"].seconds == pytest.approx(search)


@pytest.mark.parametrize("seconds", [60, 200, 1000, 50_000])
def test_a_search_is_fitted_into_a_time(run, seconds):
    fit = run.parts, run.dataset, INVENTED, seconds
    config = plan.fitted(*fit, most=seconds)
    takes = sum(phase.seconds for phase in by_name(run, config).values())
    assert 0.9 * seconds <= takes <= seconds
    # Nothing else changes.
    same = dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, steps=TINY.train.steps),
        strategy=TINY.strategy,
        retrain=TINY.retrain,
    )
    assert same == TINY
    assert config.retrain.top == TINY.retrain.top


def test_a_time_that_is_too_short_is_refused(run):
    with pytest.raises(UserError, match=r"^minutes: too short"):
        plan.fitted(run.parts, run.dataset, INVENTED, 20, most=25)


def test_the_smallest_search_may_take_a_little_longer(run):
    fit = run.parts, run.dataset, INVENTED, 20
    config = plan.fitted(*fit, most=1000)
    assert (
        config.train.steps == plan.FEWEST_STEPS == config.retrain.train.steps
    )


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("factor", [1e-4, 0.3, 20])
def test_every_strategy_scales(name, factor):
    own = STRATEGY_SIZES[name]
    config = scaled(own, factor)
    space, _ = family("nasbench201")
    before = STRATEGIES[name].build(own, space, Limits()).total
    after = STRATEGIES[name].build(config, space, Limits()).total
    assert (after > before) == (factor > 1)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_says_how_often_it_asks(name):
    space, _ = family("nasbench201")
    strategy = STRATEGIES[name].build(STRATEGY_SIZES[name], space, Limits())
    state = strategy.init(jax.random.key(0))
    rounds = total = 0
    while (asked := strategy.ask(state)) is not None:
        number = len(jax.tree.leaves(asked)[0])
        rounds, total = rounds + 1, total + number
        loss_A = np.random.default_rng(rounds).random(number)
        state = strategy.tell(state, asked, loss_A)
    assert rounds <= strategy.rounds <= rounds + 1
    assert total <= strategy.total


@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.parametrize("generator", ["shared", "standalone"])
def test_a_trial_leaves_nothing(tmp_path, monkeypatch, generator):
    monkeypatch.setattr(trial, "SECONDS", 0.1)
    run = Run(tmp_path / "run", tiny("nasbench201", generator))
    found = run.trial()
    assert not (tmp_path / "run").exists()
    assert (found.train.unit > 0) == (generator == "shared")
    assert (found.alone > 0) == (generator == "shared")
    assert found.retrain.unit > 0 and found.test.unit > 0
    assert min(jax.tree.leaves(found)) >= 0


def test_the_clock_of_a_trial_leaves_compiling_out():
    def compile_something():
        jax.jit(lambda x: jnp.sin(x) @ x).lower(jnp.ones((17, 17))).compile()

    began = time.time()
    with trial._clock() as clock:
        compile_something()
    took = time.time() - began
    compiling = clock.compiling
    assert 0 < compiling < took
    compile_something()
    assert clock.compiling == compiling


@pytest.mark.usefixtures("quick_compiler")
def test_search_says_it_and_does_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trial, "measure", lambda *_: INVENTED)
    workdir = tmp_path / "run"
    words = ["search", "--workdir", str(workdir)]
    words += flags(tiny("nasbench201", "shared", "random"))
    assert main([*words, "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "8 steps of 4 architectures x 16 images" in said
    assert "in all" in said and "compiling took 40 s beside that" in said
    assert not workdir.exists()

    assert "too short" in complaint([*words, "--minutes", "0.2"])
    assert "minutes: -1" in complaint([*words, "--minutes", "-1"])
    assert not workdir.exists()

    assert main([*words, "--minutes", "1"]) == 0
    assert "in all" in capsys.readouterr().err
    stored = json.loads((workdir / "config.json").read_text())
    assert stored["train"]["steps"] > 8
    assert (workdir / "report.md").exists()


def test_a_begun_run_goes_on_as_it_was_begun(tmp_path, monkeypatch):
    """The same command goes on, whatever the trial would say now."""
    from jaxhypernas.cli.verbs.search import Search

    begun = Run(tmp_path / "run", TINY)
    training_verbs.begin(begun.parts, begun.dataset, begun.workdir)

    def train(self):
        raise InterruptedError

    monkeypatch.setattr(Run, "train", train)
    monkeypatch.setattr(Search, "_planned", pytest.fail)
    with pytest.raises(InterruptedError):
        Search(workdir=begun.workdir, config=TINY, minutes=5).run()


def test_what_takes_long_is_counted(run):
    assert plan.counted(run.parts, run.dataset) < 60
    papers = dataclasses.replace(
        PRESETS["smash-paper"], data=dataclasses.replace(TINY.data, limit=None)
    )
    parts = build(papers, run.parts.image, run.parts.classes)
    assert plan.counted(parts, run.dataset) > 24 * 3600


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (59.6, "1 min 0 s"),
        (238, "3 min 58 s"),
        (3600, "1 h 0 min"),
        (86_400, "24 h 0 min"),
        (300_000, "3.5 days"),
    ],
)
def test_durations(seconds, said):
    assert duration.text(seconds) == said
