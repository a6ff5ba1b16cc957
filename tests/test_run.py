"""Whole runs through the command line: results, files, resuming after kill -9."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny import TINY, flags

from jaxhypernas.cli.main import main
from jaxhypernas.config import PRESETS, Config, file
from jaxhypernas.config.config import difference
from jaxhypernas.run import Run
from jaxhypernas.store.score_table import COLUMNS
from jaxhypernas.store.tables import Table
from jaxhypernas.types import UserError

ENVIRONMENT = {
    **os.environ,
    "JAX_NUM_CPU_DEVICES": "2",
    "COLUMNS": "200",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
}


def command(*words) -> list[str]:
    return [sys.executable, "-m", "jaxhypernas", *map(str, words)]


def shell(*words) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*words),
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=600,
    )


def table(directory: Path) -> list[dict]:
    return Table(directory).read().to_pylist()


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("runs") / "undisturbed"
    done = shell("search", "--workdir", workdir, *flags())
    assert done.returncode == 0, done.stderr
    assert f"wrote {workdir / 'report.md'}" in done.stdout
    return workdir


def test_files(finished):
    assert file.load(finished / "config.json") == TINY
    lines = lines_of(finished / "metrics.jsonl")
    steps = [line["step"] for line in lines if "step" in line]
    assert steps == [2, 4, 6, 8]

    rounds = [line for line in lines if "scored" in line]
    assert rounds[-1]["best"] == min(line["best"] for line in rounds)
    # Random samples, perturbations, and four greedy steps.
    assert len(rounds) == 6
    compilations = {line["compilations"] for line in rounds[2:]}
    assert len(compilations) == 1, "a greedy step compiles a program anew"

    scores = table(finished / "scores")
    assert len({row["id"] for row in scores}) == len(scores) >= 40
    assert all(np.isfinite(row["loss"]) for row in scores)
    assert all(0 <= row["accuracy"] <= 1 for row in scores)
    groups = [row["group"] for row in table(finished / "retrain")]
    assert groups == ["top"] * 2 + ["sample"] * 4

    figures = json.loads((finished / "report.json").read_text())
    assert figures["trained_from_scratch"] == 6
    assert figures["rank"]["live parameters"]["n"] == 4
    for name in ("report.md", "scores.png", "search.png"):
        assert (finished / name).stat().st_size > 500


def test_a_finished_run_has_one_shard_per_table(finished):
    for name in ("scores", "retrain"):
        assert len(list((finished / name).iterdir())) == 1


MOMENTS = {
    "training": ("checkpoints/4", signal.SIGKILL),
    "scoring": ("scores/000000*.parquet", signal.SIGKILL),
    "retraining": ("retrain/000001*.parquet", signal.SIGKILL),
    "preempted": ("checkpoints/2", signal.SIGTERM),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed_is_bit_for_bit(finished, tmp_path, moment):
    pattern, kill = MOMENTS[moment]
    process = subprocess.Popen(
        command("search", "--workdir", tmp_path, *flags()),
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.time() + 300
    while not any(tmp_path.glob(pattern)):
        assert process.poll() is None and time.time() < until
        time.sleep(0.02)
    process.send_signal(kill)
    said = process.communicate(timeout=300)[1]
    if kill == signal.SIGTERM:
        assert process.returncode == 128 + signal.SIGTERM
        assert "Traceback" not in said
        assert "stopped by SIGTERM" in said.splitlines()[-1]
    done = shell("search", "--workdir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert table(tmp_path / "scores") == table(finished / "scores")
    assert table(tmp_path / "retrain") == table(finished / "retrain")


def test_a_killed_stream_goes_on_bit_for_bit(finished, tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for workdir in (undisturbed, killed):
        shutil.copytree(finished, workdir)
    words = ("score", "--random", 150, "--workdir")
    assert shell(*words, undisturbed).returncode == 0
    process = subprocess.Popen(
        command(*words, killed),
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # The finished run's shard, and two more.
    while len(list((killed / "scores").glob("*.parquet"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = len(table(killed / "scores"))
    assert kept < len(table(undisturbed / "scores"))
    assert shell(*words, killed).returncode == 0
    assert table(killed / "scores") == table(undisturbed / "scores")


def test_finished_run_does_nothing_twice(finished):
    def times():
        return {p: p.stat().st_mtime_ns for p in finished.rglob("*.parquet")}

    before = times()
    assert shell("search", "--workdir", finished).returncode == 0
    assert before == times()


def test_score_and_rank(finished, tmp_path):
    rows = table(finished / "scores")[:6]
    archs = tmp_path / "archs.txt"
    out = tmp_path / "out.parquet"
    truth = tmp_path / "truth.csv"
    archs.write_text("\n".join(row["arch"] for row in rows) + "\n")
    done = shell("score", "--workdir", finished, "--archs", archs, "--out", out)
    assert done.returncode == 0, done.stderr
    written = pq.read_table(out)
    assert written.column_names == list(COLUMNS[1:])
    assert written["loss"].to_pylist() == [row["loss"] for row in rows]

    lines = [f"{row['arch']},{-row['loss']}\n" for row in rows]
    truth.write_text("arch,acc\n" + "".join(lines))
    words = ["rank", "--workdir", finished, "--truth", truth]
    done = shell(*words, "--column", "acc", "--json")
    assert done.returncode == 0, done.stderr
    ranking = json.loads(done.stdout)
    assert ranking["generated weights"]["tau"]["value"] == pytest.approx(1)
    names = {"generated weights", "live parameters", "live FLOPs"}
    assert set(ranking) == names


def test_duplicates_are_scored_once(finished):
    run = Run(finished)
    arch = table(finished / "scores")[0]["arch"]
    before = len(run.scores)
    first, second = run.score([arch, arch]).to_pylist()
    assert first == second and len(run.scores) == before


def test_another_config_in_the_same_directory_is_refused(finished, capsys):
    words = ["train", "--workdir", str(finished), "--train.steps", "9"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "train.steps" in said and "8" in said and "9" in said


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"nope": 1}', '{"train": {"steps": -1}}']
)
def test_damaged_config_is_one_line(tmp_path, damage, capsys):
    (tmp_path / "config.json").write_text(damage)
    assert main(["search", "--workdir", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_the_configuration_of_another_version_is_refused(finished, tmp_path):
    values = json.loads((finished / "config.json").read_text())
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**values, "version": "9.0.0"}))
    with pytest.raises(UserError, match=r"version 9\.0\.0 wrote it, this is"):
        file.load(path)
    del values["version"]
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"version 0\.1\.0 wrote it"):
        file.load(path)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_survive_json(preset, tmp_path):
    file.save(PRESETS[preset], tmp_path / "c.json")
    assert file.load(tmp_path / "c.json") == PRESETS[preset]


def test_difference_names_the_field():
    a = Config()
    b = replace(a, train=replace(a.train, batch=7))
    assert difference(a, a) is None
    assert difference(a, b) == ("train.batch", 32, 7)
