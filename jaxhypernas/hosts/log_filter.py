"""Shortens JAX's log of a lost process to one line; off unless it is started.

JAX's C++ code ends a process whose peer is lost from another thread, with many lines
and without asking Python. `start` lets a child process read them: this file, run as a
program. It imports nothing but the standard library, so that the child starts quickly.
"""

import os
import re
import signal
import subprocess
import sys

LOST = (
    "jaxhypernas: another process of the run is lost: read the end of its log, then "
    "start all processes again; saved work is kept"
)
"""The last line of a process that has lost another."""

FATAL = b"F0000 00:00:00\n"
"""A line like the first of JAX's own end; the child replaces it by `LOST`."""

# Gloo's threads write into each other's lines: some lines are a number alone.
CHATTER = re.compile(
    r".*(\[Gloo\]|peer ranks)|\d*\s*$|WARNING: All log messages before"
    r"|[IW]\d{4} \d\d:\d\d:\d\d"
    r"|Additional GRPC error information|:UNKNOWN:Error received"
)
"""Lines that JAX's C++ code writes where nothing is wrong."""

_FAILURE = re.compile(r"([EF])\d{4} \d\d:\d\d:\d\d")

_started = False


def start() -> None:
    """Gives descriptors 1 and 2 to the child; Python goes on writing where it did."""
    global _started
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    reader = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__],
        stdin=subprocess.PIPE,
        stdout=sys.stderr,
    )
    assert reader.stdin is not None
    os.dup2(reader.stdin.fileno(), 1)
    os.dup2(reader.stdin.fileno(), 2)
    reader.stdin.close()
    _started = True


def started() -> bool:
    """Returns whether the log of this process is filtered."""
    return _started


def main() -> None:
    """Copies standard input to standard output, but for JAX's chatter.

    From JAX's first failure on lines are kept back. At the end they are replaced by
    `LOST` if one was fatal, and printed if none was.
    """
    # A whole process group gets these signals, but the log must be read to its end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

    kept: list[str] = []
    fatal = False
    for line in sys.stdin:
        failure = _FAILURE.match(line)
        if failure or kept:
            kept.append(line)
            fatal = fatal or bool(failure and failure[1] == "F")
        elif not CHATTER.match(line):
            print(line, end="", flush=True)

    last = f"{LOST}\n" if fatal else "".join(kept)
    print(last, end="", flush=True)


if __name__ == "__main__":
    main()
