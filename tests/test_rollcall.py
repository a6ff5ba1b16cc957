"""All processes are there and run the same, or each says in one line what is wrong."""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from jaxhypernas.hosts import log_filter, meeting, place, rollcall
from jaxhypernas.types import UserError


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


CARD = {
    "command": "train --workdir w",
    "config": "",
    "code": "abc",
    "jax": "1",
    "python": "3",
}


def meet(port, cards, processes=None):
    """What each process that starts hears: nothing, or the line."""
    heard = {}

    def one(process, card):
        number = processes or len(cards)
        here = place.Place(f"127.0.0.1:{port}", number, process)
        try:
            meeting.meet(here, card)
            heard[process] = ""
        except UserError as error:
            heard[process] = str(error)

    threads = [
        threading.Thread(target=one, args=item) for item in cards.items()
    ]
    # The others first: they wait for process 0.
    for thread in reversed(threads):
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    return heard


def test_all_there(port):
    assert meet(port, dict.fromkeys(range(4), CARD)) == dict.fromkeys(
        range(4), ""
    )


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "command",
            "train --train.steps 9",
            (
                "process 1",
                "command 'train --train.steps 9'",
                "'train --workdir w'",
            ),
        ),
        ("config", "{}", ("workdir: process 1", "config.json")),
        ("code", "abd", ("process 1", "code 'abd'")),
        ("jax", "2", ("process 1", "jax '2'")),
    ],
)
def test_another_program(port, name, value, words):
    heard = meet(port, {0: CARD, 1: CARD | {name: value}, 2: CARD})
    assert heard[0] == heard[1] == heard[2]
    assert all(word in heard[0] for word in words) and "\n" not in heard[0]


def test_who_is_missing(port, monkeypatch):
    monkeypatch.setattr(meeting, "WAIT_S", 1)
    heard = meet(port, {0: CARD, 2: CARD}, processes=5)
    assert (
        heard[0] == heard[2]
        and "process 1, 3, 4 of 5 did not join" in heard[0]
    )


def test_the_first_is_missing(port, monkeypatch):
    monkeypatch.setattr(meeting, "WAIT_S", 1)
    assert "process 0 did not answer" in meet(port, {1: CARD}, processes=2)[1]


def test_a_port_in_use_is_one_line(port):
    with (
        socket.create_server(("", port)),
        pytest.raises(UserError, match=f"port {port}"),
    ):
        meeting.meet(place.Place(f"127.0.0.1:{port}", 2, 0), CARD)


def connect(port):
    """Connects once process 0 listens."""
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.02)


STRANGERS = {
    "browser": b"GET / HTTP/1.1\r\n",
    "list": b"[]\n",
    "number": b"7\n",
    "process of nobody": b'{"process": 9}\n',
    "process is text": b'{"process": "x"}\n',
    "no secret": json.dumps({"process": 1, **CARD}).encode() + b"\n",
    "no text": json.dumps({"process": 1, **CARD, "jax": {}}).encode() + b"\n",
    "more": json.dumps({"process": 1, **CARD, "x": "y"}).encode() + b"\n",
    "not UTF-8": b"\xff\xfe\n",
    "deep": b"[" * 90_000 + b"\n",
    "long": b"x" * 200_000,
    "a scan": b"",
}


def test_others_at_the_port_are_ignored(port, monkeypatch, capsys):
    monkeypatch.setattr(meeting, "WAIT_S", 2)

    def strangers():
        for words in STRANGERS.values():
            with (
                contextlib.suppress(OSError),
                connect(port) as connection,
            ):
                connection.sendall(words)

    thread = threading.Thread(target=strangers)
    thread.start()
    heard = meet(port, {0: CARD}, processes=2)
    thread.join()
    assert "process 1 of 2" in heard[0]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert f"{len(STRANGERS)} connection(s)" in lines[0]


def test_silent_strangers_do_not_delay_the_others(port):
    silent = []

    def hold():
        silent.extend(connect(port) for _ in range(20))

    thread = threading.Thread(target=hold)
    thread.start()
    first = threading.Thread(target=meet, args=(port, {0: CARD}, 2))
    first.start()
    thread.join()
    start = time.monotonic()
    assert meet(port, {1: CARD}, processes=2) == {1: ""}
    assert time.monotonic() - start < meeting._CLIENT_S
    first.join()
    for connection in silent:
        connection.close()


