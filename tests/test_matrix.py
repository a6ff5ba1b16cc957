"""Every generator drives every space: weights, a training step, scores.

One test per pair, as compiling takes long.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import mesh_of, population
from tiny import TINY, family, generator

from jaxhypernas.data.batches import Batches, Images
from jaxhypernas.execution.candidates import bind, mean_candidates
from jaxhypernas.families import FAMILIES
from jaxhypernas.generators import GENERATORS
from jaxhypernas.programs.scoring import make_score
from jaxhypernas.programs.steps import init_state, make_optimizer, make_steps

IMAGE, CLASSES = (8, 8, 1), 10
CONFIG = dataclasses.replace(
    TINY.train, steps=2, batch=8, architectures=2, every=1, weight_decay=1e-2
)

pytestmark = pytest.mark.usefixtures("quick_compiler")


def images():
    rng = np.random.default_rng(0)
    return Images(
        jnp.asarray(rng.integers(0, 256, (16, *IMAGE)), jnp.uint8),
        jnp.arange(16, dtype=jnp.int32) % CLASSES,
        jnp.full(1, 127.0),
        jnp.full(1, 74.0),
    )


def assert_shapes(generator, space, target):
    phi = jax.eval_shape(generator.init, jax.random.key(0))
    arch = jax.eval_shape(space.sample, jax.random.key(0), 1.0)
    theta = jax.eval_shape(generator.generate, phi, arch)

    def check(w, spec, ids):
        # A weight that all nodes share may say so by axes of size 1.
        shared = (1,) * ids.ndim + spec.shape[ids.ndim :]
        assert w.shape in (spec.shape, shared) and w.dtype == spec.dtype

    jax.tree.map(check, theta, target.weight_spec, target.nodes)
    decay = generator.decay(phi)
    assert jax.tree.structure(decay) == jax.tree.structure(phi)


def train_one_step(space, target, generator):
    """States before and after a step, and the loss."""

    def sample(key, progress):
        keys = jax.random.split(key, CONFIG.architectures)
        return jax.vmap(lambda k: space.sample(k, progress))(keys)

    def mean(f, replicated, population):
        return mean_candidates(partial(f, replicated), population, 1)

    run = make_steps(
        CONFIG,
        TINY.data,
        bind(target, generator),
        generator.decay,
        sample,
        mean,
        1,
    )
    begin = partial(
        init_state, generator, make_optimizer(CONFIG, CONFIG.steps)
    )
    start = jax.jit(begin)(jax.random.key(1))
    state, loss = jax.jit(run)(start, images(), jnp.int32(1), jnp.int32(2))
    return start, state, loss


@pytest.mark.parametrize("generator_name", GENERATORS)
@pytest.mark.parametrize("space_name", FAMILIES)
def test_pair(space_name, generator_name):
    space, target = family(space_name)
    own = generator(generator_name, space, target)
    assert_shapes(own, space, target)
    if not own.trained:
        # The same program as that of shared weights.
        shared = generator("shared", space, target)
        programs = [
            str(jax.make_jaxpr(g.init)(jax.random.key(3)))
            for g in (own, shared)
        ]
        assert programs[0] == programs[1]
        assert own.generate(shared, None) is shared
        return

    start, state, loss = train_one_step(space, target, own)
    assert np.isfinite(loss) and int(state.step) == 1
    changed = jax.tree.map(
        lambda a, b: bool((a != b).any()), start.phi, state.phi
    )
    assert np.mean(jax.tree.leaves(changed)) > 0.5
    assert all(np.isfinite(w).all() for w in jax.tree.leaves(state.phi))

    labels = jnp.arange(16, dtype=jnp.int32).reshape(2, 8) % CLASSES
    x = jax.random.normal(jax.random.key(2), (2, 8, *IMAGE))
    score = make_score(target, own, mesh_of(1), 1)
    archs = population(space, 3, seed=4)
    scores = score((state.phi, Batches(x, labels)), archs, np.zeros(3))
    assert scores.loss.shape == scores.accuracy.shape == (3,)
    assert np.isfinite(scores.loss).all() and (scores.loss < 100).all()
    assert ((scores.accuracy >= 0) & (scores.accuracy <= 1)).all()
    assert len(set(scores.loss.tolist())) == 3
