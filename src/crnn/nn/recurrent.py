"""Recurrent layers: stacks of plain RNN, LSTM, GRU and cells for long sequences, dense and exact on padded batches."""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crnn.config import config
from crnn.errors import ConfigError
from crnn.nn.dispatch import describe, native, run_cell
from crnn.nn.gru_before import GruBefore
from crnn.nn.layers import Features, Layer, State, Timing, register_layer
from crnn.nn.lru import Lru, RgLru
from crnn.nn.scan import Cell, Scan
from crnn.sequences import Sequences

TORCH_CELLS: dict[str, type[nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
FORGETTING = ("lstm", "mingru", "minlstm", "qrnn")
"""Cells with a gate that keeps the state, whose bias may be set."""


@config
class RecurrentConfig:
    """A stack of recurrent layers."""

    hidden_size: int = 128
    """Units per direction."""
    cell: Literal["rnn", "lstm", "gru", "mingru", "minlstm", "qrnn", "lru", "rg_lru"] = "lstm"
    """Plain tanh RNN, LSTM, GRU as PyTorch has it (reset after the product), or a cell for long sequences; `lru` and
    `rg_lru` are experimental."""
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
    """Bias of the gate that keeps the state, at the start, 1 to remember; a small random one when empty."""
    reset: Literal["after", "before"] = "after"
    """`gru` only: the reset gate after the product with the state, as in PyTorch, or before it, as in the paper."""
    kernel_size: int = 1
    """`qrnn` only: frames that its gates look at, the newest and those before."""

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_layers", "kernel_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"recurrent.{name}={getattr(self, name)}; expected at least 1")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"recurrent.dropout={self.dropout}; expected at least 0 and less than 1")
        if self.dropout and self.num_layers == 1:
            raise ConfigError(
                f"recurrent.dropout={self.dropout} needs num_layers >= 2, got 1; "
                "use head.dropout to regularise the output"
            )
        if self.forget_bias is not None and self.cell not in FORGETTING:
            raise ConfigError(
                f"recurrent.forget_bias={self.forget_bias} needs a cell that has such a gate, one of "
                f"{', '.join(FORGETTING)}; got cell: {self.cell}"
            )
        if self.reset == "before" and self.cell != "gru":
            raise ConfigError(f"recurrent.reset=before needs cell: gru, got {self.cell}; leave it out")
        if self.kernel_size > 1 and self.cell != "qrnn":
            raise ConfigError(
                f"recurrent.kernel_size={self.kernel_size} needs cell: qrnn, got {self.cell}; or put a conv before"
            )


