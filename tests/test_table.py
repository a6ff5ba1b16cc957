"""Rows come back as they were appended, or not at all."""

import errno
import math
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxhypernas.store import score_table, shards, tables
from jaxhypernas.store.ids import ids_to_text
from jaxhypernas.store.shards import write_parts
from jaxhypernas.store.tables import Table
from jaxhypernas.types import UserError


def make_rows(start, number=4):
    losses = (
        np.random.default_rng(start).normal(size=number).astype(np.float32)
    )
    return [
        {
            "id": f"é-{start + i}",
            "n": 2**40 + i,
            "loss": loss,
            "accuracy": float(loss) / 3,
            "greedy": i % 2 == 0,
        }
        for i, loss in enumerate(losses)
    ]


def make_table(start):
    return pa.Table.from_pylist(make_rows(start))


@pytest.fixture
def directory(tmp_path):
    """Three shards, of rows 0, 10 and 20 on."""
    table = Table(tmp_path / "a" / "table")
    for start in (0, 10, 20):
        table.append(make_table(start))
    return tmp_path / "a" / "table"


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def numbers(directory):
    """Names without their checksums."""
    pattern = r"(\d{6}(?:-\w+)?)\.[0-9a-f]{8}\.parquet"
    found = [re.fullmatch(pattern, name) for name in names(directory)]
    assert None not in found
    return [match[1] for match in found if match]


def shard(directory, number):
    (path,) = directory.glob(f"{number:06d}.*.parquet")
    return path


def test_an_empty_table_makes_no_directory(tmp_path):
    assert len(Table(tmp_path / "a" / "b")) == 0
    assert not (tmp_path / "a").exists()


def test_rows_come_back(directory, capsys):
    table = Table(directory)
    assert table.read().to_pylist() == make_rows(0) + make_rows(
        10
    ) + make_rows(20)
    table.append(make_table(30))
    assert table.read().to_pylist()[-4:] == make_rows(30)
    assert Table(directory).read().to_pylist() == table.read().to_pylist()
    assert numbers(directory) == [f"00000{i}" for i in range(4)]
    assert not capsys.readouterr().err


def test_rows_are_taken_by_position(directory):
    table, rows = (
        Table(directory),
        [*make_rows(0), *make_rows(10), *make_rows(20)],
    )
    order = np.array([11, 0, 5, 5, 4, 3])
    assert table.take(order).to_pylist() == [rows[i] for i in order]
    assert table.take(order[:0]).to_pylist() == []
    assert table.read(["n"]).column_names == ["n"]


def test_a_file_is_written_in_parts(tmp_path):
    write_parts(
        tmp_path / "a.parquet", (make_table(start) for start in (0, 10))
    )
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == make_rows(
        0
    ) + make_rows(10)
    assert names(tmp_path) == ["a.parquet"]


def test_files_of_others_are_left_alone(directory):
    (directory / "notes.parquet").write_text("mine")
    table = Table(directory)
    assert len(table) == 12
    table.append(make_table(30))
    assert (directory / "notes.parquet").read_text() == "mine"
    assert shard(directory, 3).exists()


def test_numbers_are_exact(directory):
    for row, expected in zip(
        Table(directory).read().to_pylist(), make_rows(0), strict=False
    ):
        assert np.float32(row["loss"]).tobytes() == expected["loss"].tobytes()
        assert row["accuracy"].hex() == expected["accuracy"].hex()
        assert {key: type(value) for key, value in row.items()} == {
            "id": str, "n": int, "loss": float, "accuracy": float, "greedy": bool,
        }  # fmt: skip
    schema = pq.read_schema(shard(directory, 0))
    assert [str(kind) for kind in schema.types] == [
        "string",
        "int64",
        "float",
        "double",
        "bool",
    ]


