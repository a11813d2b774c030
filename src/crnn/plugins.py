"""What other packages bring by entry point: readers, layers, presets, tasks, exporters."""

from __future__ import annotations

import functools
from importlib.metadata import entry_points
from typing import Any


@functools.cache
def plugins(group: str) -> dict[str, Any]:
    """Objects that installed packages register in the entry point group `crnn.<group>`, by name.

    In the other package's pyproject.toml:
        [project.entry-points."crnn.layers"]
        my_layer = "my_package.layers:MyLayer"
    """
    return {point.name: point.load() for point in entry_points(group=f"crnn.{group}")}
