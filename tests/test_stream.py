"""Candidates in pieces: the table is the same however they come, and its best rows and Pareto fronts are right."""

import dataclasses

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import TINY

from jaxhypernas import run as runs
from jaxhypernas.archs.population import BATCH, concatenate, rows, size
from jaxhypernas.cli import main as cli
from jaxhypernas.run import Run
from jaxhypernas.store.score_table import (
    COLUMNS,
    COUNTS,
    ScoreTable,
    ids_from_text,
    ids_to_text,
)
from jaxhypernas.types import Scores

NUMBER, KEY = 700, jax.random.key(3)


class KilledError(Exception):
    """In the middle of scoring."""


@pytest.fixture
def asked():
    """The ids of the candidates that went to the scorer, call by call."""
    return []


@pytest.fixture
def begin(tmp_path, monkeypatch, asked):
    """``begin(name, space, dies)``: a run with a scorer that costs nothing, and dies after so many calls."""

    def begin(name="run", space="ghn", dies=None):
        def evaluate(self, population, id_A):
            if dies is not None and len(asked) >= dies:
                raise KilledError
            asked.append(id_A)
            loss_A = (id_A >> np.uint64(44)).astype(np.float32) / 2**20
            return Scores(loss_A, 1 - loss_A / 2)

        asked.clear()
        monkeypatch.setattr(Run, "_evaluate", evaluate)
        return Run(
            tmp_path / name,
            dataclasses.replace(
                TINY, space=space, generator="shared", strategy="random"
            ),
        )

    monkeypatch.setattr(cli, "set_up", lambda: None)
    return begin


def all_rows(run):
    return ScoreTable(run.workdir / "scores").table.read().to_pylist()


@pytest.mark.parametrize("batches", [1, 3, 64])
def test_a_stream_equals_all_at_once(begin, monkeypatch, batches):
    whole, stream = begin("whole"), begin("stream")
    expected = whole.add(whole.sample(NUMBER, KEY))
    monkeypatch.setattr(runs, "PIECE", batches * BATCH)
    pieces = list(stream.samples(NUMBER, KEY))
    assert (
        sum(map(size, pieces)) == NUMBER
        and max(map(size, pieces)) <= batches * BATCH
    )
    np.testing.assert_array_equal(
        np.concatenate([stream.add(piece) for piece in pieces]), expected
    )
    assert all_rows(stream) == all_rows(whole)
    assert stream.scores.rows(expected).equals(whole.scores.rows(expected))
    assert [
        row["id"] for row in whole.score(whole.sample(9, KEY))
    ] == ids_to_text(expected[:9])


@pytest.mark.parametrize("dies", [0, 3, 5])
def test_killed_and_restarted_equals_undisturbed(
    begin, asked, monkeypatch, dies
):
    monkeypatch.setattr(runs, "PIECE", 2 * BATCH)
    whole = begin("whole")
    for piece in whole.samples(NUMBER, KEY):
        whole.add(piece)
    killed = begin("killed", dies=dies)
    with pytest.raises(KilledError):
        for piece in killed.samples(NUMBER, KEY):
            killed.add(piece)
    kept = len(killed.scores)
    again = begin("killed")
    for piece in again.samples(NUMBER, KEY):
        again.add(piece)
    assert all_rows(again) == all_rows(whole)
    assert sum(map(len, asked)) == len(again.scores) - kept


def test_duplicates_are_scored_once(begin, asked):
    run = begin(space="nasbench201")
    population = run.sample(300, KEY)
    ids = run.add(
        concatenate(population, rows(population, slice(None, None, -1)))
    )
    np.testing.assert_array_equal(ids[:300], ids[:299:-1])
    assert (
        sum(map(len, asked)) == len(run.scores) == len(set(ids.tolist())) < 300
    )
    run.add(population)
    assert sum(map(len, asked)) == len(run.scores)


def test_shards_grow_with_the_table(begin, monkeypatch):
    monkeypatch.setattr(runs, "SHARE", 2)
    monkeypatch.setattr(runs, "LEAST", 8)
    run = begin()
    run.add(run.sample(NUMBER, KEY))
    shards = [
        pq.read_metadata(path).num_rows
        for path in sorted((run.workdir / "scores").glob("*"))
    ]
    least = 8 * jax.device_count()
    assert (
        shards[0] == least
        and max(shards) > 3 * least
        and sum(shards) == len(run.scores)
    )


def test_sixteen_bytes_of_each_candidate(begin):
    run = begin()
    run.add(run.sample(NUMBER, KEY))
    for scores in (run.scores, ScoreTable(run.workdir / "scores")):
        assert sum(
            getattr(x, "nbytes", 0) for x in vars(scores).values()
        ) == 16 * len(scores)


def test_the_whole_space(begin, tmp_path):
    run, out = begin(space="nasbench201"), tmp_path / "all.parquet"
    cli.main(
        ["score", "--workdir", str(run.workdir), "--all", "--out", str(out)]
    )
    assert (
        len(ScoreTable(run.workdir / "scores"))
        == len(set(pq.read_table(out)["arch"].to_pylist()))
        == 6_466
    )
    assert pq.read_metadata(out).num_rows == 15_625
    population = concatenate(*run.everything()[0])
    assert (
        len(
            {
                run.space.to_string(rows(population, i))
                for i in range(size(population))
            }
        )
        == 15_625
    )


