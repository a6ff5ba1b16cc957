"""``jaxhypernas search``."""

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from etils.epath import Path

from jaxhypernas.cli.verbs.base import BeginVerb
from jaxhypernas.types import UserError

if TYPE_CHECKING:
    from jaxhypernas.run import Run

LONG_SECONDS = 1800
"""A search that takes longer says so before it begins."""

SLACK = 0.2
"""The smallest search may exceed --minutes by this share."""


@dataclass(frozen=True, kw_only=True)
class Search(BeginVerb):
    """Trains, searches, trains the best from scratch, and reports.

    The same command goes on where it was stopped.
    """

    example: ClassVar[str] = (
        "jaxhypernas search --workdir runs/cells --space nasbench201 "
        "--generator ghn"
    )

    minutes: float = 0.0
    """how long the search may take: its steps and candidates grow or shrink, by a short
    trial on this machine; a begun run goes on as it was begun"""

    dry_run: bool = False
    """say what the search would do and how long it would take here, and end"""

    def run(self) -> list[Path]:
        """Does what is missing of the whole run."""
        from jaxhypernas.hosts import processes
        from jaxhypernas.report.ranking import LOSS

        began = time.time()
        if not 0 <= self.minutes < math.inf:
            raise UserError(f"minutes: {self.minutes} must be above 0")
        if self.config.data.stream:
            raise UserError(
                "data.stream: search trains the best from scratch, with all images "
                "on a device: use train, score and top"
            )
        run = self.open(self.config)
        if self.dry_run or not (self.workdir / "config.json").exists():
            run = self._planned(run, began)
        if self.dry_run:
            return []
        if run.parts.searched.generator.trained:
            run.train()
        run.search()
        run.retrain()
        figures = run.report()
        if processes.first():
            by_score = self.config.score.order == "evidence"
            _print_winner(figures, "score" if by_score else LOSS)
        names = (
            "report.md",
            "report.json",
            "scores",
            "retrain",
            "checkpoints",
        )
        return [self.workdir / name for name in names]

    def _planned(self, run: "Run", began: float) -> "Run":
        """The run that fits into --minutes; says what takes long."""
        from jaxhypernas.cli import plan_text
        from jaxhypernas.hosts import processes
        from jaxhypernas.programs import limits, plan
        from jaxhypernas.report import duration
        from jaxhypernas.run import Run
        from jaxhypernas.store import files

        if not (self.minutes or self.dry_run):
            seconds = plan.counted(run.parts, run.dataset)
            if seconds > LONG_SECONDS:
                # What cannot begin does not take long.
                limits.check(run.parts, run.dataset)
                if processes.first():
                    files.report(
                        "this search takes long here, about "
                        f"{duration.text(seconds)} by a rough count: --dry-run "
                        "measures it, --minutes fits it into a time"
                    )
            return run
        tried = run.trial()
        if self.minutes:
            elapsed = (
                processes.largest(time.time() - began) + plan.START_SECONDS
            )
            asked = 60 * self.minutes
            config = plan.fitted(
                run.parts,
                run.dataset,
                tried,
                asked - elapsed,
                most=(1 + SLACK) * asked - elapsed,
            )
            run = Run(self.workdir, config, run.dataset)
        if processes.first():
            phases = plan.phases(run.parts, run.dataset, tried)
            for line in plan_text.lines(run.parts, phases, tried.compiling):
                files.report(line)
        return run


def _print_winner(figures: dict, order: str) -> None:
    winner = figures["winner_test_accuracy"]
    sample = figures["sample_test_accuracy"]
    tau = figures["rank"][order]["tau"]
    print(
        f"winner: test accuracy {winner:.4f} trained from scratch, "
        f"random sample's mean {sample:.4f}"
    )
    print(
        f"scores against test loss: Kendall tau {tau['value']:.3f} "
        f"[{tau['low']:.3f}, {tau['high']:.3f}]"
    )
