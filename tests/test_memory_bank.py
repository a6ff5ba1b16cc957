"""The memory-bank space, its target and SMASH's generator.

They are tested against a plain network that is built from each architecture's string.
"""

import re
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_memory_bank as ref
from flax import nnx
from helpers import row, same, stack

from jaxhypernas.archs.memory_bank import OP_SETS
from jaxhypernas.archs.sizes import MemoryBankConfig
from jaxhypernas.families import FAMILIES
from jaxhypernas.generators.configs import SmashConfig
from jaxhypernas.generators.memory_bank_encoding import memory_bank_encoding
from jaxhypernas.generators.smash import smash
from jaxhypernas.generators.standalone import standalone
from jaxhypernas.spaces.memory_bank import NODE_OPS, block_sizes, memory_bank
from jaxhypernas.spaces.memory_bank_sampling import (
    MUTATION_RATE,
    OP_SET_PROBABILITIES,
)
from jaxhypernas.spaces.memory_bank_text import check
from jaxhypernas.targets.memory_bank import memory_bank as memory_bank_target
from jaxhypernas.types import UserError

pytestmark = pytest.mark.usefixtures("quick_compiler")

SMALL = MemoryBankConfig(stem_stride=1)
PUBLISHED = MemoryBankConfig(
    unit=8,
    units=8,
    depth=12,
    widening=4,
    bottleneck=4,
    max_bottleneck=2,
    compression=2,
    max_kernel=7,
    max_dilation=3,
    max_groups=8,
    stem_kernel=7,
    stem_stride=1,
    slots=48,
)
MID = replace(PUBLISHED, unit=4, units=4, depth=3, widening=2, slots=16)
# Every setting off its usual value: banks that do not divide positions, a strided
# stem, positions of three units.
ODD = replace(
    PUBLISHED,
    unit=6,
    units=5,
    depth=2,
    widening=3,
    bottleneck=3,
    max_bottleneck=2,
    compression=3,
    max_kernel=5,
    max_groups=3,
    stem_kernel=5,
    stem_stride=2,
    slots=7,
)
CASES = {
    "small": (SMALL, (8, 8, 3)),
    "mid": (MID, (9, 11, 3)),
    "odd": (ODD, (18, 16, 1)),
}
CASES_AND_PUBLISHED = {**CASES, "published": (PUBLISHED, (32, 32, 3))}
CLASSES = 5
BATCH = 6
# Networks of a case that are sampled, and as many that are mutated.
NUMBER = 12
# Networks that one call of a compiled sampler draws.
DRAWN = 80


def random_theta(target, seed):
    """Weights whose biases aren't 0."""
    theta = standalone(target.weight_spec, target.nodes).init(
        jax.random.key(seed)
    )
    return {
        **theta,
        "bias": jax.random.normal(
            jax.random.key(seed + 1), theta["bias"].shape
        ),
    }


def close(a, b):
    np.testing.assert_allclose(
        a, b, rtol=1e-4, atol=1e-4 * float(np.abs(b).max())
    )


@cache
def samplers(name):
    """Compiled once (the slow part): sampling and mutation of DRAWN networks."""
    space = memory_bank(*CASES_AND_PUBLISHED[name], CLASSES)
    return jax.jit(jax.vmap(space.sample)), jax.jit(jax.vmap(space.mutate))


def draw(name, seed, progress=1.0):
    keys = jax.random.split(jax.random.key(seed), DRAWN)
    return jax.tree.map(
        np.asarray,
        samplers(name)[0](keys, np.full(DRAWN, progress, np.float32)),
    )


def mutate(name, seed, archs):
    return jax.tree.map(
        np.asarray,
        samplers(name)[1](
            jax.random.split(jax.random.key(seed), DRAWN), archs
        ),
    )


@pytest.fixture(scope="module", params=list(CASES))
def case(request):
    """A space, its target, 12 sampled and 12 mutated networks (NumPy) with strings."""
    config, image = CASES[request.param]
    space, target = FAMILIES["memory_bank"].build(config, image, CLASSES)
    parts = [
        draw(request.param, seed, progress)
        for seed, progress in ((10, 0.0), (11, 0.3), (0, 1.0))
    ]
    sampled = jax.tree.map(
        lambda *x: np.concatenate(x),
        *(row(part, slice(20, 24)) for part in parts),
    )
    every = mutate(request.param, 2, mutate(request.param, 1, parts[2]))
    mutated = row(every, slice(30, 30 + NUMBER))
    archs = jax.tree.map(lambda a, b: np.concatenate([a, b]), sampled, mutated)
    apply = jax.jit(target.apply)
    theta, x = (
        random_theta(target, 3),
        jax.random.normal(jax.random.key(5), (BATCH, *image)),
    )
    return SimpleNamespace(
        name=request.param,
        config=config,
        image=image,
        space=space,
        target=target,
        archs=archs,
        texts=[space.to_string(row(archs, i)) for i in range(2 * NUMBER)],
        theta=theta,
        np_theta=jax.tree.map(np.asarray, theta),
        x=x,
        apply=apply,
        logits=[
            np.asarray(apply(theta, row(archs, i), x))
            for i in range(2 * NUMBER)
        ],
    )


