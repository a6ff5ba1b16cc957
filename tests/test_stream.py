"""Candidates in pieces: the table is the same however they come.

Its best rows and Pareto fronts are right.
"""

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import row, separability
from scipy.stats import rankdata
from tiny import tiny

from jaxhypernas.archs.population import BATCH, concatenate, rows, size
from jaxhypernas.cli.main import main
from jaxhypernas.execution.pace import Pace
from jaxhypernas.programs import populations, scorers, training_verbs
from jaxhypernas.programs.scorer import Scorer
from jaxhypernas.run import Run
from jaxhypernas.search.budget import within
from jaxhypernas.store.ids import ids_from_text, ids_to_text
from jaxhypernas.store.score_table import COLUMNS, COUNTS, ScoreTable
from jaxhypernas.types import Scores

NUMBER, KEY = 700, jax.random.key(3)


class KilledError(Exception):
    """In the middle of scoring."""


class Stream(Run):
    """A run whose scores cost nothing, and which dies after so many calls."""

    def __init__(self, workdir, space="ghn", dies=None, piece=128):
        super().__init__(workdir, tiny(space, "shared", "random"))
        self.asked = []

        def evaluate(candidates):
            if dies is not None and len(self.asked) >= dies:
                raise KilledError
            self.asked.append(candidates.id_A)
            loss_A = (candidates.id_A >> np.uint64(44)).astype(
                np.float32
            ) / 2**20
            return Scores(loss_A, 1 - loss_A / 2)

        training_verbs.begin(self.parts, self.dataset, self.workdir)
        self.space = self.parts.searched.space
        self.draw = within(self.space, self.config.search)
        self.scorer = Scorer(
            self.space,
            self.scores,
            evaluate,
            separability,
            Pace(1, piece, piece),
        )

    @property
    def scored(self):
        return sum(map(len, self.asked))

    def add(self, population):
        return self.scorer.score_missing(population)


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """``begin(name, ...)``: a stream, which the command line finds too."""

    def begin(name="run", **settings):
        run = Stream(tmp_path / name, **settings)
        monkeypatch.setattr(training_verbs, "restore_phi", lambda *_: None)
        monkeypatch.setattr(scorers, "generated_scorer", lambda *_: run.scorer)
        return run

    return begin


def all_rows(run):
    return ScoreTable(run.workdir / "scores").table.read().to_pylist()


def strings(run, number):
    population = run.draw.sample(KEY, number)
    return [run.space.to_string(row(population, i)) for i in range(number)]


@pytest.mark.parametrize("batches", [1, 3, 64])
def test_a_stream_equals_all_at_once(begin, monkeypatch, batches):
    whole, stream = begin("whole"), begin("stream")
    expected = whole.add(whole.draw.sample(KEY, NUMBER))
    monkeypatch.setattr(populations, "PIECE", batches * BATCH)
    pieces = list(populations.iter_samples(stream.draw, NUMBER, KEY))
    assert sum(map(size, pieces)) == NUMBER
    assert max(map(size, pieces)) <= batches * BATCH
    ids = np.concatenate([stream.add(piece) for piece in pieces])
    np.testing.assert_array_equal(ids, expected)
    assert all_rows(stream) == all_rows(whole)
    assert stream.scores.rows(expected).equals(whole.scores.rows(expected))
    found = whole.score(strings(whole, 9))
    assert found["id"].to_pylist() == ids_to_text(expected[:9])


@pytest.mark.parametrize("dies", [0, 3, 5])
def test_killed_and_restarted_equals_undisturbed(begin, monkeypatch, dies):
    monkeypatch.setattr(populations, "PIECE", 2 * BATCH)

    def score(run):
        for piece in populations.iter_samples(run.draw, NUMBER, KEY):
            run.add(piece)

    whole, killed = begin("whole"), begin("killed", dies=dies)
    score(whole)
    with pytest.raises(KilledError):
        score(killed)
    kept = len(killed.scores)
    again = begin("killed")
    score(again)
    assert all_rows(again) == all_rows(whole)
    assert again.scored == len(again.scores) - kept


