"""Joining the other processes of a run, and the end of a process that loses them."""

import hashlib
import os
import platform
import sys
from pathlib import Path

import jax
import numpy as np

from jaxhypernas.hosts import log_filter, meeting, place, processes

CONNECT_S = 20
"""Seconds for JAX to connect the processes, all of which have just met."""

LOST_S = 30
"""Seconds after which a silent process is lost."""

LOST_CODE = 70
"""Exit code of a process that has lost another."""


def join(
    command: list[str], config: bytes, *, filter_log: bool = False
) -> None:
    """Connects this process to the other processes of the run.

    It must run before any other use of JAX::

        rollcall.join(sys.argv[1:], Path("run/config.json").read_bytes())

    Args:
        command: Words of the command line.
        config: Contents of the work directory's ``config.json``; empty if there is
            none yet.
        filter_log: Whether a child process reads what C++ code writes to standard
            output and error, and shortens JAX's log of a lost process to one line.
            It takes over file descriptors 1 and 2 for the rest of the process.

    Raises:
        UserError: This process's place is unknown, a process is missing after
            `meeting.WAIT_S` seconds, or one has another command, configuration, code
            or version than process 0.
    """
    here = place.find(meeting.WAIT_S)
    card = {
        "command": " ".join(command),
        "config": hashlib.sha256(config).hexdigest(),
        "code": code(),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    meeting.meet(here, card)
    if filter_log:
        log_filter.start()
    jax.distributed.initialize(
        *here,
        initialization_timeout=CONNECT_S,
        heartbeat_timeout_seconds=LOST_S,
    )
    # Gloo connects processes at their first exchange, and fails if one comes 30 s
    # after another: now all are here.
    processes.gather(np.zeros(1))


def lost() -> None:
    """Writes the last line of a process that has lost another, to standard error.

    JAX mostly raises an error in a process whose peer is lost; the caller then calls
    this and exits with `LOST_CODE`. At times JAX's C++ code ends the process from
    another thread first: then the line appears only where the log is filtered.
    """
    if log_filter.started():
        os.write(2, log_filter.FATAL)
    else:
        print(log_filter.LOST, file=sys.stderr, flush=True)


def code() -> str:
    """Returns a hash of the package's Python files."""
    package = Path(__file__).parents[1]
    contents = [file.read_bytes() for file in sorted(package.rglob("*.py"))]
    return hashlib.sha256(b"".join(contents)).hexdigest()[:12]
