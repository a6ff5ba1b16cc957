"""One writer at a time in a work directory; no row is lost and none is another's."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from etils.epath import Path
from test_diverged import scored

from jaxhypernas.cli.main import main
from jaxhypernas.store import lock
from jaxhypernas.store.score_table import ScoreTable
from jaxhypernas.types import UserError

HOLD = """
import sys, time
from etils.epath import Path
from jaxhypernas.store import lock
with lock.held(Path(sys.argv[1]), "search"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds the directory."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_the_second_is_told_who_writes(other, tmp_path, capsys):
    words = ["--workdir", str(tmp_path)]
    for verb in ("train", "score --random 3", "search", "retrain"):
        assert main([*verb.split(), *words]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert f"search (process {other.pid} on " in line
        assert "since 2" in line


def test_readers_do_not_wait(other, tmp_path, capsys):
    ScoreTable(tmp_path / "scores").append(scored([1, 2], [0.5, 0.4]))
    assert main(["top", "--workdir", str(tmp_path)]) == 0
    assert "a2" in capsys.readouterr().out


def test_one_that_was_killed_blocks_nobody(other, tmp_path):
    other.send_signal(signal.SIGKILL)
    other.wait()
    with lock.held(Path(tmp_path), "score"):
        assert (
            f'"process": {os.getpid()}' in (tmp_path / lock.NAME).read_text()
        )
    assert not (tmp_path / lock.NAME).exists()


def test_a_thread_may_hold_twice_and_two_may_not(tmp_path):
    heard = []

    def second():
        try:
            with lock.held(Path(tmp_path), "score"):
                heard.append("held")
        except UserError as error:
            heard.append(str(error))

    with lock.held(Path(tmp_path), "a"), lock.held(Path(tmp_path), "b"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    second()
    assert "is in use: a (process" in heard[0] and heard[1] == "held"


def test_a_run_that_cannot_begin_leaves_nothing(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        lock.held(Path(tmp_path / "x"), "a"),
    ):
        raise ZeroDivisionError
    assert not (tmp_path / "x").exists()


def test_writers_by_turns_lose_nothing(tmp_path):
    """Many threads each write a little whenever they get the lock."""
    refused = []

    def write(number):
        table = ScoreTable(tmp_path / "scores")
        for i in range(5):
            while True:
                try:
                    with lock.held(Path(tmp_path), "score"):
                        table.refresh()
                        ids = [1 + number * 10 + i]
                        table.append(scored(ids, [0.5]))
                        if i == 3:
                            table.compact()
                    break
                except UserError:
                    refused.append(number)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = np.array(
        [1 + n * 10 + i for n in range(4) for i in range(5)], np.uint64
    )
    table = ScoreTable(tmp_path / "scores")
    assert len(table) == 20
    assert table.rows(ids)["arch"].to_pylist() == [f"a{i}" for i in ids]


def test_two_open_tables_never_swap_rows(tmp_path):
    first, second = ScoreTable(tmp_path), ScoreTable(tmp_path)
    first.append(scored([1, 2, 3], [0.1, 0.2, 0.3]))
    second.append(scored([4, 5, 6], [0.4, 0.5, 0.6]))
    ids = np.array([1, 2, 3], np.uint64)
    assert first.rows(ids)["arch"].to_pylist() == ["a1", "a2", "a3"]
    assert len(ScoreTable(tmp_path)) == 6
    second.compact()
    assert len(second) == len(ScoreTable(tmp_path)) == 6
    assert second.rows(ids)["arch"].to_pylist() == ["a1", "a2", "a3"]
    first.refresh()
    assert first.rows(ids)["arch"].to_pylist() == ["a1", "a2", "a3"]


def test_a_run_that_began_stays(tmp_path):
    with lock.held(Path(tmp_path / "x"), "a"):
        (tmp_path / "x" / "config.json").touch()
    assert [path.name for path in (tmp_path / "x").iterdir()] == [
        "config.json"
    ]
