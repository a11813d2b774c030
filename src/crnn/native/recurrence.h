/* What all cells share: which rows a step computes, the products with the inputs before it, and going backward the
   products with the gradients after it. Needs products.h.

   Sequences lie row by row, a row a frame; sequence b has the rows start[b] ... start[b] + length[b] - 1. `order` lists
   those that a call computes, longest first, so that the ones still running are always the first of them and what is
   padded costs nothing. A call touches only its own sequences: threads divide them, and need not wait for each other.

   Products and steps take turns, STEPS frames of MOST sequences at a time, so that what one leaves is still in the cache
   when the other reads it. */

#define STEPS 8 /* frames of a sequence between two products */
#define MOST 32 /* sequences that run side by side */
#define GAP 16  /* floats between the rows of gradients, which else would fall into the same few lines of the cache */

/* What a call computes: its sequences, and where their frames are. */
typedef struct {
  const int64_t *start, *length, *order;
  int64_t count, hidden, reverse;
} Batch;

/* Frames of one sequence between two products: their first row in memory, and how many. */
typedef struct {
  int64_t row, count;
} Span;

INLINE Span span_of(const Batch *batch, int64_t at, int64_t t) {
  const int64_t b = batch->order[at], left = batch->length[b] - t, count = left < STEPS ? left : STEPS;
  const Span span = {batch->reverse ? batch->start[b] + left - count : batch->start[b] + t, count};
  return span;
}

/* Where frame t stands in its span, which begins at a whole number of STEPS. */
INLINE int64_t place_of(const Batch *batch, const Span *span, int64_t t) {
  return batch->reverse ? span->count - 1 - t % STEPS : t % STEPS;
}

/* One frame of `count` sequences, as a cell's functions get it. */
typedef struct {
  const float *weights, *bias; /* of the state; as the cell says */
  int64_t hidden, count;
  float *gates[MOST];          /* (gates, hidden): in, the products with the inputs; out, what backward needs */
  float *memory[MOST];         /* (hidden): what else backward needs; NULL where nothing is kept */
  float *out[MOST];            /* (hidden) */
  float *cell[MOST];           /* (hidden): what is carried beside the output, before and after */
  const float *before[MOST];   /* (hidden): the output one frame before */
  float *room;                 /* MOST * hidden, for what a step needs meanwhile */
} Step;

typedef struct {
  const float *x;        /* (rows, inputs) */
  const float *weight_x; /* as products takes it, for gates * hidden outputs */
  const float *bias_x;
  const float *weight_h, *bias_h; /* of the state; as the cell says */
  const float *initial;           /* (batch, hidden) */
  float *gates;                   /* (rows, gates, hidden), or NULL where nothing is kept */
  float *memory;                  /* (rows, hidden), or NULL */
  float *out;                     /* (rows, hidden) */
  float *cell;                    /* (batch, hidden): in, initial; out, after the last frame */
  float *scratch;                 /* MOST * hidden, and MOST * STEPS * gates * hidden where no gates are kept */
  int64_t inputs;
} Forward;

INLINE void forward(const Forward *f, const Batch *batch, const int64_t gates, void (*step)(const Step *)) {
  const int64_t hidden = batch->hidden, size = gates * hidden, *length = batch->length, *order = batch->order;
  Step s = {.weights = f->weight_h, .bias = f->bias_h, .hidden = hidden, .count = batch->count, .room = f->scratch};
  Span spans[MOST];
  Run runs[MOST];
  for (int64_t i = 0; i < s.count; i++) {
    s.before[i] = f->initial + order[i] * hidden;
    s.cell[i] = f->cell + order[i] * hidden;
  }
  for (int64_t t = 0;; t++) {
    while (s.count > 0 && length[order[s.count - 1]] <= t) s.count--;
    if (s.count == 0) return;
    if (t % STEPS == 0) {
      for (int64_t i = 0; i < s.count; i++) {
        spans[i] = span_of(batch, i, t);
        runs[i].x = f->x + spans[i].row * f->inputs;
        runs[i].out = f->gates ? f->gates + spans[i].row * size : f->scratch + MOST * hidden + i * STEPS * size;
        runs[i].count = spans[i].count;
      }
      products(runs, s.count, f->weight_x, f->bias_x, f->inputs, f->inputs, size, size);
    }
    for (int64_t i = 0; i < s.count; i++) {
      const int64_t place = place_of(batch, spans + i, t), row = spans[i].row + place;
      s.gates[i] = runs[i].out + place * size;
      s.memory[i] = f->memory ? f->memory + row * hidden : NULL;
      s.out[i] = f->out + row * hidden;
    }
    step(&s);
    for (int64_t i = 0; i < s.count; i++) s.before[i] = s.out[i];
  }
}