def test_numbers_that_are_not_finite(tmp_path):
    Table(tmp_path).append(
        pa.table({"x": np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)})
    )
    lines = []
    nan, *others = (
        row["x"] for row in Table(tmp_path, lines.append).read().to_pylist()
    )
    assert (
        math.isnan(nan)
        and others == [math.inf, -math.inf, 0]
        and math.copysign(1, others[2]) == -1
    )
    assert not lines


def test_a_leftover_of_a_killed_write_is_ignored(directory):
    (directory / "000003.parquet.tmp").write_bytes(b"PAR1")
    lines = []
    table = Table(directory, lines.append)
    assert len(table) == 12 and not lines
    table.append(make_table(30))
    assert len(Table(directory)) == 16
    assert not any(name.endswith(".tmp") for name in names(directory))


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a.parquet"
    write_parts(path, [pa.table({"x": [1]})])

    def parts():
        yield pa.table({"x": [2]})
        raise OSError

    with pytest.raises(OSError, match=r".*"):
        write_parts(path, parts())
    assert pq.read_table(path).to_pylist() == [{"x": 1}]


HARMS = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "text": lambda data: b"hello",
    "zeros": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("has_checksum", [True, False])
def test_a_damaged_shard_moves_aside(directory, number, harm, has_checksum):
    path = shard(directory, number)
    if not has_checksum:
        path = path.rename(directory / f"{number:06d}.parquet")
    bad = HARMS[harm](path.read_bytes())
    path.write_bytes(bad)
    lines = []
    table = Table(directory, lines.append)
    assert (
        len(lines) == 1
        and "\n" not in lines[0]
        and str(path) in lines[0]
        and "damaged" in lines[0]
    )
    kept = [
        row
        for start in (0, 10, 20)
        if start != 10 * number
        for row in make_rows(start)
    ]
    assert table.read().to_pylist() == kept
    assert (
        path.with_suffix(".damaged").read_bytes() == bad and not path.exists()
    )

    table.append(make_table(30))
    again = Table(directory, lines.append)
    assert again.read().to_pylist() == kept + make_rows(30) and len(lines) == 1


