"""Structured pruning: whole channels and hidden units are taken out, so that the network really is smaller.

The network is walked from its input to its head. Each layer is told which channels of its input are left, keeps the
weights that belong to them, and says which channels of its own output are left: convolutions and recurrences choose
(the units with the largest weights stay), everything between them passes on what it was given.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from crnn.compress.prune import check_share
from crnn.compress.tune import fine_tune, shorter
from crnn.config import to_plain
from crnn.data.dataset import Dataset
from crnn.errors import ConfigError
from crnn.model import Model
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.nn.blocks import Activation, Dropout, Flatten, Parallel, Residual, Spec
from crnn.nn.conv import Conv, Conv2d
from crnn.nn.frontend import ChannelNorm
from crnn.nn.head import Head
from crnn.nn.jitter import Jitter
from crnn.nn.layers import Chain, Layer, known_layers
from crnn.nn.norm import Norm
from crnn.nn.pool import Pool, Pool2d
from crnn.nn.recurrent import Recurrent
from crnn.nn.scale import Compress, InstanceNorm, Level
from crnn.nn.spec_augment import SpecAugment
from crnn.nn.summary import Above, Attention, Concat, Last, Max, Mean, Summary
from crnn.training.config import TrainConfig

Kept = Tensor
"""Places, along the first axis of a frame, of the channels that are left; int64, rising."""


def prune_units(
    model: Model,
    train: Dataset,
    *,
    share: float,
    config: TrainConfig,
    validation: Dataset | None = None,
    epochs: int | None = None,
    quiet: bool = True,
) -> Model:
    """The same model with `share` of the channels and hidden units of every layer taken out, and fine-tuned.

    Args:
        train, config, epochs: of the fine-tuning, as crnn.compress.prune.prune takes them.
    Raises:
        ConfigError: a share outside of 0 ... 1; or a layer whose shape does not allow it: which one, and why.
    Source: Li et al. 2017, arXiv:1608.08710 (sum of absolute weights); Liu et al. 2017, arXiv:1708.06519 (the scale of
        a batch norm, where one follows).
    """
    check_share(share, "prune-units")
    smaller = replace(model, network=narrowed(model.network, share))
    recipe = shorter(config, len(train), len(validation or ()), epochs=epochs)
    fine_tune(smaller, train, validation, recipe, quiet=quiet)
    return smaller


def narrowed(network: Network, share: float) -> Network:
    """A network with `share` of the units of every layer taken out; nothing is trained.

    Units that add nothing can go without any change of the outputs.

    Raises:
        ConfigError: as prune_units.
    """
    narrow = _Narrow(share)
    spec = copy.deepcopy(to_plain(network.spec))
    kept = narrow.chain(network.body, spec["layers"], "body", "layers", _all(network.features), None)
    if network.summary is not None:
        kept = narrow.summary(network.summary, spec["summary"], "summary", kept)
    narrow.head(network.head, spec["head"], kept)
    smaller = Network(spec_from_plain(spec), features=network.features, outputs=network.outputs)
    state = {name: narrow.tensors.get(name, tensor) for name, tensor in network.state_dict().items()}
    smaller.load_state_dict(state)
    return smaller.eval()


def _all(features: tuple[int, ...]) -> Kept:
    """Every channel of a frame; of symbol ids the one there is."""
    return torch.arange(features[0] if features else 1)


def _values(kept: Kept, features: tuple[int, ...]) -> Kept:
    """The values of a flat frame that belong to the channels that are left."""
    each = torch.Size(features[1:]).numel()
    return (kept[:, None] * each + torch.arange(each)).flatten()


@dataclass(frozen=True)
class _Place:
    """A layer, and all that is known where it stands."""

    layer: Any
    spec: Spec
    """To be written to."""
    prefix: str
    """Of its tensors' names."""
    where: str
    """For messages."""
    kept: Kept
    """Of its input."""
    wanted: Kept | None
    """Of its output, where that is decided already."""
    norm: Layer | None
    """The layer after it, which may be a norm."""


