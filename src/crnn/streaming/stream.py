"""A live stream: chunks of raw input in, answers out as they come, and at the end exactly those for the whole."""

from __future__ import annotations

from typing import Any

from crnn.errors import DataError, StreamError
from crnn.streaming.chunk import as_frames, check_symbols
from crnn.streaming.place import Place
from crnn.streaming.snapshot import Snapshot
from crnn.streaming.steps import EngineName, choose_steps
from crnn.streaming.streamed import StreamedModel


class Stream:
    """One sequence as it comes, in chunks of any size, in memory that does not grow.

    Promise: `finish` gives what Model.predict gives for all chunks together, however they were cut; of a model that
    answers for every frame, the updates together do.

    Args:
        snapshot: what `save` gave, to go on from there.
        engine: "auto" takes the compiled kernels where they can run this model; "torch" and "native" insist.
    Raises:
        StreamError: the model cannot stream, by which layer; a snapshot of another model or engine.
    Example:
        stream = crnn.stream("runs/digits")
        for chunk in microphone:
            print(stream.push(chunk))
        print(stream.finish())
    """

    def __init__(self, model: StreamedModel, snapshot: bytes | None = None, *, engine: EngineName = "auto") -> None:
        self._model = model
        found = None if snapshot is None else Snapshot.from_bytes(snapshot, model)
        if found is not None and engine == "auto":
            self._steps = choose_steps(model, found.engine, why="as saved")
        else:
            self._steps = choose_steps(model, engine)
        self._place = Place.first(model, self._steps) if found is None else Place.saved(found, model, self._steps)
        self._is_finished = False

    @property
    def engine(self) -> str:
        """What computes the steps: "native avx512", or "torch: " and why."""
        return self._steps.name

    @property
    def delay_frames(self) -> int:
        """Frames of input by which the answer lags behind: what the layers look ahead."""
        return self._model.delay

    @property
    def delay_seconds(self) -> float | None:
        """The same in seconds; None where the data has no rate."""
        return self._model.delay / self._model.sample_rate if self._model.sample_rate else None

    @property
    def frames(self) -> int:
        """Frames that have come."""
        return self._place.frames

    def push(self, chunk: Any, *, sample_rate: float | None = None) -> Any:
        """Feed a chunk; returns the answer so far as an Update, None until there is one.

        Of a model that answers for every frame a StepUpdate of the frames that are ready, None where none is.

        Args:
            chunk: (n,) or (n, channels) numbers, n >= 0, as an array, list or tensor; for several channels also one
                frame (channels,). Audio is in -1..1, or int16 or int32, which are scaled to it.
            sample_rate: of the chunk, to have it checked; nothing is resampled.
        Raises:
            ShapeError: another number of channels. DataError: another sample rate, no numbers, or an unknown symbol.
            StreamError: the stream is finished.
        """
        self._check_open()
        frames = read_chunk(self._model, chunk, sample_rate)
        place = self._place
        outputs, place.state = self._steps.push(place.state, frames)
        place.frames += len(frames)
        return place.update(outputs)

    def finish(self) -> Any:
        """The answer for the whole; None when nothing was pushed, or less than the network's shortest sequence.

        Of a model that answers for every frame the last of them, and the last news.

        Raises:
            StreamError: it was finished before.
        """
        self._check_open()
        self._is_finished = True
        return self._place.update(self._steps.finish(self._place.state), is_final=True)

    def restart(self) -> None:
        """Forget what has come, and begin the next sequence."""
        self._place, self._is_finished = Place.first(self._model, self._steps), False

    def save(self) -> bytes:
        """Where the stream stands, for `model.stream(snapshot)` here or in another process.

        Raises:
            StreamError: the stream is finished.
        """
        self._check_open()
        return self._place.save(self._model, self._steps)

    def describe(self) -> str:
        """What goes in, how late and how often an answer comes, and what computes it."""
        return f"{describe(self._model)}; {self._steps.name}"

    def _check_open(self) -> None:
        if self._is_finished:
            raise StreamError("this stream is finished; begin the next sequence with restart(), or open another stream")

    def __repr__(self) -> str:
        return f"<Stream of {self.describe()}; {self.frames} frames so far>"


def read_chunk(model: StreamedModel, chunk: Any, sample_rate: float | None) -> Any:
    """A chunk as frames for the model's network.

    Raises:
        ShapeError, DataError: as Stream.push.
    """
    if sample_rate is not None and model.sample_rate and sample_rate != model.sample_rate:
        raise DataError(
            f"chunk: found {sample_rate:g} frames per second, but the model takes {model.sample_rate:g}; "
            "resample it, or record at that rate"
        )
    frames = as_frames(chunk, model.kind, model.num_channels)
    if model.kind == "symbols" and model.vocabulary:
        check_symbols(frames, model.vocabulary)
    return frames


def describe(model: StreamedModel) -> str:
    """What goes in, and how late and how often an answer comes."""
    what = "symbols" if model.kind == "symbols" else f"{model.num_channels} channel{'s' * (model.num_channels != 1)}"
    if not model.sample_rate:
        return f"{model.kind}, {what}; answers {model.delay} frames behind, a new one every {model.step}"
    delay, step = model.delay / model.sample_rate, model.step / model.sample_rate
    return f"{model.kind}, {what}, {model.sample_rate:g} Hz; answers {delay:.3g} s behind, a new one every {step:.3g} s"
