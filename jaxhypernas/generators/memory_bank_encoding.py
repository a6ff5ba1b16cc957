"""The encoding of memory-bank networks for SMASH's hypernetwork.

It is that of Brock et al. 2018, section 3.2 and figure 3. The grid has k rows, each for
a share of a 1x1's outputs, and one position for every ``compression`` units read, in
the order of the ops; positions of all blocks are side by side. Its channels, in order:
bank read, banks written, block, output units, dilations, kernels, active convolutions,
groups.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxhypernas.archs.memory_bank import (
    BLOCKS,
    CONVS,
    Layout,
    MemoryBankArch,
    active_convs,
    layout,
)
from jaxhypernas.archs.sizes import MemoryBankConfig
from jaxhypernas.types import Array, Encoding, Params


def memory_bank_encoding(config: MemoryBankConfig) -> Encoding:
    """Lays out networks and the 1x1 kernels that SMASH generates.

    Args:
        config: The sizes of the networks.

    Returns:
        The encoding; ``decode`` gives the entry ``op`` of theta, each op's kernel
        divided by its norm.
    """
    rows_per_position = config.compression * config.unit
    columns_per_row = config.max_bottleneck * config.unit

    def encode(arch: MemoryBankArch) -> jax.Array:
        place = layout(config, arch)
        blocks = []
        for b in range(BLOCKS):
            rows, places = jax.tree.map(lambda v, b=b: v[b], (arch, place))
            blocks.append(_encode_block(config, b, rows, places))
        return jnp.concatenate(blocks, 1)

    def decode(w_kxSxW: jax.Array, arch: MemoryBankArch) -> Params:
        # Rows of the grid hold columns of the kernels; a position holds some rows.
        k, S, _ = w_kxSxW.shape
        w = w_kxSxW.reshape(k, S, rows_per_position, columns_per_row)
        w_SxRxkxO = w.transpose(1, 2, 0, 3)
        w_SxRxO = w_SxRxkxO.reshape(S, rows_per_position, k * columns_per_row)

        place = layout(config, arch)
        kernels = []
        start = 0
        for b, positions in enumerate(config.positions):
            w_of_block = w_SxRxO[start : start + positions]
            places = jax.tree.map(lambda v, b=b: v[b], place)
            kernels.append(_normalised_kernels(config, w_of_block, places))
            start += positions
        return {"op": kernels}

    return Encoding(
        channels=_channels(config),
        weights=rows_per_position * columns_per_row,
        generated=("op",),
        encode=encode,
        decode=decode,
    )


def _channels(config: MemoryBankConfig) -> int:
    kernels = len(_kernels(config))
    groups = len(config.group_choices)
    # Dilations and kernels along both axes, whether it is active, and groups.
    per_conv = 2 * config.max_dilation + 2 * kernels + 1 + groups
    return 2 * config.max_banks + BLOCKS + config.units + CONVS * per_conv


def _kernels(config: MemoryBankConfig) -> range:
    return range(3, config.max_kernel + 1, 2)


def _normalised_kernels(
    config: MemoryBankConfig, w_SxRxO: jax.Array, place: Layout
) -> jax.Array:
    """The stacked 1x1 kernels of one block, each op's divided by its norm."""
    S, R, O = w_SxRxO.shape
    op_SxP = _op_of_position(config, S, place).astype(w_SxRxO.dtype)

    # Only the columns that an op uses count for its norm.
    columns_Px1 = (place.units_out_3xP * config.unit)[:, None]
    live_PxO = (jnp.arange(O)[None] < columns_Px1).astype(w_SxRxO.dtype)
    live_SxO = op_SxP @ live_PxO
    squares_SxO = jnp.square(w_SxRxO).sum(1) * live_SxO
    squares_P = op_SxP.T @ squares_SxO.sum(1)
    scale_S = op_SxP @ jax.lax.rsqrt(jnp.maximum(squares_P, 1e-12))
    return (w_SxRxO * scale_S[:, None, None]).reshape(S * R, -1)


