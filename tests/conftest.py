"""Fixtures that every room uses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")  # a change is judged by the same examples each time; at home they are drawn anew


@pytest.fixture
def data_folder() -> Callable[[str], Path]:
    """name -> a folder of development data: CRNN_DATA, or shared/data beside the checkout; skips when absent."""

    def find(name: str) -> Path:
        root = os.environ.get("CRNN_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
        folder = Path(root) / name
        if not folder.exists():
            pytest.skip(f"development data {name!r} is not here; set CRNN_DATA to its folder")
        return folder

    return find
