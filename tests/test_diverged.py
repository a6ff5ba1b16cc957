"""What is not finite is the worst, everywhere, and JSON has no NaN."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest

from jaxhypernas.report import report
from jaxhypernas.report.ranking import plain, rank_rows
from jaxhypernas.store import json_text
from jaxhypernas.store.ids import ids_to_text
from jaxhypernas.store.score_table import ScoreTable

BAD = (math.nan, math.inf, -math.inf)


def scored(ids, loss_A):
    """Rows of a score table."""
    zeros = np.zeros(len(ids), np.int64)
    return pa.table(
        {
            "id": ids_to_text(np.array(ids, np.uint64)),
            "arch": [f"a{i}" for i in ids],
            "loss": np.array(loss_A, np.float64),
            "accuracy": np.zeros(len(ids)),
            "capacity": np.ones(len(ids)),
            "separability": np.ones(len(ids)),
            "params": zeros,
            "flops": zeros,
            "live_params": zeros,
            "live_flops": zeros,
        }
    )


def retrained(group, number, loss, valid, accuracy=0.5):
    """A row of a candidate trained from scratch."""
    return {
        "group": group,
        "id": f"{number:016x}",
        "arch": f"a{number}",
        "loss": loss,
        "accuracy": 0.5,
        "score": -loss,
        "capacity": 1.0,
        "separability": 1.0,
        "params": number,
        "flops": number,
        "live_params": number,
        "live_flops": number,
        "trained_valid_loss": valid,
        "trained_valid_accuracy": accuracy,
        "test_loss": valid,
        "test_accuracy": accuracy,
    }


def write(tmp_path, rows, loss_A=(1.0, 2.0)):
    """Writes a report; returns its figures and text."""
    best = [row for row in rows if row["group"] == "top"]
    report.write(
        tmp_path,
        "Report",
        "",
        "evidence",
        "",
        best,
        np.array(loss_A),
        rows,
        [],
    )
    text = (tmp_path / "report.json").read_text()

    def refuse(constant):
        raise AssertionError(constant)

    figures = json.loads(text, parse_constant=refuse)
    return figures, (tmp_path / "report.md").read_text()


SAMPLE = [
    retrained("sample", i, 2 + i / 10, 1 + i / 10, 0.5 - i / 100)
    for i in range(1, 7)
]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("first", [True, False])
def test_what_diverged_does_not_win(tmp_path, bad, first):
    top = [retrained("top", 8, 0.1, bad, 0.1), retrained("top", 9, 0.2, 0.3)]
    rows = [*(top if first else top[::-1]), *SAMPLE]
    figures, text = write(tmp_path, rows)
    assert figures["winner"]["arch"] == "a9"
    assert figures["diverged"] == [f"{8:016x}"]
    assert "1 of 8 candidates diverged" in text and f"{8:016x}" in text


@pytest.mark.parametrize("bad", BAD)
def test_a_diverged_sample_ranks_last(tmp_path, bad):
    top = [retrained("top", 9, 0.2, 0.3)]
    # The worst by score diverged: the order is still perfect.
    rows = [*top, *SAMPLE, retrained("sample", 10, 9.0, bad, 0.1)]
    figures, _ = write(tmp_path, rows)
    assert figures["rank"]["generated weights"]["tau"]["value"] == 1
    assert figures["rank"]["generated weights"]["n"] == 7


@pytest.mark.parametrize("bad", BAD)
def test_a_score_that_is_not_finite_ranks_last(bad):
    rows = [*SAMPLE, retrained("sample", 10, bad, 5.0)]
    truth_A = -np.array([row["test_loss"] for row in rows])
    ranking = rank_rows(rows, truth_A)
    assert ranking["generated weights"]["tau"].value == 1


def test_all_diverged(tmp_path):
    rows = [retrained("top", 1, math.nan, math.nan)]
    rows += [retrained("sample", i, i, math.nan) for i in range(2, 6)]
    figures, text = write(tmp_path, rows, (math.nan, math.inf))
    assert figures["rank"]["generated weights"]["tau"]["value"] is None
    assert figures["winner"]["trained_valid_loss"] is None
    assert figures["scores_not_finite"] == 2
    assert "5 of 5 candidates diverged" in text


def test_json_has_no_nan():
    value = {"a": [1.0, math.nan, (-math.inf,)], "b": {"c": math.inf}}
    found = json.loads(json_text.dumps(value))
    assert found == {"a": [1.0, None, [None]], "b": {"c": None}}
    rows = [retrained("sample", 1, i, 1.0) for i in range(3)]
    ranking = plain(rank_rows(rows, np.zeros(3)))
    assert "NaN" not in json_text.dumps(ranking)


@pytest.mark.parametrize("bad", BAD)
def test_a_score_that_is_not_finite_is_tried_once_again(tmp_path, bad):
    table = ScoreTable(tmp_path)
    table.append(scored([1, 2, 3], [0.5, bad, 0.7]))
    ids = np.array([1, 2, 3, 4], np.uint64)
    # This program has tried.
    assert table.known(ids).tolist() == [True, True, True, False]
    assert table.lowest == 0.5
    assert table.best(3)["arch"].to_pylist() == ["a1", "a3", "a2"]

    again = ScoreTable(tmp_path)
    assert again.known(ids).tolist() == [True, False, True, False]
    again.append(scored([2], [bad]))
    assert again.known(ids).tolist() == [True, True, True, False]
    assert len(again) == 3

    again = ScoreTable(tmp_path)
    again.append(scored([2, 4], [0.1, 0.9]))
    for opened in (again, ScoreTable(tmp_path)):
        assert opened.known(ids).all() and len(opened) == 4
        assert (
            opened.loss(ids).tolist()
            == np.array([0.5, 0.1, 0.7, 0.9], np.float32).tolist()
        )
        best = opened.best(4)["arch"].to_pylist()
        assert best == ["a2", "a1", "a3", "a4"]
        assert opened.column("loss").tolist() == [0.5, 0.7, 0.1, 0.9]
        assert opened.rows(ids)["loss"].to_pylist() == [0.5, 0.1, 0.7, 0.9]
