"""From recordings and texts to transcripts on the command line."""

import json

import numpy as np
import pytest

pytest.importorskip("soundfile")

import soundfile
from tones import RATE, TRAINING, sound_of, write_manifest, write_tones

from crnn.cli.main import run_app
from crnn.data.readers.wfdb import write_record


def crnn(*arguments):
    return run_app([str(a) for a in arguments], debug=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with data and a trained run."""
    home = tmp_path_factory.mktemp("tones")
    write_tones(home / "train", 60)
    write_tones(home / "new", 6, seed=5)
    assert crnn("train", home / "train", "--out", home / "run", *TRAINING) == 0
    return home


def predicted(home, *options, files=None):
    out = home / "out.jsonl"
    assert crnn("predict", home / "run", *(files or [home / "new"]), "-o", out, *options) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_it_transcribes_with_times(home):
    texts = [path.read_text().strip() for path in sorted((home / "new").glob("*.txt"))]
    answers = predicted(home)
    assert sum(a["text"] == b for a, b in zip(answers, texts, strict=True)) >= 4
    word = answers[0]["words"][0]
    assert 0 <= word["start"] < word["end"] < 1
    assert 0 < word["confidence"] <= 1


def test_eval_with_a_search_and_a_lexicon(home, capsys):
    (home / "words.txt").write_text("ab\nba\ncab\nc\nbac\n")
    options = ["--beam", "8", "--lexicon", home / "words.txt", "--hot-word", "cab=2", "--json"]
    assert crnn("eval", home / "run", home / "new", *options) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"]["wer"]["point"] <= 0.3
    assert crnn("eval", home / "run", "--beam", "8") == 1
    assert "--beam: the run's own scores were measured when it was trained" in capsys.readouterr().err


def test_a_language_model_is_trained_and_tuned(home, capsys):
    texts = sorted((home / "train").glob("*.txt"))
    assert crnn("lm", "train", *texts, "-o", home / "words.arpa", "--order", "2") == 0
    assert crnn("lm", "tune", home / "run", home / "words.arpa", "--json") == 0
    tuned = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert tuned["texts"] >= 2
    state = json.loads((home / "run" / "config.json").read_text())["task"]["state"]
    assert state["lm_weight"] == tuned["lm_weight"]
    answers = predicted(home, "--lm", home / "words.arpa")
    assert len(answers) == 6


def test_subtitles_ctm_and_text(home, capsys):
    first = home / "new" / "000.wav"
    assert crnn("predict", home / "run", first, "-o", home / "a.srt") == 0
    assert (home / "a.srt").read_text().startswith("1\n00:00:00,")
    assert crnn("predict", home / "run", home / "new", "-o", home / "a.ctm") == 0
    fields = (home / "a.ctm").read_text().splitlines()[0].split()
    assert fields[:2] == ["000.wav", "1"]
    assert float(fields[2]) + float(fields[3]) < 1
    assert crnn("predict", home / "run", home / "new", "-o", home / "a.txt") == 0
    assert (home / "a.txt").read_text().startswith("000.wav\t")
    assert crnn("predict", home / "run", home / "new", "-o", home / "b.srt") == 1
    assert "holds subtitles of one recording, found 6" in capsys.readouterr().err


def test_a_stream_says_the_same_text(home, capsys):
    first = home / "new" / "001.wav"
    whole = predicted(home, files=[first])[0]
    assert crnn("stream", home / "run", first, "--quiet") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    words = [line["text"] for line in lines if "text" in line and not line.get("partial")]
    assert " ".join(words) == whole["text"]


def test_a_manifest_gives_the_same_as_a_folder(home, capsys):
    write_manifest(home / "m.jsonl", home / "new")
    assert crnn("eval", home / "run", home / "m.jsonl", "--json") == 0
    by_manifest = json.loads(capsys.readouterr().out)["metrics"]["cer"]
    assert crnn("eval", home / "run", home / "new", "--json") == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["cer"] == by_manifest


def test_records_given_to_a_model_of_sound_are_said_to_be_of_another_kind(home, tmp_path, capsys):
    write_record(tmp_path / "a", np.zeros((400, 1), np.float32), leads=["MLII"], rate=100.0)
    assert crnn("predict", home / "run", tmp_path / "a.hea") == 1
    assert "found series, but the model was trained on audio" in capsys.readouterr().err


def test_the_preset_that_streams_is_one_for_texts(home, capsys):
    options = ("--set", "train.steps=1", "--quiet")
    assert crnn("train", home / "train", "--task", "transcribe", "--out", home / "both", *options) == 0
    assert crnn("stream", home / "both", home / "new" / "000.wav") == 1
    assert capsys.readouterr().err.rstrip().endswith("crnn train DATA --preset speech-small")


def test_check_tells_texts_by_their_letters(home, capsys):
    crnn("check", home / "train", "--task", "transcribe")
    assert "letters: ' ab" in capsys.readouterr().out


def test_bad_input_is_named(home, tmp_path, capsys):
    random = np.random.default_rng(0)
    write_tones(tmp_path / "bad", 20)
    (tmp_path / "bad" / "003.txt").write_text("ab " * 60)
    (tmp_path / "bad" / "004.txt").write_text("\n")
    soundfile.write(tmp_path / "bad" / "long.wav", np.tile(sound_of("ab", random), 80), RATE)
    (tmp_path / "bad" / "long.txt").write_text("ab")
    assert crnn("train", tmp_path / "bad", "--out", tmp_path / "run", *TRAINING) == 1
    assert "004.wav: transcript" in capsys.readouterr().err
    (tmp_path / "bad" / "004.txt").write_text("ab")
    assert crnn("train", tmp_path / "bad", "--out", tmp_path / "run", *TRAINING) == 1
    message = capsys.readouterr().err
    assert "003.wav: found 179 letters" in message
    assert "which need 179 output frames" in message
    assert crnn("check", tmp_path / "bad", "--task", "transcribe") == 1
    assert "003.wav: found 179 letters" in capsys.readouterr().out


def test_options_of_a_decoder_are_for_transcribers(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for i in range(4):
            soundfile.write(tmp_path / "d" / name / f"{i}.wav", sound_of(name * 3, np.random.default_rng(i)), RATE)
    assert (
        crnn("train", tmp_path / "d", "--out", tmp_path / "r", "--quiet", "--set", "train.steps=2", "--preset", "live")
        == 0
    )
    assert crnn("predict", tmp_path / "r", tmp_path / "d", "--beam", "4") == 1
    assert "--beam: is for transcribers, but this model's task is classify" in capsys.readouterr().err