/* One frame of `count` sequences, going backward. */
typedef struct {
  const float *weights; /* of the state; as the cell says */
  int64_t hidden, count;
  const float *gates[MOST], *memory[MOST]; /* as forward left them */
  const float *into[MOST];                 /* (hidden): gradient of the output */
  const float *before[MOST];               /* (hidden): the output one frame before */
  const float *cell[MOST];                 /* (hidden): what was carried beside it from there */
  const float *after[MOST];                /* the slopes one frame later */
  float *slopes[MOST];                     /* (slopes, hidden): gradients of what goes into the gates; as the cell says */
  float *carried[MOST]; /* (hidden): of the gradient of what came from one frame before, what passes these by */
} BackwardStep;

typedef struct {
  const float *x, *initial, *cell; /* as forward took them */
  const float *gates, *memory, *out;
  const float *into;      /* (rows, hidden) */
  const float *weight_x;  /* as products takes it, for the inputs as outputs; NULL where into_x is not wanted */
  const float *weight_h;  /* as the cell says */
  float *into_x;          /* (rows, inputs), or NULL */
  float *into_weight_x;   /* (inputs, gates * hidden): in, zero */
  float *into_weight_h;   /* (hidden, of_state * hidden): in, zero */
  float *into_bias;       /* (slopes, hidden): in, zero */
  float *at_first;        /* (batch, slopes, hidden): in, zero; out, the slopes of each first frame */
  float *carried;         /* (batch, hidden): in, zero; out, what passes by the first frame */
  float *scratch;         /* MOST * STEPS * (slopes * hidden + GAP + inputs + 2 * hidden) + 2 * GAP */
  int64_t inputs;
} Backward;

/* Slopes of a cell, in units of hidden: how many; the first that the inputs go into, and their number; the number of
   those that the state goes into, the first ones; how many of these multiply what is reset and not the state itself. */
typedef struct {
  int64_t slopes, of_input, gates, of_state, of_reset;
} Layout;

INLINE void copy(float *to, const float *from, int64_t count) { memcpy(to, from, (size_t)count * sizeof(float)); }

/* Weights' gradients from the slopes of some frames, which lie row by row, `stride` apart. */
INLINE void add_products(const Backward *b, const Batch *batch, const Layout *layout, const float *slopes, float *room,
                         const Span *spans, int64_t num_spans, int64_t t) {
  const int64_t hidden = batch->hidden, inputs = b->inputs, stride = layout->slopes * hidden + GAP;
  const int64_t *order = batch->order;
  float *const x = room, *const state = x + MOST * STEPS * inputs, *const reset = state + MOST * STEPS * hidden;
  int64_t rows = 0;
  Run runs[MOST];
  for (int64_t i = 0; i < num_spans; i++) {
    const Span *span = spans + i;
    copy(x + rows * inputs, b->x + span->row * inputs, span->count * inputs);
    runs[i].x = slopes + rows * stride + layout->of_input * hidden;
    runs[i].out = b->into_x ? b->into_x + span->row * inputs : NULL;
    runs[i].count = span->count;
    for (int64_t place = 0; layout->of_state > 0 && place < span->count; place++) {
      const int64_t row = span->row + place, is_first = place == place_of(batch, span, 0) && t == 0;
      const float *h = is_first ? b->initial + order[i] * hidden : b->out + (row + (batch->reverse ? 1 : -1)) * hidden;
      copy(state + (rows + place) * hidden, h, hidden);
      for (int64_t k = 0; layout->of_reset > 0 && k < hidden; k++) {
        reset[(rows + place) * hidden + k] = h[k] * b->gates[row * layout->gates * hidden + k];
      }
    }
    rows += span->count;
  }
  if (b->into_x) {
    products(runs, num_spans, b->weight_x, NULL, layout->gates * hidden, stride, inputs, inputs);
  }
  {
    const int64_t of_state = (layout->of_state - layout->of_reset) * hidden;
    const Outer of_x = {x, slopes + layout->of_input * hidden, b->into_weight_x,
                        rows, inputs, layout->gates * hidden, inputs, stride};
    const Outer of_h = {state, slopes, b->into_weight_h, rows, hidden, of_state, hidden, stride};
    const Outer of_reset = {reset, slopes + of_state, b->into_weight_h + hidden * of_state,
                            rows, hidden, layout->of_reset * hidden, hidden, stride};
    outer(&of_x);
    outer(&of_h);
    outer(&of_reset);
  }
  for (int64_t row = 0; row < rows; row++) {
    for (int64_t k = 0; k < layout->slopes * hidden; k++) b->into_bias[k] += slopes[row * stride + k];
  }
}

