"""config.json of other versions: older ones lack fields, newer ones are refused."""

import json
from dataclasses import replace

import pytest
from helpers import complaint
from tiny import TINY

from jaxhypernas import __version__
from jaxhypernas.archs.sizes import MemoryBankConfig
from jaxhypernas.config import file
from jaxhypernas.config.values import to_json
from jaxhypernas.types import UserError


@pytest.fixture
def values() -> dict:
    return {"version": __version__, **to_json(TINY)}


def write(path, values: dict) -> None:
    path.write_text(json.dumps(values))


def test_a_field_that_is_lacking_takes_its_default(tmp_path, values, capsys):
    path = tmp_path / "config.json"
    del values["train"]["ghosts"], values["score"], values["space"]["slots"]
    write(path, values)
    space = {k: v for k, v in values["space"].items() if k != "name"}
    for _ in range(2):
        config = file.load(path)
    assert config.train == TINY.train and config.score == TINY.score
    assert config.space == replace(MemoryBankConfig(), **space)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(
        name in said for name in ("train.ghosts", "score", "space.slots")
    )


def test_a_lacking_field_means_what_it_meant(tmp_path, values, capsys):
    """Candidates of an older run stay comparable: all were scored on all images."""
    path = tmp_path / "config.json"
    del values["score"]["images"]
    write(path, values)
    assert file.load(path).score == replace(TINY.score, images=0)
    assert "score.images = 0" in capsys.readouterr().err


def test_a_whole_configuration_says_nothing(tmp_path, capsys):
    file.save(TINY, tmp_path / "config.json")
    assert file.load(tmp_path / "config.json") == TINY
    assert not capsys.readouterr().err


def test_an_unknown_field_is_refused(tmp_path, values):
    values["train"]["stepz"] = 3
    write(tmp_path / "config.json", values)
    with pytest.raises(UserError, match=r"train\.stepz"):
        file.load(tmp_path / "config.json")


def test_a_newer_version_is_refused_with_both(tmp_path, values):
    write(tmp_path / "config.json", {**values, "version": "99.1.0"})
    line = complaint(["train", "--workdir", str(tmp_path)])
    assert "99.1.0" in line and __version__ in line
