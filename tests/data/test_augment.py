"""Augmentation: what may change, what never does, and by how much."""

import math

import pytest
import torch

from crnn.config import build_config
from crnn.data.augment import STEPS, Augment, AugmentConfig, resample
from crnn.errors import ConfigError, ShapeError
from crnn.sequences import Sequences, pad

EACH = {
    "window": {"window": 0.5},
    "window_resize": {"window": 0.5, "window_resize": True},
    "stretch": {"stretch": 0.3},
    "time_warp": {"time_warp": 0.5},
    "wrap": {"time_shift": 0.5},
    "hold": {"time_shift": 0.5, "shift_mode": "hold"},
    "rotate": {"rotate": 90.0},
    "blend": {"blend": 60.0},
    "filter": {"filter": 0.1},
    "gain": {"gain": 0.3},
    "scale": {"scale": 0.3},
    "noise": {"noise": 0.5},
    "snr": {"snr": (5.0, 20.0)},
    "time_masks": {"time_masks": 2, "time_mask": 0.4},
    "band_masks": {"band_masks": 2, "band_mask": 0.5},
    "channel_drop": {"channel_drop": 0.5},
}
EACH["all"] = {name: value for options in EACH.values() for name, value in options.items()}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ragged(junk=0.0, features=(6,)):
    lengths = torch.tensor([20, 1, 13, 7, 2])
    data = torch.randn(5, 23, *features, generator=seeded(9)) + 3
    x = Sequences(data, lengths)
    return Sequences(data.masked_fill(~x.valid.reshape(5, 23, *(1,) * len(features)), junk), lengths)


def test_every_step_is_tried_here():
    tried = {name for name in STEPS if any(name in options for options in EACH.values())}
    assert tried == set(STEPS) - {"image"}  # for columns of pixels only: test_augment_images


def test_off_by_default():
    x = ragged(junk=float("nan"))
    augment = Augment(AugmentConfig())
    assert augment.changes_nothing
    assert augment(x, seeded()) is x


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("junk", [7.0, float("nan"), float("inf")])
def test_padding_is_never_used_and_ends_as_zero(name, junk):
    augment = Augment(AugmentConfig(**EACH[name]))
    clean, dirty = augment(ragged(), seeded()), augment(ragged(junk), seeded())
    assert torch.equal(clean.data, dirty.data)
    assert torch.equal(clean.lengths, dirty.lengths)
    assert torch.equal(clean.data, clean.zeroed().data)
    assert bool(clean.data.isfinite().all())
    assert bool((clean.lengths >= 1).all())
    assert int(clean.lengths.max()) <= clean.data.shape[1]


@pytest.mark.parametrize("name", EACH)
def test_something_changes_and_the_generator_decides(name):
    augment = Augment(AugmentConfig(**EACH[name]))
    x = ragged()
    first, again, other = augment(x, seeded(1)), augment(x, seeded(1)), augment(x, seeded(2))
    assert torch.equal(first.data, again.data)
    assert first.data.shape != other.data.shape or not torch.equal(first.data, other.data)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    augment(x, seeded(1))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "name", ["rotate", "blend", "filter", "gain", "scale", "noise", "time_masks", "band_masks", "channel_drop"]
)
def test_what_is_missing_stays_missing(name):
    x = ragged()
    missing = torch.rand(x.data.shape, generator=seeded(3)) < 0.2
    holes = Sequences(x.data.masked_fill(missing, float("nan")), x.lengths)
    y = Augment(AugmentConfig(**EACH[name]))(holes, seeded())
    assert torch.equal(y.data.isnan(), holes.zeroed().data.isnan())


@pytest.mark.parametrize("name", ["window", "window_resize", "stretch", "time_warp", "wrap", "hold"])
def test_changes_of_time_move_what_is_missing_along(name):
    x = ragged(features=(1,))
    x.data[0, 10:16] = float("nan")
    holes = x
    flags = Sequences(x.data.isnan().float(), x.lengths)
    augment = Augment(AugmentConfig(**EACH[name]))
    moved, marks = augment(holes, seeded()), augment(flags, seeded())
    assert torch.equal(moved.data.isnan(), marks.data > 0.5)
    assert bool(moved.data[0].isnan().any())
    assert not bool(moved.data[1:].isnan().any())


@pytest.mark.parametrize("features", [(40,), (2, 40)])
def test_spectrograms_with_any_features(features):
    options = {k: v for k, v in EACH["all"].items() if k not in ("rotate", "blend")}
    x = ragged(features=features)
    y = Augment(AugmentConfig(**options))(x, seeded())
    assert y.data.shape[2:] == features
    assert bool(y.data.isfinite().all())


