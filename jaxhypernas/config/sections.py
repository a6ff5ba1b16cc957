"""Sections of a run's configuration that belong to its programs."""

import math
from dataclasses import dataclass, field
from typing import Literal

from jaxhypernas.numerics.recipes import LOSSES, OPTIMIZERS, check_name
from jaxhypernas.types import Settings, UserError


@dataclass(frozen=True)
class TrainConfig(Settings):
    """How to train. The optimisers' other constants are SMASH's.

    Adam has betas 0.5 and 0.999 and epsilon 1e-4; the learning rate falls to 0 along a
    cosine.
    """

    steps: int = 800
    """training steps"""

    batch: int = 32
    """images per step, the same for all architectures of the step"""

    architectures: int = 4
    """architectures per step"""

    loss: str = "cross_entropy"
    """loss that is minimised; candidates are scored by cross-entropy in any case"""

    optimizer: str = "adam"
    """adam, or SGD with Nesterov momentum 0.9"""

    learning_rate: float = 1e-2
    """learning rate of the first step"""

    weight_decay: float = 1e-4
    """weight decay of shared and standalone kernels that the architecture uses"""

    path_dropout: float = 0.0
    """One-Shot: train the network of all paths and drop each at this rate, which grows
    from 0; 0: train sampled architectures"""

    ghosts: int = 1
    """mini-batches per step; architecture i trains on mini-batch i % ghosts"""

    every: int = 100
    """steps between checkpoints, and between lines of metrics"""

    def check(self) -> None:
        """Raises `UserError` for a value out of range."""
        check_name("loss", self.loss, LOSSES)
        check_name("optimizer", self.optimizer, OPTIMIZERS)
        for name in ("steps", "batch", "architectures", "ghosts", "every"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"{name}: {getattr(self, name)} must be at least 1"
                )
        if self.steps >= 2**31:
            raise UserError(f"steps: {self.steps} must be below 2^31")
        if not 0 < self.learning_rate < math.inf:
            raise UserError(
                f"learning_rate: {self.learning_rate} must be above 0, and finite"
            )
        if not 0 <= self.path_dropout < 1:
            raise UserError(
                f"path_dropout: {self.path_dropout} must be at least 0 and below 1"
            )
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(
                f"weight_decay: {self.weight_decay} must be 0 or more, and finite"
            )

    @property
    def drawn(self) -> int:
        """Images per step, of all its mini-batches."""
        return self.ghosts * self.batch


@dataclass(frozen=True)
class ScoreConfig(Settings):
    """How to score."""

    batch: int = 64
    """images per batch, at most; BatchNorm's statistics come from the batch, and there
    are at least 10 batches"""

    order: Literal["evidence", "loss"] = "evidence"
    """what searches look for and the best are chosen by: capacity, separability and
    loss together, or the loss alone"""

    images: int = 640
    """held-out images that candidates are scored on, at most; those trained from
    scratch, which are few and close, on 4 times as many; 0: all"""

    def taken(self, held: int) -> int:
        """Returns the number of images that candidates are scored on.

        Args:
            held: Number of held-out images.
        """
        return min(held, self.images or held)

    def taken_when_trained(self, held: int) -> int:
        """Returns the number of images that trained candidates are validated on.

        Args:
            held: Number of held-out images.
        """
        return min(held, 4 * self.images or held)

    def check(self) -> None:
        """Raises `UserError` for a number out of range."""
        if self.images < 0:
            raise UserError(f"images: {self.images} must be 0 (all) or more")
        if self.batch < 2:
            raise UserError(
                f"batch: {self.batch} must be at least 2, BatchNorm needs a batch"
            )


@dataclass(frozen=True)
class RetrainConfig(Settings):
    """Which candidates to train from scratch, and how."""

    top: int = 4
    """the best candidates"""

    active: int = 0
    """candidates besides, each chosen by what those trained before it say"""

    sample: int = 24
    """random candidates, on which correlations are computed"""

    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(steps=200, architectures=1)
    )
    """how each is trained"""

    def check(self) -> None:
        """Raises `UserError` for a number out of range."""
        for name, least in (("top", 1), ("active", 0), ("sample", 3)):
            if getattr(self, name) < least:
                raise UserError(
                    f"{name}: {getattr(self, name)} must be at least {least}"
                )
