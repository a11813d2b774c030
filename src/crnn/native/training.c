/* Recurrences for training: forward with everything kept that backward needs, and backward in one reverse pass.

   Sequences lie row by row, a row a frame; sequence b has the rows start[b] ... start[b] + length[b] - 1. `order` lists
   those that a call computes, longest first, so that the ones still running are always the first of them and what is
   padded costs nothing. A call touches only its own sequences: threads divide them, and need not wait for each other.

   A step multiplies a block of rows with the weights of a block of units, which stays in registers; the gates follow
   there at once. Compiled with -ffp-contract=fast, so that sums use fused multiply-adds. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if !defined(__GNUC__)
#error "needs the vector extensions of gcc or clang"
#endif

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#if defined(__AVX512F__)
#define WIDTH 16
#define ROWS 8
#elif defined(__AVX__)
#define WIDTH 8
#define ROWS 4
#elif defined(__aarch64__)
#define WIDTH 4
#define ROWS 8
#else
#define WIDTH 4
#define ROWS 4
#endif
#define WIDE (2 * WIDTH) /* units at once, going backward: more sums than one vector hides the latency of an addition */
#define MOST 64          /* sequences that run side by side */

#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

typedef float vec __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

INLINE vec load(const float *from, int64_t count) {
  vec v = {0};
  if (count >= WIDTH) return *(const vec *)(const void *)from;
  memcpy(&v, from, (size_t)count * sizeof(float));
  return v;
}

INLINE void store(float *to, vec v, int64_t count) {
  if (count >= WIDTH)
    *(vec *)(void *)to = v;
  else
    memcpy(to, &v, (size_t)count * sizeof(float));
}

INLINE vec all(float x) { return x - (vec){0}; }

INLINE vec choose(ints which, vec a, vec b) { return (vec)((which & (ints)a) | (~which & (ints)b)); }

/* 1 / (1 + exp(-x)); the relative error is below 3e-7, NaN stays NaN. */
INLINE vec sigmoid(vec x) {
  vec n, p, y = -x;
  y = choose(y > 87.0f, all(87.0f), y);
  y = choose(y < -87.0f, all(-87.0f), y);
  n = y * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to a whole number, which stands in the last bits */
  {
    const ints power = ((ints)n - 0x4B400000 + 127) << 23;
    n -= 12582912.0f;
    y = y - n * 0.693359375f;
    y = y + n * 2.12194440e-4f;
    p = y * (1.0f / 720) + 1.0f / 120; /* a Taylor series: |y| is at most ln(2) / 2 */
    p = p * y + 1.0f / 24;
    p = p * y + 1.0f / 6;
    p = p * y + 0.5f;
    p = p * y + 1.0f;
    p = p * y + 1.0f;
    return 1.0f / (1.0f + p * (vec)power);
  }
}

INLINE vec hyperbolic_tangent(vec x) { return 2.0f * sigmoid(2.0f * x) - 1.0f; }

/* Gradients that have died away end as zero and not as denormal numbers, which some processors compute very slowly. */
static unsigned flush_denormals(void) {
#if defined(__SSE__)
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040);
  return before;
#else
  return 0;
#endif
}

static void restore_denormals(unsigned before) {
#if defined(__SSE__)
  _mm_setcsr(before);
#else
  (void)before;
#endif
}

EXPORT int64_t crnn_training_width(void) { return WIDTH; }

/* What a call computes: its sequences, and where their frames are. */
typedef struct {
  const int64_t *start, *length, *order;
  int64_t count, hidden, reverse;
} Batch;

INLINE ptrdiff_t row_of(const Batch *batch, int64_t at, int64_t t) {
  const int64_t b = batch->order[at];
  return (ptrdiff_t)(batch->start[b] + (batch->reverse ? batch->length[b] - 1 - t : t));
}

typedef struct {
  const float *weights; /* for WIDTH units after another, input by input, their weights of gates r, z and n */
  const float *bias;    /* (hidden): of n, before it is reset */
  const float *initial; /* (batch, hidden) */
  float *gates;         /* (rows, 3, hidden): in, what the inputs add to the gates; out, the gates, if kept is not NULL */
  float *kept;          /* (rows, hidden): what r multiplies */
  float *out;           /* (rows, hidden) */
} GruForward;

INLINE void gru_forward_block(const GruForward *g, int64_t hidden, const int rows, const float *const *before,
                              const ptrdiff_t *row, int64_t unit) {
  const int64_t count = hidden - unit;
  const float *w = g->weights + 3 * hidden * unit;
  vec r[ROWS], z[ROWS], n[ROWS];
  UNROLL for (int i = 0; i < rows; i++) {
    const float *gates = g->gates + row[i] * 3 * hidden + unit;
    r[i] = load(gates, count);
    z[i] = load(gates + hidden, count);
    n[i] = load(g->bias + unit, count);
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
    float *gates = g->gates + row[i] * 3 * hidden + unit;
    const vec reset = sigmoid(r[i]), update = sigmoid(z[i]), from = n[i];
    const vec new = hyperbolic_tangent(load(gates + 2 * hidden, count) + reset * from);
    store(g->out + row[i] * hidden + unit, new + update * (load(before[i] + unit, count) - new), count);
    if (g->kept == NULL) continue;
    store(gates, reset, count);
    store(gates + hidden, update, count);
    store(gates + 2 * hidden, new, count);
    store(g->kept + row[i] * hidden + unit, from, count);
  }
}

