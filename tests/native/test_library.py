"""Compiled libraries belong to the sources beside them."""

from __future__ import annotations

import ast
from pathlib import Path

from crnn.native import library

ROOT = Path(__file__).resolve().parents[2]


def test_setup_builds_from_the_files_that_the_loader_looks_at():
    assigned = {
        node.targets[0].id: node.value
        for node in ast.parse((ROOT / "setup.py").read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    assert ast.literal_eval(assigned["SOURCES"]) == library.FILES


def test_a_library_of_other_sources_is_not_loaded(tmp_path, monkeypatch):
    folder = Path(library.__file__).parent
    for name in library.FILES["engine"]:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    assert library.built("engine", "baseline") is None
    before = library.hashlib.sha256(b"".join((tmp_path / n).read_bytes() for n in library.FILES["engine"])).hexdigest()
    (tmp_path / f"engine.baseline.{before[:8]}.so").touch()
    assert library.built("engine", "baseline") is not None
    (tmp_path / "engine.h").write_text("/* changed */")
    assert library.built("engine", "baseline") is None
