"""SMASH's search (Brock et al. 2018, section 4): samples, perturbation, greedy."""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxhypernas.archs.population import rows
from jaxhypernas.search.budget import within
from jaxhypernas.search.configs import Limits, SmashSearchConfig
from jaxhypernas.types import Arch, Space, Strategy


class _State(NamedTuple):
    key: jax.Array

    rounds: int
    """Populations asked for."""

    best: Any
    """The best architecture so far: the base of perturbations."""

    loss: float
    """Its loss."""


def smash(config: SmashSearchConfig, space: Space, limits: Limits) -> Strategy:
    """Samples the space, perturbs the best sample, then takes greedy steps.

    A perturbation is a mutation of the base. A greedy step perturbs the base once; the
    base is replaced only by a strictly better candidate.

    Args:
        config: The numbers of samples, perturbations and greedy steps.
        space: The space.
        limits: Limits that every candidate keeps to.

    Returns:
        The strategy.
    """
    draw = within(space, limits)

    def init(key: jax.Array) -> _State:
        return _State(key, rounds=0, best=None, loss=float("inf"))

    def ask(state: _State) -> Arch | None:
        # Round 0 samples, round 1 perturbs, each later round is one greedy step.
        if state.rounds == 2 + config.greedy:
            return None
        key = jax.random.fold_in(state.key, state.rounds)
        if state.rounds == 0:
            return draw.sample(key, config.number)
        times = config.perturbed if state.rounds == 1 else 1
        base = jax.tree.map(lambda x: np.stack([x] * times), state.best)
        return draw.mutate(key, base)

    def tell(state: _State, population: Arch, loss_A: np.ndarray) -> _State:
        state = state._replace(rounds=state.rounds + 1)
        best = int(np.argmin(loss_A))
        # If all samples failed, the first of them is the base.
        if state.best is None or loss_A[best] < state.loss:
            base = rows(population, best)
            state = state._replace(best=base, loss=float(loss_A[best]))
        return state

    total = config.number + config.perturbed + config.greedy
    at_once = {"number": config.number, "perturbed": config.perturbed}
    return Strategy(total, init, ask, tell, at_once, 2 + config.greedy)