def skip_third_size(case):
    if case.name == "odd":
        pytest.skip("two sizes are enough where compiling takes long")


def reference(case, text, theta=None):
    return ref.Reference(
        case.config,
        case.image,
        case.np_theta if theta is None else theta,
        text,
    )


# The reference itself


@pytest.mark.parametrize(
    ("kernel", "dilation", "groups", "stride"),
    [
        ((3, 3), (1, 1), 1, 1),
        ((3, 7), (3, 1), 2, 1),
        ((7, 5), (1, 2), 4, 1),
        ((5, 3), (2, 3), 8, 1),
        ((5, 5), (1, 1), 1, 2),
        ((3, 3), (1, 1), 1, 3),
    ],
)
def test_reference_convolution_is_flax(kernel, dilation, groups, stride):
    conv = nnx.Conv(
        8,
        16,
        kernel,
        stride,
        padding=[
            (k // 2 * d,) * 2 for k, d in zip(kernel, dilation, strict=True)
        ],
        kernel_dilation=dilation,
        feature_group_count=groups,
        use_bias=False,
        rngs=nnx.Rngs(0),
    )
    x = np.random.default_rng(0).normal(size=(2, 9, 10, 8)).astype(np.float32)
    ours = ref.conv2d(
        x.astype(np.float64),
        np.asarray(conv.kernel[...], np.float64),
        stride,
        dilation,
        groups,
    )
    np.testing.assert_allclose(
        ours, conv(jnp.asarray(x)), rtol=1e-4, atol=1e-4
    )


def legal_banks(config):
    """Sizes that leave enough banks to read whole positions in some block."""
    needed = {
        n: 1 if n % config.compression == 0 else config.compression
        for n in range(1, config.units + 1)
    }
    return {
        n for n, banks in needed.items() if max(config.in_units) // n >= banks
    }


def test_the_networks_are_varied(case):
    """Otherwise the tests below would pass on little."""
    assert len(set(case.texts)) == 2 * NUMBER
    blocks = [block for text in case.texts for block in ref.parse(text)]
    ops = [op for block in blocks for op in block.ops]
    assert {op.kind for op in ops} == set(ref.OP_KINDS)
    assert {block.bank for block in blocks} == legal_banks(case.config)
    convs = [conv for op in ops for conv in op.convs.values()]
    assert {k for conv in convs for k in conv.kernel} == set(
        range(3, case.config.max_kernel + 1, 2)
    )
    assert {conv.groups for conv in convs} == set(case.config.group_choices)
    assert any(conv.kernel[0] != conv.kernel[1] for conv in convs)
    assert {d for conv in convs for d in conv.dilation} >= {1, 2}
    assert any(
        len(op.writes) * block.bank > op.width
        for block in blocks
        for op in block.ops
    )
    logits = np.stack(case.logits)
    assert np.isfinite(logits).all() and logits.std(0).min() > 1e-3


# Target against reference


def test_logits_are_the_references(case):
    for text, logits in zip(case.texts, case.logits, strict=True):
        close(logits, reference(case, text).logits(case.x))


def test_vmap_over_candidates_is_the_loop(case):
    skip_third_size(case)
    x, some = case.x[:3], slice(8, 12)
    thetas = [random_theta(case.target, 10 + 2 * i) for i in range(4)]
    batched = jax.jit(jax.vmap(case.target.apply, (0, 0, None)))(
        stack(thetas), row(case.archs, some), x
    )
    for theta, text, logits in zip(
        thetas, case.texts[some], batched, strict=True
    ):
        close(
            np.asarray(logits),
            reference(case, text, jax.tree.map(np.asarray, theta)).logits(x),
        )


def test_more_slots_change_nothing(case):
    skip_third_size(case)
    wide = replace(case.config, slots=case.config.slots + 5)
    space, target = FAMILIES["memory_bank"].build(wide, case.image, CLASSES)
    # Weights of empty slots are arbitrary.
    other = random_theta(target, 30)
    theta = {
        **case.theta,
        "conv": jax.tree.map(
            lambda w, o: jnp.concatenate([w, o[-5:]]),
            case.theta["conv"],
            other["conv"],
        ),
    }
    apply = jax.jit(target.apply)
    for i in range(0, 2 * NUMBER, 4):
        arch = space.from_string(case.texts[i])
        close(np.asarray(apply(theta, arch, case.x)), case.logits[i])
        assert space.cost(arch) == case.space.cost(row(case.archs, i))


def test_inactive_settings_and_string_round_trip_keep_logits(case):
    """Settings that are not in the string have no effect."""
    for i in (3, 9, 20):
        arch = case.space.from_string(case.texts[i])
        np.testing.assert_allclose(
            case.apply(case.theta, arch, case.x),
            case.logits[i],
            rtol=1e-5,
            atol=1e-5,
        )


def test_unused_weights_get_no_gradient(case):
    skip_third_size(case)

    @jax.jit
    def grad(theta, arch):
        return jax.grad(
            lambda theta: jnp.square(
                case.target.apply(theta, arch, case.x)
            ).sum()
        )(theta)

    for i in (1, 11, 17, 22):
        network = reference(case, case.texts[i])
        found = jax.tree.map(np.asarray, grad(case.theta, row(case.archs, i)))
        for g, used in zip(
            jax.tree.leaves(found), jax.tree.leaves(network.used), strict=True
        ):
            assert np.isfinite(g).all()
            assert not g[~used].any()
            # Outer taps see only zeros where images are small: look at the centre.
            if g.ndim == 5:
                middle = g.shape[1] // 2
                g, used = (v[:, middle, middle] for v in (g, used))
            assert not used.any() or (g[used] != 0).mean() > 0.8
        assert (
            sum(int(used.sum()) for used in jax.tree.leaves(network.used))
            == network.counts()[2]
        )


# Counts


def test_costs_are_the_references(case):
    population = case.space.cost(case.archs)
    for i, text in enumerate(case.texts):
        one = case.space.cost(row(case.archs, i))
        assert tuple(int(n) for n in one) == reference(case, text).counts()
        assert (
            tuple(int(field[i]) for field in population)
            == reference(case, text).counts()
        )
    assert all(
        field.shape == (2 * NUMBER,) and field.dtype == np.int64
        for field in population
    )
    assert (population.live_params <= population.params).all() and (
        population.live_flops <= population.flops
    ).all()
    assert (population.live_params < population.params).any()


def test_costs_of_a_grid_of_populations(case):
    grid = jax.tree.map(lambda x: x.reshape(4, 6, *x.shape[1:]), case.archs)
    flat = case.space.cost(case.archs)
    assert all(
        np.array_equal(g.ravel(), f)
        for g, f in zip(case.space.cost(grid), flat, strict=True)
    )


def test_published_sizes():
    config = PUBLISHED
    assert [n * config.unit for n in config.in_units] == [64, 96, 112]
    assert [n * config.unit for n in config.memory_units] == [192, 224, 256]
    assert config.positions == (52, 102, 199)
    assert memory_bank_encoding(config).channels == 143
    assert config.group_choices == (1, 2, 4, 8)
    assert block_sizes(config, (32, 32, 3)) == [(32, 32), (16, 16), (8, 8)]


def test_published_size_network_costs():
    """Large counts, from strings alone; theta of zeros is never multiplied."""
    config, image = CASES_AND_PUBLISHED["published"]
    space = memory_bank(config, image, 100)
    spec = memory_bank_target(replace(config, slots=1), image, 100).weight_spec
    theta = jax.tree.map(
        lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), spec
    )
    archs = draw("published", 40)
    for i in range(4):
        arch = row(archs, i)
        counts = ref.Reference(
            config, image, theta, space.to_string(arch)
        ).counts()
        assert tuple(int(n) for n in space.cost(arch)) == counts


