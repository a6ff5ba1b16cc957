"""Checks that a space of your own, with its target, keeps the contracts of `types`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.archs import population
from jaxhypernas.types import Arch, Enumeration, ImageShape, Space, Target


def check(
    space: Space,
    target: Target,
    image: ImageShape,
    number: int = 20,
    seed: int = 0,
) -> None:
    """Checks a space and its target on random architectures and images.

    Example, in a test of yours::

        from jaxhypernas.families import FAMILIES
        from jaxhypernas.spaces import conformance

        def test_my_family():
            family = FAMILIES["mine"]
            space, target = family.build(family.config(), (8, 8, 1), 10)
            conformance.check(space, target, (8, 8, 1))

    Args:
        space: The space.
        target: Its target.
        image: Height, width and channels of the images that the target takes.
        number: Number of architectures.
        seed: Seed of the architectures.

    Raises:
        AssertionError: A contract is broken; the message begins with the name of the
            function, or of the field, that breaks it.
    """
    keys = jax.random.split(jax.random.key(seed), number)
    sample = jax.jit(jax.vmap(lambda key: space.sample(key, 1.0)))
    mutate = jax.jit(jax.vmap(space.mutate))
    canonical = jax.jit(jax.vmap(space.canonical))

    samples = _numpy(sample(keys))
    mutants = _numpy(mutate(keys, samples))
    firsts = _numpy(canonical(samples))
    _check_text(space, "sample", samples)
    _check_text(space, "mutate", mutants)
    _check_text(space, "canonical", firsts)
    assert _equal(sample(keys), samples), (
        "sample: the same keys gave other architectures"
    )
    assert _equal(canonical(firsts), firsts), (
        "canonical: a representative has another representative"
    )
    if space.all is not None:
        _check_all(space, space.all, number, seed)
    _check_graph(space, samples)
    _check_cost(space, samples)
    _check_depth(space, samples)
    _check_nodes(target)
    _check_logits(target, image, samples)


def _numpy(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


def _equal(a: Any, b: Any) -> bool:
    leaves = jax.tree.leaves(a)
    others = jax.tree.leaves(b)
    pairs = zip(leaves, others, strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def _check_int32(name: str, archs: Arch) -> None:
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(archs)}
    assert dtypes == {np.dtype(np.int32)}, f"{name}: arrays must be int32"


def _check_text(space: Space, name: str, archs: Arch) -> None:
    """Checks that architectures come back from their strings."""
    _check_int32(name, archs)
    for i in range(population.size(archs)):
        arch = population.rows(archs, i)
        text = space.to_string(arch)
        again = space.from_string(text)
        assert space.to_string(again) == text, (
            f"{name}: {text} is read back as {space.to_string(again)}"
        )
        # Canonical forms are compared: entries that do nothing may be lost.
        first, first_again = (
            space.canonical(jax.tree.map(jnp.asarray, x))
            for x in (arch, again)
        )
        assert _equal(first, first_again), (
            f"{name}: {text} is read back as another network"
        )


def _check_all(
    space: Space, every: Enumeration, number: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    number = min(number, every.size)
    index_A = rng.choice(every.size, number, replace=False)
    archs = every.at(index_A)
    _check_int32("all", archs)

    first = population.rows(archs, slice(1))
    assert _equal(every.at(index_A[:1]), first), (
        "all: an architecture depends on the others asked for"
    )
    each = [population.rows(archs, i) for i in range(number)]
    texts = {space.to_string(arch) for arch in each}
    assert len(texts) == number, "all: an architecture comes twice"


def _check_graph(space: Space, archs: Arch) -> None:
    graphs = jax.jit(jax.vmap(space.graph))(archs)
    edge_AxNxN = np.asarray(graphs.edge_NxN)
    padding_AxN = 1 - np.asarray(graphs.mask_N)
    assert len(space.op_names) in (0, graphs.op_NxO.shape[-1]), (
        "op_names: not one for each column of the graph's op_NxO"
    )
    assert not np.triu(edge_AxNxN).any(), (
        "graph: an edge comes from a later node"
    )
    assert not (edge_AxNxN * padding_AxN[:, :, None]).any(), (
        "graph: a padded node has an edge"
    )
    assert not (edge_AxNxN * padding_AxN[:, None]).any(), (
        "graph: a padded node feeds another node"
    )


def _check_cost(space: Space, archs: Arch) -> None:
    cost = space.cost(archs)
    first = space.cost(population.rows(archs, 0))
    for name, value in cost._asdict().items():
        assert np.asarray(value).dtype == np.int64, (
            f"cost: {name} must be int64"
        )
        assert _equal(getattr(first, name), value[0]), (
            f"cost: {name} of an architecture depends on the others"
        )
    assert (cost.live_params <= cost.params).all(), (
        "cost: more live parameters than parameters"
    )
    assert (cost.live_flops <= cost.flops).all(), (
        "cost: more live FLOPs than FLOPs"
    )
    assert (cost.live_cell_flops <= cost.live_flops).all(), (
        "cost: more live FLOPs of cells than of the network"
    )


def _check_depth(space: Space, archs: Arch) -> None:
    depth_A = space.depth(archs)
    first = space.depth(population.rows(archs, 0))
    assert (depth_A >= 0).all(), "depth: below 0"
    assert np.shape(first) == () and first == depth_A[0], (
        "depth: that of an architecture depends on the others"
    )


def _check_nodes(target: Target) -> None:
    specs = jax.tree.leaves(target.weight_spec)
    nodes = jax.tree.leaves(target.nodes)
    for spec, ids in zip(specs, nodes, strict=True):
        assert spec.shape[: ids.ndim] == ids.shape, (
            f"nodes: {ids.shape} is no beginning of {spec.shape}"
        )


def _check_logits(target: Target, image: ImageShape, archs: Arch) -> None:
    """Checks that candidates side by side give the logits of a loop."""
    leaves, treedef = jax.tree.flatten(target.weight_spec)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    theta = treedef.unflatten(
        [
            0.3 * jax.random.normal(key, leaf.shape)
            for key, leaf in zip(keys, leaves, strict=True)
        ]
    )
    x_BxHxWxC = jax.random.normal(jax.random.key(2), (4, *image))

    def logits(arch: Arch) -> jax.Array:
        return target.apply(theta, arch, x_BxHxWxC)

    loop = jax.jit(lambda archs: jax.lax.map(logits, archs))(archs)
    side_by_side = jax.jit(jax.vmap(logits))(archs)
    assert jnp.isfinite(loop).all(), "target: logits are not finite"
    assert jnp.allclose(loop, side_by_side, atol=1e-3), (
        "target: vmap over candidates gives other logits than a loop"
    )
