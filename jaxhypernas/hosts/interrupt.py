"""Stopping at a safe point: after SIGTERM (preemption) or Ctrl-C, what is under way is finished and saved first."""

import signal
import sys

from jaxhypernas.hosts import processes

_received: list[signal.Signals] = []


class StoppedError(Exception):
    """Work has stopped at a safe point; ``code`` is the exit code that the shell expects after this signal."""

    def __init__(self, received: signal.Signals):
        super().__init__(
            f"stopped by {received.name}, all that was finished is saved: the same command goes on"
        )
        self.code = 128 + received


def install() -> None:
    """Handle SIGTERM and SIGINT: the first is obeyed at the next `check`, a second at once."""

    def handle(number, _):
        _received.append(signal.Signals(number))
        print(
            "jaxhypernas: finishing the work under way, then stopping",
            file=sys.stderr,
        )
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, handle)


def check() -> None:
    """A safe point, of all processes: everything is saved. Raises StoppedError if a signal has come to one of them."""
    if processes.any_of(bool(_received)):
        raise StoppedError(_received[0] if _received else signal.SIGTERM)
