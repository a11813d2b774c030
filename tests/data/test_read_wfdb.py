"""WFDB records: what is read from them, and what each kind of damage says."""

import os
from pathlib import Path

import numpy as np
import pytest

from crnn.data.annotation import Event, Events
from crnn.data.read import read, verify
from crnn.data.readers.wfdb import write_annotations, write_record
from crnn.data.synthetic import heartbeats
from crnn.errors import DataError

wfdb = pytest.importorskip("wfdb")
MITDB = Path(os.environ.get("CRNN_DATA", "nowhere")) / "ecg_mitdb"
CINC = Path(os.environ.get("CRNN_DATA", "nowhere")) / "ecg_12lead_cinc2021"


def record(folder, name, *, seconds=10, rate=360.0, leads=("MLII",), format="212", seed=0, annotated=True, comments=()):
    """A synthetic record; returns its signal (frames, leads) and beats."""
    made = heartbeats(seconds, rate=rate, seed=seed)
    signal = np.concatenate([made.signal * (1 - 0.5 * i) for i in range(len(leads))], axis=1).astype(float)
    folder.mkdir(parents=True, exist_ok=True)
    write_record(folder / name, signal, leads=leads, rate=rate, format=format, gain=200.0, comments=comments)
    if annotated:
        write_annotations(folder / f"{name}.atr", made.beats, rate)
    return signal, made.beats


@pytest.mark.parametrize("format", ["212", "16"])
def test_a_record_gives_its_lead_and_its_beats(tmp_path, format):
    signal, beats = record(tmp_path, "r1", format=format)
    data = read(tmp_path / "r1.hea")
    assert (data.channel_names, data.sample_rate, len(data)) == (("MLII",), 360.0, 1)
    assert data[0].target == beats
    np.testing.assert_allclose(data[0].load(), signal, atol=1 / 200)
    assert data[0].load().dtype == np.float32


def test_leads_are_chosen_by_name_not_by_place(tmp_path):
    first, _ = record(tmp_path, "r1", leads=("MLII", "V5"))
    second, _ = record(tmp_path, "r2", leads=("V5", "MLII"), seed=1)
    data = read(tmp_path, channels=["MLII"])
    np.testing.assert_allclose(data[0].load(), first[:, :1], atol=0.01)
    np.testing.assert_allclose(data[1].load(), second[:, 1:], atol=0.01)


def test_without_names_the_leads_that_all_have_are_used_and_the_others_are_named(tmp_path):
    record(tmp_path, "r1", leads=("MLII", "V5"))
    record(tmp_path, "r2", leads=("MLII", "V1"), seed=1)
    data = read(tmp_path)
    assert data.channel_names == ("MLII",)
    (warning,) = data.problems
    assert "V5 (1), V1 (1) stand in some of 2 recordings" in str(warning)


def test_a_lead_that_may_be_missing_is_nan(tmp_path):
    record(tmp_path, "r1", leads=("MLII", "V5"))
    record(tmp_path, "r2", leads=("MLII",), seed=1)
    data = read(tmp_path, channels=["MLII", "V5?"])
    assert data.channel_names == ("MLII", "V5?")
    assert np.isfinite(data[0].load()).all()
    assert np.isnan(data[1].load()[:, 1]).all()
    assert np.isfinite(data[1].load()[:, 0]).all()


def test_a_lead_that_must_be_there_is_named(tmp_path):
    record(tmp_path, "r1", leads=("MLII", "V5"))
    record(tmp_path, "r2", leads=("MLII",), seed=1)
    with pytest.raises(DataError, match=r"r2\.hea: has no lead 'V5'.*'V5\?'"):
        read(tmp_path, channels=["MLII", "V5"])


def test_each_record_is_a_group_where_asked(tmp_path):
    for i in range(2):
        record(tmp_path / "part", f"r{i}", seed=i)
    assert [example.group for example in read(tmp_path, group="record")] == ["r0", "r1"]
    assert [example.group for example in read(tmp_path)] == [None, None]


def test_a_field_of_the_header_groups_and_labels(tmp_path):
    record(tmp_path, "r1", comments=["Patient: p7", "Dx: 10370003,164889003"], annotated=False)
    record(tmp_path, "r2", comments=["Patient: p8", "Dx: 426783006"], annotated=False)
    data = read(tmp_path, group="Patient")
    assert [example.group for example in data] == ["p7", "p8"]
    assert data.targets == [("10370003", "164889003"), ("426783006",)]
    assert read(tmp_path, target="Patient").targets == ["p7", "p8"]
    with pytest.raises(DataError, match=r"no field 'Age' \(has: Patient, Dx\)"):
        read(tmp_path, group="Age")


def test_resampling_moves_the_beats_with_the_signal(tmp_path):
    record(tmp_path, "r1")
    whole, half = read(tmp_path)[0], read(tmp_path, sample_rate=180)[0]
    assert half.length == whole.length // 2
    for before, after in zip(whole.target.items, half.target.items, strict=True):
        assert abs(before.start / 2 - after.start) <= 0.5
        assert after.end == after.start + 1
        if before.label == "N":  # the R peak is where the annotation says
            near = half.load()[after.start - 10 : after.start + 11, 0]
            assert abs(int(near.argmax()) - 10) <= 1


