/* Runs a program, frame by frame, as a stream.

   A program is a list of nodes in an order in which each comes after the nodes that it reads. A node of a stream gives
   one frame after another into a ring that holds just what its readers still need. One rule says when: frame t of a node
   comes as soon as the last frame of its window is there, or once the node that it reads has given its last. So strides,
   pooling, look-ahead and branches of different delay need nothing of their own, and how the input is cut into chunks
   cannot matter. Summaries fold each frame into a few numbers; what follows them is computed when the output is read. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels.h"
#include "spectrum.h"

enum {
  CRNN_INPUT,
  CRNN_CONV,
  CRNN_DEPTHWISE,
  CRNN_CONV2D,
  CRNN_POOL,
  CRNN_LOG_MEL,
  CRNN_DIFFERENCE,
  CRNN_AFFINE,
  CRNN_MAP,
  CRNN_SOFTMAX,
  CRNN_DENSE,
  CRNN_FRAME_NORM,
  CRNN_FILL_MISSING,
  CRNN_IS_MISSING,
  CRNN_EMBEDDING,
  CRNN_POOL_BINS,
  CRNN_SLICE,
  CRNN_CONCAT,
  CRNN_ADD,
  CRNN_MULTIPLY,
  CRNN_RNN,
  CRNN_LSTM,
  CRNN_GRU,
  CRNN_GATED_MEAN,
  CRNN_FIRST,
  CRNN_LAST,
  CRNN_MEAN,
  CRNN_MAX,
  CRNN_ATTEND
};

enum { CRNN_STREAM, CRNN_SUMMARY, CRNN_VECTOR };

/* Numbers of one node; "at" is a place in one of the program's tables or of the state's arrays. */
typedef struct {
  int32_t op;
  int32_t kind;       /* stream: one frame after another; summary: of a stream, so far; vector: computed when read */
  int32_t num_inputs;
  int32_t inputs_at;  /* in ints: the nodes that it reads */
  int32_t size;       /* values in a frame or vector */
  int32_t in_size;    /* of its first input */
  int32_t frames_at;  /* stream: its ring, in values; else its vector, in scratch */
  int32_t capacity;   /* frames in the ring */
  int32_t extent;     /* frames t*stride - pad_left ... + extent - 1 of its inputs make its frame t */
  int32_t stride;
  int32_t pad_left;
  int32_t whole;      /* 1: no frames of windows that run over the end */
  int32_t memory_at;  /* what it carries from frame to frame, in values */
  int32_t sums_at;    /* in sums */
  int32_t p[8];       /* as its function says */
  int32_t weights_at[4];
  int32_t bytes_at[2];   /* int8 weights of matrices 0 and 1, or -1 */
  int32_t offsets_at[2]; /* in ints: 128 times the sum of each output's int8 weights */
} crnn_node;

typedef struct {
  const crnn_node *nodes;
  const int32_t *ints;
  const float *weights;
  const int8_t *bytes;
  int32_t num_nodes;
  int32_t num_sums;
  int32_t num_values;
} crnn_program;

/* A state in the middle of its arrays; nothing in a state points anywhere, so it may be copied as bytes. */
typedef struct {
  const crnn_program *program;
  int64_t *counts; /* of each node: frames so far */
  double *sums;
  float *values;
  int32_t *heads;  /* of each node: where in its ring the next frame goes */
  int32_t *done;   /* of each node: 1 when no more frames will come; of node 0: the stream is finished */
  float *scratch;  /* nothing in it outlives a call */
  float *out;      /* where the next output frame goes */
  int64_t num_out;
} crnn_context;

static void crnn_copy(float *restrict to, const float *restrict from, int32_t n) {
  for (int32_t i = 0; i < n; i++) to[i] = from[i];
}

static void crnn_zero(float *to, int32_t n) {
  for (int32_t i = 0; i < n; i++) to[i] = 0.0f;
}

/* Frame f of node j, one of those that its ring still holds. */
static float *crnn_frame(const crnn_context *c, int32_t j, int64_t f) {
  const crnn_node *node = &c->program->nodes[j];
  int32_t slot = c->heads[j] - (int32_t)(c->counts[j] - f);
  if (slot < 0) slot += node->capacity;
  return c->values + node->frames_at + (ptrdiff_t)slot * node->size;
}

static int32_t crnn_source(const crnn_context *c, const crnn_node *node, int32_t k) {
  return c->program->ints[node->inputs_at + k];
}

/* What input k of a node holds for its frame t: that frame, or its vector. */
static const float *crnn_value(const crnn_context *c, const crnn_node *node, int32_t k, int64_t t) {
  const int32_t j = crnn_source(c, node, k);
  if (c->program->nodes[j].kind == CRNN_STREAM) return crnn_frame(c, j, t);
  return c->scratch + c->program->nodes[j].frames_at;
}

