"""Drawings of a report as inline SVG: text stays text, ink follows the page's colour, so dark mode and print work.

Colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import html
import io
import math
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

BLUE, ORANGE, GREEN, PINK, SKY, YELLOW = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"
PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, YELLOW)
INK = "#123457"
"""Stands for the page's own text colour; replaced by `currentColor` in the SVG."""

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "crnn",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "path.simplify": True,
    "path.simplify_threshold": 0.5,
}

SHADE = LinearSegmentedColormap.from_list("shade", [(0.0, 0.447, 0.698, 0.0), (0.0, 0.447, 0.698, 1.0)])
"""From clear to blue: the page shows through where a cell is empty, on white and on black."""


class Drawing:
    """A figure of one or more panels: `with Drawing(...) as d: d.axes[0].plot(...)`, then `d.svg`.

    Args:
        size: width and height in inches of 72 CSS pixels.
        label: what the drawing shows, for readers who cannot see it.
        heights: of the rows, relative to each other.
        sharex: one time or confidence axis for all rows.
    """

    def __init__(
        self,
        size: tuple[float, float],
        *,
        label: str,
        rows: int = 1,
        columns: int = 1,
        heights: Sequence[float] | None = None,
        sharex: bool = False,
    ) -> None:
        self.size, self.label = size, label
        self.panels: dict[str, Any] = {"nrows": rows, "ncols": columns, "height_ratios": heights, "sharex": sharex}
        self.svg = ""

    def __enter__(self) -> Drawing:
        self._style = matplotlib.rc_context(STYLE)  # type: ignore[arg-type]
        self._style.__enter__()
        self.figure = Figure(figsize=self.size, layout="constrained")
        self.axes: list[Axes] = list(self.figure.subplots(**self.panels, squeeze=False).flat)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                self.svg = _to_svg(self.figure, self.label)
        finally:
            self._style.__exit__(kind, error, trace)


