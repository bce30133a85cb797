# distutils: include_dirs = aidpost/kernels
# distutils: depends = aidpost/kernels/_codec_loops.h aidpost/kernels/_codec_tables.h
"""Loops of `aidpost.kernels.codec`: the body of one frame. Its layout is described there."""

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

cdef extern from "_codec_loops.h" nogil:
    int TAPS
    void fill_tables()
    int to_int16(int64_t)
    void residuals(const int32_t *, int, const int16_t *, const int8_t *, int, int, int32_t *, int16_t *, int8_t *)
    ptrdiff_t model(const int32_t *, int, uint16_t *, uint8_t *)
    uint8_t *rans_encode(const uint16_t *, int, uint8_t *)
    int decode_lead(const uint8_t *, ptrdiff_t, const uint8_t *, ptrdiff_t, int, const int16_t *, const int8_t *, int, int,
                    int32_t *, int16_t *)

cdef enum:
    RAW = 0
    CONSTANT = 1
    CODED = 2
    NO_LEAD = 255
    RATE = 5
    MAX_SHIFT = 16
    PREDICTED = 26  # bytes before a predicted lead's streams
    LEARN = 1024

fill_tables()

# What short recordings of ECG come to: weights for a lead alone and for one with a reference lead. A first frame starts its own from these.
cdef int8_t[8] ALONE = [44, 12, -2, -4, -4, -2, -1, 0]
cdef int8_t[8] BESIDE = [24, 10, 4, 0, -2, 0, 0, 10]


cdef struct Work:
    int32_t *signal
    int32_t *residual
    int16_t *difference  # leads x n
    int16_t *nothing     # n zeros: the reference of a lead that has none
    uint16_t *coded
    uint8_t *raw
    uint8_t *rans


cdef void release(Work *work) noexcept nogil:
    free(work.signal); free(work.residual); free(work.difference); free(work.nothing)
    free(work.coded); free(work.raw); free(work.rans)


cdef int reserve(Work *work, size_t leads, size_t n, bint encoding) except -1:
    memset(work, 0, sizeof(Work))
    work.difference = <int16_t *>malloc(leads * n * sizeof(int16_t))
    work.nothing = <int16_t *>malloc(n * sizeof(int16_t))
    work.raw = <uint8_t *>malloc(5 * n + 16)
    work.rans = <uint8_t *>malloc(2 * n + 16)
    if encoding:
        work.signal = <int32_t *>malloc(n * sizeof(int32_t))
        work.residual = <int32_t *>malloc(n * sizeof(int32_t))
        work.coded = <uint16_t *>malloc(n * sizeof(uint16_t))
    if work.difference == NULL or work.nothing == NULL or work.raw == NULL or work.rans == NULL or (
            encoding and (work.signal == NULL or work.residual == NULL or work.coded == NULL)):
        release(work)
        raise MemoryError
    memset(work.nothing, 0, n * sizeof(int16_t))
    return 0


