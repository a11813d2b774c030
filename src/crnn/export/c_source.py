"""The text of the C files: the engine cut down to what a program uses, its tables and functions, a test, an example."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.native.library import SOURCES
from crnn.program.ops import Array
from crnn.program.program import Program
from crnn.program.tables import FIELDS, Tables

_STANDARD = ("<math.h>", "<stddef.h>", "<stdint.h>")


@dataclass(frozen=True, eq=False)
class Golden:
    """A sequence and what the network makes of it."""

    frames: Array
    """(n, input_size)"""
    outputs: Array
    """(rows, output_size)"""


class CSource:
    """The files of one exported program, as text.

    Args:
        name: prefix of every name; a C identifier.
    """

    def __init__(self, program: Program, tables: Tables, name: str) -> None:
        self._program, self._tables, self._name = program, tables, name
        self._labels = program.labels if len(program.labels) == tables.output_size else ()
        self._has_probabilities = program.activation in ("softmax", "sigmoid")

    def header(self) -> str:
        """NAME.h: sizes, the state, the functions."""
        tables, members = self._tables, []
        for kind, member, size in self._arrays():
            members.append(f"  {kind} {member}[{size}];")
        returns = (
            "Returns 1 when out holds\n   outputs, for the stream so far; 0 before the first ones;"
            if tables.is_vector
            else "Returns how many\n   frames of outputs that now are, at most n;"
        )
        room = "CRNN_OUTPUTS values" if tables.is_vector else "n * CRNN_OUTPUTS values"
        last_room = "CRNN_OUTPUTS" if tables.is_vector else "CRNN_FLUSHED * CRNN_OUTPUTS"
        lines = [
            f"/* {self._program.output.size} outputs from a stream of {tables.input_size} values a frame. */",
            "#ifndef CRNN_H",
            "#define CRNN_H",
            "",
            "#include <stdint.h>",
            "",
            '#ifdef __cplusplus\nextern "C" {\n#endif',
            "",
            f"#define CRNN_CHANNELS {tables.input_size} /* values in a frame */",
            f"#define CRNN_OUTPUTS {tables.output_size}",
            *([] if tables.is_vector else self._frames()),
            "",
            "/* One stream. It points nowhere: it may be copied with memcpy, or saved and used by another process. */",
            "typedef struct {",
            *members,
            "} crnn_state;",
            "",
            "/* Before the first frame. */",
            "void crnn_init(crnn_state *state);",
            "",
            f"/* Feed n frames of CRNN_CHANNELS values; out has room for {room}. {returns}",
            "   -1 after the end of the stream. Any division of a stream into calls gives the same bits. */",
            "int crnn_push(crnn_state *state, const float *frames, int n, float *out);",
            "",
            f"/* The end of the stream; out has room for {last_room} values, and holds the outputs for all of it.",
            "   Returns as crnn_push does. */",
            "int crnn_finish(crnn_state *state, float *out);",
        ]
        if self._has_probabilities:
            lines += [
                "",
                f"/* The outputs as probabilities, by {self._program.activation}; they may be the same array. */",
                "void crnn_probabilities(const float *outputs, float *probabilities);",
            ]
        if self._labels:
            lines += ["", "/* What each output stands for. */", "extern const char *const crnn_labels[CRNN_OUTPUTS];"]
        lines += ["", "#ifdef __cplusplus\n}\n#endif", "", "#endif", ""]
        return self._named("\n".join(lines))

    def _frames(self) -> list[str]:
        """Of a program that gives frames: what is to be known of them."""
        return [
            f"#define CRNN_STRIDE {self._program.stride} /* frame t of the outputs is about frame t * CRNN_STRIDE */",
            f"#define CRNN_DELAY {self._program.look_ahead:g} /* frames that it waits for after that one */",
            f"#define CRNN_FLUSHED {max(self._tables.flushed, 1)} /* most frames of outputs at the end */",
        ]

    def source(self) -> str:
        """NAME.c: engine, weights, functions."""
        features = set(self._tables.features) | ({"exp"} if self._has_probabilities else set())
        engine = "\n".join(cut(path.read_text(encoding="utf-8"), features) for path in SOURCES)
        includes = "\n".join(f"#include {name}" for name in _STANDARD)
        parts = ['#include "crnn.h"', includes, engine, self._weights(), self._functions()]
        return self._named(re.sub(r"\n{3,}", "\n\n", "\n\n".join(parts)))

    def _arrays(self) -> list[tuple[str, str, int]]:
        """Of the state: C type, name and size, those that are not empty."""
        tables, n = self._tables, len(self._tables.nodes)
        arrays = [
            ("int64_t", "counts", n),
            ("double", "sums", tables.num_sums),
            ("float", "values", tables.num_values),
            ("int32_t", "heads", n),
            ("int32_t", "done", n),
        ]
        return [each for each in arrays if each[2]]

    def _weights(self) -> str:
        tables = self._tables
        records = ",\n".join(_record(row.tolist()) for row in tables.nodes)
        texts = [
            _ALIGNED,
            f"static const crnn_node crnn_nodes[{len(tables.nodes)}] = {{\n{records}\n}};",
            _table("int32_t", "crnn_ints", tables.ints),
            _table("float", "crnn_weights", tables.weights, "CRNN_ALIGNED "),
        ]
        if tables.bytes.size:
            texts.append(_table("int8_t", "crnn_bytes", tables.bytes, "CRNN_ALIGNED "))
        if self._labels:
            labels = ",\n".join(f'  "{_escaped(label)}"' for label in self._labels)
            texts.append(f"const char *const crnn_labels[CRNN_OUTPUTS] = {{\n{labels}\n}};")
        return "\n\n".join(texts)

    def _functions(self) -> str:
        tables = self._tables
        sizes = f"{len(tables.nodes)}, {tables.num_sums}, {tables.num_values}"
        fields = {member for _, member, _ in self._arrays()}
        text = _FUNCTIONS.replace("@SCRATCH@", str(max(tables.num_scratch, 1)))
        text = text.replace("@BYTES@", "crnn_bytes" if tables.bytes.size else "NULL").replace("@SIZES@", sizes)
        text = text.replace("@SUMS@", "state->sums" if "sums" in fields else "NULL")
        if self._program.activation == "softmax":
            text += _SOFTMAX
        elif self._program.activation == "sigmoid":
            text += _SIGMOID
        return text

    def main(self) -> str:
        """main.c: frames from stdin, outputs to stdout."""
        indent = "  " if self._tables.is_vector else "    "
        values = [f"{indent}crnn_probabilities(out, out);"] if self._has_probabilities else []
        label = 'printf("%s %g%s", crnn_labels[i], ' if self._labels else 'printf("%g%s", '
        text = _MAIN if self._tables.is_vector else _MAIN_FRAMES
        text = text.replace("@PROBABILITIES@\n", "".join(f"{line}\n" for line in values))
        rate = self._program.sample_rate
        block = max(round(rate * _SECONDS_OF_MAIN), 1) if rate else 1
        return self._named(text.replace("@PRINT@", label).replace("@BLOCK@", str(block)))

    def test(self, golden: Sequence[Golden], tolerance: float) -> str:
        """test_NAME.c: golden vectors, each in several chunkings."""
        arrays = []
        for k, each in enumerate(golden):
            arrays.append(_table("float", f"frames_{k}", each.frames.ravel()))
            arrays.append(_table("float", f"outputs_{k}", each.outputs.ravel()))
        cases = ",\n".join(
            f"  {{frames_{k}, {len(each.frames)}, outputs_{k}, {len(each.outputs)}}}" for k, each in enumerate(golden)
        )
        longest = max(len(each.frames) for each in golden)
        rows = 1 if self._tables.is_vector else longest + max(self._tables.flushed, 1)
        text = _TEST.replace("@ARRAYS@", "\n\n".join(arrays)).replace("@CASES@", cases)
        text = text.replace("@ROWS@", str(rows)).replace("@TOLERANCE@", f"{tolerance:g}")
        return self._named(text.replace("@VECTOR@", str(int(self._tables.is_vector))))

    def _named(self, text: str) -> str:
        return (
            text.replace("crnn_", f"{self._name}_")
            .replace("crnn.h", f"{self._name}.h")
            .replace("CRNN_", f"{self._name.upper()}_")
        )


def cut(source: str, features: set[str]) -> str:
    """Engine source without what depends on a CRNN_HAS_... that is not among the features, and without includes."""
    kept: list[str] = []
    depth: list[bool | None] = []  # of each open #if: whether it is kept, None where it is the compiler's to decide
    for line in source.splitlines():
        words = line.split()
        if line.startswith("#if"):
            asked = re.findall(r"CRNN_HAS_(\w+)", line)
            depth.append(any(name.lower() in features for name in asked) if asked else None)
            if asked:
                continue
        elif line.startswith("#else") and depth[-1] is not None:
            depth[-1] = not depth[-1]
            continue
        elif line.startswith("#endif") and depth.pop() is not None:
            continue
        is_included = words[:1] == ["#include"] and (words[1].startswith('"') or words[1] in _STANDARD)
        if False not in depth and not is_included:
            kept.append(line)
    return "\n".join(kept)


def _record(row: list[int]) -> str:
    """A crnn_node; its arrays in braces of their own."""
    values = dict(zip(FIELDS, row, strict=True))
    single = ", ".join(str(value) for name, value in values.items() if not name[-1].isdigit())
    arrays = [
        ", ".join(str(value) for name, value in values.items() if name[:-1] == array and name[-1].isdigit())
        for array in ("p", "weights_at", "bytes_at", "offsets_at")
    ]
    return f"  {{{single}, " + ", ".join(f"{{{array}}}" for array in arrays) + "}"


def _table(kind: str, name: str, values: NDArray[Any], attribute: str = "") -> str:
    """A constant array; one zero where there is nothing, as C has no empty arrays."""
    values = values if values.size else np.zeros(1, values.dtype)
    texts = [_float(value) for value in values] if values.dtype == np.float32 else [str(value) for value in values]
    lines = ",\n".join("  " + ", ".join(texts[i : i + 12]) for i in range(0, len(texts), 12))
    return f"static const {kind} {name}[{len(texts)}] {attribute}= {{\n{lines}\n}};"


def _float(value: np.float32) -> str:
    """Shortest text that gives this very float."""
    if np.isnan(value):
        return "NAN"
    if np.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    return f"{value!s}f"


def _escaped(label: str) -> str:
    """As the inside of a C string: bytes of UTF-8, those outside of plain ASCII in octal."""
    plain = set(range(32, 127)) - set(b'"\\?')  # ? could be part of a trigraph
    return "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in label.encode())


_ALIGNED = """#if defined(__GNUC__)
#define CRNN_ALIGNED __attribute__((aligned(64)))
#else
#define CRNN_ALIGNED
#endif"""