#if CRNN_HAS_MATRIX
/* One row of inputs to a matrix, in 8 bits where the matrix is. */
typedef struct {
  const float *x;
  int32_t n;
#if CRNN_HAS_INT8
  const int8_t *q;
#endif
} crnn_row;

/* The row x of n values for matrix k of a node; room: where n bytes, filled up to whole groups of 4, find place. */
static crnn_row crnn_prepare(const crnn_context *c, const crnn_node *node, int k, const float *x, int32_t n,
                             float *room) {
  crnn_row row;
  row.x = x;
  row.n = n;
#if CRNN_HAS_INT8
  row.q = NULL;
  if (node->bytes_at[k] >= 0) {
    int8_t *const q = (int8_t *)room;
    crnn_quantize(x, n, c->program->weights[node->weights_at[k]], q);
    row.q = q;
  }
#else
  (void)c, (void)node, (void)k, (void)room;
#endif
  return row;
}

/* sum += matrix k times row, for its outputs at ... at + m - 1, both multiples of 16. */
static void crnn_weigh(const crnn_context *c, const crnn_node *node, int k, const crnn_row *row, int32_t at,
                       float *sum, int32_t m) {
  const float *w = c->program->weights + node->weights_at[k];
#if CRNN_HAS_INT8
  if (row->q) {
    const int32_t n = (row->n + 3) & ~3;
    crnn_add_bytes(c->program->bytes + node->bytes_at[k] + (ptrdiff_t)at * n, row->q, n,
                   c->program->ints + node->offsets_at[k] + at, w + 16 + at, sum, m);
    return;
  }
#endif
  crnn_add(w + (ptrdiff_t)at * row->n, row->x, row->n, sum, m);
}
#endif

#if CRNN_HAS_LINEAR
/* out = matrix 0 times row + bias, for m outputs from `at` on, a multiple of 16; out[i * step]. */
static void crnn_linear(const crnn_context *c, const crnn_node *node, const crnn_row *row, int32_t at, float *out,
                        int32_t m, int32_t step) {
  const float *bias = c->program->weights + node->weights_at[1] + at;
  for (int32_t i = 0; i < m; i += 16) {
    float sum[16];
    crnn_copy(sum, bias + i, 16);
    crnn_weigh(c, node, 0, row, at + i, sum, 16);
    for (int32_t l = 0; l < 16 && i + l < m; l++) out[(i + l) * step] = sum[l];
  }
}
#endif

#if CRNN_HAS_CONV || CRNN_HAS_DEPTHWISE || CRNN_HAS_CONV2D || CRNN_HAS_POOL
/* Frame f of a node's input; NULL outside of the sequence. */
static const float *crnn_frame_or_none(const crnn_context *c, const crnn_node *node, int64_t f) {
  const int32_t j = crnn_source(c, node, 0);
  return f < 0 || f >= c->counts[j] ? NULL : crnn_frame(c, j, f);
}
#endif

#if CRNN_HAS_CONV
/* p: taps, dilation, groups, inputs of a group, outputs of a group. */
static void crnn_conv(const crnn_context *c, const crnn_node *node, int64_t t, float *out) {
  const int32_t taps = node->p[0], dilation = node->p[1], groups = node->p[2], in = node->p[3], each = node->p[4];
  float *const patch = c->scratch;
  for (int32_t g = 0; g < groups; g++) {
    crnn_row row;
    for (int32_t k = 0; k < taps; k++) {
      const float *frame = crnn_frame_or_none(c, node, t * node->stride - node->pad_left + (int64_t)k * dilation);
      if (frame) crnn_copy(patch + k * in, frame + g * in, in);
      else crnn_zero(patch + k * in, in);
    }
    row = crnn_prepare(c, node, 0, patch, taps * in, patch + taps * in);
    crnn_linear(c, node, &row, g * ((each + 15) & ~15), out + g * each, each, 1);
  }
}
#endif

#if CRNN_HAS_DEPTHWISE
/* p: taps, dilation. weights: [tap][channel], bias. */
static void crnn_depthwise(const crnn_context *c, const crnn_node *node, int64_t t, float *out) {
  const float *w = c->program->weights + node->weights_at[0];
  crnn_copy(out, c->program->weights + node->weights_at[1], node->size);
  for (int32_t k = 0; k < node->p[0]; k++) {
    const float *x = crnn_frame_or_none(c, node, t * node->stride - node->pad_left + (int64_t)k * node->p[1]);
    if (x) {
      for (int32_t i = 0; i < node->size; i++) out[i] = CRNN_MULTIPLY_ADD(w[i], x[i], out[i]);
    }
    w += node->size;
  }
}
#endif

