"""The one way to write files of a work directory, on a local disk or on gs://.

A file is written whole or not at all; a damaged file is kept under another name; a
full disk is one line.
"""

import errno
import importlib.util
import os
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from etils.epath import Path, PathLike

from jaxhypernas.types import UserError

UNWRITABLE = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room in the quota",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EROFS: "the file system is read-only, allow writing",
    errno.EACCES: "allow writing",
    errno.EPERM: "allow writing",
    errno.EIO: "check the disk",
}
"""Error numbers of a disk that is full, protected or broken, which is not the program's
fault, and what to do."""

_BLOCK = 1 << 20
"""Bytes that `checksum` holds in memory."""


def is_remote(path: PathLike) -> bool:
    """Returns whether a path is on an object store, such as ``gs://bucket/run``.

    Object stores have no empty directories and cannot append to a file.

    Args:
        path: A path, or a word of a command line.
    """
    return "://" in str(path)


def check_remote(path: PathLike) -> None:
    """Checks that the package for an object store is installed.

    Args:
        path: A path, or a word of a command line; local paths pass.

    Raises:
        UserError: The path is on Google Cloud Storage and gcsfs is missing.
    """
    found = map(importlib.util.find_spec, ("gcsfs", "tensorflow"))
    if "gs://" in str(path) and not any(found):
        raise UserError(
            "gs://: Google Cloud Storage needs gcsfs: pip install -e '.[gcs]' in the "
            "package's checkout"
        )


def check_writable(path: PathLike, field: str) -> None:
    """Checks before long work that a file can be written at its end.

    Args:
        path: The file; its directory must exist. Object stores are not checked.
        field: The setting that names the file; the message begins with it.

    Raises:
        UserError: The path is a directory, or its directory is missing or protected.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise UserError(f"{field}: {path} is a directory: give a file")
        if not is_remote(path):
            with tempfile.NamedTemporaryFile(
                dir=path.parent, prefix=path.name
            ):
                pass
    except OSError as error:
        raise UserError(
            f"{field}: {path} cannot be written ({error.strerror})"
        ) from None


@contextmanager
def replacing(path: PathLike) -> Iterator[IO[bytes]]:
    """Opens a file whose bytes replace ``path`` when the block ends.

    A block that fails, or a process that is killed, leaves ``path`` as it was::

        with files.replacing("a.bin") as file:
            file.write(data)

    Args:
        path: The file to replace or make. One process may write it at a time.

    Raises:
        OSError: The file cannot be written; its ``filename`` is ``path``.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with _naming(path):
            with temporary.open("wb") as file:
                yield file
                # The bytes must be on disk before the name is: a power cut would
                # otherwise leave an empty file under the name of a whole one.
                file.flush()
                if not is_remote(path):
                    os.fsync(file.fileno())
            temporary.replace(path)
    except BaseException:
        # The unfinished file would take room on a disk that may be full.
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: PathLike, text: str) -> None:
    """Replaces a text file, whole or not at all.

    Args:
        path: The file to replace or make.
        text: Its new content.

    Raises:
        OSError: The file cannot be written.
    """
    with replacing(path) as file:
        file.write(text.encode())


def append_line(path: PathLike, line: str) -> None:
    """Adds a line at the end of a text file.

    Args:
        path: The file; made if it does not exist.
        line: The line, without its newline.

    Raises:
        OSError: The file cannot be written; its ``filename`` is ``path``.
    """
    path = Path(path)
    if is_remote(path):
        # gcsfs overwrites a file that is opened to append.
        before = path.read_text() if path.exists() else ""
        path.write_text(f"{before}{line}\n")
        return
    with _naming(path), path.open("a") as file:
        file.write(f"{line}\n")


def set_aside(path: PathLike, suffix: str = ".damaged") -> Path:
    """Renames a file or directory, so that it is neither read nor lost.

    Args:
        path: The file or directory.
        suffix: What its suffix becomes.

    Returns:
        Its new path; ``+`` stands behind the suffix where that name is taken.
    """
    path = Path(path)
    moved = path.with_suffix(suffix)
    while moved.exists():
        moved = moved.with_name(f"{moved.name}+")
    path.rename(moved)
    return moved


def checksum(path: PathLike) -> str:
    """Returns the CRC-32 of a file's bytes, 8 hexadecimal digits.

    Args:
        path: The file.
    """
    value = 0
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return f"{value:08x}"


def report(line: str) -> None:
    """Prints a line for the user on standard error.

    Args:
        line: The line.
    """
    print(line, file=sys.stderr)


def one_line(error: object, most: int | None = 160) -> str:
    """Returns an error's message folded into one line.

    Args:
        error: An exception or its message; without a message, its type's name.
        most: Number of characters after which the line is cut; None: never.
    """
    text = str(error) or type(error).__name__
    return " ".join(text.split())[:most]


@contextmanager
def writing(place: PathLike) -> Iterator[None]:
    """Turns the failure of a disk inside the block into one line for the user.

    Args:
        place: Named in the message where the error names no file.

    Raises:
        UserError: The disk is full, protected or broken (`UNWRITABLE`). Every other
            error passes unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        named = error.filename or f"workdir: {place}"
        raise UserError(
            f"{named} cannot be written ({error.strerror}): "
            f"{UNWRITABLE[error.errno]}, and give the same command"
        ) from None


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Puts the file's name into an OSError that has none, such as one of Arrow."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            reason = os.strerror(error.errno)
            raise OSError(error.errno, reason, str(path)) from None
        raise
