"""``jaxhypernas search``."""

from dataclasses import dataclass
from typing import ClassVar

from etils.epath import Path

from jaxhypernas.cli.verbs.base import BeginVerb
from jaxhypernas.types import UserError


@dataclass(frozen=True, kw_only=True)
class Search(BeginVerb):
    """Trains, searches, trains the best from scratch, and reports.

    The same command goes on where it was stopped.
    """

    example: ClassVar[str] = (
        "jaxhypernas search --workdir runs/cells --space nasbench201 "
        "--generator ghn"
    )

    def run(self) -> list[Path]:
        """Does what is missing of the whole run."""
        from jaxhypernas.hosts import processes
        from jaxhypernas.report.ranking import LOSS

        if self.config.data.stream:
            raise UserError(
                "data.stream: search trains the best from scratch, with all images "
                "on a device: use train, score and top"
            )
        run = self.open(self.config)
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
