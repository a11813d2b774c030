"""Transcription by CTC: sound or line images in, text with times and confidence out."""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from crnn.config import build_config, config, to_plain
from crnn.data.codec import BLANK, Codec, CodecConfig, looks_mistaken_for_latin1, rare_symbols, show
from crnn.data.dataset import Kind, Problem, Target
from crnn.decode.ctc import Decoder, Span, decode, frames_needed
from crnn.errors import DataError
from crnn.metrics.edits import align_units, count_edits
from crnn.metrics.text import PROFILES
from crnn.nn.frames import Frames
from crnn.nn.layers import Timing
from crnn.sequences import Ragged, Sequences
from crnn.tasks.decoding import Decoding
from crnn.tasks.follow import Follower
from crnn.tasks.follow_text import FollowText
from crnn.tasks.step_task import StepTask
from crnn.tasks.task import Table
from crnn.tasks.transcript import Clock, Confidence, Piece, characters_of, joined, plain_piece, words_of

ALL_BLANK = 0.999
"""Share of blank frames from which nothing is written."""
BLANK_PHASE = 0.3
"""Share of the training in which that is usual."""
PER_PROFILE = 9
"""Counts a profile: insertions, deletions, substitutions and length of characters, then of words; texts all right."""
TEXTS, BLANKS, FRAMES = (PER_PROFILE * len(PROFILES) + i for i in range(3))
"""Places of the other counts: texts, blank frames, frames."""
DEFAULT_PRESETS: dict[Kind, str] = {"audio": "speech", "series": "speech", "symbols": "speech", "image": "ocr-small"}
TRIED_WEIGHTS = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0)
TRIED_BONUSES = (-1.0, 0.0, 1.0, 2.0, 4.0)
TUNING_TEXTS = 100
"""Validation texts, at most, that are decoded again for each weight of a language model."""


@config
class TranscribeConfig:
    """Text, loss and decoder of a transcription."""

    codec: CodecConfig = CodecConfig()
    """How text becomes labels."""
    decoding: Decoding = Decoding()
    """How outputs become text; greedily by default."""


