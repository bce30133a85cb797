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
#endif

#define TAPS 16
#define WEIGHT_LIMIT 24000
#define STEP_LIMIT 16383
#define ONE (1u << PROBABILITY_BITS)
#define RANS_LOW (1u << 16)

#if defined(__SIZEOF_INT128__)
__extension__ typedef unsigned __int128 Wide;
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
}

static inline int32_t to_int16(int64_t v) { return v > 32767 ? 32767 : v < -32768 ? -32768 : (int32_t)v; }

static inline int bit_length(uint64_t v) { return v ? 64 - __builtin_clzll(v) : 0; }

/* ---- prediction: sixteen adaptive taps (normalised LMS) over first differences ---- */

typedef struct {
#if defined(__SSE2__)
    __m128i weight[2], past[2]; /* past: tap 0 is the newest difference; tap 15 the reference lead's difference of now */
#else
    int16_t weight[TAPS], past[TAPS];
#endif
    uint64_t energy; /* of taps 0..14 */
    int rate, shift; /* adaptation is slower with a larger rate; differences are divided by 2^shift before they enter */
} Predictor;

static void predictor_start(Predictor *p, const int8_t *weight, int rate, int shift)
{
    int16_t w[TAPS];
    for (int i = 0; i < TAPS; i++)
        w[i] = (int16_t)(weight[i] * 128);
    memset(p, 0, sizeof *p);
    memcpy(p->weight, w, sizeof w);
    p->rate = rate;
    p->shift = shift;
}

/* The weights, rounded to what a header holds. */
static void predictor_weights(const Predictor *p, int8_t *weight)
{
    int16_t w[TAPS];
    memcpy(w, p->weight, sizeof w);
    for (int i = 0; i < TAPS; i++) {
        int v = (w[i] + 64) >> 7;
        weight[i] = (int8_t)(v > 127 ? 127 : v < -128 ? -128 : v);
    }
}

/* Predicted difference, in the signal's own counts. `reference` is what the reference lead did in this step. */
static inline int32_t predict(Predictor *p, int16_t reference)
{
    uint32_t sum;
#if defined(__SSE2__)
    p->past[1] = _mm_insert_epi16(p->past[1], reference, 7);
    __m128i s = _mm_add_epi32(_mm_madd_epi16(p->weight[0], p->past[0]), _mm_madd_epi16(p->weight[1], p->past[1]));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    sum = (uint32_t)_mm_cvtsi128_si32(s);
#else
    p->past[15] = reference;
    sum = 0;
    for (int i = 0; i < TAPS; i++)
        sum += (uint32_t)((int32_t)p->weight[i] * p->past[i]);
#endif
    return (int32_t)((uint32_t)((int32_t)(sum + (1u << 12)) >> 13) << p->shift);
}

/* Learn from the error of the last prediction and take in the true difference. `oldest`: the one that leaves tap 14. */
static inline void adapt(Predictor *p, int32_t error, int16_t newest, int16_t oldest, int16_t reference)
{
    uint64_t energy = p->energy + (uint64_t)((int32_t)reference * reference) + TAPS;
    int64_t step = ((int64_t)to_int16(error >> p->shift) * ((int64_t)1 << (29 - p->rate))) >> bit_length(energy);
    int16_t k = (int16_t)(step > STEP_LIMIT ? STEP_LIMIT : step < -STEP_LIMIT ? -STEP_LIMIT : step);
#if defined(__SSE2__)
    const __m128i top = _mm_set1_epi16(WEIGHT_LIMIT), bottom = _mm_set1_epi16(-WEIGHT_LIMIT), steps = _mm_set1_epi16(k);
    for (int i = 0; i < 2; i++) {
        __m128i change = _mm_add_epi16(_mm_mulhi_epi16(p->past[i], steps), _mm_srli_epi16(_mm_mullo_epi16(p->past[i], steps), 15));
        p->weight[i] = _mm_add_epi16(_mm_max_epi16(_mm_min_epi16(p->weight[i], top), bottom), change);
    }
    p->past[1] = _mm_or_si128(_mm_slli_si128(p->past[1], 2), _mm_srli_si128(p->past[0], 14));
    p->past[0] = _mm_insert_epi16(_mm_slli_si128(p->past[0], 2), newest, 0);
#else
    for (int i = 0; i < TAPS; i++) {
        int32_t w = p->weight[i];
        w = w > WEIGHT_LIMIT ? WEIGHT_LIMIT : w < -WEIGHT_LIMIT ? -WEIGHT_LIMIT : w;
        p->weight[i] = (int16_t)(w + ((p->past[i] * k + 32768) >> 16));
    }
    memmove(p->past + 1, p->past, (TAPS - 1) * sizeof p->past[0]);
    p->past[0] = newest;
#endif
    p->energy += (uint64_t)((int32_t)newest * newest) - (uint64_t)((int32_t)oldest * oldest);
}

