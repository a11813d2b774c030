"""Presets for line images: their size, their frames, and that they train."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import crnn
from crnn.data.dataset import Dataset, array_example
from crnn.errors import ConfigError
from crnn.model import Model
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.presets.ocr import crnn_2015, ocr, ocr_small
from crnn.presets.recipe import DataSummary
from crnn.run import check

SUMMARY = DataSummary("image", 1, None, 400, 600, 600, 100, 1000, "transcribe", 96, height=48, frames_per_label=12.0)


def network(make, **change) -> Network:
    data = replace(SUMMARY, **change)
    return Network(spec_from_plain(make(data)["model"]), features=(1, data.height), outputs=data.num_outputs)


def lines(count: int = 12, height: int = 16) -> Dataset:
    """Strokes at the upper or lower half of a line: 'a' or 'b'."""
    examples = []
    for i in range(count):
        text = "".join("ab"[(i >> k) % 2] for k in range(3 + i % 2))
        pixels = np.zeros((12 * len(text), 1, height), dtype=np.float32)
        for k, letter in enumerate(text):
            pixels[12 * k + 3 : 12 * k + 9, 0, slice(1, 7) if letter == "a" else slice(9, 15)] = 1.0
        examples.append(array_example(f"{i}", f"line {i}", pixels, target=text))
    return Dataset(tuple(examples), "image", ("grey",), None, "lines", height=height)


def test_ocr_small_is_below_a_million_parameters_and_gives_a_label_for_four_columns():
    for height in (24, 32, 40, 48):
        made = network(ocr_small, height=height)
        assert made.num_parameters < 1_000_000
        assert made.timing.stride == 4
    assert network(ocr_small).num_parameters < network(ocr).num_parameters < 4_000_000


def test_narrow_letters_keep_more_frames():
    assert network(ocr_small, frames_per_label=5.0).timing.stride == 2


def test_crnn_2015_has_the_layers_of_its_table():
    made = network(crnn_2015, height=32, num_outputs=37)
    convolutions = [(1, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    count = sum(a * b * 9 + b for a, b in convolutions) + 512 * 512 * 4 + 512  # and the one of 2 x 2
    count += 2 * 2 * 512  # batch norms
    count += sum(2 * 4 * 256 * (inputs + 256 + 2) for inputs in (512, 512)) + 37 * (512 + 1)
    assert made.num_parameters == count
    assert made.timing.stride == 4
    with pytest.raises(
        ConfigError, match="images are 48 pixels high, expected 32 as published; read them with --height"
    ):
        network(crnn_2015)


def test_other_data_is_refused():
    with pytest.raises(ConfigError, match="found audio, expected images of text lines"):
        ocr_small(replace(SUMMARY, kind="audio", height=None))


@pytest.mark.parametrize("preset", ["ocr-small", "ocr"])
def test_it_trains_predicts_and_is_the_same_when_loaded(preset, tmp_path):
    settings = {"train.steps": 3, "train.batch_size": 4}
    data = lines()
    run = crnn.train(data, task="transcribe", preset=preset, settings=settings, out=tmp_path / "run")
    together = run.model.predict(data)
    assert all(isinstance(prediction["text"], str) for prediction in together)
    assert Model.load(tmp_path / "run").predict(data) == together
    alone = [run.model.predict(data.subset([i]))[0]["text"] for i in range(len(data))]
    assert alone == [prediction["text"] for prediction in together]
    assert "data:image/png;base64," in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_images_are_transcribed_by_ocr_small_without_being_asked(tmp_path):
    data = lines(20)
    texts = [f"{example.target}{i:03}" for i, example in enumerate(data)]
    named = tuple(replace(example, target=text) for example, text in zip(data, texts, strict=True))
    found = check(replace(data, examples=named))
    assert found.summary["plan"]["preset"] == "ocr-small"
    assert found.summary["plan"]["task"].startswith("transcribe")
