"""Random memory-bank networks, their perturbation and their canonical form.

Distribution, budget and perturbation are those of SMASH's published code (Brock et al.
2018, section 3.1). Deviations:

1. A sampled block also ends when its slots are used up.
2. A perturbed op is repaired until it is valid. (The published code may leave reads of
   banks that nothing wrote, dilations too large for a new kernel, fewer writes than an
   op's output has chunks, or ops beyond the budget.)
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.archs.memory_bank import (
    BLOCKS,
    CONVS,
    MemoryBankArch,
    active_convs,
    banks_per_read,
    empty,
    max_dilation,
)
from jaxhypernas.archs.sizes import MemoryBankConfig
from jaxhypernas.types import Array

OP_SET_PROBABILITIES = np.array([0.05, 0.10, 0.15, 0.25, 0.45], np.float32)
"""Probability of each row of OP_SETS."""

MUTATION_RATE = 0.05
"""Probability that a mutation draws an element of an op again."""


def sample(
    config: MemoryBankConfig, key: jax.Array, progress: jax.Array | float = 1.0
) -> MemoryBankArch:
    """Draws a random network.

    Args:
        config: The sizes of the networks.
        key: A random key, consumed.
        progress: How far training has come, 0 to 1. Budgets and kernels grow to
            their maxima in the first half of training.

    Returns:
        The network.
    """
    bank_key, share_key, build_key = jax.random.split(key, 3)
    ramp = jnp.minimum(2 * jnp.asarray(progress, jnp.float32), 1)
    share_3 = jax.random.uniform(
        share_key, (BLOCKS,), minval=0.3, maxval=0.5 + 0.5 * ramp
    )
    steps = jnp.floor((config.max_kernel - 3) // 2 * ramp).astype(jnp.int32)

    # A block's input must hold the smallest number of banks that an op can read.
    units_k = np.arange(1, config.units + 1)
    input_banks_3xk = np.array(config.in_units)[:, None] // units_k
    legal_3xk = input_banks_3xk >= banks_per_read(config, units_k)
    log_p_3xk = jnp.where(legal_3xk, 0.0, -jnp.inf)
    bank_3 = _categorical(bank_key, log_p_3xk) + 1

    return _redraw(
        config,
        build_key,
        empty(config)._replace(bank_3=bank_3),
        rate=1.0,
        share_3=share_3,
        max_kernel=3 + 2 * steps,
    )


def mutate(
    config: MemoryBankConfig, key: jax.Array, arch: MemoryBankArch
) -> MemoryBankArch:
    """Perturbs a network as SMASH does.

    Args:
        config: The sizes of the networks.
        key: A random key, consumed.
        arch: The network.

    Returns:
        The network with each element of each op drawn again with probability
        `MUTATION_RATE`, within the full budget. Banks keep their size, and no ops are
        added.
    """
    return _redraw(
        config,
        key,
        arch,
        rate=MUTATION_RATE,
        share_3=jnp.ones(BLOCKS),
        max_kernel=jnp.int32(config.max_kernel),
    )


def canonical(arch: MemoryBankArch) -> MemoryBankArch:
    """The representative of networks that compute the same functions.

    It resets the settings of inactive convolutions and orders an op's two equal paths
    (sets 1010 and 1111). It does not recognise renamed banks, or independent ops in
    another order.

    Args:
        arch: The network.

    Returns:
        A network with the same banks, reads, writes and sets of convolutions.
    """
    active = active_convs(arch)
    kernel = jnp.where(active[..., None] == 1, arch.kernel_3xPx4x2, 3)
    dilation = jnp.where(active[..., None] == 1, arch.dilation_3xPx4x2, 1)
    groups = jnp.where(active == 1, arch.groups_3xPx4, 1)

    # A convolution's settings as one number: paths compare by their convolutions.
    code = kernel[..., 0] * 8 + kernel[..., 1]
    code = (code * 4 + dilation[..., 0]) * 4 + dilation[..., 1]
    code = code * 64 + groups
    head, tail, other_head, other_tail = jnp.moveaxis(code, -1, 0)
    larger = (head > other_head) | ((head == other_head) & (tail > other_tail))
    symmetric = (arch.op_3xP == 1) | (arch.op_3xP == 4)
    swap_3xP = symmetric & larger

    def ordered(x: jax.Array) -> jax.Array:
        swap = swap_3xP.reshape(swap_3xP.shape + (1,) * (x.ndim - 2))
        return jnp.where(swap, x[:, :, np.array([2, 3, 0, 1])], x)

    return arch._replace(
        kernel_3xPx4x2=ordered(kernel),
        dilation_3xPx4x2=ordered(dilation),
        groups_3xPx4=ordered(groups),
    )


class _Slot(NamedTuple):
    """One op: a row of the fields of `MemoryBankArch` after the first."""

    read_M: Array
    write_M: Array
    width: Array
    op: Array
    kernel_4x2: Array
    dilation_4x2: Array
    groups_4: Array


class _Limits(NamedTuple):
    """Numbers that the ops of a block share; with a leading axis, of all blocks."""

    bank: Array
    """Units in a bank."""

    input_banks: Array
    """Banks that the block's input fills."""

    banks: Array
    """Largest number of banks written."""

    budget: Array
    """Positions of the encoding that the block may use."""


