"""JSON that every reader takes: numbers that are not finite are null."""

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(value: object, indent: int | None = None) -> str:
    """Writes a value as JSON.

    Args:
        value: Numbers, texts, lists and dictionaries.
        indent: Spaces of each level; None: one line.
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: object) -> Any:
    """The value with None for numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value
