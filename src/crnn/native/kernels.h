/* Sums and functions on rows of floats: strict C99 that compilers turn into vector instructions.

   Weights are blocked: for 16 outputs after another, input by input, their 16 weights side by side; outputs are filled up
   with zeros to whole blocks. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#if CRNN_HAS_INT8
/* What multiplies bytes here; plain C where none of these is defined. */
#if !defined(__GNUC__)
#elif defined(__AVX512VNNI__)
#define CRNN_BYTES_VNNI_512
#elif defined(__AVXVNNI__)
#define CRNN_BYTES_VNNI_256
#elif defined(__AVX2__)
#define CRNN_BYTES_AVX2
#elif defined(__SSE2__)
#define CRNN_BYTES_SSE2
#elif defined(__ARM_FEATURE_DOTPROD)
#define CRNN_BYTES_DOTPROD
#include <arm_neon.h>
#endif
#if defined(CRNN_BYTES_VNNI_512) || defined(CRNN_BYTES_VNNI_256)
#define CRNN_FLIP 128 /* these multiply bytes without a sign by bytes with one, so 128 is added to each input */
#endif
#if defined(CRNN_FLIP) || defined(CRNN_BYTES_AVX2)
#include <immintrin.h>
#elif defined(CRNN_BYTES_SSE2)
#include <emmintrin.h>
#endif
#endif

#ifdef FP_FAST_FMAF
#define CRNN_MULTIPLY_ADD(a, b, c) fmaf((a), (b), (c))
#else
#define CRNN_MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#endif

#if CRNN_HAS_MATRIX
/* sum[l] += w[i][l] * x[i] over n inputs, for 16 outputs: several inputs at a time, each with sums of its own, so that
   none waits for the one before; as many as fit into the registers. */
#if defined(__AVX__) || defined(__aarch64__)
#define CRNN_INPUTS_AT_ONCE 4
#elif defined(__SSE__) || defined(__ARM_NEON)
#define CRNN_INPUTS_AT_ONCE 2
#else
#define CRNN_INPUTS_AT_ONCE 1
#endif

#if defined(__GNUC__) && defined(__SSE__) && !defined(__AVX__)
/* Written out, as compilers lose their way among these few registers; the same sums in the same order as below. */
typedef float crnn_four __attribute__((vector_size(16), aligned(4), may_alias));

static void crnn_add_16(const float *w, const float *x, int32_t n, float *sum) {
  crnn_four *const to = (crnn_four *)(void *)sum;
  const crnn_four *from = (const crnn_four *)(const void *)w;
  crnn_four a0 = to[0], a1 = to[1], a2 = to[2], a3 = to[3];
  crnn_four b0 = {0.0f, 0.0f, 0.0f, 0.0f}, b1 = b0, b2 = b0, b3 = b0;
  int32_t i = 0;
  for (; i + 2 <= n; i += 2, from += 8) {
    const crnn_four v = {x[i], x[i], x[i], x[i]}, u = {x[i + 1], x[i + 1], x[i + 1], x[i + 1]};
    a0 += from[0] * v, a1 += from[1] * v, a2 += from[2] * v, a3 += from[3] * v;
    b0 += from[4] * u, b1 += from[5] * u, b2 += from[6] * u, b3 += from[7] * u;
  }
  if (i < n) {
    const crnn_four v = {x[i], x[i], x[i], x[i]};
    a0 += from[0] * v, a1 += from[1] * v, a2 += from[2] * v, a3 += from[3] * v;
  }
  to[0] = a0 + b0, to[1] = a1 + b1, to[2] = a2 + b2, to[3] = a3 + b3;
}
#else
static void crnn_add_16(const float *restrict w, const float *restrict x, int32_t n, float *restrict sum) {
  float a[16];
  int32_t i = 0;
#if CRNN_INPUTS_AT_ONCE >= 2
  float b[16] = {0};
#endif
#if CRNN_INPUTS_AT_ONCE >= 4
  float c[16] = {0}, d[16] = {0};
#endif
  for (int l = 0; l < 16; l++) a[l] = sum[l];
  for (; i + CRNN_INPUTS_AT_ONCE <= n; i += CRNN_INPUTS_AT_ONCE) {
    for (int l = 0; l < 16; l++) a[l] = CRNN_MULTIPLY_ADD(w[l], x[i], a[l]);
#if CRNN_INPUTS_AT_ONCE >= 2
    for (int l = 0; l < 16; l++) b[l] = CRNN_MULTIPLY_ADD(w[16 + l], x[i + 1], b[l]);
#endif
#if CRNN_INPUTS_AT_ONCE >= 4
    for (int l = 0; l < 16; l++) c[l] = CRNN_MULTIPLY_ADD(w[32 + l], x[i + 2], c[l]);
    for (int l = 0; l < 16; l++) d[l] = CRNN_MULTIPLY_ADD(w[48 + l], x[i + 3], d[l]);
#endif
    w += 16 * CRNN_INPUTS_AT_ONCE;
  }
  for (; i < n; i++) {
    for (int l = 0; l < 16; l++) a[l] = CRNN_MULTIPLY_ADD(w[l], x[i], a[l]);
    w += 16;
  }
#if CRNN_INPUTS_AT_ONCE >= 4
  for (int l = 0; l < 16; l++) a[l] += c[l], b[l] += d[l];
#endif
#if CRNN_INPUTS_AT_ONCE >= 2
  for (int l = 0; l < 16; l++) a[l] += b[l];
#endif
  for (int l = 0; l < 16; l++) sum[l] = a[l];
}
#endif

