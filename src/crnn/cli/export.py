"""Write a trained RUN in a format that runs without crnn."""

from __future__ import annotations

import json as jsonlib
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from crnn.cli import options


def export(
    run: Annotated[str, typer.Argument(help="The run folder.")],
    to: Annotated[str, typer.Option(help="c, onnx or keras.")],
    out: Annotated[str, typer.Option("-o", "--out", help="The file to write; for C a folder.")],
    name: Annotated[str | None, typer.Option(help="Prefix of every name in C; the run's name.")] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="ONNX: weights as 8 bit integers; a quarter of the size.")
    ] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="ONNX: for whole sequences only; faster on padded batches.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    json_: options.AsJson = False,
) -> None:
    """Write a trained RUN in a format that runs without crnn; it is compared with the model before it is done."""
    import crnn.run as runs

    model = runs.load(run)
    name = name or identifier(Path(run).resolve().name)
    exported = model.export(to, out, name=name, int8=int8, whole=whole, overwrite=overwrite)
    if json_:
        print(jsonlib.dumps(_facts(exported), indent=2, default=str))
        return
    print(exported.found)
    print("\n".join(f"file: {path} ({size / 1000:.1f} kB)" for path, size in exported.files.items()))
    if exported.delay_frames is not None:
        seconds = "" if exported.delay_seconds is None else f" ({exported.delay_seconds:.3g} s)"
        print(f"delay: {exported.delay_frames:g} frames{seconds}")
    else:
        print("delay: none; it takes whole sequences")
    print(f"next: {next_step(to, out)}")


def identifier(text: str) -> str:
    """A name that C takes: letters, digits and underscores, no digit in front."""
    name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_").lower()
    return name if name[:1].isalpha() else f"model_{name}".rstrip("_")


def next_step(to: str, out: str) -> str:
    """What to do with what was written."""
    if to == "c":
        return f"cat {Path(out) / 'README.md'}"
    if to == "onnx":
        return f"python -c \"import onnxruntime as o; print(*o.InferenceSession('{out}').get_inputs(), sep='\\n')\""
    if to == "keras":
        return f"python -c \"import keras; keras.models.load_model('{out}').summary()\""
    return f"ls {out}"


def _facts(exported: Any) -> dict[str, Any]:
    return {
        "to": exported.to,
        "files": {str(path): size for path, size in exported.files.items()},
        "found": exported.found,
        "details": exported.details,
        "delay_frames": exported.delay_frames,
        "delay_seconds": exported.delay_seconds,
    }
