"""Two processes with two devices each find what one process with four devices finds."""

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from helpers import assert_close
from tiny import flags, tiny

from jaxhypernas.cli.main import main
from jaxhypernas.data.dataset import load
from jaxhypernas.execution.mesh import ARCH, DATA
from jaxhypernas.hosts import log_filter, processes
from jaxhypernas.programs import training
from jaxhypernas.programs.parts import build
from jaxhypernas.run import Run
from jaxhypernas.store.checkpoints import Checkpoints
from jaxhypernas.store.tables import Table

CONFIG = tiny("nasbench201", "shared")

pytestmark = pytest.mark.usefixtures("quick_compiler")


def start(*words) -> list[subprocess.Popen]:
    """The two processes of a command."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    common = {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": "2",
    }
    common["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    command = [
        sys.executable,
        "-m",
        "jaxhypernas",
        *map(str, words),
        "--distributed",
    ]
    pipes = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    return [
        subprocess.Popen(
            command, env={**common, "JAX_PROCESS_ID": str(i)}, **pipes
        )
        for i in range(2)
    ]


def quiet(text: str) -> str:
    """The text without the lines that Gloo writes."""
    lines = text.splitlines(keepends=True)
    return "".join(
        line for line in lines if not log_filter.CHATTER.match(line)
    )


def finish(both: list[subprocess.Popen]) -> list[str]:
    """What each printed."""
    told = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    return [quiet(out) for out, _ in told]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Trained by two processes."""
    workdir = tmp_path_factory.mktemp("runs") / "two"
    first, second = finish(
        start("train", "--workdir", workdir, *flags(CONFIG))
    )
    assert f"wrote {workdir / 'checkpoints'}" in first and second == ""
    return workdir


def state(workdir) -> training.TrainState:
    """The newest state that was saved."""
    parts = Run(workdir).parts
    like = training.abstract_state(parts, parts.replicated)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        restored = checkpoints.restore(like)
    assert restored is not None
    return restored[1]


def test_training_equals_that_of_one_process(trained, tmp_path):
    alone = Run(tmp_path / "one", CONFIG)
    phi = alone.train()
    found = state(trained)
    assert found.step == CONFIG.train.steps
    assert_close(found.phi, phi, rtol=3e-4)
    lines = (
        (workdir / "metrics.jsonl").read_text().splitlines()
        for workdir in (trained, alone.workdir)
    )
    np.testing.assert_allclose(
        *([json.loads(line)["loss"] for line in each] for each in lines),
        rtol=1e-4,
    )


def test_scores_are_those_of_one_process(trained, tmp_path):
    """From a checkpoint of two processes; the tables are equal row by row."""
    alone = shutil.copytree(trained, tmp_path / "one")
    assert main(["score", "--workdir", str(alone), "--random", "300"]) == 0
    finish(start("score", "--workdir", trained, "--random", 300))
    rows = [
        Table(workdir / "scores").read().to_pylist()
        for workdir in (trained, alone)
    ]
    assert rows[0] == rows[1] and len(rows[0]) > 200


def test_a_signal_to_one_stops_both_and_one_process_goes_on(tmp_path):
    both = start(
        "train", "--workdir", tmp_path, *flags(CONFIG), "--train.steps", 3000
    )
    until = time.time() + 300
    while not (tmp_path / "checkpoints" / "4").exists():
        assert both[0].poll() is None and time.time() < until
        time.sleep(0.05)
    both[1].send_signal(signal.SIGTERM)
    told = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [
        128 + signal.SIGTERM
    ] * 2
    assert all(
        "stopped by SIGTERM" in lines.splitlines()[-1] for lines in told
    )
    step = int(state(tmp_path).step)
    assert 4 <= step < 3000


@pytest.mark.parametrize("flag", [[], ["--filter-log"]])
def test_a_killed_process_is_the_last_line_of_the_other_and_loses_nothing(
    flag, trained, tmp_path
):
    two = shutil.copytree(
        trained, tmp_path / "two", ignore=shutil.ignore_patterns("scores")
    )
    both = start("score", "--workdir", two, "--random", 10**7, *flag)
    until = time.time() + 300
    while len(list((two / "scores").glob("*"))) < 2:
        assert both[0].poll() is None and time.time() < until
        time.sleep(0.05)
    both[1].kill()
    both[1].communicate()
    _, told = both[0].communicate(timeout=300)
    assert both[0].returncode != 0
    lines = quiet(told).splitlines()
    assert lines[-1] == log_filter.LOST
    if flag:
        # Slow cores compile for long enough to say so.
        compiling = "compiling the program of "
        usual = "score ", "digits: ", "10 classes", "reading images", compiling
        others = [line for line in lines if not line.startswith(usual)]
        assert others == [log_filter.LOST]

    kept = Table(two / "scores", pytest.fail).read().to_pylist()
    one = shutil.copytree(
        trained, tmp_path / "one", ignore=shutil.ignore_patterns("scores")
    )
    found = Run(one).score([row["arch"] for row in kept])
    assert found.to_pylist() == kept


def test_devices_share_images():
    """Four devices on two architectures: statistics are of the whole batch."""
    train = dataclasses.replace(
        CONFIG.train, architectures=2, steps=4, every=4
    )
    config = dataclasses.replace(CONFIG, train=train)
    dataset = load(config.data, config.seed)

    def trained_on(devices):
        parts = build(config, dataset.image, dataset.classes, devices)
        state = training.start_everywhere(parts)
        *_, last = training.train(parts, dataset, state)
        return parts.mesh.shape, last.state.phi

    shape, shared = trained_on(jax.devices())
    _, alone = trained_on(jax.devices()[:1])
    assert shape == {ARCH: 2, DATA: 2}
    assert_close(shared, alone, atol=1e-7)


def test_a_program_runs_once_all_have_compiled_it(monkeypatch):
    happened = []
    monkeypatch.setattr(
        processes, "gather", lambda x: happened.append("all are there")
    )

    def double(x):
        happened.append("compiled here")
        return 2 * x

    assert (
        processes.compiled(jax.jit(double), np.float32(1))(np.float32(3)) == 6
    )
    assert happened == ["compiled here", "all are there"]


@pytest.mark.parametrize("number", [0, 1, 5, 64])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_are_all_candidates_in_order(number, count, monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: count)
    found = []
    for index in range(count):
        monkeypatch.setattr(processes, "index", lambda index=index: index)
        found.append(list(range(number))[processes.share(number)])
    assert [candidate for each in found for candidate in each] == list(
        range(number)
    )
    assert max(map(len, found)) - min(map(len, found)) <= 1
