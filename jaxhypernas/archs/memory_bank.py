"""SMASH's networks as integer arrays: they read from and write to memory banks (Brock et al. 2018, section 3.1).

Three blocks, each with its own memory. A block's input fills the first banks; an op reads a set of banks
(concatenated), applies a 1x1 convolution and up to four K x K convolutions, and adds its output to a set of banks,
cycling through its chunks when it writes more banks than it has. The whole memory is the block's output, downsampled
between blocks.

Distribution, budget and perturbation are those of the published code. Deviations:
1. Activations are ReLU and there are no tanh-sigmoid gates (off by default in the published code, said to be broken).
2. A block has a fixed number of op slots; a sampled block ends when they are used up (`MemoryBankConfig.slots`).
3. A perturbed op is repaired until it is valid: the published code may leave reads of banks that nothing wrote,
   dilations too large for a new kernel, writes fewer than an op's chunks, or ops beyond the budget.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.types import Array, UserError

BLOCKS = 3
CONVS = 4
OP_SETS = np.array(
    [[1, 0, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]],
    np.int32,
)
"""Legal sets of active convolutions: 0 and 2 take the 1x1's output, 1 follows 0, 3 follows 2, both paths are added."""
OP_SET_PROBABILITIES = np.array([0.05, 0.10, 0.15, 0.25, 0.45], np.float32)
MUTATION_RATE = 0.05
MOST = 1000  # of any size: a typing error asks for more


