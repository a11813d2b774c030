"""A folder of tables, one sequence each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crnn.data.read import read
from crnn.errors import DataError


def make(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_class_folders_of_tables(tmp_path: Path) -> None:
    make(tmp_path, "walk/a.csv", "time,x,y\n1,3,4\n0,1,2\n")
    make(tmp_path, "run/b.csv", "time,x,y\n0,5,\n")
    data = read(tmp_path)
    assert [(e.id, e.target, e.length) for e in data] == [("run/b.csv", "run", 1), ("walk/a.csv", "walk", 2)]
    assert data.channel_names == ("x", "y")
    np.testing.assert_array_equal(data[1].load(), np.array([[1, 2], [3, 4]], dtype=np.float32))
    np.testing.assert_array_equal(data[0].load(), np.array([[5, np.nan]], dtype=np.float32))


def test_files_without_header_and_a_labels_table(tmp_path: Path) -> None:
    make(tmp_path, "a.csv", "1,2\n3,4\n5,6\n")
    make(tmp_path, "b.csv", "0,1\n")
    make(tmp_path, "labels.csv", "file,label,subject\na,u,s1\nb,v,s2\n")
    data = read(tmp_path, group="subject")
    assert [(e.id, e.target, e.group, e.length) for e in data] == [("a.csv", "u", "s1", 3), ("b.csv", "v", "s2", 1)]
    assert data[0].load().tolist() == [[1, 2], [3, 4], [5, 6]]


def test_names_of_files_by_pattern(tmp_path: Path) -> None:
    make(tmp_path, "up_1.tsv", "x\n1\n2\n")
    make(tmp_path, "down_2.tsv", "x\n1\n")
    assert read(tmp_path, pattern="{label}_{take}").targets == ["down", "up"]


def test_odd_files_are_all_listed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make(tmp_path, f"u/{name}.csv", "x,y\n1,2\n")
    make(tmp_path, "u/c.csv", "x\n1\n")
    make(tmp_path, "u/d.csv", "x,y\n1,two\n")
    make(tmp_path, "u/e.csv", "")
    make(tmp_path, "u/f.csv", "x,y\n")
    with pytest.raises(DataError) as error:
        read(tmp_path)
    message = str(error.value)
    for part in (
        "4 of 6 places",
        "c.csv: found columns x, expected x, y as in 2 of 3 files",
        "d.csv: column 'y' holds 'two', expected numbers only",
        "e.csv: found an empty file",
        "f.csv: found a sequence of length 0",
    ):
        assert part in message
    assert len(read(tmp_path, on_bad="skip")) == 2


def test_lists_of_files_and_the_format_by_name(tmp_path: Path) -> None:
    make(tmp_path, "a.csv", "x\n1\n2\n")
    make(tmp_path, "b.csv", "x\n1\n")
    assert read([tmp_path / "a.csv", tmp_path / "b.csv"]).lengths.tolist() == [2, 1]
    assert read(tmp_path / "a.csv", format="frames").lengths.tolist() == [2]
    assert read(tmp_path / "a.csv").lengths.tolist() == [1, 1]
