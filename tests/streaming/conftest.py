"""Two models to stream, a series and an audio one."""

from __future__ import annotations

import pytest
from stream_examples import HEARD, SMALL, make_model

from crnn.model import Model


@pytest.fixture
def small() -> Model:
    """Three channels, convolution and LSTM."""
    return make_model(SMALL)


@pytest.fixture
def heard() -> Model:
    """Audio at 1 kHz, log-mel and LSTM."""
    return make_model(HEARD, channels=1, kind="audio", rate=1000)
