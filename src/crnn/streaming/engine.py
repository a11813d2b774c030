"""The native step engine for one program: states as bytes, frames in, outputs out."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.errors import ShapeError, StreamError
from crnn.native.library import LibraryError, ProgramTables, load
from crnn.program.ops import Array
from crnn.program.program import Program
from crnn.program.tables import tabulate

State = NDArray[np.uint8]
"""One stream between two chunks: (state_bytes,). It points nowhere, so its bytes may be copied, saved and sent."""


class NativeEngine:
    """Runs a program frame by frame; any chunking gives the same outputs, bit for bit.

    One engine serves any number of streams, each with a state of its own. Calls from several threads wait for each
    other; a second engine of the same program does not.

    Args:
        instruction_set: "baseline", "avx2" or "avx512"; by default the fastest of this machine. States fit all of them.
    Raises:
        StreamError: the program cannot stream, and why; or no engine was compiled for this machine.
    """

    def __init__(self, program: Program, *, instruction_set: str | None = None) -> None:
        tables = tabulate(program)
        try:
            library = load(instruction_set)
        except LibraryError as error:
            raise StreamError(f"the native engine is not available: {error}") from None
        self.instruction_set = library.instruction_set
        self.state_bytes = tables.state_bytes
        self.input_size = tables.input_size
        self.output_size = tables.output_size
        self.is_vector = tables.is_vector
        """One vector of outputs, for the stream so far; else one frame of outputs after another."""
        self._flushed = tables.flushed
        self._tables = [tables.nodes, tables.ints, _aligned(tables.weights), _aligned(tables.bytes)]
        sizes = (len(tables.nodes), tables.num_sums, tables.num_values, tables.num_scratch, tables.state_bytes)
        self._program = ProgramTables(*(table.ctypes.data for table in self._tables), *sizes)
        self._at = ctypes.addressof(self._program)
        self._functions = library.functions
        self._push = library.functions.crnn_engine_push
        self._lock = threading.Lock()
        self._state: State = self.start()
        self._make_room((1, self.input_size))

    def start(self) -> State:
        """The state before the first frame."""
        state = np.zeros(self.state_bytes, np.uint8)
        self._functions.crnn_engine_start(self._at, state.ctypes.data)
        return state

    def push(self, state: State, frames: Array) -> Array | None:
        """Feed (n, input_size) frames, n >= 0; `state` is changed in place.

        Returns:
            (output_size,) as if the stream ended with the frames that are ready, None before the first; of a program
            whose output is a stream, (frames that are ready, output_size).
        Raises:
            ShapeError: frames of another size.
        """
        with self._lock:  # few steps: a small network's own take as long as a dozen of them
            if frames.shape != self._shape:
                self._make_room(frames.shape)
            self._frames[...] = frames
            if state is not self._state:
                self._take(state)
            count = self._push(*self._arguments)
            if count == 1 and self.is_vector:
                vector: Array = self._vector.copy()
                return vector
            return self._result(self._out, count)

    def finish(self, state: State) -> Array | None:
        """The outputs for the whole stream, as push returns them; `state` stays as it is, good for more frames."""
        copied = state.copy()
        self._check_state(copied)
        out = np.empty((1 if self.is_vector else max(self._flushed, 1), self.output_size), np.float32)
        return self._result(out, self._functions.crnn_engine_finish(self._at, copied.ctypes.data, out.ctypes.data))

    def push_many(self, states: State, rows: NDArray[np.int64], frames: Array) -> tuple[Array, NDArray[np.int64]]:
        """Feed n frames each to several streams at once.

        Args:
            states: (streams, state_bytes), C-contiguous; changed in place.
            rows: (num,), each once: which streams the frames are for.
            frames: (num, n, input_size).
        Returns:
            ((num, output_size), (num,)): outputs, and 1 where there are any, 0 where the first is still to come. Of a
            program whose output is a stream, (num, n, output_size) and how many frames of it are ready.
        Raises:
            ShapeError: states, rows or frames of another shape.
        """
        rows = np.ascontiguousarray(rows, np.int64)
        frames = np.ascontiguousarray(frames, np.float32)
        num, n = len(rows), frames.shape[1] if frames.ndim == 3 else 0
        if frames.shape != (num, n, self.input_size):
            raise ShapeError(self._wrong_frames(frames.shape, f"({num}, n, {{}})"))
        if states.ndim != 2 or states.shape[1] != self.state_bytes or not _is_plain(states):
            raise ShapeError(
                f"states: found {states.dtype} {states.shape}, expected C-contiguous uint8 (streams, "
                f"{self.state_bytes})"
            )
        if num and not (rows.min() >= 0 and rows.max() < len(states)):
            raise ShapeError(f"rows: found {rows.min()} to {rows.max()}, expected 0 to {len(states) - 1}")
        shape = (num, self.output_size) if self.is_vector else (num, n, self.output_size)
        out, counts = np.zeros(shape, np.float32), np.zeros(num, np.int64)
        failed = self._functions.crnn_engine_push_many(
            self._at,
            states.ctypes.data,
            rows.ctypes.data,
            num,
            frames.ctypes.data,
            n,
            out.ctypes.data,
            out[0].size if num else 0,
            counts.ctypes.data,
        )
        if failed:
            raise MemoryError("the native engine found no memory to work in")
        return out, counts

    def _result(self, out: Array, count: int) -> Array | None:
        """What a call gave, in an array of its own."""
        if count < 0:
            raise MemoryError("the native engine found no memory to work in")
        if not self.is_vector:
            return np.array(out[:count])
        return np.array(out[0]) if count else None

    def _make_room(self, shape: tuple[int, ...]) -> None:
        """Buffers for frames of this shape from now on."""
        if len(shape) != 2 or shape[1] != self.input_size:
            raise ShapeError(self._wrong_frames(shape, "(n, {})"))
        self._shape = shape
        self._frames = np.empty(shape, np.float32)
        self._out = np.empty((1 if self.is_vector else max(shape[0], 1), self.output_size), np.float32)
        self._vector: Array = self._out[0]
        self._bind()

    def _take(self, state: State) -> None:
        """The state of the next calls."""
        self._check_state(state)
        self._state = state
        self._bind()

    def _bind(self) -> None:
        """What the engine is called with; addresses are asked for once, as each takes a good part of a small step."""
        addresses = (self._state.ctypes.data, self._frames.ctypes.data)
        last = (ctypes.c_int64(self._shape[0]), ctypes.c_void_p(self._out.ctypes.data))
        self._arguments = (ctypes.c_void_p(self._at), *map(ctypes.c_void_p, addresses), *last)

    def _check_state(self, state: State) -> None:
        if state.shape != (self.state_bytes,) or not _is_plain(state):
            raise ShapeError(
                f"state: found {state.dtype} {state.shape}, expected contiguous uint8 ({self.state_bytes},); a state "
                "comes from start() of an engine of the same program"
            )

    def _wrong_frames(self, found: tuple[int, ...], expected: str) -> str:
        return f"frames: found shape {found}, expected {expected.format(self.input_size)}"


def _is_plain(state: Any) -> bool:
    return bool(state.dtype == np.uint8 and state.flags.c_contiguous and state.ctypes.data % 8 == 0)


def _aligned(table: NDArray[Any]) -> NDArray[Any]:
    """The same numbers, beginning at a cache line."""
    room = np.empty(table.nbytes + 64, np.uint8)
    at = -room.ctypes.data % 64
    copy = room[at : at + table.nbytes].view(table.dtype)
    copy[:] = table
    return copy
