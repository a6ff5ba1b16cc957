"""How candidates run changes nothing: chunks, order, devices, also within a run.

A mean over a mesh equals a mean without one.
"""

import dataclasses
import json
import shutil
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, assert_same, mesh_of, population, row
from tiny import TINY, family, tiny
from tiny import generator as make_generator

from jaxhypernas.data import batches
from jaxhypernas.data.batches import Batches, Images, make_batches
from jaxhypernas.data.dataset import load
from jaxhypernas.data.splits import Split
from jaxhypernas.execution import compilations
from jaxhypernas.execution.candidates import (
    bind,
    deal,
    map_candidates,
    mean_candidates,
    mean_over_mesh,
)
from jaxhypernas.execution.config import ExecutionConfig
from jaxhypernas.execution.mesh import ARCH, DATA, make_mesh
from jaxhypernas.execution.pace import GROWTH, Pace
from jaxhypernas.generators import GENERATORS
from jaxhypernas.hosts import interrupt
from jaxhypernas.programs import parts as all_parts
from jaxhypernas.programs import scorers, scoring
from jaxhypernas.programs.scoring import make_score
from jaxhypernas.programs.steps import init_state, make_optimizer, make_steps
from jaxhypernas.programs.training import check_progress
from jaxhypernas.programs.truth import FromScratch
from jaxhypernas.run import Run
from jaxhypernas.types import Generator, Target, UserError

pytestmark = pytest.mark.usefixtures("quick_compiler")


@pytest.fixture(scope="module")
def dataset():
    return load(TINY.data, 0)


def networks(generator="smash"):
    space, target = family("memory_bank")
    return space, target, make_generator(generator, space, target)


def validation(dataset, batch=8):
    return make_batches(dataset.valid, dataset.mean_C, dataset.std_C, batch)


def images_of(dataset):
    train = dataset.train
    arrays = train.x_NxHxWxC, train.y_N, dataset.mean_C, dataset.std_C
    return Images(*map(jnp.asarray, arrays))


@pytest.fixture(scope="module")
def scored(dataset):
    space, target, generator = networks()
    replicated = generator.init(jax.random.key(1)), validation(dataset)
    archs = population(space, 7)

    def score(devices, chunk, archs=archs):
        work_A = space.cost(archs).flops
        own = make_score(target, generator, mesh_of(devices), chunk)
        return own(replicated, archs, work_A)

    return score, archs, score(1, 1)


@pytest.mark.parametrize("devices", [2, 4])
def test_scores_do_not_depend_on_device_count(scored, devices):
    score, _, expected = scored
    assert_same(score(devices, 1), expected)


def test_scores_do_not_depend_on_chunk(scored):
    score, _, expected = scored
    np.testing.assert_allclose(score(2, 3).loss, expected.loss, rtol=2e-5)


def test_scores_do_not_depend_on_order_or_company(scored):
    score, archs, expected = scored
    order = np.array([6, 2, 2, 0, 5])
    result = score(1, 1, row(archs, order))
    np.testing.assert_array_equal(result.loss, expected.loss[order])


def test_architectures_differ_in_score(scored):
    assert len(set(scored[2].loss.tolist())) == 7


def toy_networks():
    """Networks whose two logits are (phi * arch, 0)."""

    def generate(phi, arch):
        return phi * arch.astype(jnp.float32)

    def apply(theta, arch, x_BxHxWxC):
        one_B = jnp.ones(len(x_BxHxWxC))
        return jnp.stack([theta * one_B, 0 * one_B], -1)

    target = Target({}, apply, {})
    return target, Generator(lambda key: {}, generate, lambda phi: {})


def toy_images(batches: int) -> Batches:
    """All of class 1."""
    x_TxBxHxWxC = jnp.zeros((batches, 2, 1, 1, 1))
    return Batches(x_TxBxHxWxC, jnp.ones((batches, 2), jnp.int32))


def toy_loss(phi, arch_A):
    return np.log1p(np.exp(phi * arch_A.astype(np.float64)))


