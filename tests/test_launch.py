"""Commands in files are understood; launch scripts start and restart runs."""

import os
import re
import shlex
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from etils.epath import Path as EPath
from jax._src.clusters import ClusterEnv

from jaxhypernas.cli.main import understand
from jaxhypernas.cli.verbs import VERBS
from jaxhypernas.families import FAMILIES
from jaxhypernas.generators import GENERATORS
from jaxhypernas.search import STRATEGIES
from jaxhypernas.types import UserError

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "experiments" / "launch"
SHOWN = (
    ROOT / "README.md",
    ROOT / "experiments" / "LAUNCH.md",
    *sorted(LAUNCH.iterdir()),
)
COMMAND = re.compile(rf"jaxhypernas ({'|'.join(VERBS)})\b")


def commands(text: str) -> Iterator[list[str]]:
    """The words after ``jaxhypernas`` of all commands in a text.

    A command is a line of its own, or in backticks or quotes.
    """
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.findall(r"`([^`]*)`", line) or [line]:
            yield from _commands(part)


def _commands(line: str) -> Iterator[list[str]]:
    if not COMMAND.search(line):
        return
    words = shlex.split(line, comments=True)
    for i, word in enumerate(words):
        if " " in word:
            yield from _commands(
                word.partition("=")[2] if word.startswith("--") else word
            )
        elif (
            word.endswith("jaxhypernas")
            and words[i + 1 : i + 2]
            and words[i + 1] in VERBS
        ):
            rest = words[i + 1 :]
            end = next(
                (
                    k
                    for k, w in enumerate(rest)
                    if w in ("|", "||", "&", "&&", ";", ">")
                ),
                len(rest),
            )
            yield [w for w in rest[:end] if w != "$@"]


@pytest.fixture(autouse=True)
def new_runs(monkeypatch):
    """Commands begin new runs; the plug-ins that they load are not kept."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(type(EPath()), "exists", lambda path: False)
    registries = (FAMILIES, GENERATORS, STRATEGIES)
    kept = [(registry, dict(registry)) for registry in registries]
    yield
    for registry, entries in kept:
        for name in set(registry) - set(entries):
            del registry[name]


@pytest.mark.parametrize("file", SHOWN, ids=lambda path: path.name)
def test_commands_in_files_are_understood(file):
    found = list(commands(file.read_text()))
    for words in found:
        understand(words)
    least = {"README.md": 15, "LAUNCH.md": 4, "slurm.sh": 1, "sky.yaml": 1}
    assert len(found) >= least.get(file.name, 0), found


@pytest.mark.parametrize(
    "line",
    [
        "`jaxhypernas score --workdirs W`",
        "x --command='jaxhypernas train --workdir W --train.stepz 3'",
        "jaxhypernas search \\\n --preset big  # a comment",
    ],
)
def test_a_planted_command_is_refused(line):
    (words,) = commands(line)
    with pytest.raises(UserError, match=r"workdirs|stepz|preset"):
        understand(words)


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def bash(
    script: Path, *words: str, folder: Path, **variables: str
) -> subprocess.CompletedProcess:
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        **variables,
    }
    return subprocess.run(
        ["bash", script, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("code", "requeued"), [(0, False), (2, False), (143, True)]
)
def test_slurm_requeues_what_was_stopped(tmp_path, code, requeued):
    program(tmp_path, "bin/srun", f'echo "$@"; exit {code}')
    program(tmp_path, "bin/scontrol", 'echo "scontrol $@"')
    variables = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "8"}
    done = bash(
        LAUNCH / "slurm.sh", "--workdir", "a b", folder=tmp_path, **variables
    )
    assert done.returncode == code, done.stderr
    told = (
        "jaxhypernas search --distributed --workdir a b\n"
        + "scontrol requeue 7\n" * requeued
    )
    assert done.stdout == told


def test_tpu_vm_starts_and_stops(tmp_path):
    """``gcloud`` is a stub that runs the workers' command here."""
    program(
        tmp_path,
        "bin/gcloud",
        'echo "$@" >> asked; bash -c "${!##--command=}"',
    )
    program(
        tmp_path,
        "venv/bin/jaxhypernas",
        'trap "echo stopped; exit" TERM; printf "%s\\n" "$@"; sleep 9 & wait',
    )
    where = {"TPU": "my-tpu", "ZONE": "z"}
    done = bash(
        LAUNCH / "tpu_vm.sh",
        "start",
        "search",
        "--workdir",
        "gs://b/a b",
        folder=tmp_path,
        **where,
    )
    assert done.returncode == 0, done.stderr

    def wait_for(word: str) -> list[str]:
        until = time.time() + 30
        while word not in (text := (tmp_path / "run.log").read_text()):
            assert time.time() < until
            time.sleep(0.02)
        return text.splitlines()

    assert wait_for("gs://") == [
        "search",
        "--distributed",
        "--workdir",
        "gs://b/a b",
    ]
    assert (
        bash(LAUNCH / "tpu_vm.sh", "stop", folder=tmp_path, **where).returncode
        == 0
    )
    wait_for("stopped")
    asked = (tmp_path / "asked").read_text()
    assert (
        asked.count(
            "compute tpus tpu-vm ssh my-tpu --zone=z --worker=all --command="
        )
        == 2
    )
    assert bash(LAUNCH / "tpu_vm.sh", folder=tmp_path).returncode == 2


def test_sky_yaml():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    task = yaml.safe_load((LAUNCH / "sky.yaml").read_text())
    assert task["num_nodes"] == 2 and task["resources"]["job_recovery"] == {
        "recover_on_exit_codes": [143]
    }
    for part in ("setup", "run"):
        assert (
            subprocess.run(
                ["bash", "-n"], input=task[part], text=True
            ).returncode
            == 0
        )


@pytest.mark.parametrize("task", [0, 7, 8, 15])
def test_slurm_variables_number_the_processes(task, monkeypatch):
    """Two nodes with eight tasks each, as in slurm.sh: a task has one device."""
    variables = {
        "JOB_ID": 7,
        "STEP_NODELIST": "n[03-04]",
        "NTASKS": 16,
        "PROCID": task,
        "LOCALID": task % 8,
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    address, *numbers = ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, None, None, 10
    )
    assert str(address).startswith("n03:") and numbers == [
        16,
        task,
        [task % 8],
    ]