_FUNCTIONS = """static const crnn_program crnn_model = {crnn_nodes, crnn_ints, crnn_weights, @BYTES@, @SIZES@};

static crnn_context crnn_open(crnn_state *state, float *scratch) {
  crnn_context c;
  c.program = &crnn_model;
  c.counts = state->counts;
  c.sums = @SUMS@;
  c.values = state->values;
  c.heads = state->heads;
  c.done = state->done;
  c.scratch = scratch;
  c.out = NULL;
  c.num_out = 0;
  return c;
}

void crnn_init(crnn_state *state) {
  const crnn_context c = crnn_open(state, NULL);
  crnn_clear(&c);
}

int crnn_push(crnn_state *state, const float *frames, int n, float *out) {
  float scratch[@SCRATCH@];
  crnn_context c = crnn_open(state, scratch);
  return (int)crnn_feed(&c, frames, n, out);
}

int crnn_finish(crnn_state *state, float *out) {
  float scratch[@SCRATCH@];
  crnn_context c = crnn_open(state, scratch);
  return (int)crnn_flush(&c, out);
}
"""

_SOFTMAX = """
void crnn_probabilities(const float *outputs, float *probabilities) {
  float largest = outputs[0], total = 0.0f;
  for (int i = 1; i < CRNN_OUTPUTS; i++) largest = outputs[i] > largest ? outputs[i] : largest;
  for (int i = 0; i < CRNN_OUTPUTS; i++) probabilities[i] = crnn_exp(outputs[i] - largest);
  for (int i = 0; i < CRNN_OUTPUTS; i++) total += probabilities[i];
  for (int i = 0; i < CRNN_OUTPUTS; i++) probabilities[i] /= total;
}
"""