@register_layer("recurrent")
class Recurrent(Layer):
    """RNN, LSTM, GRU or faster layers; the backward direction starts at each sequence's own last frame.

    Without padding, the numbers of nn.RNN, nn.LSTM or nn.GRU with the same weights.

    Shape:
        x.data: (batch, time, channels); returns (batch, time, hidden_size), twice that when bidirectional: first the
        forward units, then the backward ones.
        state: for every layer (batch, hidden_size), and for an LSTM its cell's (batch, hidden_size) after that; for an
        LRU the real and imaginary parts; for a QRNN the frames that its gates will look at again, after its cell.
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
        self.initial = (
            nn.Parameter(torch.zeros(config.num_layers, directions, self.num_states, config.hidden_size))
            if config.learned_initial_state
            else None
        )

    @property
    def num_states(self) -> int:
        """Tensors (batch, hidden_size) that each layer carries in each direction."""
        cell = self.forwards[0]
        return cell.num_states if isinstance(cell, Cell) else 1 + isinstance(cell, nn.LSTM)

    def compute(self, x: Sequences) -> Sequences:
        if x.data.shape[1] == 0:
            return Sequences(self.empty(x.data.shape[0]), x.lengths)
        data = x.data
        for i, forwards in enumerate(self.forwards):
            here = Sequences(data, x.lengths)
            out = self._run(forwards, here, i, reverse=False)
            if self.config.bidirectional:
                out = torch.cat([out, self._run(self.backwards[i], here, i, reverse=True)], 2)
            data = self._between(i, data, out)
        return Sequences(data, x.lengths).zeroed()  # once: frames past an end reach no frame before it

    def _run(self, cell: nn.Module, x: Sequences, i: int, *, reverse: bool) -> Tensor:
        """One layer in one direction over a batch."""
        batch = len(x.lengths)
        if isinstance(cell, Cell):
            return cell.run(x, self._states(i, int(reverse), batch), reverse=reverse)
        initial = None if self.initial is None else _for_torch(list(self._states(i, int(reverse), batch)))
        return run_cell(cast("nn.RNNBase", cell), x, initial, reverse=reverse)

    def _states(self, layer: int, direction: int, batch: int) -> Tensor:
        """(num_states, batch, hidden_size) before the first frame."""
        if self.initial is not None:
            return self.initial[layer, direction][:, None].repeat(1, batch, 1)
        return next(self.parameters()).new_zeros(self.num_states, batch, self.config.hidden_size)

    def _between(self, i: int, data: Tensor, out: Tensor) -> Tensor:
        """What happens to the output of layer i, whose input was data."""
        if self.config.layer_norm:
            out = self.norms[i](out)
        if self.config.dropout and i < self.config.num_layers - 1:
            out = F.dropout(out, self.config.dropout, self.training)
        return out + data if self.config.residual and out.shape == data.shape else out

    def start(self, batch: int) -> State:
        super().start(batch)
        carried: list[Tensor] = []
        for i, cell in enumerate(self.forwards):
            states = self._states(i, 0, batch)
            carried.extend(cell.start(states) if isinstance(cell, Cell) else states)
        return tuple(carried)

    def push(self, data: Tensor, state: State) -> tuple[Tensor, State]:
        if data.shape[1] == 0:
            return self.empty(data.shape[0]), state
        tensors = len(state) // self.config.num_layers
        new: list[Tensor] = []
        for i, cell in enumerate(self.forwards):
            carried = list(state[i * tensors : (i + 1) * tensors])
            if isinstance(cell, Cell):
                out, carried = cell.push(data, carried)
                new.extend(carried)
            else:
                out, last = cell(data, _for_torch(carried))
                new.extend(part[0].contiguous() for part in (last if tensors == 2 else (last,)))
            data = self._between(i, data, out)
        return data, tuple(new)

    def why_no_stream(self) -> str:
        return (
            "recurrent cannot stream: it is bidirectional, and its backward direction starts at the end of the "
            "sequence; set bidirectional: false, or use a unidirectional preset"
        )

    def macs_per_frame(self) -> float:
        cells = (*self.forwards.named_parameters(), *self.backwards.named_parameters())
        return float(sum(weight.numel() for _, weight in cells if weight.dim() == 2))


def _cell(config: RecurrentConfig, in_size: int) -> nn.Module:
    """One layer in one direction."""
    if config.reset == "before":
        return GruBefore(in_size, config.hidden_size)
    if config.cell in ("lru", "rg_lru"):
        return (Lru if config.cell == "lru" else RgLru)(in_size, config.hidden_size)
    if config.cell in ("mingru", "minlstm", "qrnn"):
        scan = Scan(config.cell, in_size, config.hidden_size, kernel_size=config.kernel_size)
        if config.forget_bias is not None:
            scan.set_forget_bias(config.forget_bias)
        return scan
    cell = TORCH_CELLS[config.cell](in_size, config.hidden_size, batch_first=True)  # type: ignore[call-arg, arg-type]
    if config.forget_bias is not None:
        forget = slice(config.hidden_size, 2 * config.hidden_size)  # PyTorch's order: input, forget, cell, output
        with torch.no_grad():
            cell.bias_ih_l0[forget] = config.forget_bias  # type: ignore[index, operator]
            cell.bias_hh_l0[forget] = 0.0  # type: ignore[index, operator]
    return cell


def describe_kernels(network: nn.Module) -> dict[str, str]:
    """For every recurrent cell of a network, what computes it on this machine, and why."""
    found = {}
    for name, cell in network.named_modules():
        if isinstance(cell, nn.RNNBase):
            found[name] = describe(cell)
        elif isinstance(cell, Cell):
            reason = cell.why_plain(next(cell.parameters()))
            found[name] = f"plain torch: {reason}" if reason else f"{native()} at every shape"
    return found


def _for_torch(states: list[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
    """(batch, hidden) each -> (1, batch, hidden), a pair for an LSTM."""
    if len(states) == 2:
        return states[0][None], states[1][None]
    return states[0][None]
