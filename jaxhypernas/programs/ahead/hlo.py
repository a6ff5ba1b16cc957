"""What a compiled program does, read from its text: loops count as often as they run, conditionals by their branches.

XLA's own `cost_analysis` counts a loop's body once and a conditional at its costliest branch.
"""

import math
import re
from functools import cache
from typing import Literal, NamedTuple

import jax
import numpy as np

Branches = Literal["mean", "max"]
COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "reduce-scatter",
)
FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "iota",
    "after-all",
    "partition-id",
}
SLICES = {
    "slice",
    "dynamic-slice",
    "gather",
}  # these read no more than they give


class Work(NamedTuple):
    """What one device does."""

    flops: float  # of products and convolutions, 2 per multiply-add
    bytes: float  # read from and written to its main memory, padding included
    cycles: float  # the TPU compiler's estimate, waiting for memory not counted; 0 elsewhere
    collectives: dict[
        str, tuple[float, float]
    ]  # times that each kind runs, and bytes of all results
    unknown: float  # loops whose count the program does not hold: counted once


class _Instruction(NamedTuple):
    shape: str
    op: str
    operands: list[str]
    rest: str  # attributes


def read(program: jax.stages.Compiled, branches: Branches = "mean") -> Work:
    """The work of a compiled program.

    Loops that JAX writes count up from 0 in steps of 1, which is what is assumed where XLA does not state the count.

    Args:
        program: of any platform.
        branches: a conditional is the mean over its branches, or the most of any of them in each figure.
    """
    computations, entry = _parse(program.as_text() or "")

    @cache
    def total(name: str) -> Work:
        return _sum(
            [
                (work(computations[name], i), 1.0)
                for i in computations[name].values()
            ]
        )

    def work(computation: dict[str, _Instruction], i: _Instruction) -> Work:
        if i.op == "while":
            count = _trip_count(computations, computation, i)
            body = _sum(
                [
                    (total(_called(i, "body")), count or 1),
                    (total(_called(i, "condition")), count or 1),
                ]
            )
            return body._replace(unknown=body.unknown + (count is None))
        if i.op == "conditional":
            parts = [total(name) for name in _branches(i)]
            return (
                _sum([(p, 1 / len(parts)) for p in parts])
                if branches == "mean"
                else _most(parts)
            )
        if i.op in ("call", "async-start"):
            return total(_called(i, "to_apply" if i.op == "call" else "calls"))
        cycles = re.search(r'"estimated_cycles":"(\d+)"', i.rest)
        kind = i.op.removesuffix("-start")
        return Work(
            flops=total(_called(i, "calls")).flops
            if i.op == "fusion"
            else _flops(computation, i),
            bytes=_traffic(computations, computation, i),
            cycles=float(cycles[1]) if cycles else 0.0,
            collectives={kind: (1.0, _size(i.shape))}
            if kind in COLLECTIVES
            else {},
            unknown=0.0,
        )

    return total(entry)


def _sum(parts: list[tuple[Work, float]]) -> Work:
    """The sum of works, each times a factor."""
    collectives: dict[str, tuple[float, float]] = {}
    for part, times in parts:
        for kind, (count, size) in part.collectives.items():
            before = collectives.get(kind, (0.0, 0.0))
            collectives[kind] = (
                before[0] + times * count,
                before[1] + times * size,
            )
    flops, bytes_, cycles, unknown = (
        sum(times * getattr(part, name) for part, times in parts)
        for name in ("flops", "bytes", "cycles", "unknown")
    )
    return Work(flops, bytes_, cycles, collectives, unknown)


def _most(parts: list[Work]) -> Work:
    kinds = {kind for part in parts for kind in part.collectives}
    return Work(
        max(p.flops for p in parts),
        max(p.bytes for p in parts),
        max(p.cycles for p in parts),
        {
            k: max(p.collectives.get(k, (0.0, 0.0)) for p in parts)
            for k in kinds
        },
        max(p.unknown for p in parts),
    )


