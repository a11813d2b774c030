"""What is known of a language, as scorers of the beam search: n-grams, a list of words, words to listen for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from crnn.decode.beam import Scorer
from crnn.decode.ngram import BEGIN, END, UNKNOWN
from crnn.errors import ConfigError, DataError, MissingExtraError

SPACES = ("▁", "|", "<space>")
"""How language models of characters write a space, the first one is ours."""
LN10 = math.log(10)
LEAST_KNOWN = 0.5
"""Share of a language model's words that must be spelt in a model's letters; below, it is of another alphabet."""


class Arpa(NamedTuple):
    """What the head of an ARPA file says."""

    order: int
    words: list[str]
    """Without <s>, </s> and <unk>."""

    @property
    def is_of_characters(self) -> bool:
        """Whether its words are single characters."""
        return all(len(word) == 1 or word in SPACES for word in self.words)


def read_arpa_words(path: str | Path) -> Arpa:
    """Order and words of an ARPA file.

    Raises:
        DataError: no such file, or it is none.
    """
    order, words, inside = 0, [], False
    try:
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if number == 1 and line.strip() not in ("\\data\\", ""):
                    found = line.strip()[:30]
                    raise DataError(f"{path} line 1: found {found!r}, expected \\data\\, as crnn lm train writes it")
                if line.startswith("ngram "):
                    order = max(order, int(line[6:].split("=")[0]))
                elif line.startswith("\\"):
                    if inside:
                        break
                    inside = line.strip() == "\\1-grams:"
                elif inside and line.strip():
                    words.append(line.split()[1])
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; expected an ARPA file, as crnn lm train writes") from None
    except (UnicodeDecodeError, ValueError, IndexError) as error:
        raise DataError(f"{path}: {error}; expected an ARPA file in UTF-8, as crnn lm train writes") from None
    if not order or not words:
        raise DataError(f"{path}: found no n-grams; expected an ARPA file, as crnn lm train writes")
    return Arpa(order, [word for word in words if word not in (BEGIN, END, UNKNOWN)])


class LanguageModel:
    """n-grams of words or of characters, read by KenLM.

    Words are scored when they end, with a space or with the text; characters at once.
    Args:
        path: an ARPA file; whether it is of words or of characters is seen from its words.
        symbols: the codec's; label i + 1 is symbols[i].
        weight: of the model's log probability.
        bonus: for each word (or character), against a preference for short texts.
    Raises:
        DataError: no ARPA file, or one in another alphabet.
        MissingExtraError: kenlm is not installed.
    """

    def __init__(self, path: str | Path, symbols: Sequence[str], *, weight: float = 0.5, bonus: float = 0.0) -> None:
        self.path, self.weight, self.bonus = Path(path), weight, bonus
        arpa = read_arpa_words(path)
        self.order, self.words, self.of_characters = arpa.order, arpa.words, arpa.is_of_characters
        _check_alphabet(self.path, arpa, symbols)
        self._kenlm, self._model = _load_kenlm(self.path)
        space = next((s for s in SPACES if s in set(arpa.words)), SPACES[0])
        self._symbols = ["", *(space if self.of_characters and s == " " else s for s in symbols)]
        self._space = symbols.index(" ") + 1 if " " in symbols else -1

    def start(self) -> Any:
        """The beginning of a sentence, and no word begun."""
        state = self._kenlm.State()
        self._model.BeginSentenceWrite(state)
        return state, ""

    def extend(self, state: Any, label: int) -> tuple[Any, float]:
        """A character is scored at once, a word at the space behind it."""
        before, word = state
        if self.of_characters:
            after, score = self._score(before, self._symbols[label])
            return (after, ""), score
        if label != self._space:
            return (before, word + self._symbols[label]), 0.0
        if not word:
            return state, 0.0
        after, score = self._score(before, word)
        return (after, ""), score

    def end(self, state: Any) -> float:
        """The word that was begun, and the end of the sentence."""
        before, word = state
        score = 0.0
        if word:
            before, score = self._score(before, word)
        return score + self._score(before, END)[1] - self.bonus

    def recent(self, labels: list[int]) -> list[int]:
        """The last `order` words, or characters, and what is begun."""
        if self.of_characters:
            return labels[-self.order :]
        return last_words(labels, self._space, self.order)

    def _score(self, state: Any, word: str) -> tuple[Any, float]:
        after = self._kenlm.State()
        score = self._model.BaseScore(state, word, after)
        return after, self.weight * LN10 * score + self.bonus


class Lexicon:
    """Only these words, separated by single spaces.

    Args:
        words: those that the symbols cannot spell are left out.
    Raises:
        DataError: none of the words can be spelt.
    """

    def __init__(self, words: Iterable[str], symbols: Sequence[str]) -> None:
        number = {symbol: i for i, symbol in enumerate(symbols, 1)}
        self._space = number.get(" ", -1)
        self._trie: dict[int, Any] = {}
        count = 0
        for word in words:
            if not word or any(c not in number for c in word):
                continue
            node = self._trie
            for c in word:
                node = node.setdefault(number[c], {})
            node[END_OF_WORD] = {}
            count += 1
        if not count:
            raise DataError(
                "lexicon: none of its words can be spelt in the model's letters; is it of another alphabet?"
            )

    def start(self) -> Any:
        """Before a word."""
        return self._trie

    def extend(self, state: Any, label: int) -> tuple[Any, float] | None:
        """On within a word, or a space after one."""
        if label == self._space:
            return (self._trie, 0.0) if END_OF_WORD in state else None
        after = state.get(label)
        return None if after is None else (after, 0.0)

    def end(self, state: Any) -> float | None:
        """At the end of a word, or with no word."""
        return 0.0 if END_OF_WORD in state or state is self._trie else None

    def recent(self, labels: list[int]) -> list[int]:
        """The word that is begun."""
        return last_words(labels, self._space, 0)


END_OF_WORD = 0
"""In a lexicon's tree; no label of a text has the number of the blank."""


