"""Networks of one architecture as Flax NNX modules, from their source and weights."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxhypernas.targets.modules import layers
from jaxhypernas.types import Array, Module


def source(module: Module) -> str:
    """Returns the Python code of a network, its layers first.

    Args:
        module: The network.
    """
    text = Path(layers.__file__).read_text()
    # The first docstring speaks of the package.
    _, _, code = text.split('"""', 2)
    return f"{code.strip()}\n\n\n{module.source}"


def build(module: Module) -> Any:
    """Makes a network with its weights; BatchNorm's statistics are 0 and 1.

    Args:
        module: The network.

    Returns:
        The Flax NNX module, in evaluation mode.
    """
    names: dict[str, Any] = {}
    # The package has written this code, from numbers.
    exec(source(module), names)  # noqa: S102
    network = names["Network"](rngs=nnx.Rngs(0))
    state = nnx.state(network)
    places = {
        ".".join(map(str, place)): variable
        for place, variable in nnx.to_flat_state(state)
    }
    for place, array in module.weights.items():
        assert places[place].shape == array.shape, place
        places[place][...] = jnp.asarray(array)
    nnx.update(network, state)
    network.eval()
    return network


def weights(network: Any) -> dict[str, np.ndarray]:
    """Returns all numbers of a network, BatchNorm's statistics among them.

    Args:
        network: The Flax NNX module.
    """
    state = nnx.state(network, (nnx.Param, nnx.BatchStat))
    return {
        ".".join(map(str, place)): np.asarray(variable[...])
        for place, variable in nnx.to_flat_state(state)
    }


def calibrate(network: Any, x_TxBxHxWxC: Array) -> None:
    """Sets BatchNorm's statistics to means over batches, in evaluation mode.

    Args:
        network: The Flax NNX module.
        x_TxBxHxWxC: T batches of normalised images.
    """
    norms = [
        layer
        for _, layer in nnx.iter_modules(network)
        if isinstance(layer, nnx.BatchNorm)
    ]
    momenta = [norm.momentum for norm in norms]
    network.train()
    for norm in norms:
        norm.momentum = 0.0

    @nnx.jit
    def of_batch(network, x):
        network(x)
        return nnx.state(network, nnx.BatchStat)

    total = None
    for x_BxHxWxC in x_TxBxHxWxC:
        found = jax.tree.map(jnp.copy, of_batch(network, x_BxHxWxC))
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    mean = jax.tree.map(lambda x: x / len(x_TxBxHxWxC), total)
    nnx.update(network, mean)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def logits(network: Any, x_TxBxHxWxC: Array) -> np.ndarray:
    """Returns the logits of batches of images, [T, B, L].

    Args:
        network: The Flax NNX module, in either mode.
        x_TxBxHxWxC: T batches of normalised images.
    """
    definition, state = nnx.split(network)

    @jax.jit
    def of_batch(state, x_BxHxWxC):
        return nnx.merge(definition, state)(x_BxHxWxC)

    return np.stack([of_batch(state, x) for x in x_TxBxHxWxC])