def many(time=50, channels=3, batch=400):
    return Sequences(torch.randn(batch, time, channels, generator=seeded(5)), torch.full((batch,), time))


def test_noise_has_the_asked_spread():
    x = many()
    x = Sequences(x.data * torch.tensor([1.0, 10.0, 0.0]) + 5, x.lengths)
    added = (Augment(AugmentConfig(noise=0.3))(x, seeded()).data - x.data).std((0, 1))
    torch.testing.assert_close(added, torch.tensor([0.3, 3.0, 0.0]), rtol=0.02, atol=1e-6)


def test_scale_is_one_gain_a_channel():
    x = many()
    gain = Augment(AugmentConfig(scale=0.2))(x, seeded()).data / x.data
    torch.testing.assert_close(gain, gain[:, :1].expand_as(gain))
    assert float(gain[:, 0].log().std()) == pytest.approx(0.2, rel=0.1)


def test_window_is_a_piece_of_the_sequence():
    time = torch.arange(100.0)[None, :, None].expand(300, 100, 1)
    y = Augment(AugmentConfig(window=0.6))(Sequences(time, torch.full((300,), 100)), seeded())
    assert int(y.lengths.min()) in range(60, 64)
    assert int(y.lengths.max()) in range(97, 101)
    for row in y.unpad():
        assert bool((row.diff(dim=0) == 1).all())
        assert 0 <= float(row[0]) <= float(row[-1]) <= 99
    starts = y.data[:, 0, 0]
    assert float(starts.min()) == 0
    assert float(starts.max()) > 30


def test_window_can_be_stretched_back():
    time = torch.arange(100.0)[None, :, None].expand(300, 100, 1)
    y = Augment(AugmentConfig(window=0.6, window_resize=True))(Sequences(time, torch.full((300,), 100)), seeded())
    steps = y.data.diff(dim=1)
    assert set(y.lengths.tolist()) == {100}
    assert 0.58 < float(steps.min()) < 0.65
    assert float(steps.max()) <= 1 + 1e-4
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), rtol=1e-3, atol=1e-3)


def test_stretch_changes_lengths_within_limits_and_keeps_the_ends():
    time = torch.arange(100.0)[None, :, None].expand(300, 100, 1)
    y = Augment(AugmentConfig(stretch=0.25))(Sequences(time, torch.full((300,), 100)), seeded())
    assert 80 <= int(y.lengths.min()) <= 82
    assert 123 <= int(y.lengths.max()) <= 125
    for row in y.unpad():
        assert float(row[0]) == 0
        assert float(row[-1]) == pytest.approx(99)


def test_stretch_is_the_same_with_and_without_a_missing_value_elsewhere():
    x = ragged()
    gap = Sequences(x.data.clone(), x.lengths)
    gap.data[1, 0] = math.nan
    augment = Augment(AugmentConfig(stretch=0.5))
    whole, holed = augment(x, seeded()), augment(gap, seeded())
    assert torch.equal(whole.lengths, holed.lengths)
    others = torch.arange(len(x.lengths)) != 1
    torch.testing.assert_close(whole.data[others], holed.data[others])


@pytest.mark.parametrize("options", [{"window": 0.1}, {"stretch": 9.0}])
def test_min_length_is_kept(options):
    x = ragged()
    for seed in range(20):
        y = Augment(AugmentConfig(**options, min_length=5))(x, seeded(seed))
        assert bool((y.lengths >= x.lengths.clamp(max=5)).all())


def test_time_warp_runs_forward_between_the_same_ends():
    time = torch.arange(60.0)[None, :, None].expand(200, 60, 1)
    y = Augment(AugmentConfig(time_warp=0.5))(Sequences(time, torch.full((200,), 60)), seeded()).data[..., 0]
    assert bool((y.diff(dim=1) >= 0).all())
    torch.testing.assert_close(y[:, 0], torch.zeros(200))
    torch.testing.assert_close(y[:, -1], torch.full((200,), 59.0))
    assert float((y - time[..., 0]).abs().max()) > 5
    assert float(y.diff(dim=1).diff(dim=1).abs().max()) < 1  # smooth


def test_shift_wraps_or_holds():
    x = Sequences(torch.tensor([[[1.0], [2], [3], [4], [0]]]).expand(50, 5, 1), torch.full((50,), 4))
    wrapped = {tuple(r[:, 0].tolist()) for r in Augment(AugmentConfig(time_shift=0.25))(x, seeded()).unpad()}
    held = {
        tuple(r[:, 0].tolist()) for r in Augment(AugmentConfig(time_shift=0.25, shift_mode="hold"))(x, seeded()).unpad()
    }
    assert wrapped == {(1, 2, 3, 4), (4, 1, 2, 3), (2, 3, 4, 1)}
    assert held == {(1, 2, 3, 4), (1, 1, 2, 3), (2, 3, 4, 4)}


