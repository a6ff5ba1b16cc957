"""Exported networks compute what targets compute, from Flax alone and fewer numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import population, row

from jaxhypernas.families import FAMILIES
from jaxhypernas.generators.standalone import standalone
from jaxhypernas.programs import networks
from jaxhypernas.types import UserError

IMAGE = 8, 8, 3
CLASSES = 5

pytestmark = pytest.mark.usefixtures("quick_compiler")


@pytest.fixture(autouse=True)
def promotion():
    """Flax mixes types and ranks."""
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


def built(name: str, **sizes):
    config = FAMILIES[name].config(**sizes)
    space, target = FAMILIES[name].build(config, IMAGE, CLASSES)
    generator = standalone(target.weight_spec, target.nodes)
    theta = generator.init(jax.random.key(0))
    return space, target, {**theta, "bias": jnp.arange(1.0 * CLASSES)}


SIZES = {
    "memory_bank": {},
    # Narrow vertices, whose variance is near 0, make rounding large.
    "nasbench101": {"channels": 16},
    "nasbench201": {"channels": 4, "cells": 2},
    "ghn": {"channels": 4, "cells": 2},
    "pnas": {"channels": 4, "cells": 2},
    "one_shot": {"channels": 4, "cells": 2},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_module_gives_the_logits_of_its_target(name):
    space, target, theta = built(name, **SIZES[name])
    x = jax.random.normal(jax.random.key(1), (12, *IMAGE))
    assert target.module is not None
    canonical = jax.jit(jax.vmap(space.canonical))
    archs = jax.device_get(canonical(population(space, 2, seed=5)))
    apply = jax.jit(target.apply)
    whole = sum(leaf.size for leaf in jax.tree.leaves(target.weight_spec))
    for i in range(2):
        arch = row(archs, i)
        module = target.module(arch, jax.device_get(theta))
        network = networks.build(module)
        network.train()
        np.testing.assert_allclose(
            network(x), apply(theta, arch, x), rtol=0, atol=2e-4
        )
        size = sum(w.size for w in module.weights.values())
        assert size < whole


@pytest.mark.parametrize("name", FAMILIES)
def test_every_form_can_be_exported(name):
    _, target, _ = built(name, **SIZES[name])
    for form in target.forms.values():
        assert form.module is not None


def test_source_is_short_and_needs_flax_alone():
    space, target, theta = built("nasbench201", channels=4, cells=1)
    arch = space.from_string(
        "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|"
    )
    assert target.module is not None
    source = networks.source(target.module(arch, jax.device_get(theta)))
    assert "jaxhypernas" not in source
    assert max(map(len, source.splitlines())) <= 88
    lines = [line.strip() for line in source.splitlines()]
    assert "s1 = self.node0(s0)" in lines and "s2 = s1" in lines
    assert "s3 = average_pool_3x3(s2)" in lines


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nasbench201", "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"),
    ],
)
def test_a_network_without_a_path_is_refused(name, text):
    space, target, theta = built(name)
    assert target.module is not None
    with pytest.raises(UserError, match="no path leads"):
        target.module(space.from_string(text), jax.device_get(theta))


def test_running_statistics_are_means_over_batches():
    """One image then gets the same logits alone and in any batch."""
    space, target, theta = built("pnas", channels=4, cells=1)
    arch = jax.tree.map(lambda v: v[0], population(space, 1, seed=3))
    assert target.module is not None
    network = networks.build(target.module(arch, jax.device_get(theta)))
    x_TxB = jax.random.normal(jax.random.key(1), (6, 16, *IMAGE)) + 2
    networks.calibrate(network, x_TxB)

    first = x_TxB.reshape(-1, *IMAGE)
    convolved = network.stem.conv(first)
    np.testing.assert_allclose(
        network.stem.norm.mean[...], convolved.mean((0, 1, 2)), atol=1e-4
    )
    alone = [network(first[i : i + 1])[0] for i in range(5)]
    np.testing.assert_allclose(network(first)[:5], alone, atol=1e-4)
    network.train()
    assert isinstance(network, nnx.Module)
    assert not np.allclose(network(first[:5]), alone, atol=1e-2)
