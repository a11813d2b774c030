"""Made-up recordings with a known truth, for examples and tests: they show that something works, never how well."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crnn.data.annotation import Event, Events

_WAVES = {
    "N": ((-0.17, 0.022, 0.12), (-0.025, 0.009, -0.12), (0.0, 0.010, 1.0), (0.028, 0.010, -0.22), (0.27, 0.045, 0.28)),
    "S": (
        (-0.12, 0.018, -0.08),
        (-0.025, 0.009, -0.12),
        (0.0, 0.010, 1.0),
        (0.028, 0.010, -0.22),
        (0.25, 0.045, 0.26),
    ),
    "V": ((-0.03, 0.030, -0.35), (0.01, 0.038, 1.35), (0.09, 0.035, -0.60), (0.30, 0.060, -0.42)),
}
"""Waves of a beat, each (seconds from its R peak, width in seconds, height in mV)."""
_PREMATURE = {"N": 1.0, "S": 0.65, "V": 0.6}
"""Share of the usual time after which a beat comes."""
_PAUSE = {"N": 1.0, "S": 1.1, "V": 1.4}
"""The time to the next beat, of the usual one: what an early ventricular beat took is waited for."""


class Heartbeats(NamedTuple):
    """A recording and its beats."""

    signal: NDArray[np.float32]
    """(frames, 1), in mV."""
    beats: Events
    """One frame each, at the R peak: N normal, S supraventricular (early), V ventricular (early and wide)."""


def heartbeats(seconds: float, *, rate: float = 360.0, ectopic: float = 0.2, seed: int = 0) -> Heartbeats:
    """An ECG-like lead: sums of bell curves, breathing, drift and noise; one seed is one patient.

    Args:
        ectopic: share of the beats that are not normal, S and V alike.
    """
    random = np.random.default_rng(seed)
    frames = round(seconds * rate)
    signal = np.zeros(frames)
    usual, gain, width = random.uniform(0.65, 1.05), random.uniform(0.7, 1.4), random.uniform(0.9, 1.15)
    time, kind_before = random.uniform(0.2, 0.6), "N"
    beats: list[Event] = []
    while time < seconds - 0.5:
        early = random.random() < ectopic and kind_before == "N"
        kind = str(random.choice(["S", "V"])) if early else "N"
        if beats:
            time += usual * _PREMATURE[kind] * (_PAUSE[kind_before] if kind == "N" else 1.0) * random.normal(1, 0.03)
        if time >= seconds - 0.5:
            break
        for offset, spread, height in _WAVES[kind]:
            centre, sigma = time + offset * width, spread * width
            first, last = max(int((centre - 4 * sigma) * rate), 0), min(int((centre + 4 * sigma) * rate) + 1, frames)
            at = np.arange(first, last) / rate
            signal[first:last] += gain * height * np.exp(-0.5 * ((at - centre) / sigma) ** 2)
        beats.append(Event(round(time * rate), round(time * rate) + 1, kind))
        kind_before = kind
    at = np.arange(frames) / rate
    signal += 0.08 * np.sin(2 * np.pi * (0.22 * at + random.random())) + 0.02 * random.standard_normal(frames)
    return Heartbeats(signal.astype(np.float32)[:, None], Events(tuple(beats)))
