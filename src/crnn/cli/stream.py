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
    from crnn.streaming.update import Update


def stream(
    run: Annotated[str, typer.Argument(help="The run folder.")],
    source: Annotated[str, typer.Argument(help="A file; - for what is piped in.")] = "-",
    block: Annotated[str | None, typer.Option(help="Frames at a time: 20ms, 0.5s, or a number of them.")] = None,
    every: Annotated[str, typer.Option(help="Print at least this often, in time of the input: 0.5s, 100.")] = "1s",
    format_: Annotated[str | None, typer.Option("--format", help="s16le, f32le, wav or csv; found by itself.")] = None,
    rate: Annotated[float | None, typer.Option(help="Samples per second of raw samples, to have it checked.")] = None,
    channels: Annotated[int | None, typer.Option(help="Channels of raw samples; sound is averaged over them.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more at the end of a file.")] = False,
    engine: Annotated[str, typer.Option(help="auto, native or torch; all give the same numbers.")] = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Answer live for a pipe or a growing file by a trained RUN: JSON lines as the answer changes, and at the end."""
    import crnn.run as runs

    model = runs.load(run)
    live = model.stream(engine=engine)  # type: ignore[arg-type]
    with _opened(source, follow) as tail:
        found = _source(tail, model, format_, rate, channels)
        frame_rate = model.inputs.sample_rate
        size = _frames("--block", block or ("20ms" if model.inputs.kind == "audio" else "1"), frame_rate)
        events = Events(_frames("--every", "100" if every == "1s" and not frame_rate else every, frame_rate))
        if not quiet:
            print(f"crnn: {live.describe()}; {found.format}, {size} frames at a time", file=sys.stderr, flush=True)
        code = _answer(live, found, size, events, tail.name, model.network.min_length)
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

    def __init__(self, every: int) -> None:
        self._every = every
        self._printed: Update | None = None

    def is_due(self, update: Update) -> bool:
        """Whether to print this one."""
        before = self._printed
        changed = before is None or (update.answer != before.answer and not isinstance(update.answer, float))
        if changed or (before is not None and update.frames - before.frames >= self._every):
            self._printed = update
            return True
        return False


def _answer(live: Stream, source: Source, size: int, events: Events, name: str, shortest: int) -> int:
    """Push everything and print; the exit code.

    Raises:
        DataError: what came cannot be used any more, after an answer for what came before; or there is no answer.
    """
    from crnn.errors import DataError

    code, failure = 0, None
    try:
        try:
            for block in source.blocks(size):
                update = live.push(block)
                if update is not None and events.is_due(update):
                    _print(update.to_dict())
        except KeyboardInterrupt:
            code = options.INTERRUPTED
        except DataError as error:
            failure = error
        final = live.finish()
        if final is not None:
            _print(final.to_dict())
    except BrokenPipeError:  # whoever read the lines has gone; nor may Python try to write the rest at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if failure is not None:
        raise failure
    if final is None and not code:
        raise DataError(
            f"{name}: {live.frames} frames came, too few for an answer; the network needs at least {shortest}"
        )
    return code


def _print(event: dict[str, Any]) -> None:
    from crnn.config import without_nan

    print(json.dumps(without_nan(event), ensure_ascii=False, allow_nan=False), flush=True)
