"""Show what a trained RUN is: spec, sizes, cost, timing, labels, versions."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated

import typer

from crnn.cli import options


def info(
    run: Annotated[str, typer.Argument(help="The run folder.")],
    json_: options.AsJson = False,
) -> None:
    """Show what a trained RUN is: spec, sizes, cost, timing, labels, versions."""
    import crnn.run as runs

    facts = runs.load(run).info()
    if json_:
        print(jsonlib.dumps(facts, indent=2, ensure_ascii=False))
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, item in value.items():
                print(f"  {key}: {item}")
        elif isinstance(value, str) and "\n" in value:
            print(f"{name}:\n  " + value.rstrip().replace("\n", "\n  "))
        else:
            print(f"{name}: {value}")
