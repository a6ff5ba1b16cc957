"""Cells of NAS-Bench-201 as text, and as other programs write them."""

import random
import re
from functools import cache
from typing import Any

from jaxhypernas.spaces import foreign
from jaxhypernas.types import UserError

EDGE_OPS = (
    "none",
    "skip_connect",
    "nor_conv_1x1",
    "nor_conv_3x3",
    "avg_pool_3x3",
)
"""The ops of an edge; a choice is an index into them."""

EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
"""(to, from) of each edge, in the order of the strings."""

_OTHER_NAMES = {
    "zero": "none",
    "skip": "skip_connect",
    "identity": "skip_connect",
    "conv_1x1": "nor_conv_1x1",
    "conv_3x3": "nor_conv_3x3",
    "avg_pool": "avg_pool_3x3",
}

# NASLib, search_spaces/nasbench201/conversions.py: OP_NAMES_NB201 and EDGE_LIST.
_NASLIB_OPS = (
    "skip_connect",
    "none",
    "nor_conv_3x3",
    "nor_conv_1x1",
    "avg_pool_3x3",
)
_NASLIB_EDGES = ((1, 0), (2, 0), (3, 0), (2, 1), (3, 1), (3, 2))

_FORMS = (
    "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|, an index of NATS-Bench, or six op indices "
    "of NASLib"
)


def to_string(choice_6: list[int]) -> str:
    """Writes the official string.

    Args:
        choice_6: The op of each edge, as indices into `EDGE_OPS`.
    """
    names = [
        f"{EDGE_OPS[op]}~{start}"
        for op, (_, start) in zip(choice_6, EDGES, strict=True)
    ]
    groups = names[:1], names[1:3], names[3:]
    return "+".join(f"|{'|'.join(group)}|" for group in groups)


def read(text: str) -> list[int]:
    """Reads a cell; `nasbench201.from_string` lists the forms.

    Args:
        text: The text.

    Returns:
        choice_6: The op of each edge, as indices into `EDGE_OPS`.

    Raises:
        UserError: The text is no cell.
    """
    text = foreign.clean(text)
    if "~" in text:
        op_of = _official(text)
    elif re.fullmatch(r"\d+", text):
        return _of_index(int(text[:9]))
    else:
        op_of = _of_value(foreign.literal(text))
    if op_of is None or set(op_of) != set(EDGES):
        raise UserError(f"arch: {text[:80]!r} is not {_FORMS}")
    return [_choice(op_of[edge]) for edge in EDGES]


def _official(text: str) -> dict[tuple[int, int], str] | None:
    """The op of each (to, from) of a string, whose edges may be in any order."""
    groups = re.sub(r"\s", "", text).split("+")
    op_of = {}
    count = 0
    for to, group in enumerate(groups, 1):
        for part in group.strip("|").split("|"):
            op, _, start = part.partition("~")
            if not start.isdecimal():
                return None
            op_of[to, int(start[:9])] = op
            count += 1
    return op_of if count == len(op_of) else None


def _of_value(value: Any) -> dict[tuple[int, int], str] | None:
    """The op of each (to, from), from what other programs print."""
    try:
        if isinstance(value, dict):
            # NNI: {"0_1": "conv_3x3", ...}
            pairs = {
                tuple(map(int, key.split("_"))): value[key] for key in value
            }
            return {(to, start): op for (start, to), op in pairs.items()}
        if all(type(op) is int for op in value):
            ops = [_NASLIB_OPS[op] for op in value if op >= 0]
            return dict(zip(_NASLIB_EDGES, ops, strict=True))
        # AutoDL: [[(op, from)], [(op, from), (op, from)], ...]
        return {
            (to, int(start)): op
            for to, group in enumerate(value, 1)
            for op, start in group
        }
    except (TypeError, ValueError, AttributeError, LookupError):
        return None


def _choice(name: object) -> int:
    known = _OTHER_NAMES.get(str(name), str(name))
    if known not in EDGE_OPS:
        raise UserError(
            f"arch: {str(name)[:40]!r} is not one of {', '.join(EDGE_OPS)}"
        )
    return EDGE_OPS.index(known)


def _of_index(index: int) -> list[int]:
    numbers = _nats_bench()
    if index >= len(numbers):
        raise UserError(
            f"arch: {index} is no index of NATS-Bench: they are 0 to "
            f"{len(numbers) - 1}"
        )
    number = numbers[index]
    return [number // 5**place % 5 for place in range(5, -1, -1)]


@cache
def _nats_bench() -> list[int]:
    """The numbers of all cells in the order of NATS-Bench's topology space.

    Its program lists the cells as products of ops, edge by edge, which is our order,
    and shuffles them with seed 88; index 0 is known as |avg_pool_3x3~0|+|nor_conv_1x1~0
    |skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|.
    """
    numbers = list(range(5**6))
    # Python promises the same sequence for a seed, but not for `shuffle`: a test
    # compares published indices.
    random.Random(88).shuffle(numbers)  # noqa: S311
    return numbers