def test_secret_is_compared(port, monkeypatch):
    monkeypatch.setenv(meeting.SECRET, "a")
    of_a = meeting._secret()
    assert meet(port, {0: CARD, 1: CARD}) == {0: "", 1: ""}
    monkeypatch.setenv(meeting.SECRET, "b")
    roll = meeting._Roll(place.Place("h:1", 2, 0), CARD)
    assert roll._card({"process": 1, "secret": of_a} | CARD) is None
    ours = {"process": 1, "secret": meeting._secret()}
    assert roll._card(ours | CARD) == (1, CARD)


def test_only_the_coordinators_address_listens(port):
    with meeting._listen("127.0.0.1", port) as server:
        assert server.getsockname()[0] == "127.0.0.1"


def test_a_name_of_the_loopback_listens_everywhere(port, monkeypatch):
    address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: [address])
    with meeting._listen("node7", port) as server:
        assert server.getsockname()[0] == "0.0.0.0"


@pytest.mark.parametrize(
    "values",
    [
        ("here", "2", "0"),
        ("h:1", "two", "0"),
        ("h:1", "2", "2"),
        ("h:1", "2", "-1"),
    ],
)
def test_wrong_variables(values, monkeypatch):
    for name, value in zip(place.VARIABLES, values, strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=values[0]):
        place.find(10)


def test_no_cluster(monkeypatch):
    for name in place.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="JAX_COORDINATOR_ADDRESS"):
        place.find(10)


def test_slurm_tells_the_place(monkeypatch):
    for name in place.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    slurm = {
        "JOB_ID": "7",
        "STEP_NODELIST": "node[3-4]",
        "STEP_NUM_NODES": "2",
        "NTASKS": "8",
        "PROCID": "5",
    }
    slurm["LOCALID"] = "1"
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    found = place.find(10)
    assert found.coordinator.startswith("node3:") and found[1:] == (8, 5)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (
            "[Gloo] Rank 0 is connected\nW1124 23:38:13.381740 5 x.cc:1] Failed\n",
            "",
        ),
        (
            "[Gloo] Rank [Gloo] Rank 01 is connected to 1 peer ranks.\n3\n"
            " is connected to 1 peer ranks.\n\n",
            "",
        ),
        ("Illegal instruction\n", "Illegal instruction\n"),
        (
            "E1124 23:38:10.903068 5 x.cc:1] odd\nmore of it\n",
            "E1124 23:38:10.903068 5 x.cc:1] odd\nmore of it\n",
        ),
        (
            "a\nE1124 23:38:10.9 5 x.cc:1] b\nc\nF1124 23:38:10.9 5 x.cc:1] d\n@ 0x1\n",
            f"a\n{log_filter.LOST}\n",
        ),
    ],
)
def test_filtered_log(written, shown, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(written))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    log_filter.main()
    assert capsys.readouterr().out == shown


def test_lost_is_the_last_line(capsys):
    rollcall.lost()
    assert capsys.readouterr().err == f"{log_filter.LOST}\n"


FILTERED = """
import os, sys
from jaxhypernas.hosts import log_filter, rollcall

log_filter.start()
print("python")
print("more", file=sys.stderr)
os.write(2, b"[Gloo] Rank 0 is connected\\nE1124 23:38:10.9 5 x.cc:1] b\\n")
rollcall.lost()
"""


def test_lost_is_the_only_line_of_a_filtered_log():
    done = subprocess.run(
        [sys.executable, "-c", FILTERED],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stdout) == (0, "python\n")
    assert done.stderr == f"more\n{log_filter.LOST}\n"


def test_code_is_that_of_all_files(monkeypatch, tmp_path):
    (tmp_path / "hosts").mkdir()
    (tmp_path / "data").mkdir()
    other = tmp_path / "data" / "a.py"
    monkeypatch.setattr(
        rollcall, "__file__", str(tmp_path / "hosts" / "rollcall.py")
    )
    hashes = set()
    for text in ("a", "b"):
        other.write_text(text)
        hashes.add(rollcall.code())
    assert len(hashes) == 2
