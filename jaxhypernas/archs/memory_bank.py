"""SMASH's networks as integer arrays (Brock et al. 2018, section 3.1).

A network has three blocks, each with a memory of its own, which is divided into
banks. A block's input fills the first banks. An op reads a set of banks,
concatenated; applies a 1x1 convolution and up to four K x K convolutions; and adds
its output to a set of banks, cycling through the chunks of its output where it
writes more banks than it has chunks. The whole memory is the block's output,
downsampled between blocks.

Deviations from the published code:

1. Activations are ReLU, and there are no tanh-sigmoid gates. (The published code
   has gates off by default and says that they are broken.)
2. A block has a fixed number of op slots, `MemoryBankConfig.slots`.
"""

from typing import NamedTuple

import numpy as np

from jaxhypernas.archs.cells import array_module
from jaxhypernas.archs.sizes import MemoryBankConfig
from jaxhypernas.types import Array

BLOCKS = 3
"""Blocks of a network."""

CONVS = 4
"""Places for K x K convolutions in an op."""

OP_SETS = np.array(
    [[1, 0, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]],
    np.int32,
)
"""Legal sets of active convolutions. Convolutions 0 and 2 take the output of the 1x1,
1 follows 0, 3 follows 2; the outputs of the two paths are added."""


class MemoryBankArch(NamedTuple):
    """One network. A population has a leading axis."""

    bank_3: Array
    """Units of N channels in a bank of each block."""

    read_3xPxM: Array
    """1 where the op reads the bank."""

    write_3xPxM: Array
    """1 where the op writes the bank."""

    width_3xP: Array
    """Units of the op's output; 0 where the slot is empty."""

    op_3xP: Array
    """The op's set of convolutions, a row of OP_SETS."""

    kernel_3xPx4x2: Array
    """Height and width of each convolution's kernel: 3, 5 or 7."""

    dilation_3xPx4x2: Array
    """Dilation of each convolution along height and width."""

    groups_3xPx4: Array
    """Groups of each convolution."""


class Layout(NamedTuple):
    """Sizes and places that follow from the arrays, in units of N channels."""

    units_in_3xP: Array
    """Units that the op's 1x1 reads."""

    units_out_3xP: Array
    """Units of the 1x1's output, the bottleneck."""

    start_3xP: Array
    """First position of the 1x1's weights in the block's budget."""

    memory_3: Array
    """Units of memory written by the end of the block: the block's output."""

    filled_3: Array
    """Units of memory that the block's input fills."""


def layout(config: MemoryBankConfig, arch: MemoryBankArch) -> Layout:
    """Sizes of all 1x1 convolutions and memories.

    Args:
        config: The sizes of the networks.
        arch: One architecture, or NumPy arrays with any leading axes.

    Returns:
        The layout, NumPy for NumPy, with the same leading axes.
    """
    xp = array_module(arch.width_3xP)
    bank_3x1 = arch.bank_3[..., None]
    width = arch.width_3xP

    # The output of a 1x1 is a whole multiple of the op's, within three bounds.
    units_in = arch.read_3xPxM.sum(-1) * bank_3x1
    ratio = xp.clip(units_in // xp.maximum(width, 1), 1, config.bottleneck)
    units_out = xp.minimum(
        xp.minimum(ratio * width, units_in),
        config.max_bottleneck * config.units,
    )

    positions = units_in // config.compression
    start = xp.cumsum(positions, -1) - positions

    # Banks are first written in order: the last one written tells their number.
    in_units = xp.asarray(np.array(config.in_units, np.int32))
    filled_banks = in_units // arch.bank_3
    number_M = xp.arange(1, config.max_banks + 1, dtype=xp.int32)
    written = (arch.write_3xPxM.max(-2) * number_M[None]).max(-1)
    return Layout(
        units_in_3xP=units_in,
        units_out_3xP=units_out,
        start_3xP=start,
        memory_3=xp.maximum(written, filled_banks) * arch.bank_3,
        filled_3=filled_banks * arch.bank_3,
    )


def active_convs(arch: MemoryBankArch) -> Array:
    """Marks active convolutions.

    Args:
        arch: An architecture with any leading axes.

    Returns:
        0 or 1 for each convolution, [..., 3, P, 4], all 0 in empty slots; NumPy for
        NumPy.
    """
    xp = array_module(arch.width_3xP)
    exists = (arch.width_3xP > 0)[..., None]
    return xp.where(exists, xp.asarray(OP_SETS)[arch.op_3xP], 0)


def max_dilation(config: MemoryBankConfig, kernel: Array) -> Array:
    """Largest dilations of kernels: 3, 2 and 1 for kernels of 3, 5 and 7.

    Args:
        config: The sizes of the networks, which may allow less.
        kernel: Sizes of kernels along one axis of the image, any shape.

    Returns:
        The largest dilation of each, NumPy for NumPy.
    """
    xp = array_module(kernel)
    return xp.minimum(4 - (kernel - 1) // 2, config.max_dilation)


def banks_per_read(config: MemoryBankConfig, bank: Array) -> Array:
    """Numbers of banks read are multiples of this one: positions are read whole.

    Args:
        config: The sizes of the networks.
        bank: Units in a bank, any shape.

    Returns:
        1 where a bank has whole positions, ``compression`` where it has not; NumPy
        for NumPy.
    """
    xp = array_module(bank)
    return xp.where(bank % config.compression == 0, 1, config.compression)


def empty(config: MemoryBankConfig) -> MemoryBankArch:
    """A network without ops, in NumPy; its banks have 0 units and are to be set.

    Args:
        config: The sizes of the networks.

    Returns:
        The smallest settings in all slots.
    """
    slots = (BLOCKS, config.slots)
    return MemoryBankArch(
        bank_3=np.zeros(BLOCKS, np.int32),
        read_3xPxM=np.zeros((*slots, config.max_banks), np.int32),
        write_3xPxM=np.zeros((*slots, config.max_banks), np.int32),
        width_3xP=np.zeros(slots, np.int32),
        op_3xP=np.zeros(slots, np.int32),
        kernel_3xPx4x2=np.full((*slots, CONVS, 2), 3, np.int32),
        dilation_3xPx4x2=np.ones((*slots, CONVS, 2), np.int32),
        groups_3xPx4=np.ones((*slots, CONVS), np.int32),
    )
