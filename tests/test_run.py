"""Whole runs through the command line: results, files, resuming after kill -9, one clear line for every mistake."""

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

from jaxhypernas.cli import main as cli
from jaxhypernas.config import config
from jaxhypernas.config.config import PRESETS, Config
from jaxhypernas.run import Run
from jaxhypernas.store.score_table import COLUMNS

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


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("runs") / "undisturbed"
    done = shell("search", "--workdir", workdir, *flags())
    assert done.returncode == 0, done.stderr
    assert f"wrote {workdir / 'report.md'}" in done.stdout
    return workdir


def table(directory: Path) -> list[dict]:
    return [
        row
        for path in sorted(directory.glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]


def test_files(finished):
    assert config.load(finished / "config.json") == TINY
    lines = [
        json.loads(line)
        for line in (finished / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines if "step" in line] == [2, 4, 6, 8]
    rounds = [line for line in lines if "scored" in line]
    assert rounds[-1]["best"] == min(line["best"] for line in rounds)
    assert len(rounds) == 6  # random ones, perturbations, four greedy steps
    assert len({line["compilations"] for line in rounds[2:]}) == 1, (
        "a greedy step compiles what the one before did"
    )
    scores = table(finished / "scores")
    assert len({row["id"] for row in scores}) == len(scores) >= 40
    assert all(
        np.isfinite(row["loss"]) and 0 <= row["accuracy"] <= 1 for row in scores
    )
    retrained = table(finished / "retrain")
    assert [row["group"] for row in retrained] == ["top"] * 2 + ["sample"] * 4
    figures = json.loads((finished / "report.json").read_text())
    assert (
        figures["trained_from_scratch"] == 6
        and figures["rank"]["live parameters"]["n"] == 4
    )
    for name in ("report.md", "scores.png", "search.png"):
        assert (finished / name).stat().st_size > 500


@pytest.mark.parametrize(
    ("moment", "kill"),
    [
        ("checkpoints/4", signal.SIGKILL),
        ("scores/000000.parquet", signal.SIGKILL),
        ("retrain/000001.parquet", signal.SIGKILL),
        ("checkpoints/2", signal.SIGTERM),
    ],
)
def test_killed_and_resumed_is_bit_for_bit(finished, tmp_path, moment, kill):
    process = subprocess.Popen(
        command("search", "--workdir", tmp_path, *flags()),
        env=ENVIRONMENT,
        stdout=-3,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.time() + 300
    while not (tmp_path / moment).exists():
        assert process.poll() is None and time.time() < until
        time.sleep(0.02)
    process.send_signal(kill)
    told = process.communicate(timeout=300)[1]
    if kill == signal.SIGTERM:
        assert process.returncode == 128 + signal.SIGTERM
        assert (
            "Traceback" not in told
            and "stopped by SIGTERM" in told.splitlines()[-1]
        )
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
        command(*words, killed), env=ENVIRONMENT, stdout=-3, stderr=-3
    )
    shards = len(list((finished / "scores").iterdir()))
    while not (killed / "scores" / f"{shards + 1:06d}.parquet").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert len(table(killed / "scores")) < len(table(undisturbed / "scores"))
    assert shell(*words, killed).returncode == 0
    assert table(killed / "scores") == table(undisturbed / "scores")


def test_finished_run_does_nothing_twice(finished):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*.parquet")}
    assert shell("search", "--workdir", finished).returncode == 0
    assert before == {
        p: p.stat().st_mtime_ns for p in finished.rglob("*.parquet")
    }


def test_score_and_rank(finished, tmp_path):
    rows = table(finished / "scores")[:6]
    archs, out, truth = (
        tmp_path / "archs.txt",
        tmp_path / "out.parquet",
        tmp_path / "truth.csv",
    )
    archs.write_text("\n".join(row["arch"] for row in rows) + "\n")
    done = shell("score", "--workdir", finished, "--archs", archs, "--out", out)
    assert done.returncode == 0, done.stderr
    written = pq.read_table(out)
    assert written.column_names == list(COLUMNS[1:])
    assert written.column("loss").to_pylist() == [row["loss"] for row in rows]
    truth.write_text(
        "arch,acc\n"
        + "".join(f"{row['arch']},{-row['loss']}\n" for row in rows)
    )
    done = shell(
        "rank",
        "--workdir",
        finished,
        "--truth",
        truth,
        "--column",
        "acc",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    ranking = json.loads(done.stdout)
    assert ranking["generated weights"]["tau"]["value"] == pytest.approx(1)
    assert set(ranking) == {
        "generated weights",
        "live parameters",
        "live FLOPs",
    }


MISTAKES = {
    "verb": (["serch"], "verb"),
    "flag": (["search", "--train.stepz", "3"], "train.stepz"),
    "value": (["search", "--train.steps", "many"], "train.steps"),
    "range": (["search", "--train.steps", "0"], "train.steps"),
    "preset": (["search", "--preset", "big"], "preset"),
    "preset without a value": (["search", "--preset"], "preset"),
    "space": (["search", "--space", "nope"], "space"),
    "generator": (["search", "--generator", "nope"], "generator"),
    "strategy": (["search", "--strategy", "nope"], "strategy"),
    "dataset": (["search", "--dataset", "no-such-set"], "data.dataset"),
    "dataset file": (["search", "--dataset", "no-such.npz"], "data.dataset"),
    "data_dir": (
        ["search", "--dataset", "cifar10", "--data-dir", "no/such/place"],
        "data.data_dir",
    ),
    "architectures": (
        ["search", "--train.architectures", "3", "--train.batch", "30"],
        "train.batch",
    ),
    "kernel": (
        ["search", "--memory-bank.max-kernel", "4"],
        "memory_bank.max_kernel",
    ),
    "image": (["search", "--memory-bank.stem-stride", "4"], "space"),
    "batch": (["search", "--score.batch", "1"], "score.batch"),
    "nodes": (
        [
            "search",
            "--space",
            "ghn",
            "--generator",
            "shared",
            "--cells.train-nodes",
            "2",
        ],
        "cells.train_nodes",
    ),
    "paths": (["search", "--train.path-dropout", "0.1"], "train.path_dropout"),
    "no run": (["score", "--random", "3"], "workdir"),
    "nothing to score": (["score"], "score"),
    "no truth": (["rank", "--truth", "no-such.csv"], "truth"),
    "report too early": (["report"], "workdir"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_begins_nothing(
    mistake, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(cli, "set_up", lambda: None)
    words, field = MISTAKES[mistake]
    workdir = tmp_path / "run"
    with pytest.raises(SystemExit) as stop:
        cli.main(
            [*words, "--workdir", str(workdir)]
            if words[-1] != "--preset"
            else words
        )
    said = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    assert "\n" not in said and field in said and "Traceback" not in said
    assert not workdir.exists()


def test_another_config_in_the_same_directory_is_refused(
    finished, capsys, monkeypatch
):
    monkeypatch.setattr(cli, "set_up", lambda: None)
    with pytest.raises(SystemExit):
        cli.main(["train", "--workdir", str(finished), "--train.steps", "9"])
    said = capsys.readouterr().err
    assert "train.steps" in said and "8" in said and "9" in said


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"nope": 1}', '{"train": {"steps": -1}}']
)
def test_damaged_config_is_one_line(tmp_path, damage, capsys, monkeypatch):
    monkeypatch.setattr(cli, "set_up", lambda: None)
    (tmp_path / "config.json").write_text(damage)
    with pytest.raises(SystemExit) as stop:
        cli.main(["search", "--workdir", str(tmp_path)])
    assert (
        stop.value.code == 2
        and len(capsys.readouterr().err.strip().splitlines()) == 1
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_survive_json(preset, tmp_path):
    config.save(PRESETS[preset], tmp_path / "c.json")
    assert config.load(tmp_path / "c.json") == PRESETS[preset]


def test_difference_names_the_field():
    a = Config()
    assert config.difference(a, a) is None
    b = replace(a, train=replace(a.train, batch=7))
    assert config.difference(a, b) == ("train.batch", 32, 7)


def test_duplicates_are_scored_once(finished):
    run = Run(finished)
    arch = table(finished / "scores")[0]["arch"]
    before = len(run.scores)
    rows = run.score(run.parse([arch, arch]))
    assert rows[0] == rows[1] and len(run.scores) == before
