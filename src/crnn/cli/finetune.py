"""Train the model of a RUN further, on new DATA."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from crnn.cli import options


def finetune(
    run: Annotated[str, typer.Argument(help="The run folder to begin from; it stays as it is.")],
    data: Annotated[str, typer.Argument(help="New labelled data.")],
    out: Annotated[str | None, typer.Option(help="The run folder to write; else RUN-finetuned.")] = None,
    resize: Annotated[
        str, typer.Option(help="New letters of a transcriber: add (or union), new (drops old ones too) or fail.")
    ] = "add",
    labels: options.Labels = None,
    target: options.Target = None,
    group: options.Group = None,
    pattern: options.Pattern = None,
    id_: options.Id = None,
    time: options.Time = None,
    format_: options.Format = None,
    seed: Annotated[int, typer.Option(help="Same seed, same numbers.")] = 0,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the new data; else half of the first training.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One option of the training, such as train.learning_rate=1e-4.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a finished run in --out.")] = False,
    skip_bad: options.SkipBad = False,
    quiet: options.Quiet = False,
    json_: options.AsJson = False,
) -> None:
    """Train the model of a RUN further, on new DATA: the same network, with more letters where it needs them."""
    import crnn.finetune as tuning
    from crnn.errors import ConfigError

    if resize not in ("add", "union", "new", "fail"):
        raise ConfigError(f"--resize {resize}: expected add, union, new or fail")
    folder = out or f"{Path(run)}-finetuned"
    try:
        made = tuning.finetune(
            run,
            data,
            out=folder,
            resize=resize,  # type: ignore[arg-type]
            epochs=epochs,
            settings=options.settings(set_ or []),
            labels=labels,
            target=target,
            group=group,
            pattern=pattern,
            id=id_,
            time=time,
            format=format_,
            seed=seed,
            on_bad="skip" if skip_bad else "fail",
            overwrite=overwrite,
            quiet=quiet or json_,
        )
    except KeyboardInterrupt as stop:
        print(f"crnn: {stop or 'stopped'}\ncontinue with: crnn train --resume {folder}", file=sys.stderr)
        raise typer.Exit(options.INTERRUPTED) from None
    print(json.dumps(made.summary(), indent=2) if json_ else made)
