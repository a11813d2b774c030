/* An LSTM, gates in PyTorch's order: input, forget, new, output. Needs recurrence.h.

   weights, forward: for WIDTH units after another, input by input, their weights of i, f, g and o. Memory: the cell.
   Slopes: of the gates before their functions. weights, backward: for WIDE units after another, slope by slope, their
   weights as inputs. */

static const Layout LSTM = {.slopes = 4, .of_input = 0, .gates = 4, .of_state = 4};

#if ROWS > 4
#define LSTM_ROWS 6 /* times four gates: as many sums as fit beside the weights into 32 registers */
#else
#define LSTM_ROWS 2
#endif

INLINE void lstm_block(const Step *s, int64_t at, const int rows, int64_t unit) {
  const int64_t hidden = s->hidden, count = hidden - unit;
  const float *w = s->weights + 4 * hidden * unit, *const *before = s->before + at;
  vec in[LSTM_ROWS], forget[LSTM_ROWS], new[LSTM_ROWS], output[LSTM_ROWS];
  UNROLL for (int i = 0; i < rows; i++) {
    const float *gates = s->gates[at + i] + unit;
    in[i] = load(gates, count);
    forget[i] = load(gates + hidden, count);
    new[i] = load(gates + 2 * hidden, count);
    output[i] = load(gates + 3 * hidden, count);
  }
  for (int64_t k = 0; k < hidden; k++, w += 4 * WIDTH) {
    const vec of_in = load(w, WIDTH), of_forget = load(w + WIDTH, WIDTH), of_new = load(w + 2 * WIDTH, WIDTH);
    const vec of_output = load(w + 3 * WIDTH, WIDTH);
    UNROLL for (int i = 0; i < rows; i++) {
      const float h = before[i][k];
      in[i] += of_in * h;
      forget[i] += of_forget * h;
      new[i] += of_new * h;
      output[i] += of_output * h;
    }
  }
  for (int i = 0; i < rows; i++) {
    float *gates = s->gates[at + i] + unit, *cell = s->cell[at + i] + unit;
    const vec a = sigmoid(in[i]), f = sigmoid(forget[i]), g = hyperbolic_tangent(new[i]), o = sigmoid(output[i]);
    const vec c = f * load(cell, count) + a * g;
    store(cell, c, count);
    store(s->out[at + i] + unit, o * hyperbolic_tangent(c), count);
    if (s->memory[at + i] == NULL) continue;
    store(gates, a, count);
    store(gates + hidden, f, count);
    store(gates + 2 * hidden, g, count);
    store(gates + 3 * hidden, o, count);
    store(s->memory[at + i] + unit, c, count);
  }
}

static void lstm_step(const Step *s) {
  for (int64_t unit = 0; unit < s->hidden; unit += WIDTH) {
    int64_t i = 0;
#define BLOCKS(n) \
  for (; i + n <= s->count; i += n) lstm_block(s, i, n, unit);
    BLOCKS(LSTM_ROWS)
    SMALL_BLOCKS(BLOCKS)
#undef BLOCKS
  }
}

INLINE void lstm_backward_block(const BackwardStep *s, int64_t at, const int rows, int64_t unit) {
  const int64_t hidden = s->hidden;
  vec low[ROWS], high[ROWS];
  wide_sums(s->weights + 4 * hidden * unit, s->after + at, rows, 4 * hidden, low, high);
  for (int half = 0; half < 2 && unit < hidden; half++, unit += WIDTH) {
    const int64_t count = hidden - unit;
    for (int i = 0; i < rows; i++) {
      const float *gates = s->gates[at + i] + unit;
      float *to = s->slopes[at + i] + unit, *carried = s->carried[at + i] + unit;
      const vec a = load(gates, count), f = load(gates + hidden, count), g = load(gates + 2 * hidden, count);
      const vec o = load(gates + 3 * hidden, count);
      const vec bent = hyperbolic_tangent(load(s->memory[at + i] + unit, count));
      const vec h = (half ? high[i] : low[i]) + load(s->into[at + i] + unit, count);
      const vec c = h * o * (1.0f - bent * bent) + load(carried, count);
      store(carried, c * f, count);
      store(to, c * g * a * (1.0f - a), count);
      store(to + hidden, c * load(s->cell[at + i] + unit, count) * f * (1.0f - f), count);
      store(to + 2 * hidden, c * a * (1.0f - g * g), count);
      store(to + 3 * hidden, h * bent * o * (1.0f - o), count);
    }
  }
}

static void lstm_backward_step(const BackwardStep *s) {
  for (int64_t unit = 0; unit < s->hidden; unit += WIDE) {
    int64_t i = 0;
#define BLOCKS(n) \
  for (; i + n <= s->count; i += n) lstm_backward_block(s, i, n, unit);
    BLOCKS(ROWS)
    SMALL_BLOCKS(BLOCKS)
#undef BLOCKS
  }
}
