"""Look at DATA as training would, and name everything it would trip over."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated

import typer

from crnn.cli import options


def check(
    data: Annotated[str, typer.Argument(help="Folder or file of recordings, series or tables.")],
    task: Annotated[str | None, typer.Option(help="classify or regress; inferred from the targets.")] = None,
    preset: Annotated[str, typer.Option(help="The network whose needs are checked.")] = "default",
    labels: options.Labels = None,
    target: options.Target = None,
    group: options.Group = None,
    pattern: options.Pattern = None,
    sample_rate: options.SampleRate = None,
    json_: options.AsJson = False,
) -> None:
    """Look at DATA as training would, and name everything it would trip over. Exit 0: can be trained on."""
    import crnn.run as runs

    found = runs.check(
        data,
        task=task,
        preset=preset,
        labels=labels,
        target=target,
        group=group,
        pattern=pattern,
        sample_rate=sample_rate,
    )
    print(jsonlib.dumps(found.to_dict(), indent=2) if json_ else "\n".join(found.lines()))
    raise typer.Exit(found.exit_code)
