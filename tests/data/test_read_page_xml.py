"""PAGE and ALTO: lines cut out of a page, and text written back into the file."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from crnn import read
from crnn.data.readers.page_xml import RecognisedLine, RecognisedWord, read_page, write_page
from crnn.errors import DataError

PIL = pytest.importorskip("PIL.Image")

PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15">
  <Page imageFilename="{image}" imageWidth="200" imageHeight="120">
    <TextRegion id="r"><Coords points="0,0 199,0 199,119 0,119"/>
      <TextLine id="l1"><Coords points="10,10 109,10 109,29 10,29"/><Baseline points="10,25 109,25"/>
        <Word id="w"><Coords points="10,10 50,10 50,29"/><TextEquiv><Unicode>old</Unicode></TextEquiv></Word>
        <TextEquiv index="1"><Unicode>second guess</Unicode></TextEquiv>
        <TextEquiv index="0"><Unicode>first line</Unicode></TextEquiv><TextStyle fontSize="9"/></TextLine>
      <TextLine id="l2"><Coords points="10,50 109,50 109,69 60,69 60,89 10,89"/>
        <TextEquiv><Unicode>second</Unicode></TextEquiv></TextLine>
    </TextRegion>
  </Page>
</PcGts>
"""

ALTO = """<?xml version="1.0" encoding="UTF-8"?>
<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#">
  <Description><MeasurementUnit>{unit}</MeasurementUnit>
    <sourceImageInformation><fileName>page.png</fileName></sourceImageInformation></Description>
  <Layout><Page ID="p"><PrintSpace><TextBlock ID="b">
    <TextLine ID="t1" HPOS="10" VPOS="10" WIDTH="99" HEIGHT="19">
      <String CONTENT="first"/><SP/><String CONTENT="line"/><HYP CONTENT="-"/></TextLine>
    <TextLine ID="t2"><Shape><Polygon POINTS="10 50 109 50 109 89 10 89"/></Shape><String CONTENT="second"/></TextLine>
  </TextBlock></PrintSpace></Page></Layout>
</alto>
"""


@pytest.fixture
def page(tmp_path):
    """A page whose first line is dark in its left half; black around the second line's outline."""
    pixels = np.full((120, 200), 255, dtype=np.uint8)
    pixels[14:26, 10:60] = 0
    pixels[55:65, 20:40] = 0
    pixels[72:120, 62:200] = 0
    PIL.fromarray(pixels).save(tmp_path / "page.png")
    (tmp_path / "page.xml").write_text(PAGE.format(image="page.png"), encoding="utf-8")
    (tmp_path / "alto.xml").write_text(ALTO.format(unit="pixel"), encoding="utf-8")
    return tmp_path


def test_lines_are_cut_out_of_the_page(page):
    data = read(page / "page.xml", height=40)
    assert data.kind == "image"
    assert [example.id.rpartition("#")[2] for example in data] == ["l1", "l2"]
    assert data.targets == ["first line", "second"]
    assert data.lengths.tolist() == [200, 100]  # 100 x 20 and 100 x 40 pixels
    first, second = (example.load()[:, 0] for example in data)
    assert first[50, 20] > 0.9
    assert first[150, 20] < 0.1
    assert second[20, 10] > 0.9
    assert second[80, 30] < 0.1  # inside of the box, outside of the outline


def test_alto_by_boxes_and_polygons(page):
    data = read(page / "alto.xml", height=40)
    assert data.targets == ["first line-", "second"]
    assert data.lengths.tolist() == [200, 100]


def test_a_folder_of_both_and_pages_as_groups(page):
    data = read(page, group="page")
    assert len(data) == 4
    assert {example.group for example in data} == {"page.xml", "alto.xml"}


def test_images_that_no_page_names_are_said(page):
    assert read(page).problems == ()
    PIL.new("L", (50, 20), 255).save(page / "other.png")
    (problem,) = read(page).problems
    assert problem.level == "warning"
    assert "1 images are named by no page and left out (first other.png); read them apart" in problem.what