/* sum += w x for m outputs, m a multiple of 16. */
static void crnn_add(const float *w, const float *x, int32_t n, float *sum, int32_t m) {
  for (int32_t at = 0; at < m; at += 16) {
    crnn_add_16(w, x, n, sum + at);
    w += (ptrdiff_t)16 * n;
  }
}
#endif

#if CRNN_HAS_INT8
/* x in whole steps, times of which it is `scale`, within -127 ... 127; halves go to the even one, NaN to 0. Filled up
   with zeros to a multiple of 4. Compared as integers, as in crnn_exp. */
static void crnn_quantize(const float *x, int32_t n, float scale, int8_t *q) {
  int32_t i = 0;
  for (; i < n; i++) {
    union {
      float f;
      int32_t i;
    } bits;
    int32_t size;
    bits.f = x[i] * scale;
    size = bits.i & 0x7FFFFFFF;
    bits.i = size > 0x42FE0000 ? (bits.i ^ size) | 0x42FE0000 : bits.i; /* 127.0f */
    bits.i = size > 0x7F800000 ? 0 : bits.i;
    bits.f = bits.f + 12582912.0f; /* 1.5 * 2^23: its last bits are the rounded number */
#if defined(CRNN_FLIP)
    bits.i ^= CRNN_FLIP;
#endif
    q[i] = (int8_t)((bits.i & 0xFF) - ((bits.i & 0x80) << 1));
  }
  for (; i & 3; i++) q[i] = 0;
}

/* sum[l] += scale[l] * (w q)[l] over n inputs, a multiple of 4, for 16 outputs: four inputs after another, output by
   output. Sums are exact whole numbers, so every way below gives the same. `offset` is 128 times the sum of an output's
   weights: what CRNN_FLIP has added. */
static void crnn_add_bytes_16(const int8_t *restrict w, const int8_t *restrict q, int32_t n,
                              const int32_t *restrict offset, const float *restrict scale, float *restrict sum) {
#if defined(CRNN_BYTES_VNNI_512)
  __m512i a = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_loadu_si512(offset));
  __m512i b = _mm512_setzero_si512(), c = b, d = b;
  int32_t four[4];
  for (; n >= 16; n -= 16, w += 256, q += 16) {
    __builtin_memcpy(four, q, 16);
    a = _mm512_dpbusd_epi32(a, _mm512_set1_epi32(four[0]), _mm512_loadu_si512(w));
    b = _mm512_dpbusd_epi32(b, _mm512_set1_epi32(four[1]), _mm512_loadu_si512(w + 64));
    c = _mm512_dpbusd_epi32(c, _mm512_set1_epi32(four[2]), _mm512_loadu_si512(w + 128));
    d = _mm512_dpbusd_epi32(d, _mm512_set1_epi32(four[3]), _mm512_loadu_si512(w + 192));
  }
  for (; n > 0; n -= 4, w += 64, q += 4) {
    __builtin_memcpy(four, q, 4);
    a = _mm512_dpbusd_epi32(a, _mm512_set1_epi32(four[0]), _mm512_loadu_si512(w));
  }
  a = _mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d));
  _mm512_storeu_ps(sum, _mm512_add_ps(_mm512_loadu_ps(sum), /* no fused multiply-add: the same as everywhere */
                                      _mm512_mul_ps(_mm512_loadu_ps(scale), _mm512_cvtepi32_ps(a))));
