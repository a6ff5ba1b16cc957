"""One writer at a time on an object store, which makes an object only once."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem

from jaxhypernas.hosts import interrupt
from jaxhypernas.store import lease, lock
from jaxhypernas.types import UserError

WRITER = {
    "verb": "search",
    "host": "another-machine",
    "process": 7,
    "since": "2026-01-01 10:00:00+00:00",
}


class Store(MemoryFileSystem):
    """Takes a moment for each call, so that writers meet."""

    store: dict = {}  # noqa: RUF012
    pseudo_dirs: list = [""]  # noqa: RUF012
    once = threading.Lock()

    def pipe_file(self, path, value, mode="overwrite", **settings):
        time.sleep(0.001)
        with self.once:
            super().pipe_file(path, value, mode=mode, **settings)


@pytest.fixture
def workdir(monkeypatch):
    Store.store.clear()
    monkeypatch.setattr(
        epath.backend.fsspec_backend, "fs", lambda path: Store()
    )
    return epath.Path("gs://bucket/run")


def left(workdir, number=0, **changes) -> None:
    """A lease of another writer."""
    state = {"writer": WRITER, "renewed": time.time(), "released": False}
    text = json.dumps({**state, **changes})
    (workdir / f"lock.{number}").write_text(text)


def numbers(workdir) -> list[str]:
    return sorted(path.name for path in workdir.iterdir())


def test_the_second_is_told_who_writes(workdir):
    left(workdir)
    with (
        pytest.raises(
            UserError, match=r"search \(process 7 on another-machine\)"
        ),
        lock.held(workdir, "score"),
    ):
        pytest.fail("both write")
    assert numbers(workdir) == ["lock.0"]


@pytest.mark.parametrize(
    "changes",
    [
        {"released": True},
        {"renewed": time.time() - 10 * lease.LAPSE_S},
        {"writer": "?"},
    ],
    ids=["released", "lapsed", "damaged"],
)
def test_one_that_left_blocks_nobody(workdir, changes):
    left(workdir, number=3, **changes)
    with lock.held(workdir, "score"):
        assert numbers(workdir) == ["lock.4"]
    with lock.held(workdir, "score"):
        assert numbers(workdir) == ["lock.5"]


def test_one_that_was_killed_on_this_machine_blocks_nobody(workdir):
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    here = {"host": socket.gethostname(), "process": killed.pid}
    left(workdir, writer={**WRITER, **here})
    with lock.held(workdir, "score"):
        pass
    left(workdir, number=9, writer={**WRITER, **here, "process": os.getpid()})
    with pytest.raises(UserError, match="in use"), lock.held(workdir, "score"):
        pytest.fail("both write")


@pytest.mark.parametrize("lapsed", [False, True])
def test_of_many_at_once_one_writes(workdir, lapsed):
    for turn in range(10):
        if lapsed:
            left(workdir, number=100 * turn, renewed=0.0)
        won, lost = [], []
        meet, over = threading.Barrier(8), threading.Event()

        def work(won=won, lost=lost, meet=meet, over=over):
            meet.wait()
            try:
                with lock.held(workdir, "score"):
                    won.append(threading.get_ident())
                    over.wait(10)
            except UserError:
                lost.append(threading.get_ident())
            if len(lost) == 7:
                over.set()

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1 and len(lost) == 7


def test_a_lease_is_renewed(workdir, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_S", 0.02)
    with lock.held(workdir, "score"):
        first = json.loads((workdir / "lock.0").read_text())
        time.sleep(0.3)
        later = json.loads((workdir / "lock.0").read_text())
    assert later["renewed"] > first["renewed"]
    assert first["writer"]["process"] == os.getpid()


def test_one_that_was_silent_too_long_stops(workdir, monkeypatch, capsys):
    monkeypatch.setattr(lease, "RENEW_S", 0.02)
    with (
        pytest.raises(interrupt.StoppedError) as stopped,
        interrupt.handled(),
        lock.held(workdir, "score"),
    ):
        left(workdir, number=1)
        until = time.time() + 10
        while time.time() < until:
            time.sleep(0.01)
            interrupt.check()
    assert stopped.value.code == 128 + signal.SIGTERM
    assert "taken over by another command" in capsys.readouterr().err
    # The lease of the other one stays.
    assert json.loads((workdir / "lock.1").read_text())["writer"] == WRITER