def test_points_of_older_pages_and_names_with_folders(page):
    old = PAGE.replace('points="10,10 109,10 109,29 10,29"/>', ">").format(image="scans\\page.png")
    corners = "".join(f'<Point x="{x}" y="{y}"/>' for x, y in ((10, 10), (109, 10), (109, 29), (10, 29)))
    (page / "old.xml").write_text(old.replace("<Coords ><", f"<Coords>{corners}</Coords><"), encoding="utf-8")
    image, lines = read_page(page / "old.xml")
    assert image == page / "page.png"
    assert lines[0].polygon == ((10, 10), (109, 10), (109, 29), (10, 29))


def test_text_is_written_back_and_the_rest_stays(page):
    out = page / "out" / "page.xml"
    out.parent.mkdir()
    write_page(page / "page.xml", {"l1": RecognisedLine("ſo & <ſo>", 0.9)}, out)
    root = ElementTree.parse(out).getroot()
    assert root.tag == "{http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15}PcGts"
    (page / "out" / "page.png").write_bytes((page / "page.png").read_bytes())
    _, lines = read_page(out)
    assert [line.text for line in lines] == ["ſo & <ſo>", "second"]
    assert lines[0].polygon == read_page(page / "page.xml")[1][0].polygon
    children = [child.tag.rpartition("}")[2] for child in next(e for e in root.iter() if e.get("id") == "l1")]
    assert children == ["Coords", "Baseline", "TextEquiv", "TextStyle"]  # the order of the schema
    assert 'conf="0.9000"' in out.read_text(encoding="utf-8")
    assert "ns0:" not in out.read_text(encoding="utf-8")


def test_words_are_written_into_alto(page):
    out = page / "written.xml"
    words = (RecognisedWord("so", 0.0, 0.25), RecognisedWord("ist", 0.5, 1.0))
    write_page(page / "alto.xml", {"t1": RecognisedLine("so ist", None, words)}, out)
    _, lines = read_page(out)
    assert [line.text for line in lines] == ["so ist", "second"]
    strings = [e for e in ElementTree.parse(out).iter() if e.tag.endswith("}String")]
    assert [strings[1].get(name) for name in ("HPOS", "WIDTH", "VPOS")] == ["60", "50", "10"]


def test_a_page_without_its_image_is_named(page):
    (page / "lost.xml").write_text(PAGE.format(image="img/lost.png"), encoding="utf-8")
    with pytest.raises(DataError) as error:
        read(page / "lost.xml")
    message = str(error.value)
    assert f"{page / 'lost.xml'}: its page image 'img/lost.png' is not there (looked for" in message
    assert str(page / "img" / "lost.png") in message
    data = read(page, on_bad="skip")
    assert len(data) == 4
    assert [problem.where for problem in data.problems] == [str(page / "lost.xml")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PAGE.format(image=""), "names no page image; add it"),
        (PAGE.format(image="page.png").replace("</Page>", ""), "cannot be read as XML"),
        (ALTO.format(unit="mm10"), "found measures in mm10, expected pixel"),
        (PAGE.format(image="page.png").replace("10,10 109,10 109,29 10,29", "10,10"), "line l1: found no outline"),
    ],
)
def test_pages_that_cannot_be_used_say_why(page, text, message):
    (page / "bad.xml").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read(page / "bad.xml")


def test_lines_outside_of_the_image_and_without_text_are_bad_places(page):
    text = PAGE.format(image="page.png").replace("10,50 109,50 109,69 60,69 60,89 10,89", "300,5 390,5 390,25")
    (page / "bad.xml").write_text(text.replace("first line", " "), encoding="utf-8")
    with pytest.raises(DataError) as error:
        read(page / "bad.xml")
    assert "leaves nothing of the image of 200 x 120 pixels" in str(error.value)
    assert "line l1: found an empty transcript" in str(error.value)
