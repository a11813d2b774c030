"""PAGE and ALTO: pages with marked text lines. Lines are cut out of the page image; recognised text is written back.

Sources: the PAGE content schema of PRImA (2010 to 2019) and ALTO 2 to 4.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from crnn.data.dataset import Dataset, Example, Problem
from crnn.data.readers.files import folder_splits, walk
from crnn.data.readers.images import (
    SUFFIXES as IMAGE_SUFFIXES,
)
from crnn.data.readers.images import (
    image_dataset,
    import_pillow,
    inverted_among,
    line_height,
    normalised,
    open_grey,
    read_size,
    scaled_width,
)
from crnn.data.readers.reader import Reader, ReadOptions, Source
from crnn.data.readers.transcripts import checked_text
from crnn.errors import DataError

SUFFIXES = (".xml",)
PAGES_IN_MEMORY = 4
"""Page images that are kept decoded: lines are read page by page."""

Points = tuple[tuple[float, float], ...]
Element = ElementTree.Element


@dataclass(frozen=True)
class PageLine:
    """One marked line of a page."""

    id: str
    polygon: Points
    """Its outline in pixels of the page image."""
    text: str | None
    """None where the file holds no transcript of it."""


@dataclass(frozen=True)
class RecognisedWord:
    """A word and where it stands, as shares of the line's width."""

    text: str
    left: float
    right: float


@dataclass(frozen=True)
class RecognisedLine:
    """What to write into a line of a page."""

    text: str
    confidence: float | None = None
    """0 to 1."""
    words: tuple[RecognisedWord, ...] = ()
    """For ALTO, whose text stands in words; one word for the whole line where there are none."""


def read_pages(source: Source, options: ReadOptions) -> Dataset:
    """Read the lines of PAGE or ALTO files: one file, a folder, or a list of files.

    A line without text where others have one is a bad place. `group="page"` keeps the lines of a page together.

    Raises:
        MissingExtraError: Pillow is not installed.
        DataError: a group of another name.
    """
    import_pillow()
    if options.group not in (None, "page"):
        raise DataError(
            f"group {options.group!r}: expected page, which keeps the lines of a page on one side of a split"
        )
    height, files = line_height(options), _files(source)
    splits = folder_splits(list(files))
    examples: list[Example] = []
    opens: list[Callable[[], NDArray[np.float32]]] = []
    problems: list[Problem] = []
    used: set[Path] = set()
    for name, path in files.items():
        try:
            image, lines = read_page(path)
            used.add(image.resolve())
            size = read_size(image)
        except DataError as error:
            problems.append(Problem(str(path), str(error).removeprefix(f"{path}: ")))
            continue
        for line in lines:
            where = f"{path} line {line.id}"
            try:
                box = _box(line.polygon, size)
                width = scaled_width((box[2] - box[0], box[3] - box[1]), height, where)
                text = None if line.text is None else checked_text(line.text)
            except DataError as error:
                problems.append(Problem(where, str(error).removeprefix(f"{where}: ")))
                continue
            load = functools.partial(load_page_line, image, line.polygon, width, height)
            group = name if options.group == "page" else None
            split = splits.get(name.split("/")[0].lower())
            examples.append(Example(f"{name}#{line.id}", where, width, load, text, group, split))
            opens.append(functools.partial(_cut, image, line.polygon))
    shown = str(source) if isinstance(source, Path) else f"{len(source)} files"
    problems += [*inverted_among(opens, shown), *_without_page(source, used)]
    return image_dataset(examples, problems, height, f"{shown} (lines of {len(files)} pages)")


def _without_page(source: Source, used: set[Path]) -> list[Problem]:
    """One warning for images in the folder that no page names."""
    if not isinstance(source, Path) or not source.is_dir():
        return []
    others = [name for name in walk(source) if name.lower().endswith(IMAGE_SUFFIXES)]
    others = [name for name in others if (source / name).resolve() not in used]
    if not others:
        return []
    what = f"{len(others)} images are named by no page and left out (first {others[0]}); read them apart"
    return [Problem(str(source), what, "warning")]


def read_page(path: Path) -> tuple[Path, list[PageLine]]:
    """The image of a page, and its lines in the order of the file.

    Raises:
        DataError: not such a file, no image, a line without an outline, units that are no pixels.
    """
    root = _parse(path)
    if _tag(root) == "PcGts":
        page = _first(root, "Page")
        name = None if page is None else page.get("imageFilename")
        lines = [_page_line(path, i, element) for i, element in enumerate(_all(root, "TextLine"), 1)]
    else:
        unit = _first(root, "MeasurementUnit")
        if unit is not None and (unit.text or "").strip() not in ("pixel", ""):
            raise DataError(f"{path}: found measures in {unit.text}, expected pixel; convert it to pixels")
        file_name = _first(root, "fileName")
        name = None if file_name is None else (file_name.text or "").strip()
        lines = [_alto_line(path, i, element) for i, element in enumerate(_all(root, "TextLine"), 1)]
    if not name:
        raise DataError(f"{path}: names no page image; add it ({'imageFilename' if _is_page(root) else 'fileName'})")
    return _image_of(path, name), lines


