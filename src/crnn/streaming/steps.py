"""What computes the steps of a stream: the compiled engine where there is one, else the network itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crnn.errors import ConfigError, ExportError, StreamError
from crnn.nn.layers import State
from crnn.program.lower import lower
from crnn.streaming.engine import NativeEngine
from crnn.streaming.streamed import StreamedModel

EngineName = Literal["auto", "torch", "native"]
STREAMING_PRESETS = {"transcribe": "speech-small", "tag": "ecg-small"}
"""For each task whose streaming preset is not `live`: the preset to name where a network cannot stream."""
Outputs = NDArray[np.floating[Any]]
"""(outputs,) of the network over the temperature; of one that answers for every frame, (frames ready, outputs)."""


class Steps(Protocol):
    """Steps of streams that are independent of each other; what a state is, only this knows."""

    name: str
    """What it is, and why, for people."""
    kind: Literal["torch", "native"]

    def start(self) -> Any:
        """The state before the first frame."""

    def push(self, state: Any, frames: NDArray[Any]) -> tuple[Outputs | None, Any]:
        """Feed (n, *features), n >= 0; the old state is used up. None until there is an answer."""

    def push_many(self, states: Sequence[Any], frames: NDArray[Any]) -> tuple[list[Outputs | None], list[Any]]:
        """Feed as many frames to each of several streams that are `alike`: (len(states), n, *features)."""

    def finish(self, state: Any) -> Outputs | None:
        """The outputs for the whole; None when nothing came, or too little to leave a frame."""

    def alike(self, state: Any) -> Any:
        """Equal for states that can be pushed in one call."""

    def pack(self, state: Any) -> dict[str, Tensor]:
        """A copy of a state as named tensors."""

    def unpack(self, tensors: Mapping[str, Tensor]) -> Any:
        """The state again.

        Raises:
            StreamError: they are not of a state of this model.
        """


class TorchSteps:
    """The network's own layers, in PyTorch."""

    kind: Literal["torch", "native"] = "torch"

    def __init__(self, model: StreamedModel, why: str) -> None:
        self.name = f"torch: {why}"
        self._network, self._temperature = model.network, model.temperature
        self._network.eval()
        reference = next(self._network.parameters(), None)
        self._device = torch.device("cpu") if reference is None else reference.device
        self._body_size = len(self._network.start(1)[0])

    def start(self) -> State:
        body, summary = self._network.start(1)
        return tuple(tensor.to(self._device) for tensor in (*body, *summary))

    def push(self, state: State, frames: NDArray[Any]) -> tuple[Outputs | None, State]:
        outputs, new = self._push(state, frames[None])
        return None if outputs is None else outputs[0], new

    def push_many(self, states: Sequence[State], frames: NDArray[Any]) -> tuple[list[Outputs | None], list[State]]:
        outputs, new = self._push(tuple(torch.cat(part) for part in zip(*states, strict=True)), frames)
        parts = [tuple(tensor[i : i + 1].clone() for tensor in new) for i in range(len(states))]
        if outputs is None:  # one of them has no answer yet; others may
            return [self.push(part, frames[0, :0])[0] for part in parts], parts
        return list(outputs), parts

    @torch.no_grad()  # not inference_mode: what a layer caches here must stay usable in training
    def _push(self, state: State, frames: NDArray[Any]) -> tuple[Outputs | None, State]:
        data = torch.tensor(frames, device=self._device)  # a copy: whoever records may use the same array again
        outputs, (body, summary) = self._network.push(data, self._divided(state))
        return self._scaled(outputs), (*body, *summary)

    @torch.no_grad()
    def finish(self, state: State) -> Outputs | None:
        outputs = self._scaled(self._network.finish(self._divided(state)))
        return None if outputs is None else outputs[0]

    def alike(self, state: State) -> Any:
        """Buffers differ in length where streams are at different places in a stride."""
        return tuple(tensor.shape for tensor in state)

    def pack(self, state: State) -> dict[str, Tensor]:
        return {f"state.{i}": tensor.detach().cpu().clone().contiguous() for i, tensor in enumerate(state)}

    def unpack(self, tensors: Mapping[str, Tensor]) -> State:
        fresh = self.start()
        found = tuple(tensors[name] for name in self.pack(fresh) if name in tensors)
        fits = len(found) == len(fresh) == len(tensors) and all(
            a.dtype == b.dtype and a.dim() == b.dim() for a, b in zip(found, fresh, strict=True)
        )
        if not fits:
            raise StreamError("snapshot: its state is not that of this model's layers; it was saved by another crnn")
        return tuple(tensor.clone().to(self._device) for tensor in found)

    def _divided(self, state: State) -> tuple[State, State]:
        return state[: self._body_size], state[self._body_size :]

    def _scaled(self, outputs: Tensor | None) -> Outputs | None:
        return None if outputs is None else (outputs.float().cpu() / self._temperature).numpy()


