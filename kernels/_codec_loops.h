/* The loops of the waveform codec: adaptive prediction, context modelling, range coding (rANS).
 *
 * Integers only, every overflow defined (unsigned arithmetic), so that any board decodes what any other encoded. What each
 * step means is in reference_codec.py, which says the same in plain Python.
 */
#ifndef AIDPOST_CODEC_LOOPS_H
#define AIDPOST_CODEC_LOOPS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "_codec_tables.h" /* CONTEXTS, SYMBOLS, PROBABILITY_BITS, FREQUENCY[CONTEXTS][SYMBOLS], LIMIT[CONTEXTS] */

#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#define CODEC_NEON
#endif

#define TAPS 8
#define STEP_LIMIT 16383
#define ONE (1u << PROBABILITY_BITS)
#define RANS_LOW (1u << 16)

#if defined(__SIZEOF_INT128__)
__extension__ typedef unsigned __int128 Wide;
#endif

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define LITTLE64(v) (v)
#else
#define LITTLE64(v) __builtin_bswap64(v)
#endif

typedef struct {
    uint16_t frequency, start;
} Interval;

typedef struct {
    uint64_t reciprocal; /* ceil(2^44 / frequency): exact for 32-bit numerators and frequencies below 2^12 */
    uint16_t frequency, start;
} Divisor;

static uint8_t SLOT[CONTEXTS][1 << PROBABILITY_BITS];
static Interval INTERVAL[CONTEXTS][SYMBOLS];
static Divisor DIVISOR[CONTEXTS][SYMBOLS];

static inline int32_t to_int16(int64_t v) { return v > 32767 ? 32767 : v < -32768 ? -32768 : (int32_t)v; }

/* The smaller and the larger of two, without the branch that a compiler may choose and a processor guess wrong. */
static inline int64_t smaller(int64_t a, int64_t b) { return a + ((b - a) & ((b - a) >> 63)); }
static inline int64_t larger(int64_t a, int64_t b) { return a - ((a - b) & ((a - b) >> 63)); }

static inline int bit_length(uint64_t v) { return 64 - __builtin_clzll(v); } /* of v > 0 */

/* ---- prediction: eight adaptive taps (normalised LMS) over first differences ---- */

typedef struct {
#if defined(__SSE2__)
    __m128i weight, past; /* past: tap 0 is the newest difference; tap 7 the reference lead's difference of now */
#elif defined(CODEC_NEON)
    int16x8_t weight, past;
#else
    int16_t weight[TAPS], past[TAPS];
#endif
    uint64_t energy; /* decaying sum of squared differences, some eight long; without the newest: nothing has to wait for it */
    int64_t scale;   /* 2^(29 - rate): adaptation is slower with a larger rate */
} Predictor;

static void predictor_start(Predictor *p, const int8_t *weight, int rate)
{
    int16_t w[TAPS];
    for (int i = 0; i < TAPS; i++)
        w[i] = (int16_t)(weight[i] * 128);
    memset(p, 0, sizeof *p);
    memcpy(&p->weight, w, sizeof w);
    p->scale = (int64_t)1 << (29 - rate);
}

/* The weights, rounded to what a header holds. */
static void predictor_weights(const Predictor *p, int8_t *weight)
{
    int16_t w[TAPS];
    memcpy(w, &p->weight, sizeof w);
    for (int i = 0; i < TAPS; i++) {
        int v = (w[i] + 64) >> 7;
        weight[i] = (int8_t)(v > 127 ? 127 : v < -128 ? -128 : v);
    }
}

/* Predicted difference, in the signal's own counts. `reference` is what the reference lead did in this step. Differences are
 * divided by 2^shift before they enter. */
