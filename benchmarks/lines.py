"""Rendered, degraded lines of text: from fonts and sentences to folders of PNG and .gt.txt, the same for the same seed.

    python benchmarks/lines.py OUT --train 2000 --test 300

writes OUT/train (fonts that matplotlib ships), OUT/test (the same fonts, other sentences) and OUT/unseen (other
families: Liberation and FreeFont, where they are installed). Sentences come from the text files of --text, else from
the Debian package 'fortunes', else from the few that stand below.
"""

from __future__ import annotations

import argparse
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
SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "Sphinx of black quartz, judge my vow: 0123456789!",
    "A line is read from left to right, one column at a time.",
    "Who pays for coffee (and cake) on a Monday in June?",
    '"Never again," said Max; "I would rather walk home."',
    "In 1968 & 1975 they sold 42% of it for $3,600 a piece.",
)


def find_fonts(*, unseen: bool) -> list[Path]:
    """The faces to render with, in a fixed order."""
    if unseen:
        return sorted(path for folder in UNSEEN for path in folder.glob("*.ttf"))
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [folder / f"{name}.ttf" for name in SHIPPED]


def find_sentences(files: list[Path]) -> list[str]:
    """Different lines of plain ASCII of a usual length, sorted, so that their order depends on no file system."""
    if not files and FORTUNES.is_dir():
        files = [path for path in FORTUNES.iterdir() if path.is_file() and not path.suffix]
    if not files:
        return list(SENTENCES)
    found = set()
    for path in files:
        for line in path.read_text(encoding="utf-8", errors="ignore").splitlines():
            text = re.sub(r"\s+", " ", line).strip()
            if SHORTEST <= len(text) <= LONGEST and text.isascii() and text.isprintable() and text.count(" ") >= 3:
                found.add(text)
    return sorted(found)


def render(text: str, font: Path, random: np.random.Generator) -> NDArray[np.uint8]:
    """A grey image of a line, as a scanner may see it: (height, width)."""
    face = ImageFont.truetype(str(font), size=int(random.integers(26, 33)))
    left, top, right, bottom = face.getbbox(text)
    margin = int(random.integers(4, 9))
    image = Image.new("L", (int(right - left) + 2 * margin, int(bottom - top) + 2 * margin), 255)
    ink = int(random.integers(0, 70))
    ImageDraw.Draw(image).text((margin - left, margin - top), text, font=face, fill=ink)
    return degrade(image, random)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=2000, help="lines to train on")
    parser.add_argument("--test", type=int, default=300, help="lines of each test set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--text", type=Path, nargs="*", default=[], help="files of sentences, a line each")
    options = parser.parse_args()
    names = write_sets(options.out, train=options.train, test=options.test, seed=options.seed, files=options.text)
    print(f"{options.out}: {', '.join(names)}")


if __name__ == "__main__":
    main()
