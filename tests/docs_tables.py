"""The tables of options in the docs, written from the config classes themselves: python tests/docs_tables.py."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import textwrap
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from crnn.data.augment import AugmentConfig
from crnn.data.augment_images import ImageAugmentConfig
from crnn.data.split import SplitConfig
from crnn.models.network import Network
from crnn.nn.head import HeadConfig
from crnn.nn.layers import LAYERS
from crnn.nn.summary import SUMMARIES
from crnn.presets.registry import PRESETS
from crnn.tasks.classify import ClassifyConfig
from crnn.tasks.regress import RegressConfig
from crnn.tasks.tag import TagConfig
from crnn.training.config import TrainConfig

DOCS = Path(__file__).parents[1] / "docs"
FAMILIES = {
    "Front-ends": ("frontend", "running_norm", "scale", "spectral"),
    "Noise while training": ("jitter", "spec_augment"),
    "Convolution and pooling": ("conv", "patterns", "pool"),
    "Sequences of bases": ("position", "strands"),
    "Normalisation": ("norm",),
    "Recurrence": ("recurrent",),
    "Blocks and pointwise layers": ("blocks",),
}
"""Heading -> files of crnn.nn whose layers stand below it."""


def layers_table() -> str:
    """Every registered layer, by family."""
    parts = []
    for family, files in FAMILIES.items():
        parts.append(f"### {family}")
        parts += [entry(name, cls) for name, cls in LAYERS.items() if cls.__module__.split(".")[-1] in files]
    missing = [name for name in LAYERS if not any(f"\n**`{name}`**" in "\n" + part for part in parts)]
    assert not missing, f"{missing}: of no family in tests/docs_tables.py"
    return "\n\n".join(parts)


def summaries_table() -> str:
    """Every registered summary, and the head."""
    parts = [entry(name, cls) for name, cls in SUMMARIES.items()]
    return "\n\n".join([*parts, "**`head`** " + first_line(HeadConfig), options_table(HeadConfig)])


def entry(name: str, cls: Any) -> str:
    """Name, one line and options of a layer or summary."""
    head = f"**`{name}`** {first_line(cls)}"
    return f"{head}\n\n{options_table(cls.Config)}" if dataclasses.fields(cls.Config) else head


def presets_table() -> str:
    """Every preset with its first line."""
    rows = [["preset", "what it is"], *([f"`{name}`", first_line(make)] for name, make in PRESETS.items())]
    return markdown(rows)


def options_table(cls: Any) -> str:
    """The fields of a config class: name, default, values, and the line that explains it."""
    hints, words = typing.get_type_hints(cls), explanations(cls)
    rows = [["option", "default", "values", "meaning"]]
    for field in dataclasses.fields(cls):
        rows.append([f"`{field.name}`", default_of(field), values_of(hints[field.name]), words.get(field.name, "")])
    return markdown(rows)


def explanations(cls: Any) -> dict[str, str]:
    """Field -> the text that stands below it in the class, or in a class that it comes from."""
    found: dict[str, str] = {}
    for part in reversed([c for c in cls.__mro__ if dataclasses.is_dataclass(c)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(part))).body[0]
        assert isinstance(body, ast.ClassDef)
        for node, after in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                found[ast.unparse(node.target)] = " ".join(str(after.value.value).split())
    return found


def default_of(field: dataclasses.Field[Any]) -> str:
    """The default as YAML writes it; 'required' where there is none."""
    if field.default is dataclasses.MISSING:
        return "required"
    if dataclasses.is_dataclass(field.default):
        return "see below"
    if isinstance(field.default, tuple):
        return f"`{list(field.default)}`"
    is_yaml_word = field.default is None or isinstance(field.default, bool)
    return f"`{json.dumps(field.default) if is_yaml_word else field.default}`"


def values_of(hint: Any) -> str:
    """A type in a user's words."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if dataclasses.is_dataclass(hint):
        return "options"
    names = {int: "whole number", float: "number", bool: "true, false", str: "text", type(None): "null"}
    if hint in names:
        return names[hint]
    if typing.get_origin(hint) is tuple:
        return "list of " + {int: "whole numbers", float: "numbers", str: "names"}[arguments[0]]
    if typing.get_origin(hint) is list:
        return "list of lists of layers" if typing.get_origin(arguments[0]) is list else "list of layers"
    if typing.get_origin(hint) is dict:
        return "numbers by name"
    return ", ".join(values_of(argument) for argument in arguments)


def first_line(thing: Any) -> str:
    """The first line of a docstring."""
    return str(inspect.getdoc(thing)).partition("\n")[0]


def markdown(rows: Iterable[list[str]]) -> str:
    """Rows as a table, the first one its head."""
    head, *rest = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rest])


TABLES: dict[str, Callable[[], str]] = {
    "layers": layers_table,
    "summaries": summaries_table,
    "presets": presets_table,
    "train": lambda: options_table(TrainConfig),
    "augment": lambda: options_table(AugmentConfig),
    "augment_image": lambda: options_table(ImageAugmentConfig),
    "split": lambda: options_table(SplitConfig),
    "classify": lambda: options_table(ClassifyConfig),
    "regress": lambda: options_table(RegressConfig),
    "tag": lambda: options_table(TagConfig),
}
"""Name in `<!-- options NAME -->` ... `<!-- end NAME -->` of a page -> its text."""

_MARKED = re.compile(r"(<!-- options (?P<name>\w+) -->\n).*?(<!-- end (?P=name) -->)", re.DOTALL)


def filled(text: str) -> str:
    """A page with its tables as they have to be."""
    assert Network  # importing it registers every layer
    return _MARKED.sub(lambda m: f"{m[1]}{TABLES[m['name']]()}\n{m[3]}", text)


if __name__ == "__main__":
    for page in sorted(DOCS.glob("*.md")):
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
