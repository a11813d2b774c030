"""What a network is: a typed spec, the same thing in Python, YAML and a saved run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from crnn.config import build_config, config, nearest, to_plain
from crnn.errors import ConfigError
from crnn.nn.blocks import complete_layers
from crnn.nn.head import HeadConfig
from crnn.nn.strands import check_strands
from crnn.nn.summary import complete_summary


@config
class NetworkSpec:
    """Layers in a row, a summary over time, a head; without a summary the head answers for every frame.

    Every option is checked when the spec is made, and written out with its default, so a saved spec says everything.
    """

    layers: list[dict[str, Any]]
    """Front-end first; each entry is {type: name of a registered layer, ...its options}."""
    summary: dict[str, Any] | None = None
    """{type: last | mean | max | attention | concat, ...}; null for one answer a frame."""
    head: HeadConfig = HeadConfig()
    """From the summary to the outputs."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", complete_layers(self.layers, "model.layers"))  # frozen: set once, here
        if self.summary is not None:
            object.__setattr__(self, "summary", complete_summary(self.summary, "model.summary"))
        check_strands(self.layers, self.summary)


def spec_from_plain(values: dict[str, Any], where: str = "model") -> NetworkSpec:
    """A spec from plain dicts, as YAML and JSON give them; unknown keys are refused with the nearest real one."""
    values = dict(values)
    if "head" in values and isinstance(values["head"], dict):
        values["head"] = build_config(HeadConfig, values["head"], f"{where}.head")
    return build_config(NetworkSpec, values, where)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file of options.

    Raises:
        ConfigError: no such file, not YAML (with the line), or not a mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; expected a YAML file of options")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{at}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: found {type(values).__name__}, expected a mapping such as 'model:' or 'train:'")
    return values


def to_yaml(value: Any) -> str:
    """A config as YAML, keys in their own order."""
    return str(yaml.safe_dump(to_plain(value), sort_keys=False, allow_unicode=True, width=100))


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, mappings merged key by key, everything else replaced.

    A mapping of another `type` is replaced too: options of a concat mean nothing to a mean.
    """
    result = dict(base)
    for key, value in over.items():
        before = result.get(key)
        if isinstance(value, dict) and isinstance(before, dict) and value.get("type") in (None, before.get("type")):
            result[key] = merge(before, value)
        else:
            result[key] = value
    return result


def set_path(values: dict[str, Any], path: str, value: Any) -> None:
    """Set 'train.learning_rate' or 'model.layers.2.channels' in nested plain values, in place.

    Raises:
        ConfigError: a list index out of range or not a number, or a path through a scalar.
    """
    at: Any = values
    keys = path.split(".")
    for i, key in enumerate(keys):
        here = ".".join(keys[: i + 1])
        last = i == len(keys) - 1
        if isinstance(at, list):
            if not key.isdigit() or int(key) >= len(at):
                raise ConfigError(f"--set {path}: {here!r}: expected a position from 0 to {len(at) - 1}, found {key!r}")
            if last:
                at[int(key)] = value
            else:
                at = at[int(key)]
        elif isinstance(at, dict):
            if last:
                at[key] = value
            else:
                at = at.setdefault(key, {})
        else:
            raise ConfigError(f"--set {path}: {here!r} is inside a single value, {at!r}{nearest(key, list(values))}")
