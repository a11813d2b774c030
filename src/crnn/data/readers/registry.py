"""The readers by name: ours, in the order in which they are asked, and those of other packages."""

from __future__ import annotations

import functools

from crnn.config import nearest
from crnn.data.readers.arff import ARFF
from crnn.data.readers.audio import AUDIO
from crnn.data.readers.edf import EDF
from crnn.data.readers.fasta import FASTA
from crnn.data.readers.frames import FRAMES
from crnn.data.readers.images import IMAGES
from crnn.data.readers.manifest import MANIFEST
from crnn.data.readers.npy import NPY
from crnn.data.readers.page_xml import PAGE_XML
from crnn.data.readers.parquet import PARQUET
from crnn.data.readers.reader import Reader
from crnn.data.readers.table import TABLE
from crnn.data.readers.tar import TAR
from crnn.data.readers.ts import TS
from crnn.data.readers.ucr import UCR
from crnn.data.readers.wfdb import WFDB
from crnn.errors import DataError
from crnn.plugins import plugins

READERS: tuple[Reader, ...] = (
    WFDB,
    EDF,
    AUDIO,
    PAGE_XML,
    IMAGES,
    MANIFEST,
    FASTA,
    TS,
    UCR,
    ARFF,
    NPY,
    PARQUET,
    FRAMES,
    TABLE,
    TAR,
)
"""The first that claims a source reads it: recordings and images before the tables that describe them,
and the marked pages before their images."""


@functools.cache
def all_readers() -> tuple[Reader, ...]:
    """Readers of other packages (entry point group 'crnn.readers', each a Reader), then ours."""
    return (*plugins("readers").values(), *READERS)


def find_reader(name: str) -> Reader:
    """The reader of this name.

    Raises:
        DataError: unknown, with the nearest known name.
    """
    for reader in all_readers():
        if reader.name == name:
            return reader
    raise DataError(f"format {name!r}: unknown format{nearest(name, [reader.name for reader in all_readers()])}")
