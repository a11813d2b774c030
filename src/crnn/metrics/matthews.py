"""Matthews correlation: one number of a confusion matrix that rare classes weigh on as much as frequent ones."""

from __future__ import annotations

from torch import Tensor


def matthews_correlation(confusion: Tensor) -> float:
    """Correlation of the true and the predicted class: 1 all right, 0 no better than the class frequencies.

    0 where only one class occurs or is predicted, as scikit-learn has it.

    Args:
        confusion: (classes, classes), rows true, columns predicted.
    Source: Matthews 1975, doi:10.1016/0005-2795(75)90109-9; for several classes R_K of Gorodkin 2004,
        doi:10.1016/j.compbiolchem.2004.09.006.
    """
    counts = confusion.double()
    total, true, predicted = counts.sum(), counts.sum(1), counts.sum(0)
    shared = counts.diagonal().sum() * total - true @ predicted
    spread = (total**2 - true @ true) * (total**2 - predicted @ predicted)
    return float(shared / spread.sqrt()) if float(spread) > 0 else 0.0
