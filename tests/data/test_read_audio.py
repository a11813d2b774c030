"""Audio folders: where targets, groups, splits and rates come from, and every kind of damaged file."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from crnn.data.read import read, verify
from crnn.data.readers.audio import resampled_length
from crnn.data.readers.files import FilePattern
from crnn.errors import ConfigError, DataError

soundfile = pytest.importorskip("soundfile", reason="the extra 'audio' is not installed")


def write(path: Path, frames: int = 400, rate: int = 8000, channels: int = 1, seed: int = 0) -> NDArray[np.float32]:
    """Noise of 16 bits, so that lossless formats give it back exactly."""
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = np.random.default_rng(seed).integers(-9000, 9000, size=(frames, channels))
    samples = (steps / 32768).astype(np.float32)
    soundfile.write(path, samples, rate)
    return samples


def cut(path: Path, share: float) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])


def test_sub_folders_are_classes_and_samples_come_back(tmp_path: Path) -> None:
    first = write(tmp_path / "no/a.wav", frames=300)
    write(tmp_path / "yes/deeper/b.flac", frames=500, seed=1)
    data = read(tmp_path)
    assert [(e.id, e.target, e.length) for e in data] == [("no/a.wav", "no", 300), ("yes/deeper/b.flac", "yes", 500)]
    assert (data.kind, data.channel_names, data.sample_rate, data.in_memory) == ("audio", ("audio",), 8000.0, False)
    np.testing.assert_array_equal(data[0].load(), first)
    assert data[1].load().shape == (500, 1)
    assert data[1].load().dtype == np.float32


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_every_format_gives_the_length_that_it_announces(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"a.{suffix}", frames=12345)
    (example,) = read(tmp_path / f"a.{suffix}")
    assert example.length == 12345
    assert verify(example) is None


def test_stereo_is_averaged(tmp_path: Path) -> None:
    both = write(tmp_path / "x/a.wav", channels=2)
    np.testing.assert_allclose(read(tmp_path)[0].load()[:, 0], (both[:, 0] + both[:, 1]) / 2, atol=1e-7)


@pytest.mark.parametrize(
    ("frames", "rate_in", "rate_out", "length"),
    [
        (7, 44100, 16000, 3),
        (1001, 16000, 8000, 501),
        (1000, 8000, 16000, 2000),
        (3, 8000, 8000, 3),
        (1, 44100, 8000, 0),
    ],
)
def test_resampled_length_rounds_half_up(frames: int, rate_in: int, rate_out: int, length: int) -> None:
    assert resampled_length(frames, rate_in, rate_out) == length


def test_mixed_rates_are_resampled_to_the_usual_one_and_said(tmp_path: Path) -> None:
    write(tmp_path / "x/a.wav", frames=801)
    write(tmp_path / "x/b.wav", frames=802)
    write(tmp_path / "x/c.wav", frames=1003, rate=16000)
    data = read(tmp_path)
    assert data.sample_rate == 8000
    assert data.lengths.tolist() == [801, 802, 502]
    assert [len(e.load()) for e in data] == [801, 802, 502]
    (problem,) = data.problems
    assert problem.level == "warning"
    assert "2 files at 8000 Hz, 1 files at 16000 Hz" in str(problem)
    assert read(tmp_path, sample_rate=16000).lengths.tolist() == [1602, 1604, 1003]


def test_a_resampled_tone_keeps_its_pitch(tmp_path: Path) -> None:
    t = np.arange(16000) / 16000
    soundfile.write(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 440 * t), 16000)
    wave = read(tmp_path / "tone.wav", sample_rate=8000)[0].load()[:, 0]
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    np.testing.assert_allclose(wave[200:-200], expected[200:-200], atol=1e-3)


def test_split_folders_give_the_split(tmp_path: Path) -> None:
    for name in ("train/no/a.wav", "train/yes/b.wav", "Test/no/c.wav", "val/yes/d.wav"):
        write(tmp_path / name)
    data = read(tmp_path)
    assert [(e.id, e.split, e.target) for e in data] == [
        ("Test/no/c.wav", "test", "no"),
        ("train/no/a.wav", "train", "no"),
        ("train/yes/b.wav", "train", "yes"),
        ("val/yes/d.wav", "validation", "yes"),
    ]


def test_a_class_named_train_is_no_split(tmp_path: Path) -> None:
    for name in ("train/a.wav", "bus/b.wav"):
        write(tmp_path / name)
    assert [(e.target, e.split) for e in read(tmp_path)] == [("bus", None), ("train", None)]


def test_pattern_gives_label_and_group(tmp_path: Path) -> None:
    for name in ("3_george_0.wav", "4_anna_12.wav"):
        write(tmp_path / name)
    data = read(tmp_path, pattern="{label}_{speaker}_{take}.wav", group="speaker")
    assert [(e.target, e.group) for e in data] == [("3", "george"), ("4", "anna")]


def test_pattern_without_label_leaves_the_folder_as_target(tmp_path: Path) -> None:
    write(tmp_path / "rain/1-100-A.wav")
    (example,) = read(tmp_path, pattern="{fold}-{clip}-{take}", group="fold")
    assert (example.target, example.group) == ("rain", "1")


def test_unmatched_and_ambiguous_names_are_problems(tmp_path: Path) -> None:
    for name in ("a_b.wav", "odd.wav", "a_b_c.wav"):
        write(tmp_path / name)
    data = read(tmp_path, pattern="{label}_{take}", on_bad="skip")
    assert [e.id for e in data] == ["a_b.wav"]
    messages = [str(problem) for problem in data.problems]
    assert any("odd.wav: name does not match the pattern '{label}_{take}'" in text for text in messages)
    assert any("a_b_c.wav: name fits the pattern '{label}_{take}' in two ways" in text for text in messages)


def test_pattern_is_literal_outside_fields_and_knows_digits() -> None:
    assert FilePattern("{label}[x]+{take:d}").parse("a[x]+12.wav") == {"label": "a", "take": "12"}
    assert FilePattern("{label}_{take:d}").parse("baby_cry_01.wav") == {"label": "baby_cry", "take": "01"}
    assert FilePattern("{speaker}/{label}").parse("deep/anna/go.wav") == {"speaker": "anna", "label": "go"}
    for wrong in ("plain", "{a}_{a}", "{}_x", "{a:s}"):
        with pytest.raises(DataError, match="expected"):
            FilePattern(wrong)


def test_labels_table_gives_target_group_and_split(tmp_path: Path) -> None:
    for name in ("wavs/a.wav", "wavs/b.wav", "c.wav"):
        write(tmp_path / name)
    (tmp_path / "list.csv").write_text(
        "filename,kind,speaker,split\nwavs/a.wav,yes,s1,train\nb,no,s2,test\n./c.wav,no,s2,test\n"
    )
    data = read(tmp_path, labels="list.csv", target="kind", group="speaker")
    found = {e.id: (e.target, e.group, e.split) for e in data}
    assert found == {
        "wavs/a.wav": ("yes", "s1", "train"),
        "wavs/b.wav": ("no", "s2", "test"),
        "c.wav": ("no", "s2", "test"),
    }


def test_labels_table_and_files_must_fit_each_other(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav", "d.wav"):
        write(tmp_path / name)
    (tmp_path / "labels.csv").write_text("file,label\na.wav,x\ngone.wav,x\nb.wav,\na.wav,y\n")
    with pytest.raises(DataError) as error:
        read(tmp_path, labels=tmp_path / "labels.csv")
    message = str(error.value)
    assert "4 of 5 places cannot be used" in message
    assert "labels.csv row 3: file 'gone.wav' is not there" in message
    assert "labels.csv row 5: file 'a.wav' already stands in" in message
    assert "d.wav: stands in no row of" in message
    assert "b.wav: no target" in message
    data = read(tmp_path, labels=tmp_path / "labels.csv", on_bad="skip")
    assert [e.id for e in data] == ["a.wav"]
    assert len(data.problems) == 4


def test_several_labels_by_separator_and_by_columns(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        write(tmp_path / name)
    (tmp_path / "one.csv").write_text("file,tags\na.wav,dog|rain\nb.wav,dog\n")
    assert read(tmp_path, labels="one.csv", target="tags").targets == [("dog", "rain"), ("dog",)]
    (tmp_path / "many.csv").write_text("file,dog,rain\na.wav,1,1\nb.wav,0,0\n")
    assert read(tmp_path, labels="many.csv", target="dog,rain").targets == [("dog", "rain"), ()]


def test_unknown_columns_name_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    (tmp_path / "list.csv").write_text("file,label,speaker\na.wav,x,s\n")
    with pytest.raises(DataError, match="target 'lable' is not a column; did you mean 'label'"):
        read(tmp_path, labels="list.csv", target="lable")
    with pytest.raises(DataError, match="group 'speakr' is not a column; did you mean 'speaker'"):
        read(tmp_path, labels="list.csv", group="speakr")
    with pytest.raises(DataError, match="group 'speaker': nothing names it"):
        read(tmp_path / "a.wav", group="speaker")


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "aiff"])
@pytest.mark.parametrize("share", [0.5, 0.97])
def test_truncated_files_are_found_from_the_header(tmp_path: Path, suffix: str, share: float) -> None:
    write(tmp_path / "x/good.wav")
    path = tmp_path / f"x/bad.{suffix}"
    write(path, frames=90000)
    cut(path, share)
    with pytest.raises(DataError, match=rf"bad\.{suffix}: truncated") as error:
        read(tmp_path)
    assert "\n" not in str(error.value)
    assert [e.id for e in read(tmp_path, on_bad="skip")] == ["x/good.wav"]


def test_a_truncated_ogg_is_warned_of(tmp_path: Path) -> None:
    write(tmp_path / "x/a.ogg", frames=30000)
    cut(tmp_path / "x/a.ogg", 0.6)
    data = read(tmp_path)
    assert "no end-of-stream mark" in str(data.problems[0])
    assert verify(data[0]) is None


def test_empty_unreadable_and_zero_length_files_are_all_listed(tmp_path: Path) -> None:
    write(tmp_path / "x/good.wav")
    (tmp_path / "x/empty.wav").touch()
    (tmp_path / "x/noise.flac").write_bytes(b"this is no audio at all")
    write(tmp_path / "x/zero.wav", frames=0)
    with pytest.raises(DataError) as error:
        read(tmp_path)
    message = str(error.value)
    assert "3 of 4 places" in message
    assert "empty.wav: found an empty file" in message
    assert "noise.flac: unreadable" in message
    assert "zero.wav: found audio of 0 frames" in message


def test_verify_finds_damage_that_headers_do_not_show(tmp_path: Path) -> None:
    write(tmp_path / "x/a.flac", frames=30000)
    (example,) = read(tmp_path)
    raw = bytearray((tmp_path / "x/a.flac").read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 3000] = bytes(3000)
    (tmp_path / "x/a.flac").write_bytes(raw)
    problem = verify(example)
    if problem is not None:  # libFLAC may conceal the gap with silence, in the announced length
        assert "a.flac" in problem.where
    cut(tmp_path / "x/a.flac", 0.4)
    problem = verify(example)
    assert problem is not None
    assert "truncated" in problem.what


def test_hidden_files_are_left_out_and_unreadable_kinds_named_once(tmp_path: Path) -> None:
    write(tmp_path / "x/a.wav")
    write(tmp_path / "x/.hidden.wav")
    write(tmp_path / ".cache/b.wav")
    (tmp_path / "x/notes.md").write_text("notes")
    (tmp_path / "x/b.m4a").write_bytes(b"1")
    (tmp_path / "x/c.m4a").write_bytes(b"1")
    data = read(tmp_path)
    assert [e.id for e in data] == ["x/a.wav"]
    (problem,) = data.problems
    assert "2 audio files in formats that cannot be read (first x/b.m4a)" in problem.what


def test_recordings_without_labels_can_be_read_without_a_word(tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    data = read([tmp_path / "a.wav"])
    assert data.targets == [None]
    assert data.problems == ()


def test_several_folders_are_one_data_set_with_ids_below_their_names(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name / "x.wav")
    write(tmp_path / "y.wav")
    folder = str(tmp_path)
    assert [e.id for e in read([tmp_path / "a"])] == ["x.wav"]
    sources = [tmp_path / "a", tmp_path / "b", tmp_path / "y.wav"]
    assert [e.id for e in read(sources)] == [f"{folder}/a/x.wav", f"{folder}/b/x.wav", f"{folder}/y.wav"]


def test_for_prediction_targets_are_left_out_and_none_is_missed(tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    write(tmp_path / "low" / "b.wav")
    assert [e.target for e in read(tmp_path, targets=False)] == [None, None]
    with pytest.raises(DataError, match=r"a\.wav: no target, while other places have one"):
        read(tmp_path)


def test_a_target_that_nothing_names_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "low" / "b_1.wav")
    with pytest.raises(DataError, match="target 'word': nothing names it; give a labels table with that column"):
        read(tmp_path, target="word")
    with pytest.raises(DataError, match=r"target 'wird' is not a field of '\{word\}_\{take\}'; did you mean 'word'"):
        read(tmp_path, target="wird", pattern="{word}_{take}")


def test_options_that_audio_cannot_use_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    with pytest.raises(ConfigError, match="time: not used by format 'audio'"):
        read(tmp_path, time="t")
    with pytest.raises(ConfigError, match="sample_rate: found 0"):
        read(tmp_path, sample_rate=0)
    with pytest.raises(ConfigError, match="expected a whole number of Hz"):
        read(tmp_path, sample_rate=8000.5)
    assert type(read(tmp_path, sample_rate=16000.0)[0].length) is int


def test_spoken_digits(data_folder: Callable[[str], Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(data_folder("speech_fsdd") / "recordings.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(("_0.flac", "_1.flac"))]
        archive.extractall(tmp_path, names)
    data = read(tmp_path, pattern="{label}_{speaker}_{take}", group="speaker")
    assert Counter(e.target for e in data) == {str(digit): 12 for digit in range(10)}
    assert len({e.group for e in data}) == 6
    assert not any(verify(e) for e in data)


def test_environmental_sounds(data_folder: Callable[[str], Path]) -> None:
    data = read(data_folder("sound_esc10"), pattern="{fold}-{clip}-{take}", group="fold")
    assert len(data) == 400
    assert set(Counter(data.targets).values()) == {40}
    assert Counter(e.group for e in data) == {str(fold): 80 for fold in range(1, 6)}
    assert not data.problems