#if CRNN_HAS_CONV2D
/* p: input channels, bins, output channels, output bins, taps, bin taps, bin stride. Patches: [tap][channel][bin tap]. */
static void crnn_conv2d(const crnn_context *c, const crnn_node *node, int64_t t, float *out) {
  const int32_t channels = node->p[0], bins = node->p[1], out_bins = node->p[3], taps = node->p[4], wide = node->p[5];
  const int32_t n = taps * channels * wide;
  for (int32_t b = 0; b < out_bins; b++) {
    const int32_t first = b * node->p[6] - wide / 2;
    float *patch = c->scratch;
    crnn_row row;
    for (int32_t k = 0; k < taps; k++) {
      const float *frame = crnn_frame_or_none(c, node, t * node->stride - node->pad_left + k);
      for (int32_t ch = 0; ch < channels; ch++) {
        for (int32_t i = first; i < first + wide; i++) {
          *patch++ = frame && i >= 0 && i < bins ? frame[ch * bins + i] : 0.0f;
        }
      }
    }
    row = crnn_prepare(c, node, 0, c->scratch, n, c->scratch + n);
    crnn_linear(c, node, &row, 0, out + b, node->p[2], out_bins);
  }
}
#endif

#if CRNN_HAS_POOL || CRNN_HAS_POOL_BINS || CRNN_HAS_MAX
/* The larger one; NaN where one is. */
static float crnn_larger(float a, float b) { return b > a || b != b ? b : a; }
#endif

#if CRNN_HAS_POOL
/* p: frames in a window, 1 for the mean. */
static void crnn_pool(const crnn_context *c, const crnn_node *node, int64_t t, float *out) {
  int32_t real = 1;
  crnn_copy(out, crnn_frame_or_none(c, node, t * node->stride), node->size);
  for (int32_t k = 1; k < node->p[0]; k++) {
    const float *x = crnn_frame_or_none(c, node, t * node->stride + k);
    if (!x) break;
    real++;
    for (int32_t i = 0; i < node->size; i++) out[i] = node->p[1] ? out[i] + x[i] : crnn_larger(out[i], x[i]);
  }
  if (node->p[1]) {
    for (int32_t i = 0; i < node->size; i++) out[i] /= (float)real;
  }
}
#endif

#if CRNN_HAS_POOL_BINS
/* p: bins in a window, stride, channels, bins, output bins, 1 for the mean. */
static void crnn_pool_bins(const crnn_node *node, const float *x, float *out) {
  for (int32_t ch = 0; ch < node->p[2]; ch++, x += node->p[3]) {
    for (int32_t b = 0; b < node->p[4]; b++) {
      const float *w = x + b * node->p[1];
      float y = w[0];
      for (int32_t i = 1; i < node->p[0]; i++) y = node->p[5] ? y + w[i] : crnn_larger(y, w[i]);
      *out++ = node->p[5] ? y / (float)node->p[0] : y;
    }
  }
}
#endif

#if CRNN_HAS_LOG_MEL
/* Samples of one channel from frame `from` on, zero outside of the sequence. */
static void crnn_samples(const crnn_context *c, const crnn_node *node, int32_t channel, int64_t from, int32_t n,
                         float *out) {
  const int32_t j = crnn_source(c, node, 0), channels = node->in_size;
  int32_t i = 0;
  for (; i < n && from + i < 0; i++) out[i] = 0.0f;
  while (i < n && from + i < c->counts[j]) { /* twice where the window runs over the end of the ring */
    const float *x = crnn_frame(c, j, from + i) + channel;
    const float *const end = c->values + c->program->nodes[j].frames_at +
                             (ptrdiff_t)c->program->nodes[j].capacity * channels;
    for (; i < n && from + i < c->counts[j] && x < end; x += channels) out[i++] = *x;
  }
  for (; i < n; i++) out[i] = 0.0f;
}

/* p: samples in the Fourier transform, in the window, bands, 1 for magnitudes, 1 for the fast transform, 1 with
   pre-emphasis, where in ints the first bin and the number of bins of each band stand. weights: window; cosine, then
   sine; the bands' bins; pre-emphasis and floor. */
