"""Every generator drives every space: weights, a training step, scores. One test per pair, as compiling takes long."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY

from jaxhypernas.execution.candidates import bind, mean_candidates
from jaxhypernas.execution.mesh import ARCH, DATA
from jaxhypernas.generators import GENERATORS
from jaxhypernas.programs.scoring import Batches, make_score, score_one
from jaxhypernas.programs.training import (
    Images,
    init_state,
    make_optimizer,
    make_run,
)
from jaxhypernas.spaces import SPACES
from jaxhypernas.targets import TARGETS

IMAGE, CLASSES = (8, 8, 1), 10
CONFIG = dataclasses.replace(
    TINY.train, steps=2, batch=8, architectures=2, every=1, weight_decay=1e-2
)


pytestmark = pytest.mark.usefixtures("quick_compiler")


def images():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 256, (16, *IMAGE)), jnp.uint8)
    return Images(
        x,
        jnp.arange(16, dtype=jnp.int32) % CLASSES,
        jnp.full(1, 127.0),
        jnp.full(1, 74.0),
    )


def assert_shapes(generator, space, target):
    phi = jax.eval_shape(generator.init, jax.random.key(0))
    arch = jax.eval_shape(space.sample, jax.random.key(0), 1.0)
    theta = jax.eval_shape(generator.generate, phi, arch)

    def check(
        w, spec, ids
    ):  # what is shared by all nodes may say so by an axis of 1
        one = (1,) * ids.ndim + spec.shape[ids.ndim :]
        assert w.shape in (spec.shape, one) and w.dtype == spec.dtype

    jax.tree.map(check, theta, target.weight_spec, target.nodes)
    assert jax.tree.structure(generator.decay(phi)) == jax.tree.structure(phi)


@pytest.mark.parametrize("generator_name", GENERATORS)
@pytest.mark.parametrize("space_name", SPACES)
def test_pair(space_name, generator_name):
    space, target = (
        SPACES[space_name](TINY, IMAGE, CLASSES),
        TARGETS[space_name](TINY, IMAGE, CLASSES),
    )
    generator = GENERATORS[generator_name](TINY, space, target)
    assert_shapes(generator, space, target)
    if generator_name == "standalone":  # the same program as shared's
        shared = GENERATORS["shared"](TINY, space, target)
        a, b = (
            str(jax.make_jaxpr(g.init)(jax.random.key(3)))
            for g in (generator, shared)
        )
        assert a == b and generator.generate(shared, None) is shared
        return

    optimizer = make_optimizer(CONFIG)

    def sample(key, progress):
        return jax.vmap(lambda k: space.sample(k, progress))(
            jax.random.split(key, CONFIG.architectures)
        )

    def mean(f, replicated, population):
        return mean_candidates(partial(f, replicated), population, 1)

    logits = bind(target, generator)
    run = jax.jit(
        make_run(
            CONFIG,
            TINY.data,
            logits,
            generator.decay,
            optimizer,
            sample,
            mean,
            1,
        )
    )
    start = jax.jit(partial(init_state, generator, optimizer))(
        jax.random.key(1)
    )
    state, loss = run(start, images(), jnp.int32(1))
    assert np.isfinite(loss) and int(state.step) == 1
    changed = jax.tree.map(
        lambda a, b: bool((a != b).any()), start.phi, state.phi
    )
    assert np.mean(jax.tree.leaves(changed)) > 0.5
    assert all(np.isfinite(w).all() for w in jax.tree.leaves(state.phi))

    types = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh(
        (1, 1), (ARCH, DATA), axis_types=types, devices=jax.devices()[:1]
    )
    x = jax.random.normal(jax.random.key(2), (2, 8, *IMAGE))
    batches = Batches(
        x, jnp.arange(16, dtype=jnp.int32).reshape(2, 8) % CLASSES
    )
    population = jax.jit(jax.vmap(lambda k: space.sample(k, 1.0)))(
        jax.random.split(jax.random.key(4), 3)
    )
    scores = make_score(partial(score_one, target, generator), mesh, 1)(
        (state.phi, batches), population
    )
    assert scores.loss.shape == scores.accuracy.shape == (3,)
    assert np.isfinite(scores.loss).all() and (scores.loss < 100).all()
    assert ((scores.accuracy >= 0) & (scores.accuracy <= 1)).all()
    assert len(set(scores.loss.tolist())) == 3