@pytest.mark.parametrize(("devices", "chunk"), [(1, 1), (4, 3)])
def test_calls_of_any_size_are_one_program(devices, chunk):
    score = make_score(*toy_networks(), mesh_of(devices), chunk)
    images = toy_images(batches=3)
    before = compilations.total()
    rng = np.random.default_rng(0)
    for A in (1, 3, 4, 64, 65, 300, 1000):
        arch_A = rng.integers(0, 9, A, np.int32)
        result = score((np.float32(7), images), arch_A, arch_A)
        np.testing.assert_allclose(result.loss, toy_loss(7, arch_A), rtol=1e-6)
    assert compilations.total() - before == 1


def test_no_candidates_have_no_scores():
    score = make_score(*toy_networks(), mesh_of(1), 1)
    empty_A = np.zeros(0, np.int32)
    found = score((np.float32(7), toy_images(3)), empty_A, empty_A)
    assert found.loss.shape == found.accuracy.shape == (0,)


@pytest.mark.parametrize(("devices", "chunk"), [(1, 1), (2, 3)])
@pytest.mark.parametrize("units", [1, 4, 7, 21, 1000])
def test_scores_do_not_depend_on_the_length_of_calls(
    scored, monkeypatch, devices, chunk, units
):
    """A call has a part of a candidate's batches, or several candidates."""
    monkeypatch.setattr(Pace, "took", lambda *_: None)
    monkeypatch.setattr(
        scoring, "Pace", lambda seconds: Pace(seconds, least=units)
    )
    score, _, expected = scored
    found = score(devices, chunk)
    if chunk == 1:
        assert_same(found, expected)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=2e-5)


