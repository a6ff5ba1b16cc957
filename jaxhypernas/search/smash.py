"""SMASH's search (Brock et al. 2018, section 4): random samples, perturbations of the best, then greedy steps."""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxhypernas.types import Arch, Space, Strategy


class _State(NamedTuple):
    key: jax.Array
    asked: int  # populations asked for
    best: Any  # the base of perturbations: the best architecture so far, and its loss
    loss: float


def smash(space: Space, number: int, perturbed: int, greedy: int) -> Strategy:
    """``number`` samples (published: 500), ``perturbed`` perturbations of the best (100), ``greedy`` steps (100).

    A greedy step perturbs the base, which is replaced only by a strictly better candidate.
    """
    draw = jax.jit(jax.vmap(lambda key: space.sample(key, 1.0)))
    perturb = jax.jit(jax.vmap(space.mutate, (0, None)))

    def ask(state: _State) -> Arch | None:
        if state.asked == 2 + greedy:
            return None
        size = (number, perturbed)[state.asked] if state.asked < 2 else 1
        keys = jax.random.split(jax.random.fold_in(state.key, state.asked), size)
        return jax.tree.map(np.asarray, draw(keys) if state.asked == 0 else perturb(keys, state.best))

    def tell(state: _State, population: Arch, loss_A: np.ndarray) -> _State:
        best = int(np.argmin(loss_A))
        state = state._replace(asked=state.asked + 1)
        if loss_A[best] < state.loss:
            return state._replace(best=jax.tree.map(lambda x: x[best], population), loss=float(loss_A[best]))
        return state

    return Strategy(lambda key: _State(key, 0, None, float("inf")), ask, tell)
