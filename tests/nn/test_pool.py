"""Pooling against a plain loop over the real frames of each window."""

import pytest
import torch
from torch.testing import assert_close

from crnn.errors import ConfigError
from crnn.nn.blocks import build_layers
from crnn.sequences import pad


def make(features, **options):
    return build_layers([{"type": "pool", **options}], features).layers[0]


def pool_by_loop(x, kind, size, stride, tail):
    out = []
    for start in range(0, len(x), stride):
        frames = x[start : start + size]
        if tail == "floor" and len(frames) < size:
            break
        out.append(frames.amax(0) if kind == "max" else frames.sum(0) / len(frames))
    return torch.stack(out)


@pytest.mark.parametrize("kind", ["max", "mean"])
@pytest.mark.parametrize(
    ("size", "stride", "tail"),
    [(2, None, "floor"), (2, None, "ceil"), (3, 2, "ceil"), (3, 1, "floor"), (3, 1, "ceil"), (2, 3, "ceil")],
)
def test_equals_a_plain_loop(kind, size, stride, tail):
    rows = [torch.randn(n, 3) - 5 for n in (11, 4, 7, 3, 8)]  # all negative: a zero of the padding would win a max
    y = make((3,), kind=kind, size=size, stride=stride, tail=tail)(pad(rows, value=float("nan")))
    for got, row in zip(y.unpad(), rows, strict=True):
        assert_close(got, pool_by_loop(row, kind, size, stride or size, tail))


@pytest.mark.parametrize("kind", ["max", "mean"])
@pytest.mark.parametrize("length", [1, 2, 5, 6])
def test_the_end_of_a_stream_equals_a_plain_loop(kind, length):
    layer, x = make((3,), kind=kind, size=3, stride=2, tail="ceil"), torch.randn(length, 3) - 5
    first, state = layer.push(x[None], layer.start(1))
    out = torch.cat([first, layer.finish(state)], 1)[0]
    assert_close(out, pool_by_loop(x, kind, 3, 2, "ceil"))


def test_max_passes_gradient_to_real_frames_only():
    x = pad([torch.tensor([[-1.0], [-2], [-3]]), torch.tensor([[-4.0]])])
    x.data.requires_grad_()
    make((1,), tail="ceil")(x).data.sum().backward()
    assert x.data.grad[..., 0].tolist() == [[1, 0, 1], [1, 0, 0]]


def test_missing_values_inside_a_window_are_seen():
    y = make((1,), tail="ceil")(pad([torch.tensor([[1.0], [float("nan")], [3.0]])]))
    assert y.data[0, 0].isnan()
    assert y.data[0, 1] == 3


@pytest.mark.parametrize("kind", ["max", "mean"])
def test_pool2d_is_pooling_over_bins_then_over_time(kind):
    rows = [torch.randn(n, 2, 5) - 5 for n in (7, 4)]
    y = make((2, 5), type="pool2d", size=(3, 2), kind=kind, tail="ceil")(pad(rows))
    for got, row in zip(y.unpad(), rows, strict=True):
        bins = torch.stack([row[..., 0:2], row[..., 2:4]], -2)  # the fifth bin fills no window
        bins = bins.amax(-1) if kind == "max" else bins.mean(-1)
        assert_close(got, pool_by_loop(bins, kind, 3, 3, "ceil"))


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        ((3,), {"size": 0}, "pool.size=0; expected at least 1"),
        ((3,), {"stride": 0}, "pool.stride=0; expected at least 1"),
        ((3,), {"size": 2, "stride": 3}, "pool.stride=3 skips frames, as size=2; that needs tail: ceil"),
        ((3,), {"type": "pool2d"}, r"pool2d: frames have shape \(3,\), expected \(channels, bins\)"),
        ((3, 1), {"type": "pool2d"}, "wider than the 1 bins of a frame"),
        ((3, 4), {"type": "pool2d", "size": (2, 0)}, "over bins; expected at least 1"),
    ],
)
def test_impossible_options_are_refused(features, options, message):
    with pytest.raises(ConfigError, match=message):
        make(features, **options)
