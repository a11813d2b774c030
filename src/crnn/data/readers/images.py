"""Images of text lines: PNG, JPEG, TIFF and others through Pillow, to grey, ink high, at one height and any width."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.data.dataset import Dataset, Example, Problem
from crnn.data.readers.files import FoundFiles, labelled_files, walk
from crnn.data.readers.reader import Reader, ReadOptions, Source, make_dataset
from crnn.errors import ConfigError, DataError, MissingExtraError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".pgm", ".gif")
DEFAULT_HEIGHT = 32
"""Pixels, as Shi et al. 2015 have them; 48 costs 2.3 times as much. For small marks above letters, give more."""
MIN_HEIGHT, MAX_HEIGHT = 8, 512
MIN_WIDTH = 4
"""Columns at that height below which an image holds no text."""
LOOK = 64
"""Images that are decoded while reading, to say whether they are inverted."""
MIN_CONTRAST = 0.1
"""Difference between ink and paper, of 1, below which it is not stretched: noise would become ink."""
PAPER_QUANTILE, INK_QUANTILE = 0.1, 0.99
"""Of the darkness of all pixels: less than a half of a line is ink, and more than a hundredth."""


def read_images(source: Source, options: ReadOptions) -> Dataset:
    """Read a folder of line images (or one, or a list of them), with x.gt.txt beside x.png; only headers are opened.

    Raises:
        MissingExtraError: Pillow is not installed.
        ConfigError: a height that cannot be.
    """
    found = labelled_files(source, SUFFIXES, options)
    return read_found(found, options, str(source) if isinstance(source, Path) else f"{len(source)} files")


def read_found(found: FoundFiles, options: ReadOptions, source: str) -> Dataset:
    """The same for files that are known already, such as those that a manifest names."""
    height = line_height(options)
    examples, problems = [], found.problems
    for file in found.files:
        try:
            width = scaled_width(read_size(file.path), height, str(file.path))
        except DataError as error:
            problems.append(Problem(file.where, str(error).removeprefix(f"{file.path}: ")))
            continue
        load = functools.partial(load_line, file.path, width, height)
        examples.append(Example(file.id, file.where, width, load, file.target, file.group, file.split))
    problems += inverted_among([functools.partial(open_grey, file.path) for file in found.files], source)
    return image_dataset(examples, problems, height, f"{source} ({found.how})")


def image_dataset(examples: Sequence[Example], problems: Sequence[Problem], height: int, source: str) -> Dataset:
    """Line images as a data set: one channel, columns as frames."""
    return make_dataset(
        examples,
        problems,
        kind="image",
        channel_names=("grey",),
        source=source,
        in_memory=False,
        height=height,
    )


def line_height(options: ReadOptions) -> int:
    """The height that was asked for, or the usual one.

    Raises:
        ConfigError: too low to read, or too high to compute.
    """
    height = DEFAULT_HEIGHT if options.height is None else options.height
    if not MIN_HEIGHT <= height <= MAX_HEIGHT:
        raise ConfigError(f"height: found {height}, expected {MIN_HEIGHT} to {MAX_HEIGHT} pixels, such as 32")
    return height


def scaled_width(size: tuple[int, int], height: int, where: str) -> int:
    """Columns of an image of (width, height) pixels when it is scaled to `height`.

    Raises:
        DataError: too few to hold text.
    """
    width = round(size[0] * height / size[1])
    if width < MIN_WIDTH:
        turned = "; if the line runs downwards, turn it" if size[1] > 4 * size[0] else ""
        raise DataError(
            f"{where}: found an image of {size[0]} x {size[1]} pixels, which leaves {width} columns at height "
            f"{height}, expected {MIN_WIDTH} or more; leave it out{turned}"
        )
    return width


def read_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels, from the header; a PNG's chunks are checked without decoding them.

    Raises:
        DataError: no such file, empty, not an image, damaged, or of several pages.
    """
    image = _open(path)
    with image:
        if getattr(image, "n_frames", 1) > 1:
            raise DataError(f"{path}: found {image.n_frames} pages, expected one line an image; save each apart")
        size = (int(image.width), int(image.height))
        if image.format == "PNG":
            try:
                image.verify()
            except (OSError, SyntaxError, ValueError) as error:
                raise DataError(f"{path}: damaged ({error}); get the file again") from None
    return size