#else
  int32_t whole[16];
#if defined(CRNN_BYTES_VNNI_256)
  const __m256i zero = _mm256_setzero_si256();
  __m256i a = _mm256_sub_epi32(zero, _mm256_loadu_si256((const __m256i *)(const void *)offset));
  __m256i b = _mm256_sub_epi32(zero, _mm256_loadu_si256((const __m256i *)(const void *)(offset + 8)));
  for (int32_t i = 0; i < n; i += 4, w += 64) {
    int32_t four;
    __m256i x;
    __builtin_memcpy(&four, q + i, 4);
    x = _mm256_set1_epi32(four);
    a = _mm256_dpbusd_avx_epi32(a, x, _mm256_loadu_si256((const __m256i *)(const void *)w));
    b = _mm256_dpbusd_avx_epi32(b, x, _mm256_loadu_si256((const __m256i *)(const void *)(w + 32)));
  }
  _mm256_storeu_si256((__m256i *)(void *)whole, a);
  _mm256_storeu_si256((__m256i *)(void *)(whole + 8), b);
#elif defined(CRNN_BYTES_AVX2) /* as pairs of 16 bits: two sums an output, added at the end */
  __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
#define CRNN_PAIRS(at) \
  _mm256_madd_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(w + (at)))), x)
  for (int32_t i = 0; i < n; i += 4, w += 64) {
    int32_t four;
    __m256i x;
    __builtin_memcpy(&four, q + i, 4);
    x = _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(four)));
    a = _mm256_add_epi32(a, CRNN_PAIRS(0));
    b = _mm256_add_epi32(b, CRNN_PAIRS(16));
    c = _mm256_add_epi32(c, CRNN_PAIRS(32));
    d = _mm256_add_epi32(d, CRNN_PAIRS(48));
  }
#undef CRNN_PAIRS
  a = _mm256_permute4x64_epi64(_mm256_hadd_epi32(a, b), 0xD8);
  c = _mm256_permute4x64_epi64(_mm256_hadd_epi32(c, d), 0xD8);
  _mm256_storeu_si256((__m256i *)(void *)whole, a);
  _mm256_storeu_si256((__m256i *)(void *)(whole + 8), c);
  (void)offset;
#elif defined(CRNN_BYTES_SSE2) /* the same, four outputs after another */
  for (int l = 0; l < 16; l += 4) {
    __m128i a = _mm_setzero_si128(), b = a;
    for (int32_t i = 0; i < n; i += 4) {
      const __m128i four = _mm_loadu_si128((const __m128i *)(const void *)(w + (ptrdiff_t)i * 16 + l * 4));
      int32_t bytes;
      __m128i x;
      __builtin_memcpy(&bytes, q + i, 4);
      x = _mm_shuffle_epi32(_mm_cvtsi32_si128(bytes), 0);
      x = _mm_srai_epi16(_mm_unpacklo_epi8(x, x), 8);
      a = _mm_add_epi32(a, _mm_madd_epi16(_mm_srai_epi16(_mm_unpacklo_epi8(four, four), 8), x));
      b = _mm_add_epi32(b, _mm_madd_epi16(_mm_srai_epi16(_mm_unpackhi_epi8(four, four), 8), x));
    }
    {
      int32_t pairs[8];
      _mm_storeu_si128((__m128i *)(void *)pairs, a);
      _mm_storeu_si128((__m128i *)(void *)(pairs + 4), b);
      for (int k = 0; k < 4; k++) whole[l + k] = pairs[2 * k] + pairs[2 * k + 1];
    }
  }
  (void)offset;
