"""What a search varies: options of a run and their ranges; the default follows from what the preset chose."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from crnn.config import build_config, config, nearest, parse_value
from crnn.errors import ConfigError
from crnn.models.spec import read_yaml, set_path, spec_from_plain
from crnn.training.config import TrainConfig

WIDTH = "width"
"""A factor on every `channels` and `hidden_size` of the network; not an option itself."""
SECTIONS = ("model", "train", "task")
"""Of a run's options, what may be varied; with another split the scores of two trials could not be compared."""
Options = dict[str, Any]
"""Of a run, as plain values: {"model": ..., "train": ..., "task": ...}."""
Values = dict[str, Any]
"""One value for each name in a space."""


@config
class Range:
    """Numbers from low to high, both included; whole numbers where both are whole."""

    low: int | float
    """The least."""
    high: int | float
    """The greatest."""
    log: bool = False
    """Drawn evenly in the logarithm: for what is varied by orders of magnitude."""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(f"low={self.low}, high={self.high}; expected low < high")
        if self.log and self.low <= 0:
            raise ConfigError(f"low={self.low} with log; expected more than 0")


Space = dict[str, Range | list[Any]]
"""Path of an option (or WIDTH) -> its range, or the values to choose from."""


def default_space(options: Options) -> Space:
    """Learning rate, batch size, weight decay, dropout before the head, width: around what the preset chose."""
    train = options["train"]
    rate, decay = train["learning_rate"], train["weight_decay"]
    filled = "batch_size" if train.get("batch_frames") is None else "batch_frames"
    size = train[filled]
    dropout = options["model"]["head"]["dropout"]
    return {
        "train.learning_rate": Range(low=rate / 8, high=rate * 8, log=True),
        f"train.{filled}": sorted({max(2, size // 2), size, 2 * size}),
        "train.weight_decay": Range(low=decay / 30, high=decay * 10, log=True) if decay else [0.0, 1e-4, 1e-3, 1e-2],
        "model.head.dropout": Range(low=0.0, high=max(0.6, dropout)),
        WIDTH: [0.5, 0.75, 1.0, 1.5],
    }


def read_space(source: str | Path | dict[str, Any]) -> Space:
    """A space from a YAML file or plain values.

    Raises:
        ConfigError: which entry cannot be used, and why.
    """
    where = str(source) if isinstance(source, (str, Path)) else "space"
    plain = read_yaml(source) if isinstance(source, (str, Path)) else source
    if not plain:
        raise ConfigError(f"{where}: found nothing to vary, expected entries such as train.learning_rate: [1e-3, 3e-3]")
    space: Space = {}
    for name, entry in plain.items():
        _check_name(str(name), where)
        space[name] = entry if isinstance(entry, Range) else _read_entry(entry, f"{where}: {name}")
    return space


def _check_name(name: str, where: str) -> None:
    section, _, rest = name.partition(".")
    if name == WIDTH or (section in SECTIONS and rest):
        return
    known = nearest(section, [WIDTH, *SECTIONS])
    raise ConfigError(f"{where}: {name}: expected {WIDTH}, or SECTION.OPTION of {', '.join(SECTIONS)}{known}")


def _read_entry(entry: Any, where: str) -> Range | list[Any]:
    if isinstance(entry, dict):
        return build_config(Range, entry, where)
    if not isinstance(entry, list) or len(entry) < 2:
        raise ConfigError(f"{where}: found {entry!r}, expected a list of values, or low, high and perhaps log")
    odd = [value for value in entry if not isinstance(value, (str, int, float, bool, type(None)))]
    if odd:
        raise ConfigError(f"{where}: found {odd[0]!r} among the values, expected single values: numbers, words or null")
    return [parse_value(value) if isinstance(value, str) else value for value in entry]  # YAML reads 1e-3 as text


def check_space(space: Space, options: Options, task_config: type, where: str) -> None:
    """Build the options with both ends of each range, and with each choice, before anything is trained.

    Raises:
        ConfigError: a name that is no option, or a value that it cannot have.
    """
    for name, entry in space.items():
        for value in [entry.low, entry.high] if isinstance(entry, Range) else entry:
            try:
                varied = with_values(options, {name: value})
                spec_from_plain(varied["model"])
                build_config(TrainConfig, varied["train"], "train")
                build_config(task_config, varied["task"], "task")
            except ConfigError as error:
                raise ConfigError(f"{where}: {name}={value}: {error}") from None


def with_values(options: Options, values: Values) -> Options:
    """Options with the values of a trial in place; what they were made from stays as it was.

    Raises:
        ConfigError: a path through something that is no mapping or list.
    """
    options = copy.deepcopy(options)
    for name, value in values.items():
        if name == WIDTH:
            _widen(options["model"], value)
        else:
            set_path(options, name, value)
    return options


def _widen(part: Any, factor: float) -> None:
    """Multiply every width inside of plain model options, in place."""
    if isinstance(part, list):
        for entry in part:
            _widen(entry, factor)
    elif isinstance(part, dict):
        for key, value in part.items():
            if key in ("channels", "hidden_size") and isinstance(value, int):
                part[key] = max(1, round(factor * value))
            else:
                _widen(value, factor)


def values_of(options: Options, space: Space) -> Values | None:
    """What the options themselves have for a space; None where that lies outside of it."""
    values: Values = {}
    for name, entry in space.items():
        value = 1.0 if name == WIDTH else _at(options, name)
        inside = value in entry if isinstance(entry, list) else _is_between(value, entry)
        if not inside:
            return None
        values[name] = value
    return values


def _is_between(value: Any, entry: Range) -> bool:
    return isinstance(value, (int, float)) and entry.low <= value <= entry.high


def _at(options: Any, path: str) -> Any:
    for key in path.split("."):
        options = options[int(key)] if isinstance(options, list) else options.get(key)
    return options
