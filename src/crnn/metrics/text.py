"""Error rates of text under named normalisation profiles, so that a convention is not taken for an error."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

_LIKE = {"'": "‘’‚‛′ʼ`´", '"': "“”„‟″«»", "-": "‐‑‒–—―−", " ": "\u00a0", "...": "…", "s": "ſ"}
_LIKE |= {"ff": "ﬀ", "fi": "ﬁ", "fl": "ﬂ", "ffi": "ﬃ", "ffl": "ﬄ"}
_TABLE = {ord(shape): plain for plain, shapes in _LIKE.items() for shape in shapes}


def exact(text: str) -> str:
    """Every character counts."""
    return text


def plain(text: str) -> str:
    """Quotes and dashes of every shape as in ASCII, ligatures as letters, long s as s."""
    return text.translate(_TABLE)


def caseless(text: str) -> str:
    """As plain, without upper and lower case."""
    return plain(text).casefold()


def letters(text: str) -> str:
    """As caseless, without punctuation: letters, marks, digits and symbols in words."""
    kept = (c if unicodedata.category(c)[0] != "P" else " " for c in caseless(text))
    return " ".join("".join(kept).split())


PROFILES: dict[str, Callable[[str], str]] = {
    "exact": exact,
    "plain": plain,
    "caseless": caseless,
    "letters": letters,
}
"""Side by side in every report; the first is what counts."""


def script_of(character: str) -> str:
    """A coarse name of a character's script: the first word of its Unicode name, or what kind of sign it is."""
    kind = unicodedata.category(character)[0]
    if kind == "N":
        return "digits"
    if kind in "PSZC":
        return {"P": "punctuation", "S": "symbols", "Z": "spaces", "C": "control"}[kind]
    return unicodedata.name(character, "unknown").split()[0].capitalize()
