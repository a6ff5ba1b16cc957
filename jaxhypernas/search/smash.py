"""SMASH's search (Brock et al. 2018, section 4): random samples, perturbations of the best, then greedy steps."""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxhypernas.archs.population import rows
from jaxhypernas.search.budget import Budget, within
from jaxhypernas.types import Arch, Space, Strategy


class _State(NamedTuple):
    key: jax.Array
    asked: int  # populations asked for
    best: Any  # the base of perturbations: the best architecture so far, and its loss
    loss: float


def smash(
    space: Space, number: int, perturbed: int, greedy: int, budget: Budget
) -> Strategy:
    """``number`` samples (published: 500), ``perturbed`` perturbations of the best (100), ``greedy`` steps (100).

    A greedy step perturbs the base, which is replaced only by a strictly better candidate.
    """
    draw = within(space, budget)

    def ask(state: _State) -> Arch | None:
        if state.asked == 2 + greedy:
            return None
        key = jax.random.fold_in(state.key, state.asked)
        if state.asked == 0:
            return draw.sample(key, number)
        times = perturbed if state.asked == 1 else 1
        return draw.mutate(
            key, jax.tree.map(lambda x: np.stack([x] * times), state.best)
        )

    def tell(state: _State, population: Arch, loss_A: np.ndarray) -> _State:
        best = int(np.argmin(loss_A))
        if state.best is None or loss_A[best] < state.loss:
            state = state._replace(
                best=rows(population, best), loss=float(loss_A[best])
            )
        return state._replace(asked=state.asked + 1)

    return Strategy(
        number + perturbed + greedy,
        lambda key: _State(key, 0, None, float("inf")),
        ask,
        tell,
    )
