"""How candidates run changes nothing, mid-run too: chunks, order, devices; a mean over a mesh equals one without."""

import dataclasses
import json
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY

from jaxhypernas.data import dataset as data
from jaxhypernas.execution import compilations
from jaxhypernas.execution.candidates import (
    ExecutionConfig,
    bind,
    deal,
    map_candidates,
    mean_candidates,
    mean_over_mesh,
)
from jaxhypernas.execution.mesh import ARCH, DATA, make_mesh
from jaxhypernas.generators import GENERATORS
from jaxhypernas.programs.scoring import make_batches, make_score, score_one
from jaxhypernas.programs.training import (
    Images,
    check_progress,
    init_state,
    make_optimizer,
    make_run,
)
from jaxhypernas.programs.truth import make_retrain
from jaxhypernas.run import Run
from jaxhypernas.spaces import SPACES
from jaxhypernas.targets import TARGETS
from jaxhypernas.types import UserError

pytestmark = pytest.mark.usefixtures("quick_compiler")


@pytest.fixture(scope="module")
def dataset():
    return data.load(TINY.data, 0)


def parts(dataset, generator="smash", space="memory_bank"):
    space_ = SPACES[space](TINY, dataset.image, dataset.classes)
    target = TARGETS[space](TINY, dataset.image, dataset.classes)
    return space_, target, GENERATORS[generator](TINY, space_, target)


def population(space, number, seed=0):
    keys = jax.random.split(jax.random.key(seed), number)
    return jax.tree.map(
        np.asarray, jax.jit(jax.vmap(lambda k: space.sample(k, 1.0)))(keys)
    )


def mesh_of(devices):
    types = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh(
        (devices, 1),
        (ARCH, DATA),
        axis_types=types,
        devices=jax.devices()[:devices],
    )


@pytest.fixture(scope="module")
def scored(dataset):
    space, target, generator = parts(dataset)
    phi = generator.init(jax.random.key(1))
    batches = make_batches(dataset.valid, dataset.mean_C, dataset.std_C, 8)
    archs = population(space, 7)

    def score(devices, chunk, archs=archs):
        one = partial(score_one, target, generator)
        return make_score(one, mesh_of(devices), chunk)((phi, batches), archs)

    return score, archs, score(1, 1)


@pytest.mark.parametrize("devices", [2, 4])
def test_scores_do_not_depend_on_device_count(scored, devices):
    score, _, expected = scored
    result = score(devices, 1)
    np.testing.assert_array_equal(result.loss, expected.loss)
    np.testing.assert_array_equal(result.accuracy, expected.accuracy)


def test_scores_do_not_depend_on_chunk(scored):
    score, _, expected = scored
    np.testing.assert_allclose(score(2, 3).loss, expected.loss, rtol=2e-5)


def test_scores_do_not_depend_on_order_or_company(scored):
    score, archs, expected = scored
    order = np.array([6, 2, 2, 0, 5])
    result = score(1, 1, jax.tree.map(lambda x: x[order], archs))
    np.testing.assert_array_equal(result.loss, expected.loss[order])


@pytest.mark.parametrize(("devices", "chunk"), [(1, 1), (4, 3)])
def test_calls_of_any_size_are_one_program(devices, chunk):

    def one(replicated, arch):
        return {"sum": replicated + arch["a"].sum(), "b": arch["b"]}

    score, before = (
        make_score(one, mesh_of(devices), chunk, lambda archs: archs["b"]),
        compilations.total(),
    )
    rng = np.random.default_rng(0)
    for A in (1, 3, 4, 64, 65, 300, 1000):
        archs = {
            "a": rng.integers(0, 9, (A, 5), np.int32),
            "b": rng.integers(0, 9, A, np.int32),
        }
        result = score(np.int32(7), archs)
        np.testing.assert_array_equal(result["sum"], 7 + archs["a"].sum(1))
        np.testing.assert_array_equal(result["b"], archs["b"])
    assert compilations.total() - before == 1