@dataclass(frozen=True)
class MemoryBankConfig:
    """The size of the space. Defaults are the published CIFAR setting; `SMALL` trains on two CPU cores in minutes."""

    unit: int = 8  # N: channels of the smallest bank
    units: int = (
        8  # k: the largest op output and the largest bank have k * N channels
    )
    depth: int = 12  # reference layers per block: sets the budget
    widening: int = 4  # reference widening factor: sets channels and budget
    bottleneck: int = (
        4  # a 1x1 has at most so many times the op's output channels
    )
    max_bottleneck: int = 2  # ... and at most so many times k * N
    compression: int = (
        2  # the encoding has one position for this many units read
    )
    max_kernel: int = 7
    max_dilation: int = 3
    max_groups: int = 8
    stem_kernel: int = 7
    stem_stride: int = 1
    slots: int = 48  # op slots per block

    def __post_init__(self):
        for name, value in vars(self).items():
            if not 1 <= value <= MOST:
                raise UserError(
                    f"memory_bank.{name}: {value} must be at least 1 and at most {MOST}"
                )
        if self.max_kernel not in (3, 5, 7):
            raise UserError(
                f"memory_bank.max_kernel: {self.max_kernel} must be 3, 5 or 7"
            )
        if self.stem_kernel % 2 == 0:
            raise UserError(
                f"memory_bank.stem_kernel: {self.stem_kernel} must be odd"
            )
        if self.units < self.compression:
            raise UserError(
                f"memory_bank.units: {self.units} must be at least memory_bank.compression, {self.compression}"
            )
        if min(self.in_units) < self.units:
            raise UserError(
                f"memory_bank.widening: {self.widening} is too small for {self.units} units: raise it"
            )

    @property
    def in_units(self) -> tuple[int, int, int]:
        """Units of input per block: SMASH halves the memory's channels between blocks, in steps of 2N."""
        first = 2 * self.widening
        second = (first + 4 * self.widening) // 4 * 2
        return first, second, (second + 4 * self.widening) // 4 * 2

    @property
    def memory_units(self) -> tuple[int, int, int]:
        """Units of memory per block."""
        first, second, _ = self.in_units
        return (
            first + 4 * self.widening,
            second + 4 * self.widening,
            8 * self.widening,
        )

    @property
    def positions(self) -> tuple[int, int, int]:
        """Budget per block: positions of the encoding, each for ``compression`` units read."""
        return tuple(
            (units + self.depth * 2 * self.widening * 2**block)
            // self.compression
            for block, units in enumerate(self.in_units)
        )  # type: ignore[return-value]

    @property
    def max_banks(self) -> int:
        """M: banks of a block at most, for which there are places in the arrays."""
        return max(self.memory_units)

    @property
    def group_choices(self) -> tuple[int, ...]:
        """Divisors of N, so that every width can be grouped."""
        return tuple(
            g for g in range(1, self.max_groups + 1) if self.unit % g == 0
        )

    @property
    def extent(self) -> int:
        """The largest reach of a dilated kernel."""
        return max(
            (k - 1) * min(4 - (k - 1) // 2, self.max_dilation) + 1
            for k in range(3, self.max_kernel + 1, 2)
        )


SMALL = MemoryBankConfig(
    unit=2,
    units=4,
    depth=2,
    widening=2,
    max_bottleneck=1,
    max_kernel=5,
    max_dilation=2,
    max_groups=2,
    stem_kernel=3,
    slots=9,
)


def max_dilation(kernel: jax.Array, config: MemoryBankConfig) -> jax.Array:
    """Dilations 1..3, 1..2 and 1 for kernels 3, 5 and 7."""
    return jnp.minimum(4 - (kernel - 1) // 2, config.max_dilation)


class MemoryBankArch(NamedTuple):
    """One network. P slots per block, M banks at most, 4 convolutions per op with (height, width) settings."""

    bank_3: Array  # units per bank
    read_3xPxM: Array  # 1 where the op reads the bank
    write_3xPxM: Array  # 1 where it writes
    width_3xP: Array  # units of output; 0: the slot is empty
    op_3xP: Array  # row of OP_SETS
    kernel_3xPx4x2: Array  # 3, 5 or 7
    dilation_3xPx4x2: Array
    groups_3xPx4: Array


class _Slot(NamedTuple):
    """One op: a row of the arrays above."""

    read_M: jax.Array
    write_M: jax.Array
    width: jax.Array
    op: jax.Array
    kernel_4x2: jax.Array
    dilation_4x2: jax.Array
    groups_4: jax.Array


def _subset(key, candidates_M, size):
    """A uniformly random subset of ``size`` of the marked positions, as 0/1."""
    order_M = jnp.where(
        candidates_M, jax.random.uniform(key, candidates_M.shape), 2.0
    )
    return (jnp.argsort(jnp.argsort(order_M)) < size).astype(jnp.int32)


def _pick(keep, old, new):
    return jax.tree.map(lambda o, n: jnp.where(keep, o, n), old, new)


def _reads(key, bank, written, room, config: MemoryBankConfig):
    """Banks to read: their number uniform over what the encoding and the budget's remaining positions allow."""
    count_key, set_key = jax.random.split(key)
    step = jnp.where(bank % config.compression == 0, 1, config.compression)
    number = step * jax.random.randint(count_key, (), 1, written // step + 1)
    number = jnp.minimum(
        number, room * config.compression // bank // step * step
    )
    return _subset(set_key, jnp.arange(config.max_banks) < written, number)


def _output_width(key, bank, reads, config: MemoryBankConfig):
    """Units of output, a multiple of the bank, with p inversely proportional to the distance from the units read."""
    units_k = jnp.arange(1, config.units + 1)
    p_k = 1 / (0.01 + 10 * jnp.abs(units_k - reads * bank).astype(jnp.float32))
    return 1 + jax.random.categorical(
        key, jnp.where(units_k % bank == 0, jnp.log(p_k), -jnp.inf)
    ).astype(jnp.int32)


def _first_empty(write_M, written, banks):
    """Writes to new banks moved to the first empty ones, so that written banks are always a prefix."""
    index_M = jnp.arange(write_M.shape[0])
    new = jnp.minimum(
        jnp.where(index_M >= written, write_M, 0).sum(), banks - written
    )
    return jnp.where(
        index_M < written, write_M, (index_M < written + new).astype(jnp.int32)
    )


def _writes(key, chunks, written, banks, config: MemoryBankConfig):
    """Banks to write: at least one per chunk of output, each further one e times less likely."""
    count_key, set_key = jax.random.split(key)
    index_M = jnp.arange(config.max_banks)
    extra = jnp.maximum(written // 2 - chunks, 0)
    number = chunks + jax.random.categorical(
        count_key,
        jnp.where(index_M <= extra, -index_M.astype(jnp.float32), -jnp.inf),
    ).astype(jnp.int32)
    return _subset(
        set_key, index_M < jnp.minimum(written + chunks, banks), number
    )


def _block(
    key,
    old: _Slot,
    rate,
    bank,
    in_units,
    memory_units,
    positions,
    share,
    max_kernel,
    config,
):
    """Walk the slots of one block, re-sampling elements of ``old`` with probability ``rate``, or where invalid.

    ``old`` has a leading axis P; an op beyond ``old``'s last (width 0) is added only where rate is 1.
    """
    budget = jnp.floor(share * positions.astype(jnp.float32)).astype(jnp.int32)
    in_banks = in_units // bank
    growth = (
        jnp.ceil(share * (config.depth * config.units)).astype(jnp.int32)
        // bank
    )
    banks = jnp.minimum(in_banks + growth, memory_units // bank)
    least = jnp.where(
        bank % config.compression == 0, bank // config.compression, bank
    )
    choices = jnp.array(config.group_choices, jnp.int32)
    index_M = jnp.arange(config.max_banks)

    def step(carry, inputs):
        written, used = carry
        key, old = inputs
        coin_key, *keys = jax.random.split(key, 8)
        keep_7 = ~jax.random.bernoulli(coin_key, rate, (7,))
        active = (budget - used >= least) & ((old.width > 0) | (rate >= 1))

        old_cost = old.read_M.sum() * bank // config.compression
        old_reads_exist = (
            jnp.where(index_M >= written, old.read_M, 0).sum() == 0
        )
        keep = keep_7[0] & old_reads_exist & (old_cost <= budget - used)
        read_M = _pick(
            keep,
            old.read_M,
            _reads(keys[0], bank, written, budget - used, config),
        )
        reads = read_M.sum()
        width = _pick(
            keep_7[1], old.width, _output_width(keys[1], bank, reads, config)
        )
        chunks = width // bank
        kept_M = _first_empty(old.write_M, written, banks)
        fresh_M = _first_empty(
            _writes(keys[2], chunks, written, banks, config), written, banks
        )
        write_M = _pick(keep_7[2] & (kept_M.sum() >= chunks), kept_M, fresh_M)
        op = jax.random.categorical(
            keys[3], jnp.log(jnp.asarray(OP_SET_PROBABILITIES))
        ).astype(jnp.int32)
        kernel_4x2 = 3 + 2 * jax.random.randint(
            keys[4], (CONVS, 2), 0, (max_kernel - 3) // 2 + 1
        )
        kernel_4x2 = _pick(keep_7[4], old.kernel_4x2, kernel_4x2)
        limit_4x2 = max_dilation(kernel_4x2, config)
        dilation_4x2 = jax.random.randint(keys[5], (CONVS, 2), 1, limit_4x2 + 1)
        dilation_4x2 = jnp.where(
            keep_7[5] & (old.dilation_4x2 <= limit_4x2),
            old.dilation_4x2,
            dilation_4x2,
        )
        groups_4 = jax.random.choice(keys[6], choices, (CONVS,))
        new = _Slot(
            read_M,
            write_M,
            width,
            _pick(keep_7[3], old.op, op),
            kernel_4x2,
            dilation_4x2,
            _pick(keep_7[6], old.groups_4, groups_4),
        )
        new = _pick(active, new, _empty_slot(config))
        written = jnp.maximum(written, (new.write_M * (index_M + 1)).max())
        return (
            written,
            used + new.read_M.sum() * bank // config.compression,
        ), new

    keys_P = jax.random.split(key, config.slots)
    return jax.lax.scan(step, (in_banks, jnp.int32(0)), (keys_P, old))[1]


def _empty_slot(config: MemoryBankConfig) -> _Slot:
    zero_M, zero, ones = (
        jnp.zeros(config.max_banks, jnp.int32),
        jnp.int32(0),
        jnp.ones((CONVS, 2), jnp.int32),
    )
    return _Slot(
        zero_M, zero_M, zero, zero, 3 * ones, ones, jnp.ones(CONVS, jnp.int32)
    )


def _build(
    key, old: MemoryBankArch, rate, share_3, max_kernel, config
) -> MemoryBankArch:
    geometry = (
        jnp.array(v, jnp.int32)
        for v in (config.in_units, config.memory_units, config.positions)
    )
    slots = jax.vmap(
        lambda key, old, bank, *block: _block(
            key,
            _Slot(*old),
            rate,
            bank,
            *block,
            max_kernel=max_kernel,
            config=config,
        )
    )(jax.random.split(key, BLOCKS), old[1:], old.bank_3, *geometry, share_3)
    return MemoryBankArch(old.bank_3, *slots)


def sample(
    config: MemoryBankConfig, key: jax.Array, progress: jax.Array | float = 1.0
) -> MemoryBankArch:
    """A random network. In the first half of training (progress < 0.5) budgets and kernels grow to their maxima."""
    bank_key, share_key, build_key = jax.random.split(key, 3)
    ramp = jnp.minimum(2 * jnp.asarray(progress, jnp.float32), 1)
    share_3 = jax.random.uniform(
        share_key, (BLOCKS,), minval=0.3, maxval=0.5 + 0.5 * ramp
    )
    max_kernel = 3 + 2 * jnp.floor((config.max_kernel - 3) // 2 * ramp).astype(
        jnp.int32
    )
    units_k = np.arange(1, config.units + 1)
    # A bank that doesn't divide into positions is read in groups of `compression`: so many must be there at the start.
    needed_k = np.where(
        units_k % config.compression == 0, 1, config.compression
    )
    legal_3xk = np.array(config.in_units)[:, None] // units_k >= needed_k
    bank_3 = 1 + jax.random.categorical(
        bank_key, jnp.where(legal_3xk, 0.0, -jnp.inf)
    ).astype(jnp.int32)
    empty = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (BLOCKS, config.slots, *x.shape)),
        _empty_slot(config),
    )
    return _build(
        build_key,
        MemoryBankArch(bank_3, *empty),
        1.0,
        share_3,
        max_kernel,
        config,
    )


def mutate(
    config: MemoryBankConfig, key: jax.Array, arch: MemoryBankArch
) -> MemoryBankArch:
    """SMASH's perturbation: each element of each op re-sampled with probability 0.05, within the full budget."""
    return _build(
        key,
        arch,
        MUTATION_RATE,
        jnp.ones(BLOCKS),
        jnp.int32(config.max_kernel),
        config,
    )


def active_convs(arch):
    """0/1 per convolution, [..., 3, P, 4]; all 0 in empty slots. NumPy in, NumPy out."""
    xp = jnp if isinstance(arch.width_3xP, jax.Array) else np
    return xp.where(
        (arch.width_3xP > 0)[..., None], xp.asarray(OP_SETS)[arch.op_3xP], 0
    )


def canonical(arch: MemoryBankArch) -> MemoryBankArch:
    """The representative of networks that compute the same functions.

    Recognised: settings of inactive convolutions, and the order of an op's two equal paths (sets 1010 and 1111).
    Not recognised: renamed banks, independent ops in another order.
    """
    active = active_convs(arch)
    kernel = jnp.where(active[..., None] == 1, arch.kernel_3xPx4x2, 3)
    dilation = jnp.where(active[..., None] == 1, arch.dilation_3xPx4x2, 1)
    groups = jnp.where(active == 1, arch.groups_3xPx4, 1)
    code = (
        ((kernel[..., 0] * 8 + kernel[..., 1]) * 4 + dilation[..., 0]) * 4
        + dilation[..., 1]
    ) * 64 + groups
    head, tail, other_head, other_tail = jnp.moveaxis(code, -1, 0)
    symmetric = (arch.op_3xP == 1) | (arch.op_3xP == 4)
    swap_3xP = symmetric & (
        (head > other_head) | ((head == other_head) & (tail > other_tail))
    )

    def order(x):
        return jnp.where(
            swap_3xP.reshape(swap_3xP.shape + (1,) * (x.ndim - 2)),
            x[:, :, np.array([2, 3, 0, 1])],
            x,
        )

    return arch._replace(
        kernel_3xPx4x2=order(kernel),
        dilation_3xPx4x2=order(dilation),
        groups_3xPx4=order(groups),
    )


class Layout(NamedTuple):
    """What the arrays say of each op's 1x1 convolution, in units of N channels."""

    units_in_3xP: Array  # channels read
    units_out_3xP: Array  # its output: the bottleneck
    start_3xP: Array  # first position of its weights in the block's budget
    memory_3: Array  # written memory: the block's output
    filled_3: Array  # memory that the block's input fills


def layout(config: MemoryBankConfig, arch: MemoryBankArch) -> Layout:
    """Works on one architecture, or in NumPy on any leading axes."""
    xp = jnp if isinstance(arch.width_3xP, jax.Array) else np
    bank_3x1, width = arch.bank_3[..., None], arch.width_3xP
    units_in = arch.read_3xPxM.sum(-1) * bank_3x1
    ratio = xp.clip(units_in // xp.maximum(width, 1), 1, config.bottleneck)
    units_out = xp.minimum(
        xp.minimum(ratio * width, units_in),
        config.max_bottleneck * config.units,
    )
    positions = units_in // config.compression
    filled_banks = (
        xp.asarray(np.array(config.in_units, np.int32)) // arch.bank_3
    )
    written = (
        arch.write_3xPxM.max(-2)
        * xp.arange(1, config.max_banks + 1, dtype=xp.int32)[None]
    ).max(-1)
    return Layout(
        units_in,
        units_out,
        xp.cumsum(positions, -1) - positions,
        xp.maximum(written, filled_banks) * arch.bank_3,
        filled_banks * arch.bank_3,
    )
