"""Predict for files with a trained RUN, one JSON line each."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from crnn.cli import options


def predict(
    run: Annotated[str, typer.Argument(help="The run folder.")],
    files: Annotated[list[str], typer.Argument(help="Recordings, tables or folders.")],
    out: Annotated[str | None, typer.Option("-o", "--out", help="Write JSON lines here; else to the screen.")] = None,
    batch_size: Annotated[int, typer.Option(help="Sequences at a time; changes speed only, never a prediction.")] = 64,
    id_: options.Id = None,
    time: options.Time = None,
    format_: options.Format = None,
    skip_bad: options.SkipBad = False,
) -> None:
    """Predict for files with a trained RUN, one JSON line each."""
    import crnn.run as runs
    from crnn.config import without_nan

    file = None if out is None else options.writable(out, "--out")
    trained = runs.Run(run)
    data = trained.read(files, id=id_, time=time, format=format_, on_bad="skip" if skip_bad else "fail")
    lines = [
        json.dumps(without_nan({"id": example.id, **prediction}), ensure_ascii=False, allow_nan=False) + "\n"
        for example, prediction in zip(data, trained.model.predict(data, batch_size=batch_size), strict=True)
    ]
    if file is None:
        sys.stdout.writelines(lines)
    else:
        file.write_text("".join(lines), encoding="utf-8")
        print(f"{len(lines)} predictions: {file}")
    for problem in data.problems:
        print(f"crnn: skipped {problem}" if problem.level == "error" else f"crnn: {problem}", file=sys.stderr)
