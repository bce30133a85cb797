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

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) \
    && !defined(AIDPOST_NO_CLONES)
#define AIDPOST_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define AIDPOST_CLONES
#endif

#define LANES 96

/* One output row of the vertical filter: `taps` source rows weighted in Q14, to Q6. */
AIDPOST_CLONES
static void blend_rows(const uint8_t *__restrict__ source, ptrdiff_t stride, const int16_t *__restrict__ weight, int taps, int n,
                       int16_t *__restrict__ out)
{
    for (ptrdiff_t start = 0; start < n; start += LANES) {
        int32_t sum[LANES];
        ptrdiff_t width = n - start < LANES ? n - start : LANES;
        for (ptrdiff_t i = 0; i < LANES; i++)
            sum[i] = 128;
        for (int k = 0; k < taps; k++) {
            const uint8_t *row = source + k * stride + start;
            const int16_t w = weight[k];
            if (width == LANES)
                for (ptrdiff_t i = 0; i < LANES; i++)
                    sum[i] += (int16_t)row[i] * w;
            else
                for (ptrdiff_t i = 0; i < width; i++)
                    sum[i] += (int16_t)row[i] * w;
        }
        for (ptrdiff_t i = 0; i < width; i++)
            out[start + i] = (int16_t)(sum[i] >> 8);
    }
}

/* One output row of the horizontal filter: RGB pixels in Q6, weights in Q14 in pairs (low half first), to rounded bytes.
 * One pixel more than the taps, and one number more, may be read behind the row. */
#if defined(__SSE2__)
static void blend_columns(const int16_t *__restrict__ row, const int32_t *__restrict__ first, const int32_t *__restrict__ pair, int pairs, int size, uint8_t *__restrict__ out)
{
    for (int x = 0; x < size; x++) {
        const int16_t *pixel = row + 3 * (ptrdiff_t)first[x];
        __m128i sum = _mm_set1_epi32(1 << 19);
        for (int k = 0; k < pairs; k++, pixel += 6) {
            __m128i near = _mm_loadl_epi64((const __m128i *)pixel), far = _mm_loadl_epi64((const __m128i *)(pixel + 3));
            sum = _mm_add_epi32(sum, _mm_madd_epi16(_mm_unpacklo_epi16(near, far), _mm_set1_epi32(*pair++)));
        }
        sum = _mm_packs_epi32(_mm_srai_epi32(sum, 20), sum);
        uint32_t bytes = (uint32_t)_mm_cvtsi128_si32(_mm_packus_epi16(sum, sum));
        memcpy(out + 3 * x, &bytes, x < size - 1 ? 4 : 3);
    }
}
#else
static void blend_columns(const int16_t *__restrict__ row, const int32_t *__restrict__ first, const int32_t *__restrict__ pair, int pairs, int size, uint8_t *__restrict__ out)
{
    for (int x = 0; x < size; x++) {
        const int16_t *pixel = row + 3 * (ptrdiff_t)first[x];
        int32_t sum[3] = {1 << 19, 1 << 19, 1 << 19};
        for (int k = 0; k < pairs; k++, pixel += 6, pair++)
            for (int c = 0; c < 3; c++)
                sum[c] += pixel[c] * (int16_t)(*pair & 0xffff) + pixel[c + 3] * (*pair >> 16);
        for (int c = 0; c < 3; c++)
            out[3 * x + c] = (uint8_t)(sum[c] >> 20);
    }
}
#endif

/* column[i] += sign * pixel[i] over one row's visible span. */
AIDPOST_CLONES
static void add_row(int32_t *__restrict__ column, const uint8_t *__restrict__ pixel, int n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        column[i] += pixel[i];
}

AIDPOST_CLONES
static void subtract_row(int32_t *__restrict__ column, const uint8_t *__restrict__ pixel, int n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        column[i] -= pixel[i];
}

/* Running sums of the column sums along one row; prefix[0..2] is zero and stays so. */
static void prefix_row(const int32_t *__restrict__ column, int size, int32_t *__restrict__ prefix)
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
static void subtract_mean(const uint8_t *__restrict__ pixel, const int32_t *__restrict__ upper, const int32_t *__restrict__ lower, const float *__restrict__ inverse, int n,
                          int16_t *__restrict__ difference)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        float mean = (float)(upper[i] - lower[i]) * inverse[i];
        difference[i] = (int16_t)((int32_t)(((float)pixel[i] - mean) * 64.0f + 16384.5f) - 16384);
    }
}

/* Everything that is counted is counted by column, all three channels alike, and folded at the end: that vectorises. */
AIDPOST_CLONES
static void add_magnitudes(const int16_t *__restrict__ difference, int n, int32_t *__restrict__ column)
{
    for (ptrdiff_t i = 0; i < n; i++)
        column[i] += difference[i] < 0 ? -difference[i] : difference[i];
}

/* Whether (R + 2 G + B) / 4 is below `dark`, or is `bright`; only every third sum is of one pixel. */
AIDPOST_CLONES
static void add_light(const uint8_t *__restrict__ pixel, int n, int dark, int bright, int16_t *__restrict__ darks, int16_t *__restrict__ brights)
{
    const uint8_t *green = pixel + 1, *blue = pixel + 2;
    const int16_t low = (int16_t)(4 * dark), high = (int16_t)(4 * bright);
    for (ptrdiff_t i = 0; i < n; i++) {
        int16_t sum = (int16_t)(pixel[i] + 2 * green[i] + blue[i]);
        darks[i] = (int16_t)(darks[i] + (sum < low));
        brights[i] = (int16_t)(brights[i] + (sum >= high));
    }
}

AIDPOST_CLONES
static void add_edges(const uint8_t *__restrict__ pixel, ptrdiff_t stride, int n, int32_t *__restrict__ column)
{
    const uint8_t *left = pixel - 3, *right = pixel + 3, *up = pixel - stride, *down = pixel + stride;
    for (ptrdiff_t i = 0; i < n; i++) {
        int16_t edge = (int16_t)(4 * pixel[i] - left[i] - right[i] - up[i] - down[i]);
        column[i] += edge < 0 ? -edge : edge;
    }
}

/* Differences in Q6 times gains in Q11, rounded half up and saturated to int8. */
AIDPOST_CLONES
static void quantise_row(const int16_t *__restrict__ difference, const int16_t *__restrict__ gain, int n, int8_t *__restrict__ out)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        int16_t value = (int16_t)((int16_t)((difference[i] * gain[i]) >> 16) + 1) >> 1;
        out[i] = (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
    }
}

#endif
