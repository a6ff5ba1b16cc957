"""The user's folder for compiled code, which is loaded: nobody else may write it."""

import atexit
import functools
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

_OTHERS_WRITE = 0o022
"""Permissions of a file that its group or everybody may write."""


@functools.cache
def folder() -> Path:
    """Returns the folder for compiled code; it is made if missing.

    It is ``$XDG_CACHE_HOME/jaxhypernas``, by default ``~/.cache/jaxhypernas``, if it
    belongs to this user; nobody else may then write it. Otherwise it is a folder that
    ends with the process, and one line on standard error says why.
    """
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        found = Path(cache).expanduser() / "jaxhypernas"
        found.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_ours(found):
            if found.stat().st_mode & _OTHERS_WRITE:
                found.chmod(0o700)
            return found
        reason = f"{found} belongs to another user"
    except OSError as error:
        reason = str(error)
    except RuntimeError:
        # There is no HOME, and the user has no entry in the system's list.
        reason = "there is no home directory"
    return _own(reason)


def find(name: str, make: Callable[[Path], None]) -> Path:
    """Returns a file of the folder; makes it if it is missing, damaged or another's.

    Args:
        name: The file's name, which must change with everything that goes into it.
        make: ``make(path)`` makes the file.

    Raises:
        OSError: The file cannot be written anywhere.
    """
    path = folder() / name
    if _is_whole(path):
        return path
    try:
        return _made(path, make)
    except OSError as error:
        return _made(_own(str(error)) / name, make)


def _made(path: Path, make: Callable[[Path], None]) -> Path:
    # Renaming a finished file means that no other process loads half of it.
    with tempfile.TemporaryDirectory(dir=path.parent) as place:
        made = Path(place) / path.name
        make(made)
        made.chmod(0o700)
        noted = Path(place) / "checksum"
        noted.write_text(_checksum(made))
        made.replace(path)
        noted.replace(_note_of(path))
    return path


@functools.cache
def _own(reason: str) -> Path:
    """A folder of this process alone."""
    made = tempfile.mkdtemp(prefix="jaxhypernas-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    print(
        f"jaxhypernas: compiled code is not kept ({reason})", file=sys.stderr
    )
    return Path(made)


def _is_whole(path: Path) -> bool:
    """Whether a file is there as it was made, by this user."""
    noted = _note_of(path)
    try:
        trusted = all(
            _is_ours(each) and not each.stat().st_mode & _OTHERS_WRITE
            for each in (path, noted)
        )
        return trusted and noted.read_text() == _checksum(path)
    except (OSError, UnicodeError):
        return False


def _is_ours(path: Path) -> bool:
    return path.stat().st_uid == os.geteuid()


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
