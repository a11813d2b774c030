"""Language models, lexicons and hot words in the beam search."""

import json
import math

import numpy as np
import pytest
from all_paths import outputs, paths

from crnn.decode.beam import BeamConfig, BeamSearch
from crnn.decode.ctc import decode
from crnn.decode.ngram import train_ngrams
from crnn.decode.scorers import HotWords, LanguageModel, Lexicon, Together, read_arpa_words
from crnn.errors import ConfigError, DataError

SYMBOLS = (" ", "a", "b")
WIDE = BeamConfig(width=10_000, min_log_prob=-1000.0)


@pytest.fixture(scope="module")
def arpa(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "words.arpa"
    train_ngrams([line.split() for line in ["a ab", "ab a ba", "a a ab", "ba"]], 3).save(path)
    return path


def best_text(log_probs: np.ndarray, score) -> str:
    """The best transcript over all paths, weighed by score(text); texts as the normal form has them."""
    total: dict[tuple[int, ...], float] = {}
    for _, labels, value in paths(log_probs):
        total[labels] = np.logaddexp(total.get(labels, -math.inf), value)
    texts = {labels: "".join(SYMBOLS[n - 1] for n in labels) for labels in total}
    return texts[max(total, key=lambda labels: total[labels] + score(texts[labels]))]


def text_of(search: BeamSearch, log_probs: np.ndarray) -> str:
    return "".join(SYMBOLS[span.label - 1] for span in decode(search, log_probs))


@pytest.mark.parametrize("seed", range(5))
def test_words_are_weighed_as_kenlm_scores_the_sentence(arpa, seed):
    kenlm = pytest.importorskip("kenlm")
    model, log_probs = kenlm.Model(str(arpa)), outputs(6, 4, seed)

    def score(text: str) -> float:
        return 0.8 * math.log(10) * model.score(" ".join(text.split())) + 0.3 * len(text.split())

    scorer = LanguageModel(arpa, SYMBOLS, weight=0.8, bonus=0.3)
    assert text_of(BeamSearch(WIDE, scorer), log_probs) == best_text(log_probs, score)


@pytest.mark.parametrize("seed", range(3))
def test_characters_are_weighed_one_by_one(tmp_path, seed):
    kenlm = pytest.importorskip("kenlm")
    train_ngrams([["a", "▁", "a", "b"], ["b", "a"]], 3).save(tmp_path / "c.arpa")
    model, log_probs = kenlm.Model(str(tmp_path / "c.arpa")), outputs(6, 4, seed)
    scorer = LanguageModel(tmp_path / "c.arpa", SYMBOLS, weight=0.5, bonus=0.1)
    assert scorer.of_characters

    def score(text: str) -> float:
        spelt = " ".join("▁" if c == " " else c for c in text)
        return 0.5 * math.log(10) * model.score(spelt) + 0.1 * len(text)

    assert text_of(BeamSearch(WIDE, scorer), log_probs) == best_text(log_probs, score)


@pytest.mark.parametrize("seed", range(5))
def test_a_lexicon_allows_its_words_only(seed):
    log_probs = outputs(6, 4, seed)
    allowed = {"ab", "ba", "b"}

    def score(text: str) -> float:
        words = text.removesuffix(" ").split(" ") if text else []
        return 0.0 if all(word in allowed for word in words) else -math.inf

    assert text_of(BeamSearch(WIDE, Lexicon(allowed, SYMBOLS)), log_probs) == best_text(log_probs, score)


@pytest.mark.parametrize("seed", range(5))
def test_hot_words_earn_their_bonus_once_they_are_whole(seed):
    log_probs = outputs(6, 4, seed)
    words = {"ab": 2.0, "abb": 1.0}

    def score(text: str) -> float:
        return sum(words.get(word, 0.0) for word in text.split(" "))

    assert text_of(BeamSearch(WIDE, HotWords(words, SYMBOLS)), log_probs) == best_text(log_probs, score)


def test_streams_with_a_language_model_equal_the_whole(arpa):
    log_probs = outputs(300, 4, 5) * 1.5
    log_probs -= np.logaddexp.reduce(log_probs, 1, keepdims=True)
    scorer = Together(
        [LanguageModel(arpa, SYMBOLS), Lexicon(["a", "ab", "ba"], SYMBOLS), HotWords({"ba": 2.0}, SYMBOLS)]
    )
    config = BeamConfig(width=8)
    whole = decode(BeamSearch(config, scorer), log_probs)
    search, found = BeamSearch(config, scorer), []
    for part in np.split(log_probs, 20):
        found += search.push(part)
        again = BeamSearch(config, scorer)
        again.restore(json.loads(json.dumps(search.state())))
        search = again
    assert found
    assert found + search.finish() == whole
    text = "".join(SYMBOLS[span.label - 1] for span in whole)
    assert set(text.split()) <= {"a", "ab", "ba"}


def test_flashlight_finds_the_same_text_with_the_same_model(tmp_path):
    decoder = pytest.importorskip("flashlight.lib.text.decoder")
    kenlm = pytest.importorskip("flashlight.lib.text.decoder.kenlm")
    dictionary = pytest.importorskip("flashlight.lib.text.dictionary")
    path = tmp_path / "c.arpa"
    train_ngrams([["a", "▁", "a", "b"], ["b", "a"], ["b", "b", "▁", "a"]], 3).save(path)
    tokens = dictionary.Dictionary(["<blank>", "▁", "a", "b"])
    options = decoder.LexiconFreeDecoderOptions(200, 10, 1e9, 0.7 * math.log(10), 0.0, True, decoder.CriterionType.CTC)
    for seed in range(4):
        log_probs = np.ascontiguousarray(outputs(30, 4, seed) * 2, dtype=np.float32)
        theirs = decoder.LexiconFreeDecoder(options, kenlm.KenLM(str(path), tokens), -1, 0, [])
        result = theirs.decode(log_probs.ctypes.data, *log_probs.shape)[0]
        scorer = LanguageModel(path, SYMBOLS, weight=0.7)
        ours = [span.label for span in decode(BeamSearch(BeamConfig(width=200, min_log_prob=-1e3), scorer), log_probs)]
        kept, last = [], 0
        for token in result.tokens:
            kept += [token] if token != last and token > 0 else []
            last = token
        assert ours == kept


def test_bad_files(tmp_path, arpa):
    assert read_arpa_words(arpa).words == ["a", "ab", "ba"]
    with pytest.raises(DataError, match=r"only 0 of its 3 words can be spelt.*also has 'a', 'b'.*another alphabet"):
        LanguageModel(arpa, ("ж", " "))
    (tmp_path / "x.arpa").write_text("hello\n")
    with pytest.raises(DataError, match=r"x.arpa line 1: found 'hello', expected \\data\\, as crnn lm train writes it"):
        read_arpa_words(tmp_path / "x.arpa")
    with pytest.raises(DataError, match="No such file"):
        read_arpa_words(tmp_path / "none.arpa")
    with pytest.raises(DataError, match="none of its words"):
        Lexicon(["xyz"], SYMBOLS)
    with pytest.raises(ConfigError, match="hot word 'abc': the model has no letter"):
        HotWords({"abc": 1.0}, SYMBOLS)
