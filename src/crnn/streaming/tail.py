"""The bytes of a pipe or of a file, waiting for more where it still grows."""

from __future__ import annotations

import time
from typing import BinaryIO

PAUSE_SECONDS = 0.05
"""Between two looks at a file that has not grown."""


class Tail:
    """Bytes in order; with `follow`, a read waits at the end for what is still to be written.

    Ctrl-C ends the waiting: what is there is given, without a line that may still be growing, and `interrupted` is set.

    Args:
        name: of the file, for messages.
    """

    def __init__(self, file: BinaryIO, name: str, *, follow: bool = False) -> None:
        self.name = name
        self._file = file
        self._follow = follow
        self.interrupted = False
        """Ctrl-C came while it waited."""
        self._ahead = b""

    def read(self, count: int) -> bytes:
        """`count` bytes; fewer only at the end of all."""
        found, self._ahead = self._ahead[:count], self._ahead[count:]
        while len(found) < count:
            more = self._file.read(count - len(found))
            found += more
            if not more and not self._waits():
                break
        return found

    def line(self) -> bytes:
        """A line with its end; without one only at the end of all."""
        found, end, self._ahead = self._ahead.partition(b"\n")
        if end:
            return found + end
        while not found.endswith(b"\n"):
            more = self._file.readline()
            found += more
            if not more and not self._waits():
                break
        return b"" if self.interrupted and not found.endswith(b"\n") else found

    def peek(self, count: int) -> bytes:
        """The next bytes, which stay to be read."""
        self._ahead = self.read(count) + self._ahead
        return self._ahead

    def _waits(self) -> bool:
        if self._follow:
            try:
                time.sleep(PAUSE_SECONDS)
            except KeyboardInterrupt:
                self._follow, self.interrupted = False, True
        return self._follow
