"""Signals are handled where this is asked for, and only there."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from jaxhypernas.hosts import interrupt

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def handlers():
    return [signal.getsignal(each) for each in SIGNALS]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_at_the_next_check(number, capsys):
    before = handlers()
    with pytest.raises(interrupt.StoppedError) as stopped, interrupt.handled():
        interrupt.check()
        os.kill(os.getpid(), number)
        assert handlers() == [signal.SIG_DFL] * 2
        interrupt.check()
    assert stopped.value.code == 128 + number
    assert number.name in str(stopped.value)
    assert "finishing" in capsys.readouterr().err
    assert handlers() == before


def test_a_second_use_is_not_stopped_by_the_first():
    for _ in range(2):
        with pytest.raises(interrupt.StoppedError), interrupt.handled():
            interrupt.check()
            os.kill(os.getpid(), signal.SIGTERM)
            interrupt.check()
    interrupt.check()


TWO_SIGNALS = """
import os, signal
from jaxhypernas.hosts import interrupt

with interrupt.handled():
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    print("the second signal was ignored")
"""


def test_a_second_signal_ends_the_process():
    done = subprocess.run(
        [sys.executable, "-c", TWO_SIGNALS],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGINT and not done.stdout
    assert done.stderr.count("finishing the work under way") == 1


def test_handlers_are_put_back():
    before = handlers()
    with interrupt.handled():
        assert not set(handlers()) & set(before)
    assert handlers() == before


def test_the_outermost_keeps_the_signal():
    with pytest.raises(interrupt.StoppedError), interrupt.handled():
        with interrupt.handled():
            os.kill(os.getpid(), signal.SIGTERM)
        interrupt.check()


def test_other_threads_leave_handlers_alone():
    before = handlers()
    found = []

    def work():
        with interrupt.handled():
            interrupt.check()
            found.extend(handlers())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == before