def test_a_rate_that_differs_from_the_others_is_named_and_resampled_where_asked(tmp_path):
    for i in range(2):
        record(tmp_path, f"r{i}", seed=i)
    record(tmp_path, "odd", rate=250.0)
    with pytest.raises(DataError, match=r"odd\.hea: 250 Hz, while 2 of 3 recordings have 360 Hz; give sample_rate=360"):
        read(tmp_path)
    data = read(tmp_path, sample_rate=360)
    assert [example.length for example in data] == [3600, 3600, 3600]


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # the package and newer versions of pandas
def test_rhythms_are_intervals(tmp_path):
    record(tmp_path, "r1")
    wfdb.wrann(
        "r1", "atr", np.array([5, 100, 2000]), ["+", "N", "+"], aux_note=["(N", "", "(AFIB"], write_dir=str(tmp_path)
    )
    assert read(tmp_path, target="rhythm")[0].target == Events((Event(5, 2000, "N"), Event(2000, 3600, "AFIB")))


def test_a_missing_signal_file(tmp_path):
    record(tmp_path, "r1")
    (tmp_path / "r1.dat").unlink()
    with pytest.raises(DataError, match=r"r1\.hea: its signal file r1\.dat is missing; get it, or remove the header"):
        read(tmp_path)


@pytest.mark.parametrize("format", ["212", "16"])
def test_a_truncated_signal_file(tmp_path, format):
    record(tmp_path, "r1", format=format)
    whole = (tmp_path / "r1.dat").read_bytes()
    (tmp_path / "r1.dat").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"r1\.dat is truncated: the header needs \d+ bytes, found \d+"):
        read(tmp_path)


def test_a_truncated_flac_file(tmp_path):
    record(tmp_path, "r1", format="516")
    whole = (tmp_path / "r1.dat").read_bytes()
    assert verify(read(tmp_path)[0]) is None
    (tmp_path / "r1.dat").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"r1\.dat is truncated: the header needs 3600 samples, found 0"):
        read(tmp_path)


def test_a_record_without_annotations_among_annotated_ones(tmp_path):
    record(tmp_path, "r1")
    record(tmp_path, "r2", seed=1, annotated=False)
    with pytest.raises(DataError, match=r"r2\.hea: no target, while other places have one"):
        read(tmp_path)
    assert len(read(tmp_path, targets=False)) == 2


def test_annotations_past_the_end(tmp_path):
    record(tmp_path, "r1")
    write_annotations(tmp_path / "r1.atr", Events((Event(5, 6, "N"), Event(4000, 4001, "V"))), 360.0)
    with pytest.raises(DataError, match=r"1 of 2 annotations past the end \(first: 'V' at sample 4000 of 3600\)"):
        read(tmp_path)


def test_a_header_that_is_none(tmp_path):
    (tmp_path / "r1.hea").write_text("hello\n")
    with pytest.raises(DataError, match=r"r1\.hea: "):
        read(tmp_path)


def test_annotations_are_written_as_they_are_read(tmp_path):
    _, beats = record(tmp_path, "r1", seconds=60)
    write_annotations(tmp_path / "r1.crnn", beats, 360.0)
    assert read(tmp_path, target="crnn")[0].target == beats


def test_labels_that_are_no_codes_are_written_as_comments(tmp_path):
    record(tmp_path, "r1")
    write_annotations(tmp_path / "r1.crnn", Events((Event(5, 6, "wake"),)), 360.0)
    assert read(tmp_path, target="crnn")[0].target == Events((Event(5, 6, "wake"),))
    with pytest.raises(DataError, match="found no events"):
        write_annotations(tmp_path / "r1.crnn", Events(()), 360.0)


def test_a_part_equals_a_slice_of_the_whole(tmp_path):
    record(tmp_path, "r1", format="516", seconds=30)
    example = read(tmp_path)[0]
    np.testing.assert_array_equal(example.load()[1000:1234], example.read_part(1000, 1234))


@pytest.mark.skipif(not MITDB.exists(), reason="needs the archive data")
def test_the_flac_records_of_mit_bih_equal_the_original_ones():
    flac, original = read(MITDB / "flac" / "208.hea"), read(MITDB / "fmt212" / "208.hea")
    np.testing.assert_array_equal(flac[0].load(), original[0].load())
    assert flac[0].target == original[0].target
    assert len(flac[0].target.items) == 2955  # as the database's own table of its records counts them


@pytest.mark.skipif(not CINC.exists(), reason="needs the archive data")
def test_cinc_records_with_matlab_signals():
    data = read(CINC)
    assert (len(data), len(data.channel_names), data.sample_rate) == (16, 12, 500.0)
    assert data[0].target == ("67741000119109", "426177001")
    assert data[0].load().shape == (5000, 12)
    np.testing.assert_allclose(data[0].load()[0, :3], [-0.068, -0.058, 0.009], atol=1e-6)
