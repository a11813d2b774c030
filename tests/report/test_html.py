"""The report is one file that needs nothing else, shows every section, and holds labels as text."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from report_examples import NASTY

from crnn.report.evaluation import Evaluation, Leaks
from crnn.report.floor import Floor
from crnn.report.html import amount, number, render, seconds

FORMS = ["classes", "labels", "values"]
VOID = {"meta", "br", "hr", "img", "input", "link", "use", "path", "image", "rect"}


class Nesting(HTMLParser):
    """Fails on a tag that is closed out of order; collects what would be loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.loaded.append(value)
            if name == "id":
                self.ids.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def pages(classes, labels, values) -> dict[str, str]:
    """Each report, drawn once."""
    return {"classes": render(classes), "labels": render(labels), "values": render(values)}


@pytest.mark.parametrize(
    ("keep", "said"), [("last", "The weights of the last epoch were kept"), ("best", "is the best on validation")]
)
def test_the_report_says_which_epoch_was_kept(classes, keep, said):
    record = {"epoch": 1, "train_loss": 1.0, "validation_loss": 1.0, "metrics": {"accuracy": 0.5}, "is_best": True}
    history = [record, {**record, "epoch": 2, "is_best": False}]
    facts = dataclasses.replace(classes.facts, history=history, settings={"keep": keep})
    assert said in render(dataclasses.replace(classes, facts=facts))


@pytest.mark.parametrize("form", FORMS)
def test_a_report_needs_no_network_and_nests(form, pages):
    text = pages[form]
    page = Nesting()
    page.feed(text)
    assert page.open == []
    assert all(at.startswith(("#", "data:")) for at in page.loaded)
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", text)
    assert "<script" not in text
    assert len(text) < 1_500_000
    assert text.isascii() or 'charset="utf-8"' in text


@pytest.mark.parametrize("form", FORMS)
def test_every_link_of_the_contents_has_its_section(form, pages):
    page = Nesting()
    page.feed(pages[form])
    wanted = {at[1:] for at in page.loaded if at.startswith("#")}
    assert {"score", "floor", "data", "training", "exact", "cost", "card"} <= wanted
    assert wanted <= set(page.ids)


@pytest.mark.parametrize("form", ["classes", "labels"])
def test_labels_are_text_and_never_html(form, pages):
    text = pages[form]
    assert NASTY not in text
    assert "&lt;script&gt;alert(&#39;$x_1$&#39;)&lt;/script&gt;" in text


def test_the_report_says_what_was_measured(classes, pages):
    text = pages["classes"]
    for expected in (
        "as the files say",
        classes.fingerprint,
        f"{classes.headline.point:.3f}",
        classes.best_floor.name,
        "padded to four times",
        "every example was compared by content".capitalize(),
        "Dempster, Petitjean &amp; Webb 2020",
        "kernel_size: 3",
    ):
        assert expected in text


def test_warnings_stand_in_red_at_the_top(classes):
    bad = dataclasses.replace(
        classes, leaks=Leaks([("a", "train: b")], [], 0), floors=[Floor("majority", {"accuracy": 1.0})]
    )
    text = render(bad)
    assert text.count('<p class="warning bad">') == 2
    assert text.index('class="warning bad"') < text.index("<main>")
    assert "The floor beats the model." in text


def test_a_perfect_score_says_what_luck_allows(classes):
    top = dataclasses.replace(classes.headline, point=1.0, low=1.0, high=1.0)
    text = render(dataclasses.replace(classes, metrics={**classes.metrics, "accuracy": top}))
    assert "below 6% with 95% confidence" in text  # 3 / 50


def test_what_is_absent_is_left_out(classes):
    bare = dataclasses.replace(
        classes,
        floors=[],
        calibration=None,
        leaks=None,
        worst=[],
        facts=type(classes.facts)(),
        confusion=None,
        tables=[],
    )
    text = render(bare)
    assert 'id="floor"' not in text
    assert 'id="calibration"' not in text
    assert "there is no record of what training saw" in text


def test_many_classes_still_render(classes):
    size = 70
    many = dataclasses.replace(
        classes,
        labels=[f"class {i}" for i in range(size)],
        confusion=[[int(i == j) + int(j == 0) for j in range(size)] for i in range(size)],
    )
    assert "too many classes to draw" in render(many)
    fifty = dataclasses.replace(many, labels=many.labels[:50], confusion=[row[:50] for row in many.confusion[:50]])
    assert len(render(fifty)) < 1_500_000


def test_save_writes_html_or_json_and_leaves_no_partial_file(classes, tmp_path):
    page = classes.save(tmp_path / "new" / "r.html")
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    plain = classes.save(tmp_path / "new" / "r.json")
    assert Evaluation.from_dict(json.loads(plain.read_text())).fingerprint == classes.fingerprint
    assert sorted(p.name for p in page.parent.iterdir()) == ["r.html", "r.json"]


@pytest.mark.parametrize("form", FORMS)
def test_notebooks_get_a_compact_part(form, request, pages):
    evaluation = request.getfixturevalue(form)
    text = evaluation._repr_html_()
    assert "<html" not in text
    assert f"{evaluation.headline.point:.3f}"[:4] in text.replace(",", "")
    assert len(text) < len(pages[form]) / 2


def test_numbers_are_written_for_people():
    assert [number(v) for v in (0.98765, 12.345, 12345.6, 0.00001, None, float("nan"))] == [
        "0.988", "12.35", "12,346", "1.0e-05", "–", "–",
    ]  # fmt: skip
    assert [amount(v) for v in (999, 1234, 5.5e6, None)] == ["999", "1.23 k", "5.5 M", "–"]
    assert [seconds(v) for v in (2e-5, 0.0031, 4, 600)] == ["20 µs", "3.1 ms", "4 s", "10 min"]


@pytest.mark.parametrize("width", [1200, 500])
def test_chromium_opens_the_report(classes, tmp_path, width):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on PATH; install it to see the report drawn")
    page, shot = classes.save(tmp_path / "r.html"), tmp_path / "r.png"
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --hide-scrollbars"
    )
    subprocess.run(
        [
            chromium, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},3000",
            f"--screenshot={shot}", page.as_uri(),
        ],
        check=True, capture_output=True, timeout=90,
    )  # fmt: skip
    import matplotlib.image

    pixels = matplotlib.image.imread(shot)
    assert pixels.shape[:2] == (3000, width)
    light = pixels[..., :3].mean(2)
    assert light.mean() > 0.8  # a light page
    assert (light < 0.5).mean() > 0.005  # with something written on it
    assert (light[:, -3:] > 0.9).all()  # nothing runs over the right edge
