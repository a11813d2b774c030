"""Fixed patterns against hand-written sums, and what they cannot take."""

import pytest
import torch
from torch.testing import assert_close

from crnn.errors import ConfigError
from crnn.nn.blocks import build_layers
from crnn.nn.patterns import channel_sets, kernels
from crnn.sequences import pad


def build(features, **options):
    return build_layers([{"type": "patterns", **options}], features).layers[0]


def test_the_kernels_are_all_that_have_three_taps_of_2_and_six_of_minus_1():
    rows = {tuple(row) for row in kernels().tolist()}
    assert len(rows) == 84  # 9! / (3! 6!)
    assert all(sorted(row) == [-1] * 6 + [2] * 3 for row in rows)


def test_a_level_gives_nothing_away_from_the_ends():
    y = build((1,), dilation=2)(pad([torch.full((40, 1), 7.0)])).data
    assert y.shape == (1, 40, 84)
    assert_close(y[:, 8:-8], torch.zeros(1, 24, 84))


def test_an_impulse_shows_the_taps_in_steps_of_the_dilation():
    x = torch.zeros(41, 1)
    x[20] = 1.0
    y = build((1,), dilation=3)(pad([x])).data[0]  # frame t sees frames t - 12, t - 9, ..., t + 12
    assert_close(y[8:33:3].flip(0).T, kernels())
    assert not y[9:32:3].any()


def test_few_channels_are_looked_at_one_by_one():
    layer, x = build((2,)), torch.randn(20, 2)
    alone = [build((1,))(pad([x[:, i : i + 1]])).data for i in range(2)]
    assert_close(layer(pad([x])).data, torch.cat(alone, 2))


def test_many_channels_are_looked_at_in_random_sets():
    layer, x = build((7,), mixtures=3, seed=1), torch.randn(20, 7)
    used = channel_sets(3 * 84, 7, seed=1)
    assert layer.out_features == (3 * 84,)
    assert set(used.sum(1).int().tolist()) == set(range(1, 8))
    expected = build((1,))(pad([x @ used[100].unsqueeze(1)])).data[..., 100 - 84]
    assert_close(layer(pad([x])).data[..., 100], expected)


def test_nothing_of_it_is_trained():
    assert not list(build((2,)).parameters())


@pytest.mark.parametrize("options", [{"dilation": 0}, {"mixtures": 0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match="expected at least 1"):
        build((2,), **options)


def test_frames_of_two_axes_are_refused():
    with pytest.raises(ConfigError, match="put flatten before it"):
        build((2, 3))
