"""One writer at a time on an object store, which has no locks.

The writer makes the object ``W/lock.N``, which a store makes only once, and renews the
time in it. A writer that died does not renew its lease, and the next one makes
``W/lock.N+1``. Numbers only grow: of two that take over at once, one fails.
"""

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from etils.epath import Path, backend

from jaxhypernas.store import files

RENEW_S = 10
"""Seconds between renewals."""

LAPSE_S = 60
"""Seconds after its last renewal when a lease lapses."""


class HeldError(Exception):
    """Another writer holds the directory; ``writer`` says who."""

    def __init__(self, writer: dict[str, Any]):
        super().__init__()
        self.writer = writer


@contextlib.contextmanager
def held(workdir: Path, writer: dict[str, Any]) -> Iterator[None]:
    """Holds a work directory on an object store while the block runs.

    If this process did not answer for `LAPSE_S` seconds and another one took the
    directory over, this process stops as by SIGTERM.

    Args:
        workdir: The work directory.
        writer: Says who the writer is, with ``host`` and ``process``.

    Raises:
        HeldError: Another writer holds the directory.
    """
    try:
        lease = _Lease(workdir, writer)
    except ImportError:
        # TensorFlow's access to the store cannot make an object only once.
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=lease.keep, args=(over,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        lease.write(released=True)


class _Lease:
    """The object of a writer."""

    def __init__(self, workdir: Path, writer: dict[str, Any]):
        self._root = str(workdir)
        self._writer = writer
        self._fs: Any = backend.fsspec_backend.fs(self._root)
        self._number = self._take()

    def _take(self) -> int:
        """Makes the next object, unless another writer is alive."""
        while True:
            numbers = self._numbers()
            number = max(numbers, default=-1) + 1
            if numbers:
                self._check_free(number - 1)
            try:
                self._fs.pipe_file(
                    self._path(number), self._content(), mode="create"
                )
            except FileExistsError:
                continue
            for old in numbers:
                with contextlib.suppress(FileNotFoundError):
                    self._fs.rm_file(self._path(old))
            return number

    def keep(self, over: threading.Event) -> None:
        """Renews the lease until the event."""
        while not over.wait(RENEW_S):
            # A store that does not answer now will, or the lease lapses.
            with contextlib.suppress(OSError):
                if max(self._numbers(), default=0) > self._number:
                    files.report(
                        f"workdir: {self._root} was taken over by another command, as "
                        f"this one was silent for {LAPSE_S} s"
                    )
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
                self.write()

    def write(self, *, released: bool = False) -> None:
        """Renews or releases the lease."""
        if max(self._numbers(), default=0) <= self._number:
            self._fs.pipe_file(
                self._path(self._number), self._content(released=released)
            )

    def _numbers(self) -> list[int]:
        """Numbers of the objects that are there."""
        self._fs.invalidate_cache()
        try:
            names = self._fs.ls(self._root, detail=False)
        except FileNotFoundError:
            return []
        found = (name.rpartition("/lock.")[2] for name in names)
        return [int(text) for text in found if text.isdecimal()]

    def _check_free(self, number: int) -> None:
        try:
            state = json.loads(self._fs.cat_file(self._path(number)))
            writer = state["writer"]
            silent = time.time() - state["renewed"] > LAPSE_S
            is_free = state["released"] or silent or _is_dead(writer)
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            # No writer's words.
            return
        if not is_free:
            raise HeldError(writer)

    def _content(self, *, released: bool = False) -> bytes:
        state = {
            "writer": self._writer,
            "renewed": time.time(),
            "released": released,
        }
        return json.dumps(state).encode()

    def _path(self, number: int) -> str:
        return f"{self._root}/lock.{number}"


def _is_dead(writer: dict[str, Any]) -> bool:
    """Whether the writer was a process of this machine that has ended."""
    if writer["host"] != socket.gethostname():
        return False
    try:
        os.kill(writer["process"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
