"""Recurrent layers: plain RNN, LSTM and GRU stacks, run dense and exact on padded batches."""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crnn.config import config
from crnn.errors import ConfigError
from crnn.nn.dispatch import run_cell
from crnn.nn.layers import Features, Layer, State, Timing, register_layer
from crnn.sequences import Sequences

CELLS: dict[str, type[nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


@config
class RecurrentConfig:
    """A stack of recurrent layers."""

    hidden_size: int = 128
    """Units per direction."""
    cell: Literal["rnn", "lstm", "gru"] = "lstm"
    """A plain tanh RNN, an LSTM, or a GRU as PyTorch defines it (reset after the product)."""
    num_layers: int = 1
    """Recurrent layers on top of each other."""
    bidirectional: bool = False
    """Also run from the end to the start; such a model cannot stream."""
    residual: bool = False
    """Add each layer's input to its output, where their sizes agree."""
    layer_norm: bool = False
    """Normalise each layer's output, before dropout and the residual sum."""
    dropout: float = 0.0
    """Between layers, while training; has no place with one layer, so it is refused there."""
    learned_initial_state: bool = False
    """Learn the state before the first frame, instead of zero."""
    forget_bias: float | None = None
    """LSTM only: bias of the forget gate at the start, 1 to remember; PyTorch's small random one when empty."""

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_layers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"recurrent.{name}={getattr(self, name)}; expected at least 1")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"recurrent.dropout={self.dropout}; expected at least 0 and less than 1")
        if self.dropout and self.num_layers == 1:
            raise ConfigError(
                f"recurrent.dropout={self.dropout} needs num_layers >= 2, got 1; "
                "use head.dropout to regularise the output"
            )
        if self.forget_bias is not None and self.cell != "lstm":
            raise ConfigError(f"recurrent.forget_bias={self.forget_bias} needs cell: lstm, got {self.cell}")


@register_layer("recurrent")
class Recurrent(Layer):
    """RNN, LSTM or GRU layers; the backward direction starts at each sequence's own last frame.

    Without padding, the numbers of nn.RNN, nn.LSTM or nn.GRU with the same weights.

    Shape:
        x.data: (batch, time, channels); returns (batch, time, hidden_size), twice that when bidirectional: first the
        forward units, then the backward ones.
        state: for every layer (batch, hidden_size), and for an LSTM its cell's (batch, hidden_size) after that.
    Raises:
        ConfigError: frames have more than one axis.
        StreamError: a bidirectional layer is asked to stream.
    """

    Config = RecurrentConfig

    def __init__(self, features: Features, config: RecurrentConfig) -> None:
        super().__init__(features)
        if len(features) != 1:
            raise ConfigError(
                f"recurrent: frames have shape {features}, expected (channels,); put flatten before it, "
                "or an embedding for symbol ids"
            )
        self.config = config
        directions = 2 if config.bidirectional else 1
        size = config.hidden_size * directions
        self.out_features = (size,)
        self.timing = Timing(1, math.inf, math.inf if config.bidirectional else 0)
        sizes = [features[0], *[size] * (config.num_layers - 1)]
        self.forwards = nn.ModuleList(_cell(config, n) for n in sizes)
        self.backwards = nn.ModuleList(_cell(config, n) for n in sizes[: config.num_layers * (directions - 1)])
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in sizes if config.layer_norm)
        tensors = 2 if config.cell == "lstm" else 1
        self.initial = (
            nn.Parameter(torch.zeros(config.num_layers, directions, tensors, config.hidden_size))
            if config.learned_initial_state
            else None
        )

    def compute(self, x: Sequences) -> Sequences:
        if x.data.shape[1] == 0:
            return Sequences(self.empty(x.data.shape[0]), x.lengths)
        batch, data = x.data.shape[0], x.data
        for i, forwards in enumerate(self.forwards):
            here = Sequences(data, x.lengths)
            out = run_cell(cast("nn.RNNBase", forwards), here, self._initial(i, 0, batch))
            if self.config.bidirectional:
                backwards = cast("nn.RNNBase", self.backwards[i])
                out = torch.cat([out, run_cell(backwards, here, self._initial(i, 1, batch), reverse=True)], 2)
            data = self._between(i, data, out)
        return Sequences(data, x.lengths).zeroed()  # once: frames past an end reach no frame before it

    def _between(self, i: int, data: Tensor, out: Tensor) -> Tensor:
        """What happens to the output of layer i, whose input was data."""
        if self.config.layer_norm:
            out = self.norms[i](out)
        if self.config.dropout and i < self.config.num_layers - 1:
            out = F.dropout(out, self.config.dropout, self.training)
        return out + data if self.config.residual and out.shape == data.shape else out

    def _initial(self, layer: int, direction: int, batch: int) -> Tensor | tuple[Tensor, Tensor] | None:
        """As PyTorch's modules take it; None for zeros."""
        if self.initial is None:
            return None
        return _for_torch([state.repeat(batch, 1) for state in self.initial[layer, direction]])

    def start(self, batch: int) -> State:
        super().start(batch)
        tensors = 2 if self.config.cell == "lstm" else 1
        if self.initial is not None:
            return tuple(state.repeat(batch, 1) for layer in self.initial for state in layer[0])
        zeros = next(self.parameters()).new_zeros
        return tuple(zeros((batch, self.config.hidden_size)) for _ in range(tensors * self.config.num_layers))

    def push(self, data: Tensor, state: State) -> tuple[Tensor, State]:
        if data.shape[1] == 0:
            return self.empty(data.shape[0]), state
        tensors = len(state) // self.config.num_layers
        new: list[Tensor] = []
        for i, forwards in enumerate(self.forwards):
            out, last = forwards(data, _for_torch(list(state[i * tensors : (i + 1) * tensors])))
            new.extend(part[0].contiguous() for part in (last if tensors == 2 else (last,)))
            data = self._between(i, data, out)
        return data, tuple(new)

    def why_no_stream(self) -> str:
        return (
            "recurrent cannot stream: it is bidirectional, and its backward direction starts at the end of the "
            "sequence; set bidirectional: false, or use a unidirectional preset"
        )

    def macs_per_frame(self) -> float:
        return float(sum(w.numel() for name, w in self.named_parameters() if ".weight_" in name))


def _cell(config: RecurrentConfig, in_size: int) -> nn.RNNBase:
    """One layer in one direction."""
    cell = CELLS[config.cell](in_size, config.hidden_size, batch_first=True)  # type: ignore[call-arg, arg-type]
    if config.forget_bias is not None:
        forget = slice(config.hidden_size, 2 * config.hidden_size)  # PyTorch's order: input, forget, cell, output
        with torch.no_grad():
            cell.bias_ih_l0[forget] = config.forget_bias  # type: ignore[index, operator]
            cell.bias_hh_l0[forget] = 0.0  # type: ignore[index, operator]
    return cell


def _for_torch(states: list[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
    """(batch, hidden) each -> (1, batch, hidden), a pair for an LSTM."""
    if len(states) == 2:
        return states[0][None], states[1][None]
    return states[0][None]
