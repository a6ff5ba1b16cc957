"""The text of a compiled program: computations, instructions, shapes and sizes."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias


class Instruction(NamedTuple):
    """An instruction of a computation."""

    shape: str
    """The shape of its result, as text; a tuple's in parentheses."""

    op: str
    """The op, as in ``"dot"``."""

    operands: list[str]
    """Names of the instructions that it takes; a constant's value, or a parameter's
    number."""

    attributes: str
    """All that stands behind the operands."""


Computation: TypeAlias = dict[str, Instruction]
"""The instructions of a computation by name; its result is the last."""


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """Reads the text of a program.

    Args:
        text: The program, as ``jax.stages.Compiled.as_text`` returns it.

    Returns:
        The computations by name, and the name of the one that is the program.
    """
    computations: dict[str, Computation] = {}
    entry = ""
    root = ""
    current: Computation = {}
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?(\S+) \(.*\{$", line):
            current = computations[head[2]] = {}
            entry = head[2] if head[1] else entry
        elif line.startswith("}") and root:
            # XLA may print the result before other instructions.
            current[root] = current.pop(root)
        elif found := re.match(r"\s+(?:ROOT )?%?(\S+) = ", line):
            current[found[1]] = _instruction(line[found.end() :])
            root = found[1] if "ROOT" in found[0] else root
    return computations, entry


def called(instruction: Instruction, role: str) -> str:
    """Returns the name of a computation that an instruction calls.

    Args:
        instruction: The instruction.
        role: The attribute that names it, as in ``"body"``.
    """
    return attribute(rf"\b{role}=%?([^\s,}}]+)", instruction)


def called_branches(conditional: Instruction) -> list[str]:
    """Returns the names of the branches of a conditional.

    Args:
        conditional: The instruction.
    """
    found = re.search(
        r"branch_computations=\{([^}]*)\}", conditional.attributes
    )
    if found:
        return re.findall(r"%?([^\s,]+)", found[1])
    roles = ("true_computation", "false_computation")
    return [called(conditional, role) for role in roles]


def attribute(pattern: str, instruction: Instruction) -> str:
    """Returns the part of an instruction's attributes that a pattern's group matches.

    Args:
        pattern: A regular expression with one group.
        instruction: The instruction.

    Raises:
        ValueError: There is no match: XLA prints programs in another way.
    """
    found = re.search(pattern, instruction.attributes)
    if found is None:
        raise ValueError(f"{pattern} is not in {instruction.attributes[:200]}")
    return found[1]


def trip_count(
    computations: dict[str, Computation],
    computation: Computation,
    loop: Instruction,
) -> float | None:
    """Returns how often a loop runs.

    The count is the one that XLA states; where it states none, the constant with which
    the counter is compared, as loops that JAX writes count up from 0 in steps of 1.

    Args:
        computations: All computations.
        computation: The computation that the loop is in.
        loop: The loop.

    Returns:
        The count; None if the program does not hold it.
    """
    stated = re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', loop.attributes)
    if stated:
        return float(stated[1])
    condition = computations[called(loop, "condition")]
    compared = list(condition.values())[-1]
    if compared.op != "compare" or "direction=LT" not in compared.attributes:
        return None
    bound = condition[compared.operands[1]]
    if bound.op == "get-tuple-element":
        # The loop carries its bound.
        start = computation[loop.operands[0]]
        if start.op != "tuple":
            return None
        place = int(attribute(r"index=(\d+)", bound))
        bound = computation[start.operands[place]]
        while bound.op in ("copy", "bitcast"):
            bound = computation[bound.operands[0]]
    if bound.op != "constant" or not bound.operands:
        return None
    return float(bound.operands[0])


def dimensions(shape: str) -> list[int]:
    """Returns the dimensions of an array.

    Args:
        shape: Its shape; the first array's of a tuple.
    """
    _, dims, _ = next(_arrays(shape))
    return dims


def array_bytes(shape: str) -> float:
    """Returns the bytes of all arrays of a shape, without padding.

    Args:
        shape: The shape.
    """
    return sum(_bytes(dtype, dims) for dtype, dims, _ in _arrays(shape))


def main_bytes(shape: str) -> float:
    """Returns the bytes that a shape takes in main memory, padding included.

    Args:
        shape: The shape; arrays that lie in a chip's own memory count as 0.
    """
    total = 0.0
    for dtype, dims, layout in _arrays(shape):
        # Memory space 0 is main memory; others are on the chip.
        if re.search(r"S\([1-9]", layout):
            continue
        if tile := re.search(r":T\(([\d,]+)\)", layout):
            # Tiles extend along the axes that vary fastest, which layouts list first.
            minor = [int(d) for d in layout.split(":")[0].split(",") if d]
            extents = reversed([int(t) for t in tile[1].split(",")])
            for axis, extent in zip(minor, extents, strict=False):
                dims[axis] = -(-dims[axis] // extent) * extent
        total += _bytes(dtype, dims)
    return total


def _instruction(text: str) -> Instruction:
    """An instruction from the text behind its name."""
    shape, rest = _until(text, " ")
    op, rest = rest.lstrip().split("(", 1)
    inside, attributes = _until(rest, ")")
    operands = re.findall(r"%[^\s,)]+|^\d+$", inside)
    names = [name.lstrip("%") for name in operands]
    return Instruction(shape, op, names, attributes)


def _until(text: str, end: str) -> tuple[str, str]:
    """The text before ``end`` outside of brackets, and the text after it."""
    depth = 0
    for at, c in enumerate(text):
        if c == end and depth == 0:
            return text[:at], text[at + 1 :]
        depth += (c in "({[") - (c in ")}]")
    return text, ""


def _arrays(shape: str) -> Iterator[tuple[str, list[int], str]]:
    """Dtype, dimensions and layout of each array of a shape."""
    pattern = r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?"
    for dtype, dims, layout in re.findall(pattern, shape):
        yield dtype, [int(d) for d in dims.split(",") if d], layout


def _bytes(dtype: str, dims: list[int]) -> float:
    """Bytes of an array; tokens and the like have none."""
    if dtype == "pred":
        return math.prod(dims)
    bits = re.search(r"\d+", dtype)
    return math.prod(dims) * int(bits[0]) / 8 if bits else 0
