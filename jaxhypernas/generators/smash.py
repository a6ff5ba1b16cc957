"""SMASH's hypernetwork (Brock et al. 2018, section 3.2): an encoding becomes weights.

The architecture becomes an image whose positions are places in the generated weights
and whose channels describe the network there; a fully convolutional DenseNet maps it
to the weights. All other weights are learned and shared by all architectures.
Deviations from the published code:

1. A channel is +1 for an active convolution, as for everything else. (Published: -1,
   the value of "absent".)
2. A channel means the same throughout training. (Published: kernel channels move while
   the largest kernel grows.)
3. Rows are marked for the outputs of the generated 1x1 (published: of the op), and all
   its columns are generated.
4. There is no channel of noise: scores of one architecture are equal.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxhypernas.generators.configs import SmashConfig
from jaxhypernas.generators.hyper import hyper_generator
from jaxhypernas.generators.standalone import standalone
from jaxhypernas.numerics.convolution import conv
from jaxhypernas.types import Arch, Encoding, Generator, Params, Target


class HyperNet(nnx.Module):
    """A fully convolutional DenseNet from encodings to weights.

    It has no biases and no BatchNorm; each kernel, [K, K, inputs, outputs], is divided
    by its norm; activations are leaky ReLU with slope 0.02.

    Args:
        channels: Channels of the encoding, C.
        outputs: Weights per place of the grid.
        config: The size of the hypernetwork.
        rngs: Random keys; stream ``params`` is used.
    """

    def __init__(
        self, channels: int, outputs: int, config: SmashConfig, rngs: nnx.Rngs
    ):
        def kernel(size, inputs, outputs):
            init = nnx.initializers.orthogonal()
            shape = (size, size, inputs, outputs)
            return nnx.Param(init(rngs.params(), shape, jnp.float32))

        self.stem = kernel(3, channels, config.stem)
        channels += config.stem

        # Each convolution of a block takes all channels before it; between blocks
        # the channels are halved.
        blocks = []
        halvings = []
        for i, layers in enumerate(config.layers):
            block = []
            for _ in range(layers):
                block.append(kernel(3, channels, config.growth))
                channels += config.growth
            blocks.append(nnx.List(block))
            if i < len(config.layers) - 1:
                halvings.append(kernel(3, channels, channels // 2))
                channels //= 2

        self.blocks = nnx.List(blocks)
        self.halvings = nnx.List(halvings)
        self.head = kernel(1, channels, outputs)

    def __call__(self, c_GxSxC: jax.Array) -> jax.Array:
        """Maps an encoding to weights.

        Args:
            c_GxSxC: The encoding of one architecture.

        Returns:
            The weights at each place of the grid, [G, S, outputs].
        """
        chex.assert_rank(c_GxSxC, 3)
        x = c_GxSxC[None]
        x = jnp.concatenate([x, _normalised_conv(x, self.stem[...])], -1)
        for i, block in enumerate(self.blocks):
            for kernel in block:
                added = _normalised_conv(_leaky(x), kernel[...])
                x = jnp.concatenate([x, added], -1)
            if i < len(self.halvings):
                x = _normalised_conv(_leaky(x), self.halvings[i][...])
        return _normalised_conv(_leaky(x), self.head[...])[0]


def smash(
    config: SmashConfig, encoding: Encoding, target: Target
) -> Generator:
    """SMASH's generator.

    phi has ``hyper``, the hypernetwork's parameters, and ``shared``, all weights that
    are not generated. A weight that the target has per node, and that is not
    generated, is shared by all nodes. Weight decay applies to shared kernels only.

    Args:
        config: The size of the hypernetwork.
        encoding: The layout of architectures and weights on one grid.
        target: The networks to generate weights for.

    Returns:
        The generator.

    Example::

        generator = smash(SmashConfig(), graph_encoding(space, target), target)
        phi = generator.init(jax.random.key(0))
        theta = generator.generate(phi, arch)
    """

    def make_module(rngs: nnx.Rngs) -> HyperNet:
        return HyperNet(encoding.channels, encoding.weights, config, rngs)

    def generate_weights(hyper_net: HyperNet, arch: Arch) -> Params:
        return encoding.decode(hyper_net(encoding.encode(arch)), arch)

    # All nodes share a weight that is not generated.
    shared_spec = {}
    shared_nodes = {}
    for name, spec in target.weight_spec.items():
        if name not in encoding.generated:
            nodes = target.nodes[name]
            shared_spec[name] = jax.tree.map(_for_all_nodes, spec, nodes)
            shared_nodes[name] = nodes

    shared = standalone(shared_spec, shared_nodes)
    return hyper_generator(make_module, generate_weights, shared)


def _for_all_nodes(
    leaf: jax.ShapeDtypeStruct, ids: Any
) -> jax.ShapeDtypeStruct:
    """One kernel for all nodes: axes that count nodes have size 1."""
    shape = (1,) * ids.ndim + leaf.shape[ids.ndim :]
    return jax.ShapeDtypeStruct(shape, leaf.dtype)


def _leaky(x: jax.Array) -> jax.Array:
    return jax.nn.leaky_relu(x, 0.02)


def _normalised_conv(x: jax.Array, w: jax.Array) -> jax.Array:
    return conv(x, w / jnp.linalg.norm(w.ravel()))
