"""Predict for files with a trained RUN, one JSON line each."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from crnn.cli import options


def predict(
    run: Annotated[str, typer.Argument(help="The run folder.")],
    files: Annotated[list[str], typer.Argument(help="Recordings, tables or folders.")],
    out: Annotated[str | None, typer.Option("-o", "--out", help="Write JSON lines here; else to the screen.")] = None,
    batch_size: Annotated[int, typer.Option(help="Sequences at a time; changes speed only, never a prediction.")] = 64,
    skip_bad: options.SkipBad = False,
) -> None:
    """Predict for files with a trained RUN, one JSON line each."""
    import crnn.run as runs

    model = runs.load(run)
    data = model.read(files, on_bad="skip" if skip_bad else "fail")
    lines = [
        json.dumps({"id": example.id, **prediction}, ensure_ascii=False)
        for example, prediction in zip(data, model.predict(data, batch_size=batch_size), strict=True)
    ]
    if out is None:
        print("\n".join(lines))
    else:
        Path(out).write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{len(lines)} predictions: {out}")
    for problem in data.problems:
        if problem.what.startswith("no labels"):  # nobody asked for any
            continue
        print(f"crnn: skipped {problem}" if problem.level == "error" else f"crnn: {problem}", file=sys.stderr)