static void gru_forward(const GruForward *g, const Batch *batch) {
  const int64_t hidden = batch->hidden;
  const float *before[MOST];
  ptrdiff_t row[MOST];
  int64_t active = batch->count;
  for (int64_t i = 0; i < active; i++) before[i] = g->initial + batch->order[i] * hidden;
  for (int64_t t = 0;; t++) {
    while (active > 0 && batch->length[batch->order[active - 1]] <= t) active--;
    if (active == 0) return;
    for (int64_t i = 0; i < active; i++) row[i] = row_of(batch, i, t);
    for (int64_t unit = 0; unit < hidden; unit += WIDTH) {
      int64_t i = 0;
      for (; i + ROWS <= active; i += ROWS) gru_forward_block(g, hidden, ROWS, before + i, row + i, unit);
#if ROWS > 4
      for (; i + 4 <= active; i += 4) gru_forward_block(g, hidden, 4, before + i, row + i, unit);
#endif
      for (; i + 2 <= active; i += 2) gru_forward_block(g, hidden, 2, before + i, row + i, unit);
      for (; i < active; i++) gru_forward_block(g, hidden, 1, before + i, row + i, unit);
    }
    for (int64_t i = 0; i < active; i++) before[i] = g->out + row[i] * hidden;
  }
}

typedef struct {
  const float *weights; /* for WIDE units after another, gate by gate (n, r, z of all units), their weights as inputs */
  const float *initial, *gates, *kept, *out; /* as after forward */
  const float *into;                         /* (rows, hidden): gradient of out */
  const float *zeros;                        /* (3 * hidden) */
  float *into_gates; /* (rows, 4, hidden): of what r multiplies, of r and z before their sigmoids, of n before its tanh */
  float *carried;    /* (batch, hidden): in, zero; out, what of the gradient goes past the gates to the initial state */
  float *into_bias;  /* (4, hidden): sums of into_gates */
} GruBackward;

INLINE void gru_backward_block(const GruBackward *g, int64_t hidden, const int rows, const float *const *after,
                               const float *const *before, const ptrdiff_t *row, const int64_t *order, int64_t unit) {
  const float *w = g->weights + 3 * hidden * unit;
  vec low[ROWS], high[ROWS];
  UNROLL for (int i = 0; i < rows; i++) low[i] = high[i] = (vec){0};
  for (int64_t k = 0; k < 3 * hidden; k++, w += WIDE) {
    const vec of_low = load(w, WIDTH), of_high = load(w + WIDTH, WIDTH);
    UNROLL for (int i = 0; i < rows; i++) {
      low[i] += of_low * after[i][k];
      high[i] += of_high * after[i][k];
    }
  }
  for (int half = 0; half < 2 && unit < hidden; half++, unit += WIDTH) {
    const int64_t count = hidden - unit;
    vec sums[4] = {{0}, {0}, {0}, {0}};
    for (int i = 0; i < rows; i++) {
      const float *gates = g->gates + row[i] * 3 * hidden + unit;
      float *to = g->into_gates + row[i] * 4 * hidden + unit, *carried = g->carried + order[i] * hidden + unit;
      const vec r = load(gates, count), z = load(gates + hidden, count), n = load(gates + 2 * hidden, count);
      const vec h = (half ? high[i] : low[i]) + load(carried, count) + load(g->into + row[i] * hidden + unit, count);
      const vec d_n = h * (1.0f - z) * (1.0f - n * n), d_kept = d_n * r;
      const vec d_r = d_kept * load(g->kept + row[i] * hidden + unit, count) * (1.0f - r);
      const vec d_z = h * (load(before[i] + unit, count) - n) * z * (1.0f - z);
      store(carried, h * z, count);
      store(to, d_kept, count), sums[0] += d_kept;
      store(to + hidden, d_r, count), sums[1] += d_r;
      store(to + 2 * hidden, d_z, count), sums[2] += d_z;
      store(to + 3 * hidden, d_n, count), sums[3] += d_n;
    }
    for (int i = 0; i < 4; i++) {
      float *to = g->into_bias + i * hidden + unit;
      store(to, load(to, count) + sums[i], count);
    }
  }
}

static void gru_backward(const GruBackward *g, const Batch *batch) {
  const int64_t hidden = batch->hidden, *order = batch->order;
  const float *after[MOST], *before[MOST];
  ptrdiff_t row[MOST];
  int64_t active = 0;
  for (int64_t t = batch->length[order[0]] - 1; t >= 0; t--) {
    for (; active < batch->count && batch->length[order[active]] > t; active++) after[active] = g->zeros;
    for (int64_t i = 0; i < active; i++) {
      row[i] = row_of(batch, i, t);
      before[i] = t ? g->out + row_of(batch, i, t - 1) * hidden : g->initial + order[i] * hidden;
    }
    for (int64_t unit = 0; unit < hidden; unit += WIDE) {
      int64_t i = 0;
#define BLOCKS(n) \
  for (; i + n <= active; i += n) gru_backward_block(g, hidden, n, after + i, before + i, row + i, order + i, unit);
      BLOCKS(ROWS)
#if ROWS > 4
      BLOCKS(4)
#endif
      BLOCKS(2)
      BLOCKS(1)
#undef BLOCKS
    }
    for (int64_t i = 0; i < active; i++) after[i] = g->into_gates + row[i] * 4 * hidden;
  }
}

#define IN_PARTS(function, g, batch)                                   \
  const unsigned mode = flush_denormals();                             \
  Batch part = *(batch);                                               \
  for (int64_t at = 0; at < (batch)->count; at += MOST) {              \
    part.order = (batch)->order + at;                                  \
    part.count = (batch)->count - at < MOST ? (batch)->count - at : MOST; \
    function(g, &part);                                                \
  }                                                                    \
  restore_denormals(mode)

EXPORT void crnn_gru_forward(const GruForward *g, const Batch *batch) {
  IN_PARTS(gru_forward, g, batch);
}

EXPORT void crnn_gru_backward(const GruBackward *g, const Batch *batch) {
  IN_PARTS(gru_backward, g, batch);
}
