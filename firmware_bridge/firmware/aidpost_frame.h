/* Frames of the Aidpost board protocol, version 1 (docs/sensors/own-firmware.md). C99, no allocation, no library calls.
 *
 * Each function writes one whole frame to `out`, its closing zero included, and returns its length; 0 if `size` is too
 * small or an argument is out of range. Send aidpost_hello() at start and once a second, aidpost_samples() in between.
 */
#ifndef AIDPOST_FRAME_H
#define AIDPOST_FRAME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define AIDPOST_VERSION 1
#define AIDPOST_MAX_CHANNELS 16
#define AIDPOST_MAX_PACKET 512 /* bytes before stuffing, CRC included */
/* room for any frame: one byte more for each 254, and the two at the ends */
#define AIDPOST_MAX_FRAME (AIDPOST_MAX_PACKET + AIDPOST_MAX_PACKET / 254 + 2)

typedef struct {
    const char *label;      /* "I", "V1", ...: up to 15 ASCII characters */
    uint32_t scale_pv;      /* picovolt a count */
} aidpost_channel;

typedef struct {
    const char *name;       /* up to 31 ASCII characters */
    uint32_t rate_mhz;      /* samples a second, times 1000 */
    uint8_t channels;       /* 1 to AIDPOST_MAX_CHANNELS */
    const aidpost_channel *channel;
} aidpost_board;

size_t aidpost_hello(uint8_t *out, size_t size, const aidpost_board *board);

/* `first` counts samples since the board started and wraps at 2^32; bit n of `off`: electrode of channel n has no contact;
 * `samples` holds `count` times `channels` numbers within 24 bits, sample after sample. */
size_t aidpost_samples(uint8_t *out, size_t size, uint32_t first, uint16_t off, uint8_t count, uint8_t channels,
                       const int32_t *samples);

#ifdef __cplusplus
}
#endif
#endif
