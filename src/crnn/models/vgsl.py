"""VGSL, the network strings of Tesseract and kraken: `[1,48,0,1 Cr3,3,32 Mp2,2 S1(1x0)1,3 Lbx100 O1c80]`.

| in a string | here |
| --- | --- |
| `1,48,0,1` | batch (ignored), height, width (0: any), grey |
| `C(t r l)y,x,d[,sy,sx]` | conv2d, kernel of y rows and x columns, d channels, then a function; conv behind S |
| `Mp y,x[,sy,sx]` | pool2d, maximum; pool behind S |
| `S1(1xh)1,3` | flatten: the height goes into the channels; h is the height there, 0 for whatever it is |
| `L(f b)x n`, `G(f b)x n` | recurrent, LSTM or GRU, n units a direction, forward or both ways |
| `Do[p][,2]` | dropout, of single values or (2) of whole channels; p is 0.5 when left out |
| `[...]`, `(...)` | layers in a row, layers side by side |
| `Bn(t r l)` | batch norm, then a function: ours, so that whatever we train can be written |
| `O1c n` | CTC over n outputs; the task counts them itself |

Source: the VGSL specification of Tesseract 4 and the dialect of kraken, whose S this is. Two differences to both: a
pooled or strided width is rounded as our layers say, and no sequence is changed by its padding.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from crnn.errors import ConfigError
from crnn.models.spec import NetworkSpec

Layers = list[dict[str, Any]]

FUNCTIONS = {"t": "tanh", "r": "relu", "l": None}
"""Letters of functions; l is linear, nothing at all. Sigmoid (s) and softmax (m) would not leave padding zero."""
CELLS = {"L": "lstm", "G": "gru"}

_INPUT = re.compile(r"(\d+),(\d+),(\d+),(\d+)")
_CONV = re.compile(r"C([a-z])(\d+),(\d+),(\d+)(?:,(\d+),(\d+))?")
_POOL = re.compile(r"Mp(\d+),(\d+)(?:,(\d+),(\d+))?")
_RESHAPE = re.compile(r"S(\d)\((\d+)x(\d+)\)(\d),(\d)")
_RECURRENT = re.compile(r"([LG])([frb])([xy])(s?)(\d+)")
_DROPOUT = re.compile(r"Do(\d*\.?\d+)?(?:,([12]))?")
_NORM = re.compile(r"Bn([a-z])?")
_OUTPUT = re.compile(r"[O0]([012])([a-z])(\d+)")  # some of kraken's examples begin with a zero


@dataclass(frozen=True)
class VgslNetwork:
    """What a string says."""

    height: int
    """Pixels to which line images are scaled."""
    layers: Layers
    """As in a NetworkSpec."""
    num_outputs: int | None = None
    """Where the string ends with an output; for information, as the task counts its own."""

    @property
    def model(self) -> dict[str, Any]:
        """Plain values of a NetworkSpec that gives outputs for every frame."""
        return {"layers": self.layers, "summary": None}


@dataclass
class _Frames:
    """The shape of a frame while layers are read: (channels, height), or (channels,) behind S."""

    channels: int
    height: int | None


def read_vgsl(text: str, where: str = "vgsl") -> VgslNetwork:
    """The network that a string describes.

    Args:
        where: the beginning of every message, such as '--vgsl'.
    Raises:
        ConfigError: what cannot be read or has no counterpart here: which part, and what to write instead.
    """
    reader = _Reader(text, where)
    return reader.network()


class _Reader:
    """One pass over the parts of a string."""

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        inside = text.strip()
        if not (inside.startswith("[") and inside.endswith("]")):
            raise ConfigError(
                f"{where}: found {text[:60]!r}, expected one network in brackets, as [1,48,0,1 ... O1c80]"
            )
        inside = re.sub(r"\{[^{}]*\}", "", inside[1:-1])  # names of layers
        self.parts = re.findall(r"S\d\([^()]*\)\d,\d|[\[\]()]|[^\s\[\]()]+", inside)
        self.at = 0
        self.frames = _Frames(1, None)
        self.num_outputs: int | None = None

    def network(self) -> VgslNetwork:
        height, layers = self._input()
        layers += self._row(closing=None)
        if self.frames.height is not None:
            raise ConfigError(
                f"{self.where}: the height is still {self.frames.height} at the end; put S1(1x0)1,3 where it shall go "
                "into the channels, before the recurrent layers"
            )
        return VgslNetwork(height, layers, self.num_outputs)

    def _input(self) -> tuple[int, Layers]:
        first = self.parts[0] if self.parts else ""
        match = _INPUT.fullmatch(first)
        if match is None:
            raise ConfigError(f"{self.where}: begins with {first!r}, expected batch,height,width,depth as 1,48,0,1")
        self.at = 1
        _, height, width, depth = (int(number) for number in match.groups())
        if width:
            raise ConfigError(
                f"{self.where}: {first}: found the fixed width {width}; expected 0, as lines of any width"
            )
        if height == 1 and depth > 1:  # a strip of pixels a column, as kraken writes it
            self.frames = _Frames(depth, None)
            return depth, [{"type": "flatten"}]
        if height == 0:
            raise ConfigError(f"{self.where}: {first}: found height 0; expected a fixed height, such as 1,48,0,1")
        if depth != 1:
            raise ConfigError(f"{self.where}: {first}: found depth {depth}; expected 1, as lines are read as grey")
        self.frames = _Frames(1, height)
        return height, []

    def _row(self, closing: str | None) -> Layers:
        """Layers in a row, up to a closing bracket or the end."""
        layers: Layers = []
        while self.at < len(self.parts):
            part = self.parts[self.at]
            self.at += 1
            if part == closing:
                return layers
            if part == "[":
                layers += self._row("]")
            elif part == "(":
                layers.append({"type": "parallel", "branches": self._branches()})
            elif part in ("]", ")"):
                raise ConfigError(f"{self.where}: {part!r} closes nothing; expected its opening bracket before it")
            elif self.num_outputs is not None:
                raise ConfigError(f"{self.where}: {part} stands behind the output; expected the output at the end")
            else:
                layers += self._layer(part)
        if closing is not None:
            raise ConfigError(f"{self.where}: a bracket is not closed; expected {closing!r}")
        return layers

    def _branches(self) -> list[Layers]:
        """What stands inside of (...): each layer, or row in brackets, is a branch on the same input."""
        before, branches, channels, heights = self.frames, [], 0, set()
        while True:
            if self.at == len(self.parts):
                raise ConfigError(f"{self.where}: a bracket is not closed; expected ')'")
            part = self.parts[self.at]
            self.at += 1
            if part == ")":
                break
            self.frames = _Frames(before.channels, before.height)
            if part == "[":
                branches.append(self._row("]"))
            elif part == "(":
                branches.append([{"type": "parallel", "branches": self._branches()}])
            else:
                branches.append(self._layer(part))
            channels += self.frames.channels
            heights.add(self.frames.height)
        if len(branches) < 2 or len(heights) > 1:
            raise ConfigError(
                f"{self.where}: (...) holds {len(branches)} branches of heights {sorted(map(str, heights))}; expected "
                "two or more that end with the same height"
            )
        self.frames = _Frames(channels, heights.pop())
        return branches

    def _layer(self, part: str) -> Layers:
        """One part as layers; self.frames becomes what comes out of them."""
        for pattern, build in (
            (_CONV, self._conv),
            (_POOL, self._pool),
            (_RESHAPE, self._reshape),
            (_RECURRENT, self._recurrent),
            (_DROPOUT, self._dropout),
            (_NORM, self._norm),
            (_OUTPUT, self._output),
        ):
            match = pattern.fullmatch(part)
            if match is not None:
                return build(part, match)
        raise ConfigError(f"{self.where}: {part}: {_why_not(part)}")

    def _conv(self, part: str, match: re.Match[str]) -> Layers:
        function, rows, columns, channels = self._function(part, match[1]), *map(int, match.groups()[1:4])
        down, along = int(match[5] or 1), int(match[6] or 1)
        self.frames.channels = channels
        if self.frames.height is None:
            self._refuse_rows(part, rows, down)
            return [{"type": "conv", "channels": channels, "kernel_size": columns, "stride": along}, *function]
        if rows % 2 == 0:
            raise ConfigError(f"{self.where}: {part}: a kernel of {rows} rows; expected an odd number")
        self.frames.height = -(-self.frames.height // down)
        conv = {"type": "conv2d", "channels": channels, "kernel_size": [columns, rows], "stride": [along, down]}
        return [conv, *function]

    def _pool(self, part: str, match: re.Match[str]) -> Layers:
        rows, columns = int(match[1]), int(match[2])
        down, along = int(match[3] or rows), int(match[4] or columns)
        if self.frames.height is None:
            self._refuse_rows(part, rows, down)
            return [{"type": "pool", "kind": "max", "size": columns, "stride": along, "tail": _tail(columns, along)}]
        if rows > self.frames.height:
            raise ConfigError(f"{self.where}: {part}: a window of {rows} rows, but only {self.frames.height} are left")
        self.frames.height = (self.frames.height - rows) // down + 1
        size, stride = [columns, rows], [along, down]
        return [{"type": "pool2d", "kind": "max", "size": size, "stride": stride, "tail": _tail(columns, along)}]

    def _refuse_rows(self, part: str, rows: int, down: int) -> None:
        if (rows, down) != (1, 1):
            raise ConfigError(f"{self.where}: {part}: looks at {rows} rows, but behind S there is one; expected 1")

    def _reshape(self, part: str, match: re.Match[str]) -> Layers:
        source, kept, moved, first, second = (int(number) for number in match.groups())
        height = self.frames.height
        if (source, kept, first, second) != (1, 1, 1, 3) or height is None or moved not in (0, height):
            left = "it is gone already" if height is None else f"it is {height} here"
            raise ConfigError(
                f"{self.where}: {part}: expected S1(1x0)1,3 or S1(1x{height or 'height'})1,3, which moves the whole "
                f"height into the channels ({left})"
            )
        self.frames = _Frames(self.frames.channels * height, None)
        return [{"type": "flatten"}]

    def _recurrent(self, part: str, match: re.Match[str]) -> Layers:
        cell, direction, axis, summarised, size = match.groups()
        if axis == "y" or summarised:
            raise ConfigError(
                f"{self.where}: {part}: a recurrence over the height is not supported; "
                "let S1(1x0)1,3 move the height into the channels instead"
            )
        if direction == "r":
            raise ConfigError(
                f"{self.where}: {part}: a recurrence backwards only is not supported; use {cell}bx, both ways"
            )
        if self.frames.height is not None:
            raise ConfigError(
                f"{self.where}: {part}: would run on each of {self.frames.height} rows; put S1(1x0)1,3 before it"
            )
        self.frames.channels = int(size) * (2 if direction == "b" else 1)
        return [{"type": "recurrent", "cell": CELLS[cell], "hidden_size": int(size), "bidirectional": direction == "b"}]

    def _dropout(self, part: str, match: re.Match[str]) -> Layers:
        rate = float(match[1] or 0.5)
        if rate >= 1:
            raise ConfigError(f"{self.where}: {part}: found a probability of {rate:g}; expected less than 1")
        return [{"type": "dropout", "rate": rate, "kind": "channel" if match[2] == "2" else "element"}]

    def _norm(self, part: str, match: re.Match[str]) -> Layers:
        return [{"type": "norm", "kind": "batch"}, *self._function(part, match[1] or "l")]

    def _output(self, part: str, match: re.Match[str]) -> Layers:
        if (match[1], match[2]) != ("1", "c"):
            raise ConfigError(f"{self.where}: {part}: expected O1c with the number of outputs, a sequence with CTC")
        self.num_outputs = int(match[3])
        return []

    def _function(self, part: str, letter: str) -> Layers:
        if letter not in FUNCTIONS:
            known = "t (tanh), r (ReLU) and l (linear)"
            raise ConfigError(f"{self.where}: {part}: function {letter!r} is not supported; expected one of {known}")
        name = FUNCTIONS[letter]
        return [] if name is None else [{"type": "activation", "kind": name}]


def _tail(size: int, stride: int) -> str:
    """As in PyTorch, a window that is not filled is left out; but no column may be skipped."""
    return "floor" if size >= stride else "ceil"


def _why_not(part: str) -> str:
    """What to say of a part that no pattern fits."""
    known = {
        "Gn": "group norm is not supported; use Bn, batch norm",
        "F": "a fully connected layer is C1,1,d here, such as Cr1,1,64",
        "CT": "a transposed convolution is not supported; expected layers that keep or shorten the width",
        "A": "additions are not supported; a residual block needs a network spec in YAML",
        "I": "identities are not supported; leave it out",
        "R": "repeats are not supported; write the layers out",
        "W": "wav2vec masks are not supported; leave it out",
        "S": "expected S1(1x0)1,3, which moves the height into the channels",
        "M": "expected Mp and rows,columns, such as Mp2,2",
        "C": "expected C, a function, and rows,columns,channels, such as Cr3,3,32",
        "L": "expected L, f or b, x and a number of units, such as Lbx100",
        "G": "expected G, f or b, x and a number of units, such as Gbx100",
        "D": "expected Do and a probability, such as Do0.1,2",
        "O": "expected O1c and the number of outputs",
        "B": "expected Bn and a function, such as Bnr",
    }
    return next((what for start, what in known.items() if part.startswith(start)), "unknown part; see VGSL in the docs")


@dataclass
class _Writer:
    """Parts of a string for layers in a row."""

    height: int | None
    parts: list[str] = field(default_factory=list)

    def write(self, layers: Layers, where: str) -> str:
        i = 0
        while i < len(layers):
            layer, after = layers[i], layers[i + 1] if i + 1 < len(layers) else {}
            at, kind = f"{where}.{i}", layer["type"]
            if kind not in WORDS:
                raise ConfigError(f"{at}: VGSL has no word for {kind!r}; keep this network as a spec (YAML)")
            letter = _letter(after) if kind in ("conv", "conv2d", "norm") else None
            self.parts.append(WORDS[kind](self, layer, at, letter or "l"))
            i += 2 if letter else 1
        return " ".join(self.parts)

    def _conv2d(self, layer: dict[str, Any], at: str, letter: str) -> str:
        _only(layer, at, {"padding": "centred"})
        (columns, rows), (along, down) = layer["kernel_size"], layer["stride"]
        if self.height is not None:
            self.height = -(-self.height // down)
        return _conv_part(letter, rows, columns, layer["channels"], down, along)

    def _conv(self, layer: dict[str, Any], at: str, letter: str) -> str:
        _only(layer, at, {"padding": "centred", "dilation": 1, "groups": 1})
        return _conv_part(letter, 1, layer["kernel_size"], layer["channels"], 1, layer["stride"])

    def _pool2d(self, layer: dict[str, Any], at: str, letter: str) -> str:
        size, stride = layer["size"], layer["stride"] or layer["size"]
        _only(layer, at, {"kind": "max", "tail": _tail(size[0], stride[0])})
        if self.height is not None:
            self.height = (self.height - size[1]) // stride[1] + 1
        return _pool_part(size[1], size[0], stride[1], stride[0])

    def _pool(self, layer: dict[str, Any], at: str, letter: str) -> str:
        size, stride = layer["size"], layer["stride"] or layer["size"]
        _only(layer, at, {"kind": "max", "tail": _tail(size, stride)})
        return _pool_part(1, size, 1, stride)

    def _flatten(self, layer: dict[str, Any], at: str, letter: str) -> str:
        height, self.height = self.height, None
        return f"S1(1x{height or 0})1,3"

    def _recurrent(self, layer: dict[str, Any], at: str, letter: str) -> str:
        plain = {"residual": False, "layer_norm": False, "learned_initial_state": False, "forget_bias": None}
        _only(layer, at, plain)
        cells = {name: letter for letter, name in CELLS.items()}
        if layer["cell"] not in cells:
            raise ConfigError(f"{at}: VGSL has no word for cell {layer['cell']!r}; expected lstm or gru")
        direction = "b" if layer["bidirectional"] else "f"
        one = f"{cells[layer['cell']]}{direction}x{layer['hidden_size']}"
        between = f" Do{layer['dropout']:g} " if layer["dropout"] else " "
        return between.join([one] * layer["num_layers"])

    def _dropout(self, layer: dict[str, Any], at: str, letter: str) -> str:
        return f"Do{layer['rate']:g}" + (",2" if layer["kind"] == "channel" else "")

    def _norm(self, layer: dict[str, Any], at: str, letter: str) -> str:
        _only(layer, at, {"kind": "batch", "affine": True})
        return f"Bn{letter}"

    def _parallel(self, layer: dict[str, Any], at: str, letter: str) -> str:
        _only(layer, at, {"join": "concat"})
        branches, before = [], self.height
        for i, branch in enumerate(layer["branches"]):
            if not branch:
                raise ConfigError(f"{at}.branches.{i}: VGSL has no word for a branch without layers")
            writer = _Writer(before)
            branches.append(f"[{writer.write(branch, f'{at}.branches.{i}')}]")
            self.height = writer.height  # equal for all of them
        return f"({' '.join(branches)})"


WORDS: dict[str, Callable[[_Writer, dict[str, Any], str, str], str]] = {
    "conv": _Writer._conv,
    "conv2d": _Writer._conv2d,
    "pool": _Writer._pool,
    "pool2d": _Writer._pool2d,
    "flatten": _Writer._flatten,
    "recurrent": _Writer._recurrent,
    "dropout": _Writer._dropout,
    "norm": _Writer._norm,
    "parallel": _Writer._parallel,
}
"""Layers that VGSL can say, with what says them."""


def write_vgsl(spec: NetworkSpec, height: int, num_outputs: int | None = None) -> str:
    """The string of a network that gives outputs for every frame; read_vgsl gives its layers back.

    Biases that a spec leaves out before a norm, and momenta, have no spelling: they come back with their defaults.
    Raises:
        ConfigError: a layer or an option that VGSL has no word for: which.
    """
    if spec.summary is not None:
        raise ConfigError("model.summary: VGSL describes networks that give outputs for every frame; expected none")
    return write_layers(spec.layers, height, num_outputs)


def write_layers(layers: Layers, height: int, num_outputs: int | None = None) -> str:
    """As write_vgsl, for complete layers in a row."""
    output = "" if num_outputs is None else f" O1c{num_outputs}"
    return f"[1,{height},0,1 {_Writer(height).write(layers, 'model.layers')}{output}]"


def _letter(layer: dict[str, Any]) -> str | None:
    """The letter of a function, where a layer is one that has a letter."""
    if layer.get("type") != "activation":
        return None
    return next((letter for letter, name in FUNCTIONS.items() if name == layer["kind"]), None)


def _conv_part(letter: str, rows: int, columns: int, channels: int, down: int, along: int) -> str:
    steps = "" if (down, along) == (1, 1) else f",{down},{along}"
    return f"C{letter}{rows},{columns},{channels}{steps}"


def _pool_part(rows: int, columns: int, down: int, along: int) -> str:
    steps = "" if (down, along) == (rows, columns) else f",{down},{along}"
    return f"Mp{rows},{columns}{steps}"


def _only(layer: dict[str, Any], at: str, spelt: dict[str, Any]) -> None:
    """Refuse options that the string cannot say."""
    for name, value in spelt.items():
        if layer[name] != value:
            raise ConfigError(
                f"{at}.{name}: found {layer[name]!r}, but VGSL can only say {value!r}; keep the spec (YAML)"
            )
