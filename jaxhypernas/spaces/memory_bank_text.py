"""SMASH networks as strings, both ways, and the check that says what is wrong with one.

``b2|0.1>2.3:4:0=3x5d1x2g2:2=3x3d1x1g1|...`` is one block; three are joined by ``/``. ``b2``: banks of 2 units. Then an
op each: banks read, ``>``, banks written, output units, and each active convolution as number = height x width, ``d``
dilations, ``g`` groups.
"""

import re

import numpy as np

from jaxhypernas.archs.memory_bank import (
    BLOCKS,
    CONVS,
    OP_SETS,
    MemoryBankArch,
    MemoryBankConfig,
    active_convs,
    layout,
)
from jaxhypernas.types import UserError

_NUMBER = r"\d{1,6}"  # no setting is longer, and all fit int32
_SETTINGS = f"={_NUMBER}x{_NUMBER}d{_NUMBER}x{_NUMBER}g{_NUMBER}"
_BANKS = rf"{_NUMBER}(?:\.{_NUMBER})*"
_OP = re.compile(
    rf"({_BANKS})>({_BANKS}):([1-9]\d{{0,5}})((?::\d{_SETTINGS})+)", re.ASCII
)
_CONV = re.compile(r":(\d)=(\d+)x(\d+)d(\d+)x(\d+)g(\d+)", re.ASCII)


def to_string(arch: MemoryBankArch) -> str:
    """The string of one architecture; settings of inactive convolutions are not in it."""
    arch = MemoryBankArch(*map(np.asarray, arch))
    active = active_convs(arch)

    def conv(b, p, c):
        (kh, kw), (dh, dw) = (
            arch.kernel_3xPx4x2[b, p, c],
            arch.dilation_3xPx4x2[b, p, c],
        )
        return f":{c}={kh}x{kw}d{dh}x{dw}g{arch.groups_3xPx4[b, p, c]}"

    def op(b, p):
        reads, writes = (
            ".".join(map(str, np.flatnonzero(x[b, p])))
            for x in (arch.read_3xPxM, arch.write_3xPxM)
        )
        convs = "".join(conv(b, p, c) for c in range(CONVS) if active[b, p, c])
        return f"|{reads}>{writes}:{arch.width_3xP[b, p]}{convs}"

    def block(b):
        return f"b{arch.bank_3[b]}" + "".join(
            op(b, p)
            for p in range(arch.width_3xP.shape[1])
            if arch.width_3xP[b, p]
        )

    return "/".join(block(b) for b in range(BLOCKS))


def from_string(config: MemoryBankConfig, text: str) -> MemoryBankArch:
    """The architecture of a string, of this space's size.

    Raises:
        UserError: the string is malformed, or not a network of this space.
    """
    P, M = config.slots, config.max_banks
    kernel = np.full((BLOCKS, P, CONVS, 2), 3, np.int32)
    dilation, groups = (
        np.ones((BLOCKS, P, CONVS, 2), np.int32),
        np.ones((BLOCKS, P, CONVS), np.int32),
    )
    read, write = np.zeros((2, BLOCKS, P, M), np.int32)
    width, op = np.zeros((2, BLOCKS, P), np.int32)
    bank = np.zeros(BLOCKS, np.int32)
    blocks = text.strip().split("/")
    if len(blocks) != BLOCKS:
        raise UserError(
            f"arch: {text[:60]!r} has {len(blocks)} blocks, not {BLOCKS}"
        )
    for b, block in enumerate(blocks):
        head, *ops = block.split("|")
        if not re.fullmatch(f"b{_NUMBER}", head, re.ASCII):
            raise UserError(
                f"arch: block {b} starts with {head!r}, not with b and its bank size"
            )
        bank[b] = int(head[1:])
        if len(ops) > P:
            raise UserError(
                f"arch: block {b} has {len(ops)} ops, more than memory_bank.slots, {P}"
            )
        for p, part in enumerate(ops):
            match = _OP.fullmatch(part)
            if not match:
                raise UserError(
                    f"arch: block {b}, op {p}: {part!r} is not reads>writes:units:convolutions"
                )
            for target, banks in ((read, match[1]), (write, match[2])):
                indices = [int(i) for i in banks.split(".")]
                if max(indices) >= M or len(set(indices)) < len(indices):
                    raise UserError(
                        f"arch: block {b}, op {p}: banks {banks!r} must be distinct and below {M}"
                    )
                target[b, p, indices] = 1
            width[b, p] = int(match[3])
            convs = _CONV.findall(match[4])
            active = np.array(
                [sum(int(c[0]) == i for c in convs) for i in range(CONVS)]
            )
            legal = np.flatnonzero((active == OP_SETS).all(1))
            if len(legal) == 0 or len(convs) != active.sum():
                raise UserError(
                    f"arch: block {b}, op {p}: convolutions {match[4]!r} are no legal set"
                )
            op[b, p] = legal[0]
            for i, *settings in convs:
                kh, kw, dh, dw, g = map(int, settings)
                (
                    kernel[b, p, int(i)],
                    dilation[b, p, int(i)],
                    groups[b, p, int(i)],
                ) = (kh, kw), (dh, dw), g
    arch = MemoryBankArch(
        bank, read, write, width, op, kernel, dilation, groups
    )
    check(config, arch)
    return arch


