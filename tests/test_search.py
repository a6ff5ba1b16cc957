"""Strategies see architectures and scores only."""

import functools

import jax
import numpy as np
import pytest
import toy
from helpers import same
from toy import TOY

from jaxhypernas.archs.population import concatenate, in_batches, rows, size
from jaxhypernas.search import STRATEGIES
from jaxhypernas.search.budget import within
from jaxhypernas.search.configs import Limits
from jaxhypernas.search.loop import run_search
from jaxhypernas.search.nsga2 import crowded_order, crowding, fronts
from jaxhypernas.search.unique import make_unique
from jaxhypernas.types import UserError

SIZES = {
    "number": 40,
    "perturbed": 8,
    "greedy": 15,
    "population": 10,
    "tournament": 4,
    "children": 3,
    "beam": 8,
}
FREE = Limits()


def configured(strategy, **sizes):
    """A strategy's configuration; sizes that it does not have are left out."""
    kind = STRATEGIES[strategy].config
    names = vars(kind()).keys() & sizes.keys()
    return kind(**{name: sizes[name] for name in names})


@functools.cache
def built(strategy, space, limits, config):
    """A strategy, whose programs are compiled once for all tests."""
    return STRATEGIES[strategy].build(config, space, limits)


def played(
    strategy, evaluate=toy.loss, seed=0, space=TOY, limits=FREE, **sizes
):
    """All populations asked for, and their losses."""
    asked, losses = [], []

    def remember(population):
        losses.append(evaluate(population))
        asked.append(population)
        return losses[-1]

    config = configured(strategy, **(sizes or SIZES))
    strategy = built(strategy, space, limits, config)
    run_search(strategy, jax.random.key(seed), remember)
    return asked, losses


def everything():
    """All complete architectures of the toy space, symmetric ones twice."""
    population = None
    for level in range(1, toy.LEVELS + 1):
        population = toy.children(population, level)
    return population


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_replays_bit_for_bit_and_follows_the_key(strategy):
    first, second, other = (played(strategy, seed=s)[0] for s in (0, 0, 1))
    assert same(first, second)
    assert not same(first, other)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_asks_for_what_is_configured(strategy):
    sizes = [len(loss) for loss in played(strategy)[1]]
    generations = [10] + [3] * 10
    expected = {
        "random": [40],
        "smash": [40, 8] + [1] * 15,
        "evolution": generations,
        "nsga2": [10] * 4,
        "progressive": [21, 8, 8],
    }[strategy]
    assert sizes == expected
    # Of the 36 architectures of one block, which the total counts, 15 are symmetric.
    symmetric = 15 if strategy == "progressive" else 0
    made = built(strategy, TOY, FREE, configured(strategy, **SIZES))
    assert made.total == sum(sizes) + symmetric


@pytest.mark.parametrize(
    ("strategy", "fields"),
    [
        ("random", ["number"]),
        ("smash", ["number", "perturbed"]),
        ("evolution", ["population", "children", "tournament"]),
        ("nsga2", ["population"]),
        ("progressive", ["beam"]),
    ],
)
def test_says_how_many_it_holds_at_once(strategy, fields):
    made = built(strategy, TOY, FREE, configured(strategy, **SIZES))
    assert made.at_once == {field: SIZES[field] for field in fields}


@pytest.mark.parametrize("strategy", ["evolution", "nsga2"])
def test_the_last_round_is_cut_to_the_total(strategy):
    _, losses = played(
        strategy, number=25, population=10, tournament=2, children=4
    )
    assert sum(map(len, losses)) == 25


