"""Kernels of memory-bank networks, cut from shared ones and moved to their channels.

Shapes are static: kernels have the largest size, and zeros stand outside the part that
an op uses.
"""

import jax
import jax.numpy as jnp

from jaxhypernas.archs.memory_bank import Layout, MemoryBankArch
from jaxhypernas.archs.sizes import MemoryBankConfig
from jaxhypernas.types import Array


def cut_kernel(
    w_KxKxIxO: jax.Array,
    kernel_2: jax.Array,
    groups: jax.Array,
    channels_in: jax.Array,
    channels_out: jax.Array,
) -> jax.Array:
    """The dense kernel of a grouped convolution.

    Args:
        w_KxKxIxO: The largest kernel.
        kernel_2: Height and width of the part that is used; the convolution cuts it.
        groups: Number of groups.
        channels_in: Number of inputs that are used.
        channels_out: Number of outputs that are used.

    Returns:
        The kernel, [K, K, I, O], zero between groups and outside the used channels,
        scaled by the square root of the ratio of fan-ins.
    """
    K, _, I, O = w_KxKxIxO.shape
    per_group = channels_in // groups
    fan_in = kernel_2[0] * kernel_2[1] * per_group
    scale = jnp.sqrt(K * K * I / fan_in.astype(jnp.float32))
    row_I = jnp.arange(I)
    column_O = jnp.arange(O)

    # Each group uses the same first rows of the shared kernel. They are moved by a 0/1
    # product, so that the gradient is a product, too.
    source_IxI = jnp.arange(I)[None, :] == (row_I % per_group)[:, None]
    source_IxI = source_IxI.astype(w_KxKxIxO.dtype)
    w = jnp.einsum("yxjo,ij->yxio", w_KxKxIxO, source_IxI)

    group_of_row_I = row_I // per_group
    group_of_column_O = column_O // (channels_out // groups)
    live_IxO = (
        (group_of_row_I[:, None] == group_of_column_O[None, :])
        & (row_I < channels_in)[:, None]
        & (column_O < channels_out)[None, :]
    )
    return jnp.where(live_IxO[None, None], w, 0) * scale


def one_by_one_kernels(
    config: MemoryBankConfig,
    arch: MemoryBankArch,
    place: Layout,
    rows_RxO: jax.Array,
    memory_units: int,
) -> jax.Array:
    """Each op's 1x1 over the whole memory: rows moved to the channels they read.

    Args:
        config: The sizes of the networks.
        arch: The rows of one block.
        place: The layout of the block.
        rows_RxO: The block's stacked 1x1 kernels.
        memory_units: Units of the block's memory.

    Returns:
        Kernels [P, C, O] over the memory's C channels, zero where the op does not read.
    """
    O = rows_RxO.shape[1]
    unit_M = jnp.arange(memory_units)
    bank_M = unit_M // arch.bank_3

    # A unit's place in the op's concatenated input: its bank's rank among those read.
    rank_PxM = (jnp.cumsum(arch.read_3xPxM, -1) - 1)[:, bank_M]
    start_Px1 = (place.start_3xP * config.compression)[:, None]
    within_1xM = (unit_M % arch.bank_3)[None]
    source_PxM = start_Px1 + rank_PxM * arch.bank_3 + within_1xM

    rows_UxNxO = rows_RxO.reshape(-1, config.unit, O)
    w_PxMxNxO = rows_UxNxO.at[source_PxM].get(mode="clip")
    outputs_Px1 = (place.units_out_3xP * config.unit)[:, None]
    live_PxM = arch.read_3xPxM[:, bank_M] > 0
    live_PxO = jnp.arange(O)[None] < outputs_Px1
    live = live_PxM[:, :, None, None] & live_PxO[:, None, None, :]
    return jnp.where(live, w_PxMxNxO, 0).reshape(config.slots, -1, O)


def bank_routes(
    config: MemoryBankConfig, arch: MemoryBankArch, memory_units: int
) -> Array:
    """Maps each op's output units to the memory units that they are added to.

    Chunks of an op's output cycle over the banks it writes.

    Args:
        config: The sizes of the networks.
        arch: The rows of one block.
        memory_units: Units of the block's memory.

    Returns:
        0 or 1, float32 [P, k, memory units].
    """
    unit_M = jnp.arange(memory_units)
    bank_M = unit_M // arch.bank_3
    rank_PxM = (jnp.cumsum(arch.write_3xPxM, -1) - 1)[:, bank_M]
    # Empty slots have no chunks; a divisor of 1 keeps them defined.
    chunks_Px1 = jnp.maximum(arch.width_3xP // arch.bank_3, 1)[:, None]
    within_1xM = (unit_M % arch.bank_3)[None]
    source_PxM = rank_PxM % chunks_Px1 * arch.bank_3 + within_1xM

    written_PxM = arch.write_3xPxM[:, bank_M] > 0
    output_1xkx1 = jnp.arange(config.units)[None, :, None]
    routed = written_PxM[:, None] & (source_PxM[:, None] == output_1xkx1)
    return routed.astype(jnp.float32)
