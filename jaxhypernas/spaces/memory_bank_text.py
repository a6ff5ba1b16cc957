"""SMASH's networks as strings, both ways, and the check that a network is valid.

Three blocks are joined by ``/``. A block is
``b2|0.1>2.3:4:0=3x5d1x2g2:2=3x3d1x1g1|...``: first ``b`` and the units in a bank, then
each op as banks read ``>`` banks written ``:`` output units, and for each active
convolution ``:`` number ``=`` height x width, ``d`` dilations, ``g`` groups.
"""

import re

import numpy as np

from jaxhypernas.archs.memory_bank import (
    BLOCKS,
    CONVS,
    OP_SETS,
    MemoryBankArch,
    active_convs,
    banks_per_read,
    empty,
    layout,
    max_dilation,
)
from jaxhypernas.archs.sizes import MemoryBankConfig
from jaxhypernas.spaces import foreign
from jaxhypernas.types import UserError

# No setting has more than six digits, and all of these fit int32.
_NUMBER = r"\d{1,6}"
_SETTINGS = f"={_NUMBER}x{_NUMBER}d{_NUMBER}x{_NUMBER}g{_NUMBER}"
_BANKS = rf"{_NUMBER}(?:\.{_NUMBER})*"
_OP = re.compile(
    rf"({_BANKS})>({_BANKS}):([1-9]\d{{0,5}})((?::\d{_SETTINGS})+)", re.ASCII
)
_CONV = re.compile(r":(\d)=(\d+)x(\d+)d(\d+)x(\d+)g(\d+)", re.ASCII)
_BLOCK = re.compile(f"b{_NUMBER}", re.ASCII)


def to_string(arch: MemoryBankArch) -> str:
    """The string of one network.

    Args:
        arch: The network.

    Returns:
        The string, without settings of inactive convolutions.
    """
    arch = MemoryBankArch(*map(np.asarray, arch))
    blocks = []
    for b in range(BLOCKS):
        slots = np.flatnonzero(arch.width_3xP[b]).tolist()
        ops = (f"|{_op_string(arch, b, p)}" for p in slots)
        blocks.append(f"b{arch.bank_3[b]}" + "".join(ops))
    return "/".join(blocks)


def _op_string(arch: MemoryBankArch, b: int, p: int) -> str:
    reads = ".".join(map(str, np.flatnonzero(arch.read_3xPxM[b, p])))
    writes = ".".join(map(str, np.flatnonzero(arch.write_3xPxM[b, p])))
    text = f"{reads}>{writes}:{arch.width_3xP[b, p]}"
    for c in np.flatnonzero(OP_SETS[arch.op_3xP[b, p]]):
        kernel_height, kernel_width = arch.kernel_3xPx4x2[b, p, c]
        dilations = "x".join(map(str, arch.dilation_3xPx4x2[b, p, c]))
        text += f":{c}={kernel_height}x{kernel_width}d{dilations}"
        text += f"g{arch.groups_3xPx4[b, p, c]}"
    return text


def from_string(config: MemoryBankConfig, text: str) -> MemoryBankArch:
    """The network of a string.

    Args:
        config: The sizes of the networks.
        text: The string.

    Returns:
        The network, NumPy arrays.

    Raises:
        UserError: The string is malformed, or not a network of this space.
    """
    blocks = foreign.clean(text).split("/")
    if len(blocks) != BLOCKS:
        raise UserError(
            f"arch: {text[:60]!r} has {len(blocks)} blocks, not {BLOCKS}"
        )
    arch = empty(config)
    for b, block in enumerate(blocks):
        _read_block(arch, b, block)
    check(config, arch)
    return arch


def _read_block(arch: MemoryBankArch, b: int, text: str) -> None:
    """Writes one block of a string into the arrays."""
    head, *ops = text.split("|")
    if not _BLOCK.fullmatch(head):
        raise UserError(
            f"arch: block {b} starts with {head!r}, not with b and its bank "
            "size"
        )
    arch.bank_3[b] = int(head[1:])

    slots = arch.width_3xP.shape[1]
    if len(ops) > slots:
        raise UserError(
            f"arch: block {b} has {len(ops)} ops, more than space.slots, {slots}"
        )
    for p, op in enumerate(ops):
        _read_op(arch, b, p, op)


