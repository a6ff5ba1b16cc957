"""A campaign of faults: its arguments, its cases and the undisturbed runs."""

import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from claim import Broken
from verbs import Verb, finish


@dataclass(frozen=True)
class Args:
    """Arguments."""

    kills: int = 50
    """number of kills"""

    seed: int = 0
    """seed of moments, victims, damage and room on disk"""

    only: tuple[Literal["kills", "damage", "disk", "writers"], ...] = (
        "kills",
        "damage",
        "disk",
        "writers",
    )
    """parts of the campaign"""

    rounds: int = 20
    """rounds of several writers at once"""

    verbs: tuple[Verb, ...] = ("train", "score", "search")
    """verbs that are killed, or run out of disk"""

    processes: tuple[Literal[1, 2], ...] = (1, 2)
    """numbers of processes of a run"""

    directory: Path = Path("runs/faults")
    """directory of all runs; undisturbed runs are kept"""

    json: bool = False
    """print one JSON object as the last line"""


@dataclass
class Case:
    """A fault, and how a run took it."""

    fault: str
    """The fault."""

    outcome: str = ""
    """One line."""

    ok: bool = True
    """Whether the claim holds."""

    seconds: float = 0.0
    """Time that it took."""


@dataclass
class Campaign:
    """All cases so far."""

    args: Args
    """The arguments."""

    random: random.Random
    """Draws moments, victims, damage and room."""

    cases: list[Case] = field(default_factory=list)
    """The cases."""

    @contextmanager
    def case(self, fault: str) -> Iterator[Case]:
        """Yields a case; the caller sets its outcome, and Broken fails it."""
        began = time.monotonic()
        case = Case(fault)
        try:
            yield case
        except Broken as broken:
            case.outcome = str(broken)
            case.ok = False
        case.seconds = round(time.monotonic() - began, 1)
        self.cases.append(case)
        mark = "ok" if case.ok else "FAILED"
        print(
            f"{mark:6} {fault}: {case.outcome} ({case.seconds} s)", flush=True
        )

    def path(self, name: str) -> Path:
        """Returns a path in the campaign's directory."""
        return self.args.directory.resolve() / name

    def begun(self, verb: str, workdir: Path) -> Path:
        """Makes a directory as it is before a verb: scoring takes a trained run."""
        shutil.rmtree(workdir, ignore_errors=True)
        if verb == "score":
            trained, _ = self.undisturbed("train")
            shutil.copytree(trained, workdir)
        return workdir

    def undisturbed(self, verb: str, processes: int = 1) -> tuple[Path, float]:
        """Returns an undisturbed run of a verb, and the seconds that it took.

        An earlier campaign's is taken if there is one.
        """
        workdir = self.path(f"{verb}{processes}")
        taken = workdir.with_suffix(".seconds")
        if not taken.exists():
            # The first run compiles, the second is timed.
            finish(verb, self.begun(verb, workdir), processes)
            self.begun(verb, workdir)
            began = time.monotonic()
            finish(verb, workdir, processes)
            taken.write_text(f"{time.monotonic() - began:.2f}")
        return workdir, float(taken.read_text())

    def truth(self, verb: str, processes: int) -> Path:
        """Returns the run that a disturbed run must come to.

        Scores are those of one process, however many there are.
        """
        workdir, _ = self.undisturbed(
            verb, 1 if verb == "score" else processes
        )
        return workdir
