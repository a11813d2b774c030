"""Summaries against plain loops over the frames of each sequence."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.testing import assert_close

from crnn.errors import ConfigError, ShapeError
from crnn.nn.blocks import build_layers
from crnn.nn.summary import _spaced_frames, build_summary, complete_summary, register_summary
from crnn.sequences import Sequences, pad

CONV = {"type": "conv", "channels": 4}
ROWS = [torch.randn(n, 4, generator=torch.Generator().manual_seed(n)) - 3 for n in (6, 1, 4)]


def make(features=(4,), **spec):
    return build_summary(spec, features)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("last", lambda row: row[-1]), ("mean", lambda row: row.mean(0)), ("max", lambda row: row.max(0).values)],
)
def test_equals_a_plain_loop(name, expected):
    summary = make(type=name)
    assert_close(summary(pad(ROWS, length=9, value=float("nan"))), torch.stack([expected(row) for row in ROWS]))
    assert summary.out_features == 4


def test_attention_is_a_weighted_mean_by_hand():
    summary = make(type="attention", hidden_size=3)
    w, b, v = summary.project.weight, summary.project.bias, summary.score.weight[0]
    expected = []
    for row in ROWS:
        scores = torch.stack([torch.dot(v, (w @ frame + b).tanh()) for frame in row])
        weights = scores.exp() / scores.exp().sum()
        expected.append((weights[:, None] * row).sum(0))
    assert_close(summary(pad(ROWS, value=float("nan"))), torch.stack(expected))


def test_attention_weights_sum_to_one_over_real_frames():
    weights = make(type="attention").weights(pad(ROWS, length=8, value=float("nan")))
    assert weights.shape == (3, 8)
    assert_close(weights.sum(1), torch.ones(3))
    assert not weights[2, 4:].any()
    assert weights[1, 0] == 1


def test_attention_streams_through_scores_of_any_size():
    summary = make((1,), type="attention", hidden_size=1)
    summary.project.weight.data.fill_(1)
    summary.project.bias.data.zero_()
    summary.score.weight.data.fill_(200)  # exp(200) is beyond float32
    data = torch.tensor([[[-2.0], [0.5], [3.0], [-1.0]]])
    state = summary.start(1)
    for chunk in data.split(1, 1):
        state = summary.push(chunk, state)
    assert_close(summary.read(state), summary(pad([data[0]])))
    assert summary.read(state).isfinite().all()


@pytest.mark.parametrize("spec", [{"type": "mean"}, {"type": "attention"}], ids=["mean", "attention"])
def test_a_day_of_frames_does_not_drift(spec):
    summary = make((1,), **spec)
    data = 1000 + torch.arange(20_000)[None, :, None] / 10_000  # rises by less than the last bit of 1000 a frame
    state = summary.start(1)
    with torch.no_grad():
        for frame in data.split(1, 1):
            state = summary.push(frame, state)
        assert abs(float(summary.read(state)) - data.double().mean()) < 1e-3
    assert [tensor.shape for tensor in state] == [tensor.shape for tensor in summary.start(1)]


def test_reading_a_concat_holds_no_frames_that_its_layers_still_wait_with():
    summary = make(
        type="concat", summaries=[{"type": "last", "layers": [{"type": "pool", "size": 3}]}, {"type": "last"}]
    )
    frames = torch.arange(20.0).reshape(1, 5, 4)
    state = summary.push(frames[:, :2], summary.start(1))
    assert not summary.has_frames(state)
    state = summary.push(frames[:, 2:], state)
    assert summary.read(state).tolist() == [[*frames[0, 2].tolist(), *frames[0, 4].tolist()]]


def test_finishing_a_concat_flushes_its_layers_and_reading_does_not():
    pooled = {"type": "last", "layers": [{"type": "pool", "size": 2, "tail": "ceil"}]}
    summary = make((1,), type="concat", summaries=[{"type": "concat", "summaries": [pooled]}])
    state = summary.push(torch.tensor([[[1.0], [2.0], [7.0]]]), summary.start(1))
    assert summary.read(state).tolist() == [[2.0]]
    assert summary.read(summary.finish(state)).tolist() == [[7.0]]
    assert summary.read(state).tolist() == [[2.0]]


def test_last_of_a_bidirectional_layer_is_both_final_states():
    layer = build_layers([{"type": "recurrent", "hidden_size": 3, "bidirectional": True}], (4,))
    plain = nn.LSTM(4, 3, batch_first=True, bidirectional=True)
    for ours, suffix in ((layer.layers[0].forwards[0], ""), (layer.layers[0].backwards[0], "_reverse")):
        for name, weight in ours.named_parameters():
            getattr(plain, name + suffix).data.copy_(weight.data)
    x = pad(ROWS)
    _, (final, _) = plain(pack_padded_sequence(x.data, x.lengths, batch_first=True, enforce_sorted=False))
    summary = build_summary({"type": "last", "bidirectional": True}, layer.out_features)
    assert_close(summary(layer(x)), torch.cat([final[0], final[1]], 1))


def test_concat_is_its_parts_side_by_side():
    parts = [{"type": "mean", "layers": [CONV, {"type": "pool"}]}, {"type": "max"}]
    summary, x = make(type="concat", summaries=parts), pad([ROWS[0], ROWS[2]])
    assert summary.out_features == 8
    branch = summary.branches[0](x)
    mean = branch.data.sum(1) / branch.lengths[:, None]
    assert_close(summary(x), torch.cat([mean, make(type="max")(x)], 1))


def test_cost_counts_branches_at_their_rate():
    parts = [{"type": "attention", "hidden_size": 2, "layers": [{**CONV, "stride": 2}]}, {"type": "mean"}]
    assert make(type="concat", summaries=parts).macs_per_frame() == 4 * 4 * 3 / 2 + (4 * 2 + 2 + 4) / 2


def test_every_option_is_written_out():
    done = complete_summary({"type": "concat", "summaries": [{"type": "last", "layers": [CONV]}]})
    assert done == complete_summary(done)
    assert done["summaries"][0]["bidirectional"] is False
    assert done["summaries"][0]["layers"][0]["kernel_size"] == 3


def test_a_sequence_without_frames_is_named():
    with pytest.raises(ShapeError, match="Mean: sequence 1 has no frames, needs at least 1"):
        make(type="mean")(pad([torch.ones(2, 4), torch.ones(0, 4)]))


def test_wrong_frames_are_named():
    with pytest.raises(ShapeError, match=r"Max: frames have shape \(2,\), expected \(4,\)"):
        make(type="max")(pad([torch.ones(2, 2)]))


@pytest.mark.parametrize(
    ("features", "spec", "message"),
    [
        ((4,), {"type": "meen"}, "summary.type: unknown summary 'meen'; did you mean 'mean'"),
        (
            (4,),
            {"type": "attention", "hiden_size": 2},
            "summary.hiden_size: unknown option; did you mean 'hidden_size'",
        ),
        ((4,), {"type": "attention", "hidden_size": 0}, "attention.hidden_size=0; expected at least 1"),
        ((3,), {"type": "last", "bidirectional": True}, "summary: last.bidirectional: frames have 3 values"),
        ((), {"type": "mean"}, "frames are symbol ids"),
        ((4,), {"type": "concat", "summaries": []}, "concat.summaries: found none"),
        (
            (4,),
            {"type": "concat", "summaries": [{"type": "max"}, {"type": "mean", "layers": [{**CONV, "strid": 2}]}]},
            r"summary.concat.summaries\[1\].layers\[0\].strid: unknown option; did you mean 'stride'",
        ),
        (
            (4,),
            {"type": "concat", "summaries": [{"type": "mean", "layers": [{"type": "channel_norm"}]}]},
            "learns from the training data; put it before the summary",
        ),
    ],
)
def test_impossible_specs_are_refused_with_their_place(features, spec, message):
    with pytest.raises(ConfigError, match=message):
        build_summary(spec, features)


def test_a_name_registers_once():
    with pytest.raises(ConfigError, match="summary 'mean' is registered twice"):
        register_summary("mean")(type(make(type="max")))


ABOVE = {"type": "above", "thresholds": 2}


def test_above_gives_the_share_of_real_frames_above_each_threshold_and_the_maximum():
    summary = build_summary(ABOVE, (1,))
    summary.thresholds.copy_(torch.tensor([[0.5], [-2.0]]))
    x = pad([torch.tensor([[1.0], [0.5], [-3.0], [2.0]]), torch.tensor([[-1.0]])])
    assert_close(summary(x), torch.tensor([[2 / 4, 3 / 4, 2.0], [0.0, 1.0, -1.0]]))


def test_above_learns_thresholds_and_its_own_mean_and_spread():
    summary = build_summary({**ABOVE, "scale": 0.5}, (3,))
    batches = [pad(list(torch.randn(8, 30, 3) + torch.arange(8.0)[:, None, None])) for _ in range(3)]
    summary.fit_statistics(batches)
    middle = torch.cat([x.data for x in batches]).flatten(0, 1).median(0).values
    assert (summary.thresholds[0] <= middle).all()  # one of the lower half of the values, one of the upper
    assert (summary.thresholds[1] >= middle).all()
    found = torch.cat([summary(x) for x in batches])
    assert_close(found.mean(0), torch.zeros(9), atol=1e-5, rtol=0)
    assert_close(found.std(0, correction=0), torch.full((9,), 0.5), atol=0.01, rtol=0)


def test_above_keeps_few_frames_of_much_data(monkeypatch):
    monkeypatch.setattr("crnn.nn.summary.MOST_FRAMES", 10)
    frames = _spaced_frames(pad([torch.arange(8 * i, 8 * i + 8.0)[:, None]]) for i in range(10))
    assert frames.squeeze(1).tolist() == [4.0 * i for i in range(20)]


def test_above_without_the_maximum_gives_shares_alone():
    x = Sequences(torch.tensor([[[1.0], [2.0], [-1.0]]]), torch.tensor([3]))
    summary = build_summary({**ABOVE, "maximum": False}, (1,))
    assert_close(summary(x), torch.full((1, 2), 2 / 3))


def test_above_with_soft_thresholds_counts_frames_in_part():
    x = Sequences(torch.tensor([[[0.5], [-1.0], [9.0]]]), torch.tensor([2]))  # the 9 is padding
    summary = build_summary({"type": "above", "thresholds": 1, "softness": 0.5, "maximum": False}, (1,))
    parts = torch.tensor([0.5, -1.0]).div(0.5).sigmoid()  # before it has learned any, thresholds are 0, deviations 1
    assert_close(summary(x), parts.mean()[None, None])


def test_soft_thresholds_are_as_soft_as_the_channel_is_wide():
    x = Sequences(torch.tensor([[[0.0, 0.0], [2.0, 20.0]]]), torch.tensor([2]))  # deviations of 1 and 10
    summary = build_summary({"type": "above", "thresholds": 1, "softness": 0.5}, (2,))
    summary.fit_statistics([x])
    assert_close(summary.steepness, torch.tensor([2.0, 0.2]), rtol=2e-3, atol=0)


def test_a_threshold_is_not_softer_than_nothing():
    with pytest.raises(ConfigError, match=r"above.softness=-1.0; expected 0 \(sharp\) or more"):
        build_summary({"type": "above", "softness": -1}, (3,))


def test_above_needs_a_threshold():
    with pytest.raises(ConfigError, match="expected at least 1"):
        build_summary({"type": "above", "thresholds": 0}, (3,))
