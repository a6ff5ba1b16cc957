"""Joining the processes of a run. Before JAX connects them, the first makes sure that all are there and run the same.

JAX alone ends in a crash minutes later when a process is missing, without its number, and in a hang or in nonsense when
two processes run different programs.
"""

import contextlib
import hashlib
import json
import os
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxhypernas.hosts import log_filter as lastwords
from jaxhypernas.hosts import processes
from jaxhypernas.types import UserError

WAIT = 45  # seconds for all processes to start
LOST = 30  # seconds after which a process that says nothing is lost
LOST_CODE = 70  # exit code of a process that has lost another
STRANGER = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
)  # what one at the port leads to
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


class Place(NamedTuple):
    """This process among the others."""

    coordinator: str  # HOST:PORT, of the first process
    processes: int
    process: int


def join(words: list[str], config: bytes) -> None:
    """Connect to the other processes of the run; call it before any other use of JAX.

    Args:
        words: of the command line.
        config: the work directory's file of this name, or nothing.

    Raises:
        UserError: the environment doesn't tell where this process is, a process is missing after `WAIT` seconds, or
            one has another command, configuration, code or version than the first.
    """
    place = _place()
    card = {
        "command": " ".join(words),
        "config": hashlib.sha256(config).hexdigest(),
        "code": _code(),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    (_call if place.process == 0 else _answer)(place, card)
    _filter_log()
    jax.distributed.initialize(
        *place, initialization_timeout=WAIT, heartbeat_timeout_seconds=LOST
    )
    processes.gather(
        np.zeros(1)
    )  # Gloo connects them now that all are here: later it waits for 30 s, and then fails


def lost() -> None:
    """Make the line of a lost process the last of this one, as JAX's own end of it would be."""
    os.write(2, b"F0000 00:00:00\n")


def _filter_log() -> None:
    """Let `lastwords` read what C++ writes to standard output and error; Python goes on writing there itself."""
    sys.stdout, sys.stderr = (
        os.fdopen(os.dup(fd), "w", buffering=1) for fd in (1, 2)
    )
    reader = subprocess.Popen(
        [sys.executable, "-I", "-S", lastwords.__file__],
        stdin=subprocess.PIPE,
        stdout=sys.stderr,
    )
    assert reader.stdin is not None
    for fd in (1, 2):
        os.dup2(reader.stdin.fileno(), fd)
    reader.stdin.close()


def _place() -> Place:
    values = [os.environ.get(name, "") for name in VARIABLES]
    if all(values):
        try:
            place = Place(values[0], int(values[1]), int(values[2]))
            if (
                place.coordinator.rpartition(":")[2].isdecimal()
                and 0 <= place.process < place.processes
            ):
                return place
        except ValueError:
            pass
        told = " ".join(
            f"{name}={value}"
            for name, value in zip(VARIABLES, values, strict=True)
        )
        raise UserError(
            f"distributed: {told} is not HOST:PORT, a number of processes, and one of 0 to that less 1"
        )
    # What JAX itself finds: Slurm, Open MPI, Cloud TPU, Kubernetes.
    from jax._src.clusters import ClusterEnv

    try:
        found = ClusterEnv.auto_detect_unset_distributed_params(
            None, None, None, None, None, WAIT
        )
    except Exception as error:  # of whatever serves a cluster's metadata
        raise UserError(
            f"distributed: the cluster doesn't tell this process's place ({error})"
        ) from None
    coordinator, processes, process, _ = found
    if coordinator is None or processes is None or process is None:
        raise UserError(
            f"distributed: no cluster that JAX knows was found: set {', '.join(VARIABLES)}"
        )
    return Place(coordinator, processes, process)


def _code() -> str:
    """A hash of this package's files."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(
        b"".join(file.read_bytes() for file in files)
    ).hexdigest()[:12]


def _call(place: Place, card: dict) -> None:
    """The first process: hear each of the others, then tell them all to go on, or what is wrong."""
    host, _, port = place.coordinator.rpartition(":")
    until = time.monotonic() + WAIT
    said: dict[int, dict] = {}
    with contextlib.ExitStack() as connections:
        try:
            server = connections.enter_context(
                socket.create_server(("", int(port)))
            )
        except OSError as error:
            told = f"port {port} of {host} cannot be used ({error.strerror})"
            raise UserError(f"distributed: {told}: name another") from None
        heard = []
        while (
            len(said) < place.processes - 1
            and (left := until - time.monotonic()) > 0
        ):
            server.settimeout(left)
            with contextlib.suppress(*STRANGER):
                heard.append(connections.enter_context(server.accept()[0]))
                heard[-1].settimeout(10)
                other = json.loads(_line(heard[-1]))
                if 0 < (process := other.pop("process")) < place.processes:
                    said[process] = other
        wrong = _wrong(place, card, said)
        for connection in heard:
            with contextlib.suppress(OSError):
                connection.sendall((json.dumps(wrong) + "\n").encode())
    if wrong:
        raise UserError(wrong)


def _line(connection: socket.socket) -> str:
    with connection.makefile() as file:
        return file.readline()


def _wrong(place: Place, card: dict, said: dict[int, dict]) -> str | None:
    missing = [
        str(process)
        for process in range(1, place.processes)
        if process not in said
    ]
    if missing:
        return (
            f"distributed: process {', '.join(missing)} of {place.processes} did not join within {WAIT} s: "
            f"start all of them, and let them reach {place.coordinator}"
        )
    for process, other in sorted(said.items()):
        for name, mine in card.items():
            if (theirs := other.get(name)) == mine:
                continue
            if name == "config":
                return f"workdir: process {process} sees another config.json than process 0: share the directory"
            return f"distributed: process {process} has {name} {theirs!r}, process 0 {mine!r}: make them the same"
    return None


def _answer(place: Place, card: dict) -> None:
    """Another process: say who it is and what it runs, and hear whether to go on."""
    host, _, port = place.coordinator.rpartition(":")
    until = time.monotonic() + WAIT
    while True:
        try:
            with socket.create_connection(
                (host, int(port)), timeout=WAIT
            ) as connection:
                connection.sendall(
                    (
                        json.dumps({"process": place.process, **card}) + "\n"
                    ).encode()
                )
                connection.settimeout(WAIT + 10)  # the first waits for all
                wrong = json.loads(_line(connection))
                break
        except (OSError, ValueError):
            if time.monotonic() > until:
                raise UserError(
                    f"distributed: process 0 did not answer at {place.coordinator} within {WAIT} s: start it too"
                ) from None
            time.sleep(0.2)
    if wrong:
        raise UserError(wrong)
