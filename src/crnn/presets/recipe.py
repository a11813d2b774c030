"""What a preset looks at, and what it gives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from crnn.alphabets import AlphabetName
from crnn.data.dataset import Kind


@dataclass(frozen=True)
class DataSummary:
    """What a preset may look at; all of it from the training part alone."""

    kind: Kind
    num_channels: int
    sample_rate: float | None
    num_examples: int
    mean_length: int
    median_length: int
    min_length: int
    max_length: int
    task: str
    num_outputs: int
    has_missing: bool = False
    varied_scale: bool = False
    """Series differ in scale by orders of magnitude: the spread of log standard deviations is above 1."""
    vocabulary_size: int = 0
    alphabet: AlphabetName | None = None
    """Of biological sequences."""
    height: int | None = None
    """Of images, in pixels."""
    frames_per_label: float = math.inf
    """Of a transcription: input frames for each label (and for each blank that repeats need) of the tightest text."""


Recipe = dict[str, Any]
"""{"model": network spec, "train": training options, "task": task options}, as plain values."""
