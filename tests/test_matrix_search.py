"""Every space keeps the contracts, and every strategy searches it within a limit."""

import jax
import numpy as np
import pytest
from helpers import population
from tiny import STRATEGY_SIZES, family

from jaxhypernas.families import FAMILIES
from jaxhypernas.search import STRATEGIES
from jaxhypernas.search.configs import Limits
from jaxhypernas.search.loop import run_search
from jaxhypernas.spaces import conformance
from jaxhypernas.types import UserError

pytestmark = pytest.mark.usefixtures("quick_compiler")


@pytest.mark.parametrize("space_name", FAMILIES)
def test_contracts(space_name):
    space, target = family(space_name)
    conformance.check(space, target, (8, 8, 1), number=6)


@pytest.mark.parametrize("strategy_name", STRATEGIES)
@pytest.mark.parametrize("space_name", FAMILIES)
def test_search(space_name, strategy_name):
    """A search for the largest network, limited to the middle of 64 samples."""
    space, _ = family(space_name)
    limit = int(np.median(space.cost(population(space, 64)).params))
    config, limits = STRATEGY_SIZES[strategy_name], Limits(max_params=limit)
    build = STRATEGIES[strategy_name].build
    if strategy_name == "progressive" and space.growth is None:
        with pytest.raises(
            UserError, match="needs a space whose architectures grow"
        ):
            build(config, space, limits)
        return
    asked = []

    def evaluate(population):
        params = space.cost(population).params
        asked.append(params)
        return -params.astype(float)

    strategy = build(config, space, limits)
    run_search(strategy, jax.random.key(1), evaluate)
    params = np.concatenate(asked)
    assert 6 <= len(params) <= strategy.total and params.max() <= limit
    if strategy_name != "progressive":
        # The first level of a progressive search is as large as the space has it.
        assert max(map(len, asked)) <= max(strategy.at_once.values())
