/* Power spectrum of one windowed frame. */

#include <math.h>
#include <stdint.h>

#if CRNN_HAS_FAST_TRANSFORM
/* Fourier transform of `half` complex values in (re, im), half a power of two, by Stockham's ordering: no bit reversal,
   and inner loops over neighbours. cosine, sine: of 2 pi k / (2 half) for k < half. Returns 1 where the result is in
   (re2, im2), 0 where it is back in (re, im). */
static int crnn_transform(float *re, float *im, float *re2, float *im2, int32_t half, const float *cosine,
                          const float *sine) {
  int swapped = 0;
  int32_t width = 1;
  for (int32_t m = half / 2; m >= 1; m /= 2) {
    for (int32_t k = 0; k < m; k++) {
      const float c = cosine[2 * k * width], s = -sine[2 * k * width];
      const float *restrict ar = re + k * width, *restrict ai = im + k * width;
      const float *restrict br = re + (k + m) * width, *restrict bi = im + (k + m) * width;
      float *restrict yr = re2 + 2 * k * width, *restrict yi = im2 + 2 * k * width;
      for (int32_t q = 0; q < width; q++) {
        const float dr = ar[q] - br[q], di = ai[q] - bi[q];
        yr[q] = ar[q] + br[q];
        yi[q] = ai[q] + bi[q];
        yr[width + q] = dr * c - di * s;
        yi[width + q] = dr * s + di * c;
      }
    }
    {
      float *const r = re, *const i = im;
      re = re2, im = im2, re2 = r, im2 = i;
      swapped = !swapped;
    }
    width *= 2;
  }
  return swapped;
}

/* |X[k]|^2 for k = 0 ... n/2 of n real values, n a power of two, at least 4: as n/2 complex values, taken apart after.
   Reads frame; uses 2 n floats of room behind energy's n/2 + 1. */
static void crnn_power_fast(const float *frame, int32_t n, float *energy, float *room, const float *cosine,
                            const float *sine) {
  const int32_t half = n / 2;
  float *re = room, *im = room + half;
  for (int32_t k = 0; k < half; k++) {
    re[k] = frame[2 * k];
    im[k] = frame[2 * k + 1];
  }
  if (crnn_transform(re, im, room + 2 * half, room + 3 * half, half, cosine, sine)) {
    re = room + 2 * half;
    im = room + 3 * half;
  }
  energy[0] = (re[0] + im[0]) * (re[0] + im[0]);
  energy[half] = (re[0] - im[0]) * (re[0] - im[0]);
  for (int32_t k = 1; k < half; k++) {
    const float er = 0.5f * (re[k] + re[half - k]), ei = 0.5f * (im[k] - im[half - k]);
    const float pr = 0.5f * (im[k] + im[half - k]), pi = 0.5f * (re[half - k] - re[k]);
    const float xr = er + pr * cosine[k] + pi * sine[k], xi = ei + pi * cosine[k] - pr * sine[k];
    energy[k] = xr * xr + xi * xi;
  }
}
#endif

#if CRNN_HAS_PLAIN_TRANSFORM
/* The same for any n, term by term, of a frame that is zero after `length`. cosine, sine: of 2 pi k / n for k < n. */
static void crnn_power_plain(const float *frame, int32_t length, int32_t n, float *energy, const float *cosine,
                             const float *sine) {
  for (int32_t k = 0; k <= n / 2; k++) {
    double re = 0.0, im = 0.0;
    int32_t turn = 0;
    for (int32_t i = 0; i < length; i++) {
      re += (double)(frame[i] * cosine[turn]);
      im -= (double)(frame[i] * sine[turn]);
      turn += k;
      if (turn >= n) turn -= n;
    }
    energy[k] = (float)(re * re + im * im);
  }
}
#endif
