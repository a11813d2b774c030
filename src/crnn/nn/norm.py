"""Normalisation: over the valid frames of a batch, or over the channels of each frame."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from crnn.config import config
from crnn.errors import ConfigError, ShapeError
from crnn.nn.layers import Features, Layer, register_layer
from crnn.sequences import Sequences


@config
class NormConfig:
    """Normalisation."""

    kind: Literal["batch", "layer", "rms"] = "batch"
    """Batch: per channel, over the batch's valid frames. Layer and rms: over all that is in one frame."""
    affine: bool = True
    """Learn a scale (and, but for rms, a shift)."""
    momentum: float = 0.1
    """Batch only: share of the newest batch in the running statistics."""
    eps: float = 1e-5
    """Added to the variance."""

    def __post_init__(self) -> None:
        if not 0 < self.momentum <= 1:
            raise ConfigError(f"norm.momentum={self.momentum}; expected more than 0 and at most 1")
        if self.eps <= 0:
            raise ConfigError(f"norm.eps={self.eps}; expected more than 0")


@register_layer("norm")
class Norm(Layer):
    """Batch norm with statistics of valid frames only, or layer or RMS norm of each frame.

    On a batch without padding, batch norm gives the numbers of nn.BatchNorm1d, and takes its state dict.

    Shape:
        x.data: (batch, time, channels, ...), returns the same. Batch norm has one mean and variance per channel, over
        time and whatever follows the channels; layer and RMS norm have one per frame, and a scale per value of it.
    Raises:
        ShapeError: batch norm is to be trained on a batch with a single valid value per channel.
    Source: Ioffe & Szegedy 2015, arXiv:1502.03167; Ba et al. 2016, arXiv:1607.06450; Zhang & Sennrich 2019,
        arXiv:1910.07467 (leaving padded frames out of the batch is ours).
    """

    Config = NormConfig
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, features: Features, config: NormConfig) -> None:
        super().__init__(features)
        if not features:
            raise ConfigError("norm: frames are symbol ids, expected channels; put an embedding or one_hot before it")
        self.config = config
        shape = features[:1] if config.kind == "batch" else features
        has_shift = config.affine and config.kind != "rms"
        self.weight = nn.Parameter(torch.ones(shape)) if config.affine else None
        self.bias = nn.Parameter(torch.zeros(shape)) if has_shift else None
        if config.kind == "batch":
            self.register_buffer("running_mean", torch.zeros(shape))
            self.register_buffer("running_var", torch.ones(shape))
            self.register_buffer("num_batches_tracked", torch.tensor(0))

    def compute(self, x: Sequences) -> Sequences:
        if self.config.kind == "layer":
            data = F.layer_norm(x.data, self.in_features, self.weight, self.bias, self.config.eps)
        elif self.config.kind == "rms":
            data = F.rms_norm(x.data, self.in_features, self.weight, self.config.eps)
        elif self.training and not x.is_full:
            return Sequences(self._batch_norm_valid(x), x.lengths)
        else:
            data = self._batch_norm(x.data.transpose(1, 2)).transpose(1, 2)  # (batch, channels, time, ...) inside
        return Sequences(data, x.lengths).blanked()

    def _batch_norm_valid(self, x: Sequences) -> Tensor:
        """Gather the valid frames, normalise, put them back: faster than masked sums over the padded batch."""
        data = x.data.movedim(2, -1)  # (batch, time, ..., channels): as it lies in memory behind conv2d
        rows, index = data.flatten(0, 1), x.valid.flatten().nonzero()[:, 0]
        frames = rows.index_select(0, index)
        normed = self._batch_norm(frames.reshape(-1, frames.shape[-1])).reshape(frames.shape).to(rows.dtype)
        return torch.zeros_like(rows).index_copy_(0, index, normed).reshape(data.shape).movedim(-1, 2)

    def _batch_norm(self, data: Tensor) -> Tensor:
        """Over axis 1, with the statistics of all processes where several train this network together."""
        if self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            return self._batch_norm_of_all(data)
        if self.training:
            if data.shape[1] and data.numel() // data.shape[1] < 2:
                raise ShapeError(
                    f"norm: the training batch has {data.numel() // data.shape[1]} valid frame(s), batch statistics "
                    "need at least 2; use larger batches, less pooling, or norm.kind: layer"
                )
            self.num_batches_tracked += 1
        return F.batch_norm(
            data,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.config.momentum,
            self.config.eps,
        )

    def _batch_norm_of_all(self, data: Tensor) -> Tensor:
        """The numbers that one process would give with the frames of all."""
        axes, shape = [0, *range(2, data.dim())], (1, -1, *(1,) * (data.dim() - 2))
        x = data.float()
        count = _SumOverRanks.apply(x.new_tensor(x.numel() // x.shape[1]))
        if count < 2:
            raise ShapeError(
                f"norm: the training batch has {int(count)} valid frame(s) in all processes, batch statistics need at "
                "least 2; use larger batches, less pooling, or norm.kind: layer"
            )
        mean = _SumOverRanks.apply(x.sum(axes)) / count
        centred = x - mean.view(shape)
        var = _SumOverRanks.apply(centred.square().sum(axes)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.config.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.config.momentum)
        scale = (var + self.config.eps).rsqrt()
        scale = scale if self.weight is None else scale * self.weight
        y: Tensor = centred * scale.view(shape)
        return (y if self.bias is None else y + self.bias.view(shape)).to(data.dtype)


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all processes; so is its gradient, since all of them have used the sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total: Tensor = grads[0].clone()
        dist.all_reduce(total)
        return total
