"""Progressive search (PNAS, Liu et al. 2018, algorithm 1).

Architectures grow block by block. All architectures of one block are scored. Then,
level by level, a surrogate fitted to the architectures just scored rates all their
children, and the best children are scored.

Deviation:
1. Isomorphic children are rated and asked for once, children beyond the limits never.
   If no child of a later level keeps to the limits, the search ends with the
   architectures it has.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxhypernas.archs.population import rows, size
from jaxhypernas.search.budget import nothing_fits, within
from jaxhypernas.search.configs import Limits, ProgressiveConfig
from jaxhypernas.search.surrogate import (
    Correlation,
    correlation,
    make_surrogate,
)
from jaxhypernas.search.unique import make_unique
from jaxhypernas.types import Arch, Growth, Params, Space, Strategy, UserError


class ProgressiveState(NamedTuple):
    """The state of a progressive search."""

    key: jax.Array
    """The key of the surrogate's fits."""

    level: int
    """Blocks of the architectures scored last; 0 before the first."""

    beam: Any
    """The architectures scored last."""

    loss_A: np.ndarray
    """Their losses."""

    params: Params
    """The surrogate's parameters, fitted to them."""

    correlations: tuple[Correlation, ...]
    """How the surrogate of each level ranked that level and the next.

    The next level is the beam that the surrogate itself chose: a narrower range than
    the paper's random samples.
    """


def progressive(
    config: ProgressiveConfig, space: Space, limits: Limits
) -> Strategy:
    """Grows architectures block by block; a surrogate chooses among children.

    Args:
        config: The size of the beam and the kind of surrogate.
        space: The space.
        limits: Limits that every candidate keeps to.

    Returns:
        The strategy; its states are `ProgressiveState`.

    Raises:
        UserError: The space's architectures do not grow.
    """
    growth = _growth_of(space)
    children_within = _make_children(space, growth, limits)
    first = size(growth.children(None, 1))
    most = max(first, config.beam)
    surrogate = make_surrogate(config.surrogate, growth, most)
    rank = partial(correlation, surrogate, growth)

    def init(key: jax.Array) -> ProgressiveState:
        init_key, fit_key = jax.random.split(key)
        params = surrogate.init(init_key)
        return ProgressiveState(fit_key, 0, None, np.zeros(0), params, ())

    def ask(state: ProgressiveState) -> Arch | None:
        if state.level == growth.levels:
            return None
        level = state.level + 1
        children = children_within(state.beam, level)
        # No surrogate is fitted yet at level 1: all architectures are scored.
        if level == 1 or children is None:
            return children
        tokens_AxLxF = growth.tokens(children, level)
        rating_A = surrogate.predict(state.params, tokens_AxLxF)
        best = np.argsort(-rating_A, kind="stable")[: config.beam]
        return rows(children, best)

    def tell(
        state: ProgressiveState, asked: Arch, loss_A: np.ndarray
    ) -> ProgressiveState:
        level = state.level + 1
        scored = (asked, loss_A)
        known = state.correlations
        if known:
            # The losses of this level complete the correlation of the last one.
            before = (state.beam, state.loss_A)
            last = rank(state.params, state.level, before, scored)
            known = (*known[:-1], last)

        key = jax.random.fold_in(state.key, level)
        tokens_AxLxF = growth.tokens(asked, level)
        params = surrogate.fit(state.params, key, tokens_AxLxF, loss_A)
        known = (*known, rank(params, level, scored))
        return ProgressiveState(state.key, level, asked, loss_A, params, known)

    total = first + config.beam * (growth.levels - 1)
    at_once = {"beam": config.beam}
    return Strategy(total, init, ask, tell, at_once, growth.levels)


def _growth_of(space: Space) -> Growth:
    if space.growth is None:
        raise UserError(
            "strategy: progressive needs a space whose architectures grow; "
            f"{space.name}'s do not"
        )
    return space.growth


def _make_children(
    space: Space, growth: Growth, limits: Limits
) -> Callable[[Arch | None, int], Arch | None]:
    """Makes ``children(parents, level)``: distinct children within the limits.

    The children are None if none keeps to the limits; at level 1 this is an error.
    """
    draw = within(space, limits)
    unique = make_unique(space)

    def children_within(parents: Arch | None, level: int) -> Arch | None:
        children = growth.children(parents, level)
        fits_A = draw.fits(children)
        if not fits_A.any():
            if level == 1:
                raise nothing_fits(space, limits, children)
            return None
        children = rows(children, fits_A)
        return rows(children, unique(children))

    return children_within
