"""Specs as Python, YAML and networks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from crnn.config import to_plain
from crnn.errors import ConfigError
from crnn.models.spec import merge, set_path, spec_from_plain, to_yaml
from crnn.presets.general import default
from crnn.presets.recipe import DataSummary
from crnn.presets.registry import PRESETS

SUMMARY = DataSummary("series", 3, None, 600, 300, 300, 100, 500, "classify", 4, has_missing=True, varied_scale=True)


@pytest.mark.parametrize("name", PRESETS)
def test_a_spec_survives_yaml(name: str) -> None:
    lines = PRESETS[name].__module__ == "crnn.presets.ocr"
    data = replace(SUMMARY, kind="image", num_channels=1, height=32) if lines else SUMMARY
    spec = spec_from_plain(PRESETS[name](data)["model"])
    assert to_plain(spec_from_plain(yaml.safe_load(to_yaml(spec)))) == to_plain(spec)


@pytest.mark.parametrize(
    ("change", "dilations"),
    [
        ({}, [1, 2, 4, 8, 16, 32]),  # 8 * 32 of 300 frames
        ({"num_examples": 200}, []),
        ({"num_examples": 100, "min_length": 500}, [1, 2, 4, 8, 16, 32]),
        ({"num_examples": 100, "mean_length": 60}, []),
        ({"num_examples": 100, "task": "regress"}, [1, 2, 4, 8, 16, 32]),
        ({"num_examples": 100, "task": "multilabel"}, []),
        ({"mean_length": 90}, []),
        ({"min_length": 500}, []),
        ({"task": "regress"}, []),
    ],
)
def test_fixed_patterns_are_for_few_series_and_for_many_long_ones_of_unequal_length(
    change: dict, dilations: list[int]
) -> None:
    parts = default(replace(SUMMARY, **change))["model"]["summary"]["summaries"]
    patterns = [part["layers"][0] for part in parts if part["type"] == "above"]
    assert [pattern["dilation"] for pattern in patterns] == dilations


CONV = {"type": "conv", "channels": 8}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"layers": [], "summary": {"type": "mean"}, "haed": {}}, "model.haed: unknown option; did you mean 'head'?"),
        ({"layers": [{**CONV, "kernel": 3}], "summary": {"type": "mean"}}, "did you mean 'kernel_size'?"),
        ({"layers": [{"type": "convv"}], "summary": {"type": "mean"}}, "unknown layer 'convv'; did you mean 'conv'?"),
        (
            {"layers": [{"type": "residual", "layers": [{**CONV, "chanels": 3}]}], "summary": {"type": "mean"}},
            r"layers\[0\].residual.layers\[0\].chanels: unknown option; did you mean 'channels'?",
        ),
        ({"layers": [CONV], "summary": {"type": "meen"}}, "unknown summary 'meen'; did you mean 'mean'?"),
        (
            {"layers": [CONV], "summary": {"type": "concat", "summaries": [{"type": "meen"}]}},
            "unknown summary 'meen'; did you mean 'mean'?",
        ),
        ({"layers": [CONV], "summary": {"type": "mean"}, "head": {"dropot": 0.1}}, "did you mean 'dropout'?"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest_at_every_depth(model: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        spec_from_plain(model)


def test_settings_reach_into_lists() -> None:
    values = {"model": {"layers": [{"type": "conv", "channels": 8}]}}
    set_path(values, "model.layers.0.channels", 16)
    assert values == {"model": {"layers": [{"type": "conv", "channels": 16}]}}
    with pytest.raises(ConfigError, match="expected a position from 0 to 0, found '3'"):
        set_path(values, "model.layers.3.channels", 16)


def test_merge_keeps_what_is_not_named() -> None:
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9}}) == {"a": {"b": 9, "c": 2}, "d": 3}
