"""Rendered, degraded lines of text: from fonts and sentences to folders of PNG and .gt.txt, the same for the same seed.

    python benchmarks/lines.py OUT --train 2000 --test 300

writes OUT/train (fonts that matplotlib ships), OUT/test (the same fonts, other sentences) and OUT/unseen (other
families: Liberation and FreeFont, where they are installed). Sentences come from the text files of --text, else from
the Debian package 'fortunes', else they are put together from the words that stand below.
"""

from __future__ import annotations

import argparse
import itertools
import re
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SHIPPED = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
)
"""Text faces among the fonts of matplotlib."""
UNSEEN = (Path("/usr/share/fonts/truetype/liberation"), Path("/usr/share/fonts/truetype/freefont"))
FORTUNES = Path("/usr/share/games/fortunes")
SHORTEST, LONGEST = 25, 60
"""Characters of a line."""
WHO = ("The baker", "A tall guest", "My aunt Zoe", "Mr Quick", "The pilot", "Nobody", "An old judge", "Xaver", "She")
DOES = ("counts", "paints", "wraps", "hides", "juggles", "buys", "forgets", "sells", "mends", "asks for", "knows")
WHAT = ("4 red boxes", "35 plums", "the key", "a blue kite", "6 jars of fig jam", "her hat", "10 maps", "it", "2 keys")
WHEN = ("at noon.", "in May, too.", "(twice a week).", "for $7 & 80 cents!", 'and says: "Why?"', "- or so.", "by 9:15;")


def find_fonts(*, unseen: bool) -> list[Path]:
    """The faces to render with, in a fixed order."""
    if unseen:
        return sorted(path for folder in UNSEEN for path in folder.glob("*.ttf"))
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [folder / f"{name}.ttf" for name in SHIPPED]


def find_sentences(files: list[Path], *, own: bool = False) -> list[str]:
    """Different lines of plain ASCII of a usual length, sorted, so that their order depends on no file system."""
    if not files and FORTUNES.is_dir() and not own:
        files = [path for path in FORTUNES.iterdir() if path.is_file() and not path.suffix]
    if not files:
        return sorted(" ".join(words) for words in itertools.product(WHO, DOES, WHAT, WHEN))
    found = set()
    for path in files:
        for line in path.read_text(encoding="utf-8", errors="ignore").splitlines():
            text = re.sub(r"\s+", " ", line).strip()
            if SHORTEST <= len(text) <= LONGEST and text.isascii() and text.isprintable() and text.count(" ") >= 3:
                found.add(text)
    return sorted(found)


def render(
    text: str, font: Path, random: np.random.Generator, *, sizes: tuple[int, int] = (26, 33), worn: bool = True
) -> NDArray[np.uint8]:
    """A grey image of a line, (height, width); worn: as a scanner may see it, else as it was printed."""
    face = ImageFont.truetype(str(font), size=int(random.integers(*sizes)))
    left, top, right, bottom = face.getbbox(text)
    margin = int(random.integers(4, 9))
    image = Image.new("L", (int(right - left) + 2 * margin, int(bottom - top) + 2 * margin), 255)
    ink = int(random.integers(0, 70))
    ImageDraw.Draw(image).text((margin - left, margin - top), text, font=face, fill=ink)
    return degrade(image, random) if worn else np.asarray(image)


def degrade(image: Image.Image, random: np.random.Generator) -> NDArray[np.uint8]:
    """Rotation to 0.6 degrees, blur, down- and up-sampling, a gradient of the paper, noise and specks."""
    angle = float(random.uniform(-0.6, 0.6))
    image = image.rotate(angle, resample=Image.Resampling.BICUBIC, expand=True, fillcolor=255)
    image = image.filter(ImageFilter.GaussianBlur(float(random.uniform(0.3, 1.1))))
    size, share = image.size, float(random.uniform(0.6, 1.0))
    small = (max(1, round(size[0] * share)), max(1, round(size[1] * share)))
    image = image.resize(small, Image.Resampling.BILINEAR).resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(image, dtype=np.float32)
    height, width = pixels.shape
    across, down = random.uniform(-25, 25), random.uniform(-10, 10)
    shade = np.linspace(-across, across, width)[None, :] + np.linspace(-down, down, height)[:, None]
    pixels = pixels - random.uniform(0, 40) + shade + random.normal(0, random.uniform(4, 14), pixels.shape)
    for _ in range(random.poisson(width / 150)):
        y, x, radius = random.integers(height), random.integers(width), random.integers(1, 3)
        pixels[y : y + radius, x : x + radius] = random.choice((20.0, 235.0))
    return pixels.clip(0, 255).astype(np.uint8)


