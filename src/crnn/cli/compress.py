"""Make a trained RUN smaller and faster, and say what that costs."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated

import typer

from crnn.cli import options


def compress(
    run: Annotated[str, typer.Argument(help="The run folder.")],
    out: Annotated[str, typer.Option(help="The run folder to write.")],
    int8: Annotated[bool, typer.Option("--int8", help="Weights and inputs in 8 bits.")] = False,
    prune: Annotated[float | None, typer.Option(help="Share of the weights to set to zero, such as 0.5.")] = None,
    prune_units: Annotated[
        float | None, typer.Option(help="Share of the channels and hidden units to take out, such as 0.5.")
    ] = None,
    distil: Annotated[
        str | None, typer.Option(help="Train this preset's network with RUN as its teacher, such as live.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Labelled data to calibrate, fine-tune and score on; the run's own when left out."),
    ] = None,
    labels: options.Labels = None,
    target: options.Target = None,
    group: options.Group = None,
    pattern: options.Pattern = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training data, of each step that trains.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run in --out.")] = False,
    skip_bad: options.SkipBad = False,
    quiet: options.Quiet = False,
    json_: options.AsJson = False,
) -> None:
    """Make a trained RUN smaller and faster, and say what that costs; several steps go from --distil to --int8."""
    from crnn.compress.compress import Steps
    from crnn.compress.compress import compress as carry_out

    found = carry_out(
        run,
        out,
        Steps(int8=int8, prune=prune, prune_units=prune_units, distil=distil),
        data=data,
        labels=labels,
        target=target,
        group=group,
        pattern=pattern,
        epochs=epochs,
        on_bad="skip" if skip_bad else "fail",
        overwrite=overwrite,
        quiet=quiet or json_,
    )
    if json_:
        print(jsonlib.dumps(found.to_dict(), indent=2))
        return
    print(found)
    print(f"report   {out}/report.html\nnext     crnn info {out} --cost\n         crnn export {out} --to c -o {out}_c/")
