"""One HTML file from an evaluation: no scripts, fonts or addresses, so that it opens anywhere and for ever."""

from __future__ import annotations

import math
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from crnn.report import plots
from crnn.report.evaluation import Evaluation, metric_words
from crnn.tasks.task import Table


def render(evaluation: Evaluation) -> str:
    """The whole report as one HTML document."""
    return _template().render(_facts(evaluation), compact=False, **_drawings(evaluation))


def render_compact(evaluation: Evaluation) -> str:
    """The head of the report for a notebook: score, floor, warnings, and the confusion matrix or the scatter."""
    drawings = _drawings(evaluation, compact=True)
    return _template().render(_facts(evaluation), compact=True, **drawings)


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=number, percent=percent, amount=amount, seconds=seconds, cell=cell)
    return environment.from_string(files("crnn.report").joinpath("report.html.jinja").read_text(encoding="utf-8"))


def _facts(evaluation: Evaluation) -> dict[str, Any]:
    """What the template needs besides the drawings."""
    return {
        "e": evaluation,
        "facts": evaluation.facts,
        "headline": evaluation.headline,
        "floor": evaluation.best_floor,
        "verdict": evaluation.verdict,
        "primary": metric_words(evaluation.primary),
        "words": metric_words,
        "warnings": evaluation.warnings(),
        "tables": [t for t in evaluation.tables if t.title != "Calibration"],
        "calibration_table": next((t for t in evaluation.tables if t.title == "Calibration"), None),
        "confused": most_confused(evaluation),
        "luck": luck(evaluation),
        "floor_metrics": [m for m in evaluation.metrics if any(m in f.metrics for f in evaluation.floors)],
        "settings_yaml": yaml.safe_dump(evaluation.facts.settings, sort_keys=False)
        if evaluation.facts.settings
        else "",
    }


def _drawings(evaluation: Evaluation, *, compact: bool = False) -> dict[str, Any]:
    """Every drawing as inline SVG; empty where there is nothing to draw."""
    e = evaluation
    true, predicted = [t for t, _ in e.scatter], [p for _, p in e.scatter]
    found = {
        "confusion_svg": plots.confusion_matrix(e.confusion, e.labels) if e.confusion else "",
        "scatter_svg": _side_by_side(plots.values_scatter(true, predicted)),
    }
    if not compact:
        found |= {
            "floor_svg": _floor_bars(e),
            "curves_svg": _side_by_side(plots.learning_curves(e.facts.history, e.primary, metric_words(e.primary))),
            "classes_svg": plots.class_distribution(e.facts.class_counts, e.labels),
            "reliability_svg": _reliability(e),
            "length_svg": _error_by_length(e),
        }
    drawn: dict[str, Any] = {name: Markup(svg) for name, svg in found.items()}
    if not compact:
        drawn["worst_svgs"] = [Markup(plots.signal(w.signal, w.duration, e.length_unit, w.marks)) for w in e.worst]
    return drawn


def _side_by_side(drawings: list[str]) -> str:
    """Two drawings beside each other, or below on a narrow screen."""
    return f'<div class="sides">{"".join(drawings)}</div>' if drawings else ""


def _reliability(evaluation: Evaluation) -> str:
    calibration = evaluation.calibration
    if calibration is None:
        return ""
    before = [(confidence, accuracy, count) for _, _, count, confidence, accuracy in calibration.bins]
    if calibration.bins_after is None:
        return plots.reliability(before)
    after = [(confidence, accuracy, count) for _, _, count, confidence, accuracy in calibration.bins_after]
    return plots.reliability(before, after)


def _error_by_length(evaluation: Evaluation) -> str:
    bins = evaluation.lengths
    if len(bins) < 2:
        return ""
    spans, errors, counts = [(b.low, b.high) for b in bins], [b.error for b in bins], [b.count for b in bins]
    return plots.error_by_length(spans, errors, counts, evaluation.length_unit, evaluation.length_measure)


def _floor_bars(evaluation: Evaluation) -> str:
    """The primary metric of the model beside its floors."""
    known = [(f.name, f.metrics.get(evaluation.primary, math.nan)) for f in evaluation.floors]
    known = [(name, value) for name, value in known if not math.isnan(value)]
    if not known or math.isnan(evaluation.headline.point):
        return ""
    names, values = [n for n, _ in known] + ["this model"], [v for _, v in known] + [evaluation.headline.point]
    return plots.metric_bars(
        names, values, evaluation.headline.low, evaluation.headline.high, metric_words(evaluation.primary)
    )


def most_confused(evaluation: Evaluation, most: int = 10) -> Table | None:
    """The pairs of classes that are taken for each other most often; None when there are none."""
    if not evaluation.confusion:
        return None
    pairs = [
        (count, evaluation.labels[i], evaluation.labels[j], count / max(1, sum(row)))
        for i, row in enumerate(evaluation.confusion)
        for j, count in enumerate(row)
        if i != j and count
    ]
    pairs.sort(key=lambda pair: -pair[0])
    rows = [[true, predicted, count, share] for count, true, predicted, share in pairs[:most]]
    return Table("Most confused", ["true", "predicted", "examples", "share of the true"], rows) if rows else None


def luck(evaluation: Evaluation) -> str:
    """What a perfect score says about new data, since no resample of it holds an error."""
    top = evaluation.headline
    if evaluation.form != "classes" or top.point != 1.0 or evaluation.primary != "accuracy":
        return ""
    return (
        f"No error in {evaluation.num_examples} examples: the interval cannot show luck here. By the rule of three the "
        f"error on new data of this kind is below {percent(3 / evaluation.num_examples)} with 95% confidence."
    )


def number(value: float | None) -> str:
    """Three or four significant digits; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def percent(share: float) -> str:
    """A share in percent, two or three digits."""
    return f"{100 * share:.2g}%" if share < 0.1 else f"{100 * share:.3g}%"


def amount(count: float | None) -> str:
    """A large number with its unit prefix: 1.2 M."""
    if count is None:
        return "–"
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= size:
            return f"{count / size:.3g} {prefix}"
    return f"{count:.3g}"


def seconds(value: float | None) -> str:
    """A duration in the unit that suits it."""
    if value is None:
        return "–"
    if value < 1e-3:
        return f"{1e6 * value:.3g} µs"
    if value < 1:
        return f"{1e3 * value:.3g} ms"
    return f"{value:.3g} s" if value < 120 else f"{value / 60:.3g} min"


def cell(value: Any) -> str:
    """A cell of a table, numbers formatted."""
    if isinstance(value, bool) or value is None:
        return "–" if value is None else str(value).lower()
    return f"{value:,}" if isinstance(value, int) else number(value) if isinstance(value, float) else str(value)
