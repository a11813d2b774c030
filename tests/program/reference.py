"""Every operation of a program as plain loops over one sequence, in float64: written for reading, to test against.

Of what stands in crnn.program.ops, and of nothing else: no layer, no batch, no stream. int8 is not in here.
"""

import math

import numpy as np

from crnn.program import ops

erf = np.vectorize(math.erf)

FUNCTIONS = {
    "relu": lambda x: np.where(x > 0, x, 0.0),
    "gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
    "silu": lambda x: x * sigmoid(x),
    "tanh": np.tanh,
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "asinh": np.arcsinh,
    "sigmoid": lambda x: sigmoid(x),
    "softplus": lambda x: np.logaddexp(0.0, x),
}


def interpret(program, frames):
    """Values of every node for one sequence: (frames, size) for a stream, (size,) for a vector.

    Args:
        frames: (time, *features), or (time,) symbol ids.
    """
    values = []
    for node in program.nodes:
        if isinstance(node.op, ops.Input):
            value = np.asarray(frames, np.float64).reshape(len(frames), -1)
        else:
            value = apply(node.op, [values[i] for i in node.inputs])
        assert value.shape[-1] == node.size, node
        assert node.is_vector == (value.ndim == 1), node
        values.append(value)
    return values


def apply(op, inputs):
    """What an operation gives for the values of its inputs."""
    if isinstance(op, (ops.Add, ops.Multiply, ops.Concat)):
        return join(op, inputs)
    (x,) = inputs
    for cls, function in STREAM_OPERATIONS.items():
        if isinstance(op, cls):
            return function(op, x)
    frame_operation = FRAME_OPERATIONS[type(op)]
    return frame_operation(op, x) if x.ndim == 1 else np.array([frame_operation(op, frame) for frame in x])


def join(op, inputs):
    if inputs[0].ndim == 2:
        shortest = min(len(x) for x in inputs)
        inputs = [x[:shortest] for x in inputs]
    if isinstance(op, ops.Multiply):
        return np.prod(inputs, axis=0)
    return sum(inputs) if isinstance(op, ops.Add) else np.concatenate(inputs, axis=-1)


# A window is a list of its frames by their place in the sequence; those outside of the sequence are left out.