def check(config: MemoryBankConfig, arch: MemoryBankArch) -> None:
    """Raise UserError unless the (NumPy) architecture is a network of this space."""
    for b in range(BLOCKS):
        bank, in_units = int(arch.bank_3[b]), config.in_units[b]
        if not 1 <= bank <= config.units or in_units // bank < (
            1 if bank % config.compression == 0 else config.compression
        ):
            raise UserError(
                f"arch: block {b}: banks of {bank} units don't fit {config.units} units and this input"
            )
        banks = min(
            in_units // bank + config.depth * config.units // bank,
            config.memory_units[b] // bank,
        )
        written = in_units // bank
        for p in range(int((arch.width_3xP[b] > 0).sum())):
            where = f"arch: block {b}, op {p}"
            reads, writes = (
                np.flatnonzero(arch.read_3xPxM[b, p]),
                np.flatnonzero(arch.write_3xPxM[b, p]),
            )
            if reads.max() >= written:
                raise UserError(
                    f"{where} reads bank {reads.max()}, but only {written} are written before it"
                )
            if len(reads) * bank % config.compression:
                raise UserError(
                    f"{where} reads {len(reads) * bank} units, not a multiple of {config.compression}"
                )
            if (
                arch.width_3xP[b, p] % bank
                or arch.width_3xP[b, p] > config.units
            ):
                width = arch.width_3xP[b, p]
                raise UserError(
                    f"{where}: its {width} output units must be a multiple of the bank, at most {config.units}"
                )
            if len(writes) < arch.width_3xP[b, p] // bank:
                raise UserError(
                    f"{where} writes {len(writes)} banks, fewer than its output fills"
                )
            new = writes[writes >= written]
            if len(new) and (
                new[-1] >= banks or new[-1] - written + 1 != len(new)
            ):
                raise UserError(
                    f"{where} writes banks {new.tolist()}, not the first empty ones of {banks}"
                )
            written += len(new)
        _check_convs(config, arch, b)
    used = (layout(config, arch).units_in_3xP // config.compression).sum(-1)
    for b in np.flatnonzero(used > np.array(config.positions)):
        raise UserError(
            f"arch: block {b} reads {used[b]} positions, more than the budget of {config.positions[b]}"
        )


def _check_convs(
    config: MemoryBankConfig, arch: MemoryBankArch, b: int
) -> None:
    live = active_convs(arch)[b].astype(bool)
    kernel, dilation, groups = (
        arch.kernel_3xPx4x2[b][live],
        arch.dilation_3xPx4x2[b][live],
        arch.groups_3xPx4[b][live],
    )
    if not np.isin(kernel, np.arange(3, config.max_kernel + 1, 2)).all():
        raise UserError(
            f"arch: block {b}: kernels must be odd, from 3 to {config.max_kernel}"
        )
    if (
        (dilation < 1)
        | (dilation > np.minimum(4 - (kernel - 1) // 2, config.max_dilation))
    ).any():
        raise UserError(
            f"arch: block {b}: dilations go up to 3, 2, 1 for kernels 3, 5, 7"
        )
    if not np.isin(groups, config.group_choices).all():
        raise UserError(
            f"arch: block {b}: groups must be one of {config.group_choices}"
        )