def _read_op(arch: MemoryBankArch, b: int, p: int, text: str) -> None:
    """Writes one op of a string into the arrays."""
    where = f"arch: block {b}, op {p}"
    match = _OP.fullmatch(text)
    if not match:
        raise UserError(
            f"{where}: {text!r} is not reads>writes:units:convolutions"
        )
    reads, writes, width, convs = match.groups()
    arch.width_3xP[b, p] = int(width)

    sides = ((arch.read_3xPxM, reads), (arch.write_3xPxM, writes))
    for marks_3xPxM, banks in sides:
        indices = [int(i) for i in banks.split(".")]
        M = marks_3xPxM.shape[2]
        if max(indices) >= M or len(set(indices)) < len(indices):
            raise UserError(
                f"{where}: banks {banks!r} must be distinct and below {M}"
            )
        marks_3xPxM[b, p, indices] = 1

    settings = [tuple(map(int, conv)) for conv in _CONV.findall(convs)]
    numbers = [number for number, *_ in settings]
    active = np.array([numbers.count(c) for c in range(CONVS)])
    legal = np.flatnonzero((active == OP_SETS).all(1))
    # Numbers beyond the last place are in no count.
    if len(legal) == 0 or len(numbers) != active.sum():
        raise UserError(f"{where}: convolutions {convs!r} are no legal set")
    arch.op_3xP[b, p] = legal[0]

    for c, height, width, height_dilation, width_dilation, groups in settings:
        arch.kernel_3xPx4x2[b, p, c] = height, width
        arch.dilation_3xPx4x2[b, p, c] = height_dilation, width_dilation
        arch.groups_3xPx4[b, p, c] = groups


def check(config: MemoryBankConfig, arch: MemoryBankArch) -> None:
    """Checks that a network belongs to the space.

    Args:
        config: The sizes of the networks.
        arch: The network, NumPy arrays.

    Raises:
        UserError: It does not; the message names the block and the op.
    """
    for b in range(BLOCKS):
        _check_banks(config, arch, b)
        _check_convs(config, arch, b)

    units_in_3xP = layout(config, arch).units_in_3xP
    used_3 = (units_in_3xP // config.compression).sum(-1)
    for b in np.flatnonzero(used_3 > np.array(config.positions)):
        raise UserError(
            f"arch: block {b} reads {used_3[b]} positions, more than the "
            f"budget of {config.positions[b]}"
        )


def _check_banks(
    config: MemoryBankConfig, arch: MemoryBankArch, b: int
) -> None:
    bank = int(arch.bank_3[b])
    in_units = config.in_units[b]
    fits = 1 <= bank <= config.units
    if not fits or in_units // bank < banks_per_read(config, arch.bank_3[b]):
        raise UserError(
            f"arch: block {b}: banks of {bank} units don't fit {config.units} "
            "units and this input"
        )

    written = in_units // bank
    most = min(
        written + config.depth * config.units // bank,
        config.memory_units[b] // bank,
    )
    for p in range(int((arch.width_3xP[b] > 0).sum())):
        written = _check_op(config, arch, b, p, written, most)


def _check_op(
    config: MemoryBankConfig,
    arch: MemoryBankArch,
    b: int,
    p: int,
    written: int,
    most: int,
) -> int:
    """Checks one op; returns the number of banks written after it."""
    where = f"arch: block {b}, op {p}"
    bank = int(arch.bank_3[b])
    width = int(arch.width_3xP[b, p])
    reads = np.flatnonzero(arch.read_3xPxM[b, p])
    writes = np.flatnonzero(arch.write_3xPxM[b, p])

    if reads.max() >= written:
        raise UserError(
            f"{where} reads bank {reads.max()}, but only {written} are "
            "written before it"
        )
    if len(reads) * bank % config.compression:
        raise UserError(
            f"{where} reads {len(reads) * bank} units, not a multiple of "
            f"{config.compression}"
        )
    if width % bank or width > config.units:
        raise UserError(
            f"{where}: its {width} output units must be a multiple of the "
            f"bank, at most {config.units}"
        )
    if len(writes) < width // bank:
        raise UserError(
            f"{where} writes {len(writes)} banks, fewer than its output fills"
        )

    new = writes[writes >= written]
    first_empty = np.arange(written, written + len(new))
    if written + len(new) > most or (new != first_empty).any():
        raise UserError(
            f"{where} writes banks {new.tolist()}, not the first empty ones "
            f"of {most}"
        )
    return written + len(new)


def _check_convs(
    config: MemoryBankConfig, arch: MemoryBankArch, b: int
) -> None:
    active = active_convs(arch)[b].astype(bool)
    kernel = arch.kernel_3xPx4x2[b][active]
    dilation = arch.dilation_3xPx4x2[b][active]
    groups = arch.groups_3xPx4[b][active]

    if not np.isin(kernel, np.arange(3, config.max_kernel + 1, 2)).all():
        raise UserError(
            f"arch: block {b}: kernels must be odd, from 3 to "
            f"{config.max_kernel}"
        )
    too_large = dilation > max_dilation(config, kernel)
    if ((dilation < 1) | too_large).any():
        raise UserError(
            f"arch: block {b}: dilations go up to 3, 2, 1 for kernels 3, 5, 7"
        )
    if not np.isin(groups, config.group_choices).all():
        raise UserError(
            f"arch: block {b}: groups must be one of {config.group_choices}"
        )
