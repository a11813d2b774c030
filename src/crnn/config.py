"""Typed configuration: frozen pydantic dataclasses, their YAML spelling, and errors that name the nearest real key."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
from typing import Any, TypeVar, get_args, get_type_hints

import pydantic
import yaml
from typing_extensions import dataclass_transform

from crnn.errors import ConfigError

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config(cls: type[T]) -> type[T]:
    """Class decorator: a frozen, keyword-only, validated dataclass; a wrong or unknown option is a ConfigError."""
    settings = pydantic.ConfigDict(extra="forbid")
    made: Any = pydantic.dataclasses.dataclass(cls, frozen=True, kw_only=True, config=settings)  # type: ignore[call-overload]
    validate = made.__init__

    @functools.wraps(validate)
    def init(self: object, *args: Any, **options: Any) -> None:
        try:
            validate(self, *args, **options)
        except pydantic.ValidationError as error:
            raise _explain(error, made, made.__name__) from None

    made.__init__ = init
    return made  # type: ignore[no-any-return]


def nearest(word: str, known: list[str]) -> str:
    """ "; did you mean 'x'?" for the closest known word, or a list of what is known."""
    if not known:
        return "; there are none here"
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def build_config(cls: type[T], values: dict[str, Any], where: str) -> T:
    """Build a config dataclass from plain values (YAML, JSON, command line).

    Args:
        where: prefix of every message, such as "model.yaml: recurrent".
    Raises:
        ConfigError: an unknown key (with the nearest real one), a missing key or a value of the wrong type.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: found {values!r}, expected a mapping of options")
    fields = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise ConfigError(f"{where}.{key}: unknown option{nearest(str(key), fields)}")
    try:
        return pydantic.TypeAdapter(cls).validate_python(values)
    except pydantic.ValidationError as error:
        raise _explain(error, cls, where) from None


def _explain(error: pydantic.ValidationError, cls: type, where: str) -> ConfigError:
    """The first thing that is wrong, in our words."""
    errors = error.errors()
    first = next((e for e in errors if e["type"] == "unexpected_keyword_argument"), errors[0])
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        name = where.rpartition(": ")[2]  # the message may begin with the same key
        before = where.removesuffix(name) if str(cause).startswith((f"{name}.", f"{name}[")) else f"{where}: "
        return ConfigError(f"{before}{cause}")
    at = ".".join(str(part) for part in (where, *first["loc"]))
    if first["type"] == "unexpected_keyword_argument":
        return ConfigError(f"{at}: unknown option{nearest(str(first['loc'][-1]), _options_at(cls, first['loc'][:-1]))}")
    found = "" if first["type"] == "missing" else f", found {first['input']!r}"
    return ConfigError(f"{at}: {first['msg'][:1].lower()}{first['msg'][1:]}{found}")


def _options_at(cls: type, path: tuple[int | str, ...]) -> list[str]:
    """Names of the options of the config that stands at a path of fields inside another one."""
    for name in path:
        hint = get_type_hints(cls)[str(name)]
        inside = [t for t in (hint, *get_args(hint)) if dataclasses.is_dataclass(t)]
        if not inside:
            return []
        cls = inside[0]  # type: ignore[assignment]
    return [f.name for f in dataclasses.fields(cls)]


def to_plain(value: Any) -> Any:
    """A config as dicts, lists and scalars, ready for YAML or JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def without_nan(value: Any) -> Any:
    """The same plain values with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [without_nan(item) for item in value]
    if hasattr(value, "item"):  # a number of NumPy or PyTorch
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def parse_value(text: str) -> Any:
    """A command-line value as YAML reads a scalar or list: typed, never evaluated as code."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 reads 1e-3 (no dot) as text
        except ValueError:
            return value
    return value