def _parse(text: str) -> tuple[dict[str, dict[str, _Instruction]], str]:
    """Computations by name, each its instructions by name, the result last; and which of them is the program."""
    computations: dict[str, dict[str, _Instruction]] = {}
    entry, root, current = "", "", {}
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?(\S+) \(.*\{$", line):
            current = computations[head[2]] = {}
            entry = head[2] if head[1] else entry
        elif line.startswith("}") and root:
            current[root] = current.pop(root)
        elif found := re.match(r"\s+(?:ROOT )?%?(\S+) = ", line):
            shape, rest = _until(line[found.end() :], " ")
            op, rest = rest.lstrip().split("(", 1)
            operands, rest = _until(rest, ")")
            current[found[1]] = _Instruction(
                shape,
                op,
                [
                    name.lstrip("%")
                    for name in re.findall(r"%[^\s,)]+|^\d+$", operands)
                ],
                rest,
            )
            root = found[1] if "ROOT" in found[0] else root
    return computations, entry


def _until(text: str, end: str) -> tuple[str, str]:
    """The text before ``end`` outside of brackets, and after it."""
    depth = 0
    for at, c in enumerate(text):
        if c == end and depth == 0:
            return text[:at], text[at + 1 :]
        depth += (c in "({[") - (c in ")}]")
    return text, ""


def _found(pattern: str, text: str) -> str:
    """What the pattern's group matches; a program that hasn't it is none that XLA prints."""
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"{pattern} is not in {text[:200]}")
    return found[1]


def _called(i: _Instruction, role: str) -> str:
    return _found(rf"\b{role}=%?([^\s,}}]+)", i.rest)


def _branches(i: _Instruction) -> list[str]:
    if found := re.search(r"branch_computations=\{([^}]*)\}", i.rest):
        return re.findall(r"%?([^\s,]+)", found[1])
    return [_called(i, "true_computation"), _called(i, "false_computation")]


def _trip_count(computations, computation, loop: _Instruction) -> float | None:
    """How often a loop runs: stated by XLA, or the constant that its counter is compared with."""
    if stated := re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', loop.rest):
        return float(stated[1])
    condition = computations[_called(loop, "condition")]
    compared = list(condition.values())[-1]
    if compared.op != "compare" or "direction=LT" not in compared.rest:
        return None
    bound = condition[compared.operands[1]]
    if bound.op == "get-tuple-element":  # the loop carries its bound
        start = computation[loop.operands[0]]
        if start.op != "tuple":
            return None
        bound = computation[
            start.operands[int(_found(r"index=(\d+)", bound.rest))]
        ]
        while bound.op in ("copy", "bitcast"):
            bound = computation[bound.operands[0]]
    return (
        float(bound.operands[0])
        if bound.op == "constant" and bound.operands
        else None
    )


def _arrays(shape: str):
    """(dtype, dimensions, layout) of each array of a shape."""
    for dtype, dims, layout in re.findall(
        r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?", shape
    ):
        yield dtype, [int(d) for d in dims.split(",") if d], layout


def _size(shape: str, main: bool = False) -> float:
    """Bytes of a shape; ``main``: of its arrays in main memory (S(1) is on the chip), as they are laid out there."""
    total = 0.0
    for dtype, dims, layout in _arrays(shape):
        if main and re.search(r"S\([1-9]", layout):
            continue
        if main and (tile := re.search(r":T\(([\d,]+)\)", layout)):
            minor = [int(d) for d in layout.split(":")[0].split(",") if d]
            for axis, extent in zip(
                minor,
                reversed([int(t) for t in tile[1].split(",")]),
                strict=False,
            ):
                dims[axis] = -(-dims[axis] // extent) * extent
        bits = re.search(r"\d+", dtype)
        total += math.prod(dims) * (
            1 if dtype == "pred" else int(bits[0]) / 8 if bits else 0
        )
    return total


def _dims(shape: str) -> list[int]:
    return next(_arrays(shape))[1]


def _flops(computation, i: _Instruction) -> float:
    if i.op == "dot":
        left = _dims(computation[i.operands[0]].shape)
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", i.rest)
        axes = (
            [int(d) for d in contracted[1].split(",") if d]
            if contracted
            else []
        )
        return (
            2.0 * math.prod(_dims(i.shape)) * math.prod(left[a] for a in axes)
        )
    if i.op != "convolution" and "__cudnn$conv" not in i.rest:
        return 0.0
    left, right, out = (
        _dims(s)
        for s in (*(computation[o].shape for o in i.operands[:2]), i.shape)
    )
    if (
        "convBackwardInput" in i.rest
    ):  # cuDNN's labels are always those of the forward pass
        left, out = out, left
    if "convBackwardFilter" in i.rest:
        right, out = out, right
    of_left, of_right, of_out = re.split(
        r"_|->", _found(r"dim_labels=([^\s,]+)", i.rest)
    )
    groups = re.search(r"batch_group_count=(\d+)", i.rest)
    count = 2.0 * left[of_left.index("b")] / (int(groups[1]) if groups else 1)
    count *= (
        right[of_right.index("i")] * out[of_out.index("f")]
    )  # of the kernel's inputs: of one feature group
    window = {
        name: value.split("x")
        for name, value in re.findall(
            r"(\w+)=([\dx_-]+)",
            (re.search(r"window=\{([^}]*)\}", i.rest) or [""] * 2)[1],
        )
    }
    for axis in range(len(out) - 2):
        sizes = (
            left[of_left.index(str(axis))],
            right[of_right.index(str(axis))],
            out[of_out.index(str(axis))],
        )
        count *= _positions(
            *sizes, {name: values[axis] for name, values in window.items()}
        )
    return count


def _positions(size: int, kernel: int, out: int, window: dict[str, str]) -> int:
    """Pairs of output and kernel positions along one axis that meet a pixel, not padding or what dilation puts in."""
    stride, apart, spread = (
        int(window.get(name, 1))
        for name in ("stride", "rhs_dilate", "lhs_dilate")
    )
    low = int(window.get("pad", "0_0").split("_")[0])
    at = (
        np.arange(out)[:, None] * stride + np.arange(kernel)[None] * apart - low
    )
    return int(
        ((at >= 0) & (at <= (size - 1) * spread) & (at % spread == 0)).sum()
    )


def _traffic(computations, computation, i: _Instruction) -> float:
    """Bytes of main memory that an instruction reads and writes; of what it slices or updates in place, that part."""
    if i.op in FREE or i.op.endswith("-done") or "AllocateBuffer" in i.rest:
        return 0.0
    if i.op.endswith("-start"):  # its result holds its operands, too
        return _size(i.shape, main=True)
    inside = computations[_called(i, "calls")] if i.op == "fusion" else None
    shapes = [computation[name].shape for name in i.operands]
    if inside is None:
        if i.op in SLICES:
            shapes[0] = i.shape
        if i.op == "dynamic-update-slice":
            return 2 * _size(shapes[1], main=True)
        return sum(_size(s, main=True) for s in (*shapes, i.shape))
    return sum(
        _read(inside, n, shape) for n, shape in enumerate(shapes)
    ) + _written(inside, i.shape)


def _read(inside: dict[str, _Instruction], number: int, shape: str) -> float:
    """Bytes that a fusion reads of an operand."""
    whole = _size(shape, main=True)
    names = {
        name
        for name, i in inside.items()
        if i.op == "parameter" and i.operands == [str(number)]
    }
    part = 0.0
    for name, i in inside.items():
        if not names.intersection(i.operands):
            continue
        if i.op == "bitcast":
            names.add(name)
        elif i.op in (
            *SLICES,
            "dynamic-update-slice",
        ) and not names.intersection(i.operands[1:]):
            part += 0 if i.op == "dynamic-update-slice" else _size(i.shape)
        else:
            return whole
    return min(part, whole)


def _written(inside: dict[str, _Instruction], shape: str) -> float:
    """Bytes that a fusion writes."""
    root = list(inside.values())[-1]
    while root.op == "bitcast":
        root = inside[root.operands[0]]
    whole = _size(shape, main=True)
    return (
        min(_size(inside[root.operands[1]].shape), whole)
        if root.op == "dynamic-update-slice"
        else whole
    )
