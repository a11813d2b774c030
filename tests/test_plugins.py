"""Other packages add layers, presets, tasks and readers by entry point."""

import pytest

from crnn.config import config
from crnn.errors import ConfigError
from crnn.nn import layers as layer_registry
from crnn.nn.blocks import build_layers
from crnn.nn.layers import Layer
from crnn.presets.registry import find_preset
from crnn.sequences import Sequences


@config
class TwiceConfig:
    """A number."""

    factor: float = 2.0


class Twice(Layer):
    """Every value times a factor."""

    Config = TwiceConfig

    def __init__(self, features, config):
        super().__init__(features)
        self.config = config

    def compute(self, x: Sequences) -> Sequences:
        return Sequences(self.config.factor * x.data, x.lengths)


def test_a_layer_of_another_package_is_named_in_specs(monkeypatch):
    monkeypatch.setattr(layer_registry, "plugins", lambda group: {"twice": Twice} if group == "layers" else {})
    chain = build_layers([{"type": "twice", "factor": 3.0}], (2,))
    assert isinstance(next(iter(chain)), Twice)
    with pytest.raises(ConfigError, match=r"factr: unknown option; did you mean 'factor'"):
        build_layers([{"type": "twice", "factr": 3.0}], (2,))


def test_unknown_presets_are_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"--preset defalt: unknown preset; did you mean 'default'"):
        find_preset("defalt")
