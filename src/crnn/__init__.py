"""Convolutional-recurrent networks for sequences.

read: files or arrays -> Dataset; check: what training would trip over; train: Dataset -> Run; load: a saved model;
stream: a saved model, live; Sequences and pad: the batch of sequences that every layer takes. The rooms below hold the
rest (crnn.nn, crnn.sklearn).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {  # public name -> the file that defines it; imported on first use, so that `import crnn` stays quick
    "read": "crnn.data.read",
    "from_arrays": "crnn.data.read",
    "Dataset": "crnn.data.dataset",
    "Example": "crnn.data.dataset",
    "check": "crnn.run",
    "train": "crnn.run",
    "load": "crnn.run",
    "stream": "crnn.run",
    "Run": "crnn.run",
    "Model": "crnn.model",
    "Sequences": "crnn.sequences",
    "pad": "crnn.sequences",
    "CrnnError": "crnn.errors",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from crnn.data.dataset import Dataset as Dataset
    from crnn.data.dataset import Example as Example
    from crnn.data.read import from_arrays as from_arrays
    from crnn.data.read import read as read
    from crnn.errors import CrnnError as CrnnError
    from crnn.model import Model as Model
    from crnn.run import Run as Run
    from crnn.run import check as check
    from crnn.run import load as load
    from crnn.run import stream as stream
    from crnn.run import train as train
    from crnn.sequences import Sequences as Sequences
    from crnn.sequences import pad as pad


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'crnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
