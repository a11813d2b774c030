"""The loss of paths against all paths of a small example, one by one."""

import itertools

import pytest
import torch

from crnn.nn.crf import path_loss
from crnn.sequences import Sequences


def scores(batch, frames, classes=3, seed=0):
    random = torch.Generator().manual_seed(seed)
    emissions = torch.randn(batch, frames, classes, generator=random, dtype=torch.float64)
    return emissions, torch.randn(batch, frames, classes, classes, generator=random, dtype=torch.float64)


def brute_force(emissions, transitions, labels):
    """By definition: the share of exp(score) that the paths with these labels have; -1 is any."""
    right = total = 0.0
    for path in itertools.product(range(emissions.shape[1]), repeat=len(emissions)):
        score = sum(emissions[t, label] for t, label in enumerate(path))
        score = score + sum(transitions[t, path[t - 1], path[t]] for t in range(1, len(path)))
        total = total + score.exp()
        if all(label in (-1, found) for label, found in zip(labels, path, strict=True)):
            right = right + score.exp()
    return -(right / total).log()


@pytest.mark.parametrize("labels", [[0, 2, 1, 1], [-1, 2, -1, 0], [1, -1, -1, -1], [-1, -1, -1, -1]])
def test_the_loss_and_its_gradient_are_those_of_all_paths(labels):
    emissions, transitions = (s.requires_grad_() for s in scores(1, 4))
    targets = Sequences(torch.tensor([labels]), torch.tensor([4]))
    loss = path_loss(emissions, transitions, targets)
    expected = brute_force(emissions[0], transitions[0], labels)
    torch.testing.assert_close(loss[0], expected)
    for ours, theirs in zip(
        torch.autograd.grad(loss.sum(), (emissions, transitions)),
        torch.autograd.grad(expected, (emissions, transitions), allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("junk", [0.0, 7.0, float("nan")])
def test_padding_changes_neither_loss_nor_gradients(junk):
    emissions, transitions = scores(2, 6)
    alone = [path_loss(emissions[i : i + 1, :n], transitions[i : i + 1, :n],
                       Sequences(torch.tensor([[0, -1, 2, 1, 1, 0][:n]]), torch.tensor([n])))
             for i, n in ((0, 6), (1, 1))]  # fmt: skip
    emissions[1, 1:], transitions[1, 1:] = junk, junk
    emissions.requires_grad_()
    codes = torch.tensor([[0, -1, 2, 1, 1, 0], [0, -1, 5, 5, 5, 5]])
    together = path_loss(emissions, transitions, Sequences(codes, torch.tensor([6, 1])))
    torch.testing.assert_close(together, torch.cat(alone))
    together.sum().backward()
    assert emissions.grad.isfinite().all()
    assert (emissions.grad[1, 1:] == 0).all()
