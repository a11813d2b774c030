/* A plain RNN with tanh. Needs recurrence.h.

   weights, forward: for WIDE units after another, input by input; backward: the same of the transpose. Gates: the output
   once more. Slopes: of what goes into the tanh. */

static const Layout RNN = {.slopes = 1, .gates = 1, .of_state = 1};

INLINE void rnn_block(const Step *s, int64_t at, const int rows, int64_t unit) {
  const int64_t hidden = s->hidden;
  vec low[ROWS], high[ROWS];
  wide_sums(s->weights + hidden * unit, s->before + at, rows, hidden, low, high);
  for (int half = 0; half < 2 && unit < hidden; half++, unit += WIDTH) {
    const int64_t count = hidden - unit;
    for (int i = 0; i < rows; i++) {
      float *gate = s->gates[at + i] + unit;
      const vec h = hyperbolic_tangent((half ? high[i] : low[i]) + load(gate, count));
      store(gate, h, count);
      store(s->out[at + i] + unit, h, count);
    }
  }
}

static void rnn_step(const Step *s) {
  for (int64_t unit = 0; unit < s->hidden; unit += WIDE) {
    int64_t i = 0;
#define BLOCKS(n) \
  for (; i + n <= s->count; i += n) rnn_block(s, i, n, unit);
    BLOCKS(ROWS)
    SMALL_BLOCKS(BLOCKS)
#undef BLOCKS
  }
}

INLINE void rnn_backward_block(const BackwardStep *s, int64_t at, const int rows, int64_t unit) {
  const int64_t hidden = s->hidden;
  vec low[ROWS], high[ROWS];
  wide_sums(s->weights + hidden * unit, s->after + at, rows, hidden, low, high);
  for (int half = 0; half < 2 && unit < hidden; half++, unit += WIDTH) {
    const int64_t count = hidden - unit;
    for (int i = 0; i < rows; i++) {
      const vec h = load(s->gates[at + i] + unit, count);
      const vec d = (half ? high[i] : low[i]) + load(s->into[at + i] + unit, count);
      store(s->slopes[at + i] + unit, d * (1.0f - h * h), count);
    }
  }
}

static void rnn_backward_step(const BackwardStep *s) {
  for (int64_t unit = 0; unit < s->hidden; unit += WIDE) {
    int64_t i = 0;
#define BLOCKS(n) \
  for (; i + n <= s->count; i += n) rnn_backward_block(s, i, n, unit);
    BLOCKS(ROWS)
    SMALL_BLOCKS(BLOCKS)
#undef BLOCKS
  }
}
