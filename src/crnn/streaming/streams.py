"""Many streams of one model at once, joining and leaving as they like, computed together where they can be."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np

from crnn.errors import DataError, ShapeError, StreamError
from crnn.streaming.place import Place
from crnn.streaming.snapshot import Snapshot
from crnn.streaming.steps import EngineName, choose_steps
from crnn.streaming.stream import describe, read_chunk
from crnn.streaming.streamed import StreamedModel


class Streams:
    """Streams by name. Each gives the numbers that it would give alone; those with equally long chunks share a step.

    Args:
        engine: as for Stream.
    Raises:
        StreamError: the model cannot stream, by which layer.
    Example:
        streams = crnn.load("runs/digits").streams()
        door, hall = streams.add("door"), streams.add("hall")
        streams.push({door: chunk, hall: other})["door"]
    """

    def __init__(self, model: StreamedModel, *, engine: EngineName = "auto") -> None:
        self._model = model
        self._steps = choose_steps(model, engine)
        self._places: dict[Hashable, Place] = {}
        self._next = 0

    @property
    def engine(self) -> str:
        """What computes the steps: "native avx512", or "torch: " and why."""
        return self._steps.name

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._places)

    def add(self, name: Hashable | None = None, *, snapshot: bytes | None = None) -> Hashable:
        """A new stream, or one that goes on from a snapshot of a Stream or of these; returns its name.

        Args:
            name: anything that can be a key; a number when None.
        Raises:
            StreamError: the name is taken, or the snapshot is of another model or engine.
        """
        if name is None:
            while self._next in self._places:
                self._next += 1
            name, self._next = self._next, self._next + 1
        if name in self._places:
            raise StreamError(f"stream {name!r} is there already; finish or remove it first, or take another name")
        if snapshot is None:
            place = Place.first(self._model, self._steps)
        else:
            place = Place.saved(Snapshot.from_bytes(snapshot, self._model), self._model, self._steps)
        self._places[name] = place
        return name

    def push(self, chunks: Mapping[Any, Any], *, sample_rate: float | None = None) -> dict[Any, Any]:
        """Feed some of the streams, each its chunk as Stream.push takes it; returns what that gives for each.

        Nothing is fed when a chunk is wrong.

        Raises:
            StreamError: a stream that is not there. ShapeError, DataError: as Stream.push, and for which stream.
        """
        places = {name: self._find(name) for name in chunks}
        frames = {name: self._read(name, chunk, sample_rate) for name, chunk in chunks.items()}
        groups: dict[Any, list[Any]] = {}
        for name, place in places.items():
            groups.setdefault((len(frames[name]), self._steps.alike(place.state)), []).append(name)
        found: dict[Any, Any] = dict.fromkeys(chunks)
        for names in groups.values():
            states = [places[name].state for name in names]
            rows, states = self._steps.push_many(states, np.stack([frames[name] for name in names]))
            for name, outputs, state in zip(names, rows, states, strict=True):
                place = places[name]
                place.state, place.frames = state, place.frames + len(frames[name])
                found[name] = place.update(outputs)
        return found

    def finish(self, name: Hashable) -> Any:
        """End a stream and let it go; its answer as Stream.finish gives it."""
        place = self._find(name)
        outputs = self._steps.finish(place.state)
        del self._places[name]
        return place.update(outputs, is_final=True)

    def remove(self, name: Hashable) -> None:
        """Let a stream go without an answer."""
        self._find(name)
        del self._places[name]

    def save(self, name: Hashable) -> bytes:
        """Where a stream stands; as Stream.save."""
        return self._find(name).save(self._model, self._steps)

    def _find(self, name: Hashable) -> Place:
        if name not in self._places:
            raise StreamError(
                f"stream {name!r} is not there; it was finished or removed, or never added: add({name!r})"
            )
        return self._places[name]

    def _read(self, name: Hashable, chunk: Any, sample_rate: float | None) -> Any:
        try:
            return read_chunk(self._model, chunk, sample_rate)
        except (ShapeError, DataError) as error:
            raise type(error)(f"stream {name!r}: {error}") from None

    def __repr__(self) -> str:
        return f"<{len(self)} streams of {describe(self._model)}; {self._steps.name}>"