static inline int32_t predict(Predictor *p, int16_t reference, int shift)
{
    uint32_t sum;
#if defined(__SSE2__)
    p->past = _mm_insert_epi16(p->past, reference, 7);
    __m128i s = _mm_madd_epi16(p->weight, p->past);
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    sum = (uint32_t)_mm_cvtsi128_si32(s);
#elif defined(CODEC_NEON)
    p->past = vsetq_lane_s16(reference, p->past, 7);
    int32x4_t s = vmull_s16(vget_low_s16(p->weight), vget_low_s16(p->past));
    sum = (uint32_t)vaddvq_s32(vmlal_high_s16(s, p->weight, p->past));
#else
    p->past[TAPS - 1] = reference;
    sum = 0;
    for (int i = 0; i < TAPS; i++)
        sum += (uint32_t)((int32_t)p->weight[i] * p->past[i]);
#endif
    return (int32_t)((uint32_t)((int32_t)(sum + (1u << 12)) >> 13) << shift);
}

/* Learn from the error of the last prediction and take in the true difference, `newest`. `recent` is the difference
 * before it. */
static inline void adapt(Predictor *p, int32_t error, int16_t newest, int16_t recent, int16_t reference, int shift)
{
    uint64_t energy = p->energy + (uint64_t)(uint32_t)((int32_t)reference * reference) + 16;
    int64_t step = ((int64_t)(error >> shift) * p->scale) >> bit_length(energy);
    int16_t k = (int16_t)larger(smaller(step, STEP_LIMIT), -STEP_LIMIT);
#if defined(__SSE2__)
    const __m128i steps = _mm_set1_epi16(k);
    __m128i change = _mm_add_epi16(_mm_mulhi_epi16(p->past, steps), _mm_srli_epi16(_mm_mullo_epi16(p->past, steps), 15));
    p->weight = _mm_adds_epi16(p->weight, change);
    p->past = _mm_insert_epi16(_mm_slli_si128(p->past, 2), newest, 0);
#elif defined(CODEC_NEON)
    int16x4_t change = vrshrn_n_s32(vmull_n_s16(vget_low_s16(p->past), k), 16);
    p->weight = vqaddq_s16(p->weight, vrshrn_high_n_s32(change, vmull_high_n_s16(p->past, k), 16));
    p->past = vextq_s16(vdupq_n_s16(newest), p->past, 7);
#else
    for (int i = 0; i < TAPS; i++)
        p->weight[i] = (int16_t)to_int16(p->weight[i] + ((p->past[i] * k + 32768) >> 16));
    memmove(p->past + 1, p->past, (TAPS - 1) * sizeof p->past[0]);
    p->past[0] = newest;
#endif
    p->energy += (uint64_t)(uint32_t)((int32_t)recent * recent) - (p->energy >> 3);
}

/* ---- context: two running means of the residual's magnitude choose the probability table ---- */

typedef struct {
    int32_t fast, slow;
} Magnitude;

static inline void context_start(Magnitude *m) { m->fast = m->slow = 8 << 8; }

/* Context and, above it, for large residuals, how many low bits are sent as they are. */
static inline uint32_t context_of_mean(uint32_t mean)
{
    int top = 31 - __builtin_clz(mean | 256u), raw_bits = top > 13 ? top - 13 : 0;
    return (uint32_t)(((top > 13 ? 13 : top) - 8) * 4) + ((mean >> (top - 2)) & 3u) + ((uint32_t)raw_bits << 8);
}

static uint16_t CONTEXT[1 << 12];

static inline int context_of(const Magnitude *m, int *raw_bits)
{
    uint32_t mean = 5u * (uint32_t)m->fast + 3u * (uint32_t)m->slow; /* Q11 */
    uint32_t found = __builtin_expect(mean >> 18, 0) ? context_of_mean(mean) : CONTEXT[mean >> 6];
    *raw_bits = (int)(found >> 8);
    return (int)(found & 255u);
}

static inline void context_add(Magnitude *m, uint32_t folded)
{
    int32_t v = (int32_t)((folded > 0xfffffu ? 0xfffffu : folded) << 8);
    m->fast += (v - m->fast) >> 2;
    m->slow += (v - m->slow) >> 4;
}

