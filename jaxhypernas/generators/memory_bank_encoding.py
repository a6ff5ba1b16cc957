"""The encoding of memory-bank networks for SMASH's hypernetwork (Brock et al. 2018, section 3.2 and figure 3).

The grid has k rows, each for a share of a 1x1's outputs, and one position for every ``compression`` units read, in the
order of the ops. Its channels, in order: bank read, banks written, block, output units, dilations, kernels, active
convolutions, groups.
"""

import jax
import jax.numpy as jnp

from jaxhypernas.archs.memory_bank import (
    BLOCKS,
    CONVS,
    MemoryBankArch,
    MemoryBankConfig,
    active_convs,
    layout,
)
from jaxhypernas.generators.smash import Encoding


def memory_bank_encoding(config: MemoryBankConfig) -> Encoding:
    """The encoding and the layout of the generated 1x1 kernels, all blocks' positions side by side."""
    kernels = range(3, config.max_kernel + 1, 2)
    per_conv = (
        2 * config.max_dilation
        + 2 * len(kernels)
        + 1
        + len(config.group_choices)
    )
    rows_per_position, columns_per_row = (
        config.compression * config.unit,
        config.max_bottleneck * config.unit,
    )

    def encode(arch: MemoryBankArch) -> jax.Array:
        """c_kxSxC of -1 and +1."""
        place = layout(config, arch)
        blocks = [
            _encode_block(
                config,
                b,
                jax.tree.map(lambda v, b=b: v[b], arch),
                jax.tree.map(lambda v, b=b: v[b], place),
            )
            for b in range(BLOCKS)
        ]
        return jnp.concatenate(blocks, 1)

    def decode(w_kxSxW: jax.Array, arch: MemoryBankArch) -> dict:
        """The stacked 1x1 kernels of each block, each op's divided by its norm."""
        k, S, _ = w_kxSxW.shape
        w = w_kxSxW.reshape(k, S, rows_per_position, columns_per_row).transpose(
            1, 2, 0, 3
        )
        w_SxRxO = w.reshape(S, rows_per_position, k * columns_per_row)
        place, start, blocks = layout(config, arch), 0, []
        for b, positions in enumerate(config.positions):
            op_SxP = _op_of_position(
                config, place.start_3xP[b], place.units_in_3xP[b], positions
            ).astype(w.dtype)
            w_SxRxO_b, start = (
                w_SxRxO[start : start + positions],
                start + positions,
            )
            live_PxO = (
                jnp.arange(w_SxRxO.shape[2])[None]
                < (place.units_out_3xP[b] * config.unit)[:, None]
            )
            squares_SxO = jnp.square(w_SxRxO_b).sum(1) * (
                op_SxP @ live_PxO.astype(w.dtype)
            )
            squares_P = op_SxP.T @ squares_SxO.sum(1)
            scale_S = op_SxP @ jax.lax.rsqrt(jnp.maximum(squares_P, 1e-12))
            blocks.append(
                (w_SxRxO_b * scale_S[:, None, None]).reshape(
                    positions * rows_per_position, -1
                )
            )
        return {"op": blocks}

    channels = 2 * config.max_banks + BLOCKS + config.units + CONVS * per_conv
    return Encoding(
        channels, rows_per_position * columns_per_row, ("op",), encode, decode
    )


def _op_of_position(config, start_P, units_in_P, positions):
    """Which op's weights lie at each position: bool S x P."""
    position_Sx1 = jnp.arange(positions)[:, None]
    return (position_Sx1 >= start_P[None]) & (
        position_Sx1 < (start_P + units_in_P // config.compression)[None]
    )


def _encode_block(config, b, arch, place):
    """c_kxSxC of one block, from its rows of the architecture and the layout."""
    positions = config.positions[b]
    op_SxP = _op_of_position(
        config, place.start_3xP, place.units_in_3xP, positions
    ).astype(jnp.int32)

    # The banks read at a position: those of its units, counted through the op's concatenated input.
    first_unit_SxP = (
        jnp.arange(positions)[:, None] - place.start_3xP[None]
    ) * config.compression
    unit_SxPxU = (
        first_unit_SxP[:, :, None] + jnp.arange(config.compression)[None, None]
    )
    rank_PxM = jnp.where(
        arch.read_3xPxM > 0, jnp.cumsum(arch.read_3xPxM, -1) - 1, -1
    )
    at_SxPxM = (
        ((unit_SxPxU // arch.bank_3)[..., None] == rank_PxM[None, :, None])
        .any(2)
        .astype(jnp.int32)
    )
    read_SxM = (at_SxPxM * op_SxP[:, :, None]).max(1)

    active_Px4 = active_convs(arch)

    def one_hot(values, choices):
        return (
            values[..., None]
            == jnp.array(choices).reshape((1,) * values.ndim + (-1,))
        ).astype(jnp.int32)

    def per_conv(hot_Px4xF):
        return (hot_Px4xF * active_Px4[..., None]).reshape(
            hot_Px4xF.shape[0], -1
        )

    P = arch.width_3xP.shape[0]
    op_features_PxF = jnp.concatenate(
        [
            arch.write_3xPxM,
            jnp.broadcast_to(
                jnp.array([[int(i == b) for i in range(BLOCKS)]], jnp.int32),
                (P, BLOCKS),
            ),
            one_hot(arch.width_3xP, range(1, config.units + 1)),
            per_conv(
                one_hot(
                    arch.dilation_3xPx4x2, range(1, config.max_dilation + 1)
                ).reshape(P, CONVS, -1)
            ),
            per_conv(
                one_hot(
                    arch.kernel_3xPx4x2, range(3, config.max_kernel + 1, 2)
                ).reshape(P, CONVS, -1)
            ),
            active_Px4,
            per_conv(one_hot(arch.groups_3xPx4, config.group_choices)),
        ],
        1,
    )
    feature_SxC = jnp.concatenate([read_SxM, op_SxP @ op_features_PxF], 1)
    rows_S = op_SxP @ -(-place.units_out_3xP // config.max_bottleneck)
    live_kxS = jnp.arange(config.units)[:, None] < rows_S[None]
    return jnp.where(live_kxS[..., None] & (feature_SxC > 0)[None], 1.0, -1.0)
