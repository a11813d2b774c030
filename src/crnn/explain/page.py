"""One HTML file from an explanation: no scripts, fonts or addresses, so that it opens anywhere and for ever."""

from __future__ import annotations

import math
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup
from matplotlib.axes import Axes
from numpy.typing import NDArray

from crnn.errors import MissingExtraError
from crnn.explain.explain import Explanation, Shown
from crnn.explain.motifs import Motif
from crnn.report.plots import BLUE, INK, ORANGE, Drawing, shorten

SHOWN_SYMBOLS = 100
"""Of a sequence, around the part that matters most."""
SHOWN_POINTS = 800
"""Of a recording, to which longer ones are averaged."""
MOST_CHANNELS = 4
LOOSE = 0.05
"""Completeness error from which a page warns."""


def render(explanation: Explanation) -> str:
    """The whole page as one HTML document."""
    examples = []
    for shown in explanation.examples:
        drawn = _letters(explanation, shown) if shown.text else _strip(explanation, shown)
        examples.append({"shown": shown, "a": shown.attribution, "svg": Markup(drawn)})
    motifs = [{"motif": m, "svg": Markup(_logo(explanation, m))} for m in explanation.motifs]
    return _template().render(e=explanation, examples=examples, motifs=motifs, loose=LOOSE, isnan=math.isnan)


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(files("crnn.explain").joinpath("why.html.jinja").read_text(encoding="utf-8"))


def _letters(explanation: Explanation, shown: Shown) -> str:
    """The symbols, as tall as what they add; below it the most harmful and the most helpful substitution."""
    first, last = _window(shown.attribution.by_frame)
    assert explanation.alphabet is not None
    plain = explanation.alphabet.plain
    text, parts = shown.text[first:last], shown.attribution.by_frame[first:last]
    heights = np.zeros((len(text), len(plain)))
    for row, (letter, part) in enumerate(zip(text, parts, strict=True)):
        if letter in plain:
            heights[row, plain.index(letter)] = part
    rows = 1 if shown.mutations is None else 2
    with Drawing((9.6, 1.4 * rows + 0.5), label=f"what each symbol of {shown.attribution.id} adds", rows=rows,
                 sharex=True) as drawing:  # fmt: skip
        _draw_letters(drawing.axes[0], heights, plain, first)
        drawing.axes[0].set_ylabel("adds")
        if shown.mutations is not None:
            axes, changes = drawing.axes[1], shown.mutations[first:last]
            at = np.arange(first, last)
            axes.bar(at, changes.min(1), width=0.8, color=ORANGE)
            axes.bar(at, changes.max(1), width=0.8, color=BLUE)
            axes.set_ylabel("substituted")
        drawing.axes[-1].set_xlabel("position, counted from 0")
    return drawing.svg


def _window(parts: NDArray[np.float32]) -> tuple[int, int]:
    """First and last of the positions to draw: all of a short sequence, else those around the strongest part."""
    if len(parts) <= SHOWN_SYMBOLS:
        return 0, len(parts)
    smooth = np.convolve(np.abs(parts), np.ones(9), mode="same")
    first = int(np.clip(smooth.argmax() - SHOWN_SYMBOLS // 2, 0, len(parts) - SHOWN_SYMBOLS))
    return first, first + SHOWN_SYMBOLS


def _draw_letters(axes: Axes, heights: NDArray[np.float64], plain: str, first: int = 0) -> None:
    """Letters stacked at each position by logomaker."""
    try:
        import logomaker
        import pandas
    except ImportError:
        raise MissingExtraError("sequence logos need logomaker: pip install 'crnn[dna]'") from None
    scheme = "classic" if len(plain) == 4 else "chemistry"
    table = pandas.DataFrame(heights, columns=list(plain), index=range(first, first + len(heights)))
    logomaker.Logo(table, ax=axes, color_scheme=scheme, show_spines=True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _logo(explanation: Explanation, motif: Motif) -> str:
    """A sequence logo: letters as tall as their share of the column's bits."""
    assert explanation.alphabet is not None
    heights = motif.matrix * np.maximum(motif.information, 0)[:, None]
    with Drawing((max(2.2, 0.24 * len(heights) + 0.8), 1.3), label=f"logo of {motif.name}") as drawing:
        _draw_letters(drawing.axes[0], heights, explanation.alphabet.plain, 1)
        drawing.axes[0].set_ylabel("bits")
        drawing.axes[0].set_ylim(0, max(0.5, float(heights.sum(1).max()) * 1.05))
    return drawing.svg


def _strip(explanation: Explanation, shown: Shown) -> str:
    """Recorded channels over time, coloured by what each frame adds; events as ticks on top."""
    a = shown.attribution
    channels = np.argsort(-np.abs(a.parts).sum(0), kind="stable")[:MOST_CHANNELS]
    rate = explanation.sample_rate or 1.0
    seconds = len(a.frames) / rate
    rows = len(channels)
    with Drawing((9.6, 1.15 * rows + 0.5), label=f"what {a.id} shows", rows=rows, sharex=True) as drawing:
        most = float(np.abs(_thinned(a.parts, SHOWN_POINTS)).max()) or 1.0
        for axes, c in zip(drawing.axes, sorted(channels.tolist()), strict=True):
            values, parts = (
                _thinned(a.frames[:, [c]], SHOWN_POINTS)[:, 0],
                _thinned(a.parts[:, [c]], SHOWN_POINTS)[:, 0],
            )
            time = np.linspace(0, seconds, len(values))
            low, high = float(values.min()), float(values.max())
            pad = 0.1 * (high - low or 1.0)
            axes.imshow(
                parts[None], aspect="auto", extent=(0, seconds, low - pad, high + pad), cmap="RdBu", vmin=-most,
                vmax=most, alpha=0.7, interpolation="none",
            )  # fmt: skip
            axes.plot(time, values, color=INK, linewidth=0.8)
            axes.grid(visible=False)
            name = explanation.channels[c] if c < len(explanation.channels) else str(c)
            axes.set_ylabel(shorten(name))
        for at, label in shown.ticks[:200]:
            drawing.axes[0].annotate(
                label, (at / rate, 1.0), xycoords=("data", "axes fraction"), ha="center", fontsize=7
            )
            for axes in drawing.axes:
                axes.axvline(at / rate, color=INK, linewidth=0.5, linestyle=":")
        drawing.axes[-1].set_xlabel("seconds" if explanation.sample_rate else "steps")
    return drawing.svg


def _thinned(values: NDArray[Any], points: int) -> NDArray[Any]:
    """(frames, channels) averaged in blocks to about `points`."""
    size = -(-len(values) // points)
    if size == 1:
        return values
    edges = np.arange(0, len(values), size)
    counts = np.diff(np.append(edges, len(values)))
    return np.add.reduceat(values, edges, axis=0) / counts[:, None]
