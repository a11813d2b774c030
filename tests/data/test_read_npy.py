"""NumPy files: stacked and memory-mapped, one a sequence, and .npz archives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from crnn.data.read import read, verify
from crnn.errors import DataError


def save(path: Path, data: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, data)
    return path


def test_a_stack_is_memory_mapped_and_nan_ends_shorten(tmp_path: Path) -> None:
    x = np.arange(24, dtype=np.float64).reshape(3, 4, 2)
    x[1, 2:] = np.nan
    x[2, 1, 0] = np.nan
    labels = tmp_path / "labels.csv"
    labels.write_text("label,subject\nu,s1\nv,s2\nu,s1\n")
    data = read(save(tmp_path / "x.npy", x), labels=labels, group="subject")
    assert data.lengths.tolist() == [4, 2, 4]
    assert data.targets == ["u", "v", "u"]
    assert [e.group for e in data] == ["s1", "s2", "s1"]
    assert not data.in_memory
    np.testing.assert_array_equal(data[2].load(), x[2].astype(np.float32))
    np.testing.assert_array_equal(data[1].load(), x[1, :2].astype(np.float32))


def test_a_stack_without_channels_and_with_integer_data(tmp_path: Path) -> None:
    x = np.arange(8, dtype=np.int16).reshape(2, 4)
    labels = save(tmp_path / "y.npy", np.array([0.5, 0.25]))
    data = read(save(tmp_path / "x.npy", x), labels=labels)
    assert data.features == (1,)
    assert data.targets == [0.5, 0.25]
    assert data[1].load().tolist() == [[4.0], [5.0], [6.0], [7.0]]


def test_stacks_that_do_not_fit_say_why(tmp_path: Path) -> None:
    x = save(tmp_path / "x.npy", np.zeros((2, 4), dtype=np.float32))
    (tmp_path / "y.csv").write_text("label\na\n")
    with pytest.raises(DataError, match=r"y.csv: found 1 rows, but .*x.npy has 2 sequences"):
        read(x, labels=tmp_path / "y.csv")
    with pytest.raises(DataError, match=r"has shape \(3,\), expected \(n, time\)"):
        read(save(tmp_path / "one.npy", np.zeros(3)))
    with pytest.raises(DataError, match="need labels="):
        read(x, group="subject")


def test_a_folder_with_an_index(tmp_path: Path) -> None:
    first = np.arange(6, dtype=np.float32).reshape(3, 2)
    save(tmp_path / "series/0.npy", first)
    save(tmp_path / "series/1.npy", np.zeros((5, 2), dtype=np.float32))
    (tmp_path / "index.csv").write_text("file,label,subject\nseries/0.npy,u,1\nseries/1.npy,v,2\n")
    for options in ({}, {"labels": "index.csv", "target": "label"}):
        data = read(tmp_path, group="subject", **options)
        assert [(e.id, e.target, e.group, e.length) for e in data] == [
            ("series/0.npy", "u", "1", 3),
            ("series/1.npy", "v", "2", 5),
        ]
        np.testing.assert_array_equal(data[0].load(), first)
        assert not data.in_memory


def test_damaged_and_odd_files_of_a_folder_are_listed(tmp_path: Path) -> None:
    for name in ("good", "fine"):
        save(tmp_path / f"u/{name}.npy", np.zeros((5, 2), dtype=np.float32))
    save(tmp_path / "u/wide.npy", np.zeros((5, 3), dtype=np.float32))
    save(tmp_path / "u/deep.npy", np.zeros((5, 2, 2), dtype=np.float32))
    save(tmp_path / "u/none.npy", np.zeros((0, 2), dtype=np.float32))
    save(tmp_path / "u/objects.npy", np.array([{}, None], dtype=object))
    save(tmp_path / "u/words.npy", np.array(["a", "b"]))
    cut = save(tmp_path / "u/cut.npy", np.zeros((50, 2), dtype=np.float32))
    cut.write_bytes(cut.read_bytes()[:200])
    (tmp_path / "u/empty.npy").touch()
    (tmp_path / "u/text.npy").write_text("no array at all")
    with pytest.raises(DataError) as error:
        read(tmp_path)
    message = str(error.value)
    for part in (
        "8 of 10 places",
        "wide.npy: found 3 channels, expected 2",
        "deep.npy: has shape (5, 2, 2)",
        "none.npy: has shape (0, 2)",
        "objects.npy: holds Python objects, which are not read",
        "words.npy: holds <U1",
        "cut.npy: truncated: shape (50, 2) needs 528 bytes, found 200",
        "empty.npy: found an empty file",
        "text.npy: not a .npy file",
    ):
        assert part in message
    assert [e.id for e in read(tmp_path, on_bad="skip")] == ["u/fine.npy", "u/good.npy"]


def test_a_file_that_changes_after_reading_is_found(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npy", np.zeros((5, 2), dtype=np.float32))
    (example,) = read([path])
    save(path, np.zeros((4, 2), dtype=np.float32))
    problem = verify(example)
    assert problem is not None
    assert "its shape has changed" in problem.what


def test_npz_with_splits(tmp_path: Path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.savez(tmp_path / "d.npz", x=x, y=np.array([0, 1, 0, 1])[:3], x_test=x[:1], y_test=np.array([1]))
    np.savez(tmp_path / "e.npz", X_train=x, y_train=["a", "b", "a"], X_test=x[:1], y_test=["b"])
    data = read(tmp_path / "e.npz")
    assert [(e.split, e.target) for e in data] == [("train", "a"), ("train", "b"), ("train", "a"), ("test", "b")]
    assert [e.split for e in read(tmp_path / "d.npz")] == ["train", "train", "train", "test"]
    with pytest.raises(DataError, match=r"expected one .npz file at its top, found d.npz, e.npz"):
        read(tmp_path)


def test_npz_lengths_of_padded_and_of_joined_frames(tmp_path: Path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    np.savez(tmp_path / "padded.npz", x=x, y=["a", "b"], lengths=[3, 1], subject=[7, 8])
    data = read(tmp_path / "padded.npz")
    assert data.lengths.tolist() == [3, 1]
    assert [e.group for e in data] == ["7", "8"]
    np.savez(tmp_path / "joined.npz", pose=x.reshape(6, 2, 1), label=["a", "b"], length=[4, 2])
    data = read(tmp_path / "joined.npz")
    assert data.lengths.tolist() == [4, 2]
    np.testing.assert_array_equal(data[1].load(), x.reshape(6, 2)[4:])


def test_npz_targets_as_columns(tmp_path: Path) -> None:
    x = np.zeros((3, 4), dtype=np.float32)
    np.savez(tmp_path / "one.npz", x=x, y=np.eye(3, dtype=int))
    assert read(tmp_path / "one.npz").targets == ["0", "1", "2"]
    np.savez(tmp_path / "many.npz", x=x, y=np.array([[1, 1], [0, 1], [0, 0]]))
    assert read(tmp_path / "many.npz").targets == [("0", "1"), ("1",), ()]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"weights": np.zeros(3)}, r"found weights \(3,\); expected x and y"),
        ({"x": np.zeros((3, 4)), "y": np.zeros(2)}, "3 sequences but 2 targets"),
        ({"x": np.zeros((3, 4)), "lengths": np.array([5, 1, 1])}, "do not fit shape"),
        ({"x": np.array([[1], None], dtype=object)}, "it holds Python objects"),
        ({"x_train": np.zeros((2, 4, 2)), "x_test": np.zeros((2, 4, 3))}, "found 3 channels, expected 2"),
    ],
)
def test_npz_that_does_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "d.npz")


def test_truncated_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((30, 40)))
    path = tmp_path / "d.npz"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        read(path)


def test_mnist1d(data_folder: Callable[[str], Path]) -> None:
    data = read(data_folder("mnist1d") / "mnist1d.npz")
    assert Counter(e.split for e in data) == {"train": 4000, "test": 1000}
    assert set(data.targets) == {str(digit) for digit in range(10)}
    assert set(data.lengths.tolist()) == {40}


def test_smartwatch(data_folder: Callable[[str], Path]) -> None:
    data = read(data_folder("har_watch_spar"), labels="index.csv", target="label", group="subject")
    assert set(Counter(data.targets).values()) == {20}
    assert len({e.group for e in data}) == 10
    assert (data.lengths.min(), data.lengths.max(), data.features) == (947, 2618, (6,))


def test_skeletons(data_folder: Callable[[str], Path]) -> None:
    data = read(data_folder("skeleton_jhmdb") / "split1.npz")
    assert Counter(e.split for e in data) == {"train": 433, "test": 176}
    assert (data.lengths.min(), data.lengths.max(), data.features) == (15, 40, (30,))
