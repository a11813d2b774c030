"""Line images: to grey at one height, ink high; what is beside them; what is wrong with them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crnn import read
from crnn.data.readers.images import is_inverted, normalised
from crnn.errors import ConfigError, DataError

PIL = pytest.importorskip("PIL.Image")


def stroke(width=60, height=24, *, paper=255, ink=0):
    """(height, width) grey values: a bar of ink across the middle rows, in the left half."""
    pixels = np.full((height, width), paper, dtype=np.uint8)
    pixels[height // 3 : 2 * height // 3, 2 : width // 2] = ink
    return pixels


def save(path, pixels, text=None, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = PIL.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    if text is not None:
        path.with_name(path.name.partition(".")[0] + ".gt.txt").write_text(text, encoding="utf-8")
    return path


def test_a_folder_of_lines_and_their_texts(tmp_path):
    save(tmp_path / "a.png", stroke(60, 24), "one")
    save(tmp_path / "b.bin.png", stroke(90, 30), "two\n")
    save(tmp_path / "deep" / "c.jpg", stroke(40, 24), "thrée")
    save(tmp_path / "d.tif", stroke(50, 24), "four")
    data = read(tmp_path, height=48)
    assert data.kind == "image"
    assert data.features == (1, 48)
    assert [example.target for example in data] == ["one", "two", "four", "thrée"]
    assert data.lengths.tolist() == [120, 144, 100, 80]  # width * 48 / height
    for example in data:
        frames = example.load()
        assert frames.shape == (example.length, 1, 48)
        assert frames.dtype == np.float32
        middle = frames[example.length // 4, 0, 24]
        assert middle > 0.9  # ink is high
        assert frames[-2, 0, 24] < 0.1  # paper is 0


def test_any_height_and_the_usual_one(tmp_path):
    save(tmp_path / "a.png", stroke(60, 24))
    assert read(tmp_path).height == 32
    assert read(tmp_path, height=32).features == (1, 32)
    assert read(tmp_path / "a.png", height=24).lengths.tolist() == [60]
    for height in (4, 10000):
        with pytest.raises(ConfigError, match=f"height: found {height}, expected 8 to 512 pixels"):
            read(tmp_path, height=height)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"])
def test_every_kind_of_pixel_gives_the_same_line(tmp_path, mode):
    save(tmp_path / "a.png", stroke())
    suffix = "tif" if mode == "CMYK" else "png"
    if mode == "I;16":
        PIL.fromarray(stroke().astype(np.uint16) * 257).save(tmp_path / f"b.{suffix}")
    else:
        save(tmp_path / f"b.{suffix}", stroke(), mode=mode)
    first, second = read(tmp_path)
    np.testing.assert_allclose(second.load(), first.load(), atol=0.02)


def test_what_is_transparent_is_paper(tmp_path):
    pixels = np.zeros((24, 60, 4), dtype=np.uint8)  # black, and fully transparent
    pixels[8:16, 2:30, 3] = 255
    save(tmp_path / "a.png", pixels)
    save(tmp_path / "b.png", stroke())
    first, second = read(tmp_path)
    np.testing.assert_allclose(first.load(), second.load(), atol=0.02)


def test_inverted_lines_are_turned_and_said(tmp_path):
    save(tmp_path / "a.png", stroke(paper=255, ink=0))
    save(tmp_path / "b.png", stroke(paper=10, ink=240))
    data = read(tmp_path)
    np.testing.assert_allclose(data[1].load(), data[0].load(), atol=0.02)
    (problem,) = data.problems
    assert problem.level == "warning"
    assert "1 of 2 images looked at are bright on dark; they are turned" in problem.what


def test_faint_ink_on_grey_paper_is_stretched_but_an_empty_line_is_not():
    faint = normalised((255 - stroke(paper=200, ink=140).astype(np.float32)) / 255, 60, 24)
    assert faint.max() == 1.0
    assert faint.min() == 0.0
    noise = np.random.default_rng(0).normal(0.2, 0.004, (24, 60)).clip(0, 1).astype(np.float32)
    assert normalised(noise, 60, 24).max() < 0.3


def test_heavy_type_is_not_taken_for_inverted():
    pixels = np.full((40, 100), 0.1, dtype=np.float32)
    pixels[:, ::2] = 0.9
    pixels[:12] = 0.1
    assert not is_inverted(pixels)
    assert is_inverted(1 - pixels)


def test_a_manifest_names_images_and_texts(tmp_path):
    save(tmp_path / "img" / "a.png", stroke())
    save(tmp_path / "img" / "b.png", stroke(80))
    rows = [{"image": "img/a.png", "text": "ab", "split": "train"}, {"image": "img/b.png", "text": "007"}]
    (tmp_path / "lines.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    (tmp_path / "lines.tsv").write_text("path\ttranscription\nimg/a.png\tab\nimg/b.png\t007\n", encoding="utf-8")
    for name in ("lines.jsonl", "lines.tsv"):
        data = read(tmp_path / name, height=24)
        assert data.kind == "image"
        assert data.height == 24
        assert data.targets == ["ab", "007"]


def test_bad_lines_are_named_and_the_rest_is_read(tmp_path):
    save(tmp_path / "good.png", stroke(), "good")
    save(tmp_path / "thin.png", stroke(1, 48), "thin")
    save(tmp_path / "turned.png", stroke(20, 400), "turned")
    save(tmp_path / "nothing.png", stroke(), "  \n")
    save(tmp_path / "pages.tif", stroke(), "pages", save_all=True, append_images=[PIL.fromarray(stroke())])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "empty.gt.txt").write_text("empty")
    (tmp_path / "text.png").write_bytes(b"no image at all")
    (tmp_path / "text.gt.txt").write_text("text")
    whole = save(tmp_path / "cut.png", np.random.default_rng(0).integers(0, 255, (48, 300), np.uint8), "cut")
    whole.write_bytes(whole.read_bytes()[:4000])
    (tmp_path / "latin.gt.txt").write_bytes("é".encode("latin-1"))
    save(tmp_path / "latin.png", stroke())
    data = read(tmp_path, on_bad="skip")
    assert [example.id for example in data] == ["good.png"]
    said = {problem.where.rpartition("/")[2]: problem.what for problem in data.problems}
    assert "found an image of 1 x 48 pixels, which leaves 1 columns at height 32, expected 4" in said["thin.png"]
    assert "if the line runs downwards, turn it" in said["turned.png"]
    assert "empty transcript" in said["nothing.png"]
    assert "found 2 pages, expected one line an image" in said["pages.tif"]
    assert "found an empty file, expected an image" in said["empty.png"]
    assert "not an image" in said["text.png"]
    assert "damaged" in said["cut.png"]
    assert "is no UTF-8" in said["latin.png"]
    assert len(said) == 8
    with pytest.raises(DataError, match="8 of 9 places cannot be used"):
        read(tmp_path)


def test_an_image_that_changes_after_reading_is_refused(tmp_path):
    path = save(tmp_path / "a.png", stroke(60))
    (example,) = read(tmp_path)
    save(path, stroke(90))
    with pytest.raises(DataError, match="its size has changed to 90 x 24 since it was read"):
        example.load()