/* Fill the lookup tables from FREQUENCY; called once, when the module is loaded. */
static void fill_tables(void)
{
    for (int c = 0; c < CONTEXTS; c++) {
        uint32_t start = 0;
        for (int s = 0; s < SYMBOLS; s++) {
            uint32_t f = FREQUENCY[c][s];
            INTERVAL[c][s].frequency = (uint16_t)f;
            INTERVAL[c][s].start = (uint16_t)start;
            DIVISOR[c][s].frequency = (uint16_t)f;
            DIVISOR[c][s].start = (uint16_t)start;
            DIVISOR[c][s].reciprocal = f ? (((uint64_t)1 << 44) + f - 1) / f : 0; /* symbols above LIMIT have none */
            memset(&SLOT[c][start], s, f);
            start += f;
        }
    }
    for (uint32_t i = 0; i < sizeof CONTEXT / sizeof CONTEXT[0]; i++)
        CONTEXT[i] = (uint16_t)context_of_mean(i << 6);
}

static inline uint32_t fold(int32_t v) { return ((uint32_t)v << 1) ^ (uint32_t)(v >> 31); }
static inline int32_t unfold(uint32_t v) { return (int32_t)((v >> 1) ^ (0u - (v & 1u))); }

/* ---- one lead: its two halves run side by side, so that a processor has two chains of dependent steps to fill itself ---- */

static inline void take_step(Predictor *p, const int32_t *x, const int16_t *reference, int t, int32_t *residual, int16_t *difference,
                             int shift)
{
    int32_t d = (int32_t)((uint32_t)x[t] - (uint32_t)x[t - 1]);
    int32_t error = (int32_t)((uint32_t)d - (uint32_t)predict(p, reference[t], shift));
    residual[t] = error;
    difference[t] = (int16_t)to_int16(d >> shift);
    adapt(p, error, difference[t], difference[t - 1], reference[t], shift);
}

/* Residuals, but for the first sample of each half, which goes in the header; difference: clipped, for whoever refers to this
 * lead. */
static inline __attribute__((always_inline)) void residuals_shifted(const int32_t *x, int n, const int16_t *reference,
                                                                    const int8_t *weight, int rate, int shift,
                                                                    int32_t *residual, int16_t *difference,
                                                                    int8_t *final_weight)
{
    const int half = (n + 1) / 2, rest = n - half;
    Predictor p, q;
    predictor_start(&p, weight, rate);
    predictor_start(&q, weight, rate);
    residual[0] = difference[0] = 0;
    if (rest)
        residual[half] = difference[half] = 0;
    for (int t = 1; t < rest; t++) {
        take_step(&p, x, reference, t, residual, difference, shift);
        take_step(&q, x + half, reference + half, t, residual + half, difference + half, shift);
    }
    if (half > 1 && half > rest)
        take_step(&p, x, reference, half - 1, residual, difference, shift);
    predictor_weights(rest > 1 ? &q : &p, final_weight);
}

/* Most leads need no shift, and are done sooner where the compiler knows. */
static void residuals(const int32_t *x, int n, const int16_t *reference, const int8_t *weight, int rate, int shift,
                      int32_t *residual, int16_t *difference, int8_t *final_weight)
{
    if (shift == 0)
        residuals_shifted(x, n, reference, weight, rate, 0, residual, difference, final_weight);
    else
        residuals_shifted(x, n, reference, weight, rate, shift, residual, difference, final_weight);
}

/* ---- bits sent as they are, least significant first ---- */

typedef struct {
    uint8_t *out; /* eight bytes more than the bits need are written */
    uint64_t hold;
    int held;
} BitWriter;