class HotWords:
    """Words to listen for: each earns a bonus as it is spelt, and loses it where it turns out to be another word.

    Args:
        words: word -> bonus, a natural logarithm; 2 to 10 are usual.
    """

    def __init__(self, words: dict[str, float], symbols: Sequence[str]) -> None:
        for word in words:
            unknown = sorted({c for c in word if c not in symbols})
            if unknown or not word:
                raise ConfigError(
                    f"hot word {word!r}: the model has no letter {unknown}; spell it in the model's letters"
                )
        self._symbols = ["", *symbols]
        self._space = symbols.index(" ") + 1 if " " in symbols else -1
        self._whole = dict(words)
        self._begun: dict[str, float] = {}
        for word, bonus in words.items():
            for n in range(1, len(word) + 1):
                self._begun[word[:n]] = max(self._begun.get(word[:n], 0.0), bonus * n / len(word))

    def start(self) -> Any:
        """No word begun."""
        return ""

    def extend(self, state: Any, label: int) -> tuple[Any, float]:
        """The change of the bonus."""
        held = self._begun.get(state, 0.0)
        if label == self._space:
            return "", self._whole.get(state, 0.0) - held
        word = state + self._symbols[label]
        return word, self._begun.get(word, 0.0) - held

    def end(self, state: Any) -> float:
        """What is begun counts only as a whole word."""
        return self._whole.get(state, 0.0) - self._begun.get(state, 0.0)

    def recent(self, labels: list[int]) -> list[int]:
        """The word that is begun."""
        return last_words(labels, self._space, 0)


class Together:
    """Several scorers: their scores add up, and what one forbids is forbidden."""

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        self.scorers = list(scorers)

    def start(self) -> Any:
        """The states of all."""
        return tuple(scorer.start() for scorer in self.scorers)

    def extend(self, state: Any, label: int) -> tuple[Any, float] | None:
        """All of them, or none."""
        after, total = [], 0.0
        for scorer, own in zip(self.scorers, state, strict=True):
            extended = scorer.extend(own, label)
            if extended is None:
                return None
            after.append(extended[0])
            total += extended[1]
        return tuple(after), total

    def end(self, state: Any) -> float | None:
        """All of them, or none."""
        total = 0.0
        for scorer, own in zip(self.scorers, state, strict=True):
            score = scorer.end(own)
            if score is None:
                return None
            total += score
        return total

    def recent(self, labels: list[int]) -> list[int]:
        """As many as the one that looks back furthest needs."""
        return max((scorer.recent(labels) for scorer in self.scorers), key=len, default=[])


def last_words(labels: list[int], space: int, count: int) -> list[int]:
    """The labels of the last `count` words and of the one that is begun; all of them where no label is a space."""
    found = 0
    for i in range(len(labels) - 1, -1, -1):
        if labels[i] == space:
            found += 1
            if found > count:
                return labels[i + 1 :]
    return labels


def _check_alphabet(path: Path, arpa: Arpa, symbols: Sequence[str]) -> None:
    letters = {*symbols, *SPACES}
    spelt = sum(word in SPACES or all(c in letters for c in word) for word in arpa.words)
    if spelt >= LEAST_KNOWN * len(arpa.words):
        return
    unknown = sorted({c for word in arpa.words for c in word if c not in letters})
    kind = "characters" if arpa.is_of_characters else "words"
    raise DataError(
        f"{path}: only {spelt} of its {len(arpa.words)} {kind} can be spelt in the model's {len(symbols)} letters "
        f"(it also has {', '.join(map(repr, unknown[:8]))}); it is of another alphabet; train one on text of this "
        "language and case with crnn lm train"
    )


def _load_kenlm(path: Path) -> tuple[Any, Any]:
    try:
        import kenlm
    except ImportError:
        raise MissingExtraError('a language model needs kenlm; install it with pip install "crnn[lm]"') from None
    settings = kenlm.Config()
    settings.show_progress = False
    settings.arpa_complain = kenlm.ARPALoadComplain.NONE
    try:
        return kenlm, kenlm.Model(str(path), settings)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{path}: KenLM cannot read it ({str(error)[:200]}); write it again with crnn lm train"
        ) from None
