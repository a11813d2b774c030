"""The doctor: finds out why a training run cannot go on, and says so.

It looks at numbers that are read anyway, so that a healthy run pays for it a few times in all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from crnn.data.dataset import Dataset, Example
from crnn.errors import TrainingError
from crnn.nn.layers import Layer
from crnn.nn.summary import Summary
from crnn.sequences import Ragged, Sequences

ACTIVATIONS = ("ReLU", "ReLU6", "Activation", "Threshold")
"""Classes whose output can die: all zero, so that no gradient passes."""


class Doctor:
    """Keeps the weights of the start of an epoch, to examine what went wrong in it."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._tensors = [p.detach() for p in network.parameters()] + list(network.buffers())
        self._start = [tensor.clone() for tensor in self._tensors]
        self._noted = False
        self._unreached = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self._dead: set[str] = set()
        self._norms: list[float] = []

    @torch.no_grad()
    def remember(self) -> None:
        """Note the weights at the start of an epoch."""
        for kept, tensor in zip(self._start, self._tensors, strict=True):
            kept.copy_(tensor)

    def note_gradients(self) -> None:
        """Cross off the parameters that have a gradient; call between backward and the update."""
        self._noted = True
        if self._unreached:
            self._unreached = {name: p for name, p in self._unreached.items() if p.grad is None}

    def check_reached(self) -> None:
        """Raises TrainingError for parameters that no gradient has reached so far.

        Says nothing before an update was seen: a run may be resumed between an epoch's last update and its end.
        """
        if self._noted and self._unreached:
            names = list(self._unreached)
            raise TrainingError(
                f"no gradient ever reaches {len(names)} parameters ({list_names(names)}): the loss does not depend on "
                "them; take these layers out of the model, or connect them, or freeze them with requires_grad_(False)"
            )

    def check_gradients(self, norm: float, loss: float, first_loss: float, place: str, rate: float) -> None:
        """Raises TrainingError when gradients explode: a thousand times their usual norm while the loss is lost too.

        Args:
            norm: mean of the epoch; loss: mean of the epoch; first_loss: of the first epoch.
        """
        usual = median(self._norms) if self._norms else math.inf
        self._norms.append(norm)
        if norm > 1000 * usual and loss > 10 * first_loss:
            raise TrainingError(
                f"{place}: gradients exploded: their norm is {norm:.3g} where {usual:.3g} was usual, and the loss rose "
                f"from {first_loss:.3g} to {loss:.3g}; lower train.learning_rate (now {rate:.2g}) or set "
                "train.max_grad_norm=1"
            )

    def check_layers(self, x: Sequences, place: str) -> None:
        """Raises TrainingError for layers that give only zeros twice in a row, so that nothing before them learns."""
        dead = set(silent_layers(self.network, x))
        lasting = [name for name in dead if name in self._dead]
        self._dead = dead
        if lasting:
            raise TrainingError(
                f"{place}: dead layers: {list_names(sorted(lasting))} put out nothing but zeros, so that no layer "
                "before them can learn; lower train.learning_rate, or use another activation or initialisation"
            )

    def check_outputs(self, outputs: Tensor | Ragged, data: Dataset, place: str, rate: float) -> None:
        """Raises TrainingError for validation outputs that are not finite."""
        if isinstance(outputs, Ragged):
            rows = [i for i, row in enumerate(outputs) if not row.isfinite().all()]
        else:
            rows = (~outputs.isfinite().all(1)).nonzero()[:, 0].tolist()
        if not rows:
            return
        if len(rows) == len(outputs):
            raise TrainingError(
                f"{place}: the network's outputs are no longer numbers on validation: training diverged; lower "
                f"train.learning_rate (now {rate:.2g}) or set train.max_grad_norm=1"
            )
        names = list_names([data[row].where for row in rows])
        raise TrainingError(
            f"{place}: the outputs for {len(rows)} of {len(outputs)} validation examples are not finite ({names}): "
            "look for NaN, infinite or absurdly large values there, and repair or leave out these examples"
        )

    def explain_loss(
        self, loss: float, x: Sequences, examples: list[Example], place: str, rate: float
    ) -> TrainingError:
        """Why a loss is not finite: the data, a layer, or the learning rate.

        Args:
            x, examples: the first batch whose loss was not finite.
            place: "epoch 3, step 17 of 40".
        """
        start = f"{place}: the loss is {loss}"
        with torch.no_grad():
            broken = [name for name, p in self.network.named_parameters() if not p.isfinite().all()]
            for tensor, kept in zip(self._tensors, self._start, strict=True):
                tensor.copy_(kept)  # the weights before this epoch: does the batch break them as well?
        layer = first_broken_layer(self.network, x)
        bad = unusable_examples(x, examples)
        if layer is None:
            spread = f", {len(broken)} parameters are no longer numbers ({list_names(broken)})" if broken else ""
            return TrainingError(
                f"{start}{spread}: training diverged within this epoch, since its first weights handle the same batch; "
                f"lower train.learning_rate (now {rate:.2g}) or set train.max_grad_norm=1"
            )
        if bad:
            return TrainingError(
                f"{start}, first in {layer}: the data is the cause: {'; '.join(bad[:3])}"
                f"{f' and {len(bad) - 3} more' if len(bad) > 3 else ''}; repair these examples or leave them out"
            )
        names = ", ".join(example.where for example in examples[:3])
        return TrainingError(
            f"{start}, first in {layer}: its input is finite and its output is not (batch of {names}, ...); "
            "scale the data, or check this layer"
        )


