"""A full disk: nothing finished is lost, one line tells. The campaign of kills: experiments/bench/faults.py."""

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
from tiny import TINY

from jaxhypernas.cli import main as cli
from jaxhypernas.config import config
from jaxhypernas.store.checkpoints import Checkpoints
from jaxhypernas.store.tables import Table
from jaxhypernas.types import UserError


@pytest.fixture
def disk(tmp_path):
    """A directory of a disk of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place]
    if (
        os.geteuid() != 0
        or subprocess.run(mount, capture_output=True).returncode
    ):
        pytest.skip("a disk in memory cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def noise(seed):
    return np.random.default_rng(seed).normal(size=20_000).astype(np.float32)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # of threads that orbax leaves behind
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)
def test_a_full_disk_loses_no_checkpoint(disk):
    saved = 0
    line = f"{disk}.* cannot be written .No space left on device.: "
    with (
        pytest.raises(UserError, match=line) as caught,
        Checkpoints(disk / "checkpoints") as checkpoints,
    ):
        for step in range(1, 20):
            checkpoints.save(step, jnp.asarray(noise(step)))
            checkpoints.wait()
            saved = step
    assert saved >= 1 and "\n" not in str(caught.value)
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    with Checkpoints(disk / "checkpoints", pytest.fail) as checkpoints:
        step, state = checkpoints.restore(jnp.zeros(20_000)) or (0, np.empty(0))
        assert step == saved and np.array_equal(state, noise(saved))
        checkpoints.save(saved + 1, jnp.asarray(noise(0)))


def test_a_full_disk_loses_no_rows(disk):
    table, number = Table(disk / "scores"), 0
    with pytest.raises(OSError, match="No space left on device") as caught:
        while True:
            table.append(pa.table({"x": noise(number)}))
            number += 1
    assert number and caught.value.filename == str(
        disk / f"scores/{number:06d}.parquet"
    )
    again = Table(disk / "scores", pytest.fail)
    assert (
        again.read()["x"].to_pylist()
        == np.concatenate([noise(n) for n in range(number)]).tolist()
    )


def test_a_full_disk_keeps_the_configuration(disk):
    config.save(TINY, disk / "config.json")
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free))
    with pytest.raises(OSError, match="No space left on device"):
        config.save(replace(TINY, seed=1), disk / "config.json")
    assert config.load(disk / "config.json") == TINY


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("file", [None, "/somewhere/metrics.jsonl"])
def test_what_cannot_be_written_is_one_line(code, file, monkeypatch, capsys):
    def unwritable(_):
        raise OSError(code, os.strerror(code), file)

    monkeypatch.setattr(cli, "set_up", lambda: None)
    monkeypatch.setitem(cli.VERBS, "train", ("", unwritable))
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--workdir", "/a/run"])
    said = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(said) == 1
    assert (file or "workdir: /a/run") in said[0] and os.strerror(code) in said[
        0
    ]


def test_a_failure_ends_the_program_though_threads_wait():
    """As orbax's do, for what could not be written."""
    program = """
import sys, threading, time
from jaxhypernas import __main__, cli
def main():
    threading.Thread(target=time.sleep, args=(300,)).start()
    print("a line", file=sys.stderr)
    sys.exit(2)
cli.main = main
__main__.run()
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2 and ended.stderr.endswith("a line\n")
