"""Options of the decoder of a transcriber, said once, and put into its task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from crnn.model import Model

Beam = Annotated[int | None, typer.Option(help="Hypotheses of a transcriber's beam search, such as 16; else greedy.")]
Lm = Annotated[str | None, typer.Option(help="ARPA language model for a transcriber, of words or characters.")]
LmWeight = Annotated[float | None, typer.Option(help="Of the language model; else as tuned, or 0.5.")]
WordBonus = Annotated[float | None, typer.Option(help="For each word with a language model; else as tuned, or 0.")]
Lexicon = Annotated[str | None, typer.Option(help="File of the only words to write; lm for those of --lm.")]
HotWord = Annotated[list[str] | None, typer.Option(help="A word to listen for, or word=bonus; may be given often.")]
HOT_BONUS = 4.0


def choose(
    model: Model,
    *,
    beam: int | None,
    lm: str | None,
    lm_weight: float | None,
    word_bonus: float | None,
    lexicon: str | None,
    hot_word: list[str] | None,
) -> str | None:
    """Put what was asked for into the model's task; the first option that was, None where nothing is changed.

    Raises:
        ConfigError: the model is no transcriber, or a bonus is no number. DataError: a file that cannot be used.
    """
    from crnn.config import to_plain
    from crnn.errors import ConfigError
    from crnn.tasks.decoding import Decoding
    from crnn.tasks.transcribe import Transcribe

    asked: dict[str, Any] = {
        "beam": beam,
        "lm": lm,
        "lm_weight": lm_weight,
        "word_bonus": word_bonus,
        "lexicon": lexicon,
        "hot_words": _bonuses(hot_word or []) or None,
    }
    asked = {name: value for name, value in asked.items() if value is not None}
    if not asked:
        return None
    option = "--" + next(iter(asked)).replace("_", "-").replace("hot-words", "hot-word")
    if not isinstance(model.task, Transcribe):
        raise ConfigError(f"{option}: is for transcribers, but this model's task is {model.task.name}; leave it out")
    model.task.decoding = Decoding(**{**to_plain(model.task.decoding), **asked})
    model.task.make_decoder()  # files are read now, so that a wrong one is said before anything is computed
    return option


def _bonuses(words: list[str]) -> dict[str, float]:
    from crnn.errors import ConfigError

    found = {}
    for word in words:
        name, equals, bonus = word.partition("=")
        try:
            found[name] = float(bonus) if equals else HOT_BONUS
        except ValueError:
            raise ConfigError(f"--hot-word {word}: {bonus!r} is no number; expected word or word=4") from None
    return found
