#include "aidpost_frame.h"

enum { HELLO = 1, SAMPLES = 2 };

/* Consistent overhead byte stuffing (Cheshire and Baker 1999), a byte at a time, with the CRC running along. */
typedef struct {
    uint8_t *out;
    size_t size, length, code; /* code: where the length of the present run is written */
    uint32_t crc;
    int failed;
} writer;

static const uint32_t crc_table[16] = {
    0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158, 0x5005713C,
    0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C,
};

static void begin(writer *w, uint8_t *out, size_t size)
{
    w->out = out;
    w->size = size;
    w->code = 0;
    w->length = 1;
    w->crc = 0xFFFFFFFFu;
    w->failed = size < 2;
}

static void stuff(writer *w, uint8_t byte)
{
    if (w->length + 1 >= w->size) { /* this byte, and the closing zero */
        w->failed = 1;
        return;
    }
    if (byte != 0)
        w->out[w->length++] = byte;
    if (byte == 0 || w->length - w->code == 255) {
        w->out[w->code] = (uint8_t)(w->length - w->code);
        w->code = w->length++;
    }
}

static void put(writer *w, uint8_t byte)
{
    w->crc ^= byte;
    w->crc = w->crc >> 4 ^ crc_table[w->crc & 15];
    w->crc = w->crc >> 4 ^ crc_table[w->crc & 15];
    stuff(w, byte);
}

static void put_le(writer *w, uint32_t value, int bytes)
{
    for (; bytes > 0; bytes--, value >>= 8)
        put(w, (uint8_t)value);
}

static void put_text(writer *w, const char *text, uint8_t limit)
{
    uint8_t length = 0;
    while (length < limit && text[length] != '\0')
        length++;
    put(w, length);
    for (uint8_t n = 0; n < length; n++)
        put(w, (uint8_t)text[n]);
}

static size_t finish(writer *w)
{
    uint32_t crc = w->crc ^ 0xFFFFFFFFu;
    for (int n = 0; n < 4; n++, crc >>= 8)
        stuff(w, (uint8_t)crc);
    if (w->failed || w->length >= w->size)
        return 0;
    w->out[w->code] = (uint8_t)(w->length - w->code);
    w->out[w->length++] = 0;
    return w->length;
}

size_t aidpost_hello(uint8_t *out, size_t size, const aidpost_board *board)
{
    writer w;
    if (board->channels == 0 || board->channels > AIDPOST_MAX_CHANNELS || board->rate_mhz == 0)
        return 0;
    begin(&w, out, size);
    put(&w, HELLO);
    put(&w, AIDPOST_VERSION);
    put_le(&w, board->rate_mhz, 4);
    put(&w, board->channels);
    for (uint8_t n = 0; n < board->channels; n++) {
        put_le(&w, board->channel[n].scale_pv, 4);
        put_text(&w, board->channel[n].label, 15);
    }
    put_text(&w, board->name, 31);
    return finish(&w);
}

size_t aidpost_samples(uint8_t *out, size_t size, uint32_t first, uint16_t off, uint8_t count, uint8_t channels,
                       const int32_t *samples)
{
    writer w;
    size_t values = (size_t)count * channels;
    if (count == 0 || channels == 0 || channels > AIDPOST_MAX_CHANNELS || 9 + 3 * values + 4 > AIDPOST_MAX_PACKET)
        return 0;
    begin(&w, out, size);
    put(&w, SAMPLES);
    put_le(&w, first, 4);
    put_le(&w, off, 2);
    put(&w, count);
    put(&w, channels);
    for (size_t n = 0; n < values; n++)
        put_le(&w, (uint32_t)samples[n], 3);
    return finish(&w);
}
