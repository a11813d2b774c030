"""Every preset by name."""

from __future__ import annotations

from collections.abc import Callable

from crnn.config import nearest
from crnn.errors import ConfigError
from crnn.plugins import plugins
from crnn.presets.bio import bio, bio_strands, danq, deeploc, netsurfp
from crnn.presets.general import default, live, lstm_fcn, seed
from crnn.presets.ocr import crnn_2015, ocr, ocr_small
from crnn.presets.recipe import DataSummary, Recipe
from crnn.presets.tag import beats, ecg_small, sed, tag
from crnn.presets.transcribe import deepspeech2, speech, speech_small
from crnn.presets.zihlmann2017 import zihlmann2017

PRESETS: dict[str, Callable[[DataSummary], Recipe]] = {
    "default": default,
    "live": live,
    "seed": seed,
    "lstm-fcn": lstm_fcn,
    "bio": bio,
    "bio-strands": bio_strands,
    "danq": danq,
    "deeploc": deeploc,
    "netsurfp": netsurfp,
    "tag": tag,
    "sed": sed,
    "ecg-small": ecg_small,
    "beats": beats,
    "zihlmann2017": zihlmann2017,
    "speech": speech,
    "speech-small": speech_small,
    "deepspeech2": deepspeech2,
    "ocr-small": ocr_small,
    "ocr": ocr,
    "crnn-2015": crnn_2015,
}
"""Every preset of ours by name; other packages add theirs by the entry point group crnn.presets."""


def find_preset(name: str, option: str = "--preset") -> Callable[[DataSummary], Recipe]:
    """The preset of this name.

    Args:
        option: that gave it, for the message.
    Raises:
        ConfigError: unknown, with the nearest known name.
    """
    known = {**plugins("presets"), **PRESETS}
    if name not in known:
        raise ConfigError(f"{option} {name}: unknown preset{nearest(name, list(known))}")
    return known[name]  # type: ignore[no-any-return]