_SIGMOID = """
void crnn_probabilities(const float *outputs, float *probabilities) {
  for (int i = 0; i < CRNN_OUTPUTS; i++) probabilities[i] = 1.0f / (1.0f + crnn_exp(-outputs[i]));
}
"""

_SECONDS_OF_MAIN = 0.02
"""Between two answers of the example, where the rate is known."""

_MAIN = """/* Reads frames of CRNN_CHANNELS float32 values from stdin; prints the outputs after every BLOCK of them. */

#include "crnn.h"

#include <stdio.h>

static void show(float *out, int count) {
  if (count < 1) return;
@PROBABILITIES@
  for (int i = 0; i < CRNN_OUTPUTS; i++) {
    @PRINT@(double)out[i], i + 1 < CRNN_OUTPUTS ? "  " : "\\n");
  }
}

int main(void) {
  enum { BLOCK = @BLOCK@ };
  static crnn_state state;
  static float frames[BLOCK * CRNN_CHANNELS];
  float out[CRNN_OUTPUTS];
  size_t n;
  crnn_init(&state);
  while ((n = fread(frames, CRNN_CHANNELS * sizeof(float), BLOCK, stdin)) > 0) {
    show(out, crnn_push(&state, frames, (int)n, out));
  }
  show(out, crnn_finish(&state, out));
  return ferror(stdin) ? 1 : 0;
}
"""

