"""Language models of n-grams: counts smoothed by modified Kneser-Ney, written as ARPA.

Source: Chen & Goodman 1998, TR-10-98, section 3 (interpolated, three discounts an order); as in Heafield et al. 2013,
n-grams that begin a sentence keep their plain counts, and discounts that a small text does not determine are fixed.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from crnn.errors import ConfigError, DataError

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where counts do not determine them, as in KenLM's --discount_fallback."""

Gram = tuple[str, ...]


@dataclass(frozen=True)
class NGramModel:
    """Probabilities of n-grams; `log10` of one that was not seen follows by backing off.

    Promise: for any context the probabilities of all words, of </s> and of <unk> add up to 1.
    """

    order: int
    probabilities: list[dict[Gram, float]]
    """By length, 1 first."""
    backoffs: dict[Gram, float]
    """Weight of the shorter context, for contexts that were seen."""
    discounts: list[tuple[float, float, float]]
    """By length: taken from n-grams seen once, twice, more often."""
    num_tokens: int

    @property
    def vocabulary(self) -> list[str]:
        """All words, without <s>, </s> and <unk>."""
        return sorted(word for (word,) in self.probabilities[0] if word not in (BEGIN, END, UNKNOWN))

    def log10(self, word: str, context: Sequence[str] = ()) -> float:
        """Logarithm of the probability of a word after others."""
        if (word,) not in self.probabilities[0]:
            word = UNKNOWN
        before = tuple(context)[-(self.order - 1) :] if self.order > 1 else ()
        weight = 0.0
        while before:
            known = self.probabilities[len(before)].get((*before, word))
            if known is not None:
                return math.log10(known) + weight
            weight += math.log10(self.backoffs.get(before, 1.0))
            before = before[1:]
        return math.log10(self.probabilities[0][(word,)]) + weight

    def perplexity(self, sentences: Iterable[Sequence[str]]) -> float:
        """Inverse geometric mean of the probability of a word, ends counted."""
        total, count = 0.0, 0
        for sentence in sentences:
            words = [BEGIN, *sentence, END]
            total += sum(self.log10(word, words[:i]) for i, word in enumerate(words) if i)
            count += len(words) - 1
        return float(10 ** (-total / count)) if count else float("nan")

    def save(self, path: str | Path) -> None:
        """Write as ARPA, which KenLM, SRILM and others read."""
        lines = ["\\data\\"]
        lines += [f"ngram {n}={len(grams)}" for n, grams in enumerate(self.probabilities, 1)]
        for n, grams in enumerate(self.probabilities, 1):
            lines += ["", f"\\{n}-grams:"]
            for gram in sorted(grams):
                value = -99.0 if gram == (BEGIN,) else math.log10(grams[gram])
                backoff = f"\t{math.log10(self.backoffs.get(gram, 1.0)):.7g}" if n < self.order else ""
                lines.append(f"{value:.7g}\t{' '.join(gram)}{backoff}")
        lines += ["", "\\end\\", ""]
        Path(path).write_text("\n".join(lines), encoding="utf-8")


def train_ngrams(sentences: Iterable[Sequence[str]], order: int = 3) -> NGramModel:
    """An n-gram model of sentences, each a sequence of words (or of characters).

    Args:
        order: longest n-gram; lowered to the longest sentence, ends included, where that is shorter.
    Raises:
        ConfigError: order below 1.
        DataError: no text, or one of the reserved words in it.
    """
    if order < 1:
        raise ConfigError(f"order={order}; expected at least 1 word in an n-gram")
    counts: list[Counter[Gram]] = [Counter() for _ in range(order)]
    num_tokens = longest = 0
    for number, sentence in enumerate(sentences, 1):
        reserved = next((word for word in sentence if word in (BEGIN, END, UNKNOWN)), None)
        if reserved is not None:
            raise DataError(f"sentence {number}: found {reserved}, which stands for itself in an ARPA file; replace it")
        words = (BEGIN, *sentence, END)
        num_tokens += len(words) - 1
        longest = max(longest, len(words))
        for n, table in enumerate(counts, 1):
            table.update(words[i : i + n] for i in range(len(words) - n + 1))
    if not num_tokens:
        raise DataError("text: found no sentence, expected at least one line of text")
    order = min(order, longest)
    return _smooth(_continuations(counts[:order]), num_tokens)


def _continuations(counts: list[Counter[Gram]]) -> list[dict[Gram, int]]:
    """Below the longest, an n-gram counts once for each word that was seen before it; those at a beginning as often as
    they were seen, for nothing stands before them."""
    tables: list[dict[Gram, int]] = []
    for shorter, longer in itertools.pairwise(counts):
        table = {gram: count for gram, count in shorter.items() if gram[0] == BEGIN}
        table.update(Counter(gram[1:] for gram in longer))
        tables.append(table)
    tables.append(dict(counts[-1]))
    tables[0].pop((BEGIN,), None)  # never predicted
    return tables


def _smooth(tables: list[dict[Gram, int]], num_tokens: int) -> NGramModel:
    """Interpolate each length with the next shorter one, down to equal chances for every word."""
    size = len(tables[0]) + 1  # words, the end, and one for whatever was never seen
    uniform = 1 / size
    probabilities: list[dict[Gram, float]] = []
    backoffs: dict[Gram, float] = {}
    discounts = []
    for table in tables:
        discount = _discounts(table)
        discounts.append(discount)
        total: defaultdict[Gram, int] = defaultdict(int)
        kept: defaultdict[Gram, float] = defaultdict(float)
        for gram, count in table.items():
            total[gram[:-1]] += count
            kept[gram[:-1]] += discount[min(count, 3) - 1]
        weights = {context: kept[context] / total[context] for context in total}
        found: dict[Gram, float] = {}
        for gram, count in table.items():
            context = gram[:-1]
            shorter = uniform if not context else probabilities[-1][gram[1:]]
            share = (count - discount[min(count, 3) - 1]) / total[context]
            found[gram] = share + weights[context] * shorter
        if not probabilities:
            found[(UNKNOWN,)] = weights[()] * uniform
            found[(BEGIN,)] = 0.0
        else:
            backoffs |= weights
        probabilities.append(found)
    return NGramModel(len(tables), probabilities, backoffs, discounts, num_tokens)


def _discounts(table: dict[Gram, int]) -> tuple[float, float, float]:
    """What is taken from counts of 1, 2, and 3 or more; fixed values where a small text leaves one undefined."""
    of = Counter(min(count, 5) for count in table.values())
    if not all(of[count] for count in (1, 2, 3, 4)):
        return FALLBACK
    share = of[1] / (of[1] + 2 * of[2])
    found = tuple(n - (n + 1) * share * of[n + 1] / of[n] for n in (1, 2, 3))
    if any(not 0 <= value <= n for n, value in enumerate(found, 1)):
        return FALLBACK
    return found[0], found[1], found[2]
