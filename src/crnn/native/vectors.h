/* Vectors as wide as the machine's registers; sigmoid and tanh of them. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if !defined(__GNUC__)
#error "needs the vector extensions of gcc or clang"
#endif

#if defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__SSE__)
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
#define WIDE (2 * WIDTH) /* outputs at once, where more sums than one vector has to hide the latency of an addition */

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

#if defined(__AVX512F__)
INLINE vec within_87(vec x) { /* NaN stays NaN, as the second of the two */
  return (vec)_mm512_max_ps(_mm512_set1_ps(-87.0f), _mm512_min_ps(_mm512_set1_ps(87.0f), (__m512)x));
}
INLINE vec times_power_of_two(vec x, vec n) { return (vec)_mm512_scalef_ps((__m512)x, (__m512)n); }
INLINE vec inverse(vec x) { /* one step of Newton's; a division takes as long as all the rest of a sigmoid */
  const vec guess = (vec)_mm512_rcp14_ps((__m512)x);
  return guess + guess * (1.0f - x * guess);
}
#else
INLINE vec choose(ints which, vec a, vec b) { return (vec)((which & (ints)a) | (~which & (ints)b)); }
INLINE vec within_87(vec x) {
  x = choose(x > 87.0f, all(87.0f), x);
  return choose(x < -87.0f, all(-87.0f), x);
}
INLINE vec times_power_of_two(vec x, vec n) {
  const vec last_bits = n + 12582912.0f; /* as in exponential */
  return x * (vec)(((ints)last_bits - 0x4B400000 + 127) << 23);
}
INLINE vec inverse(vec x) { return 1.0f / x; }
#endif

/* e^x for x within 87 of 0; the relative error is below 3e-7. */
INLINE vec exponential(vec x) {
  const vec n = (x * 1.44269504f + 12582912.0f) - 12582912.0f; /* 1.5 * 2^23: rounds to a whole number */
  vec p;
  x = x - n * 0.693359375f;
  x = x + n * 2.12194440e-4f;
  p = x * (1.0f / 720) + 1.0f / 120; /* a Taylor series: |x| is at most ln(2) / 2 */
  p = p * x + 1.0f / 24;
  p = p * x + 1.0f / 6;
  p = p * x + 0.5f;
  p = p * x + 1.0f;
  p = p * x + 1.0f;
  return times_power_of_two(p, n);
}

/* 1 / (1 + exp(-x)); NaN stays NaN. */
INLINE vec sigmoid(vec x) { return inverse(1.0f + exponential(within_87(-x))); }

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
