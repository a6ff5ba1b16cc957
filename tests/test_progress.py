"""What a person reads while work goes on: bars that fit, rates, what is waited for."""

import re
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from jaxhypernas.report import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that only ``clock.at += seconds`` moves."""
    now = SimpleNamespace(at=100.0)
    fake = SimpleNamespace(time=lambda: now.at)
    monkeypatch.setattr(progress, "time", fake)
    return now


def last_line(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*\w", "", text).strip().splitlines()[-1]


@pytest.mark.parametrize("note", ["best 0.123", "test accuracy 0.912 " * 3])
def test_a_bar_fits_a_narrow_terminal(note, capsys, monkeypatch):
    def console(**settings):
        return Console(**settings, width=80, force_terminal=True)

    monkeypatch.setattr(progress, "Console", console)
    with progress.bar("search", 1200, "candidates") as bar:
        bar.advance(1, 1)
        bar.advance(1199, 1199, note)
    line = last_line(capsys.readouterr().err)
    assert len(line) <= 80 and "1200/1200" in line
    assert re.search(
        r"[\d,]+ candidates/s \d:\d\d:\d\d left \d:\d\d:\d\d$", line
    )


def test_a_log_file_has_whole_lines(capsys):
    with progress.bar("retrain", 28, "images") as bar:
        bar.advance(1, 1)
        bar.advance(27, 10**9, "test accuracy 0.912")
    line = last_line(capsys.readouterr().err)
    assert "test accuracy 0.912" in line
    assert re.search(r" images/s \d:\d\d:\d\d left \d:\d\d:\d\d$", line)


def test_the_rate_leaves_compilation_out(clock, capsys):
    """Programs are compiled before the first work is done."""
    with progress.bar("train", 21, "images") as bar:
        bar.advance(4, 0)
        clock.at += 1000
        bar.advance(1, 50)
        for _ in range(4):
            clock.at += 5
            bar.advance(4, 500)
    assert " 100 images/s " in last_line(capsys.readouterr().err)


def test_what_is_waited_for_is_said(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LONG", 0.05)
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0.05)
    with progress.waiting("compiling the program"):
        time.sleep(0.4)
    first, *more, last = capsys.readouterr().err.splitlines()
    assert first == "compiling the program (0 s) ..." and more
    assert last == "compiling the program took 0 s"


def test_a_short_wait_is_not(capsys):
    with (
        pytest.raises(ValueError, match="inside"),
        progress.waiting("reading images"),
    ):
        raise ValueError("inside")
    assert capsys.readouterr().err == ""
