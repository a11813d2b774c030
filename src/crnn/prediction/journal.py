"""Predictions as they come, in a file beside the one asked for: what an interruption leaves is not done again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from crnn.errors import ConfigError, DataError

SUFFIX = ".part"


class Journal:
    """JSON lines: first whose predictions they are, then a prediction each, with the id of its example.

    A last line that an interruption has cut off is dropped when the journal is opened again.

    Args:
        out: the file that is asked for; the journal stands beside it.
        of: names model and data, so that nothing is mixed.
    Raises:
        ConfigError: a journal of another model or other data stands there.
        DataError: it cannot be written.
    """

    def __init__(self, out: Path, of: str) -> None:
        self.out, self.path = out, out.with_name(out.name + SUFFIX)
        self.places: dict[str, int] = {}
        """Where the line of each example begins, by its id."""
        try:
            self._file: BinaryIO = self.path.open("a+b")
            try:
                self._read(of)
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise DataError(
                f"{self.path}: cannot be written ({error.strerror}); name another place with --out"
            ) from None

    def _read(self, of: str) -> None:
        self._file.seek(0)
        begin = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            plain = json.loads(line)
            if begin == 0 and plain != {"predictions_of": of}:
                raise ConfigError(
                    f"{self.path}: holds predictions of another model or other data, of a run that was interrupted; "
                    "go on with those, remove the file, or name another --out"
                )
            if begin:
                self.places[plain["id"]] = begin
            begin += len(line)
        self._file.truncate(begin)
        if begin == 0:
            self._append({"predictions_of": of})

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write predictions; they are on the disk when this returns."""
        for row in rows:
            self.places[row["id"]] = self._append(row)
        self._file.flush()
        os.fsync(self._file.fileno())

    def _append(self, row: dict[str, Any]) -> int:
        begin = self._file.seek(0, os.SEEK_END)
        self._file.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        return begin

    def finish(self, ids: Iterable[str]) -> int:
        """Write the file that was asked for, in this order, and remove the journal; how many predictions it holds."""
        new, count = self.out.with_name(self.out.name + ".new"), 0
        with new.open("wb") as file:
            for id in ids:
                if id in self.places:
                    self._file.seek(self.places[id])
                    file.write(self._file.readline())
                    count += 1
        if self.out.suffix == ".parquet" and count:
            lines = new.rename(new.with_suffix(".jsonl"))
            pl.scan_ndjson(lines, infer_schema_length=None).sink_parquet(new)
            lines.unlink()
        new.replace(self.out)
        self.close()
        self.path.unlink()
        return count

    def close(self) -> None:
        """Keep what is written for the next time."""
        self._file.close()
