"""Progress bars on standard error: work done, its rate, the time left."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

LINE_INTERVAL = 30
"""Seconds between lines where standard error is not a terminal."""


class Bar:
    """A progress bar; `bar` opens it."""

    def __init__(self, progress: Progress, task: TaskID, unit: str):
        self._progress = progress
        self._task = task
        self._unit = unit
        self._work = 0
        self._began = time.time()
        self._last_line = self._began

    def advance(self, items: int, work: int, note: str = "") -> None:
        """Counts items as done.

        Args:
            items: Number of items done since the last call.
            work: Work in them, in the bar's unit; the rate counts it.
            note: Text to show beside the count.
        """
        self._work += work
        seconds = max(time.time() - self._began, 1e-9)
        rate = f"{self._work / seconds:,.0f} {self._unit}/s"
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


def _columns() -> tuple[ProgressColumn, ...]:
    def whole() -> Column:
        """A column that a narrow terminal does not cut."""
        return Column(no_wrap=True)

    return (
        TextColumn("{task.description:8}"),
        # The only column that may shrink.
        BarColumn(bar_width=24),
        MofNCompleteColumn(table_column=whole()),
        TextColumn("{task.fields[note]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(table_column=whole()),
        TextColumn("left"),
        TimeRemainingColumn(table_column=whole()),
    )