@pytest.mark.parametrize("limits", [(18, 0), (0, 180), (30, 200)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_asked_for_exceeds_the_budget(strategy, limits):
    most_params, most_flops = (limit or np.inf for limit in limits)
    for population in played(strategy, limits=Limits(*limits))[0]:
        cost = TOY.cost(population)
        assert (
            cost.params.max() <= most_params and cost.flops.max() <= most_flops
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_failed_candidate_is_the_worst(strategy, bad):
    """Candidates with op 1 in their first block fail: searches that learn avoid it."""

    def failed(population):
        return (population.block_3x4[:, 0, 2:] == 1).any(1)

    sizes = {
        "number": 90,
        "perturbed": 20,
        "greedy": 30,
        "population": 20,
        "tournament": 10,
        "children": 10,
        "beam": 8,
    }
    asked, again = (
        played(
            strategy,
            lambda p, bad=bad: np.where(failed(p), bad, toy.loss(p)),
            **sizes,
        )[0]
        for bad in (bad, np.inf)
    )
    assert same(asked, again)
    if strategy != "random":
        last = rows(concatenate(*asked), slice(-15, None))
        assert failed(last).mean() < 0.3 < failed(everything()).mean()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ends_if_all_fail(strategy):
    assert len(played(strategy, lambda p: np.full(size(p), np.nan))[0]) > 0


@pytest.mark.parametrize(
    ("strategy", "field"),
    [
        (strategy, field)
        for strategy in STRATEGIES
        for field in SIZES
        if field in vars(configured(strategy))
    ],
)
def test_bad_sizes(strategy, field):
    config = configured(strategy, **{field: -1})
    with pytest.raises(UserError, match=rf"^{field}: -1 must be at least"):
        config.check()


@pytest.mark.parametrize("field", ["max_params", "max_flops"])
def test_bad_limits(field):
    with pytest.raises(UserError, match=rf"^{field}: -1 must be at least 0"):
        Limits(**{field: -1}).check()


@pytest.mark.parametrize("strategy", ["evolution", "nsga2"])
def test_a_population_above_the_total_is_refused(strategy):
    with pytest.raises(
        UserError, match=r"^population: 50 must be at most number, 20"
    ):
        configured(strategy, number=20, population=50).check()


# --- budgets ------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            {"max_params": 1},
            r"search\.max_params: 1 is too few: the smallest of .* has 5$",
        ),
        (
            {"max_flops": 7},
            r"search\.max_flops: 7 is too few: the smallest of .* has 50$",
        ),
    ],
)
def test_an_impossible_budget_names_itself_and_the_smallest(
    strategy, limits, message
):
    def heavy(arch):
        least = (5, 50, 5, 50, 45)
        return toy.Cost(*map(np.maximum, TOY.cost(arch), least))

    heavier = TOY._replace(cost=heavy)
    with pytest.raises(UserError, match=message):
        played(
            strategy,
            space=heavier,
            limits=Limits(**limits),
        )


def test_two_limits_that_only_together_are_impossible():
    def cost(arch):
        params = TOY.cost(arch).params
        return toy.Cost(params, 100 - params, params, 100 - params, 0 * params)

    with pytest.raises(
        UserError,
        match=r"max_params: 40 is met, .* has 0; search\.max_flops: 50 is met",
    ):
        within(TOY._replace(cost=cost), Limits(40, 50)).sample(
            jax.random.key(0), 3
        )


def test_draws_depend_on_key_and_number_alone():
    draw, key = within(TOY, FREE), jax.random.key(5)
    many = draw.sample(key, 150)
    assert same(draw.sample(key, 7), rows(many, slice(7)))
    assert same(
        many,
        jax.vmap(lambda k: TOY.sample(k, 1.0))(jax.random.split(key, 150)),
    )
    assert same(
        draw.mutate(key, many),
        jax.vmap(TOY.mutate)(jax.random.split(key, 150), many),
    )


def test_rejection_keeps_the_distribution_of_what_fits():
    drawn = within(TOY, Limits(max_params=12)).sample(jax.random.key(0), 4000)
    whole = everything()
    allowed = rows(whole, TOY.cost(whole).params <= 12)
    for field in range(4):
        count, expected = (
            np.bincount(p.block_3x4[:, 1, field], minlength=4) / size(p)
            for p in (drawn, allowed)
        )
        np.testing.assert_allclose(count, expected, atol=0.03)


