"""The archives' text formats: .ts, UCR .tsv and ARFF, alone and as TRAIN/TEST pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from crnn.data.read import read
from crnn.errors import ConfigError, DataError

TS = """# a comment
@problemName Toy
@timeStamps false
@univariate false
@dimensions 2
@equalLength false
@classLabel true up down
@data
1,2,3:4,5,6:up
0.5,?:-1,2e1:down
"""


def make(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_ts_cases_come_back_as_time_by_channels(tmp_path: Path) -> None:
    data = read(make(tmp_path, "Toy.ts", TS))
    assert data.targets == ["up", "down"]
    assert data.lengths.tolist() == [3, 2]
    assert (data.kind, data.channel_names, data.in_memory) == ("series", ("c0", "c1"), True)
    np.testing.assert_array_equal(data[0].load(), np.array([[1, 4], [2, 5], [3, 6]], dtype=np.float32))
    np.testing.assert_array_equal(data[1].load(), np.array([[0.5, -1], [np.nan, 20]], dtype=np.float32))
    assert data[0].id == "Toy.ts:1"
    assert data[1].where.endswith("Toy.ts line 10 (case 2)")


def test_ts_pairs_by_folder_and_by_prefix(tmp_path: Path) -> None:
    make(tmp_path, "Toy_TRAIN.ts", TS)
    make(tmp_path, "Toy_TEST.ts", TS)
    for source in (tmp_path, tmp_path / "Toy"):
        data = read(source)
        assert [e.split for e in data] == ["train", "train", "test", "test"]
        assert data[2].id == "Toy_TEST.ts:1"
    assert [e.split for e in read(tmp_path / "Toy_TRAIN.ts")] == [None, None]


def test_two_data_sets_in_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    for name in ("A_TRAIN.ts", "A_TEST.ts", "B_TRAIN.ts"):
        make(tmp_path, name, TS)
    with pytest.raises(DataError, match=r"found 2 data sets \(A, B\), expected one"):
        read(tmp_path)
    assert len(read(tmp_path / "A")) == 4


def test_ts_regression_keeps_numbers_and_names_missing_targets(tmp_path: Path) -> None:
    text = "@univariate true\n@targetlabel true\n@data\n1,2:0.25\n3,4:?\n5,6:nan\n7:-1\n"
    path = make(tmp_path, "R.ts", text)
    data = read(path, on_bad="skip")
    assert data.targets == [0.25, -1.0]
    assert ["line 5" in p.where or "line 6" in p.where for p in data.problems] == [True, True]
    with pytest.raises(DataError, match=r"2 of 4 places cannot be used"):
        read(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2:up", r"line 11 \(case 3\): found 1 channels, expected 2"),
        ("1,2:1,2:upp", r"case 3\): label 'upp' is not among those that @classLabel declares; did you mean 'up'"),
        ("1,x:1,2:up", r"channel 1 value 2 is 'x', expected a number"),
        ("1,2,3:1,2:up", r"channel 1 has 3 values but channel 2 has 2"),
        (":up", r"found a sequence of length 0|found 1 channels"),
        ("(0,1),(1,2):(0,1),(1,2):up", r"time stamps are not supported"),
    ],
)
def test_bad_ts_cases_say_line_and_reason(tmp_path: Path, line: str, message: str) -> None:
    path = make(tmp_path, "Toy.ts", TS + line + "\n")
    with pytest.raises(DataError, match=message):
        read(path)
    assert len(read(path, on_bad="skip")) == 2


def test_unequal_channels_without_a_declared_number_follow_the_majority(tmp_path: Path) -> None:
    text = "@classLabel true a b\n@data\n1,2:3,4:a\n1,2:3,4:b\n1,2:a\n"
    with pytest.raises(DataError, match=r"line 5 \(case 3\): found 1 channels, expected 2 as in 2 of 3 places"):
        read(make(tmp_path, "X.ts", text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@timeStamps true\n@data\n1:a\n", "line 1: time stamps are not supported"),
        ("@univariate true\n", "found no @data line"),
        ("1,2,3\n", "line 1: found '1,2,3' before @data"),
        ("@dimensions many\n@data\n", "expected a number of dimensions"),
    ],
)
def test_bad_ts_headers(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(make(tmp_path, "X.ts", text))


def test_train_and_test_must_have_the_same_channels(tmp_path: Path) -> None:
    make(tmp_path, "X_TRAIN.ts", "@classLabel true a b\n@data\n1,2:3,4:a\n")
    make(tmp_path, "X_TEST.ts", "@classLabel true a b\n@data\n1,2:a\n")
    with pytest.raises(DataError, match=r"X_TEST.ts: found 1 channels, but .*X_TRAIN.ts has 2"):
        read(tmp_path)


def test_ucr_end_padding_shortens_and_inner_gaps_stay(tmp_path: Path) -> None:
    make(tmp_path, "U_TRAIN.tsv", "1\t0.5\t1.5\tNaN\tNaN\n-1\t1\tNaN\t3\t4\n")
    make(tmp_path, "U_TEST.tsv", "1.0000000e+00\t5\t6\t7\t8\n")
    data = read(tmp_path)
    assert data.targets == ["1", "-1", "1"]
    assert data.lengths.tolist() == [2, 4, 4]
    np.testing.assert_array_equal(data[1].load()[:, 0], np.array([1, np.nan, 3, 4], dtype=np.float32))
    assert [e.split for e in data] == ["train", "train", "test"]


def test_ucr_bad_rows_are_named(tmp_path: Path) -> None:
    path = make(tmp_path, "U.tsv", "1\t1\t2\n1\tNaN\tNaN\n2\tx\t3\n")
    with pytest.raises(DataError) as error:
        read(path)
    assert "line 2 (case 2): found a sequence of length 0" in str(error.value)
    assert "line 3 (case 3): series value 1 is 'x'" in str(error.value)


ARFF = """% made by hand
@relation toy
@attribute 'bag of series' relational
@attribute t0 numeric
@attribute t1 numeric
@attribute t2 numeric
@end 'bag of series'
@attribute activity {Walking,'Stair case'}
@data
'1,2,3\\n4,5,6',Walking
"7,8,?\\n9,10,?",'Stair case'
"""


def test_relational_arff_holds_channels_as_lines(tmp_path: Path) -> None:
    data = read(make(tmp_path, "A.arff", ARFF))
    assert data.targets == ["Walking", "Stair case"]
    np.testing.assert_array_equal(data[0].load(), np.array([[1, 4], [2, 5], [3, 6]], dtype=np.float32))
    np.testing.assert_array_equal(data[1].load(), np.array([[7, 9], [8, 10]], dtype=np.float32))


def test_flat_arff_takes_the_last_nominal_or_the_named_target(tmp_path: Path) -> None:
    text = "@relation r\n@attribute a numeric\n@attribute b real\n@attribute target {0,1}\n@data\n1,?,1\n?,2,0\n"
    data = read(make(tmp_path, "A.arff", text))
    assert data.targets == ["1", "0"]
    assert data.lengths.tolist() == [1, 2]
    numbers = "@relation r\n@attribute a numeric\n@attribute b real\n@attribute s numeric\n@data\n1,3,.5\n"
    assert read(make(tmp_path, "B.arff", numbers), target="s").targets == [0.5]
    with pytest.raises(DataError, match="no attribute 'ss'"):
        read(tmp_path / "B.arff", target="ss")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("'1,2\\n3',Walking", "channels have 1 to 2 values"),
        ("'1\\n2',Walkin", "label 'Walkin' is not among .* did you mean 'Walking'"),
        ("'1\\n2',Walking,3", "found 3 cells, expected 2"),
        ("'1\\n2,Walking", "a quote is not closed"),
        ("{0 1}", "sparse rows"),
        ("'1\\n2\\n3',Walking", "found 3 channels, expected 2 as in 2 of 3 places"),
    ],
)
def test_bad_arff_rows(tmp_path: Path, row: str, message: str) -> None:
    path = make(tmp_path, "A.arff", ARFF + row + "\n")
    with pytest.raises(DataError, match=message):
        read(path)
    assert len(read(path, on_bad="skip")) == 2


def test_arff_with_nominal_inputs_is_refused(tmp_path: Path) -> None:
    text = "@relation r\n@attribute base {A,C}\n@attribute class {x,y}\n@data\nA,x\n"
    with pytest.raises(DataError, match=r"attribute 'base' is nominal \{A, C\}, expected numeric"):
        read(make(tmp_path, "A.arff", text))


def test_options_that_ts_cannot_use_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="group: not used by format 'ts'"):
        read(make(tmp_path, "Toy.ts", TS), group="speaker")


@pytest.mark.parametrize(
    ("name", "train", "test", "channels", "shortest", "longest", "classes"),
    [  # counts from the data's own description
        ("GunPoint", 50, 150, 1, 150, 150, 2),
        ("ItalyPowerDemand", 67, 1029, 1, 24, 24, 2),
        ("OSULeaf", 200, 242, 1, 427, 427, 6),
        ("ArrowHead", 36, 175, 1, 251, 251, 3),
        ("ECG200", 100, 100, 1, 96, 96, 2),
        ("BasicMotions", 40, 40, 6, 100, 100, 4),
        ("JapaneseVowels", 270, 370, 12, 7, 29, 9),
        ("PLAID", 537, 537, 1, 100, 1344, 11),
    ],
)
def test_archive_counts(
    data_folder: Callable[[str], Path],
    name: str,
    train: int,
    test: int,
    channels: int,
    shortest: int,
    longest: int,
    classes: int,
) -> None:
    data = read(data_folder("ucr_uea") / name)
    assert Counter(e.split for e in data) == {"train": train, "test": test}
    assert len(data.channel_names) == channels
    assert (data.lengths.min(), data.lengths.max()) == (shortest, longest)
    assert len(set(data.targets)) == classes
    assert not data.problems


def test_archive_regression(data_folder: Callable[[str], Path]) -> None:
    data = read(data_folder("tser") / "CardanoSentiment")
    assert Counter(e.split for e in data) == {"train": 74, "test": 33}
    assert all(isinstance(e.target, float) for e in data)
    assert data.features == (2,)
