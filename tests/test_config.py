"""Typed configuration: every wrong option is one ConfigError that names the nearest real key."""

import pytest

from crnn.config import build_config, config, parse_value, to_plain
from crnn.errors import ConfigError
from crnn.nn.conv import ConvConfig


@config
class Inner:
    """Options inside of others."""

    size: int = 1

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"inner.size={self.size}; expected at least 1")


@config
class Outer:
    """Options around others."""

    rate: float
    inner: Inner = Inner()


def test_a_config_is_built_from_plain_values_and_back() -> None:
    made = build_config(Outer, {"rate": 1, "inner": {"size": 3}}, "outer")
    assert made.rate == 1.0
    assert to_plain(made) == {"rate": 1.0, "inner": {"size": 3}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 1.0, "iner": {}}, r"outer\.iner: unknown option; did you mean 'inner'\?"),
        ({}, r"outer\.rate: field required"),
        ({"rate": "fast"}, r"outer\.rate: input should be a valid number.*found 'fast'"),
        ({"rate": 1.0, "inner": {"sise": 3}}, r"outer\.inner\.sise: unknown option"),
        ({"rate": 1.0, "inner": {"size": 0}}, r"inner\.size=0; expected at least 1"),
    ],
)
def test_a_wrong_option_is_named(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(Outer, values, "outer")


def test_direct_construction_raises_the_same_error() -> None:
    with pytest.raises(ConfigError, match=r"conv\.channels=0; expected at least 1"):
        ConvConfig(channels=0)
    with pytest.raises(ConfigError, match="chanels: unknown option; did you mean 'channels'"):
        ConvConfig(chanels=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("1e-3", 0.001), ("true", True), ("relu", "relu"), ("[1, 2]", [1, 2]), ("null", None), ("0.5", 0.5)],
)
def test_command_line_values_are_typed(text: str, value: object) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)
