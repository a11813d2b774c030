"""The error tree: every error derives from CrnnError and from the builtin that people expect.

A message says where (file and row, config key, argument), what was found, what was expected, and what to do.
"""


class CrnnError(Exception):
    """Any error that this package raises on purpose; the command line prints it without a traceback."""


class ConfigError(CrnnError, ValueError):
    """An option is unknown, of the wrong type, or impossible together with another."""


class ShapeError(CrnnError, ValueError):
    """Sequences have the wrong number of channels or frames for a layer."""


class DataError(CrnnError, ValueError):
    """A file, a row or a label cannot be used as it is."""


class SplitError(CrnnError, ValueError):
    """A split would be empty, or would put one group on two sides."""


class ModelError(CrnnError, ValueError):
    """A saved model is missing, truncated, foreign, or of a newer version."""


class StreamError(CrnnError, RuntimeError):
    """A model cannot stream, or a stream was used after its end."""


class ExportError(CrnnError, ValueError):
    """A model cannot be written in the format asked for, or what was written does not give the model's numbers."""


class TrainingError(CrnnError, RuntimeError):
    """Training had to stop: the message says why and what to change."""


class MissingExtraError(CrnnError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""
