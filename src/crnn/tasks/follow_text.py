"""Text of a stream as it comes: words that stand, and what the rest looks like so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crnn.data.codec import Codec
from crnn.decode.ctc import Decoder, Span
from crnn.tasks.follow import Follower, News
from crnn.tasks.transcript import Clock, Confidence, Piece, characters_of, plain_piece, words_of


class FollowText(Follower):
    """News of a transcription: each word once it is certain, and the text behind the last of them whenever it changes.

    Promise: the words that stand are those of the whole, with the same times. A word stands once the decoder cannot
    change it and its end, a space, is certain; where text has no spaces, each character stands by itself. Text that
    runs right to left stands at the end only, for its first letter is the last in time.

    Args:
        decoder: fresh, of one stream.
        of_word: its calibrated confidence.
        log_probs: from outputs (n, labels).
    """

    def __init__(
        self,
        decoder: Decoder,
        codec: Codec,
        clock: Clock,
        *,
        of_word: Confidence,
        log_probs: Callable[[torch.Tensor], NDArray[np.float32]],
    ) -> None:
        self._decoder, self._codec, self._clock = decoder, codec, clock
        self._of_word, self._log_probs = of_word, log_probs
        self._open: list[Span] = []  # of the word that is begun
        self._partial = ""

    def push(self, outputs: NDArray[np.floating[Any]]) -> list[News]:
        if not len(outputs):
            return []
        self._open += self._decoder.push(self._log_probs(torch.from_numpy(np.ascontiguousarray(outputs))))
        news = [self._standing(word) for word in self._take_words()]
        partial = "".join(piece.text for piece in self._pieces([*self._open, *self._decoder.pending()]))
        if partial != self._partial:
            self._partial = partial
            news.append({"partial": True, "text": partial})
        return news

    def finish(self, length: int) -> list[News]:
        pieces = self._pieces([*self._open, *self._decoder.finish()], length)
        self._open = []
        return [self._standing(word) for word in (words_of(pieces) if self._has_spaces else pieces)]

    def _take_words(self) -> list[Piece]:
        """The words that are whole, taken out of what is open."""
        if self._codec.config.direction == "right-to-left":
            return []
        if not self._has_spaces:
            pieces = self._pieces(self._open)
            self._open = []
            return pieces
        space = self._codec.symbols.index(" ") + 1
        ends = [i for i, span in enumerate(self._open) if span.label == space]
        if not ends:
            return []
        whole, self._open = self._open[: ends[-1]], self._open[ends[-1] + 1 :]
        return words_of(self._pieces(whole))

    @property
    def _has_spaces(self) -> bool:
        return " " in self._codec.symbols

    def _pieces(self, spans: Sequence[Span], length: int | None = None) -> list[Piece]:
        return characters_of(spans, self._codec, self._clock, length)

    def _standing(self, word: Piece) -> News:
        return plain_piece(word, self._of_word)

    def state(self) -> dict[str, Any]:
        return {"decoder": self._decoder.state(), "open": [list(span) for span in self._open], "partial": self._partial}

    def restore(self, state: dict[str, Any]) -> None:
        self._decoder.restore(state["decoder"])
        self._open = [Span(*span) for span in state["open"]]
        self._partial = state["partial"]
