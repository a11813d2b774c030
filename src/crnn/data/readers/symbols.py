"""Biological sequences as symbol ids: one alphabet for all of them, and what is done with case, gaps and stop marks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crnn.alphabets import ALPHABETS, GAPS, STOP, Alphabet, recognise
from crnn.config import nearest
from crnn.data.annotation import StepLabels
from crnn.data.dataset import Dataset, Example, Problem, Target
from crnn.data.readers.reader import Split, make_dataset
from crnn.errors import ConfigError, DataError

_WITHOUT_GAPS = str.maketrans("", "", GAPS)


@dataclass(frozen=True)
class RawSequence:
    """A sequence as it is written, and what is known about it."""

    id: str
    """Made unique if it is not."""
    where: str
    text: str
    target: Target = None
    group: str | None = None
    split: Split = None


def find_alphabet(name: str | None, texts: Sequence[str]) -> Alphabet:
    """The alphabet that was asked for, else the one that the letters show.

    Raises:
        ConfigError: no such alphabet.
    """
    if name is None:
        return recognise(texts)
    if name not in ALPHABETS:
        raise ConfigError(f"alphabet: found {name!r}{nearest(name, list(ALPHABETS))}")
    return ALPHABETS[name]


def symbols_dataset(
    rows: Sequence[RawSequence], problems: Sequence[Problem], *, alphabet: str | None, source: str
) -> Dataset:
    """Rows as a data set of symbol ids; rows that cannot be read so are left out and stand in `problems`.

    Lower case (soft-masked repeats) is read as upper case, gap marks are removed, and a stop mark at the end of a
    protein too; one warning each says how many sequences had them. A letter that is no symbol, a stop mark inside, and
    a sequence without a symbol are errors of that row.
    """
    letters = find_alphabet(alphabet, [row.text for row in rows])
    examples: list[Example] = []
    found = list(problems)
    seen: Counter[str] = Counter()
    oddities: dict[str, list[str]] = {}
    for row in rows:
        try:
            ids, odd = _read(row.text, letters)
            row = _with_labels_of(row, ids)
        except DataError as error:
            found.append(Problem(row.where, str(error)))
            continue
        for what in odd:
            oddities.setdefault(what, []).append(row.where)
        seen[row.id] += 1
        name = row.id if seen[row.id] == 1 else f"{row.id} ({seen[row.id]})"
        examples.append(_example(name, row, ids))
    for what, places in oddities.items():
        where = places[0] if len(places) == 1 else f"{len(places)} of {len(rows)} sequences, the first {places[0]}"
        found.append(Problem(where, what, "warning"))
    how = "as asked" if alphabet else "recognised by its letters"
    return make_dataset(
        examples,
        found,
        kind="symbols",
        channel_names=(),
        source=f"{source} ({letters.name}, {how})",
        vocabulary=letters.vocabulary,
    )


def _example(name: str, row: RawSequence, ids: NDArray[np.uint8]) -> Example:
    """Held as one byte a symbol."""
    return Example(name, row.where, len(ids), lambda: ids.astype(np.int64), row.target, row.group, row.split)


def _with_labels_of(row: RawSequence, ids: NDArray[np.uint8]) -> RawSequence:
    """The row with a label for each id, those of gaps and stop marks left out where they have one.

    Raises:
        DataError: other numbers of labels and symbols.
    """
    if not isinstance(row.target, StepLabels):
        return row
    codes = row.target.codes
    if len(codes) == len(row.text) != len(ids):
        kept = [i for i, letter in enumerate(row.text) if letter not in GAPS + STOP]
        codes = codes[kept]
    if len(codes) != len(ids):
        raise DataError(f"found {len(codes)} labels for {len(ids)} symbols; expected one a symbol")
    return replace(row, target=StepLabels(codes, row.target.names))


def _read(text: str, letters: Alphabet) -> tuple[NDArray[np.uint8], list[str]]:
    """Ids of a sequence, and what was odd about how it is written.

    Raises:
        DataError: nothing is left, or a letter is none of the alphabet.
    """
    odd = []
    if any(gap in text for gap in GAPS):
        text = text.translate(_WITHOUT_GAPS)
        odd.append("gap marks (- and .) were removed; is this an alignment?")
    if letters.name == "protein" and text.endswith(STOP):
        text = text[:-1]
        odd.append("the stop mark (*) at the end was removed")
    if letters.name == "protein" and STOP in text:
        raise DataError(
            f"found a stop mark (*) at position {text.index(STOP) + 1}, expected it at the end only; is this a "
            "translation in another frame? cut it, or remove it"
        )
    if not text:
        raise DataError(f"the sequence is empty, expected {letters.describe}; remove it")
    if not text.isupper():
        odd.append("lower case (soft-masked?) is read as upper case")
    return letters.encode(text), odd
