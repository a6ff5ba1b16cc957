"""Messages about image sets that other libraries cannot read."""

from jaxhypernas.types import UserError

PREPARE_AGAIN = (
    'prepare it again with file_format="array_record", or save it as an .npz'
)
"""What a user can do about a prepared set of another format."""


def one_line(error: Exception) -> str:
    """Returns another library's error as one line of at most 200 characters.

    Args:
        error: The error.
    """
    text = f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:200]


def unreadable(where: str, error: Exception) -> UserError:
    """Returns the error for a prepared set that cannot be read.

    Args:
        where: The set and its directory.
        error: The error of the library that reads it.
    """
    return UserError(
        f"data.dataset: {where} cannot be read ({one_line(error)})"
    )
