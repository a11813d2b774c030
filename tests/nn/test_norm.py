"""Batch norm against nn.BatchNorm1d on the valid frames laid end to end; layer and RMS norm by their formulas."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from crnn.errors import ConfigError, ShapeError
from crnn.nn.blocks import build_layers
from crnn.sequences import Sequences, pad


def make(features, **options):
    return build_layers([{"type": "norm", **options}], features).layers[0]


def rows_of(*features):
    return [3 + 2 * torch.randn(n, *features) for n in (9, 2, 5, 1)]


@pytest.mark.parametrize("momentum", [0.1, 0.7])
def test_batch_norm_equals_pytorchs_on_the_valid_frames(momentum):
    rows = rows_of(4)
    ours, plain = make((4,), momentum=momentum), nn.BatchNorm1d(4, momentum=momentum)
    joined = torch.cat(rows).requires_grad_()
    x = pad(rows, length=20)
    x.data.requires_grad_()
    for _ in range(2):
        y, expected = ours(x), plain(joined)
    assert_close(torch.cat(y.unpad()), expected)
    weights = torch.randn_like(expected)
    (torch.cat(y.unpad()) * weights).sum().backward()
    (expected * weights).sum().backward()
    assert_close(torch.cat(Sequences(x.data.grad, x.lengths).unpad()), joined.grad)
    assert_close(ours.weight.grad, plain.weight.grad)
    assert_close(ours.bias.grad, plain.bias.grad)
    assert_close(dict(ours.named_buffers()), dict(plain.named_buffers()))
    assert_close(torch.cat(ours.eval()(x).unpad()), plain.eval()(joined))


def test_without_padding_batch_norm_is_pytorchs_to_the_last_bit():
    ours, plain, data = make((4,)), nn.BatchNorm1d(4), torch.randn(3, 8, 4)
    plain.load_state_dict(ours.state_dict())
    y = ours(Sequences(data, torch.tensor([8, 8, 8]))).data
    assert torch.equal(y, plain(data.transpose(1, 2)).transpose(1, 2))
    assert ours.state_dict().keys() == plain.state_dict().keys()
    for name, buffer in plain.named_buffers():
        assert torch.equal(getattr(ours, name), buffer)


def test_frames_with_bins_share_one_statistic_per_channel():
    rows = rows_of(2, 3)
    y = make((2, 3))(pad(rows))
    plain = nn.BatchNorm2d(2)(torch.cat(rows)[None].transpose(1, 2))  # (1, channels, all valid frames, bins)
    assert_close(torch.cat(y.unpad()), plain[0].transpose(0, 1))


def test_layer_norm_by_its_formula():
    x = torch.randn(5, 2, 3)
    expected = (x - x.mean((1, 2), keepdim=True)) / (x.var((1, 2), keepdim=True, correction=0) + 1e-5).sqrt()
    assert_close(make((2, 3), kind="layer")(pad([x])).data[0], expected)


def test_rms_norm_by_its_formula():
    x = torch.randn(5, 4)
    layer = make((4,), kind="rms")
    assert layer.bias is None
    assert_close(layer(pad([x])).data[0], x / (x.square().mean(1, keepdim=True) + 1e-5).sqrt())


def test_a_single_valid_frame_cannot_train_batch_norm():
    layer, x = make((3,)), pad([torch.ones(1, 3)], length=4)
    with pytest.raises(ShapeError, match=r"norm: the training batch has 1 valid frame\(s\).*at least 2; use larger"):
        layer(x)
    assert layer.num_batches_tracked == 0
    assert layer.eval()(x).data.isfinite().all()


def test_impossible_options_are_refused():
    with pytest.raises(ConfigError, match=r"norm\.momentum=0"):
        make((3,), momentum=0)
    with pytest.raises(ConfigError, match=r"norm\.eps=0"):
        make((3,), eps=0)
    with pytest.raises(ConfigError, match="norm: frames are symbol ids"):
        make(())
