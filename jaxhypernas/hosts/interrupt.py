"""SIGTERM (preemption) and Ctrl-C stop the work where everything is saved."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from jaxhypernas.hosts import processes

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# Signals received since the handlers were installed; None: they are not installed.
_received: list[signal.Signals] | None = None


class StoppedError(Exception):
    """Work has stopped where everything is saved.

    ``code`` is the exit code that a shell expects after the signal.
    """

    def __init__(self, received: signal.Signals):
        super().__init__(
            f"stopped by {received.name}, all that was finished is saved: the same "
            "command goes on"
        )
        self.code = 128 + received


@contextmanager
def handled() -> Iterator[None]:
    """Defers SIGTERM and SIGINT to the next `check` in the body::

        with interrupt.handled():
            for step in range(steps):
                work(step)
                save(step)
                interrupt.check()

    The first signal is deferred; after it a second one ends the process at once. At the
    end of the body the handlers from before are put back, and the signal is forgotten.
    Only Python's main thread can handle signals: in other threads, and inside another
    ``handled``, this does nothing.

    It must begin after `rollcall.join`: JAX then installs a handler of SIGTERM.
    """
    global _received
    in_main_thread = threading.current_thread() is threading.main_thread()
    if _received is not None or not in_main_thread:
        yield
        return

    received: list[signal.Signals] = []
    before = {each: signal.getsignal(each) for each in _SIGNALS}

    def put_back() -> None:
        for each, handler in before.items():
            # None: C code had installed the handler, which Python cannot put back.
            signal.signal(each, signal.SIG_DFL if handler is None else handler)

    def handle(number, _):
        received.append(signal.Signals(number))
        print(
            "jaxhypernas: finishing the work under way, then stopping",
            file=sys.stderr,
        )
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    for each in _SIGNALS:
        signal.signal(each, handle)
    _received = received
    try:
        yield
    finally:
        _received = None
        put_back()


def pending() -> bool:
    """Returns whether a signal has come to this process.

    Work that has begun then leaves the rest, and goes on to the next `check`.
    """
    return bool(_received)


def requested() -> signal.Signals | None:
    """Returns the signal that has come to one of the processes, if one has.

    All processes must call it at the same point.
    """
    if not processes.any_of(pending()):
        return None
    return _received[0] if _received else signal.SIGTERM


def check() -> None:
    """Stops if a signal has come to one of the processes; everything must be saved.

    All processes must call it at the same point.

    Raises:
        StoppedError: A signal has come.
    """
    if received := requested():
        raise StoppedError(received)
