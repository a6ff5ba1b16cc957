"""Does a space of your own, with its target, keep the contracts of `types`? One call tells, in a test of yours."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.types import Space, Target


def check(
    space: Space,
    target: Target,
    image: tuple[int, int, int],
    number: int = 20,
    seed: int = 0,
) -> None:
    """Check a space and its target on ``number`` random architectures and images of shape (H, W, C).

    Raises:
        AssertionError: a contract is broken; the message says which.
    """
    keys = jax.random.split(jax.random.key(seed), number)
    sample = jax.jit(jax.vmap(lambda key: space.sample(key, 1.0)))
    population = jax.tree.map(np.asarray, sample(keys))
    mutants = jax.tree.map(
        np.asarray, jax.jit(jax.vmap(space.mutate))(keys, population)
    )
    same_ids = jax.tree.map(
        np.asarray, jax.jit(jax.vmap(space.canonical))(population)
    )
    for name, archs in (
        ("sample", population),
        ("mutate", mutants),
        ("canonical", same_ids),
    ):
        for i in range(number):
            arch = _row(archs, i)
            assert all(
                leaf.dtype == np.int32 for leaf in jax.tree.leaves(arch)
            ), f"{name}: arrays must be int32"
            text = space.to_string(arch)
            again = space.from_string(
                text
            )  # settings that do nothing may be lost
            assert space.to_string(again) == text, (
                f"{name}: {text} is read back as {space.to_string(again)}"
            )
            assert _equal(*map(space.canonical, _jax(again, arch))), (
                f"{name}: {text} is read back as another network"
            )
    assert _equal(sample(keys), population), (
        "sample: the same keys gave other architectures"
    )
    assert _equal(jax.vmap(space.canonical)(same_ids), same_ids), (
        "canonical: not its own representative"
    )
    if space.all is not None:
        _check_all(space, number, seed)
    _check_graph(space, target, population)
    _check_cost(space, population)
    _check_target(target, image, population)


def _jax(*archs):
    return (jax.tree.map(jnp.asarray, arch) for arch in archs)


def _row(population, i):
    return jax.tree.map(lambda x: x[i], population)


def _equal(a, b) -> bool:
    return all(
        np.array_equal(x, y)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def _check_all(space, number, seed):
    size, at = space.all
    index_A = np.random.default_rng(seed).choice(
        size, min(number, size), replace=False
    )
    archs = at(index_A)
    assert all(leaf.dtype == np.int32 for leaf in jax.tree.leaves(archs)), (
        "all: arrays must be int32"
    )
    assert _equal(at(index_A[:1]), _row(archs, slice(1))), (
        "all: an architecture depends on the others asked for"
    )
    texts = {space.to_string(_row(archs, i)) for i in range(len(index_A))}
    assert len(texts) == len(index_A), "all: an architecture comes twice"


def _check_graph(space, target, population):
    graphs = jax.jit(jax.vmap(space.graph))(population)
    edge_AxNxN, mask_AxN = (
        np.asarray(graphs.edge_NxN),
        np.asarray(graphs.mask_N),
    )
    assert not np.triu(edge_AxNxN).any(), (
        "graph: an edge comes from a later node"
    )
    assert not (edge_AxNxN * (1 - mask_AxN[:, :, None])).any(), (
        "graph: a padded node has an edge"
    )
    assert not (edge_AxNxN * (1 - mask_AxN[:, None])).any(), (
        "graph: a padded node feeds another one"
    )
    specs, nodes = (
        jax.tree.leaves(target.weight_spec),
        jax.tree.leaves(target.nodes),
    )
    for spec, ids in zip(specs, nodes, strict=True):
        assert spec.shape[: ids.ndim] == ids.shape, (
            f"nodes: {ids.shape} is no beginning of {spec.shape}"
        )


def _check_cost(space, population):
    cost = space.cost(population)
    for name, value in cost._asdict().items():
        assert np.asarray(value).dtype == np.int64, (
            f"cost: {name} must be int64"
        )
        assert _equal(
            space.cost(_row(population, 0))._asdict()[name], value[0]
        ), f"cost: {name} depends on company"
    assert (cost.live_params <= cost.params).all(), (
        "cost: more live parameters than parameters"
    )
    assert (cost.live_flops <= cost.flops).all(), (
        "cost: more live FLOPs than FLOPs"
    )


def _check_target(target, image, population):
    leaves, treedef = jax.tree.flatten(target.weight_spec)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    theta = treedef.unflatten(
        [
            0.3 * jax.random.normal(k, s.shape)
            for k, s in zip(keys, leaves, strict=True)
        ]
    )
    x_BxHxWxC = jax.random.normal(jax.random.key(2), (4, *image))

    one = jax.jit(
        lambda archs: jax.lax.map(
            lambda a: target.apply(theta, a, x_BxHxWxC), archs
        )
    )(population)
    side_by_side = jax.jit(jax.vmap(target.apply, (None, 0, None)))(
        theta, population, x_BxHxWxC
    )
    assert jnp.isfinite(one).all(), "target: logits are not finite"
    assert jnp.allclose(one, side_by_side, atol=1e-3), (
        "target: vmap over candidates gives other logits than a loop"
    )
