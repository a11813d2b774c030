"""Modified Kneser-Ney, by hand, by its sums, and as KenLM reads it."""

import itertools
import math

import numpy as np
import pytest

from crnn.decode.ngram import BEGIN, END, FALLBACK, UNKNOWN, train_ngrams
from crnn.errors import ConfigError, DataError

TEXT = ["a b a", "a b", "b a b"]
SENTENCES = [line.split() for line in TEXT]


def sentences(seed: int, count: int = 300) -> list[list[str]]:
    random = np.random.default_rng(seed)
    words = [f"w{i}" for i in range(40)]
    return [[words[int(i)] for i in random.zipf(1.4, size=random.integers(1, 9)) % 40] for _ in range(count)]


def test_numbers_by_hand():
    # Bigrams: <s>a 2, <s>b 1, ab 3, ba 2, a</s> 1, b</s> 2. Words before: a {<s>, b}, b {<s>, a}, </s> {a, b}.
    model = train_ngrams(SENTENCES, order=2)
    assert model.discounts == [FALLBACK, FALLBACK]  # no count of 4
    unigram = (2 - 1.0) / 6 + (3 * 1.0 / 6) * (1 / 4)  # three words of continuation count 2; four words with <unk>
    assert model.probabilities[0] == pytest.approx(
        {("a",): unigram, ("b",): unigram, (END,): unigram, (UNKNOWN,): 1 / 8, (BEGIN,): 0.0}
    )
    # after a: b 3, </s> 1; taken 1.5 + .5 of 4
    assert model.probabilities[1][("a", "b")] == pytest.approx((3 - 1.5) / 4 + 0.5 * unigram)
    assert model.backoffs[("a",)] == pytest.approx(0.5)
    assert model.log10("a", ["a"]) == pytest.approx(math.log10(0.5 * unigram))
    assert model.log10("zebra", ["a"]) == pytest.approx(math.log10(0.5 / 8))


def test_discounts_follow_the_counts_of_counts():
    words = ["e", "f", "g", "h", "d", "d", "c", "c", "b", "b", "b", "a", "a", "a", "a"]
    model = train_ngrams([words], order=1)
    counts = {1: 5, 2: 2, 3: 1, 4: 1}  # </s> too
    share = counts[1] / (counts[1] + 2 * counts[2])
    assert model.discounts[0] == pytest.approx([n - (n + 1) * share * counts[n + 1] / counts[n] for n in (1, 2, 3)])


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_add_up_to_one(order):
    model = train_ngrams(sentences(0), order)
    everything = [*model.vocabulary, END, UNKNOWN]
    contexts = [(), (BEGIN,), ("w1",), ("w1", "w2"), ("nowhere",), (BEGIN, "w3"), ("w1", "w1", "w1")]
    for context in contexts:
        assert sum(10 ** model.log10(word, context) for word in everything) == pytest.approx(1)


@pytest.mark.parametrize("order", [2, 3, 5])
def test_kenlm_reads_the_same_numbers(order, tmp_path):
    kenlm = pytest.importorskip("kenlm")
    model = train_ngrams(sentences(1), order)
    model.save(tmp_path / "a.arpa")
    read = kenlm.Model(str(tmp_path / "a.arpa"))
    assert read.order == order
    for sentence in [*sentences(2, 20), ["zebra", "w1"]]:
        words = [BEGIN, *sentence, END]
        ours = [model.log10(word, words[:i]) for i, word in enumerate(words) if i]
        theirs = [score for score, _, _ in read.full_scores(" ".join(sentence))]
        assert ours == pytest.approx(theirs, abs=1e-4)
    text = sentences(2, 20)
    theirs = -sum(read.score(" ".join(s)) for s in text) / sum(len(s) + 1 for s in text)
    assert model.perplexity(text) == pytest.approx(10**theirs, rel=1e-3)


def test_more_context_is_better_on_text_with_order():
    text = [list("abcd" * 4)[i % 4 :] for i in range(50)]
    assert train_ngrams(text, 3).perplexity(text) < train_ngrams(text, 1).perplexity(text) / 2


def test_bad_input():
    with pytest.raises(ConfigError, match="order=0"):
        train_ngrams(SENTENCES, 0)
    with pytest.raises(DataError, match="found no sentence"):
        train_ngrams([], 2)
    with pytest.raises(DataError, match="sentence 2: found <s>"):
        train_ngrams([["a"], ["<s>"]], 2)
    assert train_ngrams([["a"]], 9).order == 3


def test_every_longer_gram_has_its_shorter_ones():
    model = train_ngrams(sentences(3), 4)
    for shorter, longer in itertools.pairwise(model.probabilities):
        assert all(gram[:-1] in shorter or gram[:-1] == (BEGIN,) for gram in longer)
        assert all(gram[1:] in shorter for gram in longer)
