"""Spaces: what is varied, what is refused before any training."""

from __future__ import annotations

from pathlib import Path

import pytest

from crnn.errors import ConfigError
from crnn.search.space import Range, check_space, default_space, read_space, values_of, with_values
from crnn.tasks.classify import ClassifyConfig

OPTIONS = {
    "model": {
        "layers": [
            {"type": "conv", "channels": 64, "kernel_size": 3},
            {"type": "residual", "layers": [{"type": "conv", "channels": 64}]},
        ],
        "summary": {
            "type": "concat",
            "summaries": [{"type": "mean", "layers": [{"type": "recurrent", "hidden_size": 10}]}],
        },
        "head": {"dropout": 0.3},
    },
    "train": {"learning_rate": 1e-3, "batch_size": 8, "weight_decay": 0.01},
    "task": {},
}


def test_the_default_space_lies_around_what_the_preset_chose() -> None:
    space = default_space(OPTIONS)
    assert space["train.learning_rate"] == Range(low=1.25e-4, high=8e-3, log=True)
    assert space["train.batch_size"] == [4, 8, 16]
    assert values_of(OPTIONS, space) == {
        "train.learning_rate": 1e-3,
        "train.batch_size": 8,
        "train.weight_decay": 0.01,
        "model.head.dropout": 0.3,
        "width": 1.0,
    }


def test_width_scales_every_layer_wherever_it_stands_and_nothing_else() -> None:
    wide = with_values(OPTIONS, {"width": 1.5, "train.batch_size": 16})
    assert [layer.get("channels") for layer in wide["model"]["layers"]] == [96, None]
    assert wide["model"]["layers"][1]["layers"][0]["channels"] == 96
    assert wide["model"]["summary"]["summaries"][0]["layers"][0]["hidden_size"] == 15
    assert wide["model"]["layers"][0]["kernel_size"] == 3
    assert wide["train"]["batch_size"] == 16
    assert OPTIONS["train"]["batch_size"] == 8


def test_a_preset_outside_of_the_space_is_no_trial() -> None:
    assert values_of(OPTIONS, {"train.batch_size": [2, 4]}) is None
    assert values_of(OPTIONS, {"train.learning_rate": Range(low=0.1, high=1.0)}) is None


def test_a_space_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("train.learning_rate: {low: 1e-4, high: 1e-2, log: true}\ntrain.weight_decay: [0, 1e-3]\n")
    space = read_space(path)
    assert space == {
        "train.learning_rate": Range(low=1e-4, high=1e-2, log=True),
        "train.weight_decay": [0, 1e-3],
    }


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "space: found nothing to vary"),
        ({"split.test": [0.1, 0.2]}, r"space: split.test: expected width, or SECTION.OPTION of model, train, task"),
        ({"trian.steps": [1, 2]}, "did you mean 'train'"),
        ({"train.steps": 3}, "space: train.steps: found 3, expected a list of values, or low, high"),
        ({"train.steps": [3]}, "expected a list of values"),
        ({"train.steps": [[1], 2]}, r"found \[1\] among the values, expected single values"),
        ({"train.steps": {"low": 3, "hgih": 4}}, "space: train.steps.hgih: unknown option; did you mean 'high'"),
        ({"train.steps": {"low": 4, "high": 3}}, "low=4, high=3.*expected low < high"),
        ({"train.steps": {"low": 0, "high": 3, "log": True}}, "low=0 with log; expected more than 0"),
    ],
)
def test_what_is_no_space_is_refused(space: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_space(space)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"train.leraning_rate": [0.1, 1.0]}, r"here: train.leraning_rate=0.1: .*did you mean 'learning_rate'"),
        ({"train.momentum": Range(low=0.5, high=1.5)}, r"here: train.momentum=1.5: train.momentum=1.5; expected 0 <="),
        ({"model.layers.7.channels": [8, 16]}, "here: model.layers.7.channels=8: .*expected a position from 0 to 1"),
        ({"task.smoothing": [0.0, 0.1]}, "unknown option"),
    ],
)
def test_both_ends_are_tried_before_training(space: dict[str, list[float] | Range], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_space(space, OPTIONS, ClassifyConfig, "here")
