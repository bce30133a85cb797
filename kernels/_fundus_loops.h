/* The loops of the fundus kernels, in C so that gcc may be told to compile each of them twice.
 *
 * AIDPOST_CLONES builds a loop for AVX2 and for the baseline and picks at load time (glibc's ifunc); elsewhere (ARM, where
 * NEON is the baseline, clang, musl, sanitizers) it is empty. Integer arithmetic, and single IEEE float operations without
 * contraction, so every build gives the same bits.
 */
#ifndef AIDPOST_FUNDUS_LOOPS_H
#define AIDPOST_FUNDUS_LOOPS_H

#include <stdint.h>
#include <stddef.h>
#include <string.h>

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) \
    && !defined(AIDPOST_NO_CLONES)
#define AIDPOST_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define AIDPOST_CLONES
#endif

#define LANES 96

/* One output row of the vertical filter: `taps` source rows weighted in Q14, to Q6. */
AIDPOST_CLONES
static void blend_rows(const uint8_t *source, ptrdiff_t stride, const int16_t *weight, int taps, int n, int16_t *out)
{
    for (int start = 0; start < n; start += LANES) {
        int32_t sum[LANES];
        int width = n - start < LANES ? n - start : LANES;
        for (int i = 0; i < LANES; i++)
            sum[i] = 128;
        for (int k = 0; k < taps; k++) {
            const uint8_t *row = source + k * stride + start;
            const int16_t w = weight[k];
            if (width == LANES)
                for (int i = 0; i < LANES; i++)
                    sum[i] += (int16_t)row[i] * w;
            else
                for (int i = 0; i < width; i++)
                    sum[i] += (int16_t)row[i] * w;
        }
        for (int i = 0; i < width; i++)
            out[start + i] = (int16_t)(sum[i] >> 8);
    }
}

/* One output row of the horizontal filter: RGB pixels in Q6, weights in Q14, to rounded bytes. */
AIDPOST_CLONES
static void blend_columns(const int16_t *row, const int32_t *first, const int16_t *weight, int taps, int size, uint8_t *out)
{
    for (int x = 0; x < size; x++) {
        const int16_t *pixel = row + 3 * (ptrdiff_t)first[x];
        const int16_t *w = weight + (ptrdiff_t)x * taps;
        int32_t red = 1 << 19, green = 1 << 19, blue = 1 << 19;
        for (int k = 0; k < taps; k++) {
            red += pixel[3 * k] * w[k];
            green += pixel[3 * k + 1] * w[k];
            blue += pixel[3 * k + 2] * w[k];
        }
        out[3 * x] = (uint8_t)(red >> 20);
        out[3 * x + 1] = (uint8_t)(green >> 20);
        out[3 * x + 2] = (uint8_t)(blue >> 20);
    }
}

/* column[i] += sign * pixel[i] over one row's visible span. */
AIDPOST_CLONES
static void add_row(int32_t *column, const uint8_t *pixel, int n)
{
    for (int i = 0; i < n; i++)
        column[i] += pixel[i];
}

AIDPOST_CLONES
static void subtract_row(int32_t *column, const uint8_t *pixel, int n)
{
    for (int i = 0; i < n; i++)
        column[i] -= pixel[i];
}

/* Running sums of the column sums along one row; prefix[0..2] is zero and stays so. */
static void prefix_row(const int32_t *column, int size, int32_t *prefix)
{
    int32_t red = 0, green = 0, blue = 0;
    for (int x = 0; x < size; x++) {
        red += column[3 * x];
        green += column[3 * x + 1];
        blue += column[3 * x + 2];
        prefix[3 * x + 3] = red;
        prefix[3 * x + 4] = green;
        prefix[3 * x + 5] = blue;
    }
}

/* difference = pixel - (upper - lower) * inverse, in Q6, rounded half up. The float steps are exact or single IEEE roundings. */
AIDPOST_CLONES
static void subtract_mean(const uint8_t *pixel, const int32_t *upper, const int32_t *lower, const float *inverse, int n,
                          int16_t *difference)
{
    for (int i = 0; i < n; i++) {
        float mean = (float)(upper[i] - lower[i]) * inverse[i];
        difference[i] = (int16_t)((int32_t)(((float)pixel[i] - mean) * 64.0f + 16384.5f) - 16384);
    }
}

/* Sums of |difference| by channel over one span of whole pixels. */
AIDPOST_CLONES
static void add_magnitudes(const int16_t *difference, int n, int64_t *total)
{
    int32_t red = 0, green = 0, blue = 0; /* a row of 4096 pixels reaches 4096 * 16384 = 2^26 */
    for (int i = 0; i < n; i += 3) {
        int32_t a = difference[i], b = difference[i + 1], c = difference[i + 2];
        red += a < 0 ? -a : a;
        green += b < 0 ? -b : b;
        blue += c < 0 ? -c : c;
    }
    total[0] += red;
    total[1] += green;
    total[2] += blue;
}

/* Differences in Q6 times gains in Q11, rounded half up and saturated to int8. */
AIDPOST_CLONES
static void quantise_row(const int16_t *difference, const int16_t *gain, int n, int8_t *out)
{
    for (int i = 0; i < n; i++) {
        int16_t value = (int16_t)((int16_t)((difference[i] * gain[i]) >> 16) + 1) >> 1;
        out[i] = (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
    }
}

#endif