cdef int32_t combine(int kind, int32_t a, int32_t b) noexcept nogil:
    """What a derived lead should be: (sa a + sb b) >> halved, the signs and the halving packed in `kind`, 1 to 18."""
    cdef int64_t sum = <int64_t>((kind - 1) // 6 - 1) * a + <int64_t>((kind - 1) // 2 % 3 - 1) * b
    return <int32_t><uint32_t>(sum >> ((kind - 1) & 1))


cdef void put(uint8_t **out, uint32_t value, int size) noexcept nogil:
    cdef int i
    for i in range(size):
        out[0][i] = <uint8_t>(value >> (8 * i))
    out[0] += size


cdef uint32_t take(const uint8_t *data, int size) noexcept nogil:
    cdef uint32_t value = 0
    cdef int i
    for i in range(size):
        value |= <uint32_t>data[i] << (8 * i)
    return value


cdef int64_t roughness(const int32_t *x, int n) noexcept nogil:
    cdef int64_t sum = 0, d
    cdef int t
    for t in range(1, n):
        d = <int64_t>x[t] - x[t - 1]
        sum += d if d >= 0 else -d
    return sum


cdef int shift_for(const int32_t *x, int n) noexcept nogil:
    """Differences are divided by 2^shift, so that the mean (of every fourth) is below 2^9 and the largest mostly fit 16 bits."""
    cdef int64_t sum = 0, d, mean
    cdef int shift = 0, t
    for t in range(1, n, 4):
        d = <int64_t>x[t] - x[t - 1]
        sum += d if d >= 0 else -d
    mean = sum // (n // 4 + 1)
    while shift < MAX_SHIFT and (mean >> shift) >= 512:
        shift += 1
    return shift


cdef uint8_t *encode_signal(Work *work, const int32_t *x, int n, int lead, int reference_lead, bint first_frame, int8_t *weight,
                            uint8_t *rate, uint8_t *out) noexcept nogil:
    """The predicted form of a lead, or its samples as they are where that is no longer."""
    cdef int16_t *difference = work.difference + <ptrdiff_t>lead * n
    cdef const int16_t *reference = work.nothing if reference_lead == NO_LEAD else work.difference + <ptrdiff_t>reference_lead * n
    cdef int shift = shift_for(x, n), t
    cdef int8_t start[8]
    cdef uint8_t *rans
    cdef uint8_t *end = work.rans + 2 * <ptrdiff_t>n + 16
    cdef ptrdiff_t raw_length, rans_length
    if first_frame:
        # its start weights are those that a trial run ends with; the trial's differences go to this lead's own row, which the final pass overwrites
        work.difference += <ptrdiff_t>lead * n
        rate[0] = RATE
        residuals(x, min(n, LEARN), reference, &ALONE[0] if reference_lead == NO_LEAD else &BESIDE[0], RATE, shift,
                  work.residual, work.difference, weight)
        work.difference -= <ptrdiff_t>lead * n
    memcpy(start, weight, 8)
    residuals(x, n, reference, start, rate[0], shift, work.residual, difference, weight)
    raw_length = model(work.residual, n, work.coded, work.raw)
    rans = rans_encode(work.coded, n, end)
    rans_length = end - rans
    if raw_length + rans_length + PREDICTED >= 4 * <ptrdiff_t>n + 1:
        memset(difference, 0, n * sizeof(int16_t))  # a decoder does not work them out for a raw lead
        put(&out, RAW, 1)
        for t in range(n):
            put(&out, <uint32_t>x[t], 4)
        return out
    put(&out, CODED, 1)
    put(&out, <uint32_t>reference_lead, 1)
    put(&out, <uint32_t>shift, 1)
    put(&out, rate[0], 1)
    put(&out, <uint32_t>x[0], 4)
    put(&out, <uint32_t>x[(n + 1) // 2], 4)
    memcpy(out, start, 8)
    out += 8
    put(&out, <uint32_t>rans_length, 3)
    put(&out, <uint32_t>raw_length, 3)
    memcpy(out, rans, rans_length)
    memcpy(out + rans_length, work.raw, raw_length)
    return out + rans_length + raw_length


def derive(const int32_t[:, ::1] samples, uint8_t[:, ::1] found):
    """For each lead two earlier ones that it follows from to within a count, if any; looked for in some 256 samples."""
    cdef int leads = <int>min(samples.shape[0], 32), lead, a, b, kind
    cdef ptrdiff_t n = samples.shape[1], stride = max(n // 256, 1)
    with nogil:
        for lead in range(1, leads):
            if _spread(&samples[lead, 0], n, stride, NULL, NULL, 0) == 0:
                continue
            for a in range(lead):
                for b in range(a + 1):
                    for kind in range(1, 19):
                        # a lead by itself has no second sign, two leads both; the first is never left out
                        if found[lead, 0] or 7 <= kind <= 12 or ((kind - 1) // 2 % 3 == 1) != (a == b):
                            continue
                        if _spread(&samples[lead, 0], n, stride, &samples[a, 0], &samples[b, 0], kind) <= 2:
                            found[lead, 0] = kind
                            found[lead, 1] = a
                            found[lead, 2] = b


cdef int64_t _spread(const int32_t *x, ptrdiff_t n, ptrdiff_t stride, const int32_t *a, const int32_t *b, int kind) noexcept nogil:
    """Range of x less what a and b make of it; no further than it takes to see that it is over 2."""
    cdef int64_t low = 0, high = 0, v
    cdef ptrdiff_t t = 0
    while t < n and high - low <= 2:
        v = x[t]
        if kind:
            v -= combine(kind, a[t], b[t])
        if t == 0:
            low = high = v
        low = min(low, v)
        high = max(high, v)
        t += stride
    return high - low


def encode_body(const int32_t[:, ::1] samples, ptrdiff_t start, int n, const uint8_t[:, ::1] derivation, bint first_frame,
                int8_t[:, ::1] weights, uint8_t[::1] rates, uint8_t[::1] out):
    """Body of the frame of samples[:, start:start + n], n > 0, into `out`; its length. `weights` and `rates` are carried along."""
    cdef int leads = <int>samples.shape[0], lead, t, reference_lead = NO_LEAD, kind, a, b
    cdef Work work
    cdef const int32_t *x
    cdef uint8_t *to = &out[0]
    cdef bint derived, constant
    reserve(&work, leads, n, True)
    with nogil:
        for lead in range(leads):
            x = &samples[lead, start]
            kind, a, b = derivation[lead, 0], derivation[lead, 1], derivation[lead, 2]
            derived = False
            if kind:
                for t in range(n):
                    work.signal[t] = <int32_t>(<uint32_t>x[t] - <uint32_t>combine(kind, samples[a, start + t], samples[b, start + t]))
                derived = roughness(work.signal, n) < roughness(x, n)
            if derived:
                x = work.signal
                put(&to, kind, 1)
                put(&to, a, 1)
                put(&to, b, 1)
            else:
                put(&to, 0, 1)
            constant = True
            for t in range(n):
                if x[t] != x[0]:
                    constant = False
                    break
            memset(work.difference + <ptrdiff_t>lead * n, 0, n * sizeof(int16_t))
            if constant:
                put(&to, CONSTANT, 1)
                put(&to, <uint32_t>x[0], 4)
            else:
                to = encode_signal(&work, x, n, lead, reference_lead, first_frame, &weights[lead, 0], &rates[lead], to)
            if not derived and not constant:
                reference_lead = lead
    release(&work)
    return to - &out[0]


cdef ptrdiff_t decode_signal(Work *work, const uint8_t *data, ptrdiff_t length, int n, int lead, int32_t *x) noexcept nogil:
    """One lead's mode and data into x; how many bytes that took, or -1 if they are not what an encoder makes."""
    cdef int mode, reference_lead, rate, shift, t
    cdef ptrdiff_t rans_length, raw_length
    cdef const int16_t *reference = work.nothing
    if length < 5:
        return -1
    mode = data[0]
    if mode == CONSTANT:
        for t in range(n):
            x[t] = <int32_t>take(data + 1, 4)
        return 5
    if mode == RAW:
        if (length - 1) // 4 < n:
            return -1
        for t in range(n):
            x[t] = <int32_t>take(data + 1 + 4 * <ptrdiff_t>t, 4)
        return 1 + 4 * <ptrdiff_t>n
    if mode != CODED or length < PREDICTED or n < 2:
        return -1
    reference_lead, shift, rate = data[1], data[2], data[3]
    rans_length, raw_length = take(data + 20, 3), take(data + 23, 3)
    if shift > MAX_SHIFT or rate > 16 or rans_length > length - PREDICTED or raw_length > length - PREDICTED - rans_length:
        return -1
    # at most two bytes a sample from one stream and five from the other, as an encoder would; zeros follow in the copies
    if rans_length > 2 * n + 8 or raw_length > 5 * n + 8:
        return -1
    if reference_lead != NO_LEAD:
        if reference_lead >= lead:
            return -1
        reference = work.difference + <ptrdiff_t>reference_lead * n
    x[0] = <int32_t>take(data + 4, 4)
    x[(n + 1) // 2] = <int32_t>take(data + 8, 4)
    memcpy(work.rans, data + PREDICTED, rans_length)
    memcpy(work.raw, data + PREDICTED + rans_length, raw_length)
    memset(work.rans + rans_length, 0, 2 * n + 16 - rans_length)
    memset(work.raw + raw_length, 0, 5 * n + 16 - raw_length)
    if decode_lead(work.rans, rans_length, work.raw, raw_length, n, reference, <const int8_t *>data + 12, rate, shift, x,
                   work.difference + <ptrdiff_t>lead * n):
        return -1
    return PREDICTED + rans_length + raw_length


def decode_body(const uint8_t[::1] body, int32_t[:, ::1] out, ptrdiff_t start, int n):
    """Decode a frame's body, n > 0, into out[:, start:start + n]; False if it is not what an encoder makes."""
    cdef int leads = <int>out.shape[0], lead, t, kind, a, b
    cdef ptrdiff_t at = 0, length = body.shape[0], used
    cdef Work work
    cdef bint good = True
    cdef int32_t *x
    reserve(&work, leads, n, False)
    with nogil:
        memset(work.difference, 0, <size_t>leads * n * sizeof(int16_t))
        for lead in range(leads):
            x = &out[lead, start]
            kind = a = b = 0
            if length - at >= 3:
                kind = body[at]
                if kind:
                    a, b = body[at + 1], body[at + 2]
            good = length - at >= 3 and kind <= 18 and (kind == 0 or (a < lead and b < lead))
            if not good:
                break
            at += 3 if kind else 1
            used = decode_signal(&work, &body[0] + at, length - at, n, lead, x)
            good = used >= 0
            if not good:
                break
            at += used
            if kind:
                for t in range(n):
                    x[t] = <int32_t>(<uint32_t>x[t] + <uint32_t>combine(kind, out[a, start + t], out[b, start + t]))
        good = good and at == length
    release(&work)
    return good


def contexts(const int32_t[::1] samples, const int8_t[::1] weight, int rate, int shift):
    """For tests and for making the tables: residuals, contexts and symbols of one lead without a reference."""
    cdef int n = <int>samples.shape[0]
    cdef Work work
    cdef int8_t final[8]
    if n == 0:
        return b"", b"", b""
    reserve(&work, 1, n, True)
    residuals(&samples[0], n, work.nothing, &weight[0], rate, shift, work.residual, work.difference, final)
    model(work.residual, n, work.coded, work.raw)
    work.coded[0] = work.coded[(n + 1) // 2 if n > 1 else 0] = 0
    result = (<bytes>(<char *>work.residual)[:4 * n], <bytes>(<char *>work.coded)[:2 * n], <bytes>(<char *>final)[:8])
    release(&work)
    return result
