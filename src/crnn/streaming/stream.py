"""A live stream: chunks of raw input in, the running answer out, and at the end exactly that for the whole."""

from __future__ import annotations

from typing import Any

from crnn.errors import DataError, StreamError
from crnn.streaming.chunk import as_frames
from crnn.streaming.engines import Engine, EngineName, choose_engine
from crnn.streaming.snapshot import Snapshot
from crnn.streaming.streamed import StreamedModel
from crnn.streaming.update import Update


class Stream:
    """One sequence as it comes, in chunks of any size, in memory that does not grow.

    Promise: `finish` gives what Model.predict gives for all chunks together, however they were cut.

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
        found, self._engine = open_engine(model, snapshot, engine)
        self._state = self._engine.start() if found is None else found.state
        self._frames = 0 if found is None else found.frames
        self._is_finished = False

    @property
    def engine(self) -> str:
        """What computes the steps: "native avx512", or "torch: " and why."""
        return self._engine.name

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
        return self._frames

    def push(self, chunk: Any, *, sample_rate: float | None = None) -> Update | None:
        """Feed a chunk; returns the answer so far, None until there is one.

        Args:
            chunk: (n,) or (n, channels) numbers, n >= 0, as an array, list or tensor; for several channels also one
                frame (channels,). Audio is in -1..1, or int16 or int32, which are scaled to it.
            sample_rate: of the chunk, to have it checked; nothing is resampled.
        Raises:
            ShapeError: another number of channels. DataError: another sample rate, or no numbers.
            StreamError: the stream is finished.
        """
        self._check_open()
        frames = read_chunk(self._model, chunk, sample_rate)
        (outputs,), (self._state,) = self._engine.push([self._state], frames[None])
        self._frames += len(frames)
        return None if outputs is None else self._model.update(outputs, self._frames, is_final=False)

    def finish(self) -> Update | None:
        """The answer for the whole; None when nothing was pushed, or less than the network's shortest sequence.

        Raises:
            StreamError: it was finished before.
        """
        self._check_open()
        self._is_finished = True
        outputs = self._engine.finish(self._state)
        return None if outputs is None else self._model.update(outputs, self._frames, is_final=True)

    def restart(self) -> None:
        """Forget what has come, and begin the next sequence."""
        self._state, self._frames, self._is_finished = self._engine.start(), 0, False

    def save(self) -> bytes:
        """Where the stream stands, for `model.stream(snapshot)` here or in another process.

        Raises:
            StreamError: the stream is finished.
        """
        self._check_open()
        return Snapshot(self._model.fingerprint, self._engine.kind, self._frames, self._state).to_bytes()

    def describe(self) -> str:
        """What goes in, how late and how often an answer comes, and what computes it."""
        return f"{describe(self._model)}; {self._engine.name}"

    def _check_open(self) -> None:
        if self._is_finished:
            raise StreamError("this stream is finished; begin the next sequence with restart(), or open another stream")

    def __repr__(self) -> str:
        return f"<Stream of {self.describe()}; {self._frames} frames so far>"


def open_engine(model: StreamedModel, snapshot: bytes | None, wanted: EngineName) -> tuple[Snapshot | None, Engine]:
    """The engine for a stream, and its snapshot where there is one; with auto, the engine that saved it.

    Raises:
        StreamError: as for Stream.
    """
    if snapshot is None:
        return None, choose_engine(model, wanted)
    found = Snapshot.from_bytes(snapshot)
    found.check(model)
    named: EngineName = "native" if found.engine == "native" else "torch"
    engine = choose_engine(model, named if wanted == "auto" else wanted)
    found.check_engine(engine)
    return found, engine


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
    return as_frames(chunk, model.kind, model.num_channels)


def describe(model: StreamedModel) -> str:
    """What goes in, and how late and how often an answer comes."""
    what = "symbols" if model.kind == "symbols" else f"{model.num_channels} channel{'s' * (model.num_channels != 1)}"
    if not model.sample_rate:
        return f"{model.kind}, {what}; answers {model.delay} frames behind, a new one every {model.step}"
    delay, step = model.delay / model.sample_rate, model.step / model.sample_rate
    return f"{model.kind}, {what}, {model.sample_rate:g} Hz; answers {delay:.3g} s behind, a new one every {step:.3g} s"
