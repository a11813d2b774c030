"""Search for better options than the preset's on DATA, without its test side."""

from __future__ import annotations

import json as jsonlib
import sys
from typing import Annotated

import typer

from crnn.cli import options


def search(
    data: Annotated[str, typer.Argument(help="Folder or file of recordings, series or tables.")],
    out: Annotated[str | None, typer.Option(help="Folder for best.yaml, trials.csv and the journal of trials.")] = None,
    trials: Annotated[int, typer.Option(help="Of all workers together.")] = 50,
    storage: Annotated[
        str | None,
        typer.Option(help="sqlite:///x.db, postgresql://... or a journal file, shared by all workers; OUT/trials.log."),
    ] = None,
    space: Annotated[str | None, typer.Option(help="YAML file of what is varied, and how far.")] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Held-out parts on which a trial is measured; 1 or 3 by the size of the data.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="classify, multilabel or regress; inferred.")] = None,
    preset: Annotated[str | None, typer.Option(help="What trials start from; the task's own if none.")] = None,
    labels: options.Labels = None,
    target: options.Target = None,
    group: options.Group = None,
    pattern: options.Pattern = None,
    id_: options.Id = None,
    time: options.Time = None,
    format_: options.Format = None,
    sample_rate: options.SampleRate = None,
    alphabet: options.Alphabet = None,
    seed: Annotated[int, typer.Option(help="Same seed, same numbers.")] = 0,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training data; the preset decides.")] = None,
    config: Annotated[str | None, typer.Option(help="YAML file of options, on top of the preset.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One option, such as train.learning_rate=1e-3.")
    ] = None,
    skip_bad: options.SkipBad = False,
    quiet: options.Quiet = False,
    json_: options.AsJson = False,
) -> None:
    """Search for better options than the preset's on DATA, without its test side; several workers may share it."""
    from crnn.search.search import search as carry_out

    try:
        found = carry_out(
            data,
            out=out,
            trials=trials,
            storage=storage,
            space=space,
            rounds=rounds,
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
            alphabet=alphabet,
            seed=seed,
            epochs=epochs,
            config=config,
            settings=options.settings(set_ or []),
            on_bad="skip" if skip_bad else "fail",
            quiet=quiet or json_,
        )
    except KeyboardInterrupt:
        kept = "finished trials are kept; go on with the same command" if out or storage else "nothing was kept"
        print(f"crnn: stopped; {kept}", file=sys.stderr)
        raise typer.Exit(options.INTERRUPTED) from None
    if json_:
        print(jsonlib.dumps(found.to_dict(), indent=2))
        return
    print(found)
    if out is not None:
        print(f"trials   {out}/trials.csv\nnext     crnn train {data} --config {out}/best.yaml --out RUN")
