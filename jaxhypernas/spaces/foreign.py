"""Architectures as other programs print them: what their texts have in common."""

import ast
import re
from typing import Any

from jaxhypernas.types import UserError

LONGEST = 10_000
"""Characters of a text; Python's parser takes much memory for each."""


def clean(text: str) -> str:
    """Returns a text without what tables and shells put round it.

    Args:
        text: The text. A byte-order mark, quotes and spaces of any kind are removed
            from its ends.

    Raises:
        UserError: The text is too long for an architecture.
    """
    if len(text) > LONGEST:
        raise UserError(
            f"arch: {text[:40]!r}... has {len(text):,} characters: an architecture has "
            f"{LONGEST:,} at most"
        )
    text = text.replace("\ufeff", "").strip()
    while len(text) > 1 and text[0] == text[-1] and text[0] in "\"'`":
        text = text[1:-1].strip()
    return text


def literal(text: str) -> Any:
    """Returns the Python or JSON value that a text writes; None: it writes none.

    A call, as in ``Genotype(normal=[...], normal_concat=range(2, 6))``, becomes a
    dictionary of its keywords, and arrays as NumPy prints them become lists. Nothing is
    executed.

    Args:
        text: The text.
    """
    # NumPy leaves out commas.
    with_commas = re.sub(r"(?<=[\d\]])\s+(?=[\d\[])", ", ", text)
    try:
        tree = ast.parse(with_commas, mode="eval").body
        if isinstance(tree, ast.Call):
            return _keywords(tree)
        return ast.literal_eval(tree)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _keywords(call: ast.Call) -> dict[str | None, Any]:
    """The keywords of a call; of those that are calls, as range(2, 6), None."""
    return {
        keyword.arg: None
        if isinstance(keyword.value, ast.Call)
        else ast.literal_eval(keyword.value)
        for keyword in call.keywords
    }
