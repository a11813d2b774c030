"""Alphabets of biological sequences: which symbols there are, what the ambiguous ones stand for, what pairs with what.

The ids are fixed for good: a model that was trained on DNA reads every DNA file alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crnn.errors import DataError

AlphabetName = Literal["dna", "rna", "protein"]

GAPS = "-."
"""Marks of an alignment; they stand for no symbol."""
STOP = "*"
"""Where translation ends."""

LIKELY = 0.9
"""Share of A, C, G, T, U and N from which letters that could also be residues are read as nucleotides."""
UNKNOWN = 255


@dataclass(frozen=True)
class Alphabet:
    """Symbols by id. The first ones are the plain ones; the rest stand for several of them in equal parts."""

    name: AlphabetName
    plain: str
    """Bases in an order that read backwards gives their complements, or the 20 residues."""
    ambiguous: tuple[tuple[str, str], ...]
    """Letter -> plain symbols that it may stand for."""
    aliases: tuple[tuple[str, str], ...] = ()
    """Letters of another spelling: U in a DNA file."""
    source: str = ""

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """The symbol of each id."""
        return (*self.plain, *(letter for letter, _ in self.ambiguous))

    @cached_property
    def fractions(self) -> NDArray[np.float32]:
        """(symbols, plain symbols): each row sums to 1."""
        table = np.zeros((len(self.vocabulary), len(self.plain)), dtype=np.float32)
        table[: len(self.plain)] = np.eye(len(self.plain))
        for row, (_, stands_for) in enumerate(self.ambiguous, len(self.plain)):
            table[row, [self.plain.index(symbol) for symbol in stands_for]] = 1 / len(stands_for)
        return table

    @cached_property
    def complement(self) -> NDArray[np.int64] | None:
        """The id that pairs with each id; None for proteins, which have one strand."""
        if self.name == "protein":
            return None
        partner = self.fractions[:, ::-1]
        return np.array([int(np.abs(self.fractions - row).sum(1).argmin()) for row in partner])

    @cached_property
    def _ids(self) -> NDArray[np.uint8]:
        """By byte, lower case too; UNKNOWN elsewhere."""
        table = np.full(256, UNKNOWN, dtype=np.uint8)
        for i, symbol in enumerate(self.vocabulary):
            table[ord(symbol)] = table[ord(symbol.lower())] = i
        for letter, meant in self.aliases:
            table[ord(letter)] = table[ord(letter.lower())] = table[ord(meant)]
        return table

    def encode(self, text: str) -> NDArray[np.uint8]:
        """Ids of a text; lower case as upper case.

        Raises:
            DataError: a letter that is none of the alphabet: which, and where.
        """
        codes = np.frombuffer(text.encode("latin-1", errors="replace"), dtype=np.uint8)
        ids = self._ids[codes]
        wrong = np.flatnonzero(ids == UNKNOWN)
        if len(wrong):
            at = int(wrong[0])
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise DataError(f"found {text[at]!r} at position {at + 1}{more}, expected {self.describe}")
        return ids

    @property
    def describe(self) -> str:
        """In words, for messages."""
        what = "residues" if self.name == "protein" else "bases"
        rest = "".join(letter for letter, _ in self.ambiguous)
        return f"{self.name} {what} {self.plain}, or {rest} for several of them"


_TWO_OR_MORE = (("R", "AG"), ("Y", "CT"), ("S", "CG"), ("W", "AT"), ("K", "GT"), ("M", "AC"), ("B", "CGT"),
                ("D", "AGT"), ("H", "ACT"), ("V", "ACG"), ("N", "ACGT"))  # fmt: skip
_IUPAC = "Cornish-Bowden 1985, Nucleic Acids Research 13(9): 3021-3030 (IUPAC-IUB recommendations 1984)"

DNA = Alphabet("dna", "ACGT", _TWO_OR_MORE, (("U", "T"), ("X", "N")), _IUPAC)
RNA = Alphabet(
    "rna",
    "ACGU",
    tuple((letter, bases.replace("T", "U")) for letter, bases in _TWO_OR_MORE),
    (("T", "U"), ("X", "N")),
    _IUPAC,
)
_RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
PROTEIN = Alphabet(
    "protein",
    _RESIDUES,
    # selenocysteine and pyrrolysine are too rare to learn: each counts as the residue that it is made like
    (("B", "DN"), ("Z", "EQ"), ("J", "IL"), ("U", "C"), ("O", "K"), ("X", _RESIDUES)),
    source="IUPAC-IUB 1984, European Journal of Biochemistry 138: 9-37; U, O and J are later additions",
)
ALPHABETS: dict[str, Alphabet] = {alphabet.name: alphabet for alphabet in (DNA, RNA, PROTEIN)}


def alphabet_of(vocabulary: tuple[str, ...]) -> Alphabet | None:
    """The alphabet that has this vocabulary; None where symbols are something else."""
    return next((alphabet for alphabet in ALPHABETS.values() if alphabet.vocabulary == vocabulary), None)


def recognise(texts: Iterable[str]) -> Alphabet:
    """The alphabet of these sequences, gaps and stop marks apart: nucleotides where hardly another letter occurs.

    Every letter of a nucleotide is one of a residue too, so a protein of few letters cannot be told for certain; what
    was recognised is to be said, and can be given instead.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    letters: Counter[str] = Counter()
    for letter, count in counts.items():
        if letter not in GAPS + STOP:
            letters[letter.upper()] += count
    nucleotides = sum(letters[base] for base in "ACGTUN")
    if letters.keys() - set("".join(DNA.vocabulary) + "UX") or nucleotides < LIKELY * letters.total():
        return PROTEIN
    return RNA if letters["U"] > letters["T"] else DNA
