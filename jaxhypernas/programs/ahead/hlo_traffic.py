"""Bytes of main memory that the instructions of a compiled program read and write."""

from jaxhypernas.programs.ahead.hlo_text import (
    Computation,
    Instruction,
    array_bytes,
    called,
    main_bytes,
)

_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "iota",
    "after-all",
    "partition-id",
}
"""Ops that move nothing."""

_SLICES = {"slice", "dynamic-slice", "gather"}
"""Ops that read no more of their first operand than they return."""

_UPDATE = "dynamic-update-slice"
"""The op that writes a part of its first operand in place."""


def traffic(
    computations: dict[str, Computation],
    computation: Computation,
    instruction: Instruction,
) -> float:
    """Counts the bytes of main memory that an instruction reads and writes.

    Of an array that it slices or updates in place, only that part counts.

    Args:
        computations: All computations.
        computation: The computation that the instruction is in.
        instruction: The instruction, but no loop, conditional or call.
    """
    op = instruction.op
    allocates = "AllocateBuffer" in instruction.attributes
    if op in _FREE or op.endswith("-done") or allocates:
        return 0.0
    if op.endswith("-start"):
        # The result holds the operands, too.
        return main_bytes(instruction.shape)

    shapes = [computation[name].shape for name in instruction.operands]
    if op == "fusion":
        inside = computations[called(instruction, "calls")]
        read = sum(_read(inside, n, shape) for n, shape in enumerate(shapes))
        return read + _written(inside, instruction.shape)
    if op == _UPDATE:
        return 2 * main_bytes(shapes[1])
    if op in _SLICES:
        shapes[0] = instruction.shape
    return sum(main_bytes(shape) for shape in (*shapes, instruction.shape))


def _read(inside: Computation, number: int, shape: str) -> float:
    """Bytes that a fusion reads of an operand."""
    whole = main_bytes(shape)
    # Names of the operand inside of the fusion.
    names = {
        name
        for name, i in inside.items()
        if i.op == "parameter" and i.operands == [str(number)]
    }
    part = 0.0
    for name, i in inside.items():
        if not names.intersection(i.operands):
            continue
        is_index = names.intersection(i.operands[1:])
        if i.op == "bitcast":
            names.add(name)
        elif i.op in _SLICES and not is_index:
            part += array_bytes(i.shape)
        elif i.op == _UPDATE and not is_index:
            # It is written, not read.
            continue
        else:
            return whole
    return min(part, whole)


def _written(inside: Computation, shape: str) -> float:
    """Bytes that a fusion writes."""
    root = list(inside.values())[-1]
    while root.op == "bitcast":
        root = inside[root.operands[0]]
    whole = main_bytes(shape)
    if root.op != _UPDATE:
        return whole
    update = inside[root.operands[1]]
    return min(array_bytes(update.shape), whole)