def _to_svg(figure: Figure, label: str) -> str:
    """The figure as an <svg> element without ids that clash, metadata, or addresses."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # labels in any script: the reader's browser has the glyphs, the measuring font may not
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        figure.savefig(buffer, format="svg", metadata={"Creator": None, "Date": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)
    text = text.replace("xlink:href", "href").replace(INK, "currentColor")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r' (?:d|x|y|points|transform)="[^"]*"', lambda found: _rounded(found[0]), text)
    text = re.sub(r"\n\s*", "\n", text)
    width, height = (round(72 * side) for side in figure.get_size_inches())
    opening = f'<svg class="plot" role="img" aria-label="{_attribute(label)}" style="max-width:{round(width * 1.4)}px"'
    return re.sub(r"<svg[^>]*>", f'{opening} viewBox="0 0 {width} {height}">', text, count=1).strip()


def _rounded(attribute: str) -> str:
    """Coordinates with two decimals: a hundredth of a point is not seen, and a third of the file is saved."""
    return re.sub(r"(\d\.\d\d)\d+", r"\1", attribute)


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


def shorten(label: str, most: int = 18) -> str:
    """A label that fits an axis: its start, and an ellipsis."""
    label = " ".join(label.split())
    return label if len(label) <= most else label[: most - 1] + "…"


def learning_curves(history: Sequence[dict[str, Any]], primary: str, title: str) -> list[str]:
    """The losses, and the watched metric if it was measured, with the best epoch marked; nothing below two epochs.

    Args:
        history: records of `crnn.training.history`, as plain values.
        title: name of the primary metric in words.
    """
    if len(history) < 2:
        return []
    training = _numbers(record["train_loss"] for record in history)
    validation = _numbers(record["validation_loss"] for record in history)
    watched = _numbers(record["metrics"].get(primary) for record in history)
    drawn = [_curves(history, "loss", {"training (augmented)": training, "validation": validation})]
    if np.isfinite(watched).any():
        drawn.append(_curves(history, title, {"validation": watched}))
    return drawn


def _curves(history: Sequence[dict[str, Any]], title: str, lines: dict[str, NDArray[np.float64]]) -> str:
    epochs = np.array([record["epoch"] for record in history])
    best = [record["epoch"] for record in history if record["is_best"]]
    with Drawing((4.4, 2.7), label=f"{title} by epoch") as drawing:
        axes = drawing.axes[0]
        for name, values in lines.items():
            known = np.isfinite(values)  # a line through the epochs that were measured
            if known.any():
                colour = ORANGE if name == "validation" else BLUE
                axes.plot(epochs[known], values[known], color=colour, linewidth=1.5, label=name)
        _log_if_wide(axes, [float(v) for values in lines.values() for v in values])
        if best:
            axes.axvline(best[-1], color=INK, linewidth=0.8, linestyle=":", label="best on validation")
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.legend(fontsize=8)
    return drawing.svg


def _numbers(values: Iterable[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _log_if_wide(axes: Axes, values: list[float]) -> None:
    known = [v for v in values if math.isfinite(v)]
    if known and min(known) > 0 and max(known) / min(known) > 50:
        axes.set_yscale("log")


def confusion_matrix(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    """Rows are the true classes, shaded by their share; counts are written up to 20 classes, none drawn above 60."""
    matrix = np.asarray(counts)
    size = len(matrix)
    if size > 60:
        return ""
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = min(8.4, 1.8 + 0.42 * size) if size <= 20 else 8.4
    with Drawing((side + 0.6, side), label="confusion matrix") as drawing:
        axes = drawing.axes[0]
        axes.imshow(share**0.6, cmap=SHADE, vmin=0, vmax=1, interpolation="none")  # faint errors stay visible
        axes.grid(visible=False)
        _class_ticks(axes, labels, size)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        for spine in axes.spines.values():
            spine.set_visible(True)
        if size <= 20:
            for (i, j), count in np.ndenumerate(matrix):
                if count:
                    colour = "white" if share[i, j] > 0.4 else INK
                    axes.text(j, i, str(count), ha="center", va="center", fontsize=8, color=colour)
    return drawing.svg


def _class_ticks(axes: Axes, labels: Sequence[str], size: int) -> None:
    font = min(8.5, 0.72 * 7.0 * 72 / size)  # seven inches of axis, in points
    names = [shorten(label) for label in labels]
    upright = max((len(n) for n in names), default=1) <= 3 and size <= 30
    axes.set_xticks(range(size), names, rotation=0 if upright else 90, fontsize=font)
    axes.set_yticks(range(size), names, fontsize=font)


def reliability(
    before: Sequence[tuple[float, float, int]], after: Sequence[tuple[float, float, int]] | None = None
) -> str:
    """Confidence against how often it was right; the dotted line is perfect.

    Args:
        before: (mean confidence, share right, examples) of each bin that is not empty.
        after: the same with the fitted temperature.
    """
    with Drawing((4.4, 3.9), label="reliability diagram") as drawing:
        axes = drawing.axes[0]
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
        series = [("as trained", before, BLUE, "o-")]
        if after is not None:
            series.append(("with temperature", after, ORANGE, "s--"))
        for name, bins, colour, style in series:
            label = f"{name}, {sum(b[2] for b in bins) // max(1, len(bins))} a point"
            axes.plot([b[0] for b in bins], [b[1] for b in bins], style, color=colour, markersize=4, label=label)
        low = min([b[i] for _, bins, _, _ in series for b in bins for i in (0, 1)], default=0.0)
        low = max(0.0, math.floor(low * 10 - 0.5) / 10)
        axes.set_xlim(low, 1.02)
        axes.set_ylim(low, 1.02)
        axes.set_xlabel("confidence")
        axes.set_ylabel("share right")
        axes.legend(fontsize=8, loc="upper left")
    return drawing.svg


def error_by_length(edges: Sequence[tuple[float, float]], errors: Sequence[float], counts: Sequence[int], unit: str,
                    measure: str) -> str:  # fmt: skip
    """Error in bins of length; the number of examples is written above each bar."""
    with Drawing((8.4, 2.6), label=f"{measure} against length") as drawing:
        axes = drawing.axes[0]
        axes.bar(range(len(errors)), errors, color=BLUE, width=0.7)
        top = max([e for e in errors if math.isfinite(e)], default=0) or 1
        for i, (error, count) in enumerate(zip(errors, counts, strict=True)):
            height = error if math.isfinite(error) else 0
            axes.text(i, height + 0.02 * top, f"n={count}", ha="center", va="bottom", fontsize=8)
        axes.set_xticks(range(len(errors)), [_span(low, high) for low, high in edges], fontsize=8)
        axes.grid(visible=False, axis="x")
        axes.set_ylim(0, 1.18 * top)
        axes.set_xlabel(f"length ({unit})")
        axes.set_ylabel(measure)
    return drawing.svg


def _span(low: float, high: float) -> str:
    first, last = (f"{v:.0f}" if v >= 100 else f"{v:.3g}" for v in (low, high))
    return first if first == last else f"{first} – {last}"


def class_distribution(counts: dict[str, dict[str, int]], labels: Sequence[str]) -> str:
    """How many examples of each class every split holds.

    Args:
        counts: split -> label -> examples.
    """
    if not counts or not labels or len(labels) > 60:
        return ""
    splits, size = list(counts), len(labels)
    width = 0.8 / len(splits)
    names = [shorten(label) for label in labels]
    crowded = sum(len(n) + 1 for n in names) > 80
    with Drawing((8.4, 3.1 if crowded else 2.6), label="examples of each class in each split") as drawing:
        axes = drawing.axes[0]
        for i, split in enumerate(splits):
            at = np.arange(size) + (i - (len(splits) - 1) / 2) * width
            heights = [counts[split].get(label, 0) for label in labels]
            axes.bar(at, heights, width=width, color=PALETTE[i % len(PALETTE)], label=split)
        axes.set_xticks(range(size), names, rotation=90 if crowded else 0, fontsize=max(5, 8.5 if size < 30 else 6.5))
        axes.grid(visible=False, axis="x")
        axes.margins(x=0.01)
        axes.set_ylabel("examples")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.legend(fontsize=8, ncols=len(splits), loc="lower left", bbox_to_anchor=(0, 1))
    return drawing.svg


def values_scatter(true: Sequence[float], predicted: Sequence[float]) -> list[str]:
    """Predicted against true, and what is left against predicted; nothing without values."""
    if not true:
        return []
    t, p = np.asarray(true, dtype=float), np.asarray(predicted, dtype=float)
    low, high = float(min(t.min(), p.min())), float(max(t.max(), p.max()))
    drawn = []
    for title, x, y, line, colour in (
        ("predicted against true", t, p, (low, high), BLUE),
        ("residuals", p, p - t, (0.0, 0.0), ORANGE),
    ):
        with Drawing((4.4, 3.4), label=title) as drawing:
            axes = drawing.axes[0]
            ends = (low, high) if colour == BLUE else (float(p.min()), float(p.max()))
            axes.plot(ends, line, color=INK, linewidth=0.8, linestyle=":")
            axes.scatter(x, y, s=11, color=colour, alpha=0.55, linewidths=0)
            axes.set_title(title)
            axes.set_xlabel("true" if colour == BLUE else "predicted")
            axes.set_ylabel("predicted" if colour == BLUE else "predicted - true")
            axes.xaxis.set_major_locator(MaxNLocator(6))
        drawn.append(drawing.svg)
    return drawn


def signal(
    channels: Sequence[Sequence[float | None]],
    duration: float,
    unit: str,
    marks: Sequence[tuple[float, float, str]] = (),
) -> str:
    """One example as small lines, a row for each channel; empty without channels. Drawn by hand: a report has many.

    Args:
        channels: equally spaced points of each; None where missing.
        duration: of the whole, in `unit`.
        marks: (start, end, text) of what was read where, as shares of the duration: written below the lines.
    """
    if not channels:
        return ""
    width, row, gap = 300.0, 46.0, 8.0
    lines = []
    for i, values in enumerate(channels):
        top, colour = i * (row + gap) + 2, PALETTE[i % len(PALETTE)]
        for points in _segments(values, width, row, top):
            lines.append(f'<polyline fill="none" stroke="{colour}" stroke-linejoin="round" points="{points}"/>')
    bottom = len(channels) * (row + gap) + 2
    text = 'font-size="10.5" fill="currentColor"'
    for start, end, word in marks:
        left, right = start * width, end * width
        box = f'x="{left:.1f}" y="0" width="{max(right - left, 1):.1f}" height="{bottom:g}"'
        lines.append(f'<rect {box} fill="currentColor" fill-opacity="0.08"/>')
        at = f'x="{(left + right) / 2:.1f}" y="{bottom + 13:g}" text-anchor="middle"'
        lines.append(f"<text {at} {text}>{html.escape(word)}</text>")
    bottom += 16 if marks else 0
    lines.append(f'<path d="M0 {bottom:g}H{width:g}" stroke="currentColor" stroke-width="0.6" fill="none"/>')
    lines.append(f'<text x="0" y="{bottom + 13:g}" {text}>0</text>')
    lines.append(f'<text x="{width:g}" y="{bottom + 13:g}" text-anchor="end" {text}>{duration:.4g} {unit}</text>')
    size = f'viewBox="0 0 {width:g} {bottom + 18:g}"'
    return f'<svg class="plot" role="img" aria-label="the signal" {size}>\n' + "\n".join(lines) + "\n</svg>"


def _segments(values: Sequence[float | None], width: float, height: float, top: float) -> list[str]:
    """Points of each run of known values, scaled to the box; a single point becomes a dash."""
    known = [v for v in values if v is not None]
    if not known:
        return []
    low, span = min(known), (max(known) - min(known)) or 1.0
    step = width / max(1, len(values) - 1)
    found: list[list[str]] = [[]]
    for i, value in enumerate(values):
        if value is None:
            found.append([])
        else:
            found[-1].append(f"{i * step:.1f},{top + height * (1 - (value - low) / span):.1f}")
    return [" ".join(points if len(points) > 1 else points * 2) for points in found if points]


def metric_bars(names: Sequence[str], values: Sequence[float], low: float, high: float, metric: str) -> str:
    """The model (last) beside its floors; the line is the model's bootstrap interval."""
    with Drawing((5.2, 0.6 + 0.32 * len(names)), label=f"{metric} of the model and of the floors") as drawing:
        axes = drawing.axes[0]
        colours = [INK] * (len(names) - 1) + [BLUE]
        for i, (value, colour) in enumerate(zip(values, colours, strict=True)):
            axes.barh(i, value, color=colour, alpha=1.0 if colour == BLUE else 0.35, height=0.62)
        if math.isfinite(low) and math.isfinite(high):
            axes.plot([low, high], [len(names) - 1] * 2, color=ORANGE, linewidth=2.5, solid_capstyle="butt")
        axes.set_yticks(range(len(names)), [shorten(n, 34) for n in names])
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(metric)
    return drawing.svg
