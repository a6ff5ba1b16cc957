"""500 random mistakes: each is one line that names the field, with exit code 2, and begins and changes nothing."""

import contextlib
import dataclasses
import io
import random
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from breakage import CATEGORIES, Case
from tiny import TINY

from jaxhypernas.cli import main as cli
from jaxhypernas.programs.ahead import preflight
from jaxhypernas.run import Run
from jaxhypernas.spaces import SPACES
from jaxhypernas.types import Scores


class StartedError(Exception):
    """What must have been refused was begun."""


def started(*_, **__):
    raise StartedError


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """For each space a run that was begun, with scores, and the architectures in them."""
    directory, archs = tmp_path_factory.mktemp("base"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Run,
            "_evaluate",
            lambda self, population, id_A: Scores(
                np.ones(len(id_A)), np.ones(len(id_A))
            ),
        )
        for space in SPACES:
            generator = "smash" if space == "memory_bank" else "shared"
            config = dataclasses.replace(
                TINY, space=space, generator=generator, strategy="random"
            )
            run = Run(directory / space, config)
            archs[space] = [
                row["arch"]
                for row in run.score(run.sample(12, jax.random.key(0)))
            ]
    return directory, archs


def tree(*directories: Path) -> dict[Path, bytes | None]:
    return {
        p: p.read_bytes() if p.is_file() else None
        for d in directories
        for p in d.rglob("*")
    }


def _plain(text: str) -> str:
    """A field's name is spelt with - on the command line and with _ in Python."""
    return re.sub(r"(?<=\w)-(?=\w)", "_", text)


def misbehaviour(case: Case, base: Path, directory: Path) -> str | None:
    """What is wrong with how a case is refused."""
    for name, content in case.files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).mkdir() if content is None else (
            directory / name
        ).write_bytes(content)
    before, told, code = tree(directory, base), io.StringIO(), 0
    with (
        contextlib.redirect_stderr(told),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.chdir(directory),
    ):
        try:
            cli.main([word.replace("BASE", str(base)) for word in case.words])
        except SystemExit as stop:
            code = stop.code
        except BaseException as error:
            return f"{type(error).__name__}: {str(error)[:200]}"
    said = told.getvalue()
    if code != 2:
        return f"exit code {code}: {said}"
    if (
        said.count("\n") != 1
        or not said.startswith("jaxhypernas: ")
        or "Traceback" in said
    ):
        return f"not one line: {said}"
    if not any(
        re.search(rf"(?<![\w.]){re.escape(_plain(name))}(?!\w)", _plain(said))
        for name in case.names
    ):
        return f"names none of {case.names}: {said}"
    if (after := tree(directory, base)) != before:
        return f"changed {[str(p) for p in {*before, *after} if before.get(p, 0) != after.get(p, 0)]}: {said}"
    return None


@pytest.mark.parametrize(
    "category", CATEGORIES, ids=lambda category: category.__name__
)
def test_broken_is_refused(category, base, tmp_path, monkeypatch):
    directory, archs = base
    for owner, name in (
        (Run, "train"),
        (Run, "search"),
        (Run, "_train_each"),
        (preflight, "compiled"),
    ):
        monkeypatch.setattr(owner, name, started)
    monkeypatch.setattr(cli, "set_up", lambda: None)
    found = []
    for number in range(CATEGORIES[category]):
        rng = random.Random(f"{category.__name__} {number}")
        case = category(rng, number, archs)
        (tmp_path / str(number)).mkdir()
        if wrong := misbehaviour(case, directory, tmp_path / str(number)):
            words = " ".join(
                w if len(w) < 60 else f"{w[:60]}..." for w in case.words
            )
            found.append(f"{number}: {words!r}: {wrong}")
    assert not found, f"{len(found)} of {CATEGORIES[category]}\n" + "\n".join(
        found
    )
