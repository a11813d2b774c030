"""Pictures of line images, as another program reads them."""

import base64
import io

import numpy as np
import pytest

from crnn.report.picture import line_picture, png

PIL = pytest.importorskip("PIL.Image")


@pytest.mark.parametrize("columns", [1, 6, 7])
def test_pillow_reads_what_is_written(columns):
    brightness = np.random.default_rng(0).integers(0, 16, (5, columns)).astype(np.float32) / 15
    image = PIL.open(io.BytesIO(png(brightness)))
    np.testing.assert_allclose(np.asarray(image.convert("L")) / 255, brightness, atol=1e-6)


def test_a_line_stands_upright_with_dark_ink():
    frames = np.zeros((4000, 1, 8), dtype=np.float32)  # (width, 1, height)
    frames[:200, 0, 0] = 1.0  # ink in the top row, at the left
    uri = line_picture(frames)
    image = PIL.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
    assert image.size == (1334, 8)
    pixels = np.asarray(image.convert("L"))
    assert pixels[0, 10] == 0
    assert pixels[7, 10] == 255
    assert pixels[0, 1000] == 255
