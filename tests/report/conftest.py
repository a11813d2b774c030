"""Three small evaluations, one of each form, measured once."""

from __future__ import annotations

import pytest
from report_examples import NASTY, measure

from crnn.report.evaluation import Evaluation
from crnn.tasks.classify import Classify, ClassifyConfig
from crnn.tasks.multilabel import MultiLabel
from crnn.tasks.regress import Regress, RegressConfig


@pytest.fixture(scope="session")
def classes() -> Evaluation:
    def label(frequency: float) -> str:
        return "slow" if frequency < 0.9 else "quick & long" if frequency < 1.4 else NASTY

    return measure(Classify, ClassifyConfig(), label)


@pytest.fixture(scope="session")
def labels() -> Evaluation:
    def some(frequency: float) -> tuple[str, ...]:
        return tuple(name for name, is_on in (("slow", frequency < 1), (NASTY, 0.8 < frequency < 1.6)) if is_on)

    return measure(MultiLabel, ClassifyConfig(), some)


@pytest.fixture(scope="session")
def values() -> Evaluation:
    return measure(Regress, RegressConfig(), lambda frequency: 100 * frequency)
