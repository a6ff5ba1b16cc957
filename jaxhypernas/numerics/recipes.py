"""What training is made of, by name: losses, optimisers, augmentations.

Add one of your own with one entry, and name it in the configuration::

    LOSSES["smooth"] = smooth  # --train.loss smooth

JAX is imported when one is used.
"""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from jaxhypernas.types import UserError

if TYPE_CHECKING:
    import jax
    import optax


def _cross_entropy(logits_BxL: "jax.Array", y_B: "jax.Array") -> "jax.Array":
    from jaxhypernas.numerics.losses import cross_entropy

    return cross_entropy(logits_BxL, y_B)


def _adam(schedule: Callable) -> "optax.GradientTransformation":
    import optax

    # The constants are SMASH's.
    scale = optax.scale_by_adam(0.5, 0.999, 1e-4)
    return optax.chain(scale, optax.scale_by_learning_rate(schedule))


def _sgd(schedule: Callable) -> "optax.GradientTransformation":
    import optax

    scale = optax.trace(0.9, nesterov=True)
    return optax.chain(scale, optax.scale_by_learning_rate(schedule))


def _none(key: "jax.Array", x_BxHxWxC: "jax.Array") -> "jax.Array":
    return x_BxHxWxC


LOSSES: dict[str, Callable[["jax.Array", "jax.Array"], "jax.Array"]] = {
    "cross_entropy": _cross_entropy
}
"""``loss(logits_BxL, y_B)``: a float32 of shape () to minimise in training. Candidates
are scored by cross-entropy, whatever they are trained with."""

OPTIMIZERS: dict[str, Callable[[Callable], "optax.GradientTransformation"]] = {
    "adam": _adam,
    "sgd": _sgd,
}
"""``optimizer(schedule)``: an optax optimiser; ``schedule(step)`` is the learning rate,
which falls to 0 along a cosine."""

AUGMENTATIONS: dict[str, Callable[["jax.Array", "jax.Array"], "jax.Array"]] = {
    "none": _none
}
"""``augment(key, x_BxHxWxC)``: the normalised images of a step, after crops and flips,
changed at random; float32 of the same shape."""


def check_name(field: str, name: str, registry: Collection[str]) -> None:
    """Checks that a name is there.

    Args:
        field: The field that has the name, for the message.
        name: The name.
        registry: The names that are there.

    Raises:
        UserError: It is not.
    """
    if name not in registry:
        raise UserError(
            f"{field}: {name!r} is not one of {', '.join(registry)}; entries of your "
            "own need --plugin"
        )
