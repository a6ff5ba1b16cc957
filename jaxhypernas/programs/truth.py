"""Training from scratch: the steps of `steps`, standalone weights, many candidates."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxhypernas.archs.population import size
from jaxhypernas.config.sections import TrainConfig
from jaxhypernas.data.batches import Batches, Images
from jaxhypernas.data.config import DataConfig
from jaxhypernas.execution.candidates import (
    bind,
    map_candidates,
    split_candidates,
)
from jaxhypernas.execution.mesh import ARCH
from jaxhypernas.generators.standalone import standalone
from jaxhypernas.programs.parts import Parts
from jaxhypernas.programs.scoring import score_one
from jaxhypernas.programs.steps import init_state, make_optimizer, make_steps
from jaxhypernas.types import Arch, Scores, Target


class Truth(NamedTuple):
    """Scores of candidates after training from scratch."""

    valid: Scores
    """On the validation images."""

    test: Scores
    """On the test images."""


class FromScratch:
    """Trains candidates from scratch and scores them, as many as devices at a time.

    A candidate's initial weights and batches depend on the run's key and the
    candidate's id only, not on the other candidates.

    Args:
        parts: The parts of the run.
        images: Training images, on the devices of this process.
        valid: Validation images.
        test: Test images.
    """

    def __init__(
        self, parts: Parts, images: Images, valid: Batches, test: Batches
    ):
        self._key = jax.random.fold_in(parts.key, 3)
        self._images = images, valid, test
        self._devices = parts.local_mesh.shape[ARCH]
        self._program = retrain_program(
            parts.config.retrain.train,
            parts.config.data,
            parts.searched.target,
            parts.local_mesh,
        )

    def __call__(self, population: Arch, id_A: np.ndarray) -> Truth:
        """Trains and scores candidates, at most one per device.

        Args:
            population: Canonical architectures.
            id_A: Their ids, uint64.

        Returns:
            Their scores, NumPy arrays [A].
        """
        A = size(population)
        seed_A = (id_A >> np.uint64(36)).astype(np.int32)
        # Devices without a candidate repeat the last one.
        index_D = np.minimum(np.arange(self._devices), A - 1)
        candidates = jax.tree.map(
            lambda x: np.asarray(x)[index_D], (population, seed_A)
        )
        truth = self._program((self._key, *self._images), candidates)
        return jax.tree.map(lambda x: np.asarray(x)[:A], truth)


def retrain_program(
    config: TrainConfig, augmentation: DataConfig, target: Target, mesh: Mesh
) -> jax.stages.Wrapped:
    """Makes the program that trains a candidate per device and scores it.

    Args:
        config: How to train.
        augmentation: How images are augmented.
        target: The networks.
        mesh: The devices.

    Returns:
        ``program((key, images, valid, test), (population, seed_A)) -> Truth``.
    """
    generator = standalone(target.weight_spec, target.nodes)
    optimizer = make_optimizer(config)

    def one(replicated, candidate):
        key, images, valid, test = replicated
        arch, seed = candidate

        def sample(key, progress):
            return jax.tree.map(lambda x: x[None], arch)

        def mean(f, batch, population):
            return f(batch, jax.tree.map(lambda x: x[0], population))

        run = make_steps(
            config,
            augmentation,
            bind(target, generator),
            generator.decay,
            sample,
            mean,
            config.steps,
        )
        key = jax.random.fold_in(key, seed)
        state = init_state(generator, optimizer, key)
        state, _ = run(state, images, jnp.int32(config.steps))
        return Truth(
            score_one(target, generator, (state.phi, valid), arch),
            score_one(target, generator, (state.phi, test), arch),
        )

    def local(replicated, candidates):
        return map_candidates(partial(one, replicated), candidates, 1)

    return jax.jit(split_candidates(mesh, local))