def write_lines(folder: Path, texts: list[str], fonts: list[Path], seed: int) -> None:
    """One image and one .gt.txt a text; image i depends on the seed and i alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, text in enumerate(texts):
        random = np.random.default_rng([seed, i])
        font = fonts[int(random.integers(len(fonts)))]
        Image.fromarray(render(text, font, random)).save(folder / f"{i:05}.png")
        (folder / f"{i:05}.gt.txt").write_text(text + "\n", encoding="utf-8")


def write_sets(out: Path, *, train: int, test: int, seed: int = 0, files: list[Path] | None = None) -> list[str]:
    """The folders train, test and (where other fonts are there) unseen below `out`; returns their names.

    No sentence stands in two of them.
    """
    sentences = find_sentences(files or [])
    order = np.random.default_rng(seed).permutation(len(sentences))
    unseen = find_fonts(unseen=True)
    counts = {"train": train, "test": test, **({"unseen": test} if unseen else {})}
    if sum(counts.values()) > len(sentences):
        raise SystemExit(
            f"--text: found {len(sentences)} sentences, expected {sum(counts.values())}; install the Debian package "
            "fortunes, name more text files, or ask for fewer lines"
        )
    at = 0
    for number, (name, count) in enumerate(counts.items()):
        texts = [sentences[i] for i in order[at : at + count]]
        fonts = unseen if name == "unseen" else find_fonts(unseen=False)
        write_lines(out / name, texts, fonts, 1000 * seed + number)
        at += count
    return list(counts)


def write_example(out: Path) -> None:
    """Small, clean lines: 48 in OUT/train, 12 in OUT/test, and 4 on a page, with PAGE XML, beside OUT."""
    sentences = find_sentences([], own=True)
    order = np.random.default_rng(7).permutation(len(sentences))
    fonts = [font for font in find_fonts(unseen=False) if font.stem in ("DejaVuSans", "DejaVuSerif", "STIXGeneral")]
    images = []
    for i, number in enumerate(order[:64]):
        text = sentences[number]
        pixels = render(text, fonts[i % len(fonts)], np.random.default_rng(i), sizes=(18, 21), worn=False)
        image = Image.fromarray((pixels // 32 * 36).astype(np.uint8)).quantize(8)
        if i >= 60:
            images.append((text, image.convert("L")))
            continue
        folder = out / ("train" if i < 48 else "test")
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{i:02}.png", optimize=True)
        (folder / f"{i:02}.gt.txt").write_text(text + "\n", encoding="utf-8")
    _write_page(out.parent / "page", images)


def _write_page(out: Path, images: list[tuple[str, Image.Image]]) -> None:
    """Lines below each other on one image, their outlines and texts as PAGE."""
    out.mkdir(parents=True, exist_ok=True)
    page = Image.new("L", (40 + max(image.width for _, image in images), 60 * len(images) + 20), 252)
    marked = []
    for i, (text, image) in enumerate(images):
        left, top = 20, 20 + 60 * i
        page.paste(image, (left, top))
        right, bottom = left + image.width - 1, top + image.height - 1
        points = f"{left},{top} {right},{top} {right},{bottom} {left},{bottom}"
        escaped = text.replace("&", "&amp;").replace("<", "&lt;")
        marked.append(
            f'      <TextLine id="line{i + 1}"><Coords points="{points}"/>\n'
            f"        <TextEquiv><Unicode>{escaped}</Unicode></TextEquiv></TextLine>"
        )
    page.quantize(8).save(out / "page.png", optimize=True)
    corners = f"0,0 {page.width - 1},0 {page.width - 1},{page.height - 1} 0,{page.height - 1}"
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15">',
        f'  <Page imageFilename="page.png" imageWidth="{page.width}" imageHeight="{page.height}">',
        f'    <TextRegion id="region"><Coords points="{corners}"/>',
        *marked,
        "    </TextRegion>",
        "  </Page>",
        "</PcGts>",
    ]
    (out / "page.xml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, nargs="?", help="the folder to write; none shows how to call it")
    parser.add_argument("--example", action="store_true", help="write what examples/lines and examples/page hold")
    parser.add_argument("--train", type=int, default=2000, help="lines to train on")
    parser.add_argument("--test", type=int, default=300, help="lines of each test set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--text", type=Path, nargs="*", default=[], help="files of sentences, a line each")
    options = parser.parse_args()
    if options.out is None:  # as `make bench` calls every file
        parser.print_usage()
    elif options.example:
        write_example(options.out)
    else:
        names = write_sets(options.out, train=options.train, test=options.test, seed=options.seed, files=options.text)
        print(f"{options.out}: {', '.join(names)}")


if __name__ == "__main__":
    main()
