"""Compiled code is loaded only as this user made it, and made again otherwise."""

import os
import shutil
import stat

import pytest

from jaxhypernas.numerics.cpu import cache, library


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The cache of a new user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    cache.folder.cache_clear()
    cache._own.cache_clear()
    yield tmp_path / "home" / "jaxhypernas"
    cache.folder.cache_clear()
    cache._own.cache_clear()


def find(made):
    """Finds a file; notes when it is made."""

    def make(path):
        made.append(path)
        path.write_bytes(b"code")

    return cache.find("x.so", make)


def test_made_once_for_this_user_alone(home):
    made = []
    for _ in range(2):
        path = find(made)
        assert path == home / "x.so" and path.read_bytes() == b"code"
    assert len(made) == 1
    for each in (home, path):
        assert stat.S_IMODE(each.stat().st_mode) == 0o700


def cut(path):
    path.write_bytes(b"co")


def empty(path):
    path.write_bytes(b"")


def lose_note(path):
    cache._note_of(path).unlink()


def open_to_all(path):
    path.chmod(0o777)


def open_note(path):
    cache._note_of(path).chmod(0o666)


@pytest.mark.parametrize(
    "harm", [cut, empty, lose_note, open_to_all, open_note]
)
def test_what_is_not_as_made_is_made_again(harm):
    made = []
    harm(find(made))
    assert find(made).read_bytes() == b"code"
    assert len(made) == 2
    find(made)
    assert len(made) == 2


def test_a_file_of_another_user_is_made_again(monkeypatch):
    made = []
    path = find(made)
    ours = cache._is_ours
    monkeypatch.setattr(
        cache, "_is_ours", lambda each: each != path and ours(each)
    )
    find(made)
    assert len(made) == 2


def test_a_folder_of_another_user_is_not_used(monkeypatch, home, capsys):
    monkeypatch.setattr(cache, "_is_ours", lambda path: False)
    path = find([])
    assert home not in path.parents
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "belongs to another user" in line


def test_a_folder_that_others_could_write_is_closed(home):
    home.mkdir(parents=True)
    home.chmod(0o777)
    find([])
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_cache_that_is_a_file(home, capsys):
    home.parent.mkdir()
    home.touch()
    assert find([]).read_bytes() == b"code"
    assert "is not kept" in capsys.readouterr().err


def test_no_home(monkeypatch, capsys):
    monkeypatch.delenv("XDG_CACHE_HOME")

    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", nobody)
    assert find([]).read_bytes() == b"code"
    assert "no home directory" in capsys.readouterr().err


def test_an_empty_variable_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder() == tmp_path / ".cache" / "jaxhypernas"


def test_a_full_disk(monkeypatch, home, capsys):
    tried = []

    def make(path):
        tried.append(path)
        if len(tried) == 1:
            raise OSError(28, "No space left on device")
        path.write_bytes(b"code")

    assert home not in cache.find("x.so", make).parents
    assert "No space left" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written(home):
    home.parent.mkdir()
    home.parent.chmod(0o500)
    assert find([]).read_bytes() == b"code"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("/nowhere/c++", "no compiler /nowhere/c++"),
        ("false", "false fails"),
        ("'unclosed", "closing quotation"),
    ],
)
def test_why_the_fast_form_is_not_used(words, said, monkeypatch, capsys):
    monkeypatch.setenv("CXX", words)
    assert not library.available.__wrapped__()
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and said.lower() in line.lower()


def test_a_compiler_of_several_words():
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no compiler")
    assert library._key(["env", compiler]) == library._key([compiler])
