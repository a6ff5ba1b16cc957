"""Cells as DARTS (Liu et al. 2019) and its followers print them."""

from typing import Any

from jaxhypernas.spaces import foreign
from jaxhypernas.types import UserError

_FORM = "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1), ...])"

# DARTS counts the cell before the last one as state 0, and the last one as 1.
_OUR_STATE = {0: 1, 1: 0}


def is_genotype(text: str) -> bool:
    """Returns whether a text looks like a genotype.

    Args:
        text: The text.
    """
    return "normal" in text


def to_nodes(text: str, nodes: int) -> str:
    """Writes a genotype's normal cell as `dag_text.to_string` would.

    A space of one cell uses it with stride 2 where the network halves its images, so
    the cell ``reduce`` of a genotype is left out.

    Args:
        text: The genotype, as DARTS prints it, or a dictionary with its fields.
        nodes: Nodes of a cell; those that the genotype lacks are absent.

    Raises:
        UserError: The text is no genotype of so many nodes.
    """
    value = foreign.literal(foreign.clean(text))
    pairs = _pairs(value)
    if not pairs or len(pairs) % 2:
        raise UserError(f"arch: {text[:80]!r} is not {_FORM}")
    if len(pairs) > nodes:
        raise UserError(
            f"arch: the genotype has {len(pairs)} ops, a cell here {nodes} at most"
        )
    texts = [f"{op}({_OUR_STATE.get(state, state)})" for op, state in pairs]
    return ";".join(texts + ["-"] * (nodes - len(texts)))


def _pairs(value: Any) -> list[tuple[str, int]]:
    """The ops and states of a normal cell; none if the value is no genotype."""
    try:
        pairs = [(str(op), int(state)) for op, state in value["normal"]]
    except (TypeError, ValueError, LookupError):
        return []
    return pairs
