"""Tables: long, wide and nested; CSV, Parquet, JSON lines, and frames in memory."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from crnn.data.read import read
from crnn.errors import ConfigError, DataError

LONG = """id,time,x,y,target,subject
a,2,3,30,up,s1
a,0,1,10,up,s1
b,0,5,50,down,s2
a,1,2,20,up,s1
b,1,,60,down,s2
"""


def make(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def long_frame() -> pl.DataFrame:
    return pl.read_csv(LONG.encode())


def test_long_rows_are_sorted_by_time_and_gaps_are_nan(tmp_path: Path) -> None:
    data = read(make(tmp_path, "d.csv", LONG), target="target", group="subject")
    assert [(e.id, e.target, e.group, e.length) for e in data] == [("a", "up", "s1", 3), ("b", "down", "s2", 2)]
    assert data.channel_names == ("x", "y")
    np.testing.assert_array_equal(data[0].load(), np.array([[1, 10], [2, 20], [3, 30]], dtype=np.float32))
    np.testing.assert_array_equal(data[1].load(), np.array([[5, 50], [np.nan, 60]], dtype=np.float32))
    assert "long table: id id, time time, channels x, y" in data.source


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "jsonl", "csv.gz"])
def test_every_file_type_gives_the_same_data(tmp_path: Path, suffix: str) -> None:
    frame, path = long_frame(), tmp_path / f"d.{suffix}"
    if suffix == "parquet":
        frame.write_parquet(path)
    elif suffix == "jsonl":
        frame.write_ndjson(path)
    elif suffix == "csv.gz":
        path.write_bytes(gzip.compress(LONG.encode()))
    else:
        frame.write_csv(path, separator="\t" if suffix == "tsv" else ",")
    data = read(path, group="subject")
    assert data.targets == ["up", "down"]
    np.testing.assert_array_equal(data[0].load(), np.array([[1, 10], [2, 20], [3, 30]], dtype=np.float32))


@pytest.mark.parametrize("library", ["polars", "lazy", "pandas", "pyarrow"])
def test_frames_in_memory_give_the_same_data(library: str) -> None:
    frame = long_frame()
    if library == "pandas":
        pandas = pytest.importorskip("pandas", reason="pandas is not installed")
        source = pandas.DataFrame({name: frame[name].to_list() for name in frame.columns})
    elif library == "pyarrow":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
        source = frame.to_arrow()
    else:
        source = frame if library == "polars" else frame.lazy()
    data = read(source, group="subject")
    assert data.targets == ["up", "down"]
    assert [e.group for e in data] == ["s1", "s2"]
    np.testing.assert_array_equal(data[1].load(), np.array([[5, 50], [np.nan, 60]], dtype=np.float32))


def test_ids_and_times_of_other_names(tmp_path: Path) -> None:
    path = make(tmp_path, "d.csv", "ride,km,v,class\n7,1,5,a\n7,0,4,a\n8,0,3,b\n")
    data = read(path, id="ride", time="km")
    assert [e.id for e in data] == ["7", "8"]
    assert data[0].load().tolist() == [[4.0], [5.0]]
    with pytest.raises(DataError, match="time 'kmh' is not a column; did you mean 'km'"):
        read(path, id="ride", time="kmh")


def test_text_times_are_ordered_as_times(tmp_path: Path) -> None:
    dates = "id,timestamp,v\na,2024-01-10T00:00:00,2\na,2024-01-09T00:00:00,1\n"
    assert read(make(tmp_path, "d.csv", dates))[0].load().tolist() == [[1.0], [2.0]]
    words = "id,timestamp,v\na,later,2\na,soon,1\n"
    with pytest.raises(DataError, match="holds 'later', expected numbers or ISO dates"):
        read(make(tmp_path, "w.csv", words))


def test_every_bad_sequence_of_a_long_table_is_listed(tmp_path: Path) -> None:
    text = "id,t,x,label\na,0,1,u\na,0,2,u\nb,0,1,u\nb,1,1,v\nc,0,oops,u\nc,1,2,u\nd,0,1,v\n,0,1,v\ne,1,1,\n"
    path = make(tmp_path, "d.csv", text)
    with pytest.raises(DataError) as error:
        read(path)
    message = str(error.value)
    assert "5 of 6 places cannot be used" in message
    assert "id a: t 0 stands twice" in message
    assert "d.csv row 2" in message
    assert "id b: label changes from 'u' to 'v'" in message
    assert "id c: column 'x' is 'oops', expected a number" in message
    assert "d.csv row 9: id is empty" in message
    assert "id e: no target" in message
    assert [e.id for e in read(path, on_bad="skip")] == ["d"]


def test_wide_rows_end_where_their_cells_do(tmp_path: Path) -> None:
    path = make(tmp_path, "w.csv", "name,label,t0,t1,t2\np,u,1,2,3\nq,v,4,,6\nr,v,7,8,\n")
    data = read(path)
    assert data.targets == ["u", "v", "v"]
    assert data.lengths.tolist() == [3, 3, 2]
    np.testing.assert_array_equal(data[1].load()[:, 0], np.array([4, np.nan, 6], dtype=np.float32))
    assert "wide table: one row a sequence, 3 time steps t0 to t2" in data.source
    assert [str(p) for p in data.problems if "'name' holds no numbers" in str(p)]
    assert data[0].where.endswith("w.csv row 2")


def test_bad_wide_rows_are_named(tmp_path: Path) -> None:
    path = make(tmp_path, "w.csv", "label,t0,t1\nu,1,2\nu,,\nv,x,3\n,1,2\nv,3,4\n")
    with pytest.raises(DataError) as error:
        read(path)
    message = str(error.value)
    assert "3 of 5 places" in message
    assert "w.csv row 3: every time step is empty" in message
    assert "w.csv row 4: column 't0' is 'x', expected a number" in message
    assert "w.csv row 5: no target" in message


@pytest.mark.parametrize(
    ("name", "cells", "expected"),
    [
        ("target", ["0.5", "1.5", "2", "2"], [0.5, 1.5, 2.0, 2.0]),
        ("target", ["1", "0", "1", "0"], ["1", "0", "1", "0"]),
        ("target", ["1", "2", "3", "4"], [1.0, 2.0, 3.0, 4.0]),
        ("label", ["1", "2", "3", "4"], ["1", "2", "3", "4"]),
        ("y", ["true", "false", "true", "true"], ["True", "False", "True", "True"]),
        ("target", ["a;b", "a", "b", "b"], [("a", "b"), ("a",), ("b",), ("b",)]),
    ],
)
def test_what_a_target_column_means(tmp_path: Path, name: str, cells: list[str], expected: list[object]) -> None:
    rows = "".join(f"{cell},1,2\n" for cell in cells)
    assert read(make(tmp_path, "w.csv", f"{name},t0,t1\n{rows}")).targets == expected


def test_split_column_and_split_files(tmp_path: Path) -> None:
    one = make(tmp_path, "w.csv", "split,label,t0,t1\ntrain,a,1,2\nTest,b,3,4\nval,a,5,6\n")
    assert [e.split for e in read(one)] == ["train", "test", "validation"]
    with pytest.raises(DataError, match=r"split of row 1 is 'trian', expected train"):
        read(make(tmp_path, "x.csv", "split,label,t0,t1\ntrian,a,1,2\n"))
    folder = tmp_path / "two"
    folder.mkdir()
    make(folder, "train.csv", "id,t,v,label\n0,0,1,a\n0,1,2,a\n1,0,3,b\n")
    make(folder, "test.csv", "id,t,v,label\n0,0,9,b\n")
    data = read(folder)
    assert [(e.id, e.split) for e in data] == [
        ("train.csv:0", "train"),
        ("train.csv:1", "train"),
        ("test.csv:0", "test"),
    ]
    assert data.lengths.tolist() == [2, 1, 1]


def test_nested_json_lines(tmp_path: Path) -> None:
    text = (
        '{"id": "p", "data": [[1, 2], [3, null]], "target": "u"}\n'
        '{"id": "q", "data": [[1, 2]], "target": "v"}\n'
        "not json\n"
        '{"id": "r", "data": [[1], [2]], "target": "v"}\n'
        '{"id": "s", "data": [[1, 2], [3]], "target": "v"}\n'
        '{"id": "t", "data": [], "target": "v"}\n'
    )
    path = make(tmp_path, "d.jsonl", text)
    data = read(path, on_bad="skip")
    assert [e.id for e in data] == ["p", "q"]
    np.testing.assert_array_equal(data[0].load(), np.array([[1, 2], [3, np.nan]], dtype=np.float32))
    messages = [str(problem) for problem in data.problems]
    assert any("d.jsonl row 3: not JSON" in text for text in messages)
    assert any("d.jsonl row 4: found 1 channels, expected 2" in text for text in messages)
    assert any("d.jsonl row 5: data is ragged or not numeric" in text for text in messages)
    assert any("d.jsonl row 6: found a sequence of length 0" in text for text in messages)


def test_nested_parquet_univariate(tmp_path: Path) -> None:
    pl.DataFrame({"data": [[1.0, 2.0], [3.0]], "label": ["u", "v"]}).write_parquet(tmp_path / "d.parquet")
    data = read(tmp_path / "d.parquet")
    assert data.lengths.tolist() == [2, 1]
    assert data.features == (1,)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("id,t,x,label\na,0,1,u\n", {"target": "lable"}, "target 'lable' is not a column; did you mean 'label'"),
        ("id,t,x,label\na,0,1,u\n", {"group": "subject"}, "group 'subject' is not a column"),
        ("id,x,label\na,1,u\na,2,u\n", {}, "id 'a' stands in several rows but there is no time column"),
        ("date,x\n2024-01-01,1\n", {}, "found a time column 'date' but no id column"),
        ("1,0.5,0.25\n2,0.5,0.1\n", {}, "the first line holds numbers only, expected a header"),
        ("label,text\nu,hello\n", {}, "found no numeric columns"),
        ("label,t0\n", {}, "found a table without rows"),
        ("", {}, "found an empty file"),
        ("label,t0\nu,1,2,3\n", {}, "cannot be read as a table"),
        ("label,t0,a,b\nu,1,0,3\n", {"target": "a,b"}, "target column 'b' holds 3; several target columns"),
    ],
)
def test_unusable_tables_say_why(tmp_path: Path, text: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(make(tmp_path, "d.csv", text), **options)


def test_options_for_files_are_refused_for_frames() -> None:
    with pytest.raises(ConfigError, match="pattern: only for files"):
        read(long_frame(), pattern="{label}")
    with pytest.raises(ConfigError, match="labels and lengths: not for a table"):
        read(long_frame(), labels=["a"])


def test_a_hundred_thousand_rows_are_quick() -> None:
    rows = 100_000
    frame = pl.DataFrame(
        {"id": [i // 100 for i in range(rows)], "t": [i % 100 for i in range(rows)], "v": [1.0] * rows}
    )
    data = read(frame)
    assert len(data) == 1000
    assert set(data.lengths.tolist()) == {100}


def test_a_row_that_is_latin_1_is_named_with_what_it_would_say(tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    path.write_bytes("file,text\n0.wav,abc\n1.wav,wörld\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"texts\.csv line 3: is no UTF-8; as Latin-1 it would be '1\.wav,wörld'; save"):
        read(path)
