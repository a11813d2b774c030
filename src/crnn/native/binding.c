/* The engine as a shared library: compiled once for each instruction set, called by ctypes. */

#define CRNN_HAS_MATRIX 1
#define CRNN_HAS_LINEAR 1
#define CRNN_HAS_INT8 1
#define CRNN_HAS_EXP 1
#define CRNN_HAS_SIGMOID 1
#define CRNN_HAS_TANH 1
#define CRNN_HAS_CONV 1
#define CRNN_HAS_DEPTHWISE 1
#define CRNN_HAS_CONV2D 1
#define CRNN_HAS_POOL 1
#define CRNN_HAS_LOG_MEL 1
#define CRNN_HAS_FAST_TRANSFORM 1
#define CRNN_HAS_PLAIN_TRANSFORM 1
#define CRNN_HAS_DIFFERENCE 1
#define CRNN_HAS_AFFINE 1
#define CRNN_HAS_MAP 1
#define CRNN_HAS_MAP_RELU 1
#define CRNN_HAS_MAP_GELU 1
#define CRNN_HAS_MAP_SILU 1
#define CRNN_HAS_MAP_TANH 1
#define CRNN_HAS_MAP_LEAKY_RELU 1
#define CRNN_HAS_MAP_ELU 1
#define CRNN_HAS_MAP_ASINH 1
#define CRNN_HAS_MAP_SIGMOID 1
#define CRNN_HAS_MAP_SOFTPLUS 1
#define CRNN_HAS_SOFTMAX 1
#define CRNN_HAS_DENSE 1
#define CRNN_HAS_FRAME_NORM 1
#define CRNN_HAS_FILL_MISSING 1
#define CRNN_HAS_IS_MISSING 1
#define CRNN_HAS_EMBEDDING 1
#define CRNN_HAS_POOL_BINS 1
#define CRNN_HAS_SLICE 1
#define CRNN_HAS_CONCAT 1
#define CRNN_HAS_ADD 1
#define CRNN_HAS_MULTIPLY 1
#define CRNN_HAS_RNN 1
#define CRNN_HAS_LSTM 1
#define CRNN_HAS_GRU 1
#define CRNN_HAS_GATED_MEAN 1
#define CRNN_HAS_FIRST 1
#define CRNN_HAS_LAST 1
#define CRNN_HAS_MEAN 1
#define CRNN_HAS_MAX 1
#define CRNN_HAS_ATTEND 1

#include "engine.h"

#include <stdlib.h>

#if defined(_WIN32)
#define CRNN_EXPORT __declspec(dllexport)
#else
#define CRNN_EXPORT
#endif

/* What a call needs to know of a program, its tables and the order of a state's arrays. */
typedef struct {
  crnn_program program;
  int64_t num_scratch;
  int64_t state_bytes;
} crnn_engine;

/* Counts, sums, values, heads, done, one after the other, as in an exported state struct. */
static crnn_context crnn_view(const crnn_engine *engine, char *state, float *scratch) {
  const crnn_program *program = &engine->program;
  crnn_context c;
  c.program = program;
  c.counts = (int64_t *)(void *)state;
  c.sums = (double *)(c.counts + program->num_nodes);
  c.values = (float *)(c.sums + program->num_sums);
  c.heads = (int32_t *)(c.values + program->num_values);
  c.done = c.heads + program->num_nodes;
  c.scratch = scratch;
  c.out = NULL;
  c.num_out = 0;
  return c;
}

/* Each of these returns -2 where there is no memory for the scratch. */
CRNN_EXPORT int64_t crnn_engine_start(const crnn_engine *engine, char *state);
CRNN_EXPORT int64_t crnn_engine_push(const crnn_engine *engine, char *state, const float *frames, int64_t n,
                                     float *out);
CRNN_EXPORT int64_t crnn_engine_finish(const crnn_engine *engine, char *state, float *out);
CRNN_EXPORT int64_t crnn_engine_push_many(const crnn_engine *engine, char *states, const int64_t *rows, int64_t num,
                                          const float *frames, int64_t n, float *out, int64_t out_step,
                                          int64_t *counts);

CRNN_EXPORT int64_t crnn_engine_start(const crnn_engine *engine, char *state) {
  const crnn_context c = crnn_view(engine, state, NULL);
  crnn_clear(&c);
  return 0;
}

CRNN_EXPORT int64_t crnn_engine_push(const crnn_engine *engine, char *state, const float *frames, int64_t n,
                                     float *out) {
  float *const scratch = malloc(sizeof(float) * (size_t)engine->num_scratch);
  crnn_context c = crnn_view(engine, state, scratch);
  int64_t count;
  if (!scratch) return -2;
  count = crnn_feed(&c, frames, n, out);
  free(scratch);
  return count;
}

CRNN_EXPORT int64_t crnn_engine_finish(const crnn_engine *engine, char *state, float *out) {
  float *const scratch = malloc(sizeof(float) * (size_t)engine->num_scratch);
  crnn_context c = crnn_view(engine, state, scratch);
  int64_t count;
  if (!scratch) return -2;
  count = crnn_flush(&c, out);
  free(scratch);
  return count;
}

/* n frames for each of `num` states: frames[k] go to state rows[k], whose outputs come to out[k * out_step]. */
CRNN_EXPORT int64_t crnn_engine_push_many(const crnn_engine *engine, char *states, const int64_t *rows, int64_t num,
                                          const float *frames, int64_t n, float *out, int64_t out_step,
                                          int64_t *counts) {
  const int64_t step = n * engine->program.nodes[0].size;
  float *const scratch = malloc(sizeof(float) * (size_t)engine->num_scratch);
  if (!scratch) return -2;
  for (int64_t k = 0; k < num; k++) {
    crnn_context c = crnn_view(engine, states + rows[k] * engine->state_bytes, scratch);
    counts[k] = crnn_feed(&c, frames + k * step, n, out + k * out_step);
  }
  free(scratch);
  return 0;
}

/* Whether this machine has what instruction set `level` needs: 0 baseline, 1 AVX2 with FMA, 2 AVX-512 with VNNI. */
CRNN_EXPORT int crnn_engine_supports(int level);
CRNN_EXPORT int crnn_engine_supports(int level) {
#if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
  __builtin_cpu_init();
  if (level == 1) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (level == 2) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
  }
#endif
  return level == 0;
}