def _redraw(
    config: MemoryBankConfig,
    key: jax.Array,
    old: MemoryBankArch,
    rate: float,
    share_3: Array,
    max_kernel: Array,
) -> MemoryBankArch:
    """Draws elements of all ops again with probability ``rate``, or where invalid.

    ``share_3`` is the share of each block's budget that may be used.
    """
    bank_3 = old.bank_3
    most_added_3 = jnp.ceil(share_3 * (config.depth * config.units))
    input_banks_3 = jnp.array(config.in_units, jnp.int32) // bank_3
    banks_3 = jnp.minimum(
        input_banks_3 + most_added_3.astype(jnp.int32) // bank_3,
        jnp.array(config.memory_units, jnp.int32) // bank_3,
    )
    positions_3 = jnp.array(config.positions, jnp.float32)
    budget_3 = jnp.floor(share_3 * positions_3).astype(jnp.int32)
    limits = _Limits(bank_3, input_banks_3, banks_3, budget_3)

    redraw_block = partial(_redraw_block, config, rate, max_kernel)
    keys_3 = jax.random.split(key, BLOCKS)
    slots = jax.vmap(redraw_block)(keys_3, _Slot(*old[1:]), limits)
    return MemoryBankArch(bank_3, *slots)


def _redraw_block(
    config: MemoryBankConfig,
    rate: float,
    max_kernel: Array,
    key: jax.Array,
    old_P: _Slot,
    limits: _Limits,
) -> _Slot:
    """Walks the slots of one block; ``old_P`` has a leading axis P.

    An op that ``old_P`` lacks is added only where ``rate`` is 1.
    """
    bank = limits.bank
    index_M = jnp.arange(config.max_banks)
    least_cost = banks_per_read(config, bank) * bank // config.compression
    no_op = _Slot(*(x[0, 0] for x in empty(config)[1:]))

    def step(carry, inputs):
        # Banks are first written in order: banks 0 .. written - 1 hold something.
        written, used = carry
        key, old = inputs
        room = limits.budget - used
        exists = (room >= least_cost) & ((old.width > 0) | (rate >= 1))

        new = _redraw_slot(
            config, rate, max_kernel, key, old, limits, written, room
        )
        new = _choose(exists, new, no_op)
        last_written = (new.write_M * (index_M + 1)).max()
        cost = new.read_M.sum() * bank // config.compression
        return (jnp.maximum(written, last_written), used + cost), new

    keys_P = jax.random.split(key, config.slots)
    start = (limits.input_banks, jnp.int32(0))
    return jax.lax.scan(step, start, (keys_P, old_P))[1]


def _redraw_slot(
    config: MemoryBankConfig,
    rate: float,
    max_kernel: Array,
    key: jax.Array,
    old: _Slot,
    limits: _Limits,
    written: Array,
    room: Array,
) -> _Slot:
    """Draws elements of one op again with probability ``rate``, or where invalid."""
    coin_key, *keys = jax.random.split(key, 8)
    keep_7 = ~jax.random.bernoulli(coin_key, rate, (7,))

    # Each element is valid only with those before it, as they are now.
    valid = _can_read(config, old.read_M, limits.bank, written, room)
    fresh_M = _draw_reads(config, keys[0], limits.bank, written, room)
    read_M = _choose(keep_7[0] & valid, old.read_M, fresh_M)

    fresh = _draw_width(config, keys[1], limits.bank, read_M.sum())
    width = _choose(keep_7[1], old.width, fresh)

    chunks = width // limits.bank
    kept_M = _first_empty(old.write_M, written, limits.banks)
    fresh_M = _draw_writes(config, keys[2], chunks, written, limits.banks)
    enough = kept_M.sum() >= chunks
    write_M = _choose(keep_7[2] & enough, kept_M, fresh_M)

    fresh = _categorical(keys[3], jnp.log(jnp.asarray(OP_SET_PROBABILITIES)))
    op = _choose(keep_7[3], old.op, fresh)

    sizes = (max_kernel - 3) // 2 + 1
    fresh_4x2 = 3 + 2 * jax.random.randint(keys[4], (CONVS, 2), 0, sizes)
    kernel_4x2 = _choose(keep_7[4], old.kernel_4x2, fresh_4x2)

    most_4x2 = max_dilation(config, kernel_4x2)
    fresh_4x2 = jax.random.randint(keys[5], (CONVS, 2), 1, most_4x2 + 1)
    keep_4x2 = keep_7[5] & (old.dilation_4x2 <= most_4x2)
    dilation_4x2 = jnp.where(keep_4x2, old.dilation_4x2, fresh_4x2)

    group_choices = jnp.array(config.group_choices, jnp.int32)
    fresh_4 = jax.random.choice(keys[6], group_choices, (CONVS,))
    groups_4 = _choose(keep_7[6], old.groups_4, fresh_4)
    return _Slot(
        read_M, write_M, width, op, kernel_4x2, dilation_4x2, groups_4
    )