/* ---- context: two running means of the residual's magnitude choose the probability table ---- */

typedef struct {
    int32_t fast, slow;
} Magnitude;

static inline void context_start(Magnitude *m) { m->fast = m->slow = 8 << 8; }

/* Context and, for large residuals, how many low bits are sent as they are. */
static inline int context_of(const Magnitude *m, int *raw_bits)
{
    uint32_t mean = 5u * (uint32_t)m->fast + 3u * (uint32_t)m->slow; /* Q11 */
    int top = 31 - __builtin_clz(mean | 256u);
    *raw_bits = top > 13 ? top - 13 : 0;
    return ((top > 13 ? 13 : top) - 8) * 4 + (int)((mean >> (top - 2)) & 3u);
}

static inline void context_add(Magnitude *m, uint32_t folded)
{
    int32_t v = (int32_t)((folded > 0xfffffu ? 0xfffffu : folded) << 8);
    m->fast += (v - m->fast) >> 2;
    m->slow += (v - m->slow) >> 4;
}

static inline uint32_t fold(int32_t v) { return ((uint32_t)v << 1) ^ (uint32_t)(v >> 31); }
static inline int32_t unfold(uint32_t v) { return (int32_t)((v >> 1) ^ (0u - (v & 1u))); }

/* ---- one lead: its two halves run side by side, so that a processor has two chains of dependent steps to fill itself ---- */

static inline void take_step(Predictor *p, const int32_t *x, const int16_t *reference, int t, int32_t *residual, int16_t *difference)
{
    int32_t d = (int32_t)((uint32_t)x[t] - (uint32_t)x[t - 1]);
    int32_t error = (int32_t)((uint32_t)d - (uint32_t)predict(p, reference[t]));
    residual[t] = error;
    difference[t] = (int16_t)to_int16(d >> p->shift);
    adapt(p, error, difference[t], t >= 15 ? difference[t - 15] : 0, reference[t]);
}

/* Residuals, but for the first sample of each half, which goes in the header; difference: clipped, for whoever refers to this
 * lead. */
static void residuals(const int32_t *x, int n, const int16_t *reference, const int8_t *weight, int rate, int shift,
                      int32_t *residual, int16_t *difference, int8_t *final_weight)
{
    const int half = (n + 1) / 2, rest = n - half;
    Predictor p, q;
    predictor_start(&p, weight, rate, shift);
    predictor_start(&q, weight, rate, shift);
    residual[0] = difference[0] = 0;
    if (rest)
        residual[half] = difference[half] = 0;
    for (int t = 1; t < rest; t++) {
        take_step(&p, x, reference, t, residual, difference);
        take_step(&q, x + half, reference + half, t, residual + half, difference + half);
    }
    if (half > 1 && half > rest)
        take_step(&p, x, reference, half - 1, residual, difference);
    predictor_weights(rest > 1 ? &q : &p, final_weight);
}

/* ---- bits sent as they are, least significant first ---- */

typedef struct {
    uint8_t *out;
    uint64_t hold;
    int held;
} BitWriter;

static inline void put_bits(BitWriter *w, uint32_t value, int bits)
{
    w->hold |= (uint64_t)value << w->held;
    w->held += bits;
    while (w->held >= 8) {
        *w->out++ = (uint8_t)w->hold;
        w->hold >>= 8;
        w->held -= 8;
    }
}

typedef struct {
    const uint8_t *in, *end; /* four bytes after the end may be read */
    uint64_t hold;
    int held;
} BitReader;

/* At most 32 bits. Beyond the end come zeros. */
static inline uint32_t get_bits(BitReader *r, int bits)
{
    if (r->held < bits) {
        uint32_t word = 0;
        if (r->in < r->end)
            word = (uint32_t)r->in[0] | (uint32_t)r->in[1] << 8 | (uint32_t)r->in[2] << 16 | (uint32_t)r->in[3] << 24;
        r->in += r->in < r->end ? 4 : 0;
        r->hold |= (uint64_t)word << r->held;
        r->held += 32;
    }
    uint32_t value = (uint32_t)(r->hold & (((uint64_t)1 << bits) - 1));
    r->hold >>= bits;
    r->held -= bits;
    return value;
}

/* ---- one lead's residuals to bytes and back ---- */

