"""Models to stream, without training: random weights and running statistics that are not at their start."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from crnn.model import Inputs, Model
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.native.library import describe
from crnn.sequences import pad
from crnn.streaming.steps import EngineName
from crnn.tasks.classify import Classify, ClassifyConfig
from crnn.tasks.regress import Regress, RegressConfig
from tasks.step_example import Signs, SignsConfig

ENGINES: list[EngineName] = ["torch"] + (["native"] if describe().startswith("native") else [])
"""What can be streamed with here."""
CONV = {"type": "conv", "channels": 4}
SMALL = {
    "layers": [CONV, {"type": "norm"}, {"type": "activation"}, {"type": "recurrent", "hidden_size": 4}],
    "summary": {"type": "mean"},
}
LOG_MEL = {"type": "log_mel", "sample_rate": 1000, "num_mels": 4, "fmin": 30, "hop_seconds": 0.02, "n_fft": 64}
EVERY_FRAME = {"layers": [CONV, {"type": "pool"}, {"type": "recurrent", "hidden_size": 4}], "summary": None}
"""For task "signs", one answer for two frames."""
HEARD = {
    "layers": [LOG_MEL, {"type": "pool", "size": 2}, {"type": "recurrent", "hidden_size": 4}],
    "summary": {"type": "last"},
}


def make_model(
    spec: dict[str, Any],
    *,
    channels: int = 3,
    kind: Any = "series",
    rate: float | None = None,
    task: str = "classify",
    seed: int = 0,
) -> Model:
    """A model of this spec for frames of so many channels."""
    torch.manual_seed(seed)
    features = () if kind == "symbols" else (channels,)
    fitted: Any = Classify({"a": 3, "b": 4, "c": 3}, ClassifyConfig())
    if task == "regress":
        fitted = Regress(50.0, 3.0, RegressConfig())
    if task == "signs":
        fitted = Signs("abc", SignsConfig())
    network = Network(spec_from_plain(spec), features=features, outputs=fitted.num_outputs)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        network(pad([torch.randint(5, (200,)) if kind == "symbols" else torch.randn(200, channels) for _ in range(4)]))
    names = () if kind == "symbols" else tuple(f"c{i}" for i in range(channels))
    temperature = 1.0 if fitted.per_step else 1.7
    return Model(network.eval(), fitted, Inputs(kind, names, rate), temperature=temperature)


def frames(count: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Random frames, (count, channels) float32."""
    return np.random.default_rng(seed).normal(size=(count, channels)).astype(np.float32)
