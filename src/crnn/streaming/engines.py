"""What computes a stream's steps: the network itself, which is always there, or the compiled kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from crnn.errors import ConfigError, StreamError
from crnn.nn.layers import State
from crnn.streaming.streamed import StreamedModel

EngineName = Literal["auto", "torch", "native"]


class Engine(Protocol):
    """Steps of streams that are independent of each other.

    A state is a flat tuple of tensors, each with a first axis of 1, so that it can be kept, copied and saved by itself.
    Outputs are those of the network over the temperature, (outputs,); None until there is an answer.
    """

    name: str
    """What it is, and why, for people."""
    kind: Literal["torch", "native"]

    def start(self) -> State:
        """The state before the first frame."""

    def push(self, states: Sequence[State], frames: NDArray[Any]) -> tuple[list[Tensor | None], list[State]]:
        """As many frames for each of several streams: (len(states), n, *features), n >= 0; the old states are used up.

        All states must be `alike`.
        """

    def finish(self, state: State) -> Tensor | None:
        """The outputs for the whole; None when nothing came, or too little to leave a frame."""

    def alike(self, state: State) -> Any:
        """Equal for states that can be pushed in one call."""


class TorchEngine:
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

    @torch.no_grad()  # not inference_mode: what a layer caches here must stay usable in training
    def push(self, states: Sequence[State], frames: NDArray[Any]) -> tuple[list[Tensor | None], list[State]]:
        data = torch.from_numpy(frames).to(self._device)
        together = states[0] if len(states) == 1 else tuple(torch.cat(part) for part in zip(*states, strict=True))
        outputs, (body, summary) = self._network.push(data, self._divided(together))
        new = (*body, *summary)
        if len(states) == 1:
            return [None if outputs is None else self._scaled(outputs[0])], [new]
        parts = [tuple(tensor[i : i + 1].clone() for tensor in new) for i in range(len(states))]
        if outputs is None:  # one of them has no answer yet; others may
            return [self.push([part], frames[:1, :0])[0][0] for part in parts], parts
        return [self._scaled(row) for row in outputs], parts

    @torch.no_grad()  # not inference_mode: what a layer caches here must stay usable in training
    def finish(self, state: State) -> Tensor | None:
        outputs = self._network.finish(self._divided(state))
        return None if outputs is None else self._scaled(outputs[0])

    def alike(self, state: State) -> Any:
        """Buffers differ in length where streams are at different places in a stride."""
        return tuple(tensor.shape for tensor in state)

    def _divided(self, state: State) -> tuple[State, State]:
        return state[: self._body_size], state[self._body_size :]

    def _scaled(self, outputs: Tensor) -> Tensor:
        return outputs.float().cpu() / self._temperature


def choose_engine(model: StreamedModel, wanted: EngineName) -> Engine:
    """The engine that is asked for; with auto the native one where it can run this model, and else torch, saying why.

    Raises:
        StreamError: the network cannot stream, by which layer, and what to do; or the native engine cannot run it.
        ConfigError: an engine that does not exist.
    """
    if wanted not in ("auto", "torch", "native"):
        raise ConfigError(f"engine: found {wanted!r}, expected auto, torch or native")
    check_streams(model)
    if wanted == "torch":
        return TorchEngine(model, "as asked")
    found = _native(model)
    if not isinstance(found, str):
        return found
    if wanted == "native":
        raise StreamError(f"engine native: {found}; use engine auto or torch, which give the same numbers")
    return TorchEngine(model, found)


def check_streams(model: StreamedModel) -> None:
    """Raises StreamError for a network that cannot stream: which layer, and the preset that can."""
    try:
        model.network.start(1)
    except StreamError as error:
        raise StreamError(f"{error}; or train a model that streams: crnn train DATA --preset live") from None


def _native(model: StreamedModel) -> Engine | str:
    """The native engine, or why there is none."""
    return "no compiled kernels"