static inline uint16_t model_step(Magnitude *m, uint32_t folded, BitWriter *w)
{
    int bits, context = context_of(m, &bits);
    uint32_t symbol = folded >> bits;
    if (__builtin_expect(symbol >= LIMIT[context], 0)) {
        int length = bit_length(folded);
        put_bits(w, (uint32_t)length - 1, 5);
        put_bits(w, folded, length);
        symbol = LIMIT[context];
    } else if (bits) {
        put_bits(w, folded & ((1u << bits) - 1), bits);
    }
    context_add(m, folded);
    return (uint16_t)((uint32_t)context << 8 | symbol);
}

/* Contexts and symbols, coded[t] = context << 8 | symbol, and the raw bits; the raw bytes' number. raw needs 6 bytes a sample. */
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
    if (w.held)
        put_bits(&w, 0, 8 - w.held);
    return w.out - raw;
}

static inline uint32_t rans_put(uint32_t state, uint16_t coded, uint8_t **out)
{
    const Divisor *d = &DIVISOR[coded >> 8][coded & 255];
    if (state >= (uint32_t)d->frequency << (32 - PROBABILITY_BITS)) {
        *out -= 2;
        (*out)[0] = (uint8_t)state;
        (*out)[1] = (uint8_t)(state >> 8);
        state >>= 16;
    }
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
    Predictor predictor;
    Magnitude magnitude;
    uint32_t state;
} Decoder;

static inline uint32_t load32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline void decoder_start(Decoder *d, uint32_t state, const int8_t *weight, int rate, int shift)
{
    predictor_start(&d->predictor, weight, rate, shift);
    context_start(&d->magnitude);
    d->state = state;
}

static inline void decode_step(Decoder *d, const uint8_t **in, const uint8_t *end, BitReader *bit, int t, const int16_t *reference,
                               int32_t *x, int16_t *difference)
{
    int bits, context = context_of(&d->magnitude, &bits);
    uint32_t slot = d->state & (ONE - 1), folded = SLOT[context][slot];
    const Interval *i = &INTERVAL[context][folded];
    uint32_t state = i->frequency * (d->state >> PROBABILITY_BITS) + slot - i->start;
    /* no branch: two bytes are there even after the end */
    uint32_t filled = state << 16 | (uint32_t)(*in)[0] | (uint32_t)(*in)[1] << 8;
    int low = state < RANS_LOW;
    d->state = low ? filled : state;
    *in += low & (*in < end) ? 2 : 0;
    if (__builtin_expect(folded == LIMIT[context], 0))
        folded = get_bits(bit, (int)get_bits(bit, 5) + 1);
    else
        folded = folded << bits | get_bits(bit, bits);
    context_add(&d->magnitude, folded);

    int32_t error = unfold(folded);
    int32_t change = (int32_t)((uint32_t)error + (uint32_t)predict(&d->predictor, reference[t]));
    x[t] = (int32_t)((uint32_t)x[t - 1] + (uint32_t)change);
    difference[t] = (int16_t)to_int16(change >> d->predictor.shift);
    adapt(&d->predictor, error, difference[t], t >= 15 ? difference[t - 15] : 0, reference[t]);
}

/* Samples of one lead from its two streams, of which four bytes after the end may be read; x[0] and x[half] are there already.
 * Zero if both streams were used up exactly, as an encoder leaves them. */
static int decode_lead(const uint8_t *rans, ptrdiff_t rans_length, const uint8_t *raw, ptrdiff_t raw_length, int n,
                       const int16_t *reference, const int8_t *weight, int rate, int shift, int32_t *x, int16_t *difference)
{
    const int half = (n + 1) / 2, rest = n - half;
    Decoder d, e;
    BitReader bit = {raw, raw + raw_length, 0, 0};
    const uint8_t *in = rans + 8, *end = rans + rans_length;
    if (rans_length < 8 || rans_length % 2)
        return 1;
    decoder_start(&d, load32(rans), weight, rate, shift);
    decoder_start(&e, load32(rans + 4), weight, rate, shift);
    difference[0] = 0;
    if (rest)
        difference[half] = 0;
    for (int t = 1; t < rest; t++) {
        decode_step(&d, &in, end, &bit, t, reference, x, difference);
        decode_step(&e, &in, end, &bit, t, reference + half, x + half, difference + half);
    }
    if (half > 1 && half > rest)
        decode_step(&d, &in, end, &bit, half - 1, reference, x, difference);
    ptrdiff_t raw_used = bit.in - raw - bit.held / 8;
    return in != end || d.state != RANS_LOW || e.state != RANS_LOW || raw_used != raw_length;
}

#endif
