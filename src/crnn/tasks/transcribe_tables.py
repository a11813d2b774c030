"""Sections of a transcriber's report: what is mistaken for what, and which texts may be wrong themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from crnn.data.dataset import Target
from crnn.decode.ctc import frames_needed, log_likelihood
from crnn.metrics.calibration import calibration_error
from crnn.metrics.edits import Pair, align_units
from crnn.metrics.text import PROFILES, script_of
from crnn.nn.frames import Frames
from crnn.sequences import Ragged
from crnn.tasks.task import Table
from crnn.tasks.transcript import Clock, characters_of

if TYPE_CHECKING:
    from crnn.tasks.transcribe import Transcribe

MOST = 30
"""Rows of a table, at most."""
SUSPECT = 2.0
"""Nats a letter by which the text read is likelier than the text given, from which that one is suspected."""


def make_tables(
    task: Transcribe, outputs: Ragged, targets: Sequence[Target], frames: Frames, counts: NDArray[np.float64]
) -> list[Table]:
    """All sections, those that would be empty left out."""
    true = [task.codec.normalise(str(target)) for target in targets]
    read = task.texts(outputs)
    units = task.codec.units
    pairs = [pair for a, b in zip(true, read, strict=True) for pair in align_units(units(a), units(b))]
    tables = [
        _profiles(counts),
        _confusions(pairs),
        *_recalls(pairs),
        _unknown(task, true),
        _suspects(task, outputs, true, read),
        _confidence(task, outputs, true),
    ]
    return [table for table in tables if table.rows]


def _profiles(counts: NDArray[np.float64]) -> Table:
    total, size = counts.sum(0), (counts.shape[1] - 3) // len(PROFILES)
    rows: list[list[Any]] = []
    for i, (name, normalise) in enumerate(PROFILES.items()):
        c = total[size * i : size * (i + 1)]
        rates = [float(c[:3].sum() / max(c[3], 1)), float(c[4:7].sum() / max(c[7], 1)), float(c[8] / len(counts))]
        what = (normalise.__doc__ or "").split(".")[0]
        rows.append([name, *rates, *(int(n) for n in c[:3]), what])
    columns = ["profile", "CER", "WER", "texts right", "inserted", "left out", "exchanged", "what it ignores"]
    return Table("Errors by profile", columns, rows, "Edits of characters; the first profile is the score.")


def _confusions(pairs: Sequence[Pair]) -> Table:
    wrong = Counter((a, b) for a, b in pairs if a != b)
    times = Counter(a for a, _ in pairs if a is not None)
    rows = [
        [_shown(a), _shown(b), n, float(n / times[a]) if a is not None else None]
        for (a, b), n in wrong.most_common(MOST)
    ]
    note = "∅ on the left was inserted, on the right left out; the share is of all times the letter is there."
    return Table("Confusions", ["text", "read as", "times", "share"], rows, note)


def _recalls(pairs: Sequence[Pair]) -> list[Table]:
    """Of letters, the worst first, and of scripts."""
    there, right = Counter(a for a, _ in pairs if a is not None), Counter(a for a, b in pairs if a == b)
    order = sorted(there, key=lambda a: (right[a] / there[a], -there[a]))
    rows: list[list[Any]] = [[_shown(a), there[a], right[a] / there[a]] for a in order[:MOST]]
    letters = Table("Letters", ["letter", "times", "recall"], rows, "The least well read first.")
    of, good = Counter[str](), Counter[str]()
    for a in there:
        of[script_of(a[0])] += there[a]
        good[script_of(a[0])] += right[a]
    scripts: list[list[Any]] = [[name, n, good[name] / n] for name, n in of.most_common()]
    return [letters, Table("Scripts", ["script", "letters", "recall"], scripts)]


def _unknown(task: Transcribe, true: Sequence[str]) -> Table:
    found = Counter(unit for text in true for unit in task.codec.unknown(text))
    rows: list[list[Any]] = [[_shown(unit), n] for unit, n in found.most_common(MOST)]
    note = "They count as errors; crnn finetune with --resize add teaches them."
    return Table("Letters that training never saw", ["letter", "texts"], rows, note)


def _suspects(task: Transcribe, outputs: Ragged, true: Sequence[str], read: Sequence[str]) -> Table:
    """Texts that the network, by its own likelihood, finds far less probable than what it reads."""
    rows: list[list[Any]] = []
    for i, (a, b) in enumerate(zip(true, read, strict=True)):
        if a == b:
            continue
        log_probs = outputs[i].float().log_softmax(1).numpy()
        given, own = (task.known_labels(text) for text in (a, b))
        if frames_needed(given) > len(log_probs):
            rows.append([i + 1, None, a[:80], b[:80]])
            continue
        margin = (log_likelihood(log_probs, own) - log_likelihood(log_probs, given)) / max(len(given), 1)
        if margin > SUSPECT:
            rows.append([i + 1, round(margin, 2), a[:80], b[:80]])
    rows.sort(key=lambda row: -float("inf" if row[1] is None else row[1]))
    note = (
        f"The network finds its own reading more than {SUSPECT:g} nats a letter likelier than the text given (or that "
        "does not fit its frames): often the text of another recording, or one cut short."
    )
    return Table("Texts that may be wrong", ["example", "nats a letter", "text", "read as"], rows[:MOST], note)


def _confidence(task: Transcribe, outputs: Ragged, true: Sequence[str]) -> Table:
    from crnn.tasks.transcribe import are_right

    sure: list[float] = []
    right: list[bool] = []
    for spans, text in zip(task.spans(outputs), true, strict=True):
        pieces = characters_of(spans, task.codec, Clock(1, None))
        sure += [task.of_character.of(piece.confidence) for piece in pieces]
        right += are_right(task.codec.units(text), [piece.text for piece in pieces])
    if not sure:
        return Table("Confidence of letters", [], [])
    found = calibration_error(torch.tensor(sure), torch.tensor(right), num_bins=max(1, min(10, len(sure) // 50)))
    rows: list[list[Any]] = [[b.low, b.high, b.examples, b.confidence, b.accuracy] for b in found.bins]
    how = (
        f"fitted on {task.of_character.examples} letters of validation" if task.of_character.examples else "as trained"
    )
    note = f"Expected calibration error {found.error:.3f}; {how}."
    return Table("Confidence of letters", ["from", "to", "letters", "mean confidence", "right"], rows, note)


def _shown(unit: str | None) -> str:
    return "∅" if unit is None else "␣" if unit == " " else unit
