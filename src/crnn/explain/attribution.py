"""Attribution: how much each frame of a sequence moves a model's answer, and how far the parts are from the whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crnn.data.batch import load_example
from crnn.data.dataset import Dataset
from crnn.errors import ConfigError, MissingExtraError, ShapeError
from crnn.model import Model
from crnn.nn.frontend import Iupac
from crnn.nn.layers import Layer
from crnn.sequences import Sequences
from crnn.tasks.step_task import StepTask

Method = Literal["gradients", "occlusion"]
LONGEST = 60_000
"""Frames of a recording whose every frame is answered for; a gradient runs through them dozens of times."""
FIRST_STEPS = 32
"""Of the integral; doubled until the parts add up to the whole."""
MOST_STEPS = 512
CLOSE = 0.01
"""Share of the difference by which the parts may miss the whole."""
LEAST_DIFFERENCE = 1e-3
"""Smaller differences between answers are not divided by."""


@dataclass(frozen=True)
class Attribution:
    """What each frame of one sequence adds to the answer, compared with a sequence that says nothing."""

    id: str
    label: str
    """What the answer speaks for."""
    output: float
    """The answer: log-odds of the label against the mean of the others, a logit, or a value."""
    baseline: float
    """The same for the sequence that says nothing: unknown symbols, silence, each channel at its mean."""
    parts: NDArray[np.float32]
    """(frames, channels) of what the network is given: fractions of bases, or the recorded channels."""
    frames: NDArray[np.float32]
    """(frames, channels): what was explained."""
    error: float
    """How far the sum of the parts is from output - baseline, as a share of that; NaN for occlusion, which has none."""

    @property
    def by_frame(self) -> NDArray[np.float32]:
        """(frames,): the sum over channels."""
        return np.asarray(self.parts.sum(1), np.float32)


class Answer(nn.Module):
    """One number of a model for frames of values: behind the layer that turns symbols into them, if there is one.

    Args:
        label: place of the output that is explained.
    Shape:
        frames (batch, time, channels), all of one length; returns (batch,).
    """

    front: Layer | None

    def __init__(self, model: Model, label: int) -> None:
        super().__init__()
        layers: list[Layer] = list(model.network.body)
        self.front = layers.pop(0) if not model.network.features else None
        if self.front is not None and len(self.front.out_features) != 1:
            raise ShapeError("explain: the first layer gives no channels for symbols; put iupac or an embedding first")
        self.rest = layers  # not registered: they are the network's
        self.network, self.label = model.network, label
        self.contrast = model.task.activation == "softmax" and model.network.outputs > 1

    def frames(self, ids_or_values: Tensor) -> Tensor:
        """(time, ...) of one sequence as the frames that are explained, (time, channels)."""
        if self.front is None:
            return ids_or_values
        with torch.no_grad():
            made = self.front(Sequences(ids_or_values[None], torch.tensor([len(ids_or_values)])))
        return made.data[0]  # type: ignore[no-any-return]

    def silence(self, frames: Tensor, kind: str) -> Tensor:
        """Frames of the same length that say nothing."""
        if isinstance(self.front, Iupac):
            return torch.full_like(frames, 1 / frames.shape[-1])
        if self.front is not None:
            weight: Any = next(self.front.parameters())
            return weight.detach().mean(0).expand_as(frames).clone()  # type: ignore[no-any-return]
        return (
            torch.zeros_like(frames) if kind == "audio" else frames.nanmean(0, keepdim=True).expand_as(frames).clone()
        )

    def forward(self, frames: Tensor) -> Tensor:
        x = Sequences(frames, torch.full((len(frames),), frames.shape[1], dtype=torch.int64))
        for layer in self.rest:
            x = layer.compute(x)
        outputs: Tensor
        if self.network.summary is None:
            outputs = self.network.head(x.data).mean(1)  # over the frames that come out
        else:
            outputs = self.network.head(self.network.summary.compute(x))
        chosen = outputs[:, self.label]
        if not self.contrast:
            return chosen
        return chosen - (outputs.sum(1) - chosen) / (outputs.shape[1] - 1)


def attribute(
    model: Model, data: Dataset, indices: list[int], *, method: Method = "gradients", label: str | None = None
) -> list[Attribution]:
    """What the frames of some examples add to the model's answer.

    Integrated gradients, with as many steps as it takes for the parts to add up to the whole within one per cent;
    what is left stands in `error`. Or occlusion: what is lost when a few frames are replaced by ones that say nothing.

    Args:
        label: the output to explain; by default what is predicted for each example, and for a model that answers for
            every frame the label that it gives most. Of its recordings the first LONGEST frames are explained.
    Raises:
        ConfigError: no such label.
        MissingExtraError: captum is not installed.
    Source: Sundararajan, Taly & Yan 2017, arXiv:1703.01365 (integrated gradients; completeness is their axiom); Zeiler
        & Fergus 2014, arXiv:1311.2901 (occlusion).
    """
    integrate, occlude = _captum()
    labels = model.task.output_names
    if label is not None and label not in labels:
        raise ConfigError(f"--label {label}: the model knows {', '.join(labels[:12])}")
    found = []
    with evaluating(model):
        for i in indices:
            example = data[i]
            values = torch.from_numpy(load_example(example, data))
            name = example.id
            if isinstance(model.task, StepTask) and len(values) > LONGEST:
                values, name = values[:LONGEST], f"{example.id}, the first {LONGEST:,} of {len(values):,} frames"
            place = labels.index(label) if label is not None else _predicted(model, values)
            answer = Answer(model, place)
            frames = answer.frames(values)
            known = torch.nan_to_num(frames)
            silence = torch.nan_to_num(answer.silence(frames, data.kind))
            with torch.no_grad():
                output, baseline = answer(known[None]).item(), answer(silence[None]).item()
            if method == "occlusion":
                parts, error = _occluded(occlude, answer, known, silence), float("nan")
            else:
                parts, error = _integrated(integrate, answer, known, silence, output - baseline)
            found.append(Attribution(name, labels[place], output, baseline, parts.numpy(), known.numpy(), error))
    return found


def _captum() -> tuple[Any, Any]:
    try:
        from captum.attr import IntegratedGradients, Occlusion
    except ImportError:
        raise MissingExtraError("explain needs captum: pip install 'crnn[explain]'") from None
    return IntegratedGradients, Occlusion


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """The network as in prediction, its gradients too: cuDNN has none for recurrent layers outside of training."""
    was_training = model.network.training
    model.network.eval()
    try:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        model.network.train(was_training)


def _predicted(model: Model, values: Tensor) -> int:
    with torch.no_grad():
        outputs = model.network(Sequences(values[None], torch.tensor([len(values)])))
    if isinstance(outputs, Sequences):
        means = outputs.data[0].mean(0)
        if isinstance(model.task, StepTask) and model.task.silent is not None:
            means[model.task.silent] = -torch.inf
        return int(means.argmax())
    return int(outputs[0].argmax())


def _integrated(
    method: Any, answer: Answer, frames: Tensor, silence: Tensor, difference: float
) -> tuple[Tensor, float]:
    """The parts, and by what share of the difference their sum is off."""
    steps = FIRST_STEPS
    while True:
        parts = method(answer).attribute(frames[None], silence[None], n_steps=steps, internal_batch_size=32)[0].detach()
        error = abs(float(parts.double().sum()) - difference) / max(abs(difference), LEAST_DIFFERENCE)
        if error <= CLOSE or steps >= MOST_STEPS:
            return parts.float(), error
        steps *= 2


def _occluded(method: Any, answer: Answer, frames: Tensor, silence: Tensor) -> Tensor:
    """Windows of a hundredth of the sequence, and no less than 3 frames, each half over the one before it."""
    size = min(len(frames), max(3, len(frames) // 100))
    with torch.no_grad():
        parts = method(answer).attribute(
            frames[None],
            sliding_window_shapes=(size, frames.shape[1]),
            strides=(max(1, size // 2), frames.shape[1]),
            baselines=silence[None],
            perturbations_per_eval=32,
        )[0]
    return parts.float() / frames.shape[1]  # type: ignore[no-any-return]  # captum gives the window's loss to each channel
