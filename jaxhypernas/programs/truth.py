"""Training candidates from scratch: the training code of `train`, standalone weights, many candidates side by side."""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxhypernas.data import dataset as data
from jaxhypernas.execution.candidates import (
    bind,
    map_candidates,
    split_candidates,
)
from jaxhypernas.execution.mesh import ARCH
from jaxhypernas.generators import standalone
from jaxhypernas.programs.scoring import Batches, score_one
from jaxhypernas.programs.training import (
    Images,
    TrainConfig,
    init_state,
    make_optimizer,
    make_run,
)
from jaxhypernas.types import Arch, Scores, Target, UserError


@dataclass(frozen=True)
class RetrainConfig:
    """Which candidates to train from scratch, and how."""

    top: int = 4  # the best scored
    sample: int = (
        24  # a random sample of the space: what correlations are computed on
    )
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=200, architectures=1, learning_rate=1e-2
        )
    )

    def __post_init__(self):
        for name, least in (("top", 1), ("sample", 3)):
            if getattr(self, name) < least:
                raise UserError(
                    f"retrain.{name}: {getattr(self, name)} must be at least {least}"
                )


def retrain_program(
    config: TrainConfig,
    augmentation: data.DataConfig,
    target: Target,
    mesh: Mesh,
) -> jax.stages.Wrapped:
    """What `make_retrain` calls: ``program((key, images, valid, test), (population, seed_A))``."""
    generator = standalone(target.weight_spec, target.nodes)
    optimizer = make_optimizer(config)

    def one(replicated, candidate):
        key, images, valid, test = replicated
        arch, seed = candidate
        run = make_run(
            config,
            augmentation,
            bind(target, generator),
            generator.decay,
            optimizer,
            sample=lambda key, progress: jax.tree.map(lambda x: x[None], arch),
            mean=lambda f, batch, one: f(
                batch, jax.tree.map(lambda x: x[0], one)
            ),
            length=config.steps,
        )
        state = init_state(generator, optimizer, jax.random.fold_in(key, seed))
        state, _ = run(state, images, jnp.int32(config.steps))
        return tuple(
            score_one(target, generator, (state.phi, batches), arch)
            for batches in (valid, test)
        )

    def local(replicated, candidates):
        return map_candidates(
            lambda candidate: one(replicated, candidate), candidates, 1
        )

    return jax.jit(split_candidates(mesh, local))


def make_retrain(
    config: TrainConfig,
    augmentation: data.DataConfig,
    target: Target,
    mesh: Mesh,
) -> Callable[
    [jax.Array, Images, Batches, Batches, Arch, np.ndarray],
    tuple[Scores, Scores],
]:
    """``retrain(key, images, valid, test, population, seed_A) -> (Scores on valid, Scores on test)``.

    The population has one candidate per device. A candidate's initial weights and batches depend on the key and its
    seed only, not on the others.
    """
    program = retrain_program(config, augmentation, target, mesh)

    def retrain(key, images, valid, test, population, seed_A):
        A, devices = len(seed_A), mesh.shape[ARCH]
        index = np.minimum(np.arange(devices), A - 1)
        candidates = jax.tree.map(
            lambda x: np.asarray(x)[index], (population, seed_A)
        )
        return jax.tree.map(
            lambda x: np.asarray(x)[:A],
            program((key, images, valid, test), candidates),
        )

    return retrain
