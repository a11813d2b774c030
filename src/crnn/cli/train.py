"""Train a network on DATA and write a run folder with its report."""

from __future__ import annotations

from typing import Annotated

import typer

from crnn.cli import options


def train(
    data: Annotated[str | None, typer.Argument(help="Folder or file of recordings, series or tables.")] = None,
    out: Annotated[str | None, typer.Option(help="The run folder to write.")] = None,
    task: Annotated[str | None, typer.Option(help="classify, multilabel or regress; inferred.")] = None,
    preset: Annotated[str, typer.Option(help="default, seed or lstm-fcn.")] = "default",
    labels: options.Labels = None,
    target: options.Target = None,
    group: options.Group = None,
    pattern: options.Pattern = None,
    sample_rate: options.SampleRate = None,
    test: Annotated[str | None, typer.Option(help="Test data, when it lies elsewhere.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same numbers.")] = 0,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training data; the preset decides.")] = None,
    config: Annotated[str | None, typer.Option(help="YAML file of options, on top of the preset.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One option, such as train.learning_rate=1e-3.")
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

    if resume is not None:
        if data is not None or out is not None:
            raise ConfigError("--resume RUN continues a run with its own data and options; leave DATA and --out away")
        run = runs.resume(resume, quiet=quiet or json_)
    else:
        if data is None or out is None:
            missing = "DATA" if data is None else "--out RUN"
            raise ConfigError(f"{missing} is missing; expected: crnn train DATA --out RUN")
        run = runs.train(
            data,
            out=out,
            task=task,
            preset=preset,
            labels=labels,
            target=target,
            group=group,
            pattern=pattern,
            sample_rate=sample_rate,
            test=test,
            seed=seed,
            epochs=epochs,
            config=config,
            settings=options.settings(set_ or []),
            overwrite=overwrite,
            on_bad="skip" if skip_bad else "fail",
            quiet=quiet or json_,
        )
    if json_:
        import json

        print(json.dumps(run.summary(), indent=2))
    else:
        print(run)