static void crnn_log_mel(const crnn_context *c, const crnn_node *node, int64_t t, float *out) {
  const int32_t n = node->p[0], length = node->p[1], before = node->p[5], turns = node->p[4] ? n / 2 : n;
  const float *window = c->program->weights + node->weights_at[0];
  const float *cosine = c->program->weights + node->weights_at[1];
  const float *option = c->program->weights + node->weights_at[3];
  float *const samples = c->scratch, *const frame = samples + length + before, *const energy = frame + n;
  for (int32_t channel = 0; channel < node->in_size; channel++) {
    const float *taps = c->program->weights + node->weights_at[2];
    const int32_t *band = c->program->ints + node->p[6];
    crnn_samples(c, node, channel, t * node->stride - node->pad_left, length + before, samples);
    for (int32_t i = 0; i < length; i++) {
      frame[i] = (before ? samples[i + 1] - option[0] * samples[i] : samples[i]) * window[i];
    }
    crnn_zero(frame + length, n - length);
#if CRNN_HAS_FAST_TRANSFORM
    if (node->p[4]) crnn_power_fast(frame, n, energy, energy + n / 2 + 1, cosine, cosine + turns);
#endif
#if CRNN_HAS_PLAIN_TRANSFORM
    if (!node->p[4]) crnn_power_plain(frame, length, n, energy, cosine, cosine + turns);
#endif
    if (node->p[3]) {
      for (int32_t i = 0; i <= n / 2; i++) energy[i] = sqrtf(energy[i]);
    }
    for (int32_t b = 0; b < node->p[2]; b++, band += 2) {
      float sum = 0.0f;
      for (int32_t i = 0; i < band[1]; i++) sum = CRNN_MULTIPLY_ADD(*taps++, energy[band[0] + i], sum);
      *out++ = logf(sum < option[1] ? option[1] : sum);
    }
  }
}
#endif

#if CRNN_HAS_MAP
/* p: which function. */
static void crnn_map(const crnn_node *node, const float *x, float *out) {
  const int32_t n = node->size;
  switch (node->p[0]) {
#if CRNN_HAS_MAP_RELU
    case 0: /* relu */
      for (int32_t i = 0; i < n; i++) out[i] = crnn_relu(x[i]);
      break;
#endif
#if CRNN_HAS_MAP_GELU
    case 1: /* gelu */
      for (int32_t i = 0; i < n; i++) out[i] = 0.5f * x[i] * (1.0f + erff(x[i] * 0.707106781f));
      break;
#endif
#if CRNN_HAS_MAP_SILU
    case 2: /* silu */
      for (int32_t i = 0; i < n; i++) out[i] = x[i] * crnn_sigmoid(x[i]);
      break;
#endif
#if CRNN_HAS_MAP_TANH
    case 3: /* tanh */
      for (int32_t i = 0; i < n; i++) out[i] = crnn_tanh(x[i]);
      break;
#endif
#if CRNN_HAS_MAP_LEAKY_RELU
    case 4: /* leaky relu */
      for (int32_t i = 0; i < n; i++) out[i] = x[i] < 0.0f ? 0.01f * x[i] : x[i];
      break;
#endif
#if CRNN_HAS_MAP_ELU
    case 5: /* elu */
      for (int32_t i = 0; i < n; i++) out[i] = x[i] < 0.0f ? crnn_exp(x[i]) - 1.0f : x[i];
      break;
#endif
#if CRNN_HAS_MAP_ASINH
    case 6: /* asinh */
      for (int32_t i = 0; i < n; i++) out[i] = asinhf(x[i]);
      break;
#endif
#if CRNN_HAS_MAP_SIGMOID
    case 7: /* sigmoid */
      for (int32_t i = 0; i < n; i++) out[i] = crnn_sigmoid(x[i]);
      break;
#endif
#if CRNN_HAS_MAP_SOFTPLUS
    case 8: /* softplus */
      for (int32_t i = 0; i < n; i++) out[i] = (x[i] > 0.0f ? x[i] : 0.0f) + log1pf(crnn_exp(-fabsf(x[i])));
      break;
#endif
    default:
      break;
  }
}
#endif

#if CRNN_HAS_SOFTMAX
static void crnn_softmax(const float *x, float *out, int32_t n) {
  float largest = x[0], total = 0.0f;
  for (int32_t i = 1; i < n; i++) largest = x[i] > largest ? x[i] : largest;
  for (int32_t i = 0; i < n; i++) out[i] = crnn_exp(x[i] - largest);
  for (int32_t i = 0; i < n; i++) total += out[i];
  for (int32_t i = 0; i < n; i++) out[i] /= total;
}
#endif

