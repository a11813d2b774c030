/* A GRU whose reset r comes before the product with the state, as Cho et al. 2014 wrote it. Needs recurrence.h.

   weights: for WIDE units after another, input by input, filled up to whole blocks, those of r, then of z, then of n;
   backward those of the slopes of r and z as inputs, then those of n. Gates and slopes: r, z, n. */

static const Layout GRU_BEFORE = {.slopes = 3, .gates = 3, .of_state = 3, .of_reset = 1};

INLINE int64_t whole_blocks(int64_t hidden) { return (hidden + WIDE - 1) / WIDE * WIDE; }

/* Gate r, z or n of some rows: what goes into it, and its function. x: the state; for n what r has left of it. */
INLINE void gru_before_block(const Step *s, int64_t at, const int rows, int64_t unit, const int gate) {
  const int64_t hidden = s->hidden;
  const float *x[ROWS];
  vec low[ROWS], high[ROWS];
  UNROLL for (int i = 0; i < rows; i++) x[i] = gate < 2 ? s->before[at + i] : s->room + (at + i) * hidden;
  wide_sums(s->weights + (gate * whole_blocks(hidden) + unit) * hidden, x, rows, hidden, low, high);
  for (int half = 0; half < 2 && unit < hidden; half++, unit += WIDTH) {
    const int64_t count = hidden - unit;
    for (int i = 0; i < rows; i++) {
      float *gates = s->gates[at + i] + unit;
      const vec sum = (half ? high[i] : low[i]) + load(gates + gate * hidden, count);
      const vec h = load(s->before[at + i] + unit, count);
      const vec value = gate < 2 ? sigmoid(sum) : hyperbolic_tangent(sum);
      store(gates + gate * hidden, value, count);
      if (gate == 0) store(s->room + (at + i) * hidden + unit, value * h, count);
      if (gate == 2) store(s->out[at + i] + unit, value + load(gates + hidden, count) * (h - value), count);
    }
  }
}

static void gru_before_step(const Step *s) {
#define GATE(gate)                                                                        \
  for (int64_t unit = 0; unit < s->hidden; unit += WIDE) {                                \
    int64_t i = 0;                                                                        \
    for (; i + ROWS <= s->count; i += ROWS) gru_before_block(s, i, ROWS, unit, gate);     \
    for (; i + 2 <= s->count; i += 2) gru_before_block(s, i, 2, unit, gate);              \
    for (; i < s->count; i++) gru_before_block(s, i, 1, unit, gate);                      \
  }
  GATE(0)
  GATE(1)
  GATE(2)
#undef GATE
}

/* Slopes of z and n, and what passes by. */
INLINE void gru_before_first(const BackwardStep *s, int64_t at, const int rows, int64_t unit) {
  const int64_t hidden = s->hidden;
  vec low[ROWS], high[ROWS];
  wide_sums(s->weights + 2 * hidden * unit, s->after + at, rows, 2 * hidden, low, high);
  for (int half = 0; half < 2 && unit < hidden; half++, unit += WIDTH) {
    const int64_t count = hidden - unit;
    for (int i = 0; i < rows; i++) {
      const float *gates = s->gates[at + i] + unit;
      float *to = s->slopes[at + i] + unit, *carried = s->carried[at + i] + unit;
      const vec z = load(gates + hidden, count), n = load(gates + 2 * hidden, count);
      const vec h = (half ? high[i] : low[i]) + load(carried, count) + load(s->into[at + i] + unit, count);
      store(carried, h * z, count);
      store(to + hidden, h * (load(s->before[at + i] + unit, count) - n) * z * (1.0f - z), count);
      store(to + 2 * hidden, h * (1.0f - z) * (1.0f - n * n), count);
    }
  }
}

/* Slopes of r, from those of n. */
INLINE void gru_before_second(const BackwardStep *s, int64_t at, const int rows, int64_t unit) {
  const int64_t hidden = s->hidden;
  const float *x[ROWS];
  vec low[ROWS], high[ROWS];
  UNROLL for (int i = 0; i < rows; i++) x[i] = s->slopes[at + i] + 2 * hidden;
  wide_sums(s->weights + 2 * hidden * whole_blocks(hidden) + hidden * unit, x, rows, hidden, low, high);
  for (int half = 0; half < 2 && unit < hidden; half++, unit += WIDTH) {
    const int64_t count = hidden - unit;
    for (int i = 0; i < rows; i++) {
      float *carried = s->carried[at + i] + unit;
      const vec r = load(s->gates[at + i] + unit, count), kept = half ? high[i] : low[i];
      store(s->slopes[at + i] + unit, kept * load(s->before[at + i] + unit, count) * r * (1.0f - r), count);
      store(carried, load(carried, count) + kept * r, count);
    }
  }
}

static void gru_before_backward_step(const BackwardStep *s) {
#define EACH(block)                                                        \
  for (int64_t unit = 0; unit < s->hidden; unit += WIDE) {                 \
    int64_t i = 0;                                                         \
    for (; i + ROWS <= s->count; i += ROWS) block(s, i, ROWS, unit);       \
    for (; i + 2 <= s->count; i += 2) block(s, i, 2, unit);                \
    for (; i < s->count; i++) block(s, i, 1, unit);                        \
  }
  EACH(gru_before_first)
  EACH(gru_before_second)
#undef EACH
}
