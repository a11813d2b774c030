"""Text as a target: in a column of a table, or in a small file beside each recording or image."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from crnn.errors import DataError

TEXT_NAMES = ("text", "transcript", "transcription", "sentence", "utterance", "ground_truth", "gt")
"""Columns of free text: never split into labels, never read as numbers."""
SUFFIXES = (".gt.txt", ".txt", ".lab", ".transcript")
"""Of the file beside: a.gt.txt or a.txt for a.wav or a.png."""
STEPS_OF_OCROPUS = (".bin", ".nrm", ".dew", ".raw")
"""Before the suffix of an image: a.gt.txt stands beside a.bin.png, too."""


def is_text_column(name: str) -> bool:
    """Whether a column of this name holds free text."""
    return name.strip().lower() in TEXT_NAMES


class Transcripts:
    """The files of text beside recordings or images.

    They count when at least half of the files have one: then a file without is a bad place.
    """

    def __init__(self, names: Iterable[str], all_names: Iterable[str]) -> None:
        names, there = list(names), set(all_names)
        self._beside = {name: found for name in names if (found := _beside(name, there))}
        self.found = len(self._beside) >= max(1, len(names) / 2)

    def name_for(self, name: str) -> str:
        """The file of text of a recording or image.

        Raises:
            DataError: none.
        """
        if name not in self._beside:
            stem = PurePosixPath(name).stem
            raise DataError(
                f"found no transcript {stem}.txt or {stem}.gt.txt beside it; write one, or leave the file out"
            )
        return self._beside[name]


def _beside(name: str, there: set[str]) -> str | None:
    stem = name[: -len(PurePosixPath(name).suffix)] if PurePosixPath(name).suffix else name
    stems = [stem, *(stem.removesuffix(step) for step in STEPS_OF_OCROPUS if stem.endswith(step))]
    beside = (stem + suffix for stem in stems for suffix in SUFFIXES)
    return next((file for file in beside if file in there and file != name), None)


def read_transcript(path: Path) -> str:
    """The text of a file, without the byte order mark and whitespace at its ends.

    Raises:
        DataError: not UTF-8; empty.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"transcript {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        legacy = path.read_bytes().decode("latin-1").strip()
        raise DataError(
            f"transcript {path}: byte {error.start + 1} is no UTF-8; as Latin-1 it would be {legacy[:40]!r}; save the "
            "file as UTF-8"
        ) from None
    return checked_text(text, f"transcript {path}: ")


def checked_text(text: str | None, where: str = "") -> str:
    """Text that says something.

    Raises:
        DataError: none, or only whitespace.
    """
    if text is None or not text.strip():
        raise DataError(f"{where}found an empty transcript, expected text; write what is there, or leave it out")
    return text.strip()
