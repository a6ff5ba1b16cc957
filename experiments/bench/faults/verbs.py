"""Runs verbs of jaxhypernas in one process or two."""

import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from claim import must

Verb = Literal["train", "score", "search"]

HANG_S = 60
"""Once a process has failed, the others end within this time."""

END_S = 900
"""A whole run ends within this time, on busy cores too."""

FLAGS = shlex.split("""
    --space nasbench201 --space.channels 4 --space.cells 1 --generator shared
    --data.limit 120 --train.steps 480 --train.batch 16 --train.every 10
    --strategy.number 400 --strategy.perturbed 60 --strategy.greedy 40
    --retrain.top 2 --retrain.sample 4
    --retrain.train.steps 40 --retrain.train.batch 16
""")

WORDS = {
    "train": ["train", *FLAGS],
    "score": ["score", "--random", "2000"],
    "search": ["search", *FLAGS],
}

PROGRESS = re.compile(
    r"(train|score|search|retrain) .*\d+/\d+|\s*$"
    r"|digits: |10 classes; |.* \(\d+ s\) \.\.\.$|.* took \d+ s$"
)
"""Lines of progress on standard error, and about the images."""


class Started:
    """A verb under way, in one process or two."""

    def __init__(
        self,
        verb: str,
        workdir: Path,
        processes: int = 1,
        more: Sequence[str] = (),
    ) -> None:
        command = [sys.executable, "-m", "jaxhypernas", *WORDS[verb], *more]
        command += ["--workdir", str(workdir)]
        if processes > 1:
            command += ["--distributed", "--filter-log"]
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "2",
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{_free_port()}",
            "JAX_NUM_PROCESSES": str(processes),
            "COLUMNS": "200",
        }
        self.logs = [tempfile.TemporaryFile("w+") for _ in range(processes)]  # noqa: SIM115
        self.processes = [
            subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**environment, "JAX_PROCESS_ID": str(process)},
            )
            for process, log in enumerate(self.logs)
        ]

    def end(self, seconds: float) -> list[int | None]:
        """Waits for all processes, but at most so long.

        Once a process has failed it waits at most `HANG_S` for the others.

        Returns:
            The exit codes; None for a process that is still running.
        """
        until = time.monotonic() + seconds
        failed = False
        while True:
            codes = [process.poll() for process in self.processes]
            if None not in codes or time.monotonic() >= until:
                return codes
            if any(codes) and not failed:
                until = min(until, time.monotonic() + HANG_S)
                failed = True
            time.sleep(0.01)

    def kill(self, victims: list[int]) -> None:
        """Kills processes, by their numbers."""
        for victim in victims:
            self.processes[victim].kill()
            self.processes[victim].wait()

    def finished(self) -> list[int]:
        """Returns the exit codes at the end; Broken if a process hangs."""
        codes = self.end(END_S)
        self.kill(list(range(len(codes))))
        must(None not in codes, "hangs")
        return [code for code in codes if code is not None]

    def said(self, process: int) -> list[str]:
        """Returns a process's lines on standard error, without progress."""
        log = self.logs[process]
        log.seek(0)
        lines = log.read().splitlines()
        return [line for line in lines if not PROGRESS.match(line)]


def finish(
    verb: str,
    workdir: Path,
    processes: int = 1,
    most: int = 0,
    more: Sequence[str] = (),
) -> list[str]:
    """Runs a verb to its end; Broken unless it succeeds.

    Returns:
        Its lines on standard error, of which there may be ``most``.
    """
    started = Started(verb, workdir, processes, more)
    codes = started.finished()
    said = [line for i in range(processes) for line in started.said(i)]
    must(not any(codes), f"exit codes {codes}: {said[:1]} {said[-1:]}")
    must(len(said) <= most, f"{len(said)} lines, not {most}: {said[:3]}")
    return said


def failure(started: Started, process: int, code: int) -> str:
    """Returns the line of a process that failed; Broken unless there is just one."""
    said = started.said(process)
    is_one_line = len(said) == 1 and said[0].startswith("jaxhypernas: ")
    must(
        code not in (0, 1) and is_one_line,
        f"process {process} ended with {code} and {len(said)} lines, not one: "
        f"{said[:1]} {said[-1:]}",
    )
    return said[0]


def refused(text: str, verb: str, workdir: Path, processes: int = 1) -> str:
    """Runs a verb that cannot go on.

    Returns:
        The line that has the text; Broken if no process says it, or one of them does
        not end with a single line.
    """
    started = Started(verb, workdir, processes)
    codes = started.finished()
    lines = [failure(started, i, code) for i, code in enumerate(codes)]
    found = [line for line in lines if text in line]
    must(bool(found), f"{text!r} is not in {lines}")
    return found[0]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
