"""The contract: timing, lengths, chains and the registry."""

import pytest
import torch
from torch.testing import assert_close

from crnn.errors import ConfigError, ShapeError, StreamError
from crnn.nn.blocks import build_layers
from crnn.nn.layers import LAYERS, Chain, Layer, Timing, register_layer
from crnn.sequences import Sequences, pad

CHAIN = [
    {"type": "conv", "channels": 4, "kernel_size": 5, "stride": 2},
    {"type": "norm"},
    {"type": "activation"},
    {"type": "pool", "size": 3},
    {"type": "conv", "channels": 2, "kernel_size": 3, "padding": "causal"},
]


def test_timing_of_layers_in_a_row_by_hand():
    # conv: 2 back, 2 ahead, step 2; pool: 2 of those steps ahead, step 3; causal conv: 2 of those steps back
    assert build_layers(CHAIN, (3,)).timing == Timing(6, 2 + 0 + 6 * 2, 2 + 2 * 2)


def test_lengths_of_layers_in_a_row_by_hand():
    chain = build_layers(CHAIN, (3,))
    assert chain.out_lengths(torch.tensor([5, 6, 11, 12, 13])).tolist() == [1, 1, 2, 2, 2]  # ceil(n / 2) // 3


def test_cost_counts_each_layer_at_its_rate():
    # conv 3*4*5 every 2nd frame, conv 4*2*3 every 6th
    assert build_layers(CHAIN, (3,)).macs_per_frame() == 60 / 2 + 24 / 6


def test_a_chain_streams_to_the_same_frames():
    chain, data = build_layers(CHAIN, (3,)).eval(), torch.randn(2, 41, 3)
    state, out = chain.start(2), []
    for chunk in data.split([1, 0, 7, 2, 20, 11], 1):
        frames, state = chain.push(chunk, state)
        out.append(frames)
    out.append(chain.finish(state))
    assert_close(torch.cat(out, 1), chain(Sequences(data, torch.tensor([41, 41]))).data)


def test_a_chain_of_nothing_passes_frames_on():
    chain, x = build_layers([], (3,)), pad([torch.ones(2, 3), torch.ones(4, 3)])
    assert torch.equal(chain(x).data, x.data)
    assert chain.start(2) == ()


def test_wrong_frames_are_named():
    with pytest.raises(ShapeError, match=r"Conv: frames have shape \(5,\), expected \(3,\)"):
        build_layers(CHAIN, (3,)).layers[0](pad([torch.ones(9, 5)]))


def test_a_sequence_of_which_nothing_would_be_left_is_named():
    pool = build_layers([{"type": "pool", "size": 4}], (1,))
    with pytest.raises(ShapeError, match="Pool: sequence 1 has 3 frames, needs at least 4"):
        pool(pad([torch.ones(4, 1), torch.ones(3, 1)]))


def test_a_chain_names_the_layer_that_cannot_stream():
    chain = build_layers([*CHAIN, {"type": "recurrent", "hidden_size": 2, "bidirectional": True}], (3,))
    assert not chain.can_stream
    with pytest.raises(StreamError, match="recurrent cannot stream: it is bidirectional"):
        chain.start(1)
    assert chain.why_no_stream().startswith("recurrent cannot stream")


def test_statistics_are_learned_from_what_the_layers_before_give():
    chain = build_layers([{"type": "difference", "keep": False}, {"type": "channel_norm"}], (1,))
    assert chain.learns_statistics
    chain.fit_statistics([pad([torch.tensor([[0.0], [2], [6]]), torch.tensor([[5.0]])])])
    assert chain.layers[1].mean.item() == (0 + 2 + 4 + 0) / 4
    assert not build_layers(CHAIN, (3,)).learns_statistics


def test_a_name_registers_once():
    with pytest.raises(ConfigError, match=r"layer 'conv' is registered twice: Conv, .*Again"):

        @register_layer("conv")
        class Again(Layer):
            pass

    assert LAYERS["conv"].__name__ == "Conv"


def test_gradients_reach_every_parameter_of_a_chain():
    chain = build_layers(CHAIN, (3,))
    assert isinstance(chain, Chain)
    chain(pad([torch.randn(20, 3), torch.randn(13, 3)])).data.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in chain.parameters())
