"""``jaxhypernas train``."""

from dataclasses import dataclass, replace
from typing import ClassVar

from etils.epath import Path

from jaxhypernas.cli.verbs.base import BeginVerb


@dataclass(frozen=True, kw_only=True)
class Train(BeginVerb):
    """Trains the generator.

    The same command goes on where it was stopped. A larger --train.steps trains a
    begun run on, along the schedule of that number from there; scores made so far are
    set aside.
    """

    example: ClassVar[str] = (
        "jaxhypernas train --workdir runs/cells --space nasbench201 "
        "--generator ghn"
    )

    from_run: Path | None = None
    """begin a new run with the weights of the run in this work directory; space,
    generator and shape of images must be the same"""

    def run(self) -> list[Path]:
        """Trains to the end."""
        from jaxhypernas.config import file

        steps = self.config.train.steps
        begun = file.begun_steps(self.workdir) or steps
        grows = steps > begun
        train = replace(self.config.train, steps=min(steps, begun))
        run = self.open(replace(self.config, train=train))
        if self.from_run is not None:
            run.begin_from(self.from_run)
        if grows:
            run.train_on(steps)
        else:
            run.train()
        return [self.workdir / "checkpoints", self.workdir / "metrics.jsonl"]
