"""Show what a trained RUN is: spec, sizes, cost, timing, labels, versions."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated, Any

import typer

from crnn.cli import options

SHOWN = 30
"""Labels or channels that are listed."""


def info(
    run: Annotated[str, typer.Argument(help="The run folder.")],
    cost: Annotated[bool, typer.Option("--cost", help="Only what it costs: here, as a stream, as a C file.")] = False,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Only what computes its recurrent layers on this machine, and why.")
    ] = False,
    json_: options.AsJson = False,
) -> None:
    """Show what a trained RUN is: spec, sizes, cost, timing, labels, versions."""
    import crnn.run as runs
    from crnn.native.library import describe
    from crnn.nn.recurrent import describe_kernels

    model = runs.load(run)
    facts = model.cost() if cost else model.info()
    if kernels:
        facts = {"streams": describe(), "whole sequences": describe_kernels(model.network) or "no recurrent layer"}
    print(jsonlib.dumps(facts, indent=2, ensure_ascii=False) if json_ else "\n".join(lines_of(facts)))


def lines_of(facts: dict[str, Any]) -> list[str]:
    """What Model.info gives, as lines to read."""
    found = []
    for name, value in facts.items():
        if isinstance(value, dict):
            found.append(f"{name}:")
            unknown = "the whole sequence" if name == "timing" else "none"
            known = {key.replace("_", " "): item for key, item in value.items() if item not in ((), [])}
            found += [f"  {key}: {unknown if item is None else _text(item)}" for key, item in known.items()]
        elif isinstance(value, str) and "\n" in value:
            found += [f"{name}:", *(f"  {line}" for line in value.rstrip().split("\n"))]
        else:
            found.append(f"{name}: {_text(value)}")
    return found


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        more = f" and {len(value) - SHOWN} more" if len(value) > SHOWN else ""
        return ", ".join(_text(each) if isinstance(each, dict) else str(each) for each in value[:SHOWN]) + more
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