INLINE void backward(const Backward *b, const Batch *batch, const Layout layout, void (*step)(const BackwardStep *)) {
  const int64_t hidden = batch->hidden, size = layout.slopes * hidden, *length = batch->length, *order = batch->order;
  float *const slopes = b->scratch, *const room = slopes + MOST * STEPS * (size + GAP) + 2 * GAP;
  BackwardStep s = {.weights = b->weight_h, .hidden = hidden};
  Span spans[MOST];
  float *first[MOST]; /* slopes of each span */
  int64_t active = 0;
  for (int64_t i = 0; i < batch->count; i++) s.carried[i] = b->carried + order[i] * hidden;
  for (int64_t t = length[order[0]] - 1; t >= 0; t--) {
    if (t % STEPS == STEPS - 1 || t == length[order[0]] - 1) { /* another span of each sequence */
      int64_t rows = 0;
      for (active = 0; active < batch->count && length[order[active]] > t - t % STEPS; active++) {
        spans[active] = span_of(batch, active, t - t % STEPS);
        first[active] = slopes + rows * (size + GAP);
        rows += spans[active].count;
      }
    }
    for (s.count = 0; s.count < active && length[order[s.count]] > t; s.count++) {
      const int64_t i = s.count, place = place_of(batch, spans + i, t), row = spans[i].row + place;
      const int64_t earlier = row + (batch->reverse ? 1 : -1), later = place + (batch->reverse ? -1 : 1);
      s.gates[i] = b->gates + row * layout.gates * hidden;
      s.memory[i] = b->memory ? b->memory + row * hidden : NULL;
      s.into[i] = b->into + row * hidden;
      s.before[i] = t ? b->out + earlier * hidden : b->initial + order[i] * hidden;
      s.cell[i] = t && b->memory ? b->memory + earlier * hidden : b->cell + order[i] * hidden;
      s.after[i] = t % STEPS + 1 < spans[i].count ? first[i] + later * (size + GAP) : b->at_first + order[i] * size;
      s.slopes[i] = first[i] + place * (size + GAP);
    }
    step(&s);
    if (t % STEPS == 0) {
      for (int64_t i = 0; i < active; i++) copy(b->at_first + order[i] * size, s.slopes[i], size);
      add_products(b, batch, &layout, slopes, room, spans, active, t);
    }
  }
}

/* What `inputs` of some rows give to WIDE units. weights: input by input. */
INLINE void wide_sums(const float *weights, const float *const *x, const int rows, int64_t inputs, vec *low, vec *high) {
  UNROLL for (int i = 0; i < rows; i++) low[i] = high[i] = (vec){0};
  for (int64_t k = 0; k < inputs; k++, weights += WIDE) {
    const vec of_low = load(weights, WIDTH), of_high = load(weights + WIDTH, WIDTH);
    UNROLL for (int i = 0; i < rows; i++) {
      low[i] += of_low * x[i][k];
      high[i] += of_high * x[i][k];
    }
  }
}

/* Blocks of rows, as large as registers allow, of a loop over the sequences of a step. */
#if ROWS > 4
#define SMALL_BLOCKS(BLOCKS) BLOCKS(4) BLOCKS(2) BLOCKS(1)
#else
#define SMALL_BLOCKS(BLOCKS) BLOCKS(2) BLOCKS(1)
#endif
