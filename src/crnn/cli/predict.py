"""Predict for files with a trained RUN, one JSON line each."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crnn.cli import decoding, options

if TYPE_CHECKING:
    from crnn.data.dataset import Dataset
    from crnn.model import Model

EVENTS = (".atr", ".tsv")
TEXTS = (".srt", ".ctm", ".txt")
PAGES = (".xml",)
"""Suffixes of files that are written at once; others hold rows, and are written in parts."""


def predict(
    run: Annotated[str, typer.Argument(help="The run folder.")],
    files: Annotated[list[str], typer.Argument(help="Recordings, tables or folders.")],
    out: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--out",
            help="Write .parquet or JSON lines; events of one record as .atr, of all as .tsv; text as .srt, .ctm or "
            ".txt, or as .xml into its page (PAGE, ALTO).",
        ),
    ] = None,
    cluster: Annotated[str | None, typer.Option(help="ray: by the workers of a Ray cluster.")] = None,
    workers: Annotated[int | None, typer.Option(help="Of the cluster; as many as it has CPUs.")] = None,
    batch_size: Annotated[int, typer.Option(help="Sequences at a time; changes speed only, never a prediction.")] = 64,
    id_: options.Id = None,
    time: options.Time = None,
    format_: options.Format = None,
    beam: decoding.Beam = None,
    lm: decoding.Lm = None,
    lm_weight: decoding.LmWeight = None,
    word_bonus: decoding.WordBonus = None,
    lexicon: decoding.Lexicon = None,
    hot_word: decoding.HotWord = None,
    skip_bad: options.SkipBad = False,
) -> None:
    """Predict for files with a trained RUN, one JSON line each."""
    import crnn.run as runs
    from crnn.config import without_nan
    from crnn.errors import ConfigError
    from crnn.prediction.write import write_predictions
    from crnn.training.outputs import describe_windows

    file = None if out is None else options.writable(out, "--out")
    is_large = file is not None and file.suffix not in (*EVENTS, *TEXTS, *PAGES)
    if cluster not in (None, "ray") or (cluster is not None and not is_large):
        raise ConfigError(f"--cluster {cluster}: expected ray, with --out as .parquet or .jsonl")
    trained = runs.Run(run)
    asked = {
        "beam": beam,
        "lm": lm,
        "lm_weight": lm_weight,
        "word_bonus": word_bonus,
        "lexicon": lexicon,
        "hot_word": hot_word,
    }
    decoding.choose(trained.model, **asked)  # type: ignore[arg-type]
    data = trained.read(files, id=id_, time=time, format=format_, on_bad="skip" if skip_bad else "fail")
    note = describe_windows(trained.model.network, data)
    if note:
        print(f"crnn: {note}", file=sys.stderr)
    problems = list(data.problems)
    if file is not None and is_large:
        written = write_predictions(
            (lambda: trained.model) if cluster is None else functools.partial(_load, run, asked),
            data,
            file,
            batch_size=batch_size,
            cluster="ray" if cluster is not None else None,
            workers=workers,
            on_bad="skip" if skip_bad else "fail",
        )
        found = f" ({written.found} of them were done before an interruption)" if written.found else ""
        print(f"{written.predictions} predictions: {file}{found}")
        problems += written.problems
    else:
        predictions = trained.model.predict(data, batch_size=batch_size)
        if file is None:
            rows = ({"id": example.id, **found} for example, found in zip(data, predictions, strict=True))
            sys.stdout.writelines(
                json.dumps(without_nan(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows
            )
        elif file.suffix in EVENTS:
            print(f"{_write_events(file, data, predictions)} events: {file}")
        elif file.suffix in PAGES:
            _write_page(file, files, data, predictions)
            print(f"{len(predictions)} lines: {file}")
        else:
            _write_texts(file, data, predictions)
            print(f"{len(predictions)} transcripts: {file}")
    for problem in problems:
        print(f"crnn: skipped {problem}" if problem.level == "error" else f"crnn: {problem}", file=sys.stderr)


def _load(run: str, asked: dict[str, Any]) -> Model:
    """The model of a run as it was asked for, on whatever machine."""
    import crnn.run as runs

    model = runs.load(run)
    decoding.choose(model, **asked)
    return model


def _write_texts(file: Path, data: Dataset, predictions: list[dict[str, Any]]) -> None:
    """Transcripts as subtitles, CTM or text, by the suffix of the file.

    Raises:
        ConfigError: the model writes no text; or several recordings for one file of subtitles.
    """
    from crnn.data.subtitles import as_ctm, as_srt, as_text
    from crnn.errors import ConfigError

    if any("text" not in prediction for prediction in predictions):
        raise ConfigError(f"--out {file}: this model writes no text; write its answers as .jsonl")
    ids = [example.id for example in data]
    if file.suffix == ".srt" and len(ids) != 1:
        raise ConfigError(f"--out {file}: holds subtitles of one recording, found {len(ids)}; give one, or write .ctm")
    made = {".ctm": lambda: as_ctm(ids, predictions), ".txt": lambda: as_text(ids, predictions)}
    text = as_srt(predictions[0]) if file.suffix == ".srt" else made[file.suffix]()
    file.write_text(text, encoding="utf-8")


def _write_page(file: Path, files: list[str], data: Dataset, predictions: list[dict[str, Any]]) -> None:
    """Recognised text in a copy of the page that the lines come from.

    Raises:
        ConfigError: the model writes no text; or the lines are not those of one PAGE or ALTO file.
    """
    from crnn.data.readers.page_xml import RecognisedLine, RecognisedWord, write_page
    from crnn.errors import ConfigError

    if any("text" not in prediction for prediction in predictions):
        raise ConfigError(f"--out {file}: this model writes no text; write its answers as .jsonl")
    if len(files) != 1 or not files[0].lower().endswith(".xml"):
        raise ConfigError(
            f"--out {file}: holds the text of one page, found {', '.join(files[:3])}; give one PAGE or ALTO"
        )
    lines = {}
    for example, prediction in zip(data, predictions, strict=True):
        words = [
            RecognisedWord(word["text"], word["start"] / example.length, word["end"] / example.length)
            for word in prediction["words"]
        ]
        line = RecognisedLine(prediction["text"], prediction["confidence"], tuple(words))
        lines[example.id.rpartition("#")[2]] = line
    write_page(Path(files[0]), lines, file)


def _write_events(file: Path, data: Dataset, predictions: list[dict[str, Any]]) -> int:
    """Events as WFDB annotations or as a table of intervals; how many there are.

    Raises:
        ConfigError: the model finds no events; or several records for one file of annotations.
    """
    from crnn.data.annotation import Event, Events
    from crnn.data.readers.intervals import write_intervals
    from crnn.data.readers.wfdb import write_annotations
    from crnn.errors import ConfigError

    if any("events" not in prediction for prediction in predictions):
        raise ConfigError(f"--out {file}: this model finds no events; write its answers as .jsonl")
    found = [
        Events(tuple(Event(e["start"], e["end"], e["label"]) for e in prediction["events"]))
        for prediction in predictions
    ]
    if file.suffix == ".tsv":
        write_intervals(file, [example.id for example in data], found, data.sample_rate)
    elif len(found) != 1:
        raise ConfigError(f"--out {file}: holds the annotations of one record, found {len(found)}; give one, or .tsv")
    else:
        write_annotations(file, found[0], data.sample_rate or 1.0)
    return sum(len(events.items) for events in found)