# Sampling and mutation


def assert_valid_and_different(config, space, archs):
    """Also that strings round trip."""
    canonical, texts = jax.jit(space.canonical), []
    for i in range(DRAWN):
        arch = row(archs, i)
        check(config, arch)
        texts.append(space.to_string(arch))
        ref.assert_valid(config, texts[-1])
        if i % 8 == 0:
            again = space.from_string(texts[-1])
            assert space.to_string(again) == texts[-1]
            assert same(canonical(again), canonical(arch))
    assert len(set(texts)) == DRAWN


@pytest.mark.parametrize("name", list(CASES_AND_PUBLISHED))
def test_every_network_is_valid(name):
    """1,920 networks of each small space, and 160 of the published one."""
    config, image = CASES_AND_PUBLISHED[name]
    space = memory_bank(config, image, CLASSES)
    for seed, progress in enumerate(
        (0.0, 1.0) if name == "published" else (0.0, 0.1, 0.25, 0.49, 0.5, 1.0)
    ):
        archs = draw(name, seed, progress)
        assert_valid_and_different(config, space, archs)
        for step in range(0 if name == "published" else 3):
            archs = mutate(name, 100 + step, archs)
            assert_valid_and_different(config, space, archs)


def test_budget_and_kernels_grow_with_progress():
    for progress, most_budget, most_kernel in (
        (0, 0.5, 3),
        (0.25, 0.75, 5),
        (0.5, 1, 7),
        (1, 1, 7),
    ):
        archs = draw("mid", 50, progress)
        reads = archs.read_3xPxM.sum((2, 3)) * archs.bank_3 // MID.compression
        share = reads / np.array(MID.positions)[None]
        assert share.max() <= most_budget and share.max() > most_budget - 0.1
        assert archs.kernel_3xPx4x2.max() == most_kernel


@pytest.fixture(scope="module")
def many():
    """400 networks of the middle space, a mutation of each, and the ops of both."""
    olds = [draw("mid", 60 + i) for i in range(5)]
    news = [mutate("mid", 70 + i, old) for i, old in enumerate(olds)]
    old, new = (
        jax.tree.map(lambda *x: np.concatenate(x), *parts)
        for parts in (olds, news)
    )
    return old, new, (old.width_3xP > 0) & (new.width_3xP > 0)


