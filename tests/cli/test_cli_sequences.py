"""Symbol sequences on the command line: from FASTA files to a score and predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from crnn.cli.main import run_app


def write_promoters(folder: Path, count: int = 60) -> Path:
    """Random DNA of unequal length, with a TATAAT somewhere in the positive half."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for name in ("positives", "negatives"):
        records = []
        for i in range(count):
            letters = rng.choice(list("ACGT"), rng.integers(30, 40))
            if name == "positives":
                at = rng.integers(0, len(letters) - 6)
                letters[at : at + 6] = list("TATAAT")
            records.append(f">{name}{i}\n{''.join(letters)}\n")
        (folder / f"{name}.fasta").write_text("".join(records))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("promoters")
    data = write_promoters(folder / "data")
    options = ["--preset", "seed", "--set", "train.steps=20", "--quiet"]
    assert run_app(["train", str(data), "--out", str(folder / "run"), *options], debug=True) == 0
    return folder


def test_a_folder_of_fasta_gives_mcc_and_predictions(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = str(trained / "data"), str(trained / "run")
    assert run_app(["check", data], debug=True) == 0
    assert "classes from files: negatives, positives (dna" in capsys.readouterr().out
    assert run_app(["eval", run, data, "--json"], debug=True) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert {"mcc", "auroc", "auprc"} <= metrics.keys()
    new = trained / "new.fa"
    new.write_text(">one\nACUUACGGATATAATNNAGT\n>two\nacgt\n")  # RNA, lower case and short: read as the model's DNA
    assert run_app(["predict", run, str(new)], debug=True) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == ["one", "two"]
    assert set(rows[0]["probabilities"]) == {"negatives", "positives"}


def test_proteins_are_refused_by_a_model_of_dna(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = trained / "proteins.fa"
    path.write_text(">p\nMKLWE\n")
    assert run_app(["predict", str(trained / "run"), str(path)], debug=False) == 1
    assert "found 'L' at position 3 and 1 more, expected dna bases ACGT" in capsys.readouterr().err
