"""Folders of Parquet parts: facts are read, sequences when they are needed."""

import io
import pickle

import numpy as np
import polars as pl
import pytest
import soundfile

import crnn
from crnn.errors import DataError

RNG = np.random.default_rng(0)
SERIES = [RNG.standard_normal(n).astype(np.float32) for n in (4, 7, 5, 3, 9, 6)]


def parts(folder, *frames, names=None):
    folder.mkdir()
    for i, frame in enumerate(frames):
        name = names[i] if names else f"part-{i:05d}.parquet"
        frame.write_parquet(folder / name, row_group_size=2)
    return folder


def halves(columns):
    """The same rows in two frames."""
    frame = pl.DataFrame(columns)
    half = frame.height // 2
    return frame[:half], frame[half:]


def test_lists_over_several_parts(tmp_path):
    columns = {
        "id": list("abcdef"),
        "data": [x.tolist() for x in SERIES],
        "label": ["x", "y"] * 3,
        "who": [1, 1, 2] * 2,
    }
    data = crnn.read(parts(tmp_path / "d", *halves(columns)), group="who", sample_rate=50)
    assert not data.in_memory
    assert [e.id for e in data] == [f"part-0000{i // 3}.parquet:{'abcdef'[i]}" for i in range(6)]
    assert data.targets == ["x", "y"] * 3
    assert [e.group for e in data] == ["1", "1", "2"] * 2
    assert data.lengths.tolist() == [len(x) for x in SERIES]
    for example, x in zip(data, SERIES, strict=True):
        assert np.array_equal(example.load()[:, 0], x)
        assert np.array_equal(pickle.loads(pickle.dumps(example)).load(), example.load())
    assert data[4].where.endswith("part-00001.parquet row 2")


def test_frames_of_several_channels_and_the_split_of_hubs(tmp_path):
    frames = [np.stack([x, -x], 1).tolist() for x in SERIES]
    columns = {"values": frames, "target": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]}
    names = ["train-00000-of-00001.parquet", "test-00000-of-00001.parquet"]
    data = crnn.read(parts(tmp_path / "d", *halves(columns), names=names))
    assert data.features == (2,)
    assert [e.split for e in data] == ["test"] * 3 + ["train"] * 3
    assert data.targets == [3.5, 4.5, 5.5, 0.5, 1.5, 2.5]
    assert np.array_equal(data[0].load(), np.float32(frames[3]))


def wav(samples, rate=8000):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


@pytest.mark.parametrize("struct", [True, False])
def test_audio_as_bytes(tmp_path, struct):
    sounds = [wav(x / 10) for x in SERIES]
    column = [{"bytes": sound, "path": "x.wav"} for sound in sounds] if struct else sounds
    data = crnn.read(parts(tmp_path / "d", *halves({"audio": column, "label": [0, 1] * 3})))
    assert data.kind == "audio"
    assert data.sample_rate == 8000
    assert data.targets == ["0", "1"] * 3
    for example, x in zip(data, SERIES, strict=True):
        assert np.array_equal(example.load()[:, 0], x / 10)


def test_parts_can_be_cached(tmp_path):
    folder = parts(tmp_path / "d", *halves({"data": [x.tolist() for x in SERIES]}))
    for how in ("6 decoded", "all 6 found"):
        data = crnn.read(folder, cache=tmp_path / "cache")
        assert how in data.source
        assert all(np.array_equal(e.load()[:, 0], x) for e, x in zip(data, SERIES, strict=True))


def test_bad_rows_are_named(tmp_path):
    folder = parts(tmp_path / "d", pl.DataFrame({"data": [[1.0, None], [], None, [2.0]]}))
    data = crnn.read(folder, on_bad="skip")
    assert [problem.where.rpartition(" row ")[2] for problem in data.problems] == ["2", "3"]
    assert np.isnan(data[0].load()[1, 0])
    sounds = parts(tmp_path / "s", pl.DataFrame({"audio": [wav(SERIES[0]), b"no audio", None]}))
    with pytest.raises(DataError, match="2 of 3 places cannot be used"):
        crnn.read(sounds)


def test_parts_that_do_not_fit_together_are_named(tmp_path):
    folder = parts(tmp_path / "d", pl.DataFrame({"data": [[1.0]]}), pl.DataFrame({"other": [[1.0]]}))
    with pytest.raises(DataError, match=r"part-00001\.parquet: found columns other, expected 'data' as in"):
        crnn.read(folder)


def test_a_part_that_has_gone_is_named(tmp_path):
    folder = parts(tmp_path / "d", pl.DataFrame({"data": [[1.0, 2.0]]}))
    data = crnn.read(folder)
    (folder / "part-00000.parquet").unlink()
    with pytest.raises(DataError, match=r"part-00000\.parquet row 1: cannot be read"):
        data[0].load()


def test_tables_of_one_sequence_each_are_still_read_as_such(tmp_path):
    frames = [pl.DataFrame({"time": [0, 1], "x": [1.0, 2.0]}) for _ in range(2)]
    assert crnn.read(parts(tmp_path / "d", *frames)).features == (1,)