def test_rotation_keeps_norms_and_angles_and_stays_below_its_limit():
    x = many(channels=6)
    y = Augment(AugmentConfig(rotate=30.0))(x, seeded()).data
    a, b = x.data.view(400, 50, 2, 3), y.view(400, 50, 2, 3)
    torch.testing.assert_close(a.norm(dim=-1), b.norm(dim=-1))
    torch.testing.assert_close(
        (a[:, :, 0] * a[:, :, 1]).sum(-1), (b[:, :, 0] * b[:, :, 1]).sum(-1), rtol=1e-4, atol=1e-4
    )
    turned = torch.rad2deg(torch.nn.functional.cosine_similarity(a, b, dim=-1).clamp(-1, 1).acos())
    assert 28 < float(turned.max()) < 30.1


def test_time_masks_write_the_mean():
    x = many(channels=1)
    y = Augment(AugmentConfig(time_masks=1, time_mask=0.4))(x, seeded()).data
    changed = y != x.data
    means = x.data.mean(1, keepdim=True).expand_as(y)
    torch.testing.assert_close(y[changed], means[changed])
    widths = changed.sum(1)
    assert int(widths.max()) == 20
    assert float(widths.float().mean()) == pytest.approx(10, abs=1)  # uniform in 0 ... 20
    assert bool((changed.float().diff(dim=1).abs().sum(1) <= 2).all())  # one stretch


def test_band_masks_cover_neighbouring_bins():
    x = many(channels=20)
    changed = (Augment(AugmentConfig(band_masks=1, band_mask=0.5))(x, seeded()).data != x.data).all(1)
    assert int(changed.sum(1).max()) == 10
    assert bool((changed.float().diff(dim=1).abs().sum(1) <= 2).all())
    assert bool(changed.any(0).all())


def test_one_channel_is_never_dropped():
    x = many(channels=3)
    changed = (Augment(AugmentConfig(channel_drop=0.5))(x, seeded()).data != x.data).any(1)
    assert int(changed.sum(1).max()) == 2
    assert float(changed.float().mean()) == pytest.approx(0.5 - 1 / 24, abs=0.03)  # (3/2 - 1/8) / 3
    all_dropped = (Augment(AugmentConfig(channel_drop=1.0))(x, seeded()).data != x.data).any(1)
    assert set(all_dropped.sum(1).tolist()) == {2}


def test_resample_equals_interpolation_by_hand():
    x = Sequences(torch.tensor([[[0.0], [10], [float("nan")], [30]]]), torch.tensor([4]))
    y = resample(x, torch.tensor([[0.5, 1.0, 1.4, 1.6, 2.6, 9.0]]), torch.tensor([6])).data[0, :, 0]
    torch.testing.assert_close(y, torch.tensor([5, 10, 10, math.nan, 30, 30]), equal_nan=True)


def test_mixup_blends_the_common_part():
    x = ragged(junk=float("nan"))
    mixed, partner, weight = Augment(AugmentConfig(mixup=1.0)).mix(x, seeded(4))
    assert sorted(partner.tolist()) == list(range(5))
    assert bool(((weight >= 0.5) & (weight <= 1)).all())
    assert torch.equal(mixed.lengths, x.lengths)
    for i, (j, w) in enumerate(zip(partner.tolist(), weight.tolist(), strict=True)):
        own, other = x.data[i, : x.lengths[i]], x.data[j, : x.lengths[j]]
        expected = own.clone()
        common = min(len(own), len(other))
        expected[:common] = w * own[:common] + (1 - w) * other[:common]
        torch.testing.assert_close(mixed.data[i, : x.lengths[i]], expected)
    assert torch.equal(mixed.data, mixed.zeroed().data)


def test_mixup_can_bring_the_partner_to_the_same_peak():
    rows = [torch.tensor([[2.0], [-4]]), torch.tensor([[0.1], [0.05], [math.nan]]), torch.zeros(2, 1)]
    level = [4.0, 0.1, 1.0]  # silence has none: the partner's is brought to 1
    x = pad(rows)
    partners = set()
    for seed in range(10):
        mixed, partner, weight = Augment(AugmentConfig(mixup=1.0, mixup_match=True)).mix(x, seeded(seed))
        for i, (j, w) in enumerate(zip(partner.tolist(), weight.tolist(), strict=True)):
            expected = w * rows[i][:2] + (1 - w) * rows[j][:2] / level[j] * level[i]
            torch.testing.assert_close(mixed.data[i, :2], expected)
            partners.add((i, j))
    assert len(partners) == 9
    with pytest.raises(ConfigError, match=r"mixup_match has no effect at augment\.mixup=0"):
        AugmentConfig(mixup_match=True)


