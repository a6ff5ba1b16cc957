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

from jaxhypernas.cli import main as cli
from jaxhypernas.config import PRESETS, Config
from jaxhypernas.config import file as config_file
from jaxhypernas.config.config import differences
from jaxhypernas.run import Run
from jaxhypernas.store.score_table import COLUMNS

ENVIRONMENT = {
    **os.environ,
    "JAX_NUM_CPU_DEVICES": "2",
    "COLUMNS": "200",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
}


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "jaxhypernas", *map(str, words)]


def shell(*words: object) -> subprocess.CompletedProcess:
    """Runs a verb in a process of its own; it must succeed."""
    ended = subprocess.run(
        command(*words),
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr
    return ended


def start(*words: object) -> subprocess.Popen:
    return subprocess.Popen(
        command(*words),
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("runs") / "undisturbed"
    ended = shell("search", "--workdir", workdir, *flags())
    winner, _, *wrote = ended.stdout.splitlines()
    assert winner.startswith("winner: test accuracy 0.")
    assert wrote[0] == f"wrote {workdir / 'report.md'}"
    return workdir


def table(directory: Path) -> list[dict]:
    return [
        row
        for path in sorted(directory.glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]


def test_files(finished):
    assert config_file.load(finished / "config.json") == TINY
    text = (finished / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in lines if "step" in line] == [2, 4, 6, 8]
    rounds = [line for line in lines if "scored" in line]
    assert rounds[-1]["best"] == min(line["best"] for line in rounds)
    # Random ones, perturbations, four greedy steps.
    assert len(rounds) == 6
    # A greedy step needs no program that the step before did not.
    assert len({line["compilations"] for line in rounds[2:]}) == 1

    scores = table(finished / "scores")
    assert len({row["id"] for row in scores}) == len(scores) >= 40
    for row in scores:
        assert np.isfinite(row["loss"]) and 0 <= row["accuracy"] <= 1
    retrained = table(finished / "retrain")
    assert [row["group"] for row in retrained] == ["top"] * 2 + ["sample"] * 4
    figures = json.loads((finished / "report.json").read_text())
    assert figures["trained_from_scratch"] == 6
    assert figures["rank"]["live parameters"]["n"] == 4
    for name in ("report.md", "scores.png", "search.png"):
        assert (finished / name).stat().st_size > 500


def test_a_finished_verb_leaves_one_shard(finished):
    for name in ("scores", "retrain"):
        assert len(list((finished / name).glob("*.parquet"))) == 1


@pytest.mark.parametrize(
    ("moment", "kill"),
    [
        ("checkpoints/4", signal.SIGKILL),
        ("scores/000000.*.parquet", signal.SIGKILL),
        ("retrain/000001.*.parquet", signal.SIGKILL),
        ("checkpoints/2", signal.SIGTERM),
        ("scores/000001.*.parquet", signal.SIGTERM),
        ("retrain/000000.*.parquet", signal.SIGTERM),
    ],
)
def test_killed_and_resumed_is_bit_for_bit(finished, tmp_path, moment, kill):
    process = start("search", "--workdir", tmp_path, *flags())
    until = time.time() + 300
    while not any(tmp_path.glob(moment)):
        assert process.poll() is None and time.time() < until
        time.sleep(0.02)
    process.send_signal(kill)
    said = process.communicate(timeout=300)[1]
    if kill == signal.SIGTERM:
        assert process.returncode == 128 + signal.SIGTERM
        assert "Traceback" not in said
        assert "stopped by SIGTERM" in said.splitlines()[-1]
    shell("search", "--workdir", tmp_path)
    assert table(tmp_path / "scores") == table(finished / "scores")
    assert table(tmp_path / "retrain") == table(finished / "retrain")


def test_a_killed_stream_goes_on_bit_for_bit(finished, tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for workdir in (undisturbed, killed):
        shutil.copytree(finished, workdir)
    words = ("score", "--random", 150, "--workdir")
    shell(*words, undisturbed)
    process = start(*words, killed)
    # The second new shard.
    while len(list((killed / "scores").glob("*.parquet"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert len(table(killed / "scores")) < len(table(undisturbed / "scores"))
    shell(*words, killed)
    assert table(killed / "scores") == table(undisturbed / "scores")


def test_a_finished_run_does_nothing_twice(finished):
    def times() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in finished.rglob("*.parquet")}

    before = times()
    shell("search", "--workdir", finished)
    assert before == times()


def test_score_top_and_rank(finished, tmp_path):
    rows = table(finished / "scores")[:6]
    archs = tmp_path / "archs.txt"
    out = tmp_path / "out.parquet"
    truth = tmp_path / "truth.csv"
    archs.write_text("\n".join(row["arch"] for row in rows) + "\n")
    shell("score", "--workdir", finished, "--archs", archs, "--out", out)
    written = pq.read_table(out)
    assert written.column_names == list(COLUMNS[1:])
    assert written.column("loss").to_pylist() == [row["loss"] for row in rows]

    words = ("--number", 2, "--score", "loss")
    best = shell("top", "--workdir", finished, *words).stdout
    by_loss = sorted(table(finished / "scores"), key=lambda row: row["loss"])
    assert [line.split()[-1] for line in best.splitlines()[1:]] == [
        row["arch"].split()[-1] for row in by_loss[:2]
    ]

    lines = [f"{row['arch']},{-row['loss']}\n" for row in rows]
    truth.write_text("arch,acc\n" + "".join(lines))
    words = ("--truth", truth, "--column", "acc", "--json")
    ranking = json.loads(shell("rank", "--workdir", finished, *words).stdout)
    assert ranking["generated weights"]["tau"]["value"] == pytest.approx(1)
    parts = ("capacity", "separability", "generated weights")
    assert set(ranking) == {
        "score",
        *parts,
        *(f"score without {part}" for part in parts),
        "live parameters",
        "live FLOPs",
    }


def test_another_config_in_the_same_directory_is_refused(finished, capsys):
    words = ["train", "--workdir", str(finished), "--train.steps", "7"]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert "train.steps" in said and "8" in said and "7" in said


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_survive_json(preset, tmp_path):
    config_file.save(PRESETS[preset], tmp_path / "c.json")
    assert config_file.load(tmp_path / "c.json") == PRESETS[preset]


def test_differences_name_the_field():
    a = Config()
    assert not list(differences(a, a))
    b = replace(a, train=replace(a.train, batch=7))
    assert list(differences(a, b)) == [("train.batch", 32, 7)]


def test_duplicates_are_scored_once(finished):
    run = Run(finished)
    arch = table(finished / "scores")[0]["arch"]
    before = len(run.scores)
    first, second = run.score([arch, arch]).to_pylist()
    assert first == second and len(run.scores) == before
