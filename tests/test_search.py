"""Strategies see architectures and scores only."""

import jax
import numpy as np
import pytest
from tiny import TINY

from jaxhypernas import search
from jaxhypernas.search import STRATEGIES, SearchConfig
from jaxhypernas.spaces import SPACES
from jaxhypernas.types import UserError

SPACE = SPACES["memory_bank"](TINY, (8, 8, 1), 10)


def fewest_params(population):
    return SPACE.cost(population).params.astype(np.float64)


def played(strategy, evaluate=fewest_params, seed=0):
    """All populations asked for, and their losses."""
    asked, losses = [], []

    def remember(population):
        losses.append(evaluate(population))
        asked.append(population)
        return losses[-1]

    search.run(STRATEGIES[strategy](SPACE, SearchConfig(20, 8, 15)), jax.random.key(seed), remember)
    return asked, losses


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_replays_bit_for_bit_and_follows_the_key(strategy):
    first, second, other = (played(strategy, seed=s)[0] for s in (0, 0, 1))
    same = lambda a, b: all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))  # noqa: E731
    assert same(first, second)
    assert not same(first, other)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_asks_for_what_is_configured(strategy):
    sizes = [len(loss) for loss in played(strategy)[1]]
    assert sizes == {"random": [20], "smash": [20, 8] + [1] * 15}[strategy]


def test_smash_perturbs_the_strictly_best():
    asked, losses = played("smash")
    base, best = None, np.inf
    rows = lambda p, i: jax.tree.map(lambda x: x[i], p)  # noqa: E731
    for population, loss in zip(asked, losses, strict=True):
        if base is not None:
            for i in range(len(loss)):  # perturbed: never another bank size, mostly the base's elements
                assert np.array_equal(population.bank_3[i], base.bank_3)
        if loss.min() < best:
            best, base = loss.min(), rows(population, int(loss.argmin()))
    assert best <= losses[0].min()


def test_nan_is_the_worst():
    def evaluate(population):
        loss = fewest_params(population)
        loss[0] = np.nan
        return loss

    asked, _ = played("smash", evaluate)
    worst = jax.tree.map(lambda x: x[0], asked[0])
    assert not np.array_equal(asked[1].bank_3[0], worst.bank_3) or fewest_params(asked[0]).argmin() != 0


@pytest.mark.parametrize("field", ["number", "perturbed", "greedy"])
def test_bad_sizes(field):
    with pytest.raises(UserError, match=rf"search\.{field}"):
        SearchConfig(**{field: -1})
