"""Train a network on DATA and write a run folder with its report."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from crnn.cli import options


def train(
    data: Annotated[str | None, typer.Argument(help="Folder or file of recordings, series or tables.")] = None,
    out: Annotated[str | None, typer.Option(help="The run folder to write.")] = None,
    task: Annotated[str | None, typer.Option(help="classify, multilabel, regress, tag, ...; inferred.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="default, live, seed, lstm-fcn, ...; the task's own where none is given.")
    ] = None,
    labels: options.Labels = None,
    target: options.Target = None,
    group: options.Group = None,
    pattern: options.Pattern = None,
    id_: options.Id = None,
    time: options.Time = None,
    format_: options.Format = None,
    sample_rate: options.SampleRate = None,
    cache: options.Cache = None,
    height: options.Height = None,
    channels: options.Channels = None,
    alphabet: options.Alphabet = None,
    test: Annotated[str | None, typer.Option(help="Test data, when it lies elsewhere.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same numbers.")] = 0,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training data; the preset decides.")] = None,
    config: Annotated[str | None, typer.Option(help="YAML file of options, on top of the preset.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One option, such as train.learning_rate=1e-3.")
    ] = None,
    vgsl: Annotated[
        str | None, typer.Option(help="A network for line images, as Tesseract and kraken write it: '[1,48,0,1 ...]'.")
    ] = None,
    resume: Annotated[str | None, typer.Option(help="Continue this interrupted run.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a finished run in --out.")] = False,
    skip_bad: options.SkipBad = False,
    quiet: options.Quiet = False,
    json_: options.AsJson = False,
) -> None:
    """Train a network on DATA and write a run folder with its report."""
    import crnn.run as runs
    from crnn.errors import ConfigError
    from crnn.training.ranks import this_place

    if resume is not None and (data is not None or out is not None):
        raise ConfigError("--resume RUN continues a run with its own data and options; leave DATA and --out away")
    if resume is None and (data is None or out is None):
        missing = "DATA" if data is None else "--out RUN"
        raise ConfigError(f"{missing} is missing; expected: crnn train DATA --out RUN")
    first = this_place().rank == 0
    quiet = quiet or json_ or not first
    try:
        if resume is not None:
            run = runs.resume(resume, quiet=quiet)
        else:
            run = runs.train(
                data,
                out=out,
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
                cache=cache,
                height=height,
                channels=options.names(channels),
                alphabet=alphabet,
                test=test,
                seed=seed,
                epochs=epochs,
                config=config,
                settings=options.settings(set_ or []) | ({} if vgsl is None else {"model.vgsl": vgsl}),
                overwrite=overwrite,
                on_bad="skip" if skip_bad else "fail",
                quiet=quiet,
            )
    except KeyboardInterrupt as stop:
        print(f"crnn: {_how_to_go_on(str(stop), resume or out)}", file=sys.stderr)
        raise typer.Exit(options.INTERRUPTED) from None
    if first:
        print(json.dumps(run.summary(), indent=2) if json_ else run)


def _how_to_go_on(stopped: str, folder: str | None) -> str:
    """What to do after Ctrl-C, where training says that it stopped."""
    saved = folder is not None and (Path(folder) / "checkpoints" / "last.safetensors").is_file()
    how = f"continue with: crnn train --resume {folder}" if saved else "no checkpoint yet; start again with --overwrite"
    return f"{stopped or 'stopped'}\n{how}"
