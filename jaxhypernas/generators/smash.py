"""SMASH's hypernetwork (Brock et al. 2018, section 3.2): from an encoding laid out over the weights to the weights.

The architecture becomes an image whose positions are places in the generated weights and whose channels say what the
network does there; a fully convolutional DenseNet maps it to the weights. All other weights are learned and shared by
all architectures. Deviations from the published code:
1. A channel is +1 for an active convolution, as for everything else (published: -1, the value of "absent").
2. A channel means the same throughout training (published: kernel channels move while the largest kernel grows).
3. Rows are marked for the outputs of the generated 1x1 (published: of the op), and all its columns are generated.
4. There is no channel of noise: scores of one architecture are equal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxhypernas.generators.standalone import standalone
from jaxhypernas.numerics import nn
from jaxhypernas.types import Arch, Generator, Params, Target, UserError

MOST, MOST_LAYERS = 1000, 100  # a typing error asks for more


@dataclass(frozen=True)
class SmashConfig:
    """The hypernetwork's size; defaults are the published one. ``SMALL`` suits the small memory-bank space."""

    stem: int = 7  # channels of the first convolution
    layers: tuple[int, ...] = (8, 10, 4)  # 3x3 convolutions in each dense block
    growth: int = 10  # channels added by each

    def __post_init__(self):
        for name in ("stem", "growth"):
            if not 1 <= getattr(self, name) <= MOST:
                raise UserError(
                    f"smash.{name}: {getattr(self, name)} must be at least 1 and at most {MOST}"
                )
        if min(self.layers, default=0) < 1 or sum(self.layers) > MOST_LAYERS:
            raise UserError(
                f"smash.layers: {self.layers} must be numbers of at least 1, together at most {MOST_LAYERS}"
            )


SMALL = SmashConfig(stem=8, layers=(3, 3), growth=12)


class Encoding(NamedTuple):
    """How a space's architectures and generated weights are laid out on one grid of G rows and S positions."""

    channels: int
    weights: int  # per place of the grid
    generated: tuple[str, ...]  # names of theta's entries that decode gives
    encode: Callable[[Arch], jax.Array]  # arch -> c_GxSxC of -1 and +1
    decode: Callable[
        [jax.Array, Arch], Params
    ]  # (w_GxSxW, arch) -> the generated part of theta, a dict


class HyperNet(nnx.Module):
    """Fully convolutional DenseNet: no biases or BatchNorm, each kernel divided by its norm, leaky ReLU (0.02)."""

    def __init__(
        self, channels: int, outputs: int, config: SmashConfig, rngs: nnx.Rngs
    ):
        def kernel(size, inputs, outputs):
            init = nnx.initializers.orthogonal()
            return nnx.Param(
                init(rngs.params(), (size, size, inputs, outputs), jnp.float32)
            )

        self.stem = kernel(3, channels, config.stem)
        channels += config.stem
        blocks, halvings = [], []
        for i, layers in enumerate(config.layers):
            blocks.append(
                nnx.List(
                    [
                        kernel(3, channels + j * config.growth, config.growth)
                        for j in range(layers)
                    ]
                )
            )
            channels += layers * config.growth
            if i < len(config.layers) - 1:
                halvings.append(kernel(3, channels, channels // 2))
                channels //= 2
        self.blocks, self.halvings = nnx.List(blocks), nnx.List(halvings)
        self.head = kernel(1, channels, outputs)

    def __call__(self, c_GxSxC: jax.Array) -> jax.Array:
        """Encoding to weights, G x S x outputs."""
        x = c_GxSxC[None]
        x = jnp.concatenate([x, _normalised_conv(x, self.stem[...])], -1)
        for i, block in enumerate(self.blocks):
            for kernel in block:
                x = jnp.concatenate(
                    [x, _normalised_conv(_leaky(x), kernel[...])], -1
                )
            if i < len(self.halvings):
                x = _normalised_conv(_leaky(x), self.halvings[i][...])
        return _normalised_conv(_leaky(x), self.head[...])[0]


def _leaky(x):
    return jax.nn.leaky_relu(x, 0.02)


def _normalised_conv(x, w):
    return nn.conv(x, w / jnp.linalg.norm(w.ravel()))


def smash(config: SmashConfig, encoding: Encoding, target: Target) -> Generator:
    """SMASH's generator. phi: ``hyper``, the hypernetwork's parameters, and ``shared``, all weights not generated.

    What the target has per node, and is not generated, is shared by all nodes. Weight decay applies to shared kernels
    only.
    """

    def module(key):
        return HyperNet(
            encoding.channels, encoding.weights, config, nnx.Rngs(params=key)
        )

    abstract = nnx.eval_shape(lambda: module(jax.random.key(0)))
    graphdef, treedef = (
        nnx.graphdef(abstract),
        jax.tree.structure(nnx.state(abstract)),
    )
    names = [
        name for name in target.weight_spec if name not in encoding.generated
    ]
    nodes = {name: target.nodes[name] for name in names}
    shared = standalone(
        {
            name: jax.tree.map(_one, target.weight_spec[name], nodes[name])
            for name in names
        },
        nodes,
    )

    def init(key):
        hyper_key, shared_key = jax.random.split(key)
        return {
            "hyper": jax.tree.leaves(nnx.state(module(hyper_key))),
            "shared": shared.init(shared_key),
        }

    def generate(phi, arch):
        hyper = nnx.merge(graphdef, jax.tree.unflatten(treedef, phi["hyper"]))
        return {
            **phi["shared"],
            **encoding.decode(hyper(encoding.encode(arch)), arch),
        }

    def decay(phi):
        return {
            "hyper": jax.tree.map(lambda w: False, phi["hyper"]),
            "shared": shared.decay(phi["shared"]),
        }

    return Generator(init, generate, decay)


def _one(leaf: jax.ShapeDtypeStruct, ids) -> jax.ShapeDtypeStruct:
    """One kernel for all nodes."""
    return jax.ShapeDtypeStruct(
        (1,) * ids.ndim + leaf.shape[ids.ndim :], leaf.dtype
    )
