"""Durations as people say them."""


def text(seconds: float) -> str:
    """Returns a duration as text, as in ``3 min 58 s`` or ``2 h 15 min``.

    Args:
        seconds: The duration.
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{seconds / 86400:.1f} days"