@pytest.mark.parametrize("calls", [0, 1, 5, 12])
def test_stopped_scoring_returns_the_first_candidates(
    dataset, monkeypatch, calls
):
    """Ten batches, four in a call: three calls for a candidate."""
    monkeypatch.setattr(Pace, "took", lambda *_: None)
    monkeypatch.setattr(
        scoring, "Pace", lambda seconds: Pace(seconds, least=4)
    )
    score = make_score(*toy_networks(), mesh_of(1), 1)
    left = iter(range(calls))
    arch_A = np.arange(7, dtype=np.int32)
    found = score(
        (np.float32(7), toy_images(10)),
        arch_A,
        arch_A,
        lambda: next(left, None) is None,
    )
    # Asked before each candidate, and between its three calls.
    assert len(found.loss) == calls // 3
    np.testing.assert_allclose(
        found.loss, toy_loss(7, arch_A)[: calls // 3], rtol=1e-6
    )


@pytest.mark.parametrize("hands", [1, 2, 3, 8])
@pytest.mark.parametrize("number", [1, 7, 64])
def test_devices_get_the_same_work(number, hands):
    work = np.random.default_rng(number).exponential(size=number)
    shares = deal(work, hands)
    assert sorted(np.concatenate(shares)) == list(range(number))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    loads = [work[share].sum() for share in shares]
    assert max(loads) - min(loads) <= work.max()


def test_chunk_one_branches(dataset):
    """A chunk of one keeps real conditionals; vmap makes them select."""
    space, target, generator = networks()
    phi = generator.init(jax.random.key(1))
    archs = population(space, 4)
    x = jnp.zeros((4, *dataset.image))
    logits = bind(target, generator)

    def conditionals(chunk):
        def mapped(archs):
            return map_candidates(lambda a: logits(phi, a, x), archs, chunk)

        return str(jax.make_jaxpr(mapped)(archs)).count(" cond[")

    # Under vmap the platform's convolution is still chosen, an op is not.
    assert conditionals(1) >= conditionals(2) + 12


def test_mean_over_mesh_equals_mean(dataset):
    space, target, generator = networks()
    phi = generator.init(jax.random.key(1))
    archs = population(space, 4)
    x = batches.normalise(
        jnp.asarray(dataset.train.x_NxHxWxC[:8]), dataset.mean_C, dataset.std_C
    )

    def loss(phi, arch):
        return jnp.square(bind(target, generator)(phi, arch, x)).mean()

    def mean(phi, archs):
        return mean_candidates(
            partial(jax.value_and_grad(loss), phi), archs, 1
        )

    alone = jax.jit(mean)(phi, archs)
    split = jax.jit(mean_over_mesh(mesh_of(2), mean))(phi, archs)
    gradient = jax.jit(jax.value_and_grad(loss))
    one_by_one = [gradient(phi, row(archs, i)) for i in range(4)]
    loop = jax.tree.map(lambda *g: sum(g) / 4, *one_by_one)
    assert_close(alone, loop, atol=2e-6)
    assert_close(split, loop, atol=2e-6)


def train(dataset, generator, cuts, steps=6):
    space, target, generator = networks(generator)
    config = dataclasses.replace(TINY.train, steps=steps)

    def sample(key, progress):
        keys = jax.random.split(key, config.architectures)
        return jax.vmap(lambda k: space.sample(k, progress))(keys)

    def mean(f, batch, archs):
        return mean_candidates(partial(f, batch), archs, 1)

    run = jax.jit(
        make_steps(
            config,
            TINY.data,
            bind(target, generator),
            generator.decay,
            sample,
            mean,
            steps,
        )
    )
    state = init_state(
        generator, make_optimizer(config, steps), jax.random.key(0)
    )
    losses = []
    for number in cuts:
        state, loss = run(
            state, images_of(dataset), jnp.int32(number), jnp.int32(steps)
        )
        losses.append(float(loss))
    return state, losses


@pytest.mark.parametrize("generator", GENERATORS)
def test_every_generator_trains_and_a_cut_changes_nothing(dataset, generator):
    whole, losses = train(dataset, generator, [6])
    cut, _ = train(dataset, generator, [2, 1, 3])
    assert int(whole.step) == 6 and np.isfinite(losses[0])
    assert_same(whole.phi, cut.phi)


def test_training_learns(dataset):
    _, losses = train(dataset, "standalone", [100] * 3, steps=300)
    assert losses[-1] < losses[0] - 0.2


def parts_on(devices, config, dataset):
    return all_parts.build(
        config, dataset.image, dataset.classes, jax.devices()[:devices]
    )


def test_a_run_goes_on_with_other_devices_and_another_chunk(tmp_path):
    """Two devices, three candidates side by side, finish what four devices began."""
    config = tiny("nasbench201", "shared")
    whole = Run(tmp_path / "whole", config)
    whole.train()
    space = whole.parts.searched.space
    drawn = population(space, 40)
    archs = [space.to_string(row(drawn, i)) for i in range(40)]
    known = whole.score(archs[:10]).to_pylist()

    last = shutil.ignore_patterns(str(config.train.steps))
    workdir = shutil.copytree(whole.workdir, tmp_path / "run", ignore=last)
    chunk = dataclasses.replace(config, execution=ExecutionConfig(chunk=3))
    other = Run(workdir, chunk)
    other.parts = parts_on(2, chunk, other.dataset)
    assert_close(other.train(), whole.phi, atol=1e-7)
    text = (workdir / "metrics.jsonl").read_text()
    steps = [json.loads(line)["step"] for line in text.splitlines()]
    assert steps == [2, 4, 6, 8, 8]

    found = other.score(archs).to_pylist()
    expected = whole.score(archs).to_pylist()
    assert [r["id"] for r in found] == [r["id"] for r in expected]
    assert found[:10] == known
    np.testing.assert_allclose(
        [r["loss"] for r in found], [r["loss"] for r in expected], rtol=1e-4
    )
    assert Run(workdir).parts.chunk == 3


def test_retraining_does_not_depend_on_company(dataset):
    images, valid = images_of(dataset), validation(dataset)

    def retrain(devices, archs, ids):
        parts = parts_on(devices, TINY, dataset)
        return FromScratch(parts, images, valid, valid)(archs, ids)

    archs = population(family("memory_bank")[0], 2)
    ids = np.array([5, 9], np.uint64) << np.uint64(40)
    together = retrain(2, archs, ids)
    for i in range(2):
        part = slice(i, i + 1)
        alone = retrain(1, row(archs, part), ids[part])
        assert alone is not None and together is not None
        assert alone.valid.loss[0] == together.valid.loss[i]


@pytest.mark.parametrize("calls", [1, 3, 4])
def test_a_signal_leaves_the_candidate_under_way(dataset, monkeypatch, calls):
    """While it is trained, and while it is scored."""
    images, valid = images_of(dataset), validation(dataset)
    left = iter(range(calls))
    monkeypatch.setattr(interrupt, "pending", lambda: next(left, None) is None)
    archs = population(family("memory_bank")[0], 1)
    steps = []
    train = FromScratch(parts_on(1, TINY, dataset), images, valid, valid)
    assert train(archs, np.array([5], np.uint64), steps.append) is None
    assert sum(steps) <= TINY.retrain.train.steps
    assert next(left, None) is None


def test_at_least_ten_batches(dataset):
    few = Split(*(v[:15] for v in dataset.valid))
    moments = dataset.mean_C, dataset.std_C
    assert make_batches(dataset.test, *moments, 64).y_TxB.shape == (10, 36)
    with pytest.raises(UserError, match=r"data\.valid"):
        make_batches(few, *moments, 64)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 50.0])