class _Narrow:
    """Walks a network; collects smaller tensors by name, and writes smaller sizes into the spec it is given."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.tensors: dict[str, Tensor] = {}

    def choose(self, importance: Tensor) -> Kept:
        """The units to keep, at least one."""
        count = max(1, round(len(importance) * (1 - self.share)))
        return importance.topk(count).indices.sort().values

    def take(self, module: nn.Module, prefix: str, name: str, *places: Kept | None) -> None:
        """Keep of a tensor only these places along its first axes; None keeps an axis whole."""
        tensor: Tensor | None = getattr(module, name)
        if tensor is None:
            return
        for axis, kept in enumerate(places):
            tensor = tensor if kept is None else tensor.index_select(axis, kept)
        self.tensors[f"{prefix}.{name}"] = tensor.detach()

    def chain(self, chain: Chain, specs: list[Spec], prefix: str, where: str, kept: Kept, wanted: Kept | None) -> Kept:
        """Layers in a row; what is left of their output.

        Args:
            wanted: the channels that have to be left at the end, where something else has chosen them already.
        """
        layers = list(chain)
        last = max((i for i, layer in enumerate(layers) if _chooses(layer)), default=None)
        for i, (layer, spec) in enumerate(zip(layers, specs, strict=True)):
            norm = layers[i + 1] if i + 1 < len(layers) else None
            wish = wanted if i == last else None
            kept = self.layer(_Place(layer, spec, f"{prefix}.layers.{i}", f"{where}[{i}]", kept, wish, norm))
        if wanted is not None and not torch.equal(kept, wanted):
            raise _refused(where, "these layers", "have to end with the very channels that they are added to")
        return kept

    def layer(self, at: _Place) -> Kept:
        """One layer; what is left of its output."""
        if type(at.layer) in NARROWING:
            return NARROWING[type(at.layer)](self, at)
        if not torch.equal(at.kept, _all(at.layer.in_features)):
            name = next((name for name, cls in known_layers().items() if cls is type(at.layer)), at.layer)
            raise _refused(at.where, str(name), "does not say which of its weights belong to a channel of its input")
        return _all(at.layer.out_features)

    def summary(self, summary: Summary, spec: Spec, prefix: str, kept: Kept) -> Kept:
        """A summary; what is left of its vector."""
        if isinstance(summary, Concat):
            return self._concat(summary, spec, prefix, kept)
        values = _values(kept, summary.in_features)
        if isinstance(summary, Attention):
            self.take(summary.project, f"{prefix}.project", "weight", None, values)
        elif isinstance(summary, Above):
            return self._above(summary, prefix, values)
        elif not isinstance(summary, (Last, Mean, Max)):
            raise _refused(prefix, type(summary).__name__, "does not say which of its weights belong to a channel")
        return values

    def _above(self, summary: Above, prefix: str, values: Kept) -> Kept:
        """A block of values for each threshold, and one for the maximum if there is one."""
        blocks, size = summary.config.thresholds + summary.config.maximum, summary.thresholds.shape[1]
        found = (torch.arange(blocks)[:, None] * size + values).flatten()
        self.take(summary, prefix, "thresholds", None, values)
        self.take(summary, prefix, "steepness", values)
        self.take(summary, prefix, "mean", found)
        self.take(summary, prefix, "spread", found)
        return found

    def _concat(self, summary: Concat, spec: Spec, prefix: str, kept: Kept) -> Kept:
        found, offset = [], 0
        for i, (branch, part) in enumerate(summary._pairs):
            inner = spec["summaries"][i]
            where = f"{prefix}.summaries[{i}].layers"
            after = self.chain(branch, inner.get("layers", []), f"{prefix}.branches.{i}", where, kept, None)
            found.append(self.summary(part, inner, f"{prefix}.parts.{i}", after) + offset)
            offset += part.out_features
        return torch.cat(found)

    def head(self, head: Head, spec: dict[str, Any], kept: Kept) -> None:
        """Hidden layers are narrowed too; the outputs stay."""
        sizes = []
        for i, hidden in enumerate(head.hidden):
            chosen = self.choose(hidden.weight.abs().sum(1))  # type: ignore[operator, union-attr]
            self.take(hidden, f"head.hidden.{i}", "weight", chosen, kept)
            self.take(hidden, f"head.hidden.{i}", "bias", chosen)
            sizes.append(len(chosen))
            kept = chosen
        spec["hidden"] = sizes
        self.take(head.linear, "head.linear", "weight", None, kept)


def _refused(where: str, name: str, why: str) -> ConfigError:
    return ConfigError(f"prune-units: {where}: {name} {why}; use --prune or --distil instead")


def _chooses(layer: Layer) -> bool:
    """Whether a layer has channels of its own; others have those of their input."""
    if isinstance(layer, (Conv, Conv2d)):
        return getattr(layer.config, "groups", 1) == 1
    return isinstance(layer, (Recurrent, Residual, Parallel))


def _same(to: _Narrow, at: _Place) -> Kept:
    """No weights, and as many channels as before."""
    return at.kept


def _per_channel(to: _Narrow, at: _Place) -> Kept:
    """Weights and statistics whose first axis is that of the channels."""
    for name, tensor in [*at.layer.named_parameters(), *at.layer.named_buffers()]:
        if tensor.dim():
            to.take(at.layer, at.prefix, name, at.kept)
    return at.kept


def _flatten(to: _Narrow, at: _Place) -> Kept:
    return _values(at.kept, at.layer.in_features)


def _conv(to: _Narrow, at: _Place) -> Kept:
    conv, inputs = at.layer.conv, at.kept
    if conv.groups > 1:
        return _depthwise(to, at)
    if isinstance(at.layer, Conv2d) and len(at.layer.in_features) == 1:  # bins of one channel
        if not torch.equal(inputs, _all(at.layer.in_features)):
            raise _refused(at.where, "conv2d", "reads the channels before it as bins, which have to stay neighbours")
        inputs = torch.zeros(1, dtype=torch.int64)
    chosen = to.choose(_importance(conv, at.norm)) if at.wanted is None else at.wanted
    to.take(conv, f"{at.prefix}.conv", "weight", chosen, inputs)
    to.take(conv, f"{at.prefix}.conv", "bias", chosen)
    at.spec["channels"] = len(chosen)
    return chosen


def _depthwise(to: _Narrow, at: _Place) -> Kept:
    """One filter a channel, which goes with it."""
    conv = at.layer.conv
    if not conv.groups == conv.in_channels == conv.out_channels:
        raise _refused(at.where, f"conv with groups={conv.groups}", "ties channels to each other")
    to.take(conv, f"{at.prefix}.conv", "weight", at.kept)
    to.take(conv, f"{at.prefix}.conv", "bias", at.kept)
    at.spec["channels"] = at.spec["groups"] = len(at.kept)
    return at.kept


def _importance(conv: nn.Module, norm: Layer | None) -> Tensor:
    """Of each output channel."""
    weight: Any = norm.weight if isinstance(norm, Norm) and norm.config.kind == "batch" else None
    if weight is None:
        weight = conv.weight
    return weight.detach().abs().flatten(1).sum(1) if weight.dim() > 1 else weight.detach().abs()  # type: ignore[no-any-return]


def _recurrent(to: _Narrow, at: _Place) -> Kept:
    layer, kept = at.layer, at.kept
    config, size = layer.config, layer.config.hidden_size
    if not isinstance(layer.forwards[0], nn.RNNBase):
        raise _refused(at.where, f"recurrent with cell {config.cell}", "has gates that this does not take apart yet")
    if config.residual or at.wanted is not None:
        raise _refused(at.where, "recurrent", "has its units added to its input, one by one")
    chosen: list[list[Kept]] = []  # of each layer, in each direction
    for i in range(config.num_layers):
        cells = (
            {"forwards": layer.forwards, "backwards": layer.backwards}
            if config.bidirectional
            else {"forwards": layer.forwards}
        )
        chosen.append([_narrow_cell(to, cell[i], f"{at.prefix}.{name}.{i}", kept) for name, cell in cells.items()])
        kept = torch.cat([units + direction * size for direction, units in enumerate(chosen[-1])])
        if config.layer_norm:
            to.take(layer.norms[i], f"{at.prefix}.norms.{i}", "weight", kept)
            to.take(layer.norms[i], f"{at.prefix}.norms.{i}", "bias", kept)
    if layer.initial is not None:
        rows = [[layer.initial[i, d].detach()[:, units] for d, units in enumerate(row)] for i, row in enumerate(chosen)]
        to.tensors[f"{at.prefix}.initial"] = torch.stack([torch.stack(row) for row in rows])
    at.spec["hidden_size"] = len(chosen[0][0])
    return kept


def _narrow_cell(to: _Narrow, cell: nn.RNNBase, prefix: str, kept: Kept) -> Kept:
    """One layer in one direction; the units that are left, by the weights that lead into and out of their state."""
    own: Any = cell
    size = cell.hidden_size
    inward = torch.cat([own.weight_ih_l0, own.weight_hh_l0], 1).detach().abs().sum(1).reshape(-1, size).sum(0)
    units = to.choose(inward + own.weight_hh_l0.detach().abs().sum(0))
    gates = len(own.weight_hh_l0) // size
    rows = (torch.arange(gates)[:, None] * size + units).flatten()
    to.take(cell, prefix, "weight_ih_l0", rows, kept)
    to.take(cell, prefix, "weight_hh_l0", rows, units)
    to.take(cell, prefix, "bias_ih_l0", rows)
    to.take(cell, prefix, "bias_hh_l0", rows)
    return units


def _residual(to: _Narrow, at: _Place) -> Kept:
    """The sum needs the same channels on both ways: those of the input where it is added as it is."""
    body, shortcut = at.layer._chains
    names = [f"{at.prefix}.branches.{i}" for i in range(2)]
    if not list(shortcut):
        to.chain(body, at.spec["layers"], names[0], f"{at.where}.residual.layers", at.kept, at.kept)
        return at.kept
    kept = to.chain(body, at.spec["layers"], names[0], f"{at.where}.residual.layers", at.kept, at.wanted)
    unwritten: list[Spec] = [{} for _ in shortcut]  # the projection follows from the rest of the spec
    to.chain(shortcut, unwritten, names[1], f"{at.where}.residual.shortcut", at.kept, kept)
    at.spec["shortcut"] = "projection"  # also where sizes happen to agree now
    return kept


def _parallel(to: _Narrow, at: _Place) -> Kept:
    found, offset = [], 0
    stacked = at.layer.config.join == "stack"
    for i, (branch, specs) in enumerate(zip(at.layer._chains, at.spec["branches"], strict=True)):
        size = branch.out_features[0]
        wanted = torch.arange(size) if stacked else None  # branches become channels: inside of them all stay
        if at.wanted is not None and not stacked:
            wanted = at.wanted[(at.wanted >= offset) & (at.wanted < offset + size)] - offset
        where = f"{at.where}.parallel.branches[{i}]"
        found.append(to.chain(branch, specs, f"{at.prefix}.branches.{i}", where, at.kept, wanted) + offset)
        offset += size
    return _all(at.layer.out_features) if stacked else torch.cat(found)


NARROWING: dict[type[Layer], Callable[[_Narrow, _Place], Kept]] = {
    **dict.fromkeys((Activation, Dropout, Jitter, SpecAugment, Pool, Pool2d, Level), _same),
    **dict.fromkeys((Norm, ChannelNorm, Compress, InstanceNorm), _per_channel),
    Flatten: _flatten,
    Conv: _conv,
    Conv2d: _conv,
    Recurrent: _recurrent,
    Residual: _residual,
    Parallel: _parallel,
}
"""(the walk, the layer in its place) -> what is left of its output, for the layers that can be narrowed."""