def test_op_sets_are_drawn_as_published(many):
    drawn = many[0].op_3xP[many[0].width_3xP > 0]
    assert len(drawn) >= 2000
    frequency = np.bincount(drawn, minlength=5) / len(drawn)
    np.testing.assert_allclose(
        frequency,
        [0.05, 0.10, 0.15, 0.25, 0.45],
        atol=4 * np.sqrt(0.25 / len(drawn)),
    )
    np.testing.assert_allclose(
        OP_SET_PROBABILITIES, [0.05, 0.10, 0.15, 0.25, 0.45], rtol=1e-6
    )
    assert ["".join(map(str, row)) for row in OP_SETS] == list(ref.OP_KINDS)


def test_settings_are_drawn_uniformly(many):
    old, exists = many[0], many[0].width_3xP > 0
    kernels, dilations = (
        old.kernel_3xPx4x2[exists],
        old.dilation_3xPx4x2[exists],
    )
    for axis in range(2):
        drawn = kernels[..., axis].ravel()
        np.testing.assert_allclose(
            [(drawn == k).mean() for k in (3, 5, 7)], 1 / 3, atol=0.02
        )
    # Height and width are independent.
    joint = (kernels[..., 0] == kernels[..., 1]).mean()
    assert joint == pytest.approx(1 / 3, abs=0.02)
    for kernel, most in ((3, 3), (5, 2), (7, 1)):
        drawn = dilations[kernels == kernel]
        np.testing.assert_allclose(
            [(drawn == d).mean() for d in range(1, most + 1)],
            1 / most,
            atol=0.02,
        )
        assert drawn.max() == most
    np.testing.assert_allclose(
        [(old.groups_3xPx4[exists] == g).mean() for g in (1, 2, 4)],
        1 / 3,
        atol=0.02,
    )


def test_banks_are_drawn_uniformly(many):
    """Over the sizes that leave enough banks to read: not 3 in block 0."""
    banks = many[0].bank_3
    for b, legal in enumerate(([1, 2, 4], [1, 2, 3, 4], [1, 2, 3, 4])):
        assert set(banks[:, b]) == set(legal)
        np.testing.assert_allclose(
            [(banks[:, b] == n).mean() for n in legal],
            1 / len(legal),
            atol=0.1,
        )


def test_mutation_keeps_elements(many):
    """An element stays with probability 0.95, or is drawn again as it was.

    Some must be repaired.
    """
    old, new, both = many
    assert np.array_equal(old.bank_3, new.bank_3)
    kept = {
        name: (getattr(old, name) == getattr(new, name))
        .reshape(*both.shape, -1)
        .all(-1)[both]
        .mean()
        for name in old._fields[1:]
    }
    keep = 1 - MUTATION_RATE
    assert both.sum() >= 2000 and keep == 0.95
    tolerance = 4 * np.sqrt(0.05 * 0.95 / both.sum())
    p = np.array([0.05, 0.10, 0.15, 0.25, 0.45])
    assert kept["op_3xP"] == pytest.approx(
        keep + 0.05 * (p**2).sum(), abs=tolerance
    )
    assert kept["kernel_3xPx4x2"] == pytest.approx(
        keep + 0.05 / 3**8, abs=tolerance
    )
    assert kept["groups_3xPx4"] == pytest.approx(
        keep + 0.05 / 3**4, abs=tolerance
    )
    # Dilations stay that are not drawn again, and not too large for a new kernel.
    assert 0.90 - tolerance < kept["dilation_3xPx4x2"] < 0.96
    # The likeliest width is drawn again most of the time.
    assert keep - tolerance < kept["width_3xP"] < 1
    assert 0.85 < kept["read_3xPxM"] < 0.97
    assert 0.80 < kept["write_3xPxM"] < 0.97


def test_mutation_adds_no_ops_and_differs(many):
    old, new, _ = many
    assert ((new.width_3xP > 0).sum(-1) <= (old.width_3xP > 0).sum(-1)).all()
    differs = np.zeros(len(old.bank_3), bool)
    for a, b in zip(old, new, strict=True):
        differs |= (a != b).reshape(len(a), -1).any(-1)
    assert differs.mean() > 0.95


def test_sampling_is_deterministic_and_independent_of_the_population():
    keys = jax.random.split(jax.random.key(4), DRAWN)
    ones, sample = np.ones(DRAWN, np.float32), samplers("small")[0]
    archs = sample(keys, ones)
    assert same(archs, sample(keys, ones))
    assert same(
        archs, jax.tree.map(lambda x: x[::-1], sample(keys[::-1], ones))
    )
    assert all(x.dtype == jnp.int32 for x in archs)


# Canonical form


