"""A stream as bytes, so that another process can go on with it: safetensors with a header, nothing that runs code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import safetensors
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from crnn.errors import StreamError
from crnn.streaming.steps import Steps
from crnn.streaming.streamed import StreamedModel

Kind = Literal["torch", "native"]
FORMAT = 1
"""Version of the header; a newer one is refused."""
KEYS = ("format", "model", "engine", "frames", "answers")


@dataclass(frozen=True)
class Snapshot:
    """Where a stream stood."""

    model: str
    """Fingerprint of the model that it belongs to."""
    engine: Kind
    """The kind of engine that can go on with it."""
    frames: int
    """Frames that had come."""
    answers: dict[str, Any]
    """What its answers remembered."""
    tensors: dict[str, Tensor]
    """Its state, as the engine packs it."""

    def to_bytes(self) -> bytes:
        """As save() gives it."""
        facts = {
            "format": str(FORMAT),
            "model": self.model,
            "engine": self.engine,
            "frames": str(self.frames),
            "answers": json.dumps(self.answers),
        }
        return save_tensors(self.tensors, facts)

    @classmethod
    def from_bytes(cls, data: bytes, model: StreamedModel) -> Snapshot:
        """Read what to_bytes wrote.

        Raises:
            StreamError: it is no snapshot or no bytes, of a newer version, or of another model.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise StreamError(
                f"snapshot: found {type(data).__name__}, expected the bytes that save() gave; read a file by "
                "Path(...).read_bytes()"
            )
        data = bytes(data)
        facts = _header(data)
        try:
            tensors = load_tensors(data)
        except safetensors.SafetensorError as error:
            raise StreamError(f"snapshot: cannot be read ({error}); it is truncated or damaged") from None
        if facts["model"] != model.fingerprint:
            raise StreamError(
                f"snapshot: it is of another model ({facts['model'][:8]}, this one is {model.fingerprint[:8]}); "
                "load the run whose stream was saved"
            )
        engine: Kind = "native" if facts["engine"] == "native" else "torch"
        return cls(facts["model"], engine, int(facts["frames"]), json.loads(facts["answers"]), tensors)

    def state_for(self, steps: Steps) -> Any:
        """The state, for these steps to go on with.

        Raises:
            StreamError: it is of another engine.
        """
        if self.engine != steps.kind:
            raise StreamError(
                f"snapshot: it is of the {self.engine} engine, whose state only that can go on with; this is "
                f"{steps.name}; open it with engine={self.engine!r}"
            )
        return steps.unpack(self.tensors)


def _header(data: bytes) -> dict[str, Any]:
    """The facts at the start of safetensors bytes."""
    size = int.from_bytes(data[:8], "little")
    try:
        facts = json.loads(data[8 : 8 + size])["__metadata__"]
        missing = [key for key in KEYS if key not in facts]
    except (ValueError, KeyError, TypeError):
        facts, missing = {}, list(KEYS)
    if missing:
        raise StreamError("snapshot: found other bytes, expected what save() of a stream gave; it may be truncated")
    if int(facts["format"]) > FORMAT:
        raise StreamError(
            f"snapshot: format {facts['format']}, written by a newer crnn; this one reads up to {FORMAT}; upgrade crnn"
        )
    return dict(facts)