def test_duplicates_are_scored_once(begin):
    run = begin(space="nasbench201")
    population = run.draw.sample(KEY, 300)
    backwards = rows(population, slice(None, None, -1))
    ids = run.add(concatenate(population, backwards))
    np.testing.assert_array_equal(ids[:300], ids[:299:-1])
    assert run.scored == len(run.scores) == len(set(ids.tolist())) < 300
    run.add(population)
    assert run.scored == len(run.scores)


def test_what_a_scorer_observes(begin):
    run, told = begin(), []
    population = run.draw.sample(KEY, 300)
    run.add(rows(population, slice(100)))
    known = len(run.scores)
    run.scorer.score_missing(population, lambda *seen: told.append(seen))
    assert told[0][1] == 0 and told[0][0] >= known
    assert sum(scored for _, scored in told) == len(run.scores) - known
    assert sum(map(sum, told)) == 300


def test_twenty_four_bytes_of_each_candidate(begin):
    run = begin()
    run.add(run.draw.sample(KEY, NUMBER))
    for scores in (run.scores, ScoreTable(run.workdir / "scores")):
        sizes = [getattr(x, "nbytes", 0) for x in vars(scores).values()]
        assert sum(sizes) == 24 * len(scores)


def test_the_whole_space(begin, tmp_path):
    run, out = (
        begin(space="nasbench201", piece=10**4),
        tmp_path / "all.parquet",
    )
    workdir = str(run.workdir)
    assert (
        main(["score", "--workdir", workdir, "--all", "--out", str(out)]) == 0
    )
    archs = pq.read_table(out)["arch"].to_pylist()
    assert len(ScoreTable(run.workdir / "scores")) == 4_930
    population = concatenate(*populations.iter_all(run.space))
    texts = [run.space.to_string(row(population, i)) for i in range(15_625)]
    assert archs == texts and len(set(texts)) == 15_625


def write_archs(file, archs):
    if file.suffix == ".parquet":
        columns = {"n": range(len(archs)), "arch": archs}
        pq.write_table(pa.table(columns), file)
    elif file.suffix == ".csv":
        file.write_text("arch,n\n" + "".join(f'"{s}",1\n' for s in archs))
    else:
        file.write_text("".join(f"{s}\n\n" for s in archs))


@pytest.mark.parametrize("kind", ["txt", "csv", "parquet"])
def test_files_are_read_in_pieces(begin, tmp_path, monkeypatch, kind):
    run = begin()
    file, out = tmp_path / f"archs.{kind}", tmp_path / "out.parquet"
    archs = strings(run, 150)
    monkeypatch.setattr(populations, "PIECE", BATCH)
    write_archs(file, archs)
    words = ["score", "--workdir", run.workdir, "--archs", file, "--out", out]
    assert main(list(map(str, words))) == 0
    written = pq.read_table(out)
    assert written.column_names == list(COLUMNS[1:])
    assert written["arch"].to_pylist() == archs


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
            "capacity": np.round(rng.gamma(9.0, 1e5, 600), -4),
            "separability": np.round(rng.normal(-40, 5, 600)),
            **columns,
        }
    )
    scores = ScoreTable(tmp_path / "run" / "scores")
    for start in range(0, 600, 97):
        scores.append(table.slice(start, 97))
    return scores


def beats(a, b, badness, count):
    """Whether a is as good as b in badness and count, and better in one."""
    pairs = [(badness[a["id"]], badness[b["id"]]), (a[count], b[count])]
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


def badness_of(rows, order):
    """Losses, or negative scores, by id; the formula with the ranks of SciPy."""
    loss = np.array([row["loss"] for row in rows], np.float32)
    loss = np.nan_to_num(loss, nan=np.inf)
    badness = loss
    if order == "evidence":
        ranks = [
            rankdata([row["separability"] for row in rows]),
            rankdata(-loss),
        ]
        capacity = np.array([row["capacity"] for row in rows])
        badness = -np.log1p(capacity) - np.log(
            np.array(ranks) / len(rows)
        ).sum(0)
        badness[~np.isfinite(loss)] = np.inf
    return dict(
        zip((row["id"] for row in rows), badness.round(9), strict=True)
    )


