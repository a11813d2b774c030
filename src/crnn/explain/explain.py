"""Explain: what a model looks at in some examples of a data set, and what its filters look for; as values or a page."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.alphabets import Alphabet, alphabet_of
from crnn.config import without_nan
from crnn.data.annotation import Events
from crnn.data.dataset import Dataset, Target
from crnn.errors import DataError
from crnn.explain.attribution import Attribution, Method, attribute
from crnn.explain.motifs import Motif, find_motifs, write_meme
from crnn.explain.mutagenesis import mutate
from crnn.model import Model
from crnn.tasks.step_task import StepTask

LOOKED_AT = 1000
"""Examples, evenly spaced, from which those to show are chosen and filters are read."""
LONGEST_MUTATED = 1000
"""Symbols of a sequence that every substitution is computed for."""


@dataclass(frozen=True)
class Shown:
    """One example with its explanation."""

    attribution: Attribution
    where: str
    target: str
    ticks: list[tuple[int, str]]
    """(frame, label) of annotated events."""
    text: str
    """The symbols of a sequence; empty for a recording."""
    mutations: NDArray[np.float32] | None
    """(frames, plain symbols): change of the answer by each substitution."""


@dataclass(frozen=True)
class Explanation:
    """What `explain` found."""

    source: str
    method: Method
    task: str
    kind: str
    sample_rate: float | None
    channels: list[str]
    """Of the frames that are explained: bases, residues, or recorded channels."""
    examples: list[Shown]
    motifs: list[Motif] = field(default_factory=list)
    alphabet: Alphabet | None = None

    @property
    def worst_error(self) -> float:
        """The largest completeness error of the examples; NaN for occlusion."""
        errors = [shown.attribution.error for shown in self.examples]
        return max((e for e in errors if not math.isnan(e)), default=math.nan)

    def save(self, path: str | Path) -> Path:
        """Write one HTML file that works offline."""
        from crnn.explain.page import render

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(self), encoding="utf-8")
        return path

    def save_motifs(self, path: str | Path) -> Path:
        """Write the filters as a MEME file.

        Raises:
            DataError: the model reads no symbols.
        """
        if self.alphabet is None:
            raise DataError(f"{self.source}: there are no motifs, for the model reads {self.kind}")
        write_meme(path, self.motifs, self.alphabet)
        return Path(path)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: of each example its parts by frame and their error; of each motif its matrix."""
        return without_nan(  # type: ignore[no-any-return]
            {
                "source": self.source,
                "method": self.method,
                "worst_error": self.worst_error,
                "examples": [
                    {
                        "id": shown.attribution.id,
                        "target": shown.target,
                        "label": shown.attribution.label,
                        "output": shown.attribution.output,
                        "baseline": shown.attribution.baseline,
                        "error": shown.attribution.error,
                        "by_frame": shown.attribution.by_frame.tolist(),
                    }
                    for shown in self.examples
                ],
                "motifs": [
                    {
                        "name": motif.name,
                        "consensus": motif.consensus(self.alphabet),
                        "influence": motif.influence,
                        "sites": motif.sites,
                        "matrix": motif.matrix.tolist(),
                    }
                    for motif in self.motifs
                    if self.alphabet is not None
                ],
            }
        )


def explain(
    model: Model,
    data: Dataset,
    *,
    count: int = 6,
    method: Method = "gradients",
    label: str | None = None,
    motifs: int = 8,
) -> Explanation:
    """Explain a model on a data set.

    Args:
        count: examples to explain: those that each label is predicted for most surely.
        method: integrated gradients, or occlusion.
        label: the answer to explain; by default what is predicted for each example.
        motifs: filters to read where the data is DNA, RNA or protein; 0 for none.
    Raises:
        ConfigError: no such label.
        DataError: data that the model does not take.
        MissingExtraError: captum is not installed.
    """
    if model.inputs.kind == "image":
        where = data.source if isinstance(data, Dataset) else data
        raise DataError(f"{where}: the model reads images, expected symbols, series or recordings; crnn eval --report "
                        "shows the worst lines with their images")  # fmt: skip
    data = model.read(data, targets=True)
    looked = data
    if len(data) > LOOKED_AT:
        looked = data.subset(np.linspace(0, len(data) - 1, LOOKED_AT).round().astype(int))
    chosen = _most_certain(model, looked, count, label)
    attributions = attribute(model, looked, chosen, method=method, label=label)
    alphabet = alphabet_of(data.vocabulary)
    found: list[Motif] = []
    if alphabet is not None and motifs and attributions:
        place = model.task.output_names.index(label) if label else _rarest(model)
        try:
            found = find_motifs(model, looked, label=place, most=motifs)
        except DataError:
            found = []  # nothing in this network reads symbols directly
    examples = []
    for i, attribution in zip(chosen, attributions, strict=True):
        example = looked[i]
        ids = example.load() if data.kind == "symbols" else np.zeros(0)
        mutations = None
        if alphabet is not None and example.length <= LONGEST_MUTATED:
            mutations = mutate(model, looked, i, model.task.output_names.index(attribution.label))
        examples.append(
            Shown(
                attribution,
                example.where,
                str(example.target) if isinstance(example.target, (str, float, int)) else "",
                _marks(example.target, len(attribution.by_frame)),
                "".join(data.vocabulary[int(code)] for code in ids),
                mutations,
            )
        )
    channels = list(alphabet.plain) if alphabet is not None else list(data.channel_names)
    return Explanation(
        data.source, method, model.task.name, data.kind, data.sample_rate, channels, examples, found, alphabet
    )


def _marks(target: Target, frames: int) -> list[tuple[int, str]]:
    """The events that begin in the first frames."""
    return [(e.start, e.label) for e in target.items if e.start < frames] if isinstance(target, Events) else []


def _most_certain(model: Model, data: Dataset, count: int, label: str | None) -> list[int]:
    """Examples that each label is predicted for most surely, label by label in turn; those in front where an answer is
    no label."""
    if isinstance(model.task, StepTask) or model.task.activation == "none":
        return list(range(min(count, len(data))))
    outputs = model.outputs(data).double()
    scores = outputs.softmax(1) if model.task.activation == "softmax" else outputs.sigmoid()
    places = [model.task.output_names.index(label)] if label in model.task.output_names else range(scores.shape[1])
    ranked = [scores[:, place].argsort(descending=True, stable=True).tolist() for place in places]
    found: list[int] = []
    for turn in range(len(data)):
        for order in ranked:
            if order[turn] not in found and len(found) < count:
                found.append(order[turn])
    return found


def _rarest(model: Model) -> int:
    """The class with the fewest training examples, such as promoters among sequences; else the last output."""
    counts = getattr(model.task, "counts", None)
    if isinstance(counts, dict):
        values = list(counts.values())
        return len(values) - 1 - values[::-1].index(min(values))
    return len(model.task.output_names) - 1
