"""Work of a compiled program: FLOPs, memory traffic, cycles and collectives.

A loop counts as often as it runs, a conditional by its branches. (XLA's own
`cost_analysis` counts a loop's body once and a conditional at its costliest branch.)
"""

import re
from functools import cache
from typing import Literal, NamedTuple

import jax

from jaxhypernas.programs.ahead.hlo_flops import flops
from jaxhypernas.programs.ahead.hlo_text import (
    Computation,
    Instruction,
    array_bytes,
    called,
    called_branches,
    parse,
    trip_count,
)
from jaxhypernas.programs.ahead.hlo_traffic import traffic

Branches = Literal["mean", "max"]

_COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "reduce-scatter",
)


class Work(NamedTuple):
    """The work of one device."""

    flops: float
    """FLOPs of products and convolutions, 2 per multiply-add."""

    bytes: float
    """Bytes read from and written to its main memory, padding included."""

    cycles: float
    """The TPU compiler's estimate of cycles, without waiting for memory; 0 on other
    platforms."""

    collectives: dict[str, tuple[float, float]]
    """For each kind of collective, how often it runs, and the bytes of its results."""

    unknown: float
    """Loops whose count the program does not hold; these count once."""


def read(program: jax.stages.Compiled, branches: Branches = "mean") -> Work:
    """Counts the work of a compiled program::

        work = read(jax.jit(f).lower(x).compile())

    Args:
        program: The program, of any platform.
        branches: Whether a conditional counts as the mean over its branches, or in each
            figure as the branch that has most.

    Returns:
        The work of one device in one call.
    """
    computations, entry = parse(program.as_text() or "")

    # A computation may be called from many places, so its work is kept.
    @cache
    def total(name: str) -> Work:
        computation = computations[name]
        return _sum([(work(computation, i), 1) for i in computation.values()])

    def work(computation: Computation, i: Instruction) -> Work:
        if i.op == "while":
            count = trip_count(computations, computation, i)
            times = count or 1
            body = total(called(i, "body"))
            condition = total(called(i, "condition"))
            loop = _sum([(body, times), (condition, times)])
            return loop._replace(unknown=loop.unknown + (count is None))
        if i.op == "conditional":
            parts = [total(name) for name in called_branches(i)]
            if branches == "max":
                return _most(parts)
            return _sum([(part, 1 / len(parts)) for part in parts])
        if i.op == "call":
            return total(called(i, "to_apply"))
        if i.op == "async-start":
            return total(called(i, "calls"))
        if i.op == "fusion":
            # Inside of a fusion nothing passes through main memory.
            inside = total(called(i, "calls")).flops
        else:
            inside = flops(computation, i)
        return Work(
            flops=inside,
            bytes=traffic(computations, computation, i),
            cycles=_cycles(i),
            collectives=_collective(i),
            unknown=0.0,
        )

    return total(entry)


def _cycles(instruction: Instruction) -> float:
    found = re.search(r'"estimated_cycles":"(\d+)"', instruction.attributes)
    return float(found[1]) if found else 0.0


def _collective(instruction: Instruction) -> dict[str, tuple[float, float]]:
    kind = instruction.op.removesuffix("-start")
    if kind not in _COLLECTIVES:
        return {}
    return {kind: (1.0, array_bytes(instruction.shape))}


def _sum(parts: list[tuple[Work, float]]) -> Work:
    """The sum of works, each times a factor."""
    collectives: dict[str, tuple[float, float]] = {}
    for part, times in parts:
        for kind, (count, size) in part.collectives.items():
            counted, summed = collectives.get(kind, (0.0, 0.0))
            collectives[kind] = (
                counted + times * count,
                summed + times * size,
            )

    def total(name: str) -> float:
        return sum(times * getattr(part, name) for part, times in parts)

    return Work(
        flops=total("flops"),
        bytes=total("bytes"),
        cycles=total("cycles"),
        collectives=collectives,
        unknown=total("unknown"),
    )


def _most(parts: list[Work]) -> Work:
    """The most of any of the works, in each figure."""
    kinds = {kind for part in parts for kind in part.collectives}
    none = (0.0, 0.0)
    return Work(
        flops=max(part.flops for part in parts),
        bytes=max(part.bytes for part in parts),
        cycles=max(part.cycles for part in parts),
        collectives={
            kind: max(part.collectives.get(kind, none) for part in parts)
            for kind in kinds
        },
        unknown=max(part.unknown for part in parts),
    )
