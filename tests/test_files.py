"""Files are written whole or not at all, and a disk that fails is one line."""

import errno
import os

import pytest

from jaxhypernas.store import files
from jaxhypernas.types import UserError


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("one\n", "é\n"):
        files.write_text(path, text)
        assert path.read_text() == text
    with files.replacing(path) as file:
        file.write(b"three")
        file.flush()
        assert path.read_text() == "é\n"
    assert path.read_text() == "three"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_failed_write_leaves_the_file_as_it_was(tmp_path, error):
    path = tmp_path / "a.txt"
    files.write_text(path, "one")
    with pytest.raises(error), files.replacing(path) as file:
        file.write(b"two")
        raise error
    assert path.read_text() == "one" and names(tmp_path) == ["a.txt"]


def test_an_error_without_a_name_names_the_file(tmp_path):
    path = tmp_path / "a.txt"
    with (
        pytest.raises(OSError, match="No space left") as caught,
        files.replacing(path),
    ):
        raise OSError(errno.ENOSPC, "as Arrow says it")
    assert caught.value.filename == str(path)


def test_lines_are_appended(tmp_path):
    for line in ("one", "two"):
        files.append_line(tmp_path / "a.txt", line)
    assert (tmp_path / "a.txt").read_text() == "one\ntwo\n"


def test_nothing_is_overwritten_that_was_set_aside(tmp_path):
    for text in ("one", "two", "three"):
        (tmp_path / "3.parquet").write_text(text)
        files.set_aside(tmp_path / "3.parquet")
    assert names(tmp_path) == ["3.damaged", "3.damaged+", "3.damaged++"]
    assert (tmp_path / "3.damaged++").read_text() == "three"
    (tmp_path / "4").mkdir()
    assert files.set_aside(tmp_path / "4").name == "4.damaged"


def test_a_checksum_is_that_of_zip(tmp_path):
    (tmp_path / "a").write_bytes(b"123456789")
    assert files.checksum(tmp_path / "a") == "cbf43926"
    (tmp_path / "a").write_bytes(b"")
    assert files.checksum(tmp_path / "a") == "00000000"


def test_an_error_is_one_line():
    assert files.one_line(ValueError("a\n  b\tc")) == "a b c"
    assert files.one_line(ValueError("x" * 200)) == "x" * 160
    assert files.one_line("x" * 200, None) == "x" * 200
    assert files.one_line(KeyError()) == "KeyError"


def test_a_file_that_can_be_written(tmp_path):
    files.check_writable(tmp_path / "a", "out")
    assert not names(tmp_path)


@pytest.mark.parametrize("path", ["", "no/such/place", "file/place"])
def test_a_file_that_cannot_be_written(tmp_path, path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^out: .*/.* (directory|written)"):
        files.check_writable(tmp_path / path, "out")


@pytest.mark.parametrize("code", sorted(files.UNWRITABLE))
@pytest.mark.parametrize("file", [None, "/runs/mine/metrics.jsonl"])
def test_a_disk_that_fails_is_one_line(code, file):
    reason = os.strerror(code)
    with pytest.raises(UserError) as caught, files.writing("/runs/mine"):
        raise OSError(code, reason, file)
    named = file or "workdir: /runs/mine"
    assert str(caught.value) == (
        f"{named} cannot be written ({reason}): "
        f"{files.UNWRITABLE[code]}, and give the same command"
    )


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), FileNotFoundError(errno.ENOENT, "x"), OSError("x")],
)
def test_every_other_error_passes(error):
    with pytest.raises(type(error)) as caught, files.writing("/runs/mine"):
        raise error
    assert caught.value is error


def test_an_object_store_needs_its_package(monkeypatch):
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: None)
    files.check_remote("/runs/mine")
    for word in ("gs://bucket/run", "--workdir=gs://bucket/run"):
        assert files.is_remote(word)
        with pytest.raises(UserError, match=r"pip install -e '\.\[gcs\]'"):
            files.check_remote(word)
