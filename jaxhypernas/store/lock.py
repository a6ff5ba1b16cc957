"""One writer at a time in a work directory; readers need no lock.

The writer holds a lock of the file system on ``W/lock``, which says who it is. The
system gives the lock back when the process ends, however it ends. Object stores have no
such locks: there, the writer has a lease.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
import threading
from collections.abc import Iterator
from typing import IO, Any

from etils.epath import Path

from jaxhypernas.hosts import processes
from jaxhypernas.store import files, lease
from jaxhypernas.types import UserError

NAME = "lock"
"""Name of the file in the work directory."""

_mine = threading.local()
"""Work directories that this thread holds."""


@contextlib.contextmanager
def held(workdir: Path, verb: str) -> Iterator[None]:
    """Holds a work directory while the block runs; a thread may hold it twice.

    Of several processes, process 0 holds it for all::

        with lock.held(Path("runs/mine"), "search"):
            ...

    Args:
        workdir: The work directory; made if it does not exist.
        verb: What the writer does, for the message that another one gets.

    Raises:
        UserError: Another writer holds the directory, or it cannot be written; all
            processes raise it.
    """
    place = str(workdir)
    places = _mine.__dict__.setdefault("places", set())
    if place in places:
        yield
        return
    with contextlib.ExitStack() as stack:
        refused = None
        if processes.first():
            try:
                stack.enter_context(_held_alone(workdir, verb))
            except UserError as error:
                refused = error
        if processes.any_of(refused is not None):
            raise refused or _refusal(workdir, _writer(workdir / NAME))
        places.add(place)
        stack.callback(places.discard, place)
        yield


@contextlib.contextmanager
def _held_alone(workdir: Path, verb: str) -> Iterator[None]:
    """Holds a work directory, for this process."""
    now = datetime.datetime.now().astimezone()
    writer = {
        "verb": verb,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": now.isoformat(" ", "seconds"),
    }
    hold = lease.held if files.is_remote(workdir) else _locked
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold(workdir, writer))
        except lease.HeldError as error:
            raise _refusal(workdir, error.writer) from None
        yield


@contextlib.contextmanager
def _locked(workdir: Path, writer: dict[str, Any]) -> Iterator[None]:
    """Holds the lock of the file system."""
    made = [p for p in (workdir, *workdir.parents) if not p.exists()]
    path = workdir / NAME
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = _open_locked(path)
    except BlockingIOError:
        raise lease.HeldError(_writer(path)) from None
    except OSError as error:
        raise UserError(
            f"workdir: {workdir} cannot be written ({error.strerror}): use another "
            "--workdir"
        ) from None
    try:
        file.write(json.dumps(writer))
        file.flush()
        yield
    finally:
        # Deleted before it is unlocked: a file that nobody holds is never there long.
        path.unlink(missing_ok=True)
        file.close()
        # A run that could not begin leaves nothing.
        for directory in made:
            if any(directory.iterdir()):
                break
            directory.rmdir()


def _open_locked(path: Path) -> IO[str]:
    """Opens the file and locks it; raises `BlockingIOError` if another has."""
    while True:
        file = open(path, "a+")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            # Some network file systems have no locks.
            if error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                return open(path, "w")
            raise
        # The writer before may have deleted the file between the two calls.
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(file.fileno()).st_ino:
                file.truncate(0)
                return file
        file.close()


def _writer(path: Path) -> dict[str, Any]:
    """Who wrote a lock's file; empty if it does not say."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _refusal(workdir: Path, writer: dict[str, Any]) -> UserError:
    """Says who holds the directory."""
    try:
        who = (
            f"{writer['verb']} (process {writer['process']} on {writer['host']}) "
            f"writes there since {writer['since']}"
        )
    except (LookupError, TypeError):
        who = "another command writes there"
    return UserError(
        f"workdir: {workdir} is in use: {who}: wait until it ends, or use another "
        "--workdir"
    )
