"""Texts as series: each letter a pattern of a few frames, for quick tests of transcription."""

import numpy as np

from crnn.data.dataset import Dataset, array_example

LETTERS = "abc "
MODEL = {
    "layers": [
        {"type": "conv", "channels": 16, "kernel_size": 3},
        {"type": "activation"},
        {"type": "recurrent", "hidden_size": 16},
    ],
    "summary": None,
}
TRAIN = {"learning_rate": 0.02, "batch_size": 8, "weight_decay": 0.0}


def letters_data(count=48, seed=0, noise=0.3, words=(1, 3)):
    """Series of three channels: a, b and c raise one each, a space lowers all; four to six frames a letter."""
    random = np.random.default_rng(seed)
    examples = []
    for i in range(count):
        text = " ".join(
            "".join(random.choice(list("abc"), random.integers(1, 4))) for _ in range(random.integers(*words))
        )
        rows = []
        for letter in text:
            level = np.full(3, -1.0) if letter == " " else 2.0 * np.eye(3)["abc".index(letter)]
            rows += [level] * int(random.integers(3, 5)) + [np.zeros(3)] * 2
        x = np.array(rows) + noise * random.normal(size=(len(rows), 3))
        examples.append(array_example(f"{seed}-{i}", f"row {i}", x.astype(np.float32), target=text))
    return Dataset(tuple(examples), "series", ("x", "y", "z"), 100.0, "letters")
