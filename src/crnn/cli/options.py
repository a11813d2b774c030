"""Options that several verbs share, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

Labels = Annotated[str | None, typer.Option(help="Table of labels: a column of files or ids, and the targets.")]
Target = Annotated[str | None, typer.Option(help="Name of the target column.")]
Group = Annotated[
    str | None,
    typer.Option(help="Column or file-name field that names the speaker, patient, ...: never on two sides of a split."),
]
Pattern = Annotated[
    str | None,
    typer.Option(help="What file names mean, such as '{label}_{speaker}_{take}'."),
]
Id = Annotated[str | None, typer.Option("--id", help="Column of a long table that tells sequences apart.")]
Time = Annotated[str | None, typer.Option(help="Column of a long table that orders the frames.")]
Format = Annotated[str | None, typer.Option("--format", help="Name of the reader, where it is not found by itself.")]
SampleRate = Annotated[int | None, typer.Option(help="Resample recordings to this rate in hertz.")]
Height = Annotated[int | None, typer.Option(help="Scale images of lines to this many pixels; 32 if not given.")]
Channels = Annotated[
    str | None,
    typer.Option(help="Channels or leads by name, in this order: 'MLII,V1?'; with '?' it may be missing."),
]
Alphabet = Annotated[
    str | None, typer.Option(help="What letters of sequences mean: dna, rna or protein; recognised by itself.")
]
Cache = Annotated[str | None, typer.Option(help="Folder for decoded data: files are decoded once, later runs map it.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave bad files and rows out, name them, and go on.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print results and errors only.")]


def names(text: str | None) -> list[str] | None:
    """'MLII,V1?' as a list of names."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def writable(path: str, option: str) -> Path:
    """A file that can be written, its folder made; said before any work is done.

    Raises:
        ConfigError: it is a folder, or cannot be written: why.
    """
    from crnn.errors import ConfigError

    file = Path(path)
    if file.is_dir():
        raise ConfigError(f"{option} {path}: is a folder; expected a file to write, such as {file / 'out'}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab"):
            pass
    except OSError as error:
        raise ConfigError(f"{option} {path}: cannot be written ({error.strerror}); name another place") from None
    return file


def settings(pairs: list[str]) -> dict[str, Any]:
    """`--set a.b=c` options as {path: value}, typed as YAML reads them, never evaluated.

    Raises:
        ConfigError: no '=' in one of them.
    """
    from crnn.config import parse_value
    from crnn.errors import ConfigError

    result: dict[str, Any] = {}
    for pair in pairs:
        path, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set {pair}: found no '=', expected something like --set train.learning_rate=0.001")
        result[path.strip()] = parse_value(value.strip())
    return result