#elif defined(CRNN_BYTES_DOTPROD)
  int32x4_t a = vdupq_n_s32(0), b = a, c = a, d = a;
  for (int32_t i = 0; i < n; i += 4, w += 64) {
    int32_t four;
    int8x16_t x;
    __builtin_memcpy(&four, q + i, 4);
    x = vreinterpretq_s8_s32(vdupq_n_s32(four));
    a = vdotq_s32(a, vld1q_s8(w), x);
    b = vdotq_s32(b, vld1q_s8(w + 16), x);
    c = vdotq_s32(c, vld1q_s8(w + 32), x);
    d = vdotq_s32(d, vld1q_s8(w + 48), x);
  }
  vst1q_s32(whole, a);
  vst1q_s32(whole + 4, b);
  vst1q_s32(whole + 8, c);
  vst1q_s32(whole + 12, d);
  (void)offset;
#else
  for (int l = 0; l < 16; l++) whole[l] = 0;
  for (int32_t i = 0; i < n; i += 4, w += 64) {
    const int32_t v0 = q[i], v1 = q[i + 1], v2 = q[i + 2], v3 = q[i + 3];
    for (int l = 0; l < 16; l++) {
      whole[l] += w[4 * l] * v0 + w[4 * l + 1] * v1 + w[4 * l + 2] * v2 + w[4 * l + 3] * v3;
    }
  }
  (void)offset;
#endif
  for (int l = 0; l < 16; l++) sum[l] += scale[l] * (float)whole[l];
#endif
}

/* sum += scale * (w q) for m outputs, m a multiple of 16. */
static void crnn_add_bytes(const int8_t *w, const int8_t *q, int32_t n, const int32_t *offset, const float *scale,
                           float *sum, int32_t m) {
  for (int32_t at = 0; at < m; at += 16) {
    crnn_add_bytes_16(w, q, n, offset + at, scale + at, sum + at);
    w += (ptrdiff_t)16 * n;
  }
}
#endif

#if CRNN_HAS_EXP
/* e^x to 2e-7 of itself for x in -87 ... 87, clamped outside; NaN gives NaN. Cody-Waite reduction and a polynomial of
   degree 6; the power of two goes into the exponent bits. Floats are compared as integers only: compilers do not make
   vectors of comparisons that could trap. */
static inline float crnn_exp(float x) {
  union {
    float f;
    int32_t i;
    uint32_t u;
  } bits, round, power;
  float r, y;
  int32_t size;
  bits.f = x;
  size = bits.i & 0x7FFFFFFF;
  bits.i = ((size > 0x42AE0000) & (size <= 0x7F800000)) ? (bits.i ^ size) | 0x42AE0000 : bits.i; /* 87.0f; inf */
  x = bits.f;
  round.f = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: its last bits are the rounded number */
  r = round.f - 12582912.0f;
  power.u = (round.u << 23) + 0x3F800000u;
  x = x - r * 0.693359375f;
  x = x + r * 2.12194440e-4f;
  y = 1.98412698e-4f * x + 1.38888889e-3f;
  y = y * x + 8.33333333e-3f;
  y = y * x + 4.16666667e-2f;
  y = y * x + 1.66666667e-1f;
  y = y * x + 0.5f;
  y = y * x * x + x + 1.0f;
  return y * power.f;
}
#endif

#if CRNN_HAS_MAP_RELU
/* NaN gives NaN. */
static inline float crnn_relu(float x) {
  union {
    float f;
    int32_t i;
  } bits;
  bits.f = x;
  bits.i = ((bits.i < 0) & ((bits.i & 0x7FFFFFFF) <= 0x7F800000)) ? 0 : bits.i;
  return bits.f;
}
#endif

#if CRNN_HAS_SIGMOID
static inline float crnn_sigmoid(float x) { return 1.0f / (1.0f + crnn_exp(-x)); }
#endif

#if CRNN_HAS_TANH
static inline float crnn_tanh(float x) {
  const float e = crnn_exp(2.0f * x);
  return 1.0f - 2.0f / (e + 1.0f);
}
#endif
