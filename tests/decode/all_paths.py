"""The definition of CTC by brute force: every path through the outputs of a small example."""

import itertools

import numpy as np


def outputs(frames: int, labels: int, seed: int) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(frames, labels)) * 2
    return logits - np.logaddexp.reduce(logits, 1, keepdims=True)


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    """The definition of CTC: join repeats, then drop blanks."""
    return tuple(label for label, _ in itertools.groupby(path) if label)


def paths(log_probs: np.ndarray):
    """All paths with their transcript and log probability."""
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        yield path, collapse(path), sum(log_probs[t, label] for t, label in enumerate(path))
