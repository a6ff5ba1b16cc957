"""Networks of SMASH's memory-bank space, written for one architecture (Brock et al. 2018, section 3.1).

An op is BN, ReLU, 1x1, BN, ReLU, then up to four convolutions, each but the first with a ReLU before it. Deviations
from the published code:
1. BatchNorm uses the statistics of the evaluated batch and has no affine parameters, around the 1x1 of every op, in
   transitions and before the head, in search and retraining alike. (Published: search without BatchNorm in ops and
   with running averages elsewhere, retraining with it.)
2. The stem has no ReLU of its own, in search and retraining alike. (Published: one in search only.)
3. A 1x1 may have up to ``max_bottleneck * k * N`` outputs, as stated; the published search truncates at ``k * N``.
4. Transitions pool before their 1x1, which commutes with it and costs a quarter.
5. A kernel cut from a larger one is scaled by the square root of their fan-ins' ratio: whatever its size, it starts
   with the variance that its own fan-in asks for, as if it had been initialised alone.
6. An op's output is scaled by OUTPUT_SCALE before it is added: with BatchNorm in ops, shared kernels otherwise drown
   what a bank already holds, and nothing is learned that holds for most architectures (experiments/LOG.md).
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxhypernas.archs.memory_bank import (
    BLOCKS,
    CONVS,
    MemoryBankArch,
    MemoryBankConfig,
    active_convs,
    layout,
)
from jaxhypernas.numerics import nn
from jaxhypernas.types import Params, Target

OUTPUT_SCALE = 0.1


def memory_bank(
    config: MemoryBankConfig, image: tuple[int, int, int], classes: int
) -> Target:
    """The target for images of shape (H, W, C).

    Weights theta:
        stem: K x K x C x input channels of block 0.
        op[b]: rows x (max_bottleneck * k * N): the 1x1 kernels of block b, each op's rows (one per channel read) under
            the last's, as SMASH stacks them.
        conv[b][0..3]: slots x K x K x in x out: each op's kernels, cut to size at the centre and the first channels.
        transition[b]: memory channels x next input channels. head, bias: memory channels x classes, classes.
    """
    N, K = config.unit, config.max_kernel
    wide, narrow = config.max_bottleneck * config.units * N, config.units * N
    memory, inputs = (
        [m * N for m in config.memory_units],
        [n * N for n in config.in_units],
    )

    def leaf(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    weight_spec = {
        "stem": leaf(
            config.stem_kernel, config.stem_kernel, image[2], inputs[0]
        ),
        "op": [
            leaf(positions * config.compression * N, wide)
            for positions in config.positions
        ],
        "conv": [
            [
                leaf(config.slots, K, K, (wide, narrow)[c % 2], narrow)
                for c in range(CONVS)
            ]
            for _ in range(BLOCKS)
        ],
        "transition": [
            leaf(memory[b], inputs[b + 1]) for b in range(BLOCKS - 1)
        ],
        "head": leaf(memory[-1], classes),
        "bias": leaf(classes),
    }

    nodes = jax.tree.map(lambda _: np.array(-1, np.int32), weight_spec)
    for b in range(BLOCKS):  # the graph has each block's input before its slots
        ids = (
            np.arange(config.slots, dtype=np.int32) + b * (config.slots + 1) + 1
        )
        nodes["conv"][b] = [ids] * CONVS

    def apply(
        theta: Params, arch: MemoryBankArch, x_BxHxWxC: jax.Array
    ) -> jax.Array:
        chex.assert_shape(x_BxHxWxC, (None, *image))
        place = layout(config, arch)
        x = nn.conv(x_BxHxWxC, theta["stem"], config.stem_stride)
        for b in range(BLOCKS):
            filled_C = jnp.arange(inputs[b]) < place.filled_3[b] * N
            x = jnp.pad(
                jnp.where(filled_C[None, None, None], x, 0),
                ((0, 0),) * 3 + ((0, memory[b] - inputs[b]),),
            )
            rows, places = jax.tree.map(lambda v, b=b: v[b], (arch, place))
            x = _block(config, rows, places, theta, b, x)
            if b < BLOCKS - 1:
                x = (
                    nn.average_pool(jax.nn.relu(nn.batch_norm(x)))
                    @ theta["transition"][b]
                )
        x_BxC = jax.nn.relu(nn.batch_norm(x)).mean((1, 2))
        return x_BxC @ theta["head"] + theta["bias"][None]

    return Target(weight_spec, apply, nodes)


def _block(config, arch, place, theta, b, memory_BxHxWxC):
    """All ops of one block; ``arch`` and ``place`` are its rows. Empty slots branch around the op."""
    slots = {
        "w": _one_by_one(
            config, arch, place, theta["op"][b], config.memory_units[b]
        ),
        "route": _routes(config, arch, config.memory_units[b]),
        "active": active_convs(arch),
        "units_out": place.units_out_3xP,
        "width": arch.width_3xP,
        "kernel": arch.kernel_3xPx4x2,
        "dilation": arch.dilation_3xPx4x2,
        "groups": arch.groups_3xPx4,
    }
    # A kernel of leading axis 1 is shared by all ops: it isn't copied per slot.
    shared = [w[0] if w.shape[0] == 1 else None for w in theta["conv"][b]]
    slots["conv"] = [None if w.shape[0] == 1 else w for w in theta["conv"][b]]

    def op(memory, slot):
        convs = [
            s if c is None else c
            for s, c in zip(shared, slot["conv"], strict=True)
        ]
        y = _op(config, slot, convs, memory)
        return memory + OUTPUT_SCALE * y @ jnp.kron(
            slot["route"], jnp.eye(config.unit)
        )

    # Recomputed in the backward pass: what it would store is stored for empty slots, too (1.7x slower on CPU).
    op = jax.checkpoint(op)

    def step(memory, slot):
        return lax.cond(
            slot["width"] > 0, op, lambda memory, _: memory, memory, slot
        ), None

    return lax.scan(step, memory_BxHxWxC, slots)[0]


def _op(config, slot, convs, memory_BxHxWxC):
    """One op's output, all k * N channels of it, those beyond its width 0."""
    x = jax.nn.relu(nn.batch_norm(memory_BxHxWxC)) @ slot["w"]
    x = jax.nn.relu(nn.batch_norm(x))

    def conv(c, x):
        units_in = slot["width"] if c % 2 else slot["units_out"]
        w = _cut(
            convs[c],
            slot["kernel"][c],
            slot["groups"][c],
            units_in * config.unit,
            slot["width"] * config.unit,
        )
        return nn.dynamic_conv(
            x, w, slot["kernel"][c], slot["dilation"][c], config.extent
        )

    first = conv(0, x)
    first = lax.cond(
        slot["active"][1] > 0,
        lambda y: conv(1, jax.nn.relu(y)),
        lambda y: y,
        first,
    )
    second = lax.cond(
        slot["active"][2] > 0,
        lambda x: conv(2, x),
        lambda x: jnp.zeros_like(first),
        x,
    )
    second = lax.cond(
        slot["active"][3] > 0,
        lambda y: conv(3, jax.nn.relu(y)),
        lambda y: y,
        second,
    )
    return first + second