@pytest.mark.parametrize("order", ["evidence", "loss"])
@pytest.mark.parametrize("limits", [(0, 0), (150, 0), (200, 90)])
def test_best_and_pareto_against_brute_force(scores, limits, order):
    max_params, max_flops = (limit or np.inf for limit in limits)
    rows = scores.table.read().to_pylist()
    badness = badness_of(rows, order)
    kept = [
        row
        for row in rows
        if row["params"] <= max_params and row["flops"] <= max_flops
    ]
    ordered = sorted(kept, key=lambda row: (badness[row["id"]], row["id"]))
    best = scores.best(30, *limits, order)
    assert best.drop_columns("score").to_pylist() == ordered[:30]
    whole = scores.best(10**6, *limits, order)
    assert whole["id"].to_pylist() == [row["id"] for row in ordered]
    finite = [row for row in kept if np.isfinite(row["loss"])]
    for count in COUNTS:
        front = [
            row["id"]
            for row in finite
            if not any(beats(other, row, badness, count) for other in finite)
        ]
        found = scores.pareto(count, *limits, order)
        assert sorted(found["id"].to_pylist()) == sorted(front)
        assert front
        assert (np.diff(found[count].to_numpy()) >= 0).all()
        worse = [badness[row["id"]] for row in found.to_pylist()]
        assert (np.diff(worse) <= 0).all()


def test_rows_and_losses_by_id(scores):
    whole = scores.table.read()
    order = np.random.default_rng(1).integers(0, 600, 50)
    ids = ids_from_text([whole["id"][i].as_py() for i in order])
    loss = whole["loss"].to_numpy()
    # A NaN does not equal itself, but its text does.
    expected = repr(whole.take(order).to_pylist())
    for table in (scores, ScoreTable(scores.table.directory)):
        assert repr(table.rows(ids).to_pylist()) == expected
        np.testing.assert_array_equal(
            table.loss(ids), loss[order].astype(np.float32)
        )
        # The table that appended a score that is not finite has tried it.
        known = np.isfinite(loss[order]) | (table is scores)
        np.testing.assert_array_equal(table.known(ids), known)
        assert not table.known(ids + np.uint64(1)).any()
        assert table.lowest == np.float32(np.nanmin(loss))


def test_top(scores, tmp_path, capsys):
    out = tmp_path / "out.parquet"
    words = ["top", "--workdir", str(tmp_path / "run"), "--out", str(out)]
    for more, expected in (
        (["--number", "7", "--max-flops", "99"], scores.best(7, 0, 99)),
        (["--pareto", "live_flops"], scores.pareto("live_flops")),
        (["--score", "loss"], scores.best(20, order="loss")),
    ):
        assert main([*words, *more]) == 0
        lines = capsys.readouterr().out.splitlines()[1:-1]
        shown = [line[line.index("arch ") :] for line in lines]
        assert shown == expected["arch"].to_pylist()
        assert pq.read_table(out).equals(expected)


@pytest.mark.parametrize(
    ("most", "said"), [(1, "none of 600"), (-1, "max_params: -1")]
)
def test_limits_that_no_candidate_meets(scores, tmp_path, capsys, most, said):
    rows = scores.table.read()
    more = {name: rows[name].to_numpy() + 2 for name in COUNTS}
    table = ScoreTable(tmp_path / "larger" / "scores")
    kept = {name: rows[name] for name in ("id", "arch", "loss", "accuracy")}
    table.append(pa.table({**kept, **more}))
    words = ["top", "--workdir", str(tmp_path / "larger")]
    assert main([*words, "--max-params", str(most)]) == 2
    assert said in capsys.readouterr().err
