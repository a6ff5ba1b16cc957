"""All processes of a run meet before JAX connects them.

JAX alone crashes minutes later when a process is missing, without its number, and hangs
or computes nonsense when two processes run different programs.

Process 0 listens at the coordinator's port. Each other process connects, sends one line
of JSON (its number, its card and a hash of the run's secret), and waits. Once all have
connected or the time is over, process 0 compares the cards and answers every process
with the same line of JSON: null, or the message of the `UserError` that all of them
raise. Then the port is free for JAX.

Anybody may connect to a port. Process 0 reads at most `_LINE_BYTES` from a connection,
for at most `_CLIENT_S` seconds, keeps nothing of one that is no process of the run, and
counts it in one line at the end.
"""

import contextlib
import hashlib
import hmac
import json
import os
import socket
import sys
import threading
import time

from jaxhypernas.hosts.place import Place
from jaxhypernas.types import UserError

WAIT_S = 25
"""Seconds for all processes to start."""

SECRET = "JAXHYPERNAS_SECRET"  # noqa: S105, a name
"""Environment variable with the secret of the run, equal in all processes; without it,
who knows the command and the code may take a process's place."""

_CLIENT_S = 10
"""Seconds for a connected process to send its line."""

_LINE_BYTES = 100_000
"""Longest line; the longest thing in it is the command."""

_CLIENTS = 4096
"""Most connections that are read at a time; others wait to be accepted."""

_RETRY_S = 0.2
"""Seconds between attempts to reach process 0."""


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
    try:
        server = _listen(host, int(port))
    except OSError as error:
        raise UserError(
            f"distributed: port {port} of {host} cannot be used "
            f"({error.strerror}): name another"
        ) from None
    roll = _Roll(place, card)
    with server:
        roll.hear(server)
    wrong = _wrong(place, card, roll.cards)
    roll.answer(wrong)
    if roll.strangers:
        print(
            f"jaxhypernas: {roll.strangers} connection(s) at port {port} came from no "
            f"process of this run (or from one with another {SECRET}) and were ignored",
            file=sys.stderr,
        )
    if wrong:
        raise UserError(wrong)


def _listen(host: str, port: int) -> socket.socket:
    """Listens at the coordinator's address, or at all if that is not this machine's."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        found = []
    addresses = {str(address[0]) for _, _, _, _, address in found}
    # Some machines know their own name as 127.0.1.1 only, where no other reaches them.
    is_name = host != "localhost" and host not in addresses
    if is_name and any(text.startswith("127.") for text in addresses):
        found = []
    for family, _, _, _, address in found:
        with contextlib.suppress(OSError):
            return socket.create_server(address[:2], family=family)
    return socket.create_server(("", port))


class _Roll:
    """What process 0 knows of the others."""

    def __init__(self, place: Place, card: dict[str, str]):
        self.cards: dict[int, dict[str, str]] = {}
        self.strangers = 0
        self._place = place
        self._names = set(card)
        self._connections: dict[int, socket.socket] = {}
        self._changed = threading.Condition()
        self._slots = threading.Semaphore(_CLIENTS)

    def hear(self, server: socket.socket) -> None:
        """Waits until all processes have connected, or the time is over."""
        until = time.monotonic() + WAIT_S
        accepting = threading.Thread(
            target=self._accept, args=(server, until), daemon=True
        )
        accepting.start()
        others = self._place.processes - 1
        with self._changed:
            self._changed.wait_for(lambda: len(self.cards) == others, WAIT_S)
        # A closed socket would leave the thread in `accept` on Linux.
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        accepting.join()

    def answer(self, wrong: str | None) -> None:
        """Sends all processes the same line."""
        for connection in self._connections.values():
            with contextlib.suppress(OSError), connection:
                _send(connection, wrong)

    def _accept(self, server: socket.socket, until: float) -> None:
        while (left := until - time.monotonic()) > 0:
            server.settimeout(left)
            try:
                connection, _ = server.accept()
            except OSError:
                return
            self._slots.acquire()
            # One that says nothing must not keep the others waiting.
            threading.Thread(
                target=self._read, args=(connection,), daemon=True
            ).start()

    def _read(self, connection: socket.socket) -> None:
        try:
            found = self._card(_receive(connection, _CLIENT_S))
        except (OSError, ValueError):
            found = None
        with self._changed:
            if found is None:
                self.strangers += 1
                connection.close()
            else:
                process, card = found
                self.cards[process] = card
                self._connections[process] = connection
                self._changed.notify()
        self._slots.release()

    def _card(self, message: object) -> tuple[int, dict[str, str]] | None:
        """The number and card of a process; None: a stranger sent the message."""
        if not isinstance(message, dict):
            return None
        process = message.pop("process", None)
        secret = message.pop("secret", None)
        is_number = type(process) is int
        if not is_number or not 0 < process < self._place.processes:
            return None
        is_ours = set(message) == self._names
        are_text = all(isinstance(value, str) for value in message.values())
        if not is_ours or not are_text or not isinstance(secret, str):
            return None
        if not hmac.compare_digest(secret.encode(), _secret().encode()):
            return None
        return process, message


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
                mine = {"process": place.process, "secret": _secret()}
                _send(connection, mine | card)
                # Process 0 answers once it has waited for all.
                wrong = _receive(connection, WAIT_S + 10)
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


def _receive(connection: socket.socket, wait_s: float) -> object:
    """Reads one line of JSON, of bounded length and in bounded time."""
    until = time.monotonic() + wait_s
    line = b""
    while not line.endswith(b"\n"):
        # A socket's own limit holds for each byte, not for the line.
        connection.settimeout(max(until - time.monotonic(), 0.001))
        received = connection.recv(4096)
        line += received
        if not received or len(line) > _LINE_BYTES:
            raise ValueError("no line of a process")
    try:
        return json.loads(line)
    except RecursionError:
        raise ValueError("no line of a process") from None


def _secret() -> str:
    """A hash of the run's secret, which is never sent itself."""
    secret = os.environ.get(SECRET, "")
    return hashlib.sha256(secret.encode()).hexdigest()
