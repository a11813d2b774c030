"""Which formats a trained network can be written in, and the one call that writes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from crnn.config import nearest
from crnn.errors import ExportError
from crnn.models.network import Network
from crnn.models.rounding import in_8_bits
from crnn.plugins import plugins
from crnn.program.lower import lower
from crnn.program.program import Program
from crnn.sequences import Sequences, pad
from crnn.tasks.task import Task


@dataclass(frozen=True)
class Job:
    """What an exporter is given."""

    program: Program
    out: Path
    """The file or folder to write."""
    reference: Callable[[Sequence[NDArray[Any]]], Sequence[NDArray[np.float32]]]
    """The model itself: sequences, (time, channels) or (time,) each -> (outputs,) each, or (frames, outputs)."""
    name: str
    """Of the network, where the format has names."""
    int8: bool
    whole: bool
    overwrite: bool


class Written(Protocol):
    """What an exporter gives back: a dataclass of what it found."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def describe(self) -> str:
        """What was written and how far it is from the model."""
        ...


Exporter = Callable[[Job], Written]


@dataclass(frozen=True)
class Exported:
    """A network in another format."""

    to: str
    files: dict[Path, int]
    """Every file that was written -> its bytes."""
    found: str
    """What the exporter says: sizes, and the largest difference from the model."""
    details: dict[str, Any]
    """The same, number by number."""
    delay_frames: float | None
    """Frames by which the outputs lag behind the input; None where the network or the format cannot stream."""
    delay_seconds: float | None


def export(
    network: Network,
    task: Task,
    to: str,
    out: str | Path,
    *,
    temperature: float = 1.0,
    sample_rate: float | None = None,
    peaks: Mapping[int, tuple[float, ...]] | None = None,
    name: str = "model",
    int8: bool = False,
    whole: bool = False,
    overwrite: bool = False,
) -> Exported:
    """Write a trained network in a format that runs without crnn; the exporter compares it with the network first.

    Args:
        to: "c", "onnx" or "keras", or what another package brings by the entry point group crnn.exporters.
        temperature, sample_rate, peaks: of the model, as `lower` takes them.
        name: prefix of every name in C, and of the files.
        int8: ONNX only: weights as 8 bit integers. For C, compress the model first.
        whole: ONNX only: a graph for whole sequences, without states; padded batches take less time.
        overwrite: replace what is there.
    Raises:
        ExportError: an unknown format, with the nearest known one; a target that is there, or a folder where the format
            is a file, or the other way round; a layer that the exporter does not know, or one that cannot run live
            where the format needs it (all before anything is written); or a result that does not give the network's
            numbers.
        MissingExtraError: the format needs a package that is not installed.
    """
    exporter, is_folder, out = find_exporter(to), str(out).endswith(("/", os.sep)), Path(out)
    if out.exists() and not overwrite and not (out.is_dir() and not any(out.iterdir())):
        raise ExportError(f"{out}: is there already; name another place, or replace it with --overwrite")
    if int8 and to != "onnx":
        raise ExportError(f"int8 with {to}: only --to onnx rounds weights by itself; use crnn compress --int8 first")
    if whole and to != "onnx":
        takes = "frames as they come" if to == "c" else "whole sequences anyway"
        raise ExportError(f"whole with {to}: only for --to onnx; {to} takes {takes}; leave it out")
    _check_kind(to, out, is_folder)
    program = lower(network, task, temperature=temperature, sample_rate=sample_rate, peaks=peaks)
    rounded = peaks if to == "c" else None  # the others keep 8-bit weights, and compute in float32
    reference = _reference(network.eval(), task, temperature, rounded or {})
    before = _written(out)
    found = exporter(Job(program, out, reference, name, int8, whole, overwrite))
    files = {path: stat.st_size for path, stat in sorted(_written(out).items()) if not _is_same(stat, before.get(path))}
    delay = program.look_ahead if program.can_stream and to != "keras" and not whole else None
    seconds = delay / sample_rate if delay is not None and sample_rate else None
    return Exported(to, files, found.describe(), asdict(found), delay, seconds)


def _written(out: Path) -> dict[Path, os.stat_result]:
    """Every file there, with its size and time."""
    paths = out.rglob("*") if out.is_dir() else [out]
    return {path: path.stat() for path in paths if path.is_file()}


def _is_same(now: os.stat_result, before: os.stat_result | None) -> bool:
    """Whether nobody has written the file since."""
    return before is not None and (now.st_mtime_ns, now.st_ino) == (before.st_mtime_ns, before.st_ino)


def _check_kind(to: str, out: Path, is_folder: bool) -> None:
    """A folder is not replaced by a file, nor a file by a folder.

    Args:
        is_folder: the name ends as those of folders do.
    Raises:
        ExportError: one would have to be.
    """
    if to == "c" and out.is_file():
        raise ExportError(f"{out}: is a file, and C takes a folder of its own; name another place")
    if to in ("onnx", "keras") and (is_folder or out.is_dir()):
        example = out / f"model.{to}"
        raise ExportError(f"{out}: is a folder, and {to} is one file; name a file in it, such as {example}")
    above = next(parent for parent in out.absolute().parents if parent.exists())
    if not above.is_dir():
        raise ExportError(f"{out}: {above} is a file, not a folder; name another place")


def _reference(
    network: Network, task: Task, temperature: float, peaks: Mapping[int, tuple[float, ...]]
) -> Callable[[Sequence[NDArray[Any]]], Sequence[NDArray[np.float32]]]:
    scale, shift = task.units
    device = next((p.device for p in network.parameters()), torch.device("cpu"))

    @torch.no_grad()
    def outputs(sequences: Sequence[NDArray[Any]]) -> Sequence[NDArray[np.float32]]:
        x = pad([torch.from_numpy(np.ascontiguousarray(sequence)) for sequence in sequences]).to(device)
        with in_8_bits(network, peaks) if peaks else nullcontext():
            found = network(x)
        rows = found.unpad() if isinstance(found, Sequences) else found
        return [(row / temperature * scale + shift).float().cpu().numpy() for row in rows]

    return outputs


def _to_c(job: Job) -> Written:
    from crnn.export.c import export_c

    return export_c(job.program, job.out, name=job.name, reference=job.reference, overwrite=job.overwrite)


def _to_onnx(job: Job) -> Written:
    from crnn.export.onnx import export_onnx

    return export_onnx(
        job.program, job.out, reference=job.reference, int8=job.int8, whole=job.whole, overwrite=job.overwrite
    )


def _to_keras(job: Job) -> Written:
    from crnn.export.keras import export_keras

    return export_keras(job.program, job.out, reference=job.reference, overwrite=job.overwrite)


EXPORTERS: dict[str, Exporter] = {"c": _to_c, "onnx": _to_onnx, "keras": _to_keras}
"""Every format of ours by name; other packages add theirs by the entry point group crnn.exporters."""


def find_exporter(name: str) -> Exporter:
    """The exporter of this format.

    Raises:
        ExportError: unknown, with the nearest known name.
    """
    known = {**plugins("exporters"), **EXPORTERS}
    if name not in known:
        listed = f"; known: {', '.join(sorted(known))}"
        close = nearest(name, sorted(known))
        raise ExportError(f"--to {name}: unknown format{close if close == listed else close + listed}")
    return known[name]  # type: ignore[no-any-return]
