"""Units that add nothing can be taken out without a change; what cannot be narrowed is named."""

from __future__ import annotations

import pytest
import torch

from crnn.compress.units import narrowed
from crnn.errors import ConfigError
from crnn.models.network import Network
from crnn.models.spec import NetworkSpec, spec_from_plain
from crnn.nn.conv import Conv, Conv2d
from crnn.nn.norm import Norm
from crnn.nn.recurrent import Recurrent
from crnn.presets.recipe import DataSummary
from crnn.presets.registry import PRESETS
from crnn.sequences import pad
from test_promises import sequences, settle

SERIES = DataSummary("series", 3, None, 100, 40, 40, 30, 50, "classify", 4)
AUDIO = DataSummary("audio", 1, 8000.0, 100, 4000, 4000, 3000, 5000, "classify", 4)
CONV, NORM, RELU = {"type": "conv", "channels": 8}, {"type": "norm"}, {"type": "activation"}


def make(layers, features=(3,), summary=None, head=None):
    """Weights and statistics off their start."""
    torch.manual_seed(0)
    plain = {"layers": layers, "summary": summary or {"type": "mean"}, "head": head or {}}
    return settle(Network(spec_from_plain(plain), features=features, outputs=4), features)


def kill_every_other(network):
    """Units 0, 2, 4, ... of all layers give zero: what has no weights, and what a norm multiplies by zero."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (Conv, Conv2d)):
                module.conv.weight[::2] = 0
                if module.conv.bias is not None:
                    module.conv.bias[::2] = 0
            elif isinstance(module, Norm):
                for tensor in (module.weight, module.bias, getattr(module, "running_mean", None)):
                    if tensor is not None:
                        tensor[::2] = 0
            elif isinstance(module, Recurrent):
                for name, tensor in module.named_parameters():
                    kill_units(tensor, name, module.config.hidden_size)
        for hidden in network.head.hidden:
            hidden.weight[::2] = 0
            hidden.bias[::2] = 0


def kill_units(tensor, name, size):
    """A unit whose gates see nothing and whose initial state is zero stays at zero."""
    if name == "initial":
        tensor[..., ::2] = 0
    elif "_l0" in name:
        tensor.view(-1, size, *tensor.shape[1:])[:, ::2] = 0
        if "weight_hh" in name:
            tensor[:, ::2] = 0
    else:  # a layer norm
        tensor[::2] = 0


def assert_halved_and_the_same(network, features, lengths=(9, 14, 31)):
    kill_every_other(network)
    smaller = narrowed(network, 0.5)
    x = pad(sequences(features, list(lengths), seed=3))
    with torch.no_grad():
        torch.testing.assert_close(smaller(x), network(x), atol=1e-5, rtol=1e-5)
    assert smaller.num_parameters < 0.6 * network.num_parameters
    return smaller


GENERAL = [name for name, make in PRESETS.items() if make.__module__ == "crnn.presets.general"]
"""Those for series with classes; what the others are made of is tested below."""


@pytest.mark.parametrize("preset", GENERAL)
def test_dead_units_of_every_general_preset_go_without_a_change(preset):
    recipe = PRESETS[preset](SERIES)
    network = make(recipe["model"]["layers"], (3,), recipe["model"]["summary"], recipe["model"].get("head"))
    assert_halved_and_the_same(network, (3,))


def test_dead_units_of_the_default_for_recordings_go_without_a_change():
    recipe = PRESETS["default"](AUDIO)["model"]
    network = make(recipe["layers"], (1,), recipe["summary"], recipe["head"])
    assert_halved_and_the_same(network, (1,), (3000, 4100))


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_stacked_recurrences_lose_the_same_number_of_units_in_every_layer(cell, bidirectional):
    options = {"cell": cell, "num_layers": 2, "bidirectional": bidirectional, "learned_initial_state": True}
    network = make([{"type": "recurrent", "hidden_size": 12, **options}], (3,), {"type": "last"})
    smaller = assert_halved_and_the_same(network, (3,))
    assert smaller.spec.layers[0]["hidden_size"] == 6


@pytest.mark.parametrize(
    "layers",
    [
        [CONV, NORM, RELU, {**CONV, "groups": 8}, NORM, {"type": "pool", "size": 2}, CONV],
        [CONV, NORM, {"type": "residual", "layers": [CONV, NORM, RELU, CONV, NORM]}],
        [CONV, NORM, {"type": "residual", "layers": [{**CONV, "channels": 16, "stride": 2}, NORM]}],
        [CONV, RELU, {"type": "parallel", "branches": [[], [CONV, NORM], [{**CONV, "kernel_size": 1}]]}, CONV],
    ],
    ids=["depthwise", "shortcut", "projection", "branches"],
)
@pytest.mark.parametrize("summary", [{"type": "attention"}, {"type": "concat", "summaries": [{"type": "max"}] * 2}])
def test_blocks_and_summaries_follow_what_their_input_lost(layers, summary):
    network = make(layers, (3,), summary, {"hidden": [8]})
    smaller = assert_halved_and_the_same(network, (3,))
    assert smaller.spec.head.hidden == (4,)


def test_thresholds_go_with_their_channels():
    """By hand: of 4 channels the larger two stay, and of 2 thresholds and the maximum the blocks of these two."""
    network = make([{**CONV, "channels": 4}], (3,), {"type": "above", "thresholds": 2})
    with torch.no_grad():
        network.body.layers[0].conv.weight.copy_(torch.tensor([1.0, 4.0, 3.0, 2.0])[:, None, None].expand(4, 3, 3))
        network.summary.thresholds.copy_(torch.arange(8.0).reshape(2, 4))
        network.summary.mean.copy_(torch.arange(12.0))
    summary = narrowed(network, 0.5).summary
    assert summary.thresholds.tolist() == [[1, 2], [5, 6]]
    assert summary.mean.tolist() == [1, 2, 5, 6, 9, 10]


def test_spectrograms_lose_channels_and_keep_their_bins():
    conv = {"type": "conv2d", "channels": 8}
    network = make([conv, NORM, RELU, {"type": "pool2d", "size": [2, 2]}, conv, {"type": "flatten"}], (6,))
    smaller = assert_halved_and_the_same(network, (6,))
    assert smaller.body.out_features == (4 * 3,)


def test_the_largest_weights_stay():
    network = make([{**CONV, "channels": 4}])
    sizes = torch.tensor([0.1, 3.0, 0.2, 2.0])
    with torch.no_grad():
        network.body.layers[0].conv.weight.copy_(sizes[:, None, None].expand(4, 3, 3))
    assert narrowed(network, 0.5).body.layers[0].conv.weight[:, 0, 0].tolist() == [3.0, 2.0]
    assert narrowed(network, 0.99).body.layers[0].conv.weight[:, 0, 0].tolist() == [3.0]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([CONV, {**CONV, "groups": 4}], r"layers\[1\]: conv with groups=4 ties channels to each other; use --prune"),
        ([CONV, {"type": "bottleneck", "channels": 8}], r"layers\[1\]: bottleneck does not say which of its weights"),
        ([CONV, {"type": "recurrent", "residual": True}], r"layers\[1\]: recurrent has its units added to its input"),
        ([CONV, {"type": "conv2d", "channels": 8}], r"layers\[1\]: conv2d reads the channels before it as bins"),
        (
            [CONV, {"type": "residual", "layers": [NORM, {"type": "recurrent", "hidden_size": 8}]}],
            r"layers\[1\]\.residual\.layers\[1\]: recurrent has its units added",
        ),
    ],
)
def test_what_cannot_be_narrowed_is_named(layers, message):
    with pytest.raises(ConfigError, match=message):
        narrowed(make(layers), 0.5)


def test_a_narrowed_network_has_the_spec_that_builds_it():
    smaller = narrowed(make([CONV, NORM, {"type": "recurrent", "hidden_size": 12}]), 0.25)
    assert isinstance(smaller.spec, NetworkSpec)
    again = Network(smaller.spec, features=(3,), outputs=4)
    again.load_state_dict(smaller.state_dict())
    assert [spec.get("channels", spec.get("hidden_size")) for spec in smaller.spec.layers] == [6, None, 9]