def _cut(w_KxKxIxO, kernel_2, groups, channels_in, channels_out):
    """The dense kernel of a grouped convolution with so many channels: zero between groups and outside."""
    K, _, I, O = w_KxKxIxO.shape
    fan_in = kernel_2[0] * kernel_2[1] * (channels_in // groups)
    scale = jnp.sqrt(K * K * I / fan_in.astype(jnp.float32))
    row_I, column_O, per_group = (
        jnp.arange(I),
        jnp.arange(O),
        channels_in // groups,
    )
    # Each group uses the same first rows of the shared kernel. Moved by a 0/1 product: its gradient is one, too.
    source_IxI = (
        jnp.arange(I)[None, :] == (row_I % per_group)[:, None]
    ).astype(w_KxKxIxO.dtype)
    same_group_IxO = (row_I // per_group)[:, None] == (
        column_O // (channels_out // groups)
    )[None, :]
    live_IxO = (
        same_group_IxO
        & (row_I < channels_in)[:, None]
        & (column_O < channels_out)[None, :]
    )
    return (
        jnp.where(
            live_IxO[None, None],
            jnp.einsum("yxjo,ij->yxio", w_KxKxIxO, source_IxI),
            0,
        )
        * scale
    )


def _one_by_one(config, arch, place, rows_RxO, memory_units):
    """Each slot's 1x1 kernel over the whole memory, P x C x O: the stacked rows moved to the channels they read."""
    unit_M = jnp.arange(memory_units)
    bank_M = unit_M // arch.bank_3
    rank_PxM = (jnp.cumsum(arch.read_3xPxM, -1) - 1)[:, bank_M]
    source_PxM = (
        (place.start_3xP * config.compression)[:, None]
        + rank_PxM * arch.bank_3
        + (unit_M % arch.bank_3)[None]
    )
    rows_UxNxO = rows_RxO.reshape(-1, config.unit, rows_RxO.shape[1])
    w_PxMxNxO = rows_UxNxO.at[source_PxM].get(mode="clip")
    live_PxM = arch.read_3xPxM[:, bank_M] > 0
    live_PxO = (
        jnp.arange(rows_RxO.shape[1])[None]
        < (place.units_out_3xP * config.unit)[:, None]
    )
    live = live_PxM[:, :, None, None] & live_PxO[:, None, None, :]
    return jnp.where(live, w_PxMxNxO, 0).reshape(
        config.slots, -1, rows_RxO.shape[1]
    )


def _routes(config, arch, memory_units):
    """0/1 maps from each op's output units to the memory units it adds to, P x k x M; chunks cycle over banks."""
    unit_M = jnp.arange(memory_units)
    bank_M = unit_M // arch.bank_3
    rank_PxM = (jnp.cumsum(arch.write_3xPxM, -1) - 1)[:, bank_M]
    chunks_Px1 = jnp.maximum(arch.width_3xP // arch.bank_3, 1)[:, None]
    source_PxM = (
        rank_PxM % chunks_Px1 * arch.bank_3 + (unit_M % arch.bank_3)[None]
    )
    written_PxM = arch.write_3xPxM[:, bank_M] > 0
    routed = written_PxM[:, None] & (
        source_PxM[:, None] == jnp.arange(config.units)[None, :, None]
    )
    return routed.astype(jnp.float32)