class NativeSteps:
    """The compiled engine, on the network's program; a state is its bytes.

    Raises:
        StreamError, ExportError: why it cannot run here, or not this network.
    """

    kind: Literal["torch", "native"] = "native"

    def __init__(self, model: StreamedModel) -> None:
        program = lower(model.network, model.task, temperature=model.temperature, sample_rate=model.sample_rate)
        self._engine = NativeEngine(program)
        self.name = f"native {self._engine.instruction_set}"
        self._units = model.task.units
        self._is_symbols = model.kind == "symbols"

    def start(self) -> NDArray[np.uint8]:
        return self._engine.start()

    def push(self, state: NDArray[np.uint8], frames: NDArray[Any]) -> tuple[Outputs | None, NDArray[np.uint8]]:
        return self._raw(self._engine.push(state, self._flat(frames))), state

    def push_many(
        self, states: Sequence[NDArray[np.uint8]], frames: NDArray[Any]
    ) -> tuple[list[Outputs | None], list[NDArray[np.uint8]]]:
        together = np.stack(states)
        outputs, counts = self._engine.push_many(together, np.arange(len(states)), self._flat(frames))
        found = zip(outputs, counts.tolist(), strict=True)
        if not self._engine.is_vector:
            return [self._raw(frames[:count]) for frames, count in found], list(together)
        return [self._raw(row) if count else None for row, count in found], list(together)

    def finish(self, state: NDArray[np.uint8]) -> Outputs | None:
        return self._raw(self._engine.finish(state))

    def alike(self, state: NDArray[np.uint8]) -> Any:
        """Any two streams can be pushed together."""
        return None

    def pack(self, state: NDArray[np.uint8]) -> dict[str, Tensor]:
        return {"state": torch.from_numpy(state.copy())}

    def unpack(self, tensors: Mapping[str, Tensor]) -> NDArray[np.uint8]:
        found = tensors.get("state")
        if found is None or found.dtype != torch.uint8 or found.shape != (self._engine.state_bytes,):
            raise StreamError("snapshot: its state is not that of this model's program; it was saved by another crnn")
        return np.array(found.numpy(), np.uint8)

    def _flat(self, frames: NDArray[Any]) -> NDArray[np.float32]:
        return frames[..., None].astype(np.float32) if self._is_symbols else frames

    def _raw(self, outputs: Outputs | None) -> Outputs | None:
        """The network's outputs, from those in the target's units; in float64, so that nothing is lost twice."""
        if outputs is None or self._units == (1.0, 0.0):
            return outputs
        scale, shift = self._units
        return (outputs.astype(np.float64) - shift) / scale


def choose_steps(model: StreamedModel, wanted: EngineName, *, why: str = "as asked") -> Steps:
    """What is asked for; with auto the compiled engine where it can run this model, and else PyTorch, saying why.

    Args:
        why: why PyTorch is asked for.
    Raises:
        StreamError: the network cannot stream, by which layer, and what to do; or the native engine cannot run it.
        ConfigError: an engine that does not exist.
    """
    if wanted not in ("auto", "torch", "native"):
        raise ConfigError(f"engine: found {wanted!r}, expected auto, torch or native")
    check_streams(model)
    if model.kind == "image":
        raise StreamError("images cannot stream: they come whole, not column by column; use predict")
    if wanted == "torch":
        return TorchSteps(model, why)
    try:
        return NativeSteps(model)
    except (StreamError, ExportError) as error:
        if wanted == "native":
            raise StreamError(f"engine native: {error}; engine auto or torch gives the same numbers") from None
        return TorchSteps(model, str(error))


def check_streams(model: StreamedModel) -> None:
    """Raises StreamError for a network that cannot stream: which layer, and the preset that can, if one does."""
    try:
        model.network.start(1)
    except StreamError as error:
        preset = None if model.kind == "image" else STREAMING_PRESETS.get(model.task.name, "live")
        hint = "" if preset is None else f"; or train a model that streams: crnn train DATA --preset {preset}"
        raise StreamError(f"{error}{hint}") from None
