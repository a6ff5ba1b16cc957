"""Progress on standard error: bars, and lines while something is waited for."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

LINE_INTERVAL = 30
"""Seconds between lines where standard error is not a terminal."""

LONG = 3
"""Seconds after which a line says what is waited for."""

LOG_WIDTH = 110
"""Width of a bar in a log file."""


class Bar:
    """A progress bar; `bar` opens it."""

    def __init__(self, progress: Progress, task: TaskID, unit: str):
        self._progress = progress
        self._task = task
        self._unit = unit
        self._work = 0
        self._began: float | None = None
        self._last_line = time.time()

    def advance(self, items: int, work: int, note: str = "") -> None:
        """Counts items as done.

        The rate is that of the work after the first: before it programs are compiled.

        Args:
            items: Number of items done since the last call.
            work: Work since the last call, in the bar's unit; the rate counts it.
            note: Text to show beside the count.
        """
        rate = ""
        if self._began is not None:
            self._work += work
            seconds = max(time.time() - self._began, 1e-9)
            rate = f"{self._work / seconds:,.0f} {self._unit}/s"
        elif work:
            self._began = time.time()
        self._progress.update(self._task, advance=items, note=note, rate=rate)

        # Logs get a line now and then: they cannot redraw a bar.
        due = time.time() - self._last_line > LINE_INTERVAL
        if due and not self._progress.console.is_terminal:
            self._last_line = time.time()
            self._print_line()

    def _print_line(self) -> None:
        task = self._progress.tasks[self._task]
        done = f"{task.completed:.0f}/{task.total:.0f}"
        rate = task.fields["rate"]
        line = f"{task.description} {done} {task.fields['note']} {rate}"
        self._progress.print(line, soft_wrap=True)


@contextmanager
def bar(name: str, total: int, unit: str, start: int = 0) -> Iterator[Bar]:
    """Shows a progress bar on the first process.

    Example::

        with bar("train", steps, "images") as shown:
            shown.advance(1, len(images), "loss 2.301")

    Args:
        name: The bar's name.
        total: Number of items.
        unit: Unit of the work that the rate counts.
        start: Number of items that are done already.

    Yields:
        The bar.
    """
    from jaxhypernas.hosts import processes

    console = Console(stderr=True, quiet=not processes.first())
    if not console.is_terminal:
        console.width = LOG_WIDTH
    with Progress(*_columns(), console=console) as progress:
        task = progress.add_task(
            name, total=total, completed=start, note="", rate=""
        )
        try:
            yield Bar(progress, task, unit)
        except Exception:
            # If no item is done the error alone is shown, but a terminal needs its
            # cursor back.
            nothing_done = progress.tasks[0].completed == start
            console.quiet = nothing_done and not console.is_terminal
            raise


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Says what is waited for, and for how long, if the body lasts long.

    Example::

        with waiting("reading images"):
            dataset = load(config)

    Args:
        what: What the body does.
    """
    from jaxhypernas.hosts import processes

    began = time.time()
    over = threading.Event()

    def say() -> None:
        due = LONG
        while not over.wait(due):
            print(f"{what} ({time.time() - began:.0f} s) ...", file=sys.stderr)
            due = LINE_INTERVAL

    if not processes.first():
        yield
        return
    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    seconds = time.time() - began
    if seconds > LONG:
        print(f"{what} took {seconds:.0f} s", file=sys.stderr)


class _Note(ProgressColumn):
    """The note, cut where the terminal is narrow."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["note"], no_wrap=True, overflow="ellipsis")


def _columns() -> tuple[ProgressColumn, ...]:
    def whole() -> Column:
        """A column that a narrow terminal does not cut."""
        return Column(no_wrap=True, overflow="ignore")

    return (
        TextColumn("{task.description:8}"),
        BarColumn(bar_width=10),
        MofNCompleteColumn(table_column=whole()),
        # The only column that may shrink.
        _Note(),
        TextColumn("{task.fields[rate]}", table_column=whole()),
        TimeElapsedColumn(table_column=whole()),
        TextColumn("left", table_column=whole()),
        TimeRemainingColumn(table_column=whole()),
    )
