"""Line images on the command line: from a folder to text inside of a page."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from crnn.cli.main import run_app

pytest.importorskip("PIL")
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few lines, a page, and a model that was hardly trained."""
    folder = tmp_path_factory.mktemp("lines")
    shutil.copytree(EXAMPLES / "page", folder / "page")
    for side, count in (("train", 12), ("test", 4)):
        for image in sorted((EXAMPLES / "lines" / side).glob("*.png"))[:count]:
            place = folder / "lines" / side / image.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, place)
            shutil.copy(image.with_suffix(".gt.txt"), place.with_suffix("").with_suffix(".gt.txt"))
    assert (
        run_app(
            ["train", f"{folder}/lines", "--out", f"{folder}/run", "--set", "train.steps=2", "--quiet"], debug=False
        )
        == 0
    )
    return folder


def test_text_is_written_into_a_copy_of_the_page(folder, capsys):
    out = folder / "out.xml"
    assert run_app(["predict", f"{folder}/run", f"{folder}/page/page.xml", "-o", str(out)], debug=False) == 0
    assert "4 lines: " in capsys.readouterr().out
    before, after = (ElementTree.parse(path) for path in (folder / "page" / "page.xml", out))
    coords = [[e.get("points") for e in tree.iter() if e.tag.endswith("}Coords")] for tree in (before, after)]
    assert coords[0] == coords[1]
    texts = [[e.text for e in tree.iter() if e.tag.endswith("}Unicode")] for tree in (before, after)]
    assert len(texts[1]) == 4
    assert texts[0] != texts[1]


def test_only_one_page_goes_into_one_file(folder, capsys):
    images = sorted(map(str, (folder / "lines" / "test").glob("*.png")))
    assert run_app(["predict", f"{folder}/run", *images, "-o", f"{folder}/no.xml"], debug=False) == 1
    assert "holds the text of one page" in capsys.readouterr().err


def test_another_kind_of_input_is_refused(folder, capsys):
    recording = next((EXAMPLES / "digits" / "test").rglob("*.flac"))
    assert run_app(["predict", f"{folder}/run", str(recording)], debug=False) == 1
    assert "found audio, but the model was trained on image" in capsys.readouterr().err


def test_lines_are_not_explained_and_that_is_said(folder, capsys):
    assert run_app(["explain", f"{folder}/run", f"{folder}/lines/test", "-o", f"{folder}/why.html"], debug=False) == 1
    assert "the model reads images, expected symbols, series or recordings" in capsys.readouterr().err


def test_no_preset_is_named_where_none_streams(folder, capsys):
    recording = next((EXAMPLES / "digits" / "test").rglob("*.flac"))
    assert run_app(["stream", f"{folder}/run", str(recording)], debug=False) == 1
    assert "recurrent cannot stream: it is bidirectional" in (message := capsys.readouterr().err)
    assert "--preset" not in message


def test_check_names_lines_that_cannot_be_learnt(folder, tmp_path, capsys):
    shutil.copytree(folder / "lines", tmp_path / "lines")
    (tmp_path / "lines" / "train" / "00.gt.txt").write_text(" \n")
    (tmp_path / "lines" / "train" / "01.gt.txt").write_text("far too many letters for so short a line " * 9)
    assert run_app(["check", f"{tmp_path}/lines"], debug=False) == 1
    printed = capsys.readouterr().out
    assert "00.png: " in printed
    assert "found an empty transcript" in printed
    assert "01.png: " in printed
    assert "frames" in printed.partition("01.png: ")[2].splitlines()[0]


def test_a_network_in_vgsl_brings_its_height(folder, capsys):
    text = "[1,24,0,1 Cr3,3,8,2,2 Mp2,2 S1(1x6)1,3 Lbx16]"
    run = ["train", f"{folder}/lines", "--vgsl", text, "--set", "train.steps=2", "--quiet"]
    assert run_app([*run, "--out", f"{folder}/vgsl"], debug=False) == 0
    capsys.readouterr()
    assert run_app([*run, "--out", f"{folder}/other", "--height", "32"], debug=False) == 1
    assert "the network takes images 24 pixels high, found 32 in" in capsys.readouterr().err