@pytest.mark.parametrize("hands", [1, 2, 3, 8])
@pytest.mark.parametrize("number", [1, 7, 64])
def test_devices_get_the_same_work(number, hands):
    work = np.random.default_rng(number).exponential(size=number)
    shares = deal(work, hands)
    assert sorted(np.concatenate(shares)) == list(range(number))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    loads = [work[share].sum() for share in shares]
    assert max(loads) - min(loads) <= work.max()


def test_architectures_differ_in_score(scored):
    assert len(set(scored[2].loss.tolist())) == 7


def test_chunk_one_branches(dataset):
    """A chunk of one keeps real conditionals; vmap turns them into selects that compute every branch."""
    space, target, generator = parts(dataset)
    phi, archs = generator.init(jax.random.key(1)), population(space, 4)
    x = jnp.zeros((4, *dataset.image))
    logits = bind(target, generator)

    def conditionals(chunk):
        f = lambda archs: map_candidates(
            lambda a: logits(phi, a, x), archs, chunk
        )  # noqa: E731
        return str(jax.make_jaxpr(f)(archs)).count(" cond[")

    # What is left under vmap chooses the platform's convolution, not an op.
    assert conditionals(1) >= conditionals(2) + 12


def test_mean_over_mesh_equals_mean(dataset):
    space, target, generator = parts(dataset)
    phi, archs = generator.init(jax.random.key(1)), population(space, 4)
    x = jnp.asarray(
        data.normalise(
            dataset.train.x_NxHxWxC[:8], dataset.mean_C, dataset.std_C
        )
    )
    loss = lambda phi, arch: jnp.square(
        bind(target, generator)(phi, arch, x)
    ).mean()  # noqa: E731
    grad = jax.value_and_grad(loss)
    alone = jax.jit(
        lambda phi, archs: mean_candidates(partial(grad, phi), archs, 1)
    )(phi, archs)
    by_hand = [
        jax.jit(grad)(phi, jax.tree.map(lambda v, i=i: v[i], archs))
        for i in range(4)
    ]
    mesh = mesh_of(2)
    split = jax.jit(
        mean_over_mesh(
            mesh,
            lambda phi, archs: mean_candidates(partial(grad, phi), archs, 1),
        )
    )(phi, archs)
    loop = jax.tree.map(lambda *g: sum(g) / 4, *by_hand)
    for a, b, c in zip(
        *map(jax.tree.leaves, (alone, split, loop)), strict=True
    ):
        np.testing.assert_allclose(a, c, atol=2e-6 + 1e-4 * np.abs(c).max())
        np.testing.assert_allclose(b, c, atol=2e-6 + 1e-4 * np.abs(c).max())


def train(dataset, generator, cuts, mean=None, steps=6):
    space, target, generator = parts(dataset, generator)
    config = dataclasses.replace(TINY.train, steps=steps)
    optimizer = make_optimizer(config)

    def sample(key, progress):
        return jax.vmap(lambda k: space.sample(k, progress))(
            jax.random.split(key, config.architectures)
        )

    mean = mean or (
        lambda f, batch, archs: mean_candidates(partial(f, batch), archs, 1)
    )
    logits = bind(target, generator)
    run = jax.jit(
        make_run(
            config,
            TINY.data,
            logits,
            generator.decay,
            optimizer,
            sample,
            mean,
            steps,
        )
    )
    images = Images(
        dataset.train.x_NxHxWxC,
        dataset.train.y_N,
        dataset.mean_C,
        dataset.std_C,
    )
    images = jax.tree.map(jnp.asarray, images)
    state, losses = init_state(generator, optimizer, jax.random.key(0)), []
    for steps in cuts:
        state, loss = run(state, images, jnp.int32(steps))
        losses.append(float(loss))
    return state, losses