class Transcribe(StepTask):
    """Text by connectionist temporal classification (CTC): no times are needed to train, and all of them come out.

    Promise: a text that does not fit the network's frames is named before training, so that no loss is infinite. While
    training changes speed (stretch), a text may fit no more for one update; it then adds nothing to that update.

    Args:
        codec: letters of the training text.
        most_frequent: the training text that is there most often: the floor.
        rare: letters that the training text has a few times only, with their counts.
        mistaken: training texts that look like UTF-8 read as Latin-1.
    Source: Graves et al. 2006.
    """

    name = "transcribe"
    Config = TranscribeConfig
    primary = "cer"
    higher_is_better = False
    activation = "softmax"
    silent = BLANK
    allowed_augment = StepTask.allowed_augment | {"stretch", "time_warp", "snr", "image"}

    def __init__(
        self,
        codec: Codec,
        config: TranscribeConfig,
        *,
        most_frequent: str = "",
        confidences: Sequence[Confidence] = (Confidence(), Confidence(), Confidence()),
        lm_weight: float | None = None,
        word_bonus: float | None = None,
        rare: dict[str, int] | None = None,
        mistaken: Sequence[str] = (),
    ) -> None:
        self.codec, self.config, self.most_frequent = codec, config, most_frequent
        self.labels = ["<blank>", *codec.symbols]
        self.of_character, self.of_word, self.of_text = confidences
        self.lm_weight, self.word_bonus = lm_weight, word_bonus
        self.rare, self.mistaken = rare or {}, list(mistaken)
        self._decoding = config.decoding
        self._make_decoder: Callable[[], Decoder] | None = None
        self._decoded: tuple[weakref.ref[Ragged], list[list[Span]]] | None = None
        self.last_blank: Tensor | None = None
        """Share of blank frames in the last batch that was trained on."""
        self.labels_per_frame = 0.0
        """Of that batch."""

    @classmethod
    def default_preset(cls, kind: Kind) -> str:
        return DEFAULT_PRESETS.get(kind, "default")

    @classmethod
    def from_targets(cls, targets: Sequence[Target], config: TranscribeConfig) -> Transcribe:
        texts = [text_of(target, f"training example {i}") for i, target in enumerate(targets)]
        codec = Codec.of(texts, config.codec)
        rare = rare_symbols(codec, texts)
        mistaken = [text for text in texts if looks_mistaken_for_latin1(text)]
        if not codec.symbols:
            raise DataError(f"training targets: found no text in {len(texts)} examples, expected transcripts")
        frequent = Counter(codec.normalise(text) for text in texts).most_common(1)[0][0]
        return cls(codec, config, most_frequent=frequent, rare=rare, mistaken=mistaken)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Transcribe:
        return cls(
            Codec.from_state(state["codec"]),
            build_config(TranscribeConfig, state["config"], "task"),
            most_frequent=state["most_frequent"],
            confidences=[Confidence(**values) for values in state["confidences"]],
            lm_weight=state["lm_weight"],
            word_bonus=state["word_bonus"],
        )

    def state(self) -> dict[str, Any]:
        return {
            "codec": self.codec.state(),
            "config": to_plain(self.config),
            "most_frequent": self.most_frequent,
            "confidences": [to_plain(c) for c in (self.of_character, self.of_word, self.of_text)],
            "lm_weight": self.lm_weight,
            "word_bonus": self.word_bonus,
        }

    def with_codec(self, codec: Codec) -> Transcribe:
        """The same with other letters; what was tuned for the old ones is forgotten."""
        return Transcribe(codec, self.config, most_frequent=self.most_frequent)

    @property
    def num_outputs(self) -> int:
        return self.codec.num_outputs

    @property
    def decoding(self) -> Decoding:
        """How outputs become text."""
        return self._decoding

    @decoding.setter
    def decoding(self, decoding: Decoding) -> None:
        self._decoding, self._make_decoder, self._decoded = decoding, None, None

    def make_decoder(self) -> Decoder:
        """A decoder for one sequence, whole or in parts.

        Raises:
            DataError: a file of the decoding that cannot be used.
        """
        if self._make_decoder is None:
            weight = 0.5 if self.lm_weight is None else self.lm_weight
            self._make_decoder = self._decoding.prepare(self.codec, weight=weight, bonus=self.word_bonus or 0.0)
        return self._make_decoder()

    def encode(self, targets: Sequence[Target], where: Sequence[str], frames: Frames) -> Ragged:  # type: ignore[override]
        """Label numbers; letters that training never saw are left out here, and count as errors in every score."""
        rows = []
        for target, place in zip(targets, where, strict=True):
            rows.append(torch.tensor(self.known_labels(text_of(target, place)), dtype=torch.int64))
        return Ragged.of(rows)

    def known_labels(self, text: str) -> list[int]:
        """Labels of the letters that there are labels for."""
        missing = set(self.codec.unknown(text))
        kept = "".join(unit for unit in self.codec.units(text) if unit not in missing) if missing else text
        return self.codec.encode(kept, "")

    def loss(self, outputs: Sequences, targets: Sequences) -> Tensor:  # type: ignore[override]
        """Negative log likelihood of the texts, a mean over their labels."""
        log_probs = outputs.data.log_softmax(2).transpose(0, 1)  # (frames, batch, labels)
        with torch.no_grad():
            best_is_blank = (outputs.data.argmax(2) == BLANK) & outputs.valid
            self.last_blank = best_is_blank.sum() / outputs.lengths.sum()
            self.labels_per_frame = float(targets.lengths.sum() / outputs.lengths.sum())
        total = F.ctc_loss(
            log_probs,
            targets.data,
            outputs.lengths,
            targets.lengths,
            blank=BLANK,
            reduction="sum",
            zero_infinity=True,  # find_problems has seen that they fit; only a changed speed may take that away
        )
        return total / targets.lengths.sum().clamp(min=1)

    def weight(self, targets: Sequences) -> Tensor:
        """Labels."""
        return targets.lengths.sum().float()

    def frames_per_label(self, targets: Sequence[Target], lengths: NDArray[np.int64]) -> float:
        """That of the tightest text but for one in a hundred, which may be wrong and is found by find_problems."""
        needed = [frames_needed(self.known_labels(text_of(target, "target"))) for target in targets]
        ratios = [length / n for n, length in zip(needed, lengths.tolist(), strict=True) if n]
        return float(np.quantile(ratios, 0.01)) if ratios else math.inf

    def warnings(self) -> list[str]:
        """Letters that can hardly be learnt; texts in a wrong encoding."""
        found = []
        if self.mistaken:
            first = self.mistaken[0]
            meant = first.encode("latin-1").decode()
            found.append(
                f"{len(self.mistaken)} texts look like UTF-8 that was read as Latin-1, the first {first[:40]!r}, which "
                f"would be {meant[:40]!r}; save them as UTF-8"
            )
        if not self.rare:
            return found
        shown = ", ".join(f"{show([letter])} {n} times" for letter, n in list(self.rare.items())[:8])
        more = f" and {len(self.rare) - 8} more" if len(self.rare) > 8 else ""
        what = f"letters of the training text that are rare: {shown}{more}; are they typos? else add examples of them"
        return [*found, what]

    def remark(self, done: float) -> str:
        """Whether everything is blank, and whether that is the phase that every training by CTC begins with."""
        if self.last_blank is None or float(self.last_blank) < ALL_BLANK:
            return ""
        if done < BLANK_PHASE:
            return "all blank so far: the phase that CTC begins with"
        letters = f"{self.labels_per_frame:.2f} letters a frame"
        why = "too much pooling over time?" if self.labels_per_frame > 0.5 else "a learning rate too high or too low?"
        if self.labels_per_frame < 0.02:
            why = "long silences, or more pooling over time would help?"
        return (
            f"all blank after {done:.0%} of the training, which is a fault: {letters}: {why} Look whether texts belong "
            "to their examples (crnn check), and at loud, quiet or inverted input"
        )

    def find_problems(self, targets: Sequence[Target], where: Sequence[str], frames: Frames) -> list[Problem]:
        """Texts that are empty or need more frames than there are; letters that training never saw."""
        found = []
        for i, (target, place) in enumerate(zip(targets, where, strict=True)):
            text = text_of(target, place)
            if not self.codec.normalise(text):
                found.append(Problem(place, "found an empty transcript, expected text; write it, or leave it out"))
                continue
            unknown = self.codec.unknown(text)
            if unknown:
                found.append(Problem(place, self.codec.about_unknown(unknown, text), "warning"))
            labels = self.known_labels(text)
            needed, there = frames_needed(labels), int(frames.out_lengths[i])
            if needed > there:
                found.append(Problem(place, _too_long(text, labels, needed, there, frames, int(frames.lengths[i]))))
        return found

    def texts(self, outputs: Ragged) -> list[str]:
        """The text of each sequence."""
        return [self._text(spans) for spans in self.spans(outputs)]

    def _text(self, spans: Sequence[Span]) -> str:
        return self.codec.normalise(self.codec.decode([span.label for span in spans]))

    def spans(self, outputs: Ragged) -> list[list[Span]]:
        """The labels of each sequence in time; a search is slow, so those of the last outputs are kept."""
        if self._decoded is None or self._decoded[0]() is not outputs:
            found = [decode(self.make_decoder(), log_probs_of(row)) for row in outputs]
            self._decoded = (weakref.ref(outputs), found)
        return self._decoded[1]

    def count(self, outputs: Ragged, targets: Sequence[Target], frames: Frames) -> NDArray[np.float64]:
        """For each profile characters and words inserted, left out, exchanged, and there; texts; blank frames."""
        rows = []
        for row, target, text in zip(outputs, targets, self.texts(outputs), strict=True):
            true = self.codec.normalise(text_of(target, "target"))
            blanks = int((row.argmax(1) == BLANK).sum())
            rows.append([*_edits_of(true, text), 1, blanks, len(row)])
        return np.array(rows, dtype=np.float64)

    def scores_of(self, total: NDArray[np.float64]) -> dict[str, float]:
        """cer and wer as they stand and under each profile, the parts of cer, texts all right, blank frames."""
        scores: dict[str, float] = {}
        for i, profile in enumerate(PROFILES):
            counts = total[PER_PROFILE * i : PER_PROFILE * (i + 1)]
            end = "" if i == 0 else f"_{profile}"
            scores[f"cer{end}"] = _share(counts[:3].sum(), counts[3])
            scores[f"wer{end}"] = _share(counts[4:7].sum(), counts[7])
            if i == 0:
                scores["exact"] = _share(counts[8], total[TEXTS])
                for name, edits in zip(("insertions", "deletions", "substitutions"), counts[:3], strict=True):
                    scores[name] = _share(edits, counts[3])
        scores["blank_share"] = _share(total[BLANKS], total[FRAMES])
        return scores

    def errors(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Characters that are wrong."""
        return np.asarray(counts[:, :3].sum(1), np.float64)

    def tables(
        self, outputs: Ragged, targets: Sequence[Target], frames: Frames, counts: NDArray[np.float64]
    ) -> list[Table]:
        """Profiles side by side, confusions, letters and scripts, texts that may be wrong, confidence."""
        from crnn.tasks.transcribe_tables import make_tables

        return make_tables(self, outputs, targets, frames, counts)

    def predictions(self, outputs: Ragged, frames: Frames) -> list[dict[str, Any]]:  # type: ignore[override]
        """{'text', 'confidence', 'words', 'characters', 'unit'}; words and characters with start, end, confidence."""
        clock = Clock(frames.stride, frames.sample_rate)
        lengths = frames.lengths.tolist()
        return [
            self.prediction(characters_of(spans, self.codec, clock, length), clock)
            for spans, length in zip(self.spans(outputs), lengths, strict=True)
        ]

    def prediction(self, characters: list[Piece], clock: Clock) -> dict[str, Any]:
        """Characters in time as one plain answer."""
        whole = joined(characters) if characters else Piece("", 0.0, 0.0, 1.0)
        return {
            "text": whole.text,
            "confidence": self.of_text.of(whole.confidence),
            "words": [plain_piece(word, self.of_word) for word in words_of(characters)],
            "characters": [plain_piece(piece, self.of_character) for piece in characters],
            "unit": clock.unit,
        }

    def follow(self, timing: Timing, sample_rate: float | None) -> Follower:
        clock = Clock(timing.stride, sample_rate)
        return FollowText(self.make_decoder(), self.codec, clock, of_word=self.of_word, log_probs=log_probs_of)

    def tune(self, outputs: Ragged, targets: Sequence[Target], frames: Frames) -> None:
        """Weight of the language model, if there is one, for the lowest cer; then the confidences."""
        if self._decoding.lm is not None and self._decoding.lm_weight is None:
            self.tune_language_model(outputs, targets)
        right: list[list[bool]] = [[], [], []]
        sure: list[list[float]] = [[], [], []]
        clock = Clock(1, None)
        for spans, target in zip(self.spans(outputs), targets, strict=True):
            characters = characters_of(spans, self.codec, clock)
            true = self.codec.normalise(text_of(target, "target"))
            units = self.codec.units(true)
            levels = (
                (characters, units),
                (words_of(characters), true.split()),
                ([joined(characters)] if characters else [], [true]),
            )
            for level, (pieces, reference) in enumerate(levels):
                sure[level] += [piece.confidence for piece in pieces]
                right[level] += are_right(reference, [piece.text for piece in pieces])
        self.of_character, self.of_word, self.of_text = (Confidence.fit(p, r) for p, r in zip(sure, right, strict=True))

    def tune_language_model(self, outputs: Ragged, targets: Sequence[Target]) -> float:
        """Choose weight, then bonus, by the cer of validation texts, and return that; ties go to the smaller weight."""
        some = range(0, len(outputs), max(1, len(outputs) // TUNING_TEXTS))
        rows = [log_probs_of(outputs[i]) for i in some]
        texts = [self.codec.normalise(text_of(targets[i], "target")) for i in some]
        found: dict[tuple[float, float], float] = {}

        def cer(weight: float, bonus: float) -> float:
            if (weight, bonus) not in found:
                make = self._decoding.prepare(self.codec, weight=weight, bonus=bonus)
                read = [self._text(decode(make(), row)) for row in rows]
                edits = [count_edits(align_units(a, b)).total for a, b in zip(texts, read, strict=True)]
                found[weight, bonus] = sum(edits) / max(1, sum(map(len, texts)))
            return found[weight, bonus]

        weight = min(TRIED_WEIGHTS, key=lambda w: cer(w, 0.0))
        bonus = min(TRIED_BONUSES, key=lambda b: (cer(weight, b), abs(b)))
        self.lm_weight, self.word_bonus, self._make_decoder, self._decoded = weight, bonus, None, None
        return cer(weight, bonus)


def text_of(target: Target, where: str) -> str:
    """A target as text.

    Raises:
        DataError: it is none.
    """
    if isinstance(target, str):
        return target
    if target is None:
        raise DataError(f"{where}: found no transcript, expected text; write it, or leave the example out")
    what = "the number" if isinstance(target, (int, float)) else "labels"
    raise DataError(f"{where}: found {what} {target!r:.60}, expected text; name its column text or transcript")


def log_probs_of(outputs: Tensor) -> NDArray[np.float32]:
    """(frames, labels) as logarithms of probabilities."""
    return outputs.float().log_softmax(1).numpy()


def are_right(reference: Sequence[str], pieces: Sequence[str]) -> list[bool]:
    """Whether each piece stands in the reference where the shortest alignment puts it."""
    return [a == b for a, b in align_units(reference, pieces) if b is not None]


def _edits_of(true: str, found: str) -> Iterator[int]:
    last: tuple[str, str, list[int]] | None = None
    for normalise in PROFILES.values():
        a, b = normalise(true), normalise(found)
        if last is None or (a, b) != last[:2]:
            characters, words = count_edits(align_units(a, b)), count_edits(align_units(a.split(), b.split()))
            last = (a, b, [*characters, *words, int(a == b)])
        yield from last[2]


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _too_long(text: str, labels: list[int], needed: int, there: int, frames: Frames, length: int) -> str:
    repeats = needed - len(labels)
    rate = frames.sample_rate
    size = f"{length / rate:.2f} s" if rate else f"{length} frames"
    twice = f" and {repeats} more between letters that repeat" if repeats else ""
    return (
        f"found {len(labels)} letters ({text[:40]!r}), which need {needed} output frames (one each{twice}), but {size} "
        f"give {there}; is it the text of another recording? else use less pooling over time, or leave it out"
    )
