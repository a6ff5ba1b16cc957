"""Tables as people have them: what is read, what is written, what is refused."""

import gzip
import os
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils.epath import Path

from jaxhypernas.cli import readers, writers
from jaxhypernas.cli.readers import RowFile, number_of
from jaxhypernas.types import UserError

ROWS = [{"arch": "a,b", "acc": "0.5"}, {"arch": "c", "acc": "0.25"}]

TEXTS = {
    "plain.csv": b'arch,acc\n"a,b",0.5\nc,0.25\n',
    "crlf.csv": b'arch,acc\r\n"a,b",0.5\r\nc,0.25\r\n',
    "mark.csv": b'\xef\xbb\xbfarch,acc\n"a,b",0.5\nc,0.25\n',
    "utf16.csv": 'arch,acc\n"a,b",0.5\nc,0.25\n'.encode("utf-16"),
    "CAPITALS.CSV": b'Arch, ACC\n"a,b", 0.5\nc, 0.25\n',
    "space.csv": b'arch, acc\n"a,b", 0.5\nc, 0.25\n',
    "index.csv": b',arch,acc\n0,"a,b",0.5\n1,c,0.25\n',
    "semicolon.csv": b"arch;acc\na,b;0.5\nc;0.25\n",
    "tab.tsv": b"arch\tacc\na,b\t0.5\nc\t0.25\n",
    "blank.csv": b'arch,acc\n\n"a,b",0.5\n\nc,0.25\n\n',
    "unknown": b'arch,acc\n"a,b",0.5\nc,0.25\n',
}


def read(path, *columns):
    return [row.values for row in RowFile(Path(path), "truth").rows(*columns)]


def refused(call, *args):
    """What the user is told."""
    with pytest.raises(UserError) as told:
        call(*args)
    return str(told.value)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("packed", [False, True])
def test_tables_of_text(tmp_path, name, packed):
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(TEXTS[name]) if packed else TEXTS[name])
    assert read(path, "arch", "acc") == ROWS


def test_one_column_may_have_commas(tmp_path):
    (tmp_path / "a.csv").write_text("arch\na, b\nc;d\n")
    assert read(tmp_path / "a.csv", "arch") == [
        {"arch": "a, b"},
        {"arch": "c;d"},
    ]


def test_lines(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeffa,b\n\n  c \n")
    assert read(tmp_path / "a.txt", "arch") == [{"arch": "a,b"}, {"arch": "c"}]


def test_parquet_of_any_name_and_parts(tmp_path):
    table = pa.table({"arch": ["x", "y"], "acc": [1.0, 2.0]})
    expected = table.to_pylist()
    pq.write_table(table, tmp_path / "a.PARQUET")
    assert read(tmp_path / "a.PARQUET", "arch", "acc") == expected
    coded = table.set_column(0, "Arch", table["arch"].dictionary_encode())
    (tmp_path / "parts").mkdir()
    pq.write_table(coded, tmp_path / "parts" / "0.parquet")
    pq.write_table(table, tmp_path / "parts" / "1.parquet")
    assert read(tmp_path / "parts", "arch", "acc") == expected * 2


def test_a_pipe_is_read_twice(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("a\nb\n",))
    writer.start()
    file = RowFile(Path(pipe), "archs")
    for _ in range(2):
        found = [row.values["arch"] for row in file.rows("arch")]
        assert found == ["a", "b"]
    writer.join()


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input(tmp_path, monkeypatch, name):
    (tmp_path / "a.csv").write_text("arch,acc\na,1\n")
    with open(tmp_path / "a.csv") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        file = RowFile(Path(name), "archs")
        for _ in range(2):
            assert [row.values for row in file.rows("arch")] == [{"arch": "a"}]


def test_ops_and_edges_in_columns_of_their_own(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("ops,edges,acc\ninput output,0-1,1\n")
    assert read(path, "arch") == [{"arch": "input output|0-1"}]
    table = pa.table(
        {"module_adjacency": [[[0, 1], [0, 0]]], "ops": [["i", "o"]]}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet", "arch")
    assert found == [{"arch": '[[0, 1], [0, 0]],["i", "o"]'}]


BAD = {
    "empty.csv": (b"", "is empty"),
    "header.csv": (b"arch,acc\n", "is empty"),
    "few.csv": (b"arch,acc\na,1\nb\n", "acc of row 2"),
    "many.csv": (b"arch,acc\na,1\nb,c,2\n", "row 2"),
    "hole.csv": (b"arch,acc\na,1\n,2\n", "arch of row 2"),
    "column.csv": (b"arch,loss\na,1\n", "no column acc: it has arch, loss"),
    "damaged.csv.gz": (
        gzip.compress(b"arch,acc\na,1\n" * 99)[:-9],
        "cannot be",
    ),
    "binary.csv": (b"arch,acc\n\xff\xfe\x00", "cannot be read"),
    "damaged.parquet": (b"PAR1 and then nothing", "cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_complaint_names_file_and_row(tmp_path, name):
    content, words = BAD[name]
    (tmp_path / name).write_bytes(content)
    line = refused(read, tmp_path / name, "arch", "acc")
    assert line.startswith("truth: ") and name in line and words in line


def test_places_that_hold_no_table(tmp_path):
    assert "without Parquet" in refused(read, tmp_path, "arch")
    assert "cannot be read" in refused(read, tmp_path / "x.csv", "arch")


def test_a_long_line_does_not_fill_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "_LONGEST_LINE", 100)
    (tmp_path / "a.txt").write_text("a\n" + "b" * 1000)
    assert "in line 2" in refused(read, tmp_path / "a.txt", "arch")


@pytest.mark.parametrize(
    ("text", "number"),
    [("0.5", 0.5), (" 86.4 % ", 0.864), ("50%", 0.5), (3, 3.0), ("1e-1", 0.1)],
)
def test_numbers(text, number):
    assert np.isclose(number_of(text, "truth"), number)


@pytest.mark.parametrize("text", ["", "abc", "86,4", "%", [1]])
def test_no_numbers(text):
    line = refused(number_of, text, "truth: acc of f, row 3")
    assert line.startswith("truth: acc of f, row 3: ")


@pytest.mark.parametrize(
    "name",
    ["a.csv", "a.TSV", "a.csv.gz", "a.tsv.gz", "a.parquet", "a.PARQUET"],
)
def test_what_is_written_is_read(tmp_path, name):
    path = Path(tmp_path / name)
    writers.check(path, "out")
    parts = [pa.table({"arch": ["a,b"], "acc": [0.5]}) for _ in range(2)]
    writers.write(path, parts)
    found = read(path, "arch", "acc")
    assert [(row["arch"], float(row["acc"])) for row in found] == [
        ("a,b", 0.5)
    ] * 2
    is_parquet = path.read_bytes()[:4] == b"PAR1"
    assert is_parquet == ("parquet" in name.lower())


@pytest.mark.parametrize(
    "name", ["a.xls", "a", "a.gz", "a.parquet.gz", "no/a.csv"]
)
def test_names_that_cannot_be_written(tmp_path, name):
    line = refused(writers.check, Path(tmp_path / name), "out")
    assert line.startswith("out: ")
