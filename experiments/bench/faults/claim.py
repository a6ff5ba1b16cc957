"""The claim of the campaign, and how it breaks."""


class Broken(Exception):  # noqa: N818
    """The claim does not hold."""


def must(holds: bool, complaint: str) -> None:
    """Raises Broken with a complaint unless a condition holds."""
    if not holds:
        raise Broken(complaint)