def _open(path: Path) -> Any:
    pillow = import_pillow()
    if not path.is_file():
        raise DataError(f"{path}: found no such file, expected an image; correct the name")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: found an empty file, expected an image; get the file again")
    try:
        return pillow.open(path)
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        what = "not an image" if isinstance(error, import_unidentified()) else str(error)
        raise DataError(f"{path}: unreadable ({what}); expected PNG, JPEG, TIFF or the like") from None


def open_grey(path: Path) -> NDArray[np.float32]:
    """(height, width) darkness: 0 for white, 1 for black; what is transparent is white.

    Raises:
        DataError: it cannot be decoded.
    """
    pillow = import_pillow()
    with _open(path) as image:
        try:
            image.load()
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{path}: cannot be decoded ({error}); it is cut off or damaged: get it again") from None
        if image.mode.startswith(("I", "F")):  # 16 bits, or values of any range
            values = np.asarray(image, dtype=np.float32)
            top = 65535.0 if image.mode.startswith("I") else max(float(values.max()), 1e-9)
            return np.asarray(1 - values / top, dtype=np.float32)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            white = pillow.new("RGBA", image.size, (255, 255, 255, 255))
            image = pillow.alpha_composite(white, image)
        return np.asarray(1 - np.asarray(image.convert("L"), dtype=np.float32) / 255, dtype=np.float32)


def is_inverted(darkness: NDArray[np.float32]) -> bool:
    """Whether most of an image is dark: bright writing on a dark ground."""
    low, middle, high = np.quantile(darkness, (0.01, 0.5, 0.99))
    return bool(high - low >= MIN_CONTRAST and middle > (low + high) / 2)


def normalised(darkness: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """(rows, columns) of darkness as (width, 1, height): ink 1, paper 0, whatever the two were."""
    if is_inverted(darkness):
        darkness = 1 - darkness
    pillow = import_pillow()
    grey = pillow.fromarray(np.rint(darkness * 255).astype(np.uint8))
    scaled = np.asarray(grey.resize((width, height), pillow.Resampling.BILINEAR), dtype=np.float32) / 255
    paper, ink = np.quantile(scaled, (PAPER_QUANTILE, INK_QUANTILE))
    levelled = ((scaled - paper) / max(float(ink - paper), MIN_CONTRAST)).clip(0, 1)
    return np.ascontiguousarray(levelled.T[:, None, :], dtype=np.float32)


def load_line(path: Path, width: int, height: int) -> NDArray[np.float32]:
    """Decode a line image to (width, 1, height).

    Raises:
        DataError: it cannot be decoded, or has another size than before.
    """
    darkness = open_grey(path)
    rows, columns = darkness.shape
    if round(columns * height / rows) != width:
        raise DataError(f"{path}: its size has changed to {columns} x {rows} since it was read; read the data again")
    return normalised(darkness, width, height)


def inverted_among(opens: Sequence[Callable[[], NDArray[np.float32]]], source: str) -> list[Problem]:
    """One warning where some of up to LOOK images are inverted; those that cannot be decoded say so on load."""
    count = inverted = 0
    for i in sorted(set(np.linspace(0, len(opens) - 1, LOOK).round().astype(int))) if opens else ():
        try:
            inverted += is_inverted(opens[i]())
            count += 1
        except DataError:
            continue
    if not inverted:
        return []
    what = f"{inverted} of {count} images looked at are bright on dark; they are turned to dark on bright"
    return [Problem(source, what, "warning")]


def import_pillow() -> Any:
    """PIL.Image, which the extra 'ocr' brings."""
    try:
        import PIL.Image
    except ImportError:
        raise MissingExtraError("line images need Pillow, which is not installed; pip install crnn[ocr]") from None
    return PIL.Image


def import_unidentified() -> type[Exception]:
    """Pillow's error for a file that is no image."""
    from PIL import UnidentifiedImageError

    return UnidentifiedImageError


def _claims(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() in SUFFIXES
    return path.is_dir() and any(name.lower().endswith(SUFFIXES) for name in walk(path))


IMAGES = Reader(
    name="images",
    suffixes=SUFFIXES,
    claims=_claims,
    read=read_images,
    options=frozenset({"labels", "target", "group", "pattern", "height"}),
    many_files=True,
)