def test_a_child_that_cannot_fit_is_its_parent():
    heavy = toy.Toy(
        np.full((toy.LEVELS, 4), 2, np.int32), np.array(toy.LEVELS, np.int32)
    )
    even = lambda key, arch: jax.tree.map(  # noqa: E731
        lambda a, b: jax.numpy.where(arch.block_3x4[0, 0] == 0, a, b),
        TOY.mutate(key, arch),
        toy.Toy(*heavy),
    )
    draw = within(TOY._replace(mutate=even), Limits(max_params=20))
    parents = draw.sample(jax.random.key(0), 100)
    children = draw.mutate(jax.random.key(1), parents)
    stuck_A = parents.block_3x4[:, 0, 0] != 0
    assert 0 < stuck_A.sum() < 100
    assert same(rows(children, stuck_A), rows(parents, stuck_A))
    changed_A = (children.block_3x4 != parents.block_3x4).any((1, 2))
    assert changed_A[~stuck_A].any() and draw.fits(children).all()


def test_unique_finds_the_first_of_isomorphic_candidates():
    population = toy.children(None, 1)
    kept = make_unique(TOY)(population)
    pairs = [
        frozenset([(a, c), (b, d)])
        for a, b, c, d in population.block_3x4[:, 0].tolist()
    ]
    assert kept.tolist() == [
        i for i, pair in enumerate(pairs) if pairs.index(pair) == i
    ]


def test_batches_of_one_shape():
    shapes = []
    doubled = in_batches(
        lambda x: shapes.append(x.shape) or 2 * x, np.arange(10), 4
    )
    assert doubled.tolist() == list(range(0, 20, 2)) and set(shapes) == {(4,)}


# --- smash --------------------------------------------------------------------


def test_smash_perturbs_the_strictly_best():
    asked, losses = played("smash")
    base, best = None, np.inf
    for population, loss in zip(asked, losses, strict=True):
        if base is not None:
            assert (
                (population.block_3x4 != base.block_3x4).sum((1, 2)) <= 1
            ).all()
        if loss.min() < best:
            best, base = loss.min(), rows(population, int(loss.argmin()))
    assert best < losses[0].min()


# --- evolution ----------------------------------------------------------------


@pytest.mark.parametrize("children", [1, 3])
def test_evolution_is_tournaments_and_aging(children):
    asked, losses = played(
        "evolution", number=34, population=10, tournament=4, children=children
    )
    key, done = jax.random.key(0), 10
    alive = [(rows(asked[0], i), losses[0][i]) for i in range(10)]
    for population, loss in zip(asked[1:], losses[1:], strict=True):
        pick_key, mutate_key = jax.random.split(jax.random.fold_in(key, done))
        drawn = np.asarray(jax.random.randint(pick_key, (children, 4), 0, 10))
        for i in range(len(loss)):
            best = alive[drawn[i][0]]
            for one in drawn[i][1:]:
                best = alive[one] if alive[one][1] < best[1] else best
            assert same(
                rows(population, i),
                TOY.mutate(jax.random.fold_in(mutate_key, i), best[0]),
            )
        alive = (
            alive + [(rows(population, i), loss[i]) for i in range(len(loss))]
        )[len(loss) :]
        done += len(loss)
    assert done == 34


def test_evolution_beats_random():
    sizes = {"number": 150, "population": 20, "tournament": 5}
    found, by_chance = (
        min(x.min() for x in played(s, **sizes)[1])
        for s in ("evolution", "random")
    )
    assert found < by_chance


# --- NSGA-II ------------------------------------------------------------------


def dominates(a, b):
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(
        x < y for x, y in zip(a, b, strict=True)
    )


def slow_fronts(points):
    front, left, number = {}, dict(enumerate(points)), 0
    while left:
        best = [
            i
            for i, a in left.items()
            if not any(dominates(b, a) for b in left.values())
        ]
        front.update(dict.fromkeys(best, number))
        left = {i: a for i, a in left.items() if i not in best}
        number += 1
    return [front[i] for i in range(len(points))]


def slow_crowding(points):
    """For distinct values: the gap between a point's neighbours on each axis."""
    distance = []
    for p in points:
        total = 0.0
        for axis in range(len(p)):
            values = [q[axis] for q in points]
            below, above = (
                [v for v in values if v < p[axis]],
                [v for v in values if v > p[axis]],
            )
            total += (
                (min(above) - max(below)) / (max(values) - min(values))
                if below and above
                else np.inf
            )
        distance.append(total)
    return distance