_MAIN_FRAMES = """/* Frames of CRNN_CHANNELS float32 values in; prints outputs behind the frame that they are about. */

#include "crnn.h"

#include <stdio.h>

static void show(float *out, int count) {
  static long frame;
  for (; count > 0; count--, out += CRNN_OUTPUTS, frame += CRNN_STRIDE) {
@PROBABILITIES@
    printf("%ld  ", frame);
    for (int i = 0; i < CRNN_OUTPUTS; i++) {
      @PRINT@(double)out[i], i + 1 < CRNN_OUTPUTS ? "  " : "\\n");
    }
  }
}

int main(void) {
  static crnn_state state;
  static float frame[CRNN_CHANNELS], out[CRNN_FLUSHED * CRNN_OUTPUTS];
  crnn_init(&state);
  while (fread(frame, sizeof frame, 1, stdin) == 1) show(out, crnn_push(&state, frame, 1, out));
  show(out, crnn_finish(&state, out));
  return ferror(stdin) ? 1 : 0;
}
"""

_TEST = """/* Compares crnn.c with the network it was written from; exits with 0 when all is well. */

#include "crnn.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

@ARRAYS@

static const struct {
  const float *frames;
  int length;
  const float *outputs;
  int rows;
} cases[] = {
@CASES@
};

static float found[@ROWS@ * CRNN_OUTPUTS], first[@ROWS@ * CRNN_OUTPUTS];

/* Rows of outputs for the whole of a sequence. how 0: in one call; 1: frame by frame; 2: in changing chunks, empty ones
   among them, the state copied in between. */
static int run(const float *frames, int length, int how, float *out) {
  static crnn_state state, moved;
  int rows = 0, count;
  unsigned dice = 7;
  crnn_init(&state);
  for (int at = 0; at < length;) {
    int n = how == 0 ? length : 1;
    if (how == 2) {
      dice = dice * 1103515245u + 12345u;
      n = (int)(dice >> 16) % 7;
    }
    if (n > length - at) n = length - at;
    count = crnn_push(&state, frames + at * CRNN_CHANNELS, n, out + rows * CRNN_OUTPUTS);
    if (!@VECTOR@) rows += count;
    at += n;
    memcpy(&moved, &state, sizeof state);
    memset(&state, 0, sizeof state);
    memcpy(&state, &moved, sizeof state);
  }
  count = crnn_finish(&state, out + rows * CRNN_OUTPUTS);
  if (crnn_push(&state, frames, 1, out) != -1) return -1;
  return rows + count;
}

int main(void) {
  double worst = 0.0, largest = 1.0;
  for (int k = 0; k < (int)(sizeof cases / sizeof cases[0]); k++) {
    const int values = cases[k].rows * CRNN_OUTPUTS;
    for (int how = 0; how < 3; how++) {
      if (run(cases[k].frames, cases[k].length, how, found) != cases[k].rows) {
        printf("FAIL: sequence %d, chunking %d: wrong number of outputs\\n", k, how);
        return 1;
      }
      if (how == 0) memcpy(first, found, sizeof first);
      if (memcmp(found, first, sizeof(float) * (size_t)values) != 0) {
        printf("FAIL: sequence %d: chunking %d gives other outputs than the whole\\n", k, how);
        return 1;
      }
    }
    for (int i = 0; i < values; i++) {
      const double difference = fabs((double)first[i] - (double)cases[k].outputs[i]);
      if (!(difference <= worst)) worst = difference;
      if (fabs((double)cases[k].outputs[i]) > largest) largest = fabs((double)cases[k].outputs[i]);
    }
  }
  const int good = worst <= @TOLERANCE@ * largest;
  printf("%s: largest difference from the network %.3g of %.3g\\n", good ? "ok" : "FAIL", worst, largest);
  return good ? 0 : 1;
}
"""