def test_divergence_stops(loss):
    with pytest.raises(UserError, match="diverged before step 7"):
        check_progress(loss, 7, np.log(10))
    check_progress(2.3, 7, np.log(10))


def test_mesh_takes_all_devices():
    assert make_mesh().shape == {ARCH: 4, DATA: 1}


def paced(rate: float, least=1, most=1 << 30) -> list[int]:
    """The sizes of twenty pieces, of a machine that does so many units a second."""
    pace = Pace(2.0, least, most)
    numbers = []
    for _ in range(20):
        numbers.append(pace.number)
        pace.took(pace.number, pace.number / rate)
    return numbers


def test_a_piece_lasts_as_long_as_it_should():
    numbers = paced(rate=100)
    assert numbers[:5] == [1, 4, 16, 64, 200] and set(numbers[4:]) == {200}
    assert all(b <= GROWTH * a for a, b in pairwise(paced(1e6)))
    assert set(paced(0.01)) == {1}
    assert set(paced(0.01, least=8)) == {8}
    assert max(paced(1e6, most=50)) == 50


def test_the_rest_of_the_work_does_not_make_pieces_small():
    pace = Pace(2.0)
    for number in (1, 4, 16):
        pace.took(number, number / 100)
    assert pace.number == 64
    pace.took(3, 0.03)
    assert pace.number == 200
    # A machine that became slow is followed at once.
    pace.took(200, 40.0)
    assert pace.number == 10


@pytest.mark.parametrize(("images", "expected"), [(0, 24), (20, 20), (99, 24)])
def test_images_that_candidates_are_scored_on(dataset, images, expected):
    """Drawn class by class from those held out, and the same in every program."""
    score = dataclasses.replace(TINY.score, images=images)
    config = dataclasses.replace(TINY, score=score)
    parts = parts_on(1, config, dataset)
    held = dataset.valid.take(np.arange(24))
    first, second = (
        scorers.scored_on(parts, dataset._replace(valid=held))
        for _ in range(2)
    )
    assert first.size == expected
    assert_same(tuple(first), tuple(second))
    counts = np.bincount(first.y_N, minlength=10)
    assert (counts > 0).sum() == len(set(held.y_N.tolist()))


@pytest.mark.parametrize(("images", "expected"), [(0, 24), (5, 20), (9, 24)])
def test_images_that_trained_candidates_are_validated_on(
    dataset, images, expected
):
    score = dataclasses.replace(TINY.score, images=images, batch=2)
    config = dataclasses.replace(TINY, score=score)
    held = dataset._replace(valid=dataset.valid.take(np.arange(24)))
    made = scorers.make_from_scratch(parts_on(1, config, dataset), held)
    assert made._valid.y_TxB.size == expected
