"""A loss, an optimiser and an augmentation of your own.

    jaxhypernas search --plugin experiments/plugins/recipe.py \
        --train.loss smooth --retrain.train.loss smooth \
        --train.optimizer lion --train.learning-rate 1e-3 --data.augment cutout

Candidates are scored by cross-entropy, whatever they are trained with.
"""

import jax
import jax.numpy as jnp
import optax

from jaxhypernas import AUGMENTATIONS, LOSSES, OPTIMIZERS

SMOOTHING = 0.1
"""Share of the probability that all classes have together."""

SIDE = 3
"""Height and width of the square that is cut out of an image, in pixels."""


def smooth(logits_BxL: jax.Array, y_B: jax.Array) -> jax.Array:
    """Returns the cross-entropy with smoothed labels, in nats."""
    y_BxL = jax.nn.one_hot(y_B, logits_BxL.shape[-1])
    return optax.safe_softmax_cross_entropy(
        logits_BxL, optax.smooth_labels(y_BxL, SMOOTHING)
    ).mean()


def lion(schedule) -> optax.GradientTransformation:
    """Returns Lion (Chen et al. 2023)."""
    return optax.lion(schedule)


def cutout(key: jax.Array, x_BxHxWxC: jax.Array) -> jax.Array:
    """Cuts a square out of each image (DeVries and Taylor 2017)."""
    B, H, W, _ = x_BxHxWxC.shape
    row_key, column_key = jax.random.split(key)
    row_B = jax.random.randint(row_key, (B,), 0, H)
    column_B = jax.random.randint(column_key, (B,), 0, W)
    rows_BxH = jnp.abs(jnp.arange(H)[None] - row_B[:, None]) <= SIDE // 2
    columns_BxW = jnp.abs(jnp.arange(W)[None] - column_B[:, None]) <= SIDE // 2
    cut_BxHxW = rows_BxH[:, :, None] & columns_BxW[:, None, :]
    return jnp.where(cut_BxHxW[..., None], 0.0, x_BxHxWxC)


LOSSES["smooth"] = smooth
OPTIMIZERS["lion"] = lion
AUGMENTATIONS["cutout"] = cutout
