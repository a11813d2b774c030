"""A stream as bytes, so that another process can go on with it: safetensors with a header, nothing that runs code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import safetensors
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from crnn.errors import StreamError
from crnn.nn.layers import State
from crnn.streaming.engines import Engine
from crnn.streaming.streamed import StreamedModel

FORMAT = 1
"""Version of the header; a newer one is refused."""
KEYS = ("format", "model", "engine", "frames")


@dataclass(frozen=True)
class Snapshot:
    """Where a stream stood."""

    model: str
    """Fingerprint of the model that it belongs to."""
    engine: str
    """The kind of engine that can go on with it."""
    frames: int
    """Frames that had come."""
    state: State

    def to_bytes(self) -> bytes:
        """As save() gives it."""
        facts = {"format": str(FORMAT), "model": self.model, "engine": self.engine, "frames": str(self.frames)}
        tensors = {f"state.{i}": tensor.detach().cpu().clone().contiguous() for i, tensor in enumerate(self.state)}
        return save_tensors(tensors, facts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Snapshot:
        """Raises StreamError for what is no snapshot, or one of a newer version."""
        facts = _header(data)
        try:
            tensors = load_tensors(data)
        except safetensors.SafetensorError as error:
            raise StreamError(f"snapshot: cannot be read ({error}); it is truncated or damaged") from None
        state = tuple(tensors[f"state.{i}"] for i in range(len(tensors)))
        return cls(facts["model"], facts["engine"], int(facts["frames"]), state)

    def check(self, model: StreamedModel) -> None:
        """Raises StreamError when it was saved by a stream of another model."""
        if self.model != model.fingerprint:
            raise StreamError(
                f"snapshot: it is of another model ({self.model[:8]}, this one is {model.fingerprint[:8]}); "
                "load the run whose stream was saved"
            )

    def check_engine(self, engine: Engine) -> None:
        """Raises StreamError when the state is not of this engine."""
        fresh = engine.start()
        fits = len(fresh) == len(self.state) and all(
            a.dtype == b.dtype and a.dim() == b.dim() for a, b in zip(fresh, self.state, strict=True)
        )
        if self.engine != engine.kind or not fits:
            raise StreamError(
                f"snapshot: it is of the {self.engine} engine, whose state is not that of this one ({engine.name}); "
                f"open it with engine={self.engine!r} where that is available"
            )


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
