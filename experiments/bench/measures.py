"""Time and memory of a benchmark."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


def seconds(call: Callable[[], Any]) -> float:
    """Returns the seconds that a call takes until its arrays are there."""
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def best_seconds(call: Callable[[], Any], repeats: int = 3) -> float:
    """Returns the seconds of the fastest call, after one that compiles."""
    seconds(call)
    return min(seconds(call) for _ in range(repeats))


class Growth:
    """How far the memory of this process grows from now on, at most. Linux only."""

    def __init__(self) -> None:
        # 5 resets the peak, VmHWM, to the memory in use.
        Path("/proc/self/clear_refs").write_text("5")
        self._before = _status_mib("VmRSS")

    def mib(self) -> float:
        """Returns the growth so far."""
        return max(_status_mib("VmHWM") - self._before, 0.0)


def _status_mib(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/self/status has no {field}")
