"""Look at DATA as training would, and name everything it would trip over."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated, Any

import typer

from crnn.cli import options


def check(
    data: Annotated[str, typer.Argument(help="Folder or file of recordings, series or tables.")],
    task: Annotated[str | None, typer.Option(help="classify, multilabel, regress, tag, ...; inferred.")] = None,
    preset: Annotated[str | None, typer.Option(help="The network whose needs are checked; the task's own.")] = None,
    labels: options.Labels = None,
    target: options.Target = None,
    group: options.Group = None,
    pattern: options.Pattern = None,
    id_: options.Id = None,
    time: options.Time = None,
    format_: options.Format = None,
    sample_rate: options.SampleRate = None,
    height: options.Height = None,
    channels: options.Channels = None,
    alphabet: options.Alphabet = None,
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
        id=id_,
        time=time,
        format=format_,
        sample_rate=sample_rate,
        height=height,
        channels=options.names(channels),
        alphabet=alphabet,
    )
    if json_:
        print(jsonlib.dumps(found.to_dict(), indent=2))
    else:
        print("\n".join([*found.lines(), *_plan(found.summary)]))
    raise typer.Exit(found.exit_code)


def _plan(summary: dict[str, Any]) -> list[str]:
    """What training would do, in a few lines; --json shows every option of it."""
    plan = summary.get("plan")
    if plan is None:
        return ["no training would start on this"]
    layers = ", ".join(dict.fromkeys(layer["type"] for layer in plan["model"]["layers"]))
    train = plan["train"]
    length = next((f"{train[unit]} {unit}" for unit in ("epochs", "steps") if train[unit]), "as long as it needs")
    return [
        f"task: {plan['task']}",
        f"split: {plan['split']}",
        f"preset: {plan['preset']} ({layers}; {length}); see every option with --json",
    ]