def list_names(names: list[str]) -> str:
    """The first three, and how many more."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def unusable_examples(x: Sequences, examples: list[Example]) -> list[str]:
    """Where the examples of a batch hold NaN, infinite or absurdly large values."""
    if not x.data.is_floating_point():
        return []
    found = []
    for row, length, example in zip(x.data, x.lengths.tolist(), examples, strict=True):
        values = row[:length]
        if values.isnan().any():
            found.append(f"{example.where} holds NaN")
        elif values.isinf().any():
            found.append(f"{example.where} holds infinite values")
        elif values.abs().max() > 1e15:
            found.append(f"{example.where} holds values up to {float(values.abs().max()):.1e}")
    return found


def first_broken_layer(network: nn.Module, x: Sequences) -> str | None:
    """The innermost layer whose output is not finite first; None where the network's own output is."""
    found: list[str] = []

    def look(name: str, output: Any) -> None:
        if not all(part.isfinite().all() for part in _outputs(output)):
            found.append(name)

    _watch(network, x, look)
    return (found[0] or "the network") if "" in found else None


def silent_layers(network: nn.Module, x: Sequences) -> list[str]:
    """Activations, and layers with weights, whose output is zero throughout though the network's input is not."""
    if not x.data.any():
        return []
    weighted = {name for name, module in network.named_modules() if next(module.parameters(), None) is not None}
    kinds = {name: type(module).__name__ for name, module in network.named_modules()}
    found: list[str] = []

    def look(name: str, output: Any) -> None:
        parts = list(_outputs(output))
        if (name in weighted or kinds[name] in ACTIVATIONS) and parts and not any(part.any() for part in parts):
            found.append(name or "the network")

    _watch(network, x, look)
    return found


Look = Callable[[str, Any], None]
"""Takes the name of a part of the network and what it returned."""


def _watch(network: nn.Module, x: Sequences, look: Look) -> None:
    """Run the network on x in eval mode and show every part's output to `look`, innermost first."""
    handles: list[RemovableHandle] = []
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, (Layer, Summary))]
    for name, module in network.named_modules():
        if not isinstance(module, (Layer, Summary)):
            handles.append(module.register_forward_hook(partial(_show_output, look, name)))
    for name, layer in layers:
        layer.compute = partial(_show_computed, look, name, layer.compute)  # type: ignore[method-assign]
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()(x)
    finally:
        network.train(was_training)
        for _, layer in layers:
            del layer.compute  # the instance's own; the class's comes back
        for handle in handles:
            handle.remove()


def _show_output(look: Look, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
    look(name, output)


def _show_computed(look: Look, name: str, compute: Callable[[Sequences], Any], x: Sequences) -> Any:
    """A chain calls its layers' compute, and a network its summary's, which passes by forward hooks."""
    output = compute(x)
    look(name, output)
    return output


def _outputs(output: Any) -> Iterable[Tensor]:
    """The tensors in what a module returned; of Sequences, the valid frames."""
    if isinstance(output, Sequences):
        yield output.zeroed().data
    elif isinstance(output, Tensor):
        yield output
    elif isinstance(output, tuple | list):
        for part in output:
            yield from _outputs(part)
