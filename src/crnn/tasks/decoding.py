"""How a transcriber's outputs become text: greedily, or by a search with what is known of the language."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from pathlib import Path

from crnn.config import config
from crnn.data.codec import Codec
from crnn.decode.beam import BeamConfig, BeamSearch, Scorer
from crnn.decode.ctc import Decoder, Greedy
from crnn.decode.scorers import HotWords, LanguageModel, Lexicon, Together
from crnn.errors import ConfigError, DataError

DEFAULT_WIDTH = 16


@config
class Decoding:
    """The decoder of a transcriber."""

    beam: int = 0
    """Hypotheses that are kept (prefix beam search); 0 takes the best label of each frame."""
    lm: str | None = None
    """ARPA file of words or of characters."""
    lm_weight: float | None = None
    """Of the language model; None takes what was tuned on validation, else 0.5."""
    word_bonus: float | None = None
    """For each word (or character) of a language model's; None takes what was tuned, else 0."""
    lexicon: str | None = None
    """File of words, one a line: only these are written; "lm" takes the words of the language model."""
    hot_words: dict[str, float] = field(default_factory=dict)
    """Words to listen for, with a bonus (natural logarithm) of 2 to 10."""

    def __post_init__(self) -> None:
        if self.beam < 0:
            raise ConfigError(f"beam={self.beam}; expected 0 (greedy) or a width such as 16")
        if self.lexicon == "lm" and self.lm is None:
            raise ConfigError("lexicon=lm takes the words of a language model; give one with --lm, or a file of words")

    @property
    def is_greedy(self) -> bool:
        """Whether nothing is searched."""
        return not (self.beam or self.lm or self.lexicon or self.hot_words)

    def prepare(self, codec: Codec, *, weight: float = 0.5, bonus: float = 0.0) -> Callable[[], Decoder]:
        """What makes a decoder for each sequence; files are read here, once.

        Args:
            weight, bonus: where this config leaves them open.
        Raises:
            DataError: a file that cannot be used. ConfigError: a language model for text that runs right to left.
        """
        if self.is_greedy:
            return Greedy
        if codec.config.direction == "right-to-left" and (self.lm or self.lexicon or self.hot_words):
            raise ConfigError(
                "a language model, lexicon or hot words: labels of right-to-left lines are in visual order, where "
                "words run backwards; use --beam alone"
            )
        search = BeamConfig(width=self.beam or DEFAULT_WIDTH)
        scorer = self._scorer(codec, weight, bonus)
        return lambda: BeamSearch(search, scorer)

    def _scorer(self, codec: Codec, weight: float, bonus: float) -> Scorer | None:
        scorers: list[Scorer] = []
        words: list[str] = []
        if self.lm is not None:
            weight = weight if self.lm_weight is None else self.lm_weight
            bonus = bonus if self.word_bonus is None else self.word_bonus
            model = LanguageModel(self.lm, codec.symbols, weight=weight, bonus=bonus)
            scorers.append(model)
            words = model.words
        if self.lexicon is not None:
            words = words if self.lexicon == "lm" else read_words(self.lexicon, codec)
            scorers.append(Lexicon(words, codec.symbols))
        if self.hot_words:
            hot = {codec.normalise(word): bonus for word, bonus in self.hot_words.items()}
            scorers.append(HotWords(hot, codec.symbols))
        return scorers[0] if len(scorers) == 1 else Together(scorers) if scorers else None


def read_words(path: str, codec: Codec) -> list[str]:
    """Words of a file, one a line, in the codec's normal form.

    Raises:
        DataError: no such file, not UTF-8, or no words.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"lexicon {path}: cannot be read ({error.strerror}); expected a file of words") from None
    except UnicodeDecodeError as error:
        raise DataError(f"lexicon {path}: byte {error.start + 1} is no UTF-8; save it as UTF-8") from None
    words = [word for line in lines if (word := codec.normalise(line).strip())]
    if not words:
        raise DataError(f"lexicon {path}: found no words, expected one a line")
    return words
