"""Training: the same pure step trains a hypernetwork over sampled architectures and one network from scratch.

Each step draws a batch of images and some architectures, and descends the mean of their losses. Everything random in
step t comes from ``fold_in(key, t)``, so a resumed run continues bit for bit.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxhypernas.data import dataset as data
from jaxhypernas.numerics.nn import cross_entropy
from jaxhypernas.types import Arch, Generator, Params, UserError


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Defaults: the paper's Adam (learning rate 1e-3, betas 0.5 and 0.999, epsilon 1e-4, cosine)."""

    steps: int = 1000
    batch: int = 32  # images per step, the same for all of its architectures
    architectures: int = 4  # per step
    optimizer: Literal["adam", "sgd"] = "adam"  # sgd: Nesterov momentum 0.9
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4  # of shared and standalone kernels, where the architecture uses them
    path_dropout: float = 0.0  # One-Shot: train the network of all paths, dropped at this rate, 0 at first; 0: samples
    ghosts: int = 1  # batches per step: the architectures take turns with them
    every: int = 100  # steps between checkpoints and lines of metrics

    def __post_init__(self):
        for name in ("steps", "batch", "architectures", "ghosts", "every"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"train.{name}: {getattr(self, name)} must be at least 1"
                )
        if self.steps >= 2**31:
            raise UserError(f"train.steps: {self.steps} must be below 2^31")
        if not 0 < self.learning_rate < math.inf:
            raise UserError(
                f"train.learning_rate: {self.learning_rate} must be above 0, and finite"
            )
        if not 0 <= self.path_dropout < 1:
            raise UserError(
                f"train.path_dropout: {self.path_dropout} must be at least 0 and below 1"
            )
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(
                f"train.weight_decay: {self.weight_decay} must be 0 or more, and finite"
            )

    @property
    def drawn(self) -> int:
        """Images per step, of all its batches."""
        return self.ghosts * self.batch


class TrainState(NamedTuple):
    """All that training needs to continue."""

    step: jax.Array  # int32: steps done
    phi: Params
    optimizer: Any
    key: jax.Array


class Images(NamedTuple):
    """What training reads, on the device."""

    x_NxHxWxC: jax.Array
    y_N: jax.Array
    mean_C: jax.Array
    std_C: jax.Array


class Segment(NamedTuple):
    """What training reads where images are streamed: those of its next steps, in order."""

    x_TxBxHxWxC: jax.Array
    y_TxB: jax.Array
    mean_C: jax.Array
    std_C: jax.Array


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Adam or SGD, cosine to 0 over the run."""
    scale = (
        optax.scale_by_adam(0.5, 0.999, 1e-4)
        if config.optimizer == "adam"
        else optax.trace(0.9, nesterov=True)
    )
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return optax.chain(scale, optax.scale_by_learning_rate(schedule))


def init_state(
    generator: Generator,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
) -> TrainState:
    """The state before the first step."""
    phi_key, run_key = jax.random.split(key)
    phi = generator.init(phi_key)
    return TrainState(jnp.int32(0), phi, optimizer.init(phi), run_key)


def keys(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A state's key split in two: that of the order of images, and that of all else."""
    order_key, step_key = jax.random.split(key)
    return order_key, step_key


def make_run(
    config: TrainConfig,
    augmentation: data.DataConfig,
    logits: Callable[[Params, Arch, jax.Array], jax.Array],
    decay: Callable[[Params], Any],
    optimizer: optax.GradientTransformation,
    sample: Callable[[jax.Array, jax.Array], Arch],
    mean: Callable[[Callable, Any, Arch], Any],
    length: int,
) -> Callable[
    [TrainState, Images | Segment, jax.Array], tuple[TrainState, jax.Array]
]:
    """``run(state, images, steps) -> (state, mean loss)``: ``steps`` (traced, at most ``length``) steps in one program.

    The images are all of them, or a segment of ``length`` steps that begins with the state's: results are the same.

    Args:
        logits: of one architecture, as `predict.bind` gives it.
        decay: the generator's: which leaves weight decay applies to. What an architecture doesn't use has gradient 0
            and doesn't decay for it.
        sample: (key, progress in 0..1) -> the architectures of a step, with a leading axis.
        mean: (f, replicated, population) -> the mean over the population of the pytree f(replicated, candidate).
    """

    def loss(phi, arch, x, y):
        return cross_entropy(logits(phi, arch, x), y)

    def one(batch, candidate):
        (phi, x_GxBxHxWxC, y_GxB), (arch, ghost) = batch, candidate
        value, grads = jax.value_and_grad(loss)(
            phi, arch, x_GxBxHxWxC[ghost], y_GxB[ghost]
        )

        def decayed(grad, w, wanted):
            return (
                grad + config.weight_decay * jnp.where(grad == 0, 0, w)
                if wanted
                else grad
            )

        return value, jax.tree.map(decayed, grads, phi, decay(phi))

    def run(state: TrainState, images: Images | Segment, steps):
        order_key, step_key = keys(state.key)
        x_, y_, mean_C, std_C = images
        if isinstance(images, Segment):
            order = jnp.arange(length)  # along T: the batches lie in order
        else:
            order = data.batch_order(
                order_key, len(y_), config.drawn, length, state.step
            )

        def step(i, carry):
            state, total = carry
            arch_key, image_key = jax.random.split(
                jax.random.fold_in(step_key, state.step)
            )
            archs = sample(
                arch_key, state.step.astype(jnp.float32) / config.steps
            )
            x = data.normalise(x_[order[i]], mean_C, std_C)
            x = data.augment(image_key, x, augmentation.pad, augmentation.flip)
            x, y = (
                v.reshape(config.ghosts, config.batch, *v.shape[1:])
                for v in (x, y_[order[i]])
            )
            ghost_A = (
                jnp.arange(jax.tree.leaves(archs)[0].shape[0]) % config.ghosts
            )
            value, grads = mean(one, (state.phi, x, y), (archs, ghost_A))
            with jax.numpy_dtype_promotion(
                "standard"
            ):  # optax mixes its int32 count with floats
                updates, optimizer_state = optimizer.update(
                    grads, state.optimizer, state.phi
                )
            phi = optax.apply_updates(state.phi, updates)
            return TrainState(
                state.step + 1, phi, optimizer_state, state.key
            ), total + value

        state, total = jax.lax.fori_loop(
            0, steps, step, (state, jnp.float32(0))
        )
        return state, total / steps.astype(jnp.float32)

    return run


def check_progress(loss: float, step: int, classes: int) -> None:
    """Raise UserError if training has diverged: a loss that is not finite, or ten times that of a blind guess."""
    if not loss < 10 * float(jnp.log(float(classes))):
        raise UserError(
            f"train: diverged before step {step} (loss {loss:.3g}): lower train.learning_rate and start again"
        )