def windows(op, x):
    count = -(-len(x) // op.stride) if op.tail == "ceil" else (len(x) - op.extent) // op.stride + 1
    for t in range(count):
        start = t * op.stride - op.pad_left
        yield start, {i: x[i] for i in range(start, start + op.extent) if 0 <= i < len(x)}


def conv(op, x):
    channels, group_inputs, taps = op.weight.shape
    out = []
    for start, window in windows(op, x):
        y = op.bias.astype(np.float64)
        for c in range(channels):
            first = c // (channels // op.groups) * group_inputs
            for tap in range(taps):
                if start + tap * op.dilation in window:
                    frame = window[start + tap * op.dilation]
                    y[c] += op.weight[c, :, tap].astype(np.float64) @ frame[first : first + group_inputs]
        out.append(y)
    return np.array(out)


def conv2d(op, x):
    _, in_channels, taps, bin_taps = op.weight.shape
    bins = -(-op.in_bins // op.bin_stride)
    out = []
    for start, window in windows(op, x):
        y = np.repeat(op.bias.astype(np.float64)[:, None], bins, 1)
        for tap in range(taps):
            if start + tap not in window:
                continue
            frame = window[start + tap].reshape(in_channels, op.in_bins)
            for b in range(bins):
                for bin_tap in range(bin_taps):
                    place = b * op.bin_stride - bin_taps // 2 + bin_tap
                    if 0 <= place < op.in_bins:
                        y[:, b] += op.weight[:, :, tap, bin_tap] @ frame[:, place]
        out.append(y.reshape(-1))
    return np.array(out)


def pool(op, x):
    reduce = np.max if op.kind == "max" else np.mean
    out = []
    for start, window in windows(op, x):
        out.append(reduce([frame for i, frame in window.items() if i < start + op.size], axis=0))
    return np.array(out)


def log_mel(op, x):
    before = 1 if op.preemphasis else 0
    out = []
    for start, window in windows(op, x):
        samples = np.array([window.get(start + i, np.zeros(op.channels)) for i in range(op.extent)])
        if before:
            samples = samples[1:] - op.preemphasis * samples[:-1]
        bands = []
        for channel in samples[: len(op.window)].T:
            energy = np.abs(np.fft.rfft(channel * op.window, op.n_fft)) ** op.power
            bands.append(np.log(np.maximum(energy @ op.filters, op.log_floor)))
        out.append(np.concatenate(bands))
    return np.array(out)


def difference(op, x):
    return np.array([x[t] - x[max(t - 1, 0)] for t in range(len(x))])


def fill_missing(op, x):
    newest, out = np.zeros(x.shape[1]), []
    for frame in x:
        newest = np.where(np.isnan(frame), newest if op.last else 0.0, frame)
        out.append(newest)
    return np.array(out)


def recurrent(op, x):
    h, *cell = op.initial.astype(np.float64)
    out = []
    for frame in x[::-1] if op.reverse else x:
        from_x = op.weight_x.astype(np.float64) @ frame + op.bias_x
        from_h = op.weight_h.astype(np.float64) @ h + op.bias_h
        if op.cell == "rnn":
            h = np.tanh(from_x + from_h)
        elif op.cell == "lstm":
            i, f, g, o = np.split(from_x + from_h, 4)
            cell = [sigmoid(f) * cell[0] + sigmoid(i) * np.tanh(g)]
            h = sigmoid(o) * np.tanh(cell[0])
        else:
            (rx, zx, nx), (rh, zh, nh) = np.split(from_x, 3), np.split(from_h, 3)
            z = sigmoid(zx + zh)
            h = (1 - z) * np.tanh(nx + sigmoid(rx + rh) * nh) + z * h
        out.append(h)
    return np.array(out[::-1] if op.reverse else out)


def gated_mean(op, x):
    h, out = op.initial.astype(np.float64), []
    for frame in x[::-1] if op.reverse else x:
        gate, new = np.split(frame, 2)
        h = sigmoid(gate) * h + (1 - sigmoid(gate)) * new
        out.append(h)
    return np.array(out[::-1] if op.reverse else out)


def attend(op, x):
    scores = np.array([op.score @ np.tanh(op.weight @ frame + op.bias) for frame in x])
    weights = softmax(scores)
    return sum(weight * frame for weight, frame in zip(weights, x, strict=True))


def sequence_norm(op, x):
    y = x - np.nanmean(x, axis=0)
    return y / (np.nanstd(x, axis=0) + op.floor) if op.divide else y


def level(op, x):
    peak = np.nanmax(np.abs(x))
    return x / peak if peak > 0 else x


def frame_norm(op, frame):
    if op.kind == "layer":
        frame = frame - frame.mean()
    return frame / np.sqrt((frame**2).mean() + op.eps) * op.weight + op.bias


def dense(op, frame):
    return np.concatenate([op.weight.astype(np.float64) @ row + op.bias for row in frame.reshape(op.rows, -1)])


def pool_bins(op, frame):
    reduce = np.max if op.kind == "max" else np.mean
    rows, starts = frame.reshape(op.channels, op.bins), range(0, op.bins - op.size + 1, op.stride)
    return np.array([reduce(row[start : start + op.size]) for row in rows for start in starts])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


STREAM_OPERATIONS = {
    ops.Conv: conv,
    ops.Conv2d: conv2d,
    ops.Pool: pool,
    ops.LogMel: log_mel,
    ops.Difference: difference,
    ops.FillMissing: fill_missing,
    ops.Recurrent: recurrent,
    ops.GatedMean: gated_mean,
    ops.SequenceNorm: sequence_norm,
    ops.Level: level,
    ops.First: lambda op, x: x[0],
    ops.Last: lambda op, x: x[-1],
    ops.Mean: lambda op, x: x.mean(0),
    ops.Max: lambda op, x: x.max(0),
    ops.Attend: attend,
}
"""(op, (frames, size)) -> a stream or a vector."""

FRAME_OPERATIONS = {
    ops.Affine: lambda op, frame: (frame - op.centre) * op.scale + op.shift,
    ops.Map: lambda op, frame: FUNCTIONS[op.function](frame),
    ops.Softmax: lambda op, frame: softmax(frame),
    ops.Dense: dense,
    ops.FrameNorm: frame_norm,
    ops.IsMissing: lambda op, frame: np.isnan(frame).astype(np.float64),
    ops.Embedding: lambda op, frame: op.table[int(frame[0])].astype(np.float64),
    ops.PoolBins: pool_bins,
    ops.Slice: lambda op, frame: frame[op.start : op.stop],
    ops.Reshape: lambda op, frame: frame,
}
"""(op, (size,)) -> (size,)."""