def _op_of_position(
    config: MemoryBankConfig, positions: int, place: Layout
) -> jax.Array:
    """Marks the op whose weights lie at each position of a block: bool, S x P."""
    position_Sx1 = jnp.arange(positions)[:, None]
    start_P = place.start_3xP
    end_P = start_P + place.units_in_3xP // config.compression
    return (position_Sx1 >= start_P[None]) & (position_Sx1 < end_P[None])


def _encode_block(
    config: MemoryBankConfig, b: int, arch: MemoryBankArch, place: Layout
) -> jax.Array:
    """c_kxSxC of block b, from its rows of the architecture and the layout."""
    positions = config.positions[b]
    op_SxP = _op_of_position(config, positions, place).astype(jnp.int32)
    read_SxM = _banks_read(config, op_SxP, arch, place)
    op_SxF = op_SxP @ _op_features(config, b, arch)
    feature_SxC = jnp.concatenate([read_SxM, op_SxF], 1)

    # An op fills as many rows as its 1x1 has outputs for.
    rows_P = -(-place.units_out_3xP // config.max_bottleneck)
    live_kxS = jnp.arange(config.units)[:, None] < (op_SxP @ rows_P)[None]
    return jnp.where(live_kxS[..., None] & (feature_SxC > 0)[None], 1.0, -1.0)


def _banks_read(
    config: MemoryBankConfig,
    op_SxP: jax.Array,
    arch: MemoryBankArch,
    place: Layout,
) -> jax.Array:
    """1 where a position holds units of the bank, int32 S x M."""
    # Units U of each position, counted through the op's concatenated input.
    position_Sx1 = jnp.arange(len(op_SxP))[:, None]
    first_SxP = (position_Sx1 - place.start_3xP[None]) * config.compression
    offset_1x1xU = jnp.arange(config.compression)[None, None]
    unit_SxPxU = first_SxP[:, :, None] + offset_1x1xU

    # A bank's rank among those that the op reads: its place in that input.
    rank_PxM = jnp.cumsum(arch.read_3xPxM, -1) - 1
    rank_PxM = jnp.where(arch.read_3xPxM > 0, rank_PxM, -1)
    bank_SxPxUx1 = (unit_SxPxU // arch.bank_3)[..., None]
    at_SxPxM = (bank_SxPxUx1 == rank_PxM[None, :, None]).any(2)
    return (at_SxPxM.astype(jnp.int32) * op_SxP[:, :, None]).max(1)


def _op_features(
    config: MemoryBankConfig, b: int, arch: MemoryBankArch
) -> jax.Array:
    """The channels that describe each op of block b but its reads, int32 P x F."""
    P = arch.width_3xP.shape[0]
    active_Px4 = active_convs(arch)
    block_1xb = jnp.array([[int(i == b) for i in range(BLOCKS)]], jnp.int32)
    dilations = range(1, config.max_dilation + 1)

    def per_conv(values: Array, choices: Sequence[int]) -> jax.Array:
        """Settings of convolutions, 0 where a convolution is inactive."""
        hot_Px4xF = _one_hot(values, choices).reshape(P, CONVS, -1)
        return (hot_Px4xF * active_Px4[..., None]).reshape(P, -1)

    features = [
        arch.write_3xPxM,
        jnp.broadcast_to(block_1xb, (P, BLOCKS)),
        _one_hot(arch.width_3xP, range(1, config.units + 1)),
        per_conv(arch.dilation_3xPx4x2, dilations),
        per_conv(arch.kernel_3xPx4x2, _kernels(config)),
        active_Px4,
        per_conv(arch.groups_3xPx4, config.group_choices),
    ]
    return jnp.concatenate(features, 1)


def _one_hot(values: Array, choices: Sequence[int]) -> jax.Array:
    """1 where the value is the choice, on a new last axis; 0 for no choice."""
    aligned = jnp.array(choices).reshape((1,) * values.ndim + (-1,))
    return (values[..., None] == aligned).astype(jnp.int32)