#if CRNN_HAS_FRAME_NORM
/* p: 1 for the root mean square. weights: weight, bias, eps. */
static void crnn_frame_norm(const crnn_context *c, const crnn_node *node, const float *x, float *out) {
  const float *weight = c->program->weights + node->weights_at[0];
  const float *bias = c->program->weights + node->weights_at[1];
  const float eps = c->program->weights[node->weights_at[2]];
  const int32_t n = node->size;
  float mean = 0.0f, square = 0.0f, scale;
  if (!node->p[0]) {
    for (int32_t i = 0; i < n; i++) mean += x[i];
    mean /= (float)n;
  }
  for (int32_t i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
  scale = 1.0f / sqrtf(square / (float)n + eps);
  for (int32_t i = 0; i < n; i++) out[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}
#endif

#if CRNN_HAS_DENSE
/* p: rows, inputs of a row, outputs of a row. */
static void crnn_dense(const crnn_context *c, const crnn_node *node, const float *x, float *out) {
  for (int32_t r = 0; r < node->p[0]; r++) {
    const crnn_row row = crnn_prepare(c, node, 0, x + r * node->p[1], node->p[1], c->scratch);
    crnn_linear(c, node, &row, 0, out + r * node->p[2], node->p[2], 1);
  }
}
#endif

#if CRNN_HAS_EMBEDDING
/* p: vocabulary. An id that is none gives zeros. */
static void crnn_embedding(const crnn_context *c, const crnn_node *node, const float *x, float *out) {
  const float *table = c->program->weights + node->weights_at[0];
  if (x[0] >= 0.0f && x[0] < (float)node->p[0]) crnn_copy(out, table + (ptrdiff_t)x[0] * node->size, node->size);
  else crnn_zero(out, node->size);
}
#endif

#if CRNN_HAS_RNN || CRNN_HAS_LSTM || CRNN_HAS_GRU
/* memory: h, then the cell of an LSTM, each filled up to whole blocks of 16 units. Matrix 0 weighs the input, matrix 1
   h; 16 units after another, gate by gate. weights: those two; bias, in the same order, for a GRU that of h after that
   of the input; the initial memory. */
static void crnn_recurrent(const crnn_context *c, const crnn_node *node, const float *x, float *out) {
  const int32_t hidden = node->size, padded = (hidden + 15) & ~15;
  float *const h = c->values + node->memory_at, *const next = c->scratch;
  const float *bias = c->program->weights + node->weights_at[2];
  float *const room = next + padded;
  const crnn_row input = crnn_prepare(c, node, 0, x, node->in_size, room);
  const crnn_row state = crnn_prepare(c, node, 1, h, hidden, room + (node->in_size + 3) / 4);
  for (int32_t u = 0; u < padded; u += 16) {
#if CRNN_HAS_LSTM
    if (node->op == CRNN_LSTM) {
      float *const cell = h + padded + u;
      float sum[64];
      crnn_copy(sum, bias + u * 4, 64);
      crnn_weigh(c, node, 0, &input, u * 4, sum, 64);
      crnn_weigh(c, node, 1, &state, u * 4, sum, 64);
      for (int l = 0; l < 16; l++) {
        const float kept = crnn_sigmoid(sum[16 + l]) * cell[l];
        const float now = kept + crnn_sigmoid(sum[l]) * crnn_tanh(sum[32 + l]);
        cell[l] = now;
        next[u + l] = crnn_sigmoid(sum[48 + l]) * crnn_tanh(now);
      }
    }
#endif
#if CRNN_HAS_GRU
    if (node->op == CRNN_GRU) {
      float sum[48], from_h[48];
      crnn_copy(sum, bias + u * 3, 48);
      crnn_copy(from_h, bias + (padded + u) * 3, 48);
      crnn_weigh(c, node, 0, &input, u * 3, sum, 48);
      crnn_weigh(c, node, 1, &state, u * 3, from_h, 48);
      for (int l = 0; l < 16; l++) {
        const float reset = crnn_sigmoid(sum[l] + from_h[l]);
        const float update = crnn_sigmoid(sum[16 + l] + from_h[16 + l]);
        const float now = crnn_tanh(sum[32 + l] + reset * from_h[32 + l]);
        next[u + l] = now + update * (h[u + l] - now);
      }
    }
#endif
#if CRNN_HAS_RNN
    if (node->op == CRNN_RNN) {
      float sum[16];
      crnn_copy(sum, bias + u, 16);
      crnn_weigh(c, node, 0, &input, u, sum, 16);
      crnn_weigh(c, node, 1, &state, u, sum, 16);
      for (int l = 0; l < 16; l++) next[u + l] = crnn_tanh(sum[l]);
    }
#endif
  }
  crnn_copy(h, next, padded);
  crnn_copy(out, next, hidden);
}
#endif

#if CRNN_HAS_ATTEND
/* p: units that score a frame. weights: of those, bias, score. memory: the largest score so far. sums: the sum of the
   frames' weights, the weighted sum of the frames; both over e^(largest score). */
static void crnn_attend(const crnn_context *c, const crnn_node *node, const float *x) {
  const float *score = c->program->weights + node->weights_at[2];
  float *const largest = c->values + node->memory_at, *const units = c->scratch;
  double *const total = c->sums + node->sums_at, *const weighted = total + 1;
  const crnn_row row = {.x = x, .n = node->size};
  float s = 0.0f;
  double share;
  crnn_linear(c, node, &row, 0, units, node->p[0], 1);
  for (int32_t i = 0; i < node->p[0]; i++) s += crnn_tanh(units[i]) * score[i];
  if (s > *largest) {
    const double less = (double)crnn_exp(*largest - s);
    *total *= less;
    for (int32_t i = 0; i < node->size; i++) weighted[i] *= less;
    *largest = s;
  }
  share = (double)crnn_exp(s - *largest);
  *total += share;
  for (int32_t i = 0; i < node->size; i++) weighted[i] += share * (double)x[i];
}
#endif

/* Fold frame t into a summary. */
static void crnn_fold(const crnn_context *c, const crnn_node *node, int64_t t) {
  const float *x = crnn_value(c, node, 0, t);
  float *const memory = c->values + node->memory_at;
  switch (node->op) {
#if CRNN_HAS_FIRST
    case CRNN_FIRST:
      if (t == 0) crnn_copy(memory, x, node->size);
      break;
#endif
#if CRNN_HAS_MEAN
    case CRNN_MEAN: /* in double: exact enough for as long as a stream can run */
      for (int32_t i = 0; i < node->size; i++) c->sums[node->sums_at + i] += (double)x[i];
      break;
#endif
#if CRNN_HAS_MAX
    case CRNN_MAX:
      for (int32_t i = 0; i < node->size; i++) memory[i] = crnn_larger(memory[i], x[i]);
      break;
#endif
#if CRNN_HAS_ATTEND
    case CRNN_ATTEND:
      crnn_attend(c, node, x);
      break;
#endif
    default: /* the last frame */
      crnn_copy(memory, x, node->size);
  }
}

/* The vector of a summary of `count` frames. */
static void crnn_summarize(const crnn_context *c, const crnn_node *node, int64_t count, float *out) {
  switch (node->op) {
#if CRNN_HAS_MEAN
    case CRNN_MEAN:
      for (int32_t i = 0; i < node->size; i++) out[i] = (float)(c->sums[node->sums_at + i] / (double)count);
      break;
#endif
#if CRNN_HAS_ATTEND
    case CRNN_ATTEND:
      for (int32_t i = 0; i < node->size; i++) {
        out[i] = (float)(c->sums[node->sums_at + 1 + i] / c->sums[node->sums_at]);
      }
      break;
#endif
    default:
      crnn_copy(out, c->values + node->memory_at, node->size);
  }
  (void)count;
}

/* Frame t of a node, or its vector. */
static void crnn_compute(const crnn_context *c, const crnn_node *node, int64_t t, float *out) {
  const float *const weights = c->program->weights;
  const float *x = node->extent == 1 || node->kind != CRNN_STREAM ? crnn_value(c, node, 0, t) : NULL;
  switch (node->op) {
#if CRNN_HAS_CONV
    case CRNN_CONV:
      crnn_conv(c, node, t, out);
      break;
#endif
#if CRNN_HAS_DEPTHWISE
    case CRNN_DEPTHWISE:
      crnn_depthwise(c, node, t, out);
      break;
#endif
#if CRNN_HAS_CONV2D
    case CRNN_CONV2D:
      crnn_conv2d(c, node, t, out);
      break;
#endif
#if CRNN_HAS_POOL
    case CRNN_POOL:
      crnn_pool(c, node, t, out);
      break;
#endif
#if CRNN_HAS_LOG_MEL
    case CRNN_LOG_MEL:
      crnn_log_mel(c, node, t, out);
      break;
#endif
#if CRNN_HAS_DIFFERENCE
    case CRNN_DIFFERENCE: { /* memory: the frame before */
      float *const before = c->values + node->memory_at;
      for (int32_t i = 0; i < node->size; i++) {
        out[i] = t == 0 ? 0.0f : x[i] - before[i];
        before[i] = x[i];
      }
      break;
    }
#endif
#if CRNN_HAS_AFFINE
    case CRNN_AFFINE: { /* weights: centre, scale, shift */
      const float *centre = weights + node->weights_at[0], *scale = weights + node->weights_at[1];
      const float *shift = weights + node->weights_at[2];
      for (int32_t i = 0; i < node->size; i++) out[i] = (x[i] - centre[i]) * scale[i] + shift[i];
      break;
    }
#endif
#if CRNN_HAS_MAP
    case CRNN_MAP:
      crnn_map(node, x, out);
      break;
#endif
#if CRNN_HAS_SOFTMAX
    case CRNN_SOFTMAX:
      crnn_softmax(x, out, node->size);
      break;
#endif
#if CRNN_HAS_DENSE
    case CRNN_DENSE:
      crnn_dense(c, node, x, out);
      break;
#endif
#if CRNN_HAS_FRAME_NORM
    case CRNN_FRAME_NORM:
      crnn_frame_norm(c, node, x, out);
      break;
#endif
#if CRNN_HAS_FILL_MISSING
    case CRNN_FILL_MISSING: { /* p: 1 to repeat the newest; memory: that one */
      float *const newest = c->values + node->memory_at;
      for (int32_t i = 0; i < node->size; i++) {
        if (x[i] == x[i] && node->p[0]) newest[i] = x[i];
        out[i] = x[i] == x[i] ? x[i] : newest[i];
      }
      break;
    }
#endif
#if CRNN_HAS_IS_MISSING
    case CRNN_IS_MISSING:
      for (int32_t i = 0; i < node->size; i++) out[i] = x[i] != x[i] ? 1.0f : 0.0f;
      break;
#endif
#if CRNN_HAS_EMBEDDING
    case CRNN_EMBEDDING:
      crnn_embedding(c, node, x, out);
      break;
#endif
#if CRNN_HAS_POOL_BINS
    case CRNN_POOL_BINS:
      crnn_pool_bins(node, x, out);
      break;
#endif
#if CRNN_HAS_SLICE
    case CRNN_SLICE: /* p: first value; also for what only has another shape */
      crnn_copy(out, x + node->p[0], node->size);
      break;
#endif
#if CRNN_HAS_CONCAT
    case CRNN_CONCAT:
      for (int32_t k = 0; k < node->num_inputs; k++) {
        const int32_t n = c->program->nodes[crnn_source(c, node, k)].size;
        crnn_copy(out, crnn_value(c, node, k, t), n);
        out += n;
      }
      break;
#endif
#if CRNN_HAS_ADD
    case CRNN_ADD:
      crnn_copy(out, x, node->size);
      for (int32_t k = 1; k < node->num_inputs; k++) {
        const float *y = crnn_value(c, node, k, t);
        for (int32_t i = 0; i < node->size; i++) out[i] += y[i];
      }
      break;
#endif
#if CRNN_HAS_MULTIPLY
    case CRNN_MULTIPLY:
      crnn_copy(out, x, node->size);
      for (int32_t k = 1; k < node->num_inputs; k++) {
        const float *y = crnn_value(c, node, k, t);
        for (int32_t i = 0; i < node->size; i++) out[i] *= y[i];
      }
      break;
#endif
#if CRNN_HAS_GATED_MEAN
    case CRNN_GATED_MEAN: { /* memory: the mean; weights: 3, that before the first frame; p: its size */
      float *const mean = c->values + node->memory_at;
      for (int32_t i = 0; i < node->size; i++) {
        const float new = x[node->size + i];
        out[i] = new + crnn_sigmoid(x[i]) * (mean[i] - new);
      }
      crnn_copy(mean, out, node->size);
      break;
    }
#endif
#if CRNN_HAS_RNN || CRNN_HAS_LSTM || CRNN_HAS_GRU
    case CRNN_RNN:
    case CRNN_LSTM:
    case CRNN_GRU:
      crnn_recurrent(c, node, x, out);
      break;
#endif
    default:
      break;
  }
  (void)weights, (void)x;
}

/* Whether frame t of a node can come now. Where its input has ended before, the node has ended, too. */
static int crnn_is_ready(const crnn_context *c, int32_t i) {
  const crnn_node *node = &c->program->nodes[i];
  const int64_t t = c->counts[i];
  for (int32_t k = 0; k < node->num_inputs; k++) {
    const int32_t j = crnn_source(c, node, k);
    const int64_t n = c->counts[j];
    int64_t windows;
    if (n > t * node->stride - node->pad_left + node->extent - 1) continue;
    if (!c->done[j]) return 0;
    if (node->whole) windows = n < node->extent ? 0 : (n - node->extent) / node->stride + 1;
    else windows = (n + node->stride - 1) / node->stride;
    if (t >= windows) {
      c->done[i] = 1;
      return 0;
    }
  }
  return 1;
}

/* One frame of every node that has one; returns whether there was any. */
static int crnn_pass(crnn_context *c) {
  int any = 0;
  for (int32_t i = 1; i < c->program->num_nodes; i++) {
    const crnn_node *node = &c->program->nodes[i];
    if (node->kind == CRNN_VECTOR || !crnn_is_ready(c, i)) continue;
    if (node->kind == CRNN_SUMMARY) {
      crnn_fold(c, node, c->counts[i]);
    } else {
      float *const out = c->values + node->frames_at + (ptrdiff_t)c->heads[i] * node->size;
      crnn_compute(c, node, c->counts[i], out);
      c->heads[i] = c->heads[i] + 1 == node->capacity ? 0 : c->heads[i] + 1;
      if (i == c->program->num_nodes - 1) {
        crnn_copy(c->out, out, node->size);
        c->out += node->size;
        c->num_out++;
      }
    }
    c->counts[i]++;
    any = 1;
  }
  return any;
}

/* Input frames, at least one, until some node can go on. */
static int64_t crnn_wanted(const crnn_context *c) {
  const crnn_program *program = c->program;
  int64_t wanted = INT64_MAX;
  for (int32_t i = 1; i < program->num_nodes; i++) {
    const crnn_node *node = &program->nodes[i];
    if (node->kind != CRNN_VECTOR && crnn_source(c, node, 0) == 0) {
      const int64_t more = c->counts[i] * node->stride - node->pad_left + node->extent - c->counts[0];
      if (more < wanted) wanted = more;
    }
  }
  return wanted < 1 ? 1 : wanted;
}

/* The outputs of summaries and what follows them; 1 where every summary has a frame, else 0. */
static int64_t crnn_read(const crnn_context *c, float *out) {
  const crnn_program *program = c->program;
  const crnn_node *last = &program->nodes[program->num_nodes - 1];
  for (int32_t i = 1; i < program->num_nodes; i++) {
    if (program->nodes[i].kind == CRNN_SUMMARY && c->counts[i] == 0) return 0;
  }
  for (int32_t i = 1; i < program->num_nodes; i++) {
    const crnn_node *node = &program->nodes[i];
    if (node->kind == CRNN_SUMMARY) crnn_summarize(c, node, c->counts[i], c->scratch + node->frames_at);
    else if (node->kind == CRNN_VECTOR) crnn_compute(c, node, 0, c->scratch + node->frames_at);
  }
  crnn_copy(out, c->scratch + last->frames_at, last->size);
  return 1;
}

/* The state before the first frame. */
static void crnn_clear(const crnn_context *c) {
  const crnn_program *program = c->program;
  for (int32_t i = 0; i < program->num_nodes; i++) c->counts[i] = 0, c->heads[i] = 0, c->done[i] = 0;
  for (int32_t i = 0; i < program->num_sums; i++) c->sums[i] = 0.0;
  crnn_zero(c->values, program->num_values);
  for (int32_t i = 0; i < program->num_nodes; i++) {
    const crnn_node *node = &program->nodes[i];
    float *const memory = c->values + node->memory_at;
#if CRNN_HAS_MAX
    if (node->op == CRNN_MAX) {
      for (int32_t k = 0; k < node->size; k++) memory[k] = -INFINITY;
    }
#endif
#if CRNN_HAS_ATTEND
    if (node->op == CRNN_ATTEND) *memory = -INFINITY;
#endif
#if CRNN_HAS_RNN || CRNN_HAS_LSTM || CRNN_HAS_GRU || CRNN_HAS_GATED_MEAN
    if (node->op == CRNN_RNN || node->op == CRNN_LSTM || node->op == CRNN_GRU || node->op == CRNN_GATED_MEAN) {
      crnn_copy(memory, program->weights + node->weights_at[3], node->p[0]);
    }
#endif
    (void)memory;
  }
}

/* Feed n frames. Returns how many rows of outputs are in out: 1 or 0 after a summary, else the frames that are ready,
   at most n. -1 after the end. */
static int64_t crnn_feed(crnn_context *c, const float *frames, int64_t n, float *out) {
  const crnn_node *input = &c->program->nodes[0];
  const int is_vector = c->program->nodes[c->program->num_nodes - 1].kind != CRNN_STREAM;
  if (c->done[0]) return -1;
  c->out = out;
  c->num_out = 0;
  while (n > 0) {
    int64_t left = crnn_wanted(c);
    if (left > n) left = n;
    n -= left;
    while (left > 0) { /* as far as the end of the ring */
      const int32_t room = input->capacity - c->heads[0];
      const int32_t now = left < room ? (int32_t)left : room;
      crnn_copy(c->values + input->frames_at + (ptrdiff_t)c->heads[0] * input->size, frames, now * input->size);
      frames += (ptrdiff_t)now * input->size;
      c->heads[0] = now == room ? 0 : c->heads[0] + now;
      c->counts[0] += now;
      left -= now;
    }
    crnn_pass(c);
  }
  return is_vector ? crnn_read(c, out) : c->num_out;
}

/* The end of the stream: the outputs of all of it, as push returns them; -1 when it had ended before. */
static int64_t crnn_flush(crnn_context *c, float *out) {
  const int is_vector = c->program->nodes[c->program->num_nodes - 1].kind != CRNN_STREAM;
  if (c->done[0]) return -1;
  c->out = out;
  c->num_out = 0;
  c->done[0] = 1;
  while (crnn_pass(c)) continue;
  return is_vector ? crnn_read(c, out) : c->num_out;
}