def with_inactive_noise(arch, seed):
    """Other settings where no convolution is active."""
    rng = np.random.default_rng(seed)
    inactive = ~((arch.width_3xP > 0)[..., None] & (OP_SETS[arch.op_3xP] > 0))
    kernel = rng.choice([3, 5], arch.kernel_3xPx4x2.shape).astype(np.int32)
    dilation = rng.choice([1, 2], kernel.shape).astype(np.int32)
    groups = rng.choice([1, 2], arch.groups_3xPx4.shape).astype(np.int32)
    return arch._replace(
        kernel_3xPx4x2=np.where(
            inactive[..., None], kernel, arch.kernel_3xPx4x2
        ),
        dilation_3xPx4x2=np.where(
            inactive[..., None], dilation, arch.dilation_3xPx4x2
        ),
        groups_3xPx4=np.where(inactive, groups, arch.groups_3xPx4),
    )


def with_swapped_paths(arch, swap_3xP):
    def swap(x):
        return np.where(
            swap_3xP.reshape(swap_3xP.shape + (1,) * (x.ndim - 2)),
            x[:, :, [2, 3, 0, 1]],
            x,
        )

    return arch._replace(
        kernel_3xPx4x2=swap(arch.kernel_3xPx4x2),
        dilation_3xPx4x2=swap(arch.dilation_3xPx4x2),
        groups_3xPx4=swap(arch.groups_3xPx4),
    )


def test_canonical(case):
    canonical, swapped = jax.jit(case.space.canonical), 0
    for i in range(2 * NUMBER):
        arch = row(case.archs, i)
        representative = jax.tree.map(np.asarray, canonical(arch))
        assert same(canonical(representative), representative)
        assert same(case.space.canonical(arch), representative)
        check(case.config, representative)
        text = case.space.to_string(representative)
        assert (
            reference(case, text).counts()
            == reference(case, case.texts[i]).counts()
        )
        assert same(canonical(with_inactive_noise(arch, i)), representative)
        symmetric = np.isin(arch.op_3xP, [1, 4]) & (arch.width_3xP > 0)
        pattern = symmetric & (
            np.random.default_rng(i).random(symmetric.shape) < 0.5
        )
        other = with_swapped_paths(arch, pattern)
        swapped += case.space.to_string(other) != case.texts[i]
        assert same(canonical(other), representative)
    assert swapped > NUMBER


def test_canonical_computes_the_same_function_with_paths_exchanged(case):
    for i in (5, 11, 23):
        arch = row(case.archs, i)
        text = case.space.to_string(case.space.canonical(arch))
        theta = jax.tree.map(np.array, case.np_theta)
        for b, (block, other) in enumerate(
            zip(ref.parse(case.texts[i]), ref.parse(text), strict=True)
        ):
            for p, (old, new) in enumerate(
                zip(block.ops, other.ops, strict=True)
            ):
                assert old.kind == new.kind
                if old.convs != new.convs:
                    assert old.kind in ("1010", "1111")
                    for first, second in ((0, 2), (1, 3)):
                        if first in old.convs:
                            assert (old.convs[first], old.convs[second]) == (
                                new.convs[second],
                                new.convs[first],
                            )
                        a, c = (
                            theta["conv"][b][first],
                            theta["conv"][b][second],
                        )
                        a[p], c[p] = c[p].copy(), a[p].copy()
        close(
            reference(case, text, theta).logits(case.x),
            reference(case, case.texts[i]).logits(case.x),
        )


def test_canonical_distinguishes_different_functions():
    space = memory_bank(SMALL, (8, 8, 3), CLASSES)
    op = "b2|0.1>2.3:4:{}/b1/b1"
    different = [
        "0=3x5d1x1g1",
        "0=5x3d1x1g1",
        "0=3x3d1x2g1",
        "0=3x3d1x1g2",
        "0=3x5d1x1g1:1=3x3d1x1g1",
        # The order within a path matters.
        "0=3x3d1x1g1:1=3x5d1x1g1",
        "0=3x5d1x1g1:2=3x3d1x1g1",
        "0=3x5d1x1g1:1=3x3d1x1g1:2=3x3d1x1g1",
        # The paths of 1110 differ.
        "0=3x3d1x1g1:1=3x3d1x1g1:2=3x5d1x1g1",
        "0=3x5d1x1g1:1=3x3d1x1g1:2=3x3d1x1g1:3=5x5d1x1g1",
        "0=3x3d1x1g1:1=3x5d1x1g1:2=3x3d1x1g1:3=5x5d1x1g1",
        "0=3x5d1x1g1:1=5x5d1x1g1:2=3x3d1x1g1:3=3x3d1x1g1",
    ]
    strings = {
        space.to_string(space.canonical(space.from_string(op.format(convs))))
        for convs in different
    }
    assert len(strings) == len(different)
    pair = (
        "0=3x5d1x1g1:1=3x3d1x1g2:2=3x5d1x1g1:3=5x5d1x1g1",
        "0=3x5d1x1g1:1=5x5d1x1g1:2=3x5d1x1g1:3=3x3d1x1g2",
    )
    assert (
        len(
            {
                space.to_string(
                    space.canonical(space.from_string(op.format(convs)))
                )
                for convs in pair
            }
        )
        == 1
    )


# Strings

