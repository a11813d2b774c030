/* A GRU as PyTorch, cuDNN and ONNX define it: the reset r comes after the product with the state. Needs recurrence.h.

   weights, forward: for WIDTH units after another, input by input, their weights of r, z and n; bias: of n, before it is
   reset. Gates: r, z, n; memory: what r multiplies. Slopes: of what r multiplies, of r and z before their sigmoids, of n
   before its tanh. weights, backward: for WIDE units after another, slope by slope, their weights as inputs. */

static const Layout GRU = {.slopes = 4, .of_input = 1, .gates = 3, .of_state = 3};

INLINE void gru_block(const Step *s, int64_t at, const int rows, int64_t unit) {
  const int64_t hidden = s->hidden, count = hidden - unit;
  const float *w = s->weights + 3 * hidden * unit, *const *before = s->before + at;
  vec r[ROWS], z[ROWS], n[ROWS];
  UNROLL for (int i = 0; i < rows; i++) {
    const float *gates = s->gates[at + i] + unit;
    r[i] = load(gates, count);
    z[i] = load(gates + hidden, count);
    n[i] = load(s->bias + unit, count);
  }
  for (int64_t k = 0; k < hidden; k++, w += 3 * WIDTH) {
    const vec of_r = load(w, WIDTH), of_z = load(w + WIDTH, WIDTH), of_n = load(w + 2 * WIDTH, WIDTH);
    UNROLL for (int i = 0; i < rows; i++) {
      const float h = before[i][k];
      r[i] += of_r * h;
      z[i] += of_z * h;
      n[i] += of_n * h;
    }
  }
  for (int i = 0; i < rows; i++) {
    float *gates = s->gates[at + i] + unit;
    const vec reset = sigmoid(r[i]), update = sigmoid(z[i]);
    const vec new = hyperbolic_tangent(load(gates + 2 * hidden, count) + reset * n[i]);
    store(s->out[at + i] + unit, new + update * (load(before[i] + unit, count) - new), count);
    if (s->memory[at + i] == NULL) continue;
    store(gates, reset, count);
    store(gates + hidden, update, count);
    store(gates + 2 * hidden, new, count);
    store(s->memory[at + i] + unit, n[i], count);
  }
}

static void gru_step(const Step *s) {
  for (int64_t unit = 0; unit < s->hidden; unit += WIDTH) {
    int64_t i = 0;
#define BLOCKS(n) \
  for (; i + n <= s->count; i += n) gru_block(s, i, n, unit);
    BLOCKS(ROWS)
    SMALL_BLOCKS(BLOCKS)
#undef BLOCKS
  }
}

INLINE void gru_backward_block(const BackwardStep *s, int64_t at, const int rows, int64_t unit) {
  const int64_t hidden = s->hidden;
  vec low[ROWS], high[ROWS];
  wide_sums(s->weights + 3 * hidden * unit, s->after + at, rows, 3 * hidden, low, high);
  for (int half = 0; half < 2 && unit < hidden; half++, unit += WIDTH) {
    const int64_t count = hidden - unit;
    for (int i = 0; i < rows; i++) {
      const float *gates = s->gates[at + i] + unit;
      float *to = s->slopes[at + i] + unit, *carried = s->carried[at + i] + unit;
      const vec r = load(gates, count), z = load(gates + hidden, count), n = load(gates + 2 * hidden, count);
      const vec h = (half ? high[i] : low[i]) + load(carried, count) + load(s->into[at + i] + unit, count);
      const vec d_n = h * (1.0f - z) * (1.0f - n * n), d_kept = d_n * r;
      store(carried, h * z, count);
      store(to, d_kept, count);
      store(to + hidden, d_kept * load(s->memory[at + i] + unit, count) * (1.0f - r), count);
      store(to + 2 * hidden, h * (load(s->before[at + i] + unit, count) - n) * z * (1.0f - z), count);
      store(to + 3 * hidden, d_n, count);
    }
  }
}

static void gru_backward_step(const BackwardStep *s) {
  for (int64_t unit = 0; unit < s->hidden; unit += WIDE) {
    int64_t i = 0;
#define BLOCKS(n) \
  for (; i + n <= s->count; i += n) gru_backward_block(s, i, n, unit);
    BLOCKS(ROWS)
    SMALL_BLOCKS(BLOCKS)
#undef BLOCKS
  }
}
