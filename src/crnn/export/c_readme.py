"""The README beside exported C files: what they need, how to compile them, how to use them."""

from __future__ import annotations

from crnn.program.program import Program, macs
from crnn.program.tables import Tables

_MANY_FRAMES = 100_000
"""Frames over which the operations of a frame are averaged: strides need some."""


def readme(program: Program, tables: Tables, name: str, code_bytes: int | None, unchecked: str | None) -> str:
    """README.md of an exported network."""
    weights = tables.weights.nbytes + tables.bytes.nbytes
    code = "about 10 to 20 kB of code" if code_bytes is None else f"{code_bytes:,} bytes of code and tables"
    rate = program.sample_rate
    work = macs(program, _MANY_FRAMES) / _MANY_FRAMES
    per_second = f"{work * rate:,.0f} a second of signal ({rate:g} frames)" if rate else f"{work:,.0f} a frame"
    delay = f"{program.look_ahead:g} frames" + (f", {program.look_ahead / rate:.3g} s" if rate else "")
    labels = ", ".join(program.labels) or "none"
    state = "It was compiled where it was written, and its test passed."
    if unchecked is not None:
        state = f"**It was not compiled where it was written** ({unchecked.splitlines()[0]}): run the test below first."
    makes = {
        "softmax": f"`{name}_probabilities` makes probabilities of them (softmax).",
        "sigmoid": f"`{name}_probabilities` makes a probability of each (sigmoid); the labels are those above 0.5.",
    }.get(program.activation, "They are " + (program.left_to_do or "values in the target's units") + ".")
    when = "for the stream so far, after every call"
    call = f"if ({name}_push(&state, frames, n, out) > 0) ...  /* n frames of {tables.input_size} values, any n */"
    last = f"{name}_finish(&state, out);                       /* the end: the outputs for all of it */"
    room = f"{name.upper()}_OUTPUTS"
    if not tables.is_vector:
        when = f"for every frame: frame t is about input frame {program.stride} t, and comes with the delay below"
        call = (
            f"count = {name}_push(&state, frames, n, out);  /* n frames of {tables.input_size} values -> at most n */"
        )
        most = max(tables.flushed, 1)
        last = f"count = {name}_finish(&state, out);           /* the end: what it makes ready, at most {most} */"
        room = f"N * {room}"
    return f"""# {name}

A recurrent network as strict C99: `{name}.c` and `{name}.h`, no allocation, no library but `math.h`. {state}

| | |
| --- | --- |
| input | {_input(program, tables)} |
| outputs | {tables.output_size}, {when}; labels: {labels} |
| delay | {delay} |
| shortest sequence | {program.min_length} frames; with fewer there are no outputs |
| flash | {weights:,} bytes of weights, {code} |
| RAM | {tables.state_bytes:,} bytes a stream (`sizeof({name}_state)`), {tables.num_scratch * 4:,} bytes of stack |
| multiply-adds | {per_second} |

## Compile

    cc -std=c99 -O3 -c {name}.c                                  # -march=native, or your machine's flags, where you can
    cc -std=c99 -O3 test_{name}.c {name}.c -lm -o test && ./test
    cc -std=c99 -O3 main.c {name}.c -lm -o example && ./example < frames.f32

Do not use `-ffast-math` or `-Ofast`: rounding and NaN are written out by hand.

## Use

```c
{name}_state state;
float out[{room}];
{name}_init(&state);
{call}
{last}
```

{makes}

One table of weights serves any number of states. A state points nowhere: copy it with `memcpy`, save it, go on
elsewhere. Any division of a stream into calls gives the same bits. NaN and infinity give NaN or large outputs and do no
harm; a state that has seen them may keep them until the next `{name}_init`.
"""


def _input(program: Program, tables: Tables) -> str:
    vocabulary = getattr(program.nodes[0].op, "vocabulary", 0)
    if vocabulary:
        return f"symbol ids as float32, 0 to {vocabulary - 1}, one a frame"
    return f"frames of {tables.input_size} float32 values"
