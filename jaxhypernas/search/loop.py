"""The loop of every search: ask, evaluate, tell."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import numpy as np

from jaxhypernas.archs.population import size
from jaxhypernas.types import Arch, Strategy


def run_search(
    strategy: Strategy,
    key: jax.Array,
    evaluate: Callable[[Arch], np.ndarray],
) -> Any:
    """Runs a strategy until it asks for no more candidates.

    A loss that is NaN or infinite becomes positive infinity, the worst.

    Example::

        strategy = random(RandomConfig(number=100), space, Limits())
        run_search(strategy, jax.random.key(0), lambda population: loss_A)

    Args:
        strategy: The strategy.
        key: The search's key; consumed.
        evaluate: ``evaluate(population)``: the loss of each candidate, [A].

    Returns:
        The strategy's last state.
    """
    state = strategy.init(key)
    while (population := strategy.ask(state)) is not None:
        loss_A = np.asarray(evaluate(population), np.float64)
        chex.assert_shape(loss_A, (size(population),))

        loss_A = np.where(np.isfinite(loss_A), loss_A, np.inf)
        state = strategy.tell(state, population, loss_A)
    return state
