/* Products of matrices whose rows are frames, with sums that stay in registers. Needs vectors.h. */

/* Some rows in a row: of what goes in, and of what comes out. */
typedef struct {
  const float *x;
  float *out;
  int64_t count;
} Run;

INLINE void product_block(const Run *run, int64_t at, const int rows, const float *w, const float *bias, int64_t inputs,
                          int64_t x_stride, int64_t out_stride, int64_t to, int64_t count) {
  const float *x = run->x + at * x_stride;
  float *out = run->out + at * out_stride + to;
  vec low[ROWS], high[ROWS];
  UNROLL for (int i = 0; i < rows; i++) {
    low[i] = bias == NULL ? (vec){0} : load(bias + to, count);
    high[i] = bias == NULL || count <= WIDTH ? (vec){0} : load(bias + to + WIDTH, count - WIDTH);
  }
  for (int64_t k = 0; k < inputs; k++, w += WIDE) {
    const vec a = load(w, WIDTH), b = load(w + WIDTH, WIDTH);
    UNROLL for (int i = 0; i < rows; i++) {
      const float value = x[i * x_stride + k];
      low[i] += a * value;
      high[i] += b * value;
    }
  }
  for (int i = 0; i < rows; i++) {
    store(out + i * out_stride, low[i], count);
    if (count > WIDTH) store(out + i * out_stride + WIDTH, high[i], count - WIDTH);
  }
}

/* out = x weights + bias (or NULL) of every run. weights: for WIDE outputs after another, input by input, filled up with
   zeros. */
static void products(const Run *runs, int64_t num_runs, const float *weights, const float *bias, int64_t inputs,
                     int64_t x_stride, int64_t outputs, int64_t out_stride) {
  for (int64_t to = 0; to < outputs; to += WIDE) {
    const float *w = weights + to * inputs;
    for (int64_t r = 0; r < num_runs; r++) {
      const Run *run = runs + r;
      int64_t at = 0;
#define BLOCKS(n)                      \
  for (; at + n <= run->count; at += n) \
    product_block(run, at, n, w, bias, inputs, x_stride, out_stride, to, outputs - to);
      BLOCKS(ROWS)
#if ROWS > 4
      BLOCKS(4)
#endif
      BLOCKS(2)
      BLOCKS(1)
#undef BLOCKS
    }
  }
}

/* Two matrices with as many rows, and the sum over rows of their outer products. */
typedef struct {
  const float *a; /* (rows, m), a_stride apart */
  const float *b; /* (rows, n), b_stride apart, with WIDE values after the last row that may be read */
  float *out;     /* (m, n) */
  int64_t rows, m, n, a_stride, b_stride;
} Outer;

INLINE void outer_block(const Outer *o, const int height, int64_t i, int64_t j) {
  const float *a = o->a + i, *b = o->b + j;
  const int64_t count = o->n - j;
  vec low[ROWS], high[ROWS];
  UNROLL for (int k = 0; k < height; k++) low[k] = high[k] = (vec){0};
  for (int64_t row = 0; row < o->rows; row++, a += o->a_stride, b += o->b_stride) {
    const vec of_low = load(b, WIDTH), of_high = load(b + WIDTH, WIDTH); /* what stands after a row is never stored */
    UNROLL for (int k = 0; k < height; k++) {
      low[k] += of_low * a[k];
      high[k] += of_high * a[k];
    }
  }
  for (int k = 0; k < height; k++) {
    float *out = o->out + (i + k) * o->n + j;
    store(out, load(out, count) + low[k], count);
    if (count > WIDTH) store(out + WIDTH, load(out + WIDTH, count - WIDTH) + high[k], count - WIDTH);
  }
}

/* out += a^T b */
static void outer(const Outer *o) {
  for (int64_t j = 0; j < o->n; j += WIDE) {
    int64_t i = 0;
    for (; i + ROWS <= o->m; i += ROWS) outer_block(o, ROWS, i, j);
#if ROWS > 4
    for (; i + 4 <= o->m; i += 4) outer_block(o, 4, i, j);
#endif
    for (; i < o->m; i++) outer_block(o, 1, i, j);
  }
}
