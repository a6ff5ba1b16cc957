"""A full disk: what is finished is kept, and one line says why the run ended.

The campaign of kills, damage and full disks is ``experiments/bench/faults``.
"""

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
from helpers import complaint
from tiny import TINY

from jaxhypernas.cli.verbs import Top
from jaxhypernas.config import file
from jaxhypernas.store.checkpoints import Checkpoints
from jaxhypernas.store.tables import Table
from jaxhypernas.types import UserError

FULL = "No space left on device"


def mount(words: str, place: Path) -> bool:
    """Mounts or remounts a disk in memory; returns whether that is allowed."""
    command = ["mount", *words.split(), str(place)]
    return not subprocess.run(command, capture_output=True).returncode


@pytest.fixture
def disk(tmp_path):
    """A directory on a disk of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() or not mount("-t tmpfs -o size=256k tmpfs", place):
        pytest.skip("a disk in memory cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def noise(seed: int) -> np.ndarray:
    """80 kB that compression leaves as large."""
    return np.random.default_rng(seed).normal(size=20_000).astype(np.float32)


# orbax leaves threads behind that fail.
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::pytest.PytestUnhandledThreadExceptionWarning",
)
def test_a_full_disk_loses_no_checkpoint(disk):
    saved = 0
    directory = disk / "checkpoints"
    line = f"{disk}.* cannot be written .{FULL}.: "
    with (
        pytest.raises(UserError, match=line) as caught,
        Checkpoints(directory) as checkpoints,
    ):
        for step in range(1, 20):
            checkpoints.save(step, jnp.asarray(noise(step)))
            checkpoints.wait()
            saved = step
    assert saved >= 1 and "\n" not in str(caught.value)

    assert mount("-o remount,size=64m", disk)
    with Checkpoints(directory, pytest.fail) as checkpoints:
        restored = checkpoints.restore(jnp.zeros(20_000))
        assert restored is not None
        step, state = restored
        assert step == saved
        np.testing.assert_array_equal(state, noise(saved))
        checkpoints.save(saved + 1, jnp.asarray(noise(0)))


def test_a_full_disk_loses_no_rows(disk):
    directory = disk / "scores"
    table = Table(directory)
    number = 0
    with pytest.raises(OSError, match=FULL) as caught:
        while True:
            table.append(pa.table({"x": noise(number)}))
            number += 1
    assert number >= 1
    assert caught.value.filename == str(directory / f"{number:06d}.parquet")
    kept = Table(directory, pytest.fail).read()["x"].to_numpy()
    expected = np.concatenate([noise(seed) for seed in range(number)])
    np.testing.assert_array_equal(kept, expected)


def test_a_full_disk_keeps_the_configuration(disk):
    path = disk / "config.json"
    file.save(TINY, path)
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free))
    with pytest.raises(OSError, match=FULL):
        file.save(replace(TINY, seed=1), path)
    assert file.load(path) == TINY


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("path", [None, "/somewhere/metrics.jsonl"])
def test_a_disk_that_cannot_be_written_is_one_line(code, path, monkeypatch):
    reason = os.strerror(code)

    def run(verb):
        raise OSError(code, reason, path)

    monkeypatch.setattr(Top, "run", run)
    line = complaint(["top", "--workdir", "/a/run"])
    assert (path or "workdir: /a/run") in line and reason in line


@pytest.mark.parametrize("distributed", [False, True])
def test_a_device_out_of_memory_is_one_line(distributed, monkeypatch):
    def run(verb):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory allocating 40000000000 bytes."
        )

    monkeypatch.setattr(Top, "run", run)
    monkeypatch.setattr(Top, "distributed", distributed, raising=False)
    line = complaint(["top", "--workdir", "/a/run"])
    assert "out of memory: lower --execution.chunk" in line


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_devices_are_the_cores_that_this_process_may_use():
    """A job of a cluster has some of the machine's."""
    program = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax
from jaxhypernas.execution import devices
devices.set_up()
print(jax.device_count())
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == "1\n"


def test_a_failure_ends_the_program_though_threads_wait():
    """Threads of orbax wait for a disk that cannot be written."""
    program = """
import sys, threading, time
from jaxhypernas.cli import program
threading.Thread(target=time.sleep, args=(300,)).start()
sys.argv[1:] = ["top", "--workdir", "no/such/run"]
program.run()
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1 and "no scores" in ended.stderr