def write_page(source: Path, lines: dict[str, RecognisedLine], out: Path) -> None:
    """A copy of a PAGE or ALTO file with recognised text in its lines; everything else stays.

    What a line held as text before is replaced, single words and their outlines in PAGE among it: they may not be true
    of the new text.

    Args:
        lines: by the id of the line, as `read_page` gives it; other lines keep what they have.
    Raises:
        DataError: not such a file.
    """
    root = _parse(source)
    namespace = root.tag.partition("}")[0].removeprefix("{") if "}" in root.tag else ""
    prefix = f"{{{namespace}}}" if namespace else ""
    ElementTree.register_namespace("", namespace)
    ElementTree.register_namespace("xsi", "http://www.w3.org/2001/XMLSchema-instance")
    write = _write_page_line if _is_page(root) else _write_alto_line
    for i, element in enumerate(_all(root, "TextLine"), 1):
        line = lines.get(_id(element, i))
        if line is not None:
            write(element, line, prefix)
    ElementTree.indent(root)
    out.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def _write_page_line(element: Element, line: RecognisedLine, prefix: str) -> None:
    for child in list(element):
        if _tag(child) in ("TextEquiv", "Word"):
            element.remove(child)
    written = ElementTree.Element(f"{prefix}TextEquiv")
    if line.confidence is not None:
        written.set("conf", f"{line.confidence:.4f}")
    ElementTree.SubElement(written, f"{prefix}Unicode").text = line.text
    after = [i for i, child in enumerate(element) if _tag(child) in ("Coords", "Baseline")]
    element.insert(after[-1] + 1 if after else len(element), written)  # the schema's order: before TextStyle


def _write_alto_line(element: Element, line: RecognisedLine, prefix: str) -> None:
    for child in list(element):
        if _tag(child) in ("String", "SP", "HYP"):
            element.remove(child)
    left, width = float(element.get("HPOS", 0)), float(element.get("WIDTH", 0))
    words = line.words or (RecognisedWord(line.text, 0.0, 1.0),)
    for i, word in enumerate(words):
        if i:
            ElementTree.SubElement(element, f"{prefix}SP")
        string = ElementTree.SubElement(element, f"{prefix}String", {"CONTENT": word.text})
        if "HPOS" in element.attrib and "WIDTH" in element.attrib:
            string.set("HPOS", f"{left + word.left * width:.0f}")
            string.set("WIDTH", f"{max(word.right - word.left, 0) * width:.0f}")
        for name in ("VPOS", "HEIGHT"):
            if name in element.attrib:
                string.set(name, element.attrib[name])
        if line.confidence is not None:
            string.set("WC", f"{line.confidence:.4f}")


def load_page_line(image: Path, polygon: Points, width: int, height: int) -> NDArray[np.float32]:
    """Cut a line out of its page: (width, 1, height), with paper around its outline.

    Raises:
        DataError: the page image cannot be decoded, or has shrunk.
    """
    darkness = _cut(image, polygon)
    rows, columns = darkness.shape
    if round(columns * height / rows) != width:
        raise DataError(f"{image}: its size has changed since it was read; read the data again")
    return normalised(darkness, width, height)


def _cut(image: Path, polygon: Points) -> NDArray[np.float32]:
    """(rows, columns) of darkness inside of an outline; the page's usual value around it."""
    page = _decoded(image, image.stat().st_mtime_ns)
    left, top, right, bottom = _box(polygon, (page.shape[1], page.shape[0]))
    part = page[top:bottom, left:right]
    pillow = import_pillow()
    from PIL import ImageDraw

    mask = pillow.new("1", (right - left, bottom - top))
    ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in polygon], fill=1, outline=1)
    inside = np.asarray(mask)
    if not inside.any():
        return part
    return np.where(inside, part, np.median(part[inside])).astype(np.float32)


@functools.lru_cache(maxsize=PAGES_IN_MEMORY)
def _decoded(image: Path, changed: int) -> NDArray[np.float32]:
    return open_grey(image)


