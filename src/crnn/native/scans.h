/* Cells whose gates do not look at the state, so that a step is a few multiplications. Needs recurrence.h.

   minGRU, gates z, n: h' = h + z (n - h).  minLSTM, gates f, i, n: h' = (f h + i n) / (f + i).
   QRNN, gates f, z, o: c' = f c + (1 - f) z, h' = o c'; memory: c. Slopes: of the gates before their functions. */

static const Layout MINGRU = {.slopes = 2, .gates = 2}, MINLSTM = {.slopes = 3, .gates = 3};
static const Layout QRNN = {.slopes = 3, .gates = 3};

#define EACH_UNIT                                                                   \
  for (int64_t i = 0; i < s->count; i++)                                            \
    for (int64_t unit = 0, count = s->hidden; count > 0; unit += WIDTH, count -= WIDTH)

static void mingru_step(const Step *s) {
  const int64_t hidden = s->hidden;
  EACH_UNIT {
    float *gates = s->gates[i] + unit;
    const vec z = sigmoid(load(gates, count)), h = load(s->before[i] + unit, count);
    store(gates, z, count);
    store(s->out[i] + unit, h + z * (load(gates + hidden, count) - h), count);
  }
}

static void mingru_backward_step(const BackwardStep *s) {
  const int64_t hidden = s->hidden;
  EACH_UNIT {
    const float *gates = s->gates[i] + unit;
    float *to = s->slopes[i] + unit, *carried = s->carried[i] + unit;
    const vec z = load(gates, count), n = load(gates + hidden, count);
    const vec h = load(s->into[i] + unit, count) + load(carried, count);
    store(to, h * (n - load(s->before[i] + unit, count)) * z * (1.0f - z), count);
    store(to + hidden, h * z, count);
    store(carried, h * (1.0f - z), count);
  }
}

static void minlstm_step(const Step *s) {
  const int64_t hidden = s->hidden;
  EACH_UNIT {
    float *gates = s->gates[i] + unit;
    const vec f = sigmoid(load(gates, count)), in = sigmoid(load(gates + hidden, count));
    const vec n = load(gates + 2 * hidden, count), kept = f / (f + in);
    store(gates, f, count);
    store(gates + hidden, in, count);
    store(s->out[i] + unit, n + kept * (load(s->before[i] + unit, count) - n), count);
  }
}

static void minlstm_backward_step(const BackwardStep *s) {
  const int64_t hidden = s->hidden;
  EACH_UNIT {
    const float *gates = s->gates[i] + unit;
    float *to = s->slopes[i] + unit, *carried = s->carried[i] + unit;
    const vec f = load(gates, count), in = load(gates + hidden, count), n = load(gates + 2 * hidden, count);
    const vec kept = f / (f + in), h = load(s->into[i] + unit, count) + load(carried, count);
    const vec slope = h * (load(s->before[i] + unit, count) - n) * kept * (1.0f - kept);
    store(to, slope * (1.0f - f), count);
    store(to + hidden, -slope * (1.0f - in), count);
    store(to + 2 * hidden, h * (1.0f - kept), count);
    store(carried, h * kept, count);
  }
}

static void qrnn_step(const Step *s) {
  const int64_t hidden = s->hidden;
  EACH_UNIT {
    float *gates = s->gates[i] + unit, *cell = s->cell[i] + unit;
    const vec f = sigmoid(load(gates, count)), z = hyperbolic_tangent(load(gates + hidden, count));
    const vec o = sigmoid(load(gates + 2 * hidden, count)), c = z + f * (load(cell, count) - z);
    store(cell, c, count);
    store(s->out[i] + unit, o * c, count);
    if (s->memory[i] == NULL) continue;
    store(gates, f, count);
    store(gates + hidden, z, count);
    store(gates + 2 * hidden, o, count);
    store(s->memory[i] + unit, c, count);
  }
}

static void qrnn_backward_step(const BackwardStep *s) {
  const int64_t hidden = s->hidden;
  EACH_UNIT {
    const float *gates = s->gates[i] + unit;
    float *to = s->slopes[i] + unit, *carried = s->carried[i] + unit;
    const vec f = load(gates, count), z = load(gates + hidden, count), o = load(gates + 2 * hidden, count);
    const vec h = load(s->into[i] + unit, count), c = h * o + load(carried, count);
    store(to, c * (load(s->cell[i] + unit, count) - z) * f * (1.0f - f), count);
    store(to + hidden, c * (1.0f - f) * (1.0f - z * z), count);
    store(to + 2 * hidden, h * load(s->memory[i] + unit, count) * o * (1.0f - o), count);
    store(carried, c * f, count);
  }
}
