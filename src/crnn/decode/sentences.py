"""Text files as sentences of words or characters, for training language models."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from crnn.decode.scorers import SPACES
from crnn.errors import DataError

Form = Literal["NFC", "NFD", "NFKC", "NFKD", "none"]


def read_sentences(
    paths: Iterable[str | Path], *, form: Form = "NFC", characters: bool = False, lower: bool = False
) -> list[list[str]]:
    """The lines of text files, empty ones left out, each as words or as characters (a space is ▁).

    Raises:
        DataError: no such file, or not UTF-8.
    """
    found = []
    for path in paths:
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); expected a text file") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: byte {error.start + 1} is no UTF-8; save the text as UTF-8") from None
        text = text if form == "none" else unicodedata.normalize(form, text)
        for line in (text.lower() if lower else text).splitlines():
            words = line.split()
            if words:
                found.append(list(SPACES[0].join(words)) if characters else words)
    return found
