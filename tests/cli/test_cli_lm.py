"""crnn lm train."""

import json

import pytest

from crnn.cli.main import run_app


def test_a_language_model_from_text_files(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("the cat\n\nThe  dog\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("the bird\n", encoding="utf-8")
    out = tmp_path / "words.arpa"
    files = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    assert run_app(["lm", "train", *files, "-o", str(out), "--order", "2", "--lower"], debug=False) == 0
    assert "words up to 2, 9 in the text" in capsys.readouterr().out
    kenlm = pytest.importorskip("kenlm")
    model = kenlm.Model(str(out))
    assert model.order == 2
    assert model.score("the cat") > model.score("cat the")


def test_characters_and_perplexity(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("ab ab\nab\n", encoding="utf-8")
    options = ["-o", str(tmp_path / "c.arpa"), "--units", "characters", "--held-out", str(tmp_path / "a.txt"), "--json"]
    assert run_app(["lm", "train", str(tmp_path / "a.txt"), *options], debug=False) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tokens"] == 9
    assert 1 < found["perplexity"] < 4
    assert "▁" in (tmp_path / "c.arpa").read_text(encoding="utf-8")


def test_bad_text_is_named(tmp_path, capsys):
    (tmp_path / "a.txt").write_bytes("süß".encode("latin-1"))
    out = str(tmp_path / "x.arpa")
    assert run_app(["lm", "train", str(tmp_path / "a.txt"), "-o", out], debug=False) == 1
    assert "a.txt: byte 2 is no UTF-8" in capsys.readouterr().err
    assert run_app(["lm", "train", str(tmp_path / "none.txt"), "-o", out], debug=False) == 1
    assert "none.txt: cannot be read" in capsys.readouterr().err
    assert run_app(["lm", "train", str(tmp_path / "a.txt"), "-o", out, "--units", "syllables"], debug=False) == 1
