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

    def run(self) -> list[Path]:
        """Trains to the end."""
        from jaxhypernas.config import file

        config, steps = self.config, self.config.train.steps
        begun = file.begun_steps(self.workdir)
        if begun is None or steps <= begun:
            self.open(config).train()
        else:
            train = replace(config.train, steps=begun)
            self.open(replace(config, train=train)).train_on(steps)
        return [self.workdir / "checkpoints", self.workdir / "metrics.jsonl"]