def test_mixup_keeps_missing_values():
    x = Sequences(torch.tensor([[[1.0], [math.nan]], [[3.0], [5.0]]]), torch.tensor([2, 2]))
    for seed in range(10):
        mixed, partner, weight = Augment(AugmentConfig(mixup=1.0)).mix(x, seeded(seed))
        if partner.tolist() == [1, 0]:
            w0, w1 = weight.tolist()
            expected = torch.tensor([[w0 + 3 * (1 - w0), math.nan], [3 * w1 + 1 - w1, 5.0]])
            torch.testing.assert_close(mixed.data[..., 0], expected, equal_nan=True)
            return
    pytest.fail("no seed swapped the pair")


def test_mixup_weights_follow_the_beta_distribution():
    weight = Augment(AugmentConfig(mixup=0.2)).mix(many(time=1, batch=4000), seeded()).weight
    # variance of Beta(a, a) is 1 / (4 (2a + 1)); folding about 0.5 keeps the second moment about 0.5
    assert float((weight - 0.5).square().mean()) == pytest.approx(1 / (4 * 1.4), rel=0.05)


def test_mixup_off_is_the_sequence_itself():
    x = ragged()
    mixed, partner, weight = Augment(AugmentConfig()).mix(x, seeded())
    assert torch.equal(mixed.data, x.data)
    assert partner.tolist() == [0, 1, 2, 3, 4]
    assert set(weight.tolist()) == {1.0}


def test_symbols_are_refused():
    x = Sequences(torch.zeros(2, 5, dtype=torch.int64), torch.tensor([5, 3]))
    with pytest.raises(ShapeError, match="symbols cannot be augmented"):
        Augment(AugmentConfig(time_shift=0.1))(x, seeded())


def test_blending_keeps_the_length_of_every_frame():
    """A rotation; a channel that is missing takes no part."""
    x = ragged(features=(3,))
    y = Augment(AugmentConfig(blend=60.0))(x, seeded())
    torch.testing.assert_close(y.data.norm(dim=2), x.zeroed().data.norm(dim=2))
    with pytest.raises(ShapeError, match=r"augment\.blend: frames have shape \(1,\), expected 2 channels or more"):
        Augment(AugmentConfig(blend=10.0))(ragged(features=(1,)), seeded())


def test_a_filter_is_the_same_in_all_of_a_sequence():
    """An impulse anywhere gives the same taps."""
    data = torch.zeros(1, 64, 1)
    data[0, [16, 48]] = 1
    y = Augment(AugmentConfig(filter=0.2))(Sequences(data, torch.tensor([64])), seeded()).data[0, :, 0]
    torch.testing.assert_close(y[9:24], y[41:56])
    assert 0.5 < float(y[16]) < 1.5
    assert float(y[30].abs()) == 0


def test_rotation_needs_threes():
    with pytest.raises(ShapeError, match=r"augment\.rotate: frames have shape \(4,\), expected channels in threes"):
        Augment(AugmentConfig(rotate=10.0))(ragged(features=(4,)), seeded())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": -0.1}, r"augment\.noise=-0\.1"),
        ({"window": 0.0}, r"augment\.window=0\.0"),
        ({"time_mask": 1.5}, r"augment\.time_mask=1\.5"),
        ({"window_resize": True}, "window_resize has no effect"),
        ({"nois": 1.0}, r"run\.augment\.nois: unknown option; did you mean 'noise'"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build_config(AugmentConfig, options, "run.augment")


@pytest.mark.parametrize("decibels", [0.0, 20.0])
def test_noise_is_added_at_the_given_ratio_of_each_sequence(decibels):
    x = pad([torch.randn(n, 2, generator=torch.Generator().manual_seed(n)) * n for n in (200, 150)])
    changed = Augment(AugmentConfig(snr=(decibels, decibels)))(x, torch.Generator().manual_seed(0))
    for before, after in zip(x.unpad(), changed.unpad(), strict=True):
        ratio = before.square().sum() / (after - before).square().sum()
        assert 10 * float(ratio.log10()) == pytest.approx(decibels, abs=0.01)
    assert not changed.data[1, 150:].any()
    with pytest.raises(ConfigError, match="the lower ratio first"):
        AugmentConfig(snr=(20, 10))
