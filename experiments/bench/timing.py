"""How the benches time."""

import time
from collections.abc import Callable
from typing import Any

import jax


def best(f: Callable[[], Any], repeats: int = 3) -> float:
    """Seconds of the fastest of some calls, after one that compiles."""
    jax.block_until_ready(f())
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(f())
        times.append(time.perf_counter() - began)
    return min(times)