/* At most 56 bits. */
static inline void put_bits(BitWriter *w, uint64_t value, int bits)
{
    w->hold |= value << w->held;
    w->held += bits;
    uint64_t bytes = LITTLE64(w->hold);
    memcpy(w->out, &bytes, sizeof bytes);
    w->out += w->held >> 3;
    w->hold >>= w->held & 56;
    w->held &= 7;
}

typedef struct {
    const uint8_t *in;
    size_t at; /* in bits */
} BitReader;

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return LITTLE64(v);
}

/* At most 32 bits; eight bytes are read. */
static inline uint32_t get_bits(BitReader *r, int bits)
{
    uint64_t value = load64(r->in + (r->at >> 3)) >> (r->at & 7);
    r->at += (size_t)bits;
    return (uint32_t)(value & (((uint64_t)1 << bits) - 1));
}

/* ---- one lead's residuals to bytes and back ---- */

static inline uint16_t model_step(Magnitude *m, uint32_t folded, BitWriter *w)
{
    int bits, context = context_of(m, &bits);
    uint32_t symbol = folded >> bits;
    if (__builtin_expect(symbol >= LIMIT[context], 0)) {
        int length = bit_length(folded); /* it is larger than a symbol, so not zero */
        put_bits(w, (uint64_t)folded << 5 | ((uint64_t)length - 1), 5 + length);
        symbol = LIMIT[context];
    } else if (bits) {
        put_bits(w, folded & ((1u << bits) - 1), bits);
    }
    context_add(m, folded);
    return (uint16_t)((uint32_t)context << 8 | symbol);
}

/* Contexts and symbols, coded[t] = context << 8 | symbol, and the raw bits; the raw bytes' number. raw needs 5 bytes a sample and 8 more. */
static ptrdiff_t model(const int32_t *residual, int n, uint16_t *coded, uint8_t *raw)
{
    const int half = (n + 1) / 2, rest = n - half;
    Magnitude m, k;
    BitWriter w = {raw, 0, 0};
    context_start(&m);
    context_start(&k);
    for (int t = 1; t < half; t++) {
        coded[t] = model_step(&m, fold(residual[t]), &w);
        if (t < rest)
            coded[half + t] = model_step(&k, fold(residual[half + t]), &w);
    }
    return w.out - raw + (w.held > 0);
}

static inline uint32_t rans_put(uint32_t state, uint16_t coded, uint8_t **out)
{
    const Divisor *d = &DIVISOR[coded >> 8][coded & 255];
    /* no branch: the two bytes are written in any case, and count if the state is full */
    const int full = (int)((((uint64_t)d->frequency << (32 - PROBABILITY_BITS)) - 1 - state) >> 63);
    (*out)[-2] = (uint8_t)state;
    (*out)[-1] = (uint8_t)(state >> 8);
    *out -= 2 * full;
    state >>= 16 * full;
#if defined(__SIZEOF_INT128__)
    uint32_t q = (uint32_t)(((Wide)state * d->reciprocal) >> 44);
#else
    uint32_t q = state / d->frequency;
#endif
    return state + d->start + q * (ONE - d->frequency);
}

static inline uint8_t *rans_flush(uint32_t state, uint8_t *out)
{
    for (int i = 3; i >= 0; i--)
        *--out = (uint8_t)(state >> (8 * i));
    return out;
}

/* rANS, written from the end of out backwards; returns where it starts. out needs 2 bytes a sample and 8 more. */
static uint8_t *rans_encode(const uint16_t *coded, int n, uint8_t *out)
{
    const int half = (n + 1) / 2, rest = n - half;
    uint32_t state = RANS_LOW, other = RANS_LOW;
    if (half > 1 && half > rest)
        state = rans_put(state, coded[half - 1], &out);
    for (int t = rest - 1; t > 0; t--) {
        other = rans_put(other, coded[half + t], &out);
        state = rans_put(state, coded[t], &out);
    }
    return rans_flush(state, rans_flush(other, out));
}

typedef struct {
    Magnitude magnitude;
    uint32_t state;
} Decoder;

