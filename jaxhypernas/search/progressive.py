"""Progressive search (PNAS, Liu et al. 2018, algorithm 1): architectures grow block by block, a surrogate chooses.

All architectures of one block are scored. Then, until they are complete: every child of the architectures just scored
is rated by a surrogate fitted to them, and the best ``beam`` are scored.
Deviation:
1. Isomorphic children are rated and asked for once, children beyond the budget never. If a later level has no child
   within the budget, the search ends with the architectures it has.
"""

from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxhypernas.archs.population import make_unique, rows, size
from jaxhypernas.search.budget import Budget, nothing_fits, within
from jaxhypernas.search.surrogate import (
    Correlation,
    correlation,
    make_surrogate,
)
from jaxhypernas.types import Arch, Params, Space, Strategy, UserError


class ProgressiveState(NamedTuple):
    """Where a search stands; ``correlations`` say how the surrogate ranked each level and those chosen of the next."""

    key: jax.Array
    level: int  # of ``beam``, 0 before the first
    beam: Any  # the architectures scored last, and their losses
    loss_A: np.ndarray
    params: Params  # the surrogate's, fitted to them
    correlations: tuple[Correlation, ...]


def progressive(
    space: Space, beam: int, kind: Literal["mlp", "lstm"], budget: Budget
) -> Strategy:
    """PNAS's search with a beam of ``beam`` architectures (published: 256) and an MLP or LSTM as surrogate.

    Correlations extrapolated to a level are those within the beam, which the surrogate itself chose: a narrower range
    than that of the paper's random samples.

    Raises:
        UserError: the space's architectures do not grow.
    """
    growth = space.growth
    if growth is None:
        raise UserError(
            f"strategy: progressive needs a space whose architectures grow; {space.name}'s do not"
        )
    first = size(growth.children(None, 1))
    draw, unique, surrogate = (
        within(space, budget),
        make_unique(space),
        make_surrogate(kind, growth, max(first, beam)),
    )

    def init(key: jax.Array) -> ProgressiveState:
        init_key, fit_key = jax.random.split(key)
        return ProgressiveState(
            fit_key, 0, None, np.zeros(0), surrogate.init(init_key), ()
        )

    def ask(state: ProgressiveState) -> Arch | None:
        if state.level == growth.levels:
            return None
        level = state.level + 1
        children = growth.children(state.beam, level)
        fits_A = draw.fits(children)
        if not fits_A.any():
            if level == 1:
                raise nothing_fits(space, budget, children)
            return None
        children = rows(children, fits_A)
        children = rows(children, unique(children))
        if level == 1:
            return children
        rating_A = surrogate.predict(
            state.params, growth.tokens(children, level)
        )
        return rows(children, np.argsort(-rating_A, kind="stable")[:beam])

    def tell(
        state: ProgressiveState, asked: Arch, loss_A: np.ndarray
    ) -> ProgressiveState:
        level, known = state.level + 1, state.correlations
        if known:
            told = (state.beam, state.loss_A), (asked, loss_A)
            known = (
                *known[:-1],
                correlation(
                    surrogate, state.params, growth, state.level, *told
                ),
            )
        key = jax.random.fold_in(state.key, level)
        params = surrogate.fit(
            state.params, key, growth.tokens(asked, level), loss_A
        )
        known = (
            *known,
            correlation(surrogate, params, growth, level, (asked, loss_A)),
        )
        return ProgressiveState(state.key, level, asked, loss_A, params, known)

    return Strategy(first + beam * (growth.levels - 1), init, ask, tell)