FIRST = "b2|0.1>2.3:4:0=3x5d1x2g2:2=3x3d1x1g1|0.2>0.1:2:0=3x3d1x1g1"
REST = "b1|0.1>6:1:0=3x3d1x1g1:1=5x5d1x1g2/b3|0.1>2:3:0=3x3d1x1g1"
GOOD = f"{FIRST}/{REST}"
ONE = ":0=3x3d1x1g1"


def test_string_round_trip(case):
    for i, text in enumerate(case.texts):
        arch = case.space.from_string(text)
        assert case.space.to_string(arch) == text
        assert same(case.space.from_string(f"  {text}\n"), arch)
        assert same(
            case.space.canonical(arch),
            case.space.canonical(row(case.archs, i)),
        )
        for x, y in zip(arch, row(case.archs, i), strict=True):
            assert x.shape == y.shape and x.dtype == y.dtype == np.int32


def test_string_of_a_device_architecture(case):
    assert (
        case.space.to_string(jax.tree.map(jnp.asarray, row(case.archs, 0)))
        == case.texts[0]
    )


@pytest.mark.parametrize(
    "text", [GOOD, "b1/b1/b1", "b4/b3/b2", f"b2|0.1>0.1:4{ONE}/b1/b1"]
)
def test_good_strings(text):
    space = memory_bank(SMALL, (8, 8, 3), CLASSES)
    assert space.to_string(space.from_string(text)) == text
    ref.assert_valid(SMALL, text)