def _box(polygon: Points, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what of an outline lies in the image.

    Raises:
        DataError: nothing does.
    """
    x, y = zip(*polygon, strict=True)
    left, top = max(0, int(min(x))), max(0, int(min(y)))
    right, bottom = min(size[0], int(max(x)) + 1), min(size[1], int(max(y)) + 1)
    if right - left < 1 or bottom - top < 2:
        raise DataError(
            f"its outline from ({min(x):g}, {min(y):g}) to ({max(x):g}, {max(y):g}) leaves nothing of the image of "
            f"{size[0]} x {size[1]} pixels; correct the outline, or the image that the page names"
        )
    return left, top, right, bottom


def _page_line(path: Path, number: int, element: Element) -> PageLine:
    coords = _child(element, "Coords")
    points = _points_of(coords)
    if len(points) < 3:
        raise DataError(f"{path} line {_id(element, number)}: found no outline (Coords), expected 3 points or more")
    texts = [(int(e.get("index", 0)), e) for e in element if _tag(e) == "TextEquiv"]
    text = None
    if texts:
        best = min(texts, key=lambda pair: pair[0])[1]
        unicode = _child(best, "Unicode")
        text = "" if unicode is None else unicode.text or ""
    return PageLine(_id(element, number), points, text)


def _points_of(coords: Element | None) -> Points:
    """Of the attribute points='x,y x,y', or of Point elements (2010)."""
    if coords is None:
        return ()
    if coords.get("points"):
        return _points(str(coords.get("points")))
    return tuple((float(p.get("x", 0)), float(p.get("y", 0))) for p in coords if _tag(p) == "Point")


def _points(text: str) -> Points:
    """'x,y x,y' of PAGE and ALTO 4, 'x y x y' of older ALTO."""
    try:
        numbers = [float(number) for number in text.replace(",", " ").split()]
    except ValueError:
        return ()
    return tuple(zip(numbers[::2], numbers[1::2], strict=False))


def _alto_line(path: Path, number: int, element: Element) -> PageLine:
    polygon = _first(element, "Polygon")
    points = () if polygon is None else _points(polygon.get("POINTS", ""))
    if len(points) < 3:
        try:
            left, top = float(element.attrib["HPOS"]), float(element.attrib["VPOS"])
            right, bottom = left + float(element.attrib["WIDTH"]), top + float(element.attrib["HEIGHT"])
        except (KeyError, ValueError):
            where = f"{path} line {_id(element, number)}"
            raise DataError(f"{where}: found no outline, expected a Polygon, or HPOS, VPOS, WIDTH and HEIGHT") from None
        points = ((left, top), (right, top), (right, bottom), (left, bottom))
    strings = [child for child in element if _tag(child) in ("String", "HYP")]
    text = None
    if strings:
        parts: list[str] = []
        for child in strings:
            parts += [] if not parts or _tag(child) == "HYP" else [" "]
            parts.append(child.get("CONTENT", ""))
        text = "".join(parts)
    return PageLine(_id(element, number), points, text)


def _id(element: Element, number: int) -> str:
    return element.get("id") or element.get("ID") or f"line{number}"


def _image_of(path: Path, name: str) -> Path:
    """The image that a page names: as it says from the file's folder on, else beside the file.

    Raises:
        DataError: neither is there.
    """
    named = name.replace("\\", "/")
    places = [path.parent / named, path.parent / named.rsplit("/", 1)[-1]]
    for place in places:
        if place.is_file():
            return place
    looked = " and ".join(dict.fromkeys(str(place) for place in places))
    raise DataError(f"{path}: its page image {name!r} is not there (looked for {looked}); put it beside the file")


def _parse(path: Path) -> Element:
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise DataError(f"{path}: cannot be read as XML ({error}); expected PAGE or ALTO") from None
    if _tag(root) not in ("PcGts", "alto"):
        raise DataError(f"{path}: found XML of <{_tag(root)}>, expected PAGE (PcGts) or ALTO (alto)")
    return root


def _is_page(root: Element) -> bool:
    return _tag(root) == "PcGts"


def _tag(element: Element) -> str:
    """Without its namespace, which differs from version to version."""
    return str(element.tag).rpartition("}")[2]


def _all(element: Element, tag: str) -> Iterator[Element]:
    return (found for found in element.iter() if _tag(found) == tag)


def _first(element: Element, tag: str) -> Element | None:
    return next(_all(element, tag), None)


def _child(element: Element, tag: str) -> Element | None:
    return next((child for child in element if _tag(child) == tag), None)


def _files(source: Source) -> dict[str, Path]:
    if isinstance(source, Path) and source.is_dir():
        return {name: source / name for name in walk(source) if _looks_so(source / name)}
    paths: Sequence[Path] = source if isinstance(source, tuple) else (source,)
    return {str(path): path for path in paths}


def _looks_so(path: Path) -> bool:
    """Whether the first bytes of an .xml file name PAGE or ALTO."""
    if path.suffix.lower() != ".xml" or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(2000)
    return b"PcGts" in head or b"<alto" in head or b":alto" in head


def _claims(path: Path) -> bool:
    if path.is_dir():
        return any(_looks_so(path / name) for name in walk(path) if name.lower().endswith(".xml"))
    return _looks_so(path)


PAGE_XML = Reader(
    name="page",
    suffixes=SUFFIXES,
    claims=_claims,
    read=read_pages,
    options=frozenset({"group", "height"}),
    many_files=True,
)
