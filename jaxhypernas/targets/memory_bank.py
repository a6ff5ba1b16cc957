"""SMASH's networks, written for one architecture (Brock et al. 2018, section 3.1).

An op is BN, ReLU, 1x1, BN, ReLU, then up to four convolutions, each but the first of
a path with a ReLU before it. Deviations from the published code:

1. BatchNorm uses the statistics of the evaluated batch and has no affine parameters.
   It stands around the 1x1 of every op, in transitions and before the head, in search
   and retraining alike. (Published: search without BatchNorm in ops and with running
   averages elsewhere, retraining with it.)
2. The stem has no ReLU of its own, in search and retraining alike. (Published: one in
   search only.)
3. A 1x1 may have up to ``max_bottleneck * k * N`` outputs, as stated in the paper; the
   published search truncates at ``k * N``.
4. Transitions pool before their 1x1, which commutes with it and costs a quarter.
5. A kernel cut from a larger one is scaled by the square root of their fan-ins' ratio:
   whatever its size, it starts with the variance that its own fan-in asks for, as if
   it had been initialised alone.
6. An op's output is scaled by `OUTPUT_SCALE` before it is added. With BatchNorm in
   ops, shared kernels otherwise drown the contents of a bank, and training finds
   nothing that holds for most architectures (experiments/LOG.md).
"""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxhypernas.archs.memory_bank import (
    BLOCKS,
    CONVS,
    Layout,
    MemoryBankArch,
    active_convs,
    layout,
)
from jaxhypernas.archs.sizes import MemoryBankConfig
from jaxhypernas.numerics.convolution import conv
from jaxhypernas.numerics.dynamic_convolution import dynamic_conv
from jaxhypernas.numerics.normalisation import batch_norm
from jaxhypernas.numerics.pooling import average_pool
from jaxhypernas.targets.head import with_head
from jaxhypernas.targets.memory_bank_kernels import (
    bank_routes,
    cut_kernel,
    one_by_one_kernels,
)
from jaxhypernas.targets.modules.memory_bank import memory_bank_module
from jaxhypernas.types import (
    ImageShape,
    Module,
    Params,
    Target,
    WeightSpec,
)

OUTPUT_SCALE = 0.1
"""Factor of an op's output before it is added to the memory."""


def memory_bank(
    config: MemoryBankConfig, image: ImageShape, classes: int
) -> Target:
    """SMASH's networks as a target.

    Weights theta, with k, N as in `MemoryBankConfig`:

    - ``stem``: K x K x image channels x input channels of block 0.
    - ``op[b]``: rows x (max_bottleneck * k * N), the 1x1 kernels of block b. Each op's
      rows, one per channel read, are below the rows of the op before, as in SMASH.
    - ``conv[b][0..3]``: slots x K x K x inputs x outputs. Each op's kernels are cut to
      size at the centre and the first channels.
    - ``transition[b]``: memory channels x input channels of the next block.
    - ``head``: memory channels x classes; ``bias``: classes.

    A leading axis of size 1 in ``conv`` stands for kernels that all ops share.

    Args:
        config: The sizes of the networks.
        image: Height, width and channels of the images.
        classes: Number of classes, L.

    Returns:
        The target.
    """
    config = config.of_images(image)
    weight_spec = _weight_spec(config, image, classes)

    def module(arch: MemoryBankArch, theta: Params) -> Module:
        return memory_bank_module(
            config, OUTPUT_SCALE, image, classes, arch, theta
        )

    features = partial(_features, config, image)
    return Target(
        weight_spec,
        with_head(features),
        _nodes(config, weight_spec),
        module=module,
        features=features,
    )