BAD = {
    "empty": "",
    "no blocks": "hello",
    "two blocks": FIRST + "/b1",
    "four blocks": GOOD + "/b1",
    "newlines": "b1\n/b1\n/b1\nb1",
    "newline in an op": f"b2|0.1>2\n:2{ONE}/{REST}",
    "newline after an op": f"b2|0.1>2:2{ONE}\n/{REST}",
    "newline after a bank": f"b2\n/{REST}",
    "no bank": f"|0.1>2:2{ONE}/{REST}",
    "bank without a number": f"b/{REST}",
    "bank 0": f"b0/{REST}",
    "negative bank": f"b-1/{REST}",
    "fractional bank": f"b1.5/{REST}",
    "bank too large": f"b5/{REST}",
    "bank that can't be read in positions": f"b3/{REST}",
    "huge bank": f"b99999999999999999999/{REST}",
    "empty op": f"b2||0.1>2:2{ONE}/{REST}",
    "trailing bar": f"b2|0.1>2:2{ONE}|/{REST}",
    "spaces": f"b2|0.1 > 2:2{ONE}/{REST}",
    "no reads": f"b2|>2:2{ONE}/{REST}",
    "no writes": f"b2|0.1>:2{ONE}/{REST}",
    "dots only": f"b2|.>2:2{ONE}/{REST}",
    "doubled dot": f"b2|0..1>2:2{ONE}/{REST}",
    "doubled read": f"b2|0.0>2:2{ONE}/{REST}",
    "doubled write": f"b2|0.1>2.2:2{ONE}/{REST}",
    "read out of range": f"b2|0.99>2:2{ONE}/{REST}",
    "huge read": f"b2|0.99999999999999999999>2:2{ONE}/{REST}",
    "write out of range": f"b2|0.1>99:2{ONE}/{REST}",
    "negative read": f"b2|-1>2:2{ONE}/{REST}",
    "read of a bank nothing wrote": f"b2|0.2>2:2{ONE}/{REST}",
    "read of a bank written later": f"b2|0.2>0:2{ONE}|0>2:2{ONE}/{REST}",
    "write that leaves a gap": f"b2|0.1>3:2{ONE}/{REST}",
    "write beyond the last bank": f"b2|0.1>2.3.4.5.6:2{ONE}/{REST}",
    "read of a fraction of a position": f"b1|0>4:1{ONE}/{REST}",
    "too few writes": f"b2|0.1>2:4{ONE}/{REST}",
    "width 0": f"b2|0.1>2:0{ONE}/{REST}",
    "width 0 before another op": f"b2|0.1>2:0{ONE}|0.1>2:2{ONE}/{REST}",
    "width 0 hides a bad op": f"b2|0.1>2:0{ONE}|0.5>2:2{ONE}/{REST}",
    "width not a multiple of the bank": f"b2|0.1>2:3{ONE}/{REST}",
    "width too large": f"b2|0.1>0.1.2:6{ONE}/{REST}",
    "huge width": f"b2|0.1>2:99999999999999999999{ONE}/{REST}",
    "negative width": f"b2|0.1>2:-2{ONE}/{REST}",
    "no width": f"b2|0.1>2{ONE}/{REST}",
    "no convolutions": f"b2|0.1>2:2/{REST}",
    "illegal set": f"b2|0.1>2:2:1=3x3d1x1g1/{REST}",
    "illegal set of three": f"b2|0.1>2:2{ONE}:2=3x3d1x1g1:3=3x3d1x1g1/{REST}",
    "doubled convolution": f"b2|0.1>2:2{ONE}{ONE}/{REST}",
    "convolution 4": f"b2|0.1>2:2{ONE}:4=3x3d1x1g1/{REST}",
    "kernel 1": f"b2|0.1>2:2:0=1x3d1x1g1/{REST}",
    "kernel 4": f"b2|0.1>2:2:0=3x4d1x1g1/{REST}",
    "kernel 7 where 5 is the largest": f"b2|0.1>2:2:0=3x7d1x1g1/{REST}",
    "huge kernel": f"b2|0.1>2:2:0=3x99999999999999999999d1x1g1/{REST}",
    "one kernel size": f"b2|0.1>2:2:0=3d1x1g1/{REST}",
    "dilation 0": f"b2|0.1>2:2:0=3x3d0x1g1/{REST}",
    "dilation 3 where 2 is the largest": f"b2|0.1>2:2:0=3x3d3x1g1/{REST}",
    "huge dilation": f"b2|0.1>2:2:0=3x3d99999999999999999999x1g1/{REST}",
    "no dilation": f"b2|0.1>2:2:0=3x3g1/{REST}",
    "groups 0": f"b2|0.1>2:2:0=3x3d1x1g0/{REST}",
    "groups 3": f"b2|0.1>2:2:0=3x3d1x1g3/{REST}",
    "huge groups": f"b2|0.1>2:2:0=3x3d1x1g99999999999999999999/{REST}",
    "a number of 5000 digits": f"b{'1' * 5000}/{REST}",
    "bad setting of an op in the last block": "b2/b1/b1|0.1>6:1:0=3x3d1x1g5",
    "over the budget": f"b2{f'|0.1>0.1:4{ONE}' * 4}/{REST}",
    "more ops than slots": f"b2/b1/b1{f'|0.1>0:1{ONE}' * 10}",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_bad_strings(text):
    space = memory_bank(SMALL, (8, 8, 3), CLASSES)
    with pytest.raises(UserError) as error:
        space.from_string(text)
    message = str(error.value)
    assert message.startswith("arch: ") and len(message.splitlines()) == 1


def test_mutilated_strings_give_a_user_error_or_a_network():
    """Random edits of a good string.

    There is no other exception, and no part of a string is ignored.
    """
    space = memory_bank(SMALL, (8, 8, 3), CLASSES)
    rng = np.random.default_rng(0)
    accepted = 0
    for _ in range(4000):
        text = GOOD
        i = int(rng.integers(len(text)))
        letter = "0123457.>:|/=xdgb"[rng.integers(17)]
        text = (
            text[:i]
            + ("", letter)[rng.integers(2)]
            + text[i + rng.integers(2) :]
        )
        try:
            arch = space.from_string(text)
        except UserError as error:
            assert len(str(error).splitlines()) == 1
            continue
        accepted += 1
        again = space.to_string(arch)
        ref.assert_valid(SMALL, again)
        # Leading zeros are read, and not written.
        written = re.sub(r"(?<!\d)0+(?=\d)", "", text)
        assert len(again) == len(written), (again, text)
    assert accepted > 50


@pytest.mark.parametrize(
    "change",
    [
        {"unit": 0},
        {"slots": 0},
        {"max_kernel": 4},
        {"max_kernel": 9},
        {"stem_kernel": 4},
        {"units": 1},
        {"units": 64},
        {"depth": -1},
    ],
)
def test_bad_configurations(change):
    with pytest.raises(UserError) as error:
        replace(SMALL, **change).check()
    message = str(error.value)
    field = "widening" if change == {"units": 64} else next(iter(change))
    assert message.startswith(f"{field}: ")
    assert len(message.splitlines()) == 1


def test_too_small_images():
    with pytest.raises(UserError, match="too small"):
        memory_bank(SMALL, (3, 8, 3), CLASSES)
    memory_bank(SMALL, (4, 4, 3), CLASSES)


def test_size_bounds_the_number_of_strings():
    assert memory_bank(SMALL, (8, 8, 3), CLASSES).log10_size > 20
    assert memory_bank(PUBLISHED, (32, 32, 3), CLASSES).log10_size > 1000


# Graph


def test_graph(case):
    graph = jax.jit(case.space.graph)
    N = 3 * (case.config.slots + 1) + 1
    for i, text in enumerate(case.texts):
        op_NxO, edge_NxN, mask_N = map(np.asarray, graph(row(case.archs, i)))
        op_N = op_NxO.argmax(1)
        assert (
            op_NxO.shape == (N, len(NODE_OPS))
            and mask_N.shape == (N,)
            and edge_NxN.shape == (N, N)
        )
        assert (op_NxO.sum(1) == mask_N).all()
        assert op_NxO.dtype == edge_NxN.dtype == mask_N.dtype == np.int32
        names, edges = ref.graph(case.config, text)
        assert [
            NODE_OPS[op] if m else None
            for op, m in zip(op_N, mask_N, strict=True)
        ] == names
        assert set(map(tuple, np.argwhere(edge_NxN).tolist())) == edges
        assert set(np.unique(edge_NxN)) <= {0, 1} and set(
            np.unique(mask_N)
        ) <= {0, 1}
        assert not np.triu(edge_NxN).any()
        absent = mask_N == 0
        assert (
            not edge_NxN[absent].any()
            and not edge_NxN[:, absent].any()
            and not op_NxO[absent].any()
        )


def test_graph_connects_every_node(case):
    """Each real node but the first has an input, each but the last is read."""
    for i in range(2 * NUMBER):
        _, edge_NxN, mask_N = map(
            np.asarray, case.space.graph(row(case.archs, i))
        )
        real = mask_N == 1
        assert (
            edge_NxN.sum(1)[real][1:].all()
            and edge_NxN.sum(0)[real][:-1].all()
        )


def test_graph_of_a_written_out_network():
    space = memory_bank(SMALL, (8, 8, 3), CLASSES)
    text = f"b2|0.1>2:2{ONE}|2>0:2{ONE}|0.2>0:2{ONE}/b1/b1"
    op_NxO, edge_NxN, mask_N = map(
        np.asarray, space.graph(space.from_string(text))
    )
    op_N = op_NxO.argmax(1)
    assert np.flatnonzero(mask_N).tolist() == [0, 1, 2, 3, 10, 20, 30]
    assert [NODE_OPS[op_N[i]] for i in (0, 1, 10, 20, 30)] == [
        "input",
        "1000",
        "transition",
        "transition",
        "output",
    ]
    edges = {
        (1, 0),
        (2, 1),
        (3, 0),
        (3, 1),
        (3, 2),
        (10, 0),
        (10, 1),
        (10, 2),
        (10, 3),
        (20, 10),
        (30, 20),
    }
    assert set(map(tuple, np.argwhere(edge_NxN).tolist())) == edges


# Encoding and SMASH's generator


def test_encoding(case):
    encoding = case.space.encoding
    encode = jax.jit(encoding.encode)
    for i, text in enumerate(case.texts):
        code = np.asarray(encode(row(case.archs, i)))
        assert code.shape == (
            case.config.units,
            sum(case.config.positions),
            encoding.channels,
        )
        assert set(np.unique(code)) <= {-1.0, 1.0}
        np.testing.assert_array_equal(code, ref.encoding(case.config, text))
        end = 0
        for b, block in enumerate(ref.parse(text)):
            used = (
                sum(block.read_units(op) for op in block.ops)
                // case.config.compression
            )
            assert (code[0, end : end + used].max(-1) == 1).all()
            assert (
                code[:, end + used : end + case.config.positions[b]] == -1
            ).all()
            end += case.config.positions[b]


def test_encoding_of_equal_functions_is_equal(case):
    encode = jax.jit(case.space.encoding.encode)
    arch = row(case.archs, 10)
    np.testing.assert_array_equal(
        encode(with_inactive_noise(arch, 0)), encode(arch)
    )


def test_smash_theta(case):
    skip_third_size(case)
    config = case.config
    generator = smash(
        SmashConfig(stem=4, layers=(2, 2), growth=4),
        case.space.encoding,
        case.target,
    )
    phi = generator.init(jax.random.key(0))
    generate, apply = jax.jit(generator.generate), jax.jit(case.target.apply)

    def expected(leaf):
        return jax.ShapeDtypeStruct(
            (1, *leaf.shape[1:]) if len(leaf.shape) == 5 else leaf.shape,
            leaf.dtype,
        )

    for i in (0, 10, 11, 15, 23):
        theta = jax.tree.map(np.asarray, generate(phi, row(case.archs, i)))
        specs = jax.tree.map(expected, case.target.weight_spec)
        found = jax.tree.map(
            lambda w: jax.ShapeDtypeStruct(w.shape, w.dtype), theta
        )
        assert jax.tree.structure(found) == jax.tree.structure(specs)
        assert jax.tree.leaves(found) == jax.tree.leaves(specs)
        for b, block in enumerate(ref.parse(case.texts[i])):
            start = 0
            for op in block.ops:
                read = block.read_units(op)
                columns = ref.bottleneck(config, read, op.width) * config.unit
                live = theta["op"][b][
                    start * config.unit : (start + read) * config.unit,
                    :columns,
                ]
                assert np.linalg.norm(live) == pytest.approx(1, abs=1e-4)
                start += read
        logits = np.asarray(apply(theta, row(case.archs, i), case.x))
        close(logits, reference(case, case.texts[i], theta).logits(case.x))


def test_smash_weights_depend_on_the_architecture(case):
    skip_third_size(case)
    generator = smash(
        SmashConfig(stem=4, layers=(2, 2), growth=4),
        case.space.encoding,
        case.target,
    )
    phi = generator.init(jax.random.key(0))
    generate = jax.jit(generator.generate)
    a, b = (generate(phi, row(case.archs, i)) for i in (10, 11))
    assert not same(a["op"], b["op"])
    assert same({**a, "op": 0}, {**b, "op": 0})
    decay = generator.decay(phi)
    assert (
        not any(jax.tree.leaves(decay["hyper"]))
        and not decay["shared"]["bias"]
    )
    assert all(jax.tree.leaves({**decay["shared"], "bias": True}))
