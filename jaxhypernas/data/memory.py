"""Whether images fit in memory, from what their files say of themselves."""

import os

from jaxhypernas.types import UserError

SHARE = 0.7
"""Most of a machine's memory that images may take."""


def check(where: str, size: int) -> None:
    """Checks that a set fits, before it is read.

    Args:
        where: Beginning of the message: the field and the set.
        size: Bytes of the set in memory.

    Raises:
        UserError: It does not fit.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > SHARE * total:
        raise UserError(
            f"{where} takes {size / 1e9:,.0f} GB in memory, this machine has "
            f"{total / 1e9:,.0f}: use a part of it, or jaxhypernas prepare elsewhere "
            "and --data.stream"
        )