def _weight_spec(
    config: MemoryBankConfig, image: ImageShape, classes: int
) -> WeightSpec:
    N = config.unit
    K = config.max_kernel
    output = config.units * N
    bottleneck = config.max_bottleneck * output
    memory_3 = [units * N for units in config.memory_units]
    input_3 = [units * N for units in config.in_units]
    rows_3 = [n * config.compression * N for n in config.positions]

    def leaf(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    def kernels(inputs):
        return leaf(config.slots, K, K, inputs, output)

    # Convolutions 0 and 2 take the output of the 1x1, 1 and 3 that of another.
    convs = [kernels((bottleneck, output)[c % 2]) for c in range(CONVS)]
    stem = config.stem_kernel
    return {
        "stem": leaf(stem, stem, image[2], input_3[0]),
        "op": [leaf(rows, bottleneck) for rows in rows_3],
        "conv": [list(convs) for _ in range(BLOCKS)],
        "transition": [
            leaf(memory_3[b], input_3[b + 1]) for b in range(BLOCKS - 1)
        ],
        "head": leaf(memory_3[-1], classes),
        "bias": leaf(classes),
    }


def _nodes(config: MemoryBankConfig, weight_spec: WeightSpec) -> Any:
    """Graph nodes of all weights; see `Target.nodes`."""
    nodes = jax.tree.map(lambda _: np.array(-1, np.int32), weight_spec)
    for b in range(BLOCKS):
        # The graph has each block's input before the block's slots.
        first = b * (config.slots + 1) + 1
        ids = np.arange(config.slots, dtype=np.int32) + first
        nodes["conv"][b] = [ids] * CONVS
    return nodes


def _features(
    config: MemoryBankConfig,
    image: ImageShape,
    theta: Params,
    arch: MemoryBankArch,
    x_BxHxWxC: jax.Array,
) -> jax.Array:
    """Activations before the last layer: `Target.features`."""
    chex.assert_shape(x_BxHxWxC, (None, *image))
    N = config.unit
    place = layout(config, arch)

    x = conv(x_BxHxWxC, theta["stem"], config.stem_stride)
    for b in range(BLOCKS):
        # Input channels that do not fill a bank are dropped; other memory begins as 0.
        filled_C = jnp.arange(x.shape[-1]) < place.filled_3[b] * N
        x = jnp.where(filled_C[None, None, None], x, 0)
        empty_channels = config.memory_units[b] * N - x.shape[-1]
        memory = jnp.pad(x, ((0, 0),) * 3 + ((0, empty_channels),))

        rows, places = jax.tree.map(lambda v, b=b: v[b], (arch, place))
        x = _block(
            config, rows, places, theta["op"][b], theta["conv"][b], memory
        )
        if b < BLOCKS - 1:
            x = average_pool(jax.nn.relu(batch_norm(x)))
            x = x @ theta["transition"][b]

    return jax.nn.relu(batch_norm(x))


def _block(
    config: MemoryBankConfig,
    arch: MemoryBankArch,
    place: Layout,
    op_rows: jax.Array,
    convs: list[jax.Array],
    memory_BxHxWxC: jax.Array,
) -> jax.Array:
    """The memory after all ops of one block; ``arch`` and ``place`` are its rows."""
    memory_units = memory_BxHxWxC.shape[-1] // config.unit
    slots_P: dict[str, Any] = {
        "one_by_one": one_by_one_kernels(
            config, arch, place, op_rows, memory_units
        ),
        "route": bank_routes(config, arch, memory_units),
        "active": active_convs(arch),
        "units_out": place.units_out_3xP,
        "width": arch.width_3xP,
        "kernel": arch.kernel_3xPx4x2,
        "dilation": arch.dilation_3xPx4x2,
        "groups": arch.groups_3xPx4,
    }
    # A kernel that all ops share (leading axis 1) is not copied per slot.
    shared = [w[0] if w.shape[0] == 1 else None for w in convs]
    slots_P["conv"] = [None if w.shape[0] == 1 else w for w in convs]

    # Recomputed in the backward pass: results kept for it would be stored for empty
    # slots, too (1.7 times slower on CPU).
    @jax.checkpoint
    def op(memory, slot):
        kernels = [
            own if common is None else common
            for common, own in zip(shared, slot["conv"], strict=True)
        ]
        y = _op(config, slot, kernels, memory)
        route = jnp.kron(slot["route"], jnp.eye(config.unit))
        return memory + OUTPUT_SCALE * y @ route

    def keep(memory, slot):
        return memory

    # Empty slots branch around the op.
    def step(memory, slot):
        return lax.cond(slot["width"] > 0, op, keep, memory, slot), None

    return lax.scan(step, memory_BxHxWxC, slots_P)[0]


def _op(
    config: MemoryBankConfig,
    slot: dict[str, Any],
    kernels: list[jax.Array],
    memory_BxHxWxC: jax.Array,
) -> jax.Array:
    """All k * N channels of one op's output; those beyond its width are 0."""
    N = config.unit
    x = jax.nn.relu(batch_norm(memory_BxHxWxC)) @ slot["one_by_one"]
    x = jax.nn.relu(batch_norm(x))

    def convolve(c, x):
        units_in = slot["width"] if c % 2 else slot["units_out"]
        w = cut_kernel(
            kernels[c],
            slot["kernel"][c],
            slot["groups"][c],
            units_in * N,
            slot["width"] * N,
        )
        return dynamic_conv(
            x, w, slot["kernel"][c], slot["dilation"][c], config.extent
        )

    def then(c, y):
        """The second convolution of a path, where it is active."""
        return lax.cond(
            slot["active"][c] > 0,
            lambda y: convolve(c, jax.nn.relu(y)),
            lambda y: y,
            y,
        )

    first = then(1, convolve(0, x))
    second = lax.cond(
        slot["active"][2] > 0,
        lambda x: convolve(2, x),
        lambda x: jnp.zeros_like(first),
        x,
    )
    return first + then(3, second)