@pytest.mark.parametrize("kind", ["txt", "csv", "parquet"])
def test_files_are_read_in_pieces(begin, tmp_path, monkeypatch, kind):
    run, file, out = (
        begin(),
        tmp_path / f"archs.{kind}",
        tmp_path / "out.parquet",
    )
    population = run.sample(150, KEY)
    strings = [run.space.to_string(rows(population, i)) for i in range(150)]
    monkeypatch.setattr(runs, "PIECE", BATCH)
    if kind == "parquet":
        pq.write_table(pa.table({"n": range(150), "arch": strings}), file)
    else:
        head = "arch,n\n" if kind == "csv" else ""
        file.write_text(
            head
            + "".join(
                f'"{s}",1\n' if kind == "csv" else f"{s}\n\n" for s in strings
            )
        )
    cli.main(
        [
            "score",
            "--workdir",
            str(run.workdir),
            "--archs",
            str(file),
            "--out",
            str(out),
        ]
    )
    written = pq.read_table(out)
    assert written.column_names == list(COLUMNS[1:])
    assert written["arch"].to_pylist() == strings


@pytest.fixture
def scores(tmp_path):
    """A table with ties in loss and counts, and losses that are not finite."""
    rng = np.random.default_rng(0)
    loss = np.round(rng.gamma(9.0, size=600), 1)
    loss[::50] = np.nan
    columns = {name: rng.integers(0, 300, 600) for name in COUNTS}
    ids = rng.permutation(2**63 + 2 * np.arange(600, dtype=np.uint64))
    table = pa.table(
        {
            "id": ids_to_text(ids),
            "arch": [f"arch {i}" for i in range(600)],
            "loss": loss,
            "accuracy": loss / 9,
            **columns,
        }
    )
    scored = ScoreTable(tmp_path / "run" / "scores")
    for start in range(0, 600, 97):
        scored.append(table.slice(start, 97))
    return scored


@pytest.mark.parametrize("limits", [(0, 0), (150, 0), (200, 90)])
def test_best_and_pareto_against_brute_force(scores, limits):
    kept = [row for row in scores.table.read().to_pylist() if all(
        not limit or row[name] <= limit for name, limit in zip(COUNTS, limits, strict=False)
    )]  # fmt: skip
    order = sorted(
        kept,
        key=lambda row: (np.nan_to_num(row["loss"], nan=np.inf), row["id"]),
    )
    assert scores.best(30, *limits).to_pylist() == order[:30]
    whole = scores.best(10**6, *limits)
    assert whole["id"].to_pylist() == [row["id"] for row in order]
    for count in COUNTS:
        front = [
            row["id"]
            for row in kept
            if np.isfinite(row["loss"])
            and not any(
                other["loss"] <= row["loss"]
                and other[count] <= row[count]
                and (other["loss"] < row["loss"] or other[count] < row[count])
                for other in kept
            )
        ]
        found = scores.pareto(count, *limits)
        assert (
            sorted(found["id"].to_pylist()) == sorted(front) and len(front) > 1
        )
        assert (np.diff(found[count].to_numpy()) >= 0).all() and (
            np.diff(found["loss"].to_numpy()) <= 0
        ).all()


def test_rows_and_losses_by_id(scores):
    whole = scores.table.read()
    order = np.random.default_rng(1).integers(0, 600, 50)
    ids = ids_from_text([whole["id"][i].as_py() for i in order])
    for table in (scores, ScoreTable(scores.table.directory)):
        assert repr(table.rows(ids).to_pylist()) == repr(
            whole.take(order).to_pylist()
        )  # NaN is not itself
        np.testing.assert_array_equal(
            table.loss(ids), whole["loss"].to_numpy()[order].astype(np.float32)
        )
        assert (
            table.known(ids).all() and not table.known(ids + np.uint64(1)).any()
        )
        assert table.lowest == np.float32(np.nanmin(whole["loss"].to_numpy()))


def test_top(scores, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "set_up", lambda: None)
    words = [
        "top",
        "--workdir",
        str(tmp_path / "run"),
        "--out",
        str(tmp_path / "out.parquet"),
    ]
    for more, expected in (
        (["--number", "7", "--max-flops", "99"], scores.best(7, 0, 99)),
        (["--pareto", "live_flops"], scores.pareto("live_flops")),
    ):
        cli.main([*words, *more])
        lines = capsys.readouterr().out.splitlines()
        assert [
            line[line.index("arch ") :] for line in lines[1:-1]
        ] == expected["arch"].to_pylist()
        assert pq.read_table(tmp_path / "out.parquet").equals(expected)


MISTAKES = {
    "two sources": (["score", "--random", "3", "--all"], "--all"),
    "no list of all": (["score", "--all"], "all: architectures of ghn"),
    "unknown count": (["top", "--pareto", "size"], "pareto"),
    "nothing scored": (["top"], "no scores"),
    "no such run": (["top", "--workdir", "nowhere"], "no scores"),
    "number": (["top", "--number", "0"], "number"),
    "out": (["top", "--out", "no/such/place.parquet"], "out"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(begin, capsys, mistake):
    words, said = MISTAKES[mistake]
    workdir = (
        [] if "--workdir" in words else ["--workdir", str(begin().workdir)]
    )
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, *workdir])
    line = capsys.readouterr().err.strip()
    assert (
        stop.value.code == 2
        and "\n" not in line
        and said in line
        and "Traceback" not in line
    )


def test_limits_that_nothing_meets(scores, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "set_up", lambda: None)
    monkeypatch.setattr(
        ScoreTable, "_by_id", lambda self, name: np.full(len(self), 5)
    )
    with pytest.raises(SystemExit):
        cli.main(
            ["top", "--workdir", str(tmp_path / "run"), "--max-params", "4"]
        )
    assert "none of 600" in capsys.readouterr().err