@pytest.mark.parametrize("generator", GENERATORS)
def test_every_generator_trains_and_a_cut_changes_nothing(dataset, generator):
    whole, losses = train(dataset, generator, [6])
    cut, _ = train(dataset, generator, [2, 1, 3])
    assert int(whole.step) == 6 and np.isfinite(losses[0])
    for a, b in zip(
        jax.tree.leaves(whole.phi), jax.tree.leaves(cut.phi), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_a_run_goes_on_with_other_devices_and_another_chunk(tmp_path):
    """On two devices, side by side, what four had begun one at a time: the same to rounding."""
    whole = Run(
        tmp_path / "whole",
        dataclasses.replace(TINY, space="nasbench201", generator="shared"),
    )
    whole.train()
    archs = whole.sample(40, jax.random.key(0))
    known = whole.score(jax.tree.map(lambda x: x[:10], archs))
    last = shutil.ignore_patterns(str(whole.config.train.steps))
    workdir = shutil.copytree(whole.workdir, tmp_path / "run", ignore=last)
    other = Run(
        workdir,
        dataclasses.replace(whole.config, execution=ExecutionConfig(chunk=3)),
    )
    other.mesh = other.local_mesh = mesh_of(2)
    for a, b in zip(
        jax.tree.leaves(other.train().phi),
        jax.tree.leaves(whole.phi),
        strict=True,
    ):
        np.testing.assert_allclose(
            a, b, rtol=0, atol=1e-4 * np.abs(b).max() + 1e-7
        )
    lines = map(
        json.loads, (workdir / "metrics.jsonl").read_text().splitlines()
    )
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 8]
    found, expected = other.score(archs), whole.score(archs)
    assert [row["id"] for row in found] == [
        row["id"] for row in expected
    ] and found[:10] == known
    np.testing.assert_allclose(
        [row["loss"] for row in found],
        [row["loss"] for row in expected],
        rtol=1e-4,
    )
    assert Run(workdir).chunk == 3


def test_training_learns(dataset):
    _, losses = train(dataset, "standalone", [100] * 3, steps=300)
    assert losses[-1] < losses[0] - 0.2


def test_retraining_does_not_depend_on_company(dataset):
    space, target, _ = parts(dataset)
    images = jax.tree.map(
        jnp.asarray,
        Images(
            dataset.train.x_NxHxWxC,
            dataset.train.y_N,
            dataset.mean_C,
            dataset.std_C,
        ),
    )
    batches = make_batches(dataset.valid, dataset.mean_C, dataset.std_C, 8)
    archs, seeds = population(space, 2), np.array([5, 9], np.int32)
    config = TINY.retrain.train
    both = make_retrain(config, TINY.data, target, mesh_of(2))
    alone = make_retrain(config, TINY.data, target, mesh_of(1))
    key = jax.random.key(0)
    together, _ = both(key, images, batches, batches, archs, seeds)
    for i in range(2):
        one, _ = alone(
            key,
            images,
            batches,
            batches,
            jax.tree.map(lambda x, i=i: x[i : i + 1], archs),
            seeds[i : i + 1],
        )
        np.testing.assert_array_equal(one.loss[0], together.loss[i])


def test_at_least_ten_batches(dataset):
    batches = make_batches(dataset.test, dataset.mean_C, dataset.std_C, 64)
    assert batches.y_TxB.shape == (10, 36)
    with pytest.raises(UserError, match=r"data\.valid"):
        make_batches(
            data.Split(*(v[:15] for v in dataset.valid)),
            dataset.mean_C,
            dataset.std_C,
            64,
        )


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 50.0])
def test_divergence_stops(loss):
    with pytest.raises(UserError, match="diverged before step 7"):
        check_progress(loss, 7, 10)
    check_progress(2.3, 7, 10)


def test_mesh_takes_all_devices():
    assert make_mesh().shape == {ARCH: 4, DATA: 1}