def _can_read(
    config: MemoryBankConfig,
    read_M: Array,
    bank: Array,
    written: Array,
    room: Array,
) -> Array:
    """Whether all banks read are written, and reading them is within the budget."""
    index_M = jnp.arange(config.max_banks)
    unwritten_M = jnp.where(index_M >= written, read_M, 0)
    cost = read_M.sum() * bank // config.compression
    return (unwritten_M.sum() == 0) & (cost <= room)


def _draw_reads(
    config: MemoryBankConfig,
    key: jax.Array,
    bank: Array,
    written: Array,
    room: Array,
) -> Array:
    """Draws banks to read, as 0/1 per bank.

    Their number is uniform, then cut to what the budget's ``room`` positions allow.
    """
    count_key, set_key = jax.random.split(key)
    step = banks_per_read(config, bank)
    number = step * jax.random.randint(count_key, (), 1, written // step + 1)
    most = room * config.compression // bank // step * step
    number = jnp.minimum(number, most)
    written_M = jnp.arange(config.max_banks) < written
    return _subset(set_key, written_M, number)


def _draw_width(
    config: MemoryBankConfig, key: jax.Array, bank: Array, reads: Array
) -> Array:
    """Draws units of output, a multiple of the bank.

    The probability falls with the distance from the number of units read.
    """
    units_k = jnp.arange(1, config.units + 1)
    distance_k = jnp.abs(units_k - reads * bank).astype(jnp.float32)
    p_k = 1 / (0.01 + 10 * distance_k)
    log_p_k = jnp.where(units_k % bank == 0, jnp.log(p_k), -jnp.inf)
    return 1 + _categorical(key, log_p_k)


def _draw_writes(
    config: MemoryBankConfig,
    key: jax.Array,
    chunks: Array,
    written: Array,
    banks: Array,
) -> Array:
    """Draws banks to write, as 0/1 per bank.

    There is at least one per chunk of output; each further bank is e times less likely.
    """
    count_key, set_key = jax.random.split(key)
    index_M = jnp.arange(config.max_banks)
    most_extra = jnp.maximum(written // 2 - chunks, 0)
    log_p_M = jnp.where(
        index_M <= most_extra, -index_M.astype(jnp.float32), -jnp.inf
    )
    number = chunks + _categorical(count_key, log_p_M)
    open_M = index_M < jnp.minimum(written + chunks, banks)
    return _first_empty(_subset(set_key, open_M, number), written, banks)


def _first_empty(write_M: Array, written: Array, banks: Array) -> Array:
    """Moves writes of new banks to the first empty banks.

    Written banks are then always a prefix.
    """
    index_M = jnp.arange(write_M.shape[0])
    new = jnp.where(index_M >= written, write_M, 0).sum()
    new = jnp.minimum(new, banks - written)
    first_M = (index_M < written + new).astype(jnp.int32)
    return jnp.where(index_M < written, write_M, first_M)


def _subset(key: jax.Array, candidates_M: Array, size: Array) -> Array:
    """A uniformly random subset of ``size`` of the marked positions, as 0/1."""
    # Uniform numbers are below 1: positions that are not marked come last.
    rank_M = jax.random.uniform(key, candidates_M.shape)
    order_M = jnp.where(candidates_M, rank_M, 2.0)
    return (jnp.argsort(jnp.argsort(order_M)) < size).astype(jnp.int32)


def _categorical(key: jax.Array, log_p: Array) -> jax.Array:
    """Random indices along the last axis of log-probabilities, int32."""
    return jax.random.categorical(key, log_p).astype(jnp.int32)


def _choose(condition: Array, a: Any, b: Any) -> Any:
    """The leaves of ``a`` where the condition holds, else of ``b``."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)