static inline uint32_t load32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline int32_t decode_residual(Decoder *d, const uint8_t **in, BitReader *bit)
{
    int bits, context = context_of(&d->magnitude, &bits);
    uint32_t slot = d->state & (ONE - 1), folded = SLOT[context][slot];
    const Interval *i = &INTERVAL[context][folded];
    uint32_t state = i->frequency * (d->state >> PROBABILITY_BITS) + slot - i->start;
    /* no branch: two bytes are read in any case, and count if the state has run low */
    const uint32_t low = (uint32_t)(((uint64_t)state - RANS_LOW) >> 63);
    const uint32_t word = (uint32_t)(*in)[0] | (uint32_t)(*in)[1] << 8;
    d->state = state << (16 * low) | (word & (0u - low));
    *in += 2 * low;
    if (__builtin_expect(folded == LIMIT[context], 0))
        folded = get_bits(bit, (int)get_bits(bit, 5) + 1);
    else
        folded = folded << bits | get_bits(bit, bits);
    context_add(&d->magnitude, folded);

    return unfold(folded);
}

static inline void rebuild(Predictor *p, int32_t error, int t, const int16_t *reference, int32_t *x, int16_t *difference, int shift)
{
    int32_t change = (int32_t)((uint32_t)error + (uint32_t)predict(p, reference[t], shift));
    x[t] = (int32_t)((uint32_t)x[t - 1] + (uint32_t)change);
    difference[t] = (int16_t)to_int16(change >> shift);
    adapt(p, error, difference[t], difference[t - 1], reference[t], shift);
}

/* The residuals that x holds become samples. */
static inline __attribute__((always_inline)) void rebuild_halves(int n, const int16_t *reference, const int8_t *weight, int rate,
                                                                 int shift, int32_t *x, int16_t *difference)
{
    const int half = (n + 1) / 2, rest = n - half;
    Predictor p, q;
    predictor_start(&p, weight, rate);
    predictor_start(&q, weight, rate);
    difference[0] = 0;
    if (rest)
        difference[half] = 0;
    for (int t = 1; t < rest; t++) {
        rebuild(&p, x[t], t, reference, x, difference, shift);
        rebuild(&q, x[half + t], t, reference + half, x + half, difference + half, shift);
    }
    if (half > 1 && half > rest)
        rebuild(&p, x[half - 1], half - 1, reference, x, difference, shift);
}

/* Samples of one lead from its two streams, of which 2 n + 16 and 5 n + 16 bytes may be read, used or not; x[0] and x[half] are there already.
 * Zero if both streams were used up exactly, as an encoder leaves them. */
static int decode_lead(const uint8_t *rans, ptrdiff_t rans_length, const uint8_t *raw, ptrdiff_t raw_length, int n,
                       const int16_t *reference, const int8_t *weight, int rate, int shift, int32_t *x, int16_t *difference)
{
    const int half = (n + 1) / 2, rest = n - half;
    Decoder d, e;
    BitReader bit = {raw, 0};
    const uint8_t *in = rans + 8, *end = rans + rans_length;
    if (rans_length < 8 || rans_length % 2)
        return 1;
    context_start(&d.magnitude);
    context_start(&e.magnitude);
    d.state = load32(rans);
    e.state = load32(rans + 4);
    for (int t = 1; t < rest; t++) {
        x[t] = decode_residual(&d, &in, &bit);
        x[half + t] = decode_residual(&e, &in, &bit);
    }
    if (half > 1 && half > rest)
        x[half - 1] = decode_residual(&d, &in, &bit);
    if (shift == 0)
        rebuild_halves(n, reference, weight, rate, 0, x, difference);
    else
        rebuild_halves(n, reference, weight, rate, shift, x, difference);
    return in != end || d.state != RANS_LOW || e.state != RANS_LOW || (ptrdiff_t)((bit.at + 7) / 8) != raw_length;
}

#endif
