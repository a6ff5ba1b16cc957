"""Generators that are Flax NNX modules.

The module generates some weights of a network; all architectures share the others.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from jaxhypernas.types import Arch, Generator, Params


def hyper_generator(
    make_module: Callable[[nnx.Rngs], nnx.Module],
    generate_weights: Callable[[Any, Arch], Params],
    shared: Generator,
) -> Generator:
    """Makes a generator of a hypernetwork.

    phi has ``hyper``, the leaves of the module's state as a list, and ``shared``.
    Weight decay applies to shared kernels only.

    Args:
        make_module: ``make_module(rngs)``: the hypernetwork, an `nnx.Module`.
        generate_weights: ``generate_weights(module, arch)``: the generated entries of
            theta, a dict.
        shared: The generator of all other entries of theta; ignores the architecture.

    Returns:
        The generator.
    """

    def module(key):
        return make_module(nnx.Rngs(params=key))

    # The module's structure without its arrays: phi holds these.
    abstract = nnx.eval_shape(lambda: module(jax.random.key(0)))
    graphdef = nnx.graphdef(abstract)
    treedef = jax.tree.structure(nnx.state(abstract))

    def init(key):
        hyper_key, shared_key = jax.random.split(key)
        return {
            "hyper": jax.tree.leaves(nnx.state(module(hyper_key))),
            "shared": shared.init(shared_key),
        }

    def generate(phi, arch):
        state = jax.tree.unflatten(treedef, phi["hyper"])
        generated = generate_weights(nnx.merge(graphdef, state), arch)
        return {**shared.generate(phi["shared"], arch), **generated}

    def decay(phi):
        return {
            "hyper": jax.tree.map(lambda w: False, phi["hyper"]),
            "shared": shared.decay(phi["shared"]),
        }

    return Generator(init, generate, decay)
