"""Text to label numbers and back: normal form, whitespace, units, direction; number 0 is CTC's blank.

Grapheme units follow the core of Unicode's rule for extended grapheme clusters (UAX 29): a base with its combining
marks, variation selectors, emoji modifiers and tags; what a zero width joiner joins after a symbol; pairs of regional
indicators; Hangul jamo of one syllable; CR LF. Not covered are prepended marks and the conjuncts of Indic scripts: they
stay separate units.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from crnn.config import build_config, config, to_plain
from crnn.errors import ConfigError, DataError

BLANK = 0
"""The number of CTC's blank, in every codec."""
JOINER = "\u200d"
RARE = 5
"""A unit seen less often than this can hardly be learnt."""

Resize = Literal["add", "union", "new", "fail"]


@config
class CodecConfig:
    """How text becomes units."""

    units: Literal["characters", "graphemes"] = "characters"
    """One label a code point, or a letter together with its combining marks."""
    form: Literal["NFC", "NFD", "NFKC", "NFKD", "none"] = "NFC"
    """Unicode normal form; NFKC and NFKD lose distinctions (superscripts, ligatures, long s)."""
    whitespace: Literal["collapse", "keep", "remove"] = "collapse"
    """Runs of whitespace become one space, and none is left at the ends; or all is kept; or all is dropped."""
    direction: Literal["left-to-right", "right-to-left"] = "left-to-right"
    """How lines of an image run. Right to left, labels are put in visual order; numbers and Latin words in a line keep
    their own direction."""


@dataclass(frozen=True)
class Resized:
    """A codec for other text, and where the rows of its outputs come from."""

    codec: Codec
    rows: list[int | None]
    """For each output of the new codec, blank first: the output of the old one, or None where it is new."""
    added: list[str]
    removed: list[str]

    def describe(self) -> str:
        """The difference in one line."""
        if not self.added and not self.removed:
            return f"letters as before: {len(self.codec.symbols)}"
        parts = [f"{len(self.codec.symbols)} letters"]
        parts += [f"{len(self.added)} new: {show(self.added)}"] if self.added else []
        parts += [f"{len(self.removed)} dropped: {show(self.removed)}"] if self.removed else []
        return "; ".join(parts)


