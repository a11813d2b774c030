"""Augmentation of line images: what moves, what never does, and by how much."""

import dataclasses
import math

import pytest
import torch

from crnn.config import build_config
from crnn.data.augment import Augment, AugmentConfig
from crnn.data.augment_images import ImageAugmentConfig, augment_images
from crnn.errors import ConfigError, ShapeError
from crnn.sequences import Sequences

EACH = {
    "slant": 20.0,
    "rotation": 3.0,
    "size": 0.3,
    "shift": 0.2,
    "elastic": 0.05,
    "ink": 1.0,
    "blur": 1.0,
    "contrast": 0.5,
    "shade": 0.3,
    "noise": 0.2,
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def lines(junk=0.0, height=16):
    """Vertical strokes in the middle rows, on lines of several widths, one of them a pixel wide."""
    lengths = torch.tensor([40, 1, 23, 31])
    data = torch.zeros(4, 43, 1, height)
    data[:, 4::6, :, 5:11] = 1.0
    x = Sequences(data, lengths)
    return Sequences(data.masked_fill(~x.valid[..., None, None], junk), lengths)


def test_every_option_is_tried_here():
    assert {field.name for field in dataclasses.fields(ImageAugmentConfig)} - {"elastic_grid"} == set(EACH)


@pytest.mark.parametrize("name", [*EACH, "all"])
@pytest.mark.parametrize("junk", [7.0, float("nan"), float("inf")])
def test_padding_is_never_used_and_ends_as_zero(name, junk):
    config = ImageAugmentConfig(**(EACH if name == "all" else {name: EACH[name]}))
    clean, dirty = augment_images(lines(), config, seeded()), augment_images(lines(junk), config, seeded())
    assert torch.equal(clean.data, dirty.data)
    assert torch.equal(clean.data, clean.zeroed().data)
    assert torch.equal(clean.lengths, lines().lengths)
    assert bool(clean.data.isfinite().all())


@pytest.mark.parametrize("name", EACH)
def test_each_changes_lines_and_follows_its_generator(name):
    config = ImageAugmentConfig(**{name: EACH[name]})
    first = augment_images(lines(), config, seeded(3)).data
    assert not torch.equal(first, lines().data)
    assert torch.equal(first, augment_images(lines(), config, seeded(3)).data)
    assert not torch.equal(first, augment_images(lines(), config, seeded(4)).data)


def test_nothing_asked_for_is_nothing_changed():
    x = lines()
    assert Augment(AugmentConfig()).changes_nothing
    torch.testing.assert_close(augment_images(x, ImageAugmentConfig(), seeded()).data, x.data)


def test_augment_takes_it_as_an_option():
    config = build_config(AugmentConfig, {"image": {"blur": 1.0}}, "train.augment")
    blurred = Augment(config)(lines(), seeded()).data
    torch.testing.assert_close(blurred, augment_images(lines(), config.image, seeded()).data)


def test_slant_moves_rows_in_proportion_to_their_distance_from_the_middle():
    height, middle = 17, 50
    data = torch.zeros(1, 101, 1, height)
    data[:, middle] = 1.0
    x = Sequences(data, torch.tensor([101]))
    leant = augment_images(x, ImageAugmentConfig(slant=30.0), seeded()).data[0, :, 0]
    place = (leant * torch.arange(101)[:, None]).sum(0) / leant.sum(0)  # centre of each row
    steps = place.diff()
    torch.testing.assert_close(steps, steps[:1].expand_as(steps), atol=1e-3, rtol=0)
    assert place[height // 2] == pytest.approx(middle, abs=1e-3)
    assert 0 < abs(float(steps[0])) <= math.tan(math.radians(30))


def test_the_ends_of_a_long_line_stay_inside():
    data = torch.zeros(1, 1001, 1, 20)
    data[:, :, :, 9:11] = 1.0
    x = Sequences(data, torch.tensor([1001]))
    for seed in range(5):
        turned = augment_images(x, ImageAugmentConfig(rotation=10.0), seeded(seed)).data[0, :, 0]
        place = (turned * torch.arange(20)).sum(1) / turned.sum(1)
        assert abs(float(place[0]) - 9.5) < 2.1  # a tenth of the height
        assert place[500] == pytest.approx(9.5, abs=1e-3)


def test_blur_keeps_the_ink_and_spreads_it():
    data = torch.zeros(1, 21, 1, 21)
    data[0, 10, 0, 10] = 1.0
    blurred = augment_images(Sequences(data, torch.tensor([21])), ImageAugmentConfig(blur=1.0), seeded()).data
    assert blurred.sum() == pytest.approx(1.0, abs=1e-5)
    assert 0 < float(blurred[0, 10, 0, 10]) < 1
    torch.testing.assert_close(blurred[0, :, 0], blurred[0, :, 0].T)


def test_ink_grows_or_shrinks_by_a_pixel_at_most():
    for seed in range(6):
        x = lines()
        changed = augment_images(x, ImageAugmentConfig(ink=1.0), seeded(seed)).data
        thick = torch.nn.functional.max_pool2d(x.data.transpose(1, 2), 3, 1, 1).transpose(1, 2)
        assert bool((changed <= Sequences(thick, x.lengths).zeroed().data + 1e-6).all())
        assert bool((changed >= 0).all())


@pytest.mark.parametrize("features", [(3,), (2, 16), ()])
def test_other_sequences_are_refused(features):
    x = Sequences(torch.zeros(2, 9, *features), torch.tensor([9, 9]))
    with pytest.raises(ShapeError, match=r"expected \(1, height\), a column of a line image"):
        augment_images(x, ImageAugmentConfig(blur=1.0), seeded())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blur": -1.0}, "augment.image.blur=-1.0; expected 0"),
        ({"slant": 75.0}, "expected below 60"),
        ({"ink": 2.0}, "expected a share between 0 and 1"),
        ({"elastic_grid": 0.0}, "expected more than 0"),
        ({"blurr": 1.0}, "did you mean 'blur'"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build_config(ImageAugmentConfig, options, "train.augment.image")