@pytest.mark.parametrize("seed", range(20))
def test_fronts_and_crowding_against_brute_force(seed):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 6, (25, 2 + seed % 2)).astype(float)
    points[rng.random(25) < 0.1] = np.inf
    assert fronts(points).tolist() == slow_fronts(points.tolist())
    distinct = rng.permuted(np.tile(np.arange(12.0)[:, None], (1, 2)), axis=0)
    np.testing.assert_allclose(
        crowding(distinct), slow_crowding(distinct.tolist())
    )


def test_crowding_of_few_equal_or_failed_points():
    assert crowding(np.array([[1.0, 2.0]])).tolist() == [np.inf]
    assert np.isinf(crowding(np.full((3, 2), np.inf))[[0, 2]]).all()
    assert not np.isnan(crowding(np.full((5, 2), 3.0))).any()
    order = crowded_order(
        np.array(
            [
                [2.0, 2.0],
                [0.0, 4.0],
                [1.0, 1.0],
                [0.9, 1.2],
                [4.0, 0.0],
                [np.inf, np.inf],
            ]
        )
    )
    assert order[-2:].tolist() == [0, 5] and set(order[:2]) == {1, 4}


@pytest.mark.parametrize("objective", ["params", "flops"])
def test_nsga2_finds_the_front(objective):
    def volume(
        points, worst=(3.5, {"params": 60.0, "flops": 600.0}[objective])
    ):
        """The area that the points dominate, up to a corner."""
        area, bound = 0.0, worst[0]
        for cost, loss in sorted((c, x) for x, c in points):
            if loss < bound:
                area, bound = area + (bound - loss) * (worst[1] - cost), loss
        return area

    def points(population):
        return list(
            zip(
                toy.loss(population),
                getattr(TOY.cost(population), objective),
                strict=True,
            )
        )

    sizes = {"number": 1600, "population": 40, "objective": objective}
    best = volume(points(everything()))
    found, by_chance = (
        volume(points(concatenate(*played(s, **sizes)[0])))
        for s in ("nsga2", "random")
    )
    assert by_chance < 0.97 * best and found == pytest.approx(best)


# --- progressive --------------------------------------------------------------


def test_progressive_finds_the_best():
    asked, losses = played("progressive", beam=32)
    assert sum(map(len, losses)) == 21 + 2 * 32
    assert losses[-1].min() == pytest.approx(toy.loss(everything()).min())
    for level, population in enumerate(asked, 1):
        assert (population.blocks == level).all()
        assert len(make_unique(TOY)(population)) == size(population)
        if level > 1:
            parents = {
                tuple(p.ravel())
                for p in asked[level - 2].block_3x4[:, : level - 1]
            }
            assert {
                tuple(p.ravel()) for p in population.block_3x4[:, : level - 1]
            } <= parents


def test_progressive_reports_rank_correlations():
    config = configured("progressive", **SIZES)
    strategy = built("progressive", TOY, FREE, config)
    state = run_search(strategy, jax.random.key(0), toy.loss)
    assert [c.level for c in state.correlations] == [1, 2, 3]
    assert all(c.trained > 0.9 for c in state.correlations)
    assert all(-1 <= c.extrapolated <= 1 for c in state.correlations[:-1])
    assert np.isnan(state.correlations[-1].extrapolated)


def test_progressive_ends_early_where_no_child_fits():
    without_zero = TOY._replace(
        cost=lambda arch: toy.Cost(
            *(10 * np.asarray(arch.blocks, np.int64),) * 5
        )
    )
    asked, _ = played(
        "progressive",
        space=without_zero,
        limits=Limits(max_params=25),
        beam=4,
    )
    assert [size(p) for p in asked] == [21, 4]


def test_progressive_needs_growth():
    with pytest.raises(
        UserError,
        match="progressive needs a space whose architectures grow; toy's do not",
    ):
        played("progressive", space=TOY._replace(growth=None))
