"""All processes of a run meet before JAX connects them.

JAX alone crashes minutes later when a process is missing, without its number, and hangs
or computes nonsense when two processes run different programs.

Process 0 listens at the coordinator's port. Each other process connects, sends one line
of JSON (its number and its card), and waits. Once all have connected or the time is
over, process 0 compares the cards and answers every process with the same line of JSON:
null, or the message of the `UserError` that all of them raise. Then the port is free
for JAX.
"""

import contextlib
import json
import socket
import time

from jaxhypernas.hosts.place import Place
from jaxhypernas.types import UserError

WAIT_S = 45
"""Seconds for all processes to start."""

_CLIENT_S = 10
"""Seconds for a connected process to send its line."""

_RETRY_S = 0.2
"""Seconds between attempts to reach process 0."""

# Errors caused by an unrelated client that connects to our port.
_STRANGER_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
)


def meet(place: Place, card: dict[str, str]) -> None:
    """Waits until all processes are there, and checks that all run the same.

    Args:
        place: This process's place.
        card: The things that must be equal in all processes, by name.

    Raises:
        UserError: A process is missing after `WAIT_S` seconds, or has another card
            than process 0; the message names the process and the thing. All processes
            raise the same.
    """
    if place.process == 0:
        _call(place, card)
    else:
        _answer(place, card)


def _call(place: Place, card: dict[str, str]) -> None:
    """Process 0: hears the others, then answers all of them."""
    host, _, port = place.coordinator.rpartition(":")
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(socket.create_server(("", int(port))))
        except OSError as error:
            raise UserError(
                f"distributed: port {port} of {host} cannot be used "
                f"({error.strerror}): name another"
            ) from None
        cards, connections = _hear(server, place, stack)
        wrong = _wrong(place, card, cards)
        for connection in connections:
            with contextlib.suppress(OSError):
                _send(connection, wrong)
    if wrong:
        raise UserError(wrong)


def _hear(
    server: socket.socket, place: Place, stack: contextlib.ExitStack
) -> tuple[dict[int, dict], list[socket.socket]]:
    """The cards of the processes that connect in time, and all connections."""
    until = time.monotonic() + WAIT_S
    cards: dict[int, dict] = {}
    connections = []
    while len(cards) < place.processes - 1:
        left = until - time.monotonic()
        if left <= 0:
            break
        server.settimeout(left)
        with contextlib.suppress(*_STRANGER_ERRORS):
            connection = stack.enter_context(server.accept()[0])
            connections.append(connection)
            connection.settimeout(_CLIENT_S)
            card = _receive(connection)
            process = card.pop("process")
            if 0 < process < place.processes:
                cards[process] = card
    return cards, connections


def _wrong(
    place: Place, card: dict[str, str], cards: dict[int, dict]
) -> str | None:
    """The message for the first thing that is wrong; None: nothing is."""
    others = range(1, place.processes)
    missing = [str(process) for process in others if process not in cards]
    if missing:
        return (
            f"distributed: process {', '.join(missing)} of {place.processes} did not "
            f"join within {WAIT_S} s: start all of them, and let them reach "
            f"{place.coordinator}"
        )
    for process, other in sorted(cards.items()):
        for name, mine in card.items():
            theirs = other.get(name)
            if theirs == mine:
                continue
            if name == "config":
                return (
                    f"workdir: process {process} sees another config.json than process "
                    "0: share the directory"
                )
            return (
                f"distributed: process {process} has {name} {theirs!r}, process 0 "
                f"{mine!r}: make them the same"
            )
    return None


def _answer(place: Place, card: dict[str, str]) -> None:
    """Another process: sends its card to process 0, and hears whether to go on."""
    host, _, port = place.coordinator.rpartition(":")
    until = time.monotonic() + WAIT_S
    while True:
        try:
            with socket.create_connection(
                (host, int(port)), timeout=WAIT_S
            ) as connection:
                _send(connection, {"process": place.process, **card})
                # Process 0 answers once it has waited for all.
                connection.settimeout(WAIT_S + 10)
                wrong = _receive(connection)
                break
        except (OSError, ValueError):
            if time.monotonic() > until:
                raise UserError(
                    f"distributed: process 0 did not answer at {place.coordinator} "
                    f"within {WAIT_S} s: start it too"
                ) from None
            time.sleep(_RETRY_S)
    if wrong:
        raise UserError(wrong)


def _send(connection: socket.socket, message: dict | str | None) -> None:
    connection.sendall((json.dumps(message) + "\n").encode())


def _receive(connection: socket.socket):
    with connection.makefile() as file:
        return json.loads(file.readline())
