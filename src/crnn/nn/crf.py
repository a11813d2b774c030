"""The loss of a linear-chain conditional random field: paths of labels are scored, not labels one by one."""

from __future__ import annotations

import torch
from torch import Tensor

from crnn.sequences import Sequences


def path_loss(emissions: Tensor, transitions: Tensor, targets: Sequences) -> Tensor:
    """Minus the log-probability of each sequence's labels; padding adds nothing, whatever it holds.

    A frame without a label may have any: the probability is that of all paths through the labels that are known.

    Args:
        emissions: score of each class in each frame.
        transitions: score of coming from class i to class j into frame t, [:, t, i, j]; those of frame 0 are not used.
        targets: classes, -1 where there is none.
    Shape:
        emissions: (batch, time, classes); transitions: (batch, time, classes, classes); returns (batch,).
    Source: Lafferty, McCallum & Pereira 2001, "Conditional random fields", section 4 (the forward algorithm, here in
        log-space); the sum over unknown labels is that of Tsuboi et al. 2008, "Training conditional random fields using
        incomplete annotations".
    """
    valid = targets.valid
    emissions = emissions.masked_fill(~valid[..., None], 0.0)  # not through where: the gradient of a NaN is one
    transitions = transitions.masked_fill(~valid[..., None, None], 0.0)
    known = valid & (targets.data >= 0)
    others = torch.arange(emissions.shape[-1], device=emissions.device) != targets.data[..., None]
    right = emissions.masked_fill(known[..., None] & others, -torch.inf)
    sums = log_sum_of_paths(torch.stack([emissions, right]), transitions, valid)
    return sums[0] - sums[1]


def log_sum_of_paths(emissions: Tensor, transitions: Tensor, valid: Tensor) -> Tensor:
    """Log of the summed exp(score) of all paths.

    Shape:
        emissions: (..., batch, time, classes); transitions: (batch, time, classes, classes); valid: (batch, time), the
        first frame of every row being valid; returns (..., batch).
    """
    first, *frames = emissions.unbind(-2)  # not by index, of which each has a gradient as large as the whole
    scores = first
    for emission, transition, going_on in zip(frames, transitions.unbind(1)[1:], valid.unbind(1)[1:], strict=True):
        after = torch.logsumexp(scores[..., :, None] + transition, -2) + emission  # (..., batch, classes)
        scores = torch.where(going_on[:, None], after, scores)
    return torch.logsumexp(scores, -1)
