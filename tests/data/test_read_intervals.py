"""Sounds with labelled intervals, and EDF recordings with annotations."""

import numpy as np
import pytest

from crnn.data.annotation import Event, Events
from crnn.data.read import read
from crnn.data.readers.intervals import write_intervals
from crnn.errors import DataError

soundfile = pytest.importorskip("soundfile")
edfio = pytest.importorskip("edfio")


@pytest.fixture
def sounds(tmp_path):
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(16000), 8000)
    return tmp_path


DOG = Events((Event(4000, 8000, "dog"),))


def test_one_table_for_all_files(sounds):
    (sounds / "labels.tsv").write_text("filename\tonset\toffset\tevent_label\na.wav\t0.5\t1.0\tdog\nb.wav\t\t\t\n")
    data = read(sounds)
    assert data.targets == [DOG, Events(())]
    assert "intervals from" in data.source


def test_a_table_elsewhere(sounds, tmp_path_factory):
    table = tmp_path_factory.mktemp("labels") / "all.csv"
    table.write_text("file,start,end,label\na,0.5,1.0,dog\nb,0,2,rain\n")
    data = read(sounds, labels=table)
    assert data.targets == [DOG, Events((Event(0, 16000, "rain"),))]


def test_a_table_beside_each_file_and_a_label_track(sounds):
    (sounds / "a.tsv").write_text("onset\toffset\tlabel\n0.5\t1.0\tdog\n")
    (sounds / "b.tsv").write_text("0.25\t0.75\train\n1.0\t1.5\tdog\n")  # as Audacity writes it
    data = read(sounds)
    assert data[0].target == DOG
    assert data[1].target == Events((Event(2000, 6000, "rain"), Event(8000, 12000, "dog")))


def test_resampling_moves_the_intervals(sounds):
    (sounds / "labels.tsv").write_text("file\tonset\toffset\tlabel\na\t0.5\t1.0\tdog\nb\t0\t1\tdog\n")
    assert read(sounds, sample_rate=4000)[0].target == Events((Event(2000, 4000, "dog"),))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a\t0.5\t2.5\tdog", r"labels\.tsv row 2: 'dog' from 0\.5 to 2\.5 s, but a\.wav has 2\.000 s"),
        ("a\t1.0\t0.5\tdog", r"labels\.tsv row 2: from 1\.0 to 0\.5, expected seconds, 0 <= onset <= offset"),
        ("c\t0.5\t1.0\tdog", r"labels\.tsv row 2: file 'c' is not there"),
    ],
)
def test_rows_that_cannot_be(sounds, row, message):
    (sounds / "labels.tsv").write_text(f"file\tonset\toffset\tlabel\n{row}\nb\t0\t1\tdog\n")
    with pytest.raises(DataError, match=message):
        read(sounds)


def test_a_table_that_was_written_is_read(sounds):
    write_intervals(sounds / "labels.tsv", ["a.wav", "b.wav"], [DOG, Events(())], 8000.0)
    assert read(sounds).targets == [DOG, Events(())]


def edf(path, *, seconds=10, annotations=(), code="X"):
    """A recording of one signal of 100 Hz and one of 10 Hz."""
    fast = np.sin(np.arange(100 * seconds) / 9)
    edfio.Edf(
        [
            edfio.EdfSignal(fast, 100, label="EEG Fpz-Cz", physical_range=(-2, 2)),
            edfio.EdfSignal(fast[::10], 10, label="Resp", physical_range=(-2, 2)),
        ],
        patient=edfio.Patient(code=code),
        annotations=[edfio.EdfAnnotation(*annotation) for annotation in annotations],
    ).write(path)
    return fast


def test_edf_gives_the_fastest_signals_and_annotations(tmp_path):
    fast = edf(tmp_path / "n1.edf", annotations=[(1.5, None, "spike"), (3, 4, "R")], code="p7")
    data = read(tmp_path, group="patient")
    assert (data.channel_names, data.sample_rate, data[0].group) == (("EEG Fpz-Cz",), 100.0, "p7")
    assert data[0].target == Events((Event(150, 151, "spike"), Event(300, 700, "R")))
    np.testing.assert_allclose(data[0].load()[:, 0], fast, atol=1e-4)
    np.testing.assert_array_equal(data[0].read_part(200, 317), data[0].load()[200:317])


def test_a_slower_signal_of_edf_is_brought_to_the_rate(tmp_path):
    fast = edf(tmp_path / "n1.edf")
    both = read(tmp_path / "n1.edf", channels=["Resp", "EEG Fpz-Cz"])[0].load()
    assert both.shape == (1000, 2)
    assert np.abs(both[100:-100, 0] - fast[100:-100]).max() < 0.1


def test_edf_that_is_damaged(tmp_path):
    edf(tmp_path / "n1.edf")
    whole = (tmp_path / "n1.edf").read_bytes()
    (tmp_path / "n1.edf").write_bytes(whole[:-500])
    with pytest.raises(DataError, match=r"n1\.edf: truncated: its header needs \d+ bytes, found \d+"):
        read(tmp_path)
    (tmp_path / "n1.edf").write_bytes(b"x" * 300)
    with pytest.raises(DataError, match=r"n1\.edf: not an EDF file"):
        read(tmp_path)
