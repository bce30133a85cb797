/* The R-peak detector's second judgement: a small convolutional network in integers, so that every build gives the same bits.
 *
 * Activations are int16 in Q10 and stay within [0, 4); weights are int16 in Q12, sums int32 in Q22. `Net` in _rpeaks.pyx has made
 * sure that no row of weights can sum up to more than an int32 holds.
 */
#ifndef AIDPOST_RPEAKS_NET_H
#define AIDPOST_RPEAKS_NET_H

#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) \
    && !defined(AIDPOST_NO_CLONES)
#define AIDPOST_NET_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define AIDPOST_NET_CLONES
#endif

enum {
    WINDOW = 97,    /* slopes around a candidate, every second tick */
    GROUNDS = 24,   /* the ratios beside them, three of them nothing */
    PLACES_1 = 49, PLACES_2 = 25, PLACES_3 = 13,
    WIDTH_1 = 8, WIDTH_2 = 16, WIDTH_3 = 16, HIDDEN = 24,
    TAPS_1 = 8, TAPS = 5, /* the eighth tap has no weight: it makes the row a whole vector */
    FAN_2 = TAPS * WIDTH_1, FAN_3 = TAPS * WIDTH_2, FAN_4 = PLACES_3 * WIDTH_3 + GROUNDS,
    MOST = 4095
};

typedef struct {
    const int16_t *weight[5];
    const int32_t *bias[5];
} network;

/* `places` windows of `fan` inputs, `hop` apart, each to `width` outputs. */
#define LAYER(input, hop, places, fan, width, k, output)                                              \
    for (int place = 0; place < (places); place++)                                                    \
        for (int unit = 0; unit < (width); unit++) {                                                  \
            const int16_t *restrict x = (input) + place * (hop), *restrict w = net->weight[k] + unit * (fan); \
            int32_t sum = net->bias[k][unit] + 2048;                                                  \
            for (int i = 0; i < (fan); i++)                                                           \
                sum += (int32_t)x[i] * w[i];                                                          \
            sum >>= 12;                                                                               \
            (output)[place * (width) + unit] = (int16_t)(sum < 0 ? 0 : sum > MOST ? MOST : sum);      \
        }

/* Log odds in Q22 that the slopes (WINDOW) and ratios (GROUNDS), in Q10, are those of a beat. */
AIDPOST_NET_CLONES
static int32_t network_score(const network *net, const int16_t *slopes, const int16_t *grounds)
{
    int16_t a[3 + WINDOW + 4] = {0}, b[(PLACES_1 + 4) * WIDTH_1] = {0}, c[(PLACES_2 + 4) * WIDTH_2] = {0}, d[FAN_4], e[HIDDEN];
    memcpy(a + 3, slopes, WINDOW * sizeof *a);
    LAYER(a, 2, PLACES_1, TAPS_1, WIDTH_1, 0, b + 2 * WIDTH_1)
    LAYER(b, 2 * WIDTH_1, PLACES_2, FAN_2, WIDTH_2, 1, c + 2 * WIDTH_2)
    LAYER(c, 2 * WIDTH_2, PLACES_3, FAN_3, WIDTH_3, 2, d)
    memcpy(d + PLACES_3 * WIDTH_3, grounds, GROUNDS * sizeof *d);
    LAYER(d, 0, 1, FAN_4, HIDDEN, 3, e)
    int32_t sum = net->bias[4][0];
    for (int i = 0; i < HIDDEN; i++)
        sum += (int32_t)e[i] * net->weight[4][i];
    return sum;
}

#undef LAYER
#endif