class Codec:
    """The labels of a transcriber: symbol i of `symbols` has number i + 1, and 0 is the blank.

    Promise: decode(encode(text)) is normalise(text) wherever all its units are known.
    Raises:
        ConfigError: a symbol twice, or one that is not a single unit in this codec's normal form.
    """

    def __init__(self, symbols: Sequence[str], config: CodecConfig | None = None) -> None:
        self.config = config or CodecConfig()
        self.symbols = tuple(symbols)
        self._number = {symbol: i for i, symbol in enumerate(self.symbols, BLANK + 1)}
        if len(self._number) < len(self.symbols):
            twice = [symbol for symbol, n in Counter(self.symbols).items() if n > 1]
            raise ConfigError(f"codec: {show(twice)} given more than once; expected different symbols")
        for symbol in self.symbols:
            if not symbol or (symbol != " " and self._units(symbol) != [symbol]):
                raise ConfigError(
                    f"codec: symbol {symbol!r} is not one of the {self.config.units} of {self.config.form}"
                )

    @classmethod
    def of(cls, texts: Iterable[str], config: CodecConfig | None = None) -> Codec:
        """All units of these texts, in the order of their code points."""
        bare = cls((), config)
        return cls(sorted({unit for text in texts for unit in bare._units(bare.normalise(text))}), config)

    @property
    def num_outputs(self) -> int:
        """Symbols and the blank."""
        return len(self.symbols) + 1

    def normalise(self, text: str) -> str:
        """Text in this codec's normal form and whitespace."""
        if self.config.form != "none":
            text = unicodedata.normalize(self.config.form, text)
        if self.config.whitespace == "keep":
            return text
        return ("" if self.config.whitespace == "remove" else " ").join(text.split())

    def encode(self, text: str, where: str) -> list[int]:
        """Numbers of the text's units; none where the text is empty.

        Raises:
            DataError: units that this codec does not have: which, where, and what they may be.
        """
        units = self._units(self.normalise(text))
        unknown = sorted({unit for unit in units if unit not in self._number})
        if unknown:
            raise DataError(f"{where}: {self.about_unknown(unknown, text)}")
        return [self._number[unit] for unit in self._order(units)]

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of label numbers, in reading order; blanks are left out."""
        return "".join(self._order([self.symbols[n - 1] for n in numbers if n != BLANK]))

    def reading_order(self, numbers: Sequence[int]) -> list[int]:
        """Positions of labels in the order in which their text is read: 0, 1, ... unless it runs right to left."""
        if self.config.direction == "left-to-right":
            return list(range(len(numbers)))
        return _visual_order([self.symbols[n - 1] for n in numbers])

    def unknown(self, text: str) -> list[str]:
        """Units of a text that this codec does not have."""
        return sorted({unit for unit in self._units(self.normalise(text)) if unit not in self._number})

    def units(self, text: str) -> list[str]:
        """A text's units in reading order, normalised."""
        return self._units(self.normalise(text))

    def about_unknown(self, unknown: Sequence[str], text: str) -> str:
        """A message for units that are not among the symbols: found, expected, what to do."""
        hint = "retrain, or crnn finetune with --resize add"
        if looks_mistaken_for_latin1(text):
            hint = f"UTF-8 read as Latin-1? it would read {text.encode('latin-1').decode()[:40]!r}; save it as UTF-8"
        elif "\ufffd" in text:
            hint = "U+FFFD stands for bytes that were no UTF-8; save the text as UTF-8"
        known = [s for s in self.symbols if s.casefold() in {u.casefold() for u in unknown}]
        case = f"; known in another case: {show(known)}" if known else ""
        return f"found {show(unknown)}, not among the {len(self.symbols)} letters of the training text{case}; {hint}"

    def resize(self, texts: Iterable[str], how: Resize, where: str = "new text") -> Resized:
        """A codec for new text.

        Args:
            how: "add" and "union" keep all old symbols and append new ones; "new" takes those of the new text only;
                "fail" allows no new symbol.
        Raises:
            DataError: "fail" and a new symbol.
        """
        found = Codec.of(texts, self.config).symbols
        added = [symbol for symbol in found if symbol not in self._number]
        removed = [symbol for symbol in self.symbols if symbol not in set(found)] if how == "new" else []
        if how == "fail" and added:
            raise DataError(f"{where}: found {len(added)} new letters {show(added)}; --resize add takes them in")
        symbols = found if how == "new" else (*self.symbols, *added)
        rows = [BLANK, *(self._number.get(symbol) for symbol in symbols)]
        return Resized(Codec(symbols, self.config), rows, added, removed)

    def state(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"symbols": list(self.symbols), "config": to_plain(self.config)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Codec:
        """What `state` gave."""
        return cls(state["symbols"], build_config(CodecConfig, state["config"], "codec"))

    def _units(self, text: str) -> list[str]:
        return graphemes(text) if self.config.units == "graphemes" else list(text)

    def _order(self, units: list[str]) -> list[str]:
        if self.config.direction == "left-to-right":
            return units
        return [units[i] for i in _visual_order(units)]


def looks_mistaken_for_latin1(text: str) -> bool:
    """Whether text is UTF-8 that was read as Latin-1: 'Ã¤' for 'ä'."""
    if text.isascii():
        return False
    try:
        return text.encode("latin-1").decode("utf-8") != text
    except UnicodeError:
        return False


def show(symbols: Sequence[str], limit: int = 12) -> str:
    """Symbols for messages: "'ä' (U+00E4), ' ' (U+0020)"."""
    shown = [f"{s!r} ({' '.join(f'U+{ord(c):04X}' for c in s)})" for s in symbols[:limit]]
    return ", ".join(shown) + (f" and {len(symbols) - limit} more" if len(symbols) > limit else "")


def graphemes(text: str) -> list[str]:
    """User-perceived characters; what the rule covers is said at the top of this file."""
    units: list[str] = []
    for character in text:
        if units and _extends(units[-1], character):
            units[-1] += character
        else:
            units.append(character)
    return units


def _extends(unit: str, character: str) -> bool:
    """Whether a character belongs to the unit before it."""
    if unit == "\r" or unit[-1] in "\n\r" or unicodedata.category(unit[-1]) == "Cc":
        return unit == "\r" and character == "\n"
    code = ord(character)
    if unicodedata.category(character) in ("Mn", "Me", "Mc") or character == JOINER:
        return True
    if 0x1F3FB <= code <= 0x1F3FF or 0xE0020 <= code <= 0xE007F:  # skin tones, tags
        return True
    if unit[-1] == JOINER and len(unit) > 1:
        return unicodedata.category(character) == "So" and unicodedata.category(unit[0]) == "So"
    if _is_regional(character):
        return len(unit) == 1 and _is_regional(unit)
    return (_jamo(unit[-1]), _jamo(character)) in JAMO_PAIRS


JAMO_PAIRS = {("L", "L"), ("L", "V"), ("L", "LV"), ("L", "LVT"), ("LV", "V"), ("LV", "T"), ("V", "V"), ("V", "T")} | {
    ("LVT", "T"),
    ("T", "T"),
}
"""Hangul letters that stay together."""


def _jamo(character: str) -> str:
    code = ord(character)
    if 0x1100 <= code <= 0x115F or 0xA960 <= code <= 0xA97C:
        return "L"
    if 0x1160 <= code <= 0x11A7 or 0xD7B0 <= code <= 0xD7C6:
        return "V"
    if 0x11A8 <= code <= 0x11FF or 0xD7CB <= code <= 0xD7FB:
        return "T"
    if 0xAC00 <= code <= 0xD7A3:
        return "LVT" if (code - 0xAC00) % 28 else "LV"
    return ""


def _is_regional(character: str) -> bool:
    return 0x1F1E6 <= ord(character[0]) <= 0x1F1FF


def _visual_order(units: Sequence[str]) -> list[int]:
    """Positions from right to left, with runs of left-to-right text kept; applied twice it gives the first order.

    A run goes from one letter or digit that runs left to right to another with no right-to-left letter in between.
    """
    runs: list[list[int]] = []
    since: list[int] = []  # neutral positions after the current run
    open_run = False
    for i, unit in enumerate(units):
        kind = unicodedata.bidirectional(unit[0])
        if kind in ("L", "EN", "AN"):
            if open_run:
                runs[-1] += [*since, i]
            else:
                runs += [[j] for j in since] + [[i]]
            since, open_run = [], True
        elif kind in ("R", "AL"):
            runs += [*([j] for j in since), [i]]
            since, open_run = [], False
        else:
            since.append(i)
    runs += [[j] for j in since]
    return [i for run in reversed(runs) for i in run]


def rare_symbols(codec: Codec, texts: Iterable[str], below: int = RARE) -> dict[str, int]:
    """Symbols that occur, but less often than `below`, with their counts."""
    counts = Counter(unit for text in texts for unit in codec.units(text))
    return {symbol: n for symbol, n in sorted(counts.items(), key=lambda item: (item[1], item[0])) if n < below}
