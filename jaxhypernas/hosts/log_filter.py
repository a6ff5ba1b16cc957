"""What a process writes where JAX's C++ code writes, read to its end: the many lines of a lost process become one.

JAX ends a process whose peer is lost from another thread, where Python has no say. Run as a program, by `rollcall`.
"""

import re
import signal
import sys

CHATTER = re.compile(  # Gloo's threads write into each other's lines
    r".*(\[Gloo\]|peer ranks)|\s*$|WARNING: All log messages before|[IW]\d{4} \d\d:\d\d:\d\d"
    r"|Additional GRPC error information|:UNKNOWN:Error received"
)
FAILURE = re.compile(r"([EF])\d{4} \d\d:\d\d:\d\d")
LOST = "jaxhypernas: another process of the run is lost: see its last words and start all again: what was saved is kept"


def main() -> None:
    """Pass lines on, but for JAX's chatter; from its first failure on keep them, and tell what they mean."""
    for each in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # which a whole group gets: read to the end
        signal.signal(each, signal.SIG_IGN)
    kept, fatal = [], False
    for line in sys.stdin:
        failure = FAILURE.match(line)
        if failure or kept:
            kept.append(line)
            fatal = fatal or bool(failure and failure[1] == "F")
        elif not CHATTER.match(line):
            print(line, end="", flush=True)
    print(
        LOST if fatal else "".join(kept), end="\n" if fatal else "", flush=True
    )


if __name__ == "__main__":
    main()
