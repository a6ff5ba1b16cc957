"""Progress bars on standard error: what is done, the rate, the time left."""

import time
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jaxhypernas.hosts import processes

INTERVAL = 30  # seconds between lines where standard error is no terminal


class _Bar:
    def __init__(self, progress: Progress, task, unit: str):
        self._progress, self._task, self._unit = progress, task, unit
        self._work, self._began = 0, time.time()
        self._told = self._began

    def advance(self, items: int, work: int, note: str = "") -> None:
        """Count items done, the work in them (in the bar's unit), and what to show beside them."""
        self._work += work
        rate = self._work / max(time.time() - self._began, 1e-9)
        self._progress.update(
            self._task,
            advance=items,
            note=note,
            rate=f"{rate:,.0f} {self._unit}/s",
        )
        if (
            not self._progress.console.is_terminal
            and time.time() - self._told > INTERVAL
        ):
            self._told, task = time.time(), self._progress.tasks[self._task]
            done = f"{task.completed:.0f}/{task.total:.0f}"
            self._progress.print(
                f"{task.description} {done} {note} {task.fields['rate']}",
                soft_wrap=True,
            )


@contextmanager
def bar(name: str, total: int, unit: str, start: int = 0):
    """A bar over ``total`` items, ``start`` of them done already; ``unit`` names the work that the rate counts."""
    columns = (
        TextColumn("{task.description:8}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True, quiet=not processes.first())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(
            name, total=total, completed=start, note="", rate=""
        )
        try:
            yield _Bar(progress, task, unit)
        except Exception:
            # Where nothing was done the error says it all; a terminal needs its cursor back.
            console.quiet = (
                progress.tasks[0].completed == start and not console.is_terminal
            )
            raise
