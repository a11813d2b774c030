"""Front-ends: numbers by hand and by numpy, and the promises under missing values."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from crnn.config import build_config
from crnn.errors import ConfigError, DataError, ShapeError
from crnn.nn.frontend import (
    ChannelNorm,
    ChannelNormConfig,
    Difference,
    DifferenceConfig,
    Embedding,
    EmbeddingConfig,
    Missing,
    MissingConfig,
    OneHot,
    OneHotConfig,
)
from crnn.nn.layers import Chain, Layer
from crnn.sequences import Sequences, pad

NAN = float("nan")


def whole(rows):
    data = torch.as_tensor(rows)[None]
    return Sequences(data, torch.tensor([data.shape[1]]))


def fitted_norm(features):
    layer = ChannelNorm(features, ChannelNormConfig())
    layer.fit_statistics([whole(3 + 2 * torch.randn(50, *features))])
    return layer


def chained(features):
    norm = fitted_norm(features)
    missing = Missing(features, MissingConfig(fill="last"))
    return Chain(features, [norm, missing, Difference(missing.out_features, DifferenceConfig())])


MAKERS = {
    "norm": lambda: fitted_norm((2,)),
    "norm_bins": lambda: fitted_norm((2, 3)),
    "missing_zero": lambda: Missing((2,), MissingConfig()),
    "missing_zero_bare": lambda: Missing((2, 3), MissingConfig(mask=False)),
    "missing_last": lambda: Missing((2,), MissingConfig(fill="last")),
    "missing_last_bins": lambda: Missing((2, 3), MissingConfig(fill="last")),
    "difference": lambda: Difference((2,), DifferenceConfig()),
    "difference_bins": lambda: Difference((2, 3), DifferenceConfig(keep=False)),
    "norm_missing_difference": lambda: chained((2,)),
    "embedding": lambda: Embedding((), EmbeddingConfig(vocab_size=5, channels=3)),
    "one_hot": lambda: OneHot((), OneHotConfig(vocab_size=5)),
}


def example(layer: Layer, length: int):
    if not layer.in_features:
        return torch.randint(5, (length,))
    data = torch.randn(length, *layer.in_features)
    return data.masked_fill(torch.rand(data.shape) < 0.3, NAN)


def close(actual, expected):
    assert_close(actual, expected, equal_nan=True)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("junk", [0, 7, NAN])
def test_a_sequence_is_the_same_alone_batched_and_padded(make, junk):
    torch.manual_seed(0)
    layer = make()
    junk = -7 if not layer.in_features and junk != 0 else junk
    rows = [example(layer, length) for length in (9, 1, 4)]
    batch = layer(pad(rows, length=13, value=junk))
    assert batch.lengths.tolist() == [9, 1, 4]
    for i, row in enumerate(rows):
        alone = layer(pad([row]))
        assert alone.data.shape[2:] == layer.out_features
        close(batch.data[i, : len(row)], alone.data[0])
        assert not batch.data[i, len(row) :].any()  # zero past the end, and no NaN


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("chunks", [(9,), (0, 3, 0, 0, 6), (1,) * 9, (8, 1, 0), (2, 5, 2)])
def test_a_stream_equals_the_whole(make, chunks):
    torch.manual_seed(1)
    layer = make()
    data = torch.stack([example(layer, 9), example(layer, 9)])
    state, out = layer.start(2), []
    for chunk in data.split(chunks, 1):
        ready, state = layer.push(chunk, state)
        assert all(tensor.is_contiguous() for tensor in state)
        out.append(ready)
    assert layer.finish(state).shape[1] == 0  # none of these looks ahead
    close(torch.cat(out, 1), layer(Sequences(data, torch.tensor([9, 9]))).data)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_stream_without_a_frame_ends_without_a_frame(make):
    layer = make()
    none = example(layer, 0)[None]
    ready, state = layer.push(none, layer.start(1))
    assert ready.shape == (1, 0, *layer.out_features)
    assert layer.finish(state).shape == (1, 0, *layer.out_features)


def test_channel_norm_learns_mean_and_std_of_the_valid_frames():
    rng = np.random.default_rng(0)
    rows = [rng.normal([5, -200, 0], [1, 30, 1e-3], (n, 3)).astype("float32") for n in (7, 1, 40, 12)]
    rows[2][3:9, 1] = np.nan
    batches = [pad([torch.from_numpy(r) for r in rows[:2]], value=NAN), pad([torch.from_numpy(r) for r in rows[2:]])]
    layer = ChannelNorm((3,), ChannelNormConfig())
    layer.fit_statistics(iter(batches))
    stacked = np.concatenate(rows).astype("float64")
    assert_close(layer.mean.double().numpy(), np.nanmean(stacked, 0), rtol=1e-6, atol=1e-9)
    assert_close(layer.std.double().numpy(), np.nanstd(stacked, 0), rtol=1e-6, atol=1e-9)
    expected = (rows[2] - np.nanmean(stacked, 0)) / np.nanstd(stacked, 0)
    np.testing.assert_allclose(layer(whole(rows[2])).data[0].numpy(), expected, rtol=1e-4, atol=1e-4)


def test_channel_norm_is_stable_far_from_zero_and_over_many_small_batches():
    values = 1e7 + torch.arange(1000.0) % 10  # float32 holds these exactly; mean 1e7 + 4.5, variance (100 - 1)/12
    layer = ChannelNorm((1,), ChannelNormConfig())
    layer.fit_statistics(Sequences(part[None, :, None], torch.tensor([len(part)])) for part in values.split(7))
    assert float(layer.std) == pytest.approx((99 / 12) ** 0.5, rel=1e-6)


def test_channel_norm_has_its_own_statistics_per_bin():
    data = torch.tensor([[[0.0, 10.0]], [[2.0, 30.0]]])  # (time, channels, bins)
    layer = ChannelNorm((1, 2), ChannelNormConfig())
    layer.fit_statistics([whole(data)])
    assert layer.mean.tolist() == [[1, 20]]
    assert layer.std.tolist() == [[1, 10]]


def test_channel_norm_gives_a_constant_and_an_unseen_channel_std_one():
    data = torch.stack([torch.full((9,), 0.1), torch.full((9,), NAN), torch.arange(9.0)], 1)
    data[4, 2] = float("inf")
    layer = ChannelNorm((3,), ChannelNormConfig())
    layer.fit_statistics([whole(data)])
    assert layer.std.tolist() == pytest.approx([1, 1, np.std([0, 1, 2, 3, 5, 6, 7, 8])])
    assert layer.mean.tolist() == pytest.approx([0.1, 0, 4])


def test_channel_norm_statistics_are_saved_and_before_fitting_it_changes_nothing():
    layer, other = fitted_norm((2,)), ChannelNorm((2,), ChannelNormConfig())
    x = whole(torch.randn(3, 2))
    assert torch.equal(other(x).data, x.data)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x).data, layer(x).data)


def test_channel_norm_without_data_says_so():
    with pytest.raises(DataError, match=r"channel_norm: found no frame .* expected the training data"):
        ChannelNorm((2,), ChannelNormConfig()).fit_statistics([])


def test_missing_zero_by_hand():
    out = Missing((2,), MissingConfig())(whole([[1.0, NAN], [NAN, 4.0], [float("inf"), NAN]]))
    assert out.data[0].tolist() == [[1, 0, 0, 1], [0, 4, 1, 0], [float("inf"), 0, 0, 1]]


def test_missing_last_by_hand():
    out = Missing((2,), MissingConfig(fill="last", mask=False))(whole([[NAN, 1.0], [2.0, NAN], [NAN, NAN], [5.0, 0.0]]))
    assert out.data[0].tolist() == [[0, 1], [2, 1], [2, 1], [5, 0]]


def test_missing_channels_come_before_bins():
    layer = Missing((2, 3), MissingConfig())
    data = torch.ones(4, 2, 3)
    data[1, 0, 2] = NAN
    out = layer(whole(data)).data[0]
    assert layer.out_features == (4, 3)
    assert out[1].tolist() == [[1, 1, 0], [1, 1, 1], [0, 0, 1], [0, 0, 0]]


def test_difference_by_hand():
    x = whole([[1.0, 5.0], [4.0, 5.0], [2.0, 9.0]])
    assert Difference((2,), DifferenceConfig())(x).data[0].tolist() == [[1, 5, 0, 0], [4, 5, 3, 0], [2, 9, -2, 4]]
    assert Difference((2,), DifferenceConfig(keep=False))(x).data[0].tolist() == [[0, 0], [3, 0], [-2, 4]]


def test_embedding_and_one_hot_by_hand():
    ids = whole([2, 0])
    layer = Embedding((), EmbeddingConfig(vocab_size=3, channels=4))
    assert torch.equal(layer(ids).data[0], layer.embedding.weight[[2, 0]])
    assert OneHot((), OneHotConfig(vocab_size=3))(ids).data[0].tolist() == [[0, 0, 1], [1, 0, 0]]
    assert OneHot((), OneHotConfig(vocab_size=3)).double()(ids).data.dtype == torch.float64


@pytest.mark.parametrize("layer", [MAKERS["embedding"](), MAKERS["one_hot"]()], ids=["embedding", "one_hot"])
@pytest.mark.parametrize("wrong", [5, -1])
def test_an_id_outside_the_vocabulary_is_named(layer, wrong):
    with pytest.raises(ShapeError, match=rf"sequence 1 frame 2 has symbol id {wrong}, expected 0 to 4; raise vocab_si"):
        layer(Sequences(torch.tensor([[0, 1, 2], [0, 0, wrong]]), torch.tensor([3, 3])))
    with pytest.raises(ShapeError, match=r"symbol ids of type torch.float32, expected int64"):
        layer(Sequences(torch.zeros(1, 3), torch.tensor([3])))


def test_impossible_configs_and_frames_are_refused():
    with pytest.raises(ConfigError, match=r"embedding.channels=0; expected at least 1"):
        build_config(EmbeddingConfig, {"vocab_size": 3, "channels": 0}, "m")
    with pytest.raises(ConfigError, match=r"one_hot.vocab_size=0; expected at least 1"):
        build_config(OneHotConfig, {"vocab_size": 0}, "m")
    with pytest.raises(ConfigError, match=r"one_hot needs one symbol id per frame, got frames of shape \(2,\)"):
        OneHot((2,), OneHotConfig(vocab_size=3))
    for layer, options in (
        (ChannelNorm, ChannelNormConfig()),
        (Missing, MissingConfig()),
        (Difference, DifferenceConfig()),
    ):
        with pytest.raises(ConfigError, match=r"needs frames of channels, got symbol ids"):
            layer((), options)
