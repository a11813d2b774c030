"""Text as a target: beside recordings, in labels tables and in manifests."""

import json

import numpy as np
import pytest

from crnn.data.read import read
from crnn.errors import DataError

soundfile = pytest.importorskip("soundfile")


def tone(path, seconds=0.5, rate=8000, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, 0.5, int(seconds * rate), dtype=np.float32)
    soundfile.write(path, np.stack([ramp] * channels, 1), rate, subtype="FLOAT")


def test_a_text_beside_each_recording(tmp_path):
    for name, text in {"a": "one two", "b": "drei vier\n", "sub/c": "\ufefffünf"}.items():
        tone(tmp_path / f"{name}.wav")
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    data = read(tmp_path)
    assert data.targets == ["one two", "drei vier", "fünf"]
    assert "text from files beside them" in data.source


def test_a_text_that_is_missing_empty_or_no_utf8_is_named(tmp_path):
    texts = {"a": b"one", "b": b"  \n", "c": "fünf".encode("latin-1"), "d": b"two"}
    for name, text in texts.items():
        tone(tmp_path / f"{name}.wav")
        (tmp_path / f"{name}.txt").write_bytes(text)
    tone(tmp_path / "e.wav")
    data = read(tmp_path, on_bad="skip")
    assert data.targets == ["one", "two"]
    problems = "\n".join(map(str, data.problems))
    assert "b.wav: transcript" in problems
    assert "found an empty transcript" in problems
    assert "byte 2 is no UTF-8; as Latin-1 it would be 'fünf'; save the file as UTF-8" in problems
    assert "e.wav: found no transcript e.txt or e.gt.txt beside it" in problems
    with pytest.raises(DataError, match="3 of 5 places cannot be used"):
        read(tmp_path)


def test_a_few_notes_are_no_transcripts(tmp_path):
    for name in ("yes/a", "yes/b", "no/c"):
        tone(tmp_path / f"{name}.wav")
    (tmp_path / "yes" / "a.txt").write_text("noisy")
    assert read(tmp_path).targets == ["no", "yes", "yes"]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_a_manifest_names_files_and_texts(tmp_path, suffix):
    rows = [("clips/a.wav", "007", "train"), ("clips/b.wav", "None; or | so", "test"), ("clips/c.wav", "ä, b", "train")]
    for name, _, _ in rows:
        tone(tmp_path / name)
    if suffix == "jsonl":
        lines = [json.dumps({"audio_filepath": a, "text": b, "split": c, "duration": 0.5}) for a, b, c in rows]
    else:
        mark = {"csv": ",", "tsv": "\t"}[suffix]
        lines = [mark.join(("path", "sentence", "split")), *(mark.join((a, f'"{b}"', c)) for a, b, c in rows)]
    (tmp_path / f"m.{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = read(tmp_path / f"m.{suffix}")
    assert data.kind == "audio"
    assert data.targets == ["007", "None; or | so", "ä, b"]
    assert [example.split for example in data] == ["train", "test", "train"]
    assert "row" in data[0].where


def test_parts_of_a_recording(tmp_path):
    tone(tmp_path / "long.wav", seconds=2.0)
    rows = [{"audio": "long.wav", "text": t, "start": s, "end": e} for t, s, e in [("a", 0, 0.5), ("b", 0.5, 1.25)]]
    rows += [
        {"audio": "long.wav", "text": "c", "start": 1.9, "end": 3},
        {"audio": "long.wav", "text": "d", "start": 1, "end": 1},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = read(tmp_path / "m.jsonl", on_bad="skip")
    whole = np.linspace(0, 0.5, 16000, dtype=np.float32)
    np.testing.assert_array_equal(data[0].load()[:, 0], whole[:4000])
    np.testing.assert_array_equal(data[1].load()[:, 0], whole[4000:10000])
    problems = "\n".join(map(str, data.problems))
    assert "part from 1.9 to 3.0 s, but the recording has 2.00 s" in problems
    assert "part from 1 to 1 s is empty" in problems


def test_bad_rows_of_a_manifest_are_named(tmp_path):
    tone(tmp_path / "a.wav")
    tone(tmp_path / "b.wav")
    (tmp_path / "m.csv").write_text("file,text\na.wav,one\nb.wav,\nnone.wav,x\na.wav,again\n")
    data = read(tmp_path / "m.csv", on_bad="skip")
    assert data.targets == ["one"]
    problems = [str(problem) for problem in data.problems]
    assert any("m.csv row 3: found an empty transcript" in p for p in problems)
    assert any("m.csv row 4: file 'none.wav' is not there" in p for p in problems)
    assert any("m.csv row 5: a.wav already stands in another row" in p for p in problems)


def test_a_labels_table_of_texts(tmp_path):
    tone(tmp_path / "wavs" / "a.wav")
    tone(tmp_path / "wavs" / "b.wav")
    (tmp_path / "t.tsv").write_text("file\ttranscript\na.wav\t0 1; 2\nb.wav\t\n")
    data = read(tmp_path / "wavs", labels=tmp_path / "t.tsv", on_bad="skip")
    assert data.targets == ["0 1; 2"]
    assert "found an empty transcript" in str(data.problems[0])


def test_stereo_and_mixed_rates_are_read_as_one_channel_at_one_rate(tmp_path):
    tone(tmp_path / "a.wav", channels=2)
    tone(tmp_path / "b.wav", rate=16000)
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(name)
    data = read(tmp_path)
    assert [example.load().shape[1] for example in data] == [1, 1]
    problems = "\n".join(map(str, data.problems))
    assert "mixed sample rates" in problems
    assert "a.wav: 2 channels, averaged to one" in problems
