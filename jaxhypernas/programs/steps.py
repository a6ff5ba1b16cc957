"""Steps of training: one pure function trains a generator or a single network.

Each step draws a batch of images and some architectures, and descends the mean of
their losses. Everything random in step t comes from ``fold_in(key, t)``, so a resumed
run continues bit for bit.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxhypernas.config.sections import TrainConfig
from jaxhypernas.data import batches
from jaxhypernas.data.batches import Images, Segment
from jaxhypernas.data.config import DataConfig
from jaxhypernas.numerics.recipes import AUGMENTATIONS, LOSSES, OPTIMIZERS
from jaxhypernas.types import Arch, Generator, Params


class TrainState(NamedTuple):
    """All that training needs to continue."""

    step: jax.Array
    """int32: number of steps done."""

    phi: Params
    """The generator's parameters."""

    optimizer: Any
    """State of the optimiser."""

    key: jax.Array
    """The key from which all randomness of training comes."""


def make_optimizer(
    config: TrainConfig, total: jax.Array | int
) -> optax.GradientTransformation:
    """Makes the optimiser, with a learning rate that falls to 0 along a cosine.

    Args:
        config: How to train; its number of steps does not matter here.
        total: int32: number of steps of the whole training; it may be traced, so that
            one program trains for any number of steps.
    """

    def schedule(step):
        share = _share(jnp.minimum(step, total), total)
        return config.learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * share))

    return OPTIMIZERS[config.optimizer](schedule)


def init_state(
    generator: Generator,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
) -> TrainState:
    """Makes the state before the first step.

    Args:
        generator: The generator to train.
        optimizer: The optimiser.
        key: The key of the run; consumed.
    """
    phi_key, run_key = jax.random.split(key)
    phi = generator.init(phi_key)
    return TrainState(jnp.int32(0), phi, optimizer.init(phi), run_key)


def split_key(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Splits the key of a state.

    Args:
        key: The key; consumed.

    Returns:
        The key of the order of images, and the key of everything else.
    """
    order_key, step_key = jax.random.split(key)
    return order_key, step_key


def make_steps(
    config: TrainConfig,
    augmentation: DataConfig,
    logits: Callable[[Params, Arch, jax.Array], jax.Array],
    decay: Callable[[Params], Any],
    sample: Callable[[jax.Array, jax.Array], Arch],
    mean: Callable[[Callable, Any, Arch], Any],
    length: int,
) -> Callable[
    [TrainState, Images | Segment, jax.Array, jax.Array],
    tuple[TrainState, jax.Array],
]:
    """Makes the program that runs several steps of training.

    Args:
        config: How to train; its number of steps does not matter here.
        augmentation: How images are augmented.
        logits: ``logits(phi, arch, x_BxHxWxC)``, as `candidates.bind` gives it.
        decay: `Generator.decay`. A weight that the architecture does not use has
            gradient 0 and does not decay for it.
        sample: ``sample(key, progress)``: the architectures of a step, with a leading
            axis; progress is in 0 .. 1.
        mean: ``mean(f, replicated, population)``: the mean over the population of the
            pytree ``f(replicated, candidate)``.
        length: Largest number of steps of one call.

    Returns:
        ``run(state, images, steps, total) -> (state, loss)``: the state after ``steps``
        of the ``total`` steps of training (int32, traced) and their mean loss. The
        images are all images, or a segment that has those of the call; the results are
        the same.
    """
    one = _loss_and_gradient(config, logits, decay)

    def step(key, images, index_B, state, total):
        """A step on the images at some indices: the next state, and the loss."""
        arch_key, image_key = jax.random.split(
            jax.random.fold_in(key, state.step)
        )
        progress = _share(state.step, total)
        population = sample(arch_key, progress)
        batch = _mini_batches(config, augmentation, image_key, images, index_B)
        A = jax.tree.leaves(population)[0].shape[0]
        ghost_A = jnp.arange(A) % config.ghosts
        loss, grads = mean(one, (state.phi, *batch), (population, ghost_A))
        # optax mixes its int32 count with floats.
        with jax.numpy_dtype_promotion("standard"):
            updates, optimizer_state = make_optimizer(config, total).update(
                grads, state.optimizer, state.phi
            )
        phi = optax.apply_updates(state.phi, updates)
        state = TrainState(state.step + 1, phi, optimizer_state, state.key)
        return state, loss

    def run(state, images, steps, total):
        order_key, step_key = split_key(state.key)
        if isinstance(images, Segment):
            # The batches of a segment lie in order along T.
            order = state.step - images.first + jnp.arange(length)
        else:
            order = batches.batch_order(
                order_key, len(images.y_N), config.drawn, length, state.step
            )

        def body(i, carry):
            state, loss_sum = carry
            state, loss = step(step_key, images, order[i], state, total)
            return state, loss_sum + loss

        start = (state, jnp.float32(0))
        state, loss_sum = jax.lax.fori_loop(0, steps, body, start)
        return state, loss_sum / steps.astype(jnp.float32)

    return run


def _share(step: jax.Array, total: jax.Array | int) -> jax.Array:
    """A step as a share of all."""
    return jnp.float32(step) / jnp.float32(total)


def _loss_and_gradient(
    config: TrainConfig, logits: Callable, decay: Callable
) -> Callable[[Any, Any], tuple[jax.Array, Params]]:
    """Loss and gradient of one architecture on its mini-batch of G mini-batches."""

    def loss(phi, arch, x, y):
        return LOSSES[config.loss](logits(phi, arch, x), y)

    def one(batch, candidate):
        phi, x_GxBxHxWxC, y_GxB = batch
        arch, ghost = candidate
        value, grads = jax.value_and_grad(loss)(
            phi, arch, x_GxBxHxWxC[ghost], y_GxB[ghost]
        )

        def decayed(grad, w, wanted):
            if not wanted:
                return grad
            return grad + config.weight_decay * jnp.where(grad == 0, 0, w)

        return value, jax.tree.map(decayed, grads, phi, decay(phi))

    return one


def _mini_batches(
    config: TrainConfig,
    augmentation: DataConfig,
    key: jax.Array,
    images: Images | Segment,
    index_B: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Normalised and augmented images, G x B x H x W x C, and labels G x B."""
    x, y, mean_C, std_C, *_ = images
    x = batches.normalise(x[index_B], mean_C, std_C)
    x = batches.augment(key, x, augmentation.pad, augmentation.flip)
    x = AUGMENTATIONS[augmentation.augment](jax.random.fold_in(key, 1), x)
    shape = config.ghosts, config.batch
    return x.reshape(*shape, *x.shape[1:]), y[index_B].reshape(shape)
