"""Random mistakes are refused: one line that names the field; nothing is changed."""

import contextlib
from pathlib import Path
from random import Random

import jax
import numpy as np
import pytest
from breakage import CATEGORIES, Case
from helpers import assert_names, complaint, separability
from tiny import tiny

from jaxhypernas.execution.pace import Pace
from jaxhypernas.families import FAMILIES
from jaxhypernas.programs import (
    candidate_verbs,
    scorers,
    training,
    training_verbs,
)
from jaxhypernas.programs.ahead import figures
from jaxhypernas.programs.scorer import Scorer
from jaxhypernas.run import Run
from jaxhypernas.search.budget import within
from jaxhypernas.types import Scores


class StartedError(Exception):
    """A command began that must be refused."""


def start(*_, **__):
    """Stands for all work."""
    raise StartedError


def scorer_of(run: Run, evaluate) -> Scorer:
    """A scorer that calls ``evaluate`` instead of networks."""
    space = run.parts.searched.space
    return Scorer(space, run.scores, evaluate, separability, Pace(1, 128, 128))


def equal_scores(candidates):
    """Scores that cost nothing."""
    ones = np.ones(len(candidates.id_A), np.float32)
    return Scores(ones, ones)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> tuple[Path, dict[str, list[str]]]:
    """A directory with a begun run of each space, and the architectures scored."""
    directory = tmp_path_factory.mktemp("base")
    archs = {}
    for space in FAMILIES:
        generator = "smash" if space == "memory_bank" else "shared"
        run = Run(directory / space, tiny(space, generator, "random"))
        run.scorer = scorer_of(run, equal_scores)
        training_verbs.begin(run.parts, run.dataset, run.workdir)
        draw = within(run.parts.searched.space, run.config.search)
        run.scorer.score_missing(draw.sample(jax.random.key(0), 12))
        archs[space] = run.scores.best(12)["arch"].to_pylist()
    new = Run(directory / "new", tiny())
    training_verbs.begin(new.parts, new.dataset, new.workdir)
    return directory, archs


@pytest.fixture
def nothing_starts(monkeypatch):
    """All work raises `StartedError`; begun runs of `base` seem to be trained."""
    restore_phi = training_verbs.restore_phi

    def restored(parts, workdir):
        return (
            None if workdir.name in FAMILIES else restore_phi(parts, workdir)
        )

    def scorer(parts, table, evaluate):
        space, pace = parts.searched.space, Pace(1, 128, 128)
        return Scorer(space, table, evaluate, separability, pace)

    def generated(parts, table, dataset, phi):
        def evaluate(candidates):
            phi()
            start()

        return Scorer(
            parts.searched.space,
            table,
            evaluate,
            separability,
            Pace(1, 128, 128),
        )

    def scratch(parts, table, dataset, from_scratch):
        return Scorer(
            parts.searched.space, table, start, separability, Pace(1, 128, 128)
        )

    monkeypatch.setattr(training_verbs, "restore_phi", restored)
    monkeypatch.setattr(scorers, "generated_scorer", generated)
    monkeypatch.setattr(scorers, "scratch_scorer", scratch)
    for owner, name in (
        (training, "start_everywhere"),
        (candidate_verbs, "search"),
        (figures, "compiled"),
    ):
        monkeypatch.setattr(owner, name, start)


def tree(*directories: Path) -> dict[Path, bytes | None]:
    """The content of all files; None for a directory."""
    return {
        path: path.read_bytes() if path.is_file() else None
        for directory in directories
        for path in directory.rglob("*")
    }


def write(directory: Path, case: Case) -> None:
    """Writes the files that a case needs."""
    directory.mkdir()
    for name, content in case.files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)


def assert_refused(case: Case, base: Path, directory: Path) -> None:
    """Fails unless a case is refused as it must be."""
    write(directory, case)
    before = tree(directory, base)
    words = [word.replace("BASE", str(base)) for word in case.words]
    with contextlib.chdir(directory):
        line = complaint(words)
    assert_names(line, case.names)
    after = tree(directory, base)
    paths = {*before, *after}
    changed = [str(p) for p in paths if before.get(p, 0) != after.get(p, 0)]
    assert not changed, f"changed {changed}: {line}"


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize("category", CATEGORIES, ids=lambda c: c.__name__)
def test_broken_is_refused(category, base, tmp_path):
    directory, archs = base
    found = []
    for number in range(CATEGORIES[category]):
        rng = Random(f"{category.__name__} {number}")
        case = category(rng, number, archs)
        try:
            assert_refused(case, directory, tmp_path / str(number))
        # A crash is a finding as well; one must not hide the others.
        except Exception as error:
            words = " ".join(f"{word:.60}" for word in case.words)
            found.append(f"{number}: {words!r}: {error!r:.400}")
    wrong = "\n".join(found)
    assert not found, f"{len(found)} of {CATEGORIES[category]}\n{wrong}"
