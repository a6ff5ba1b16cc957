"""Rows come back as they were appended, or not at all."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxhypernas.store.tables import Table, write, write_parts


def make_rows(start, number=4):
    losses = np.random.default_rng(start).normal(size=number).astype(np.float32)
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


def test_an_empty_table_makes_no_directory(tmp_path):
    assert len(Table(tmp_path / "a" / "b")) == 0
    assert not (tmp_path / "a").exists()


def test_rows_come_back(directory, capsys):
    table = Table(directory)
    assert table.read().to_pylist() == make_rows(0) + make_rows(10) + make_rows(
        20
    )
    table.append(make_table(30))
    assert table.read().to_pylist()[-4:] == make_rows(30)
    assert Table(directory).read().to_pylist() == table.read().to_pylist()
    assert names(directory) == [f"00000{i}.parquet" for i in range(4)]
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
    assert (directory / "notes.parquet").read_text() == "mine" and (
        directory / "000003.parquet"
    ).exists()


def test_numbers_are_exact(directory):
    for row, expected in zip(
        Table(directory).read().to_pylist(), make_rows(0), strict=False
    ):
        assert np.float32(row["loss"]).tobytes() == expected["loss"].tobytes()
        assert row["accuracy"].hex() == expected["accuracy"].hex()
        assert {key: type(value) for key, value in row.items()} == {
            "id": str, "n": int, "loss": float, "accuracy": float, "greedy": bool,
        }  # fmt: skip
    schema = pq.read_schema(directory / "000000.parquet")
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
    write(path, pa.table({"x": [1]}))

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


@pytest.mark.parametrize("shard", [0, 1, 2])
@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_shard_moves_aside(directory, shard, harm):
    path = directory / f"00000{shard}.parquet"
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
        if start != 10 * shard
        for row in make_rows(start)
    ]
    assert table.read().to_pylist() == kept
    assert (
        path.with_suffix(".damaged").read_bytes() == bad and not path.exists()
    )

    table.append(make_table(30))
    again = Table(directory, lines.append)
    assert again.read().to_pylist() == kept + make_rows(30) and len(lines) == 1


def test_a_second_damaged_shard_of_a_number_overwrites_nothing(directory):
    path = directory / "000002.parquet"
    for text in (b"one", b"two"):
        path.write_bytes(text)
        Table(directory, lambda line: None)
    assert (directory / "000002.damaged").read_bytes() == b"one"
    assert (directory / "000002.damaged+").read_bytes() == b"two"


def test_a_flipped_byte_is_never_silent(directory, tmp_path):
    """Parquet's own reader takes a fifth of these for other values."""
    data, reported = (directory / "000000.parquet").read_bytes(), 0
    for place in range(0, len(data), 3):
        bad = bytearray(data)
        bad[place] ^= (1, 4, 0xFF)[place % 9 // 3]
        other = tmp_path / str(place)
        other.mkdir()
        (other / "000000.parquet").write_bytes(bad)
        lines = []
        rows = Table(other, lines.append).read().to_pylist()
        assert rows == ([] if lines else make_rows(0)), place
        assert all("\n" not in line for line in lines)
        reported += len(lines)
    assert reported > len(data) // 3 / 2


def test_a_shard_of_another_program_is_read(tmp_path):
    pq.write_table(
        pa.Table.from_pylist([{"x": 1}]), tmp_path / "000000.parquet"
    )
    assert Table(tmp_path).read().to_pylist() == [{"x": 1}]


def test_default_report_is_a_line_on_stderr(directory, capsys):
    (directory / "000001.parquet").write_bytes(b"")
    Table(directory)
    assert capsys.readouterr().err.count("\n") == 1
