"""How many programs this process has compiled, or taken from the cache of compiled ones."""

import jax

_total = 0


def _count(event: str, duration_secs: float, **_) -> None:
    global _total
    _total += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_count)


def total() -> int:
    """Their number since this module was imported."""
    return _total
