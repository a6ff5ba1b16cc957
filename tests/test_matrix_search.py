"""Every space keeps the contracts, and every strategy searches it within a limit."""

import jax
import numpy as np
import pytest
from tiny import TINY

from jaxhypernas.search import STRATEGIES, SearchConfig, run
from jaxhypernas.spaces import SPACES, conformance
from jaxhypernas.targets import TARGETS
from jaxhypernas.types import UserError

IMAGE, CLASSES = (8, 8, 1), 10
pytestmark = pytest.mark.usefixtures("quick_compiler")


@pytest.mark.parametrize("space_name", SPACES)
def test_contracts(space_name):
    space, target = (
        SPACES[space_name](TINY, IMAGE, CLASSES),
        TARGETS[space_name](TINY, IMAGE, CLASSES),
    )
    conformance.check(space, target, IMAGE, number=6)


@pytest.mark.parametrize("strategy_name", STRATEGIES)
@pytest.mark.parametrize("space_name", SPACES)
def test_search(space_name, strategy_name):
    """A search for the largest network, within a limit of the middle of 64 samples."""
    space = SPACES[space_name](TINY, IMAGE, CLASSES)
    keys = jax.random.split(jax.random.key(0), 64)
    limit = int(
        np.median(
            space.cost(
                jax.jit(jax.vmap(lambda k: space.sample(k, 1.0)))(keys)
            ).params
        )
    )
    config = SearchConfig(
        20,
        5,
        5,
        max_params=limit,
        population=8,
        tournament=3,
        children=4,
        beam=6,
    )
    if strategy_name == "progressive" and space.growth is None:
        with pytest.raises(
            UserError,
            match="progressive needs a space whose architectures grow",
        ):
            STRATEGIES[strategy_name](space, config)
        return
    asked = []

    def evaluate(population):
        asked.extend(space.cost(population).params.tolist())
        return -space.cost(population).params.astype(float)

    strategy = STRATEGIES[strategy_name](space, config)
    run(strategy, jax.random.key(1), evaluate)
    assert 6 <= len(asked) <= strategy.total and max(asked) <= limit
