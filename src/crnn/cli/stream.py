"""Answer live for a pipe or a growing file with a trained RUN, one JSON line an event."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crnn.cli import options

if TYPE_CHECKING:
    from crnn.model import Model
    from crnn.streaming.source import Source
    from crnn.streaming.stream import Stream
    from crnn.streaming.tail import Tail
    from crnn.streaming.update import StepUpdate, Update


def stream(
    run: Annotated[str, typer.Argument(help="The run folder.")],
    source: Annotated[str, typer.Argument(help="A file; - for what is piped in.")] = "-",
    block: Annotated[str | None, typer.Option(help="Frames at a time: 20ms, 0.5s, or a number of them.")] = None,
    every: Annotated[
        str | None, typer.Option(help="Print at least this often, in time of the input: 0.5s, 100. By default 1s.")
    ] = None,
    format_: Annotated[str | None, typer.Option("--format", help="s16le, f32le, wav or csv; found by itself.")] = None,
    rate: Annotated[float | None, typer.Option(help="Samples per second of raw samples, to have it checked.")] = None,
    channels: Annotated[int | None, typer.Option(help="Channels of raw samples; sound is averaged over them.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more at the end of a file.")] = False,
    engine: Annotated[str, typer.Option(help="auto, native or torch; all give the same numbers.")] = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Answer live for a pipe or a growing file by a trained RUN: JSON lines as the answer changes, and at the end.

    A run that answers for every frame prints what is new: labels that change, events, text.
    """
    import crnn.run as runs

    model = runs.load(run)
    live = model.stream(engine=engine)  # type: ignore[arg-type]
    with _opened(source, follow) as tail:
        found = _source(tail, model, format_, rate, channels)
        frame_rate = model.inputs.sample_rate
        size = _frames("--block", block or ("20ms" if model.inputs.kind == "audio" else "1"), frame_rate)
        events = AllNews(every) if model.task.per_step else Events(every, frame_rate)
        if not quiet:
            print(f"crnn: {live.describe()}; {found.format}, {size} frames at a time", file=sys.stderr, flush=True)
        code = _answer(live, found, size, events, tail, model.network.min_length)
    if code:
        raise typer.Exit(code)


@contextmanager
def _opened(source: str, follow: bool) -> Iterator[Tail]:
    """The bytes of what is piped in, or of a file.

    Raises:
        DataError: no such file. ConfigError: a pipe is to be followed, which ends by itself.
    """
    from crnn.errors import ConfigError, DataError
    from crnn.streaming.tail import Tail

    if source == "-":
        if follow:
            raise ConfigError("--follow: is for a file that grows; a pipe is read until it ends; leave it out")
        yield Tail(sys.stdin.buffer, "standard input")
        return
    if Path(source).is_dir():
        raise DataError(f"{source}: is a folder; expected one recording or table, or - for what is piped in")
    if not Path(source).exists():
        raise DataError(f"{source}: no such file; expected a recording, a table, or - for what is piped in")
    with open(source, "rb") as file:
        yield Tail(file, source, follow=follow)


def _source(tail: Tail, model: Model, format_: Any, rate: float | None, channels: int | None) -> Source:
    from crnn.streaming.source import Source

    return Source(
        tail,
        kind=model.inputs.kind,
        channel_names=model.inputs.channel_names,
        sample_rate=model.inputs.sample_rate,
        format=format_,
        rate=rate,
        channels=channels,
    )


def _frames(option: str, text: str, rate: float | None) -> int:
    """A time or a number of frames -> frames, at least 1.

    Raises:
        ConfigError: neither of them; or a time where the data has no rate.
    """
    from crnn.errors import ConfigError

    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)(ms|s|)", text)
    if found is None or float(found[1]) == 0 or (not found[2] and not found[1].isdigit()):
        raise ConfigError(f"{option} {text}: expected a time such as 20ms or 0.5s, or a number of frames")
    if not found[2]:
        return int(found[1])
    if not rate:
        raise ConfigError(f"{option} {text}: the model knows no frames per second; give a number of frames")
    return max(round(float(found[1]) * rate / (1000 if found[2] == "ms" else 1)), 1)


class Events:
    """Which answers are printed: the first, every other one than before, and one in every so many frames."""

    def __init__(self, every: str | None, rate: float | None) -> None:
        self._every = _frames("--every", every or ("1s" if rate else "100"), rate)
        self._printed: Update | None = None

    def of(self, update: Update) -> list[dict[str, Any]]:
        """What to print of this one."""
        return [update.to_dict()] if update.is_final or self._is_due(update) else []

    def _is_due(self, update: Update) -> bool:
        before = self._printed
        changed = before is None or (update.answer != before.answer and not isinstance(update.answer, float))
        if changed or (before is not None and update.frames - before.frames >= self._every):
            self._printed = update
            return True
        return False


class AllNews:
    """What is printed of a run that answers for every frame: all that is new, and at the end how much came.

    Raises:
        ConfigError: --every is given.
    """

    def __init__(self, every: str | None) -> None:
        from crnn.errors import ConfigError

        if every is not None:
            raise ConfigError(f"--every {every}: this run answers for every frame and prints what is new; leave it out")

    def of(self, update: StepUpdate) -> list[dict[str, Any]]:
        """What to print of this one."""
        if not update.is_final:
            return update.news
        return [*update.news, {name: value for name, value in update.to_dict().items() if name != "news"}]


def _answer(live: Stream, source: Source, size: int, events: Events | AllNews, tail: Tail, shortest: int) -> int:
    """Push everything and print; the exit code.

    Raises:
        DataError: what came cannot be used any more, after an answer for what came before; or there is no answer.
    """
    from crnn.errors import DataError

    code, failure = 0, None
    try:
        try:
            for block in source.blocks(size):
                _print(events, live.push(block))
        except KeyboardInterrupt:
            code = options.INTERRUPTED
        except DataError as error:
            failure = error
        code = options.INTERRUPTED if tail.interrupted else code
        final = live.finish()
        _print(events, final)
    except BrokenPipeError:  # whoever read the lines has gone; nor may Python try to write the rest at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if failure is not None:
        raise failure
    if final is None and not code:
        raise DataError(
            f"{tail.name}: {live.frames} frames came, too few for an answer; the network needs at least {shortest}"
        )
    return code


def _print(events: Events | AllNews, update: Any) -> None:
    from crnn.config import without_nan

    for event in [] if update is None else events.of(update):
        print(json.dumps(without_nan(event), ensure_ascii=False, allow_nan=False), flush=True)