def test_a_disk_that_cannot_be_read_harms_no_shard(directory, monkeypatch):
    def unreadable(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    before = names(directory)
    monkeypatch.setattr(shards.files, "checksum", unreadable)
    with pytest.raises(OSError, match="Input/output error"):
        Table(directory, pytest.fail)
    assert names(directory) == before


def test_a_second_damaged_shard_of_a_number_overwrites_nothing(directory):
    path = directory / "000002.parquet"
    shard(directory, 2).unlink()
    for text in (b"one", b"two"):
        path.write_bytes(text)
        Table(directory, lambda line: None)
    assert (directory / "000002.damaged").read_bytes() == b"one"
    assert (directory / "000002.damaged+").read_bytes() == b"two"


def flipped(data, place):
    bad = bytearray(data)
    bad[place] ^= (1, 4, 0xFF)[place % 3]
    return bytes(bad)


@pytest.mark.parametrize("merged", [False, True])
def test_a_flipped_byte_is_never_silent(directory, tmp_path, merged):
    """Parquet's own reader takes a fifth of these for other values."""
    if merged:
        Table(directory).compact()
    path, *_ = directory.iterdir()
    data = path.read_bytes()
    other = tmp_path / "other"
    other.mkdir()
    for place in range(len(data)):
        (other / path.name).write_bytes(flipped(data, place))
        lines = []
        assert len(Table(other, lines.append)) == 0
        assert (
            len(lines) == 1 and "\n" not in lines[0] and str(other) in lines[0]
        )
        (aside,) = other.iterdir()
        aside.unlink()


def test_a_flipped_byte_shows_when_a_file_that_was_opened_is_read(directory):
    """By the checksums of pages, which do not cover all bytes of the footer."""
    table = Table(directory)
    path = shard(directory, 1)
    data = path.read_bytes()
    silent = 0
    for place in range(4, len(data), 3):
        path.write_bytes(flipped(data, place))
        try:
            silent += table.read().to_pylist() != rows_of(0, 10, 20)
        except Exception:
            continue
    assert silent <= len(data) / 100


@pytest.mark.parametrize("metadata", [{}, {"jaxhypernas.arrow.crc32": "12"}])
def test_a_shard_without_checksums_is_read(tmp_path, metadata):
    """Of another program, or of an older version of this one."""
    old = pa.table({"x": [1]}).replace_schema_metadata(metadata)
    pq.write_table(old, tmp_path / "000000.parquet")
    table = Table(tmp_path, pytest.fail)
    table.append(pa.table({"x": [2]}))
    assert table.read().to_pydict() == {"x": [1, 2]}
    table.compact()
    table = Table(tmp_path, pytest.fail)
    assert table.read().to_pydict() == {"x": [1, 2]}
    assert numbers(tmp_path) == ["000001-all"]


def test_default_report_is_a_line_on_stderr(directory, capsys):
    shard(directory, 1).write_bytes(b"")
    Table(directory)
    assert capsys.readouterr().err.count("\n") == 1


# --- merging ------------------------------------------------------------------


def rows_of(*starts):
    return [row for start in starts for row in make_rows(start)]


def test_shards_are_merged_and_the_table_goes_on(directory):
    table = Table(directory)
    expected = rows_of(0, 10, 20)
    for number in (2, 3, 4):
        for _ in range(2):
            table.compact()
            assert numbers(directory) == [f"{number:06d}-all"]
            for each in (table, Table(directory, pytest.fail)):
                assert each.read().to_pylist() == expected
                assert each.take(np.array([7, 2])).to_pylist() == [
                    expected[7],
                    expected[2],
                ]
        table.append(make_table(100 * number))
        expected = expected + make_rows(100 * number)
        assert table.read().to_pylist() == expected


@pytest.mark.parametrize("most", [3, 10])
def test_many_small_shards_are_merged_on_the_way(tmp_path, monkeypatch, most):
    """As a greedy search leaves them; no row is merged more than a few times."""
    monkeypatch.setattr(tables, "MOST_SHARDS", most)
    written = []
    write = tables.write_shard

    def counted(directory, name, parts):
        parts = list(parts)
        written.append(sum(map(len, parts)))
        return write(directory, name, parts)

    monkeypatch.setattr(tables, "write_shard", counted)
    table = Table(tmp_path)
    rows = []
    for number in range(60):
        table.append(pa.table({"x": [number]}))
        rows.append({"x": number})
        last = table.take(np.array([number, 0])).to_pylist()
        assert last == [rows[number], rows[0]]
    assert table.read().to_pylist() == rows
    assert Table(tmp_path, pytest.fail).read().to_pylist() == rows
    assert len(numbers(tmp_path)) <= most + 60 // 4
    assert sum(written) <= 6 * 60


def test_an_empty_table_is_merged(tmp_path):
    Table(tmp_path / "a").compact()
    assert not (tmp_path / "a").exists()


def test_row_groups_of_a_merged_shard(directory, monkeypatch):
    """Only the groups that are asked for are read."""
    monkeypatch.setattr(shards, "GROUP_ROWS", 5)
    table = Table(directory)
    table.compact()
    (path,) = directory.iterdir()
    found = pq.ParquetFile(path).metadata
    sizes = [found.row_group(i).num_rows for i in range(found.num_row_groups)]
    assert sizes == [8, 4]
    rows = rows_of(0, 10, 20)
    order = np.array([11, 0, 8, 7, 7])
    for each in (table, Table(directory)):
        assert each.take(order).to_pylist() == [rows[i] for i in order]
        assert each.read().to_pylist() == rows


def test_a_table_is_whole_at_any_moment_of_merging(
    directory, tmp_path, monkeypatch
):
    """What is on the disk before each operation is what a kill would leave there."""
    moments = []

    table = Table(directory)
    table.compact()
    for start in (30, 40):
        table.append(make_table(start))
    kind = type(table.directory)

    def watch(name):
        operation = getattr(kind, name)

        def watched(path, *args, **kwargs):
            copy = tmp_path / f"moment-{len(moments)}"
            shutil.copytree(directory, copy)
            moments.append(copy)
            return operation(path, *args, **kwargs)

        monkeypatch.setattr(kind, name, watched)

    for name in ("open", "replace", "rename", "unlink"):
        watch(name)
    table.compact()
    monkeypatch.undo()

    expected = rows_of(0, 10, 20, 30, 40)
    seen = {len([*moment.glob("*.parquet")]) for moment in moments}
    assert seen == {2, 3, 4}
    for moment in moments:
        again = Table(moment, pytest.fail)
        assert again.read().to_pylist() == expected
        again.append(make_table(50))
        again.compact()
        assert numbers(moment) == ["000005-all"]
        final = Table(moment, pytest.fail)
        assert final.read().to_pylist() == expected + make_rows(50)


def test_a_reader_that_opened_before_a_merge_reads_the_same(directory):
    readers = [Table(directory) for _ in range(3)]
    rows = rows_of(0, 10, 20)
    writer = Table(directory)
    writer.compact()
    writer.append(make_table(30))
    assert readers[0].read().to_pylist() == rows + make_rows(30)
    assert readers[1].take(np.array([9, 1])).to_pylist() == [rows[9], rows[1]]
    readers[2].append(make_table(40))
    assert len(readers[2]) == 16


def test_a_reader_whose_rows_are_deleted_says_so(directory):
    table = Table(directory)
    shard(directory, 1).unlink()
    with pytest.raises(UserError, match="lost rows while it was read"):
        table.read()


def test_a_damaged_merged_shard_gives_way_to_those_it_covers(directory):
    """After a kill that left both."""
    kept = {path: path.read_bytes() for path in directory.iterdir()}
    Table(directory).compact()
    (merged,) = directory.iterdir()
    merged.write_bytes(flipped(merged.read_bytes(), 50))
    for path, data in kept.items():
        path.write_bytes(data)
    lines = []
    assert Table(directory, lines.append).read().to_pylist() == rows_of(
        0, 10, 20
    )
    assert len(lines) == 1 and merged.name in lines[0]


def test_a_full_disk_puts_off_merging(directory, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = names(directory)
    table = Table(directory)
    monkeypatch.setattr(shards.files, "replacing", full)
    table.compact()
    assert names(directory) == before
    assert table.read().to_pylist() == rows_of(0, 10, 20)


# --- scores -------------------------------------------------------------------


def make_scores(*losses):
    ids = ids_to_text(np.arange(len(losses), dtype=np.uint64) + 7)
    return pa.table({"id": ids, "loss": np.array(losses)})


def test_a_row_of_another_candidate_is_never_returned(tmp_path):
    """Another program put other rows in the place of those that were indexed."""
    scores = score_table.ScoreTable(tmp_path)
    scores.append(make_scores(3.0, 1.0, 2.0))
    assert scores.best(1)["loss"].to_pylist() == [1.0]
    (path,) = tmp_path.iterdir()
    others = make_scores(9.0, 3.0, 1.0, 2.0).slice(1)
    shards.write_parts(path, [others])
    with pytest.raises(UserError, match="changed while it was read"):
        scores.best(1)
    with pytest.raises(UserError, match="changed while it was read"):
        scores.rows(np.array([6], np.uint64))


def test_scores_are_merged_under_their_index(tmp_path):
    scores = score_table.ScoreTable(tmp_path)
    assert "0 candidates" in repr(scores)
    whole = make_scores(3.0, np.nan, 1.0)
    for rows in (whole.slice(2), whole.slice(0, 2)):
        scores.append(rows)
    before = scores.best(9).to_pylist()
    scores.table.compact()
    assert repr(scores.best(9).to_pylist()) == repr(before)
    again = score_table.ScoreTable(tmp_path)
    assert repr(again.best(9).to_pylist()) == repr(before)
    assert "3 candidates, lowest loss 1.0000" in repr(again)
