"""Which reader reads what, arrays in memory, and the two ways to treat bad places."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from crnn.data.annotation import Event, Events, StepLabels
from crnn.data.read import MAX_SHOWN, choose_reader, from_arrays, read
from crnn.data.readers import registry
from crnn.data.readers.reader import Reader
from crnn.errors import ConfigError, DataError, MissingExtraError


def test_a_list_of_arrays() -> None:
    data = read([np.arange(3), np.ones((2, 1)), torch.zeros(4)], labels=["a", "b", "a"], group=[1, 2, 1])
    assert data.lengths.tolist() == [3, 2, 4]
    assert data.targets == ["a", "b", "a"]
    assert [e.group for e in data] == ["1", "2", "1"]
    assert data[0].load().dtype == np.float32
    assert data.features == (1,)


def test_padded_arrays_by_lengths_and_by_nan() -> None:
    x = np.arange(12, dtype=np.float64).reshape(2, 3, 2)
    assert from_arrays(x, lengths=[3, 1]).lengths.tolist() == [3, 1]
    x[1, 1:] = np.nan
    x[0, 1, 0] = np.nan
    data = from_arrays(x, np.array([0.5, 1.5]))
    assert data.lengths.tolist() == [3, 1]
    assert data.targets == [0.5, 1.5]
    assert np.isnan(data[0].load()[1, 0])


def test_arrays_with_labels_of_frames_and_events() -> None:
    labels = [StepLabels(np.zeros(5, np.int16), ("rest",)), Events((Event(1, 3, "beat"),))]
    data = from_arrays([np.zeros((5, 2)), np.zeros((4, 2))], labels)
    assert data.targets == labels


def test_audio_arrays_have_one_channel() -> None:
    data = from_arrays([np.zeros(5)], kind="audio", sample_rate=8000)
    assert (data.kind, data.channel_names, data.sample_rate) == ("audio", ("audio",), 8000)
    with pytest.raises(DataError, match="found 2 channels, expected 1 as audio"):
        from_arrays([np.zeros((5, 2))], kind="audio")


def test_bad_sequences_of_a_list_are_all_named() -> None:
    x = [np.zeros((3, 2)), np.zeros((0, 2)), np.zeros((3, 1)), np.array(["a"]), np.zeros((2, 2)), [[1, 2], [3]]]
    with pytest.raises(DataError) as error:
        from_arrays(x, source="X")
    message = str(error.value)
    assert "X: 4 of 6 places cannot be used" in message
    assert "X sequence 1: found a sequence of length 0" in message
    assert "X sequence 2: found 1 channels, expected 2 as in 2 of 3 places" in message
    assert "X sequence 3: found <U1 of shape (1,)" in message
    assert "X sequence 5: found a ragged list" in message
    assert [e.id for e in from_arrays(x, on_bad="skip")] == ["0", "4"]


def test_missing_targets_and_groups_are_problems() -> None:
    data = from_arrays(np.zeros((3, 4)), [1.5, float("nan"), 2.5], on_bad="skip")
    assert data.targets == [1.5, 2.5]
    assert "no target, while other places have one" in data.problems[0].what


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        ([("a",), (), ("a", "b")], [("a",), (), ("a", "b")]),
        ([{"b", "a"}, set(), {"b"}], [("a", "b"), (), ("b",)]),
        ([[1, 0], [0, 1], [1, 0]], ["0", "1", "0"]),
        (np.array([[1, 1], [0, 0], [1, 0]]), [("0", "1"), (), ("0",)]),
        (np.array([[0.5], [1.5], [2.0]]), [0.5, 1.5, 2.0]),
    ],
)
def test_targets_of_every_form(y: object, expected: list[object]) -> None:
    assert from_arrays(np.zeros((3, 2)), y).targets == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("x", [np.zeros((0, 5)), np.zeros((2, 0, 3)), np.zeros(5), np.array([["a"]]), 5])
def test_arrays_of_nothing_or_of_something_else(x: object) -> None:
    with pytest.raises(DataError, match=r"found no sequences|length 0|expected"):
        from_arrays(x)


@pytest.mark.parametrize("source", [None, "", {"a": 1}])
def test_sources_of_no_kind(source: object) -> None:
    with pytest.raises(ConfigError, match="expected a path, a table or arrays"):
        read(source)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"y": [1]}, "2 sequences but 1 targets"),
        ({"lengths": [1, 9]}, r"do not fit shape \(2, 4\)"),
        ({"splits": ["train", "tset"]}, "split 'tset', expected"),
        ({"ids": ["a", "a"]}, "1 ids stand more than once, first 'a'"),
        ({"channel_names": ["x", "y"]}, "2 channel names for 1 channels"),
    ],
)
def test_arrays_that_do_not_fit(options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_arrays(np.zeros((2, 4)), **options)  # type: ignore[arg-type]


def test_long_lists_of_problems_are_counted() -> None:
    with pytest.raises(DataError, match=r"\.\.\. and 10 more") as error:
        from_arrays([np.zeros(0)] * (MAX_SHOWN + 10) + [np.zeros(3)])
    assert str(error.value).count("\n") == MAX_SHOWN + 1


def test_nothing_left_is_an_error_even_when_skipping() -> None:
    with pytest.raises(DataError, match="none of 2 can be used"):
        from_arrays([np.zeros(0), np.zeros(0)], on_bad="skip")
    with pytest.raises(DataError, match="found no sequences"):
        from_arrays([])


def test_places_with_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the folder is empty; looked for .*audio \(.wav .flac .ogg"):
        read(tmp_path)
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "recordings.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"found only .md, .zip; unpack the archive first; looked for"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"recordings.zip: is an archive; unpack it"):
        read(tmp_path / "recordings.zip")
    with pytest.raises(DataError, match=r"notes.md: unknown format '.md'; expected .*audio"):
        read(tmp_path / "notes.md")
    with pytest.raises(DataError, match=r"recording.zip: no such file or folder; did you mean 'recordings.zip'"):
        read(tmp_path / "recording.zip")


def test_a_folder_of_data_sets_names_them(tmp_path: Path) -> None:
    for name in ("A", "B"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "d.ts").write_text("@data\n1,2\n")
    with pytest.raises(DataError, match=r"holds 2 data sets \(A, B\); give one"):
        read(tmp_path)


def test_formats_by_name(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("label,t0,t1\nu,1,2\nv,1,2\n")
    assert len(read(path, format="table")) == 2
    with pytest.raises(DataError, match="format 'tabel': unknown format; did you mean 'table'"):
        read(path, format="tabel")
    with pytest.raises(DataError, match="nothing there that format 'ts' reads"):
        read(path, format="ts")


def test_a_headless_tsv_is_ucr_and_one_with_names_is_a_table(tmp_path: Path) -> None:
    ucr, table = tmp_path / "a.tsv", tmp_path / "b.tsv"
    ucr.write_text("1\t2\t3\n")
    table.write_text("label\tt0\tt1\nu\t2\t3\n")
    assert choose_reader(ucr).name == "ucr"
    assert choose_reader(table).name == "table"


def test_readers_of_other_packages_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = from_arrays(np.zeros((1, 4)))
    mine = Reader("mine", (".csv",), lambda path: path.suffix == ".csv", lambda source, options: data, frozenset())

    class Point:
        def load(self) -> Reader:
            return mine

    monkeypatch.setattr(registry, "plugins", lambda group: {"mine": Point().load()} if group == "readers" else {})
    registry.all_readers.cache_clear()
    try:
        (tmp_path / "d.csv").write_text("label,t0\nu,1\n")
        assert read(tmp_path / "d.csv") is data
    finally:
        registry.all_readers.cache_clear()


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingExtraError, match=r"soundfile, which is not installed; pip install crnn\[audio\]"):
        read(tmp_path)


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="on_bad: found 'ignore'"):
        read([np.zeros(3)], on_bad="ignore")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="target: names a column"):
        read([np.zeros(3)], target="y")
    with pytest.raises(ConfigError, match="expected one value a sequence"):
        read([np.zeros(3)], group="speaker")
