"""The R-peak detector's front end: samples at any rate in, candidates with the height of their slope envelope out."""

cdef enum:
    RATE = 125  # Hz, of everything after the first stage
    RING = 2048  # samples at RATE, a power of two: 16 s
    MASK = RING - 1
    HALF = 11  # a candidate is the largest of its 2 * HALF + 1 neighbours
    QUEUE = 256  # candidates, a power of two: at most 12 a second
    RECENT = QUEUE - 1  # the queue's mask
    ALONE = 13  # features of the first judgement


cdef struct Candidate:
    long long at  # sample number at RATE
    long long height  # of the slope envelope
    long long broad  # of the slow envelope near it
    long long score  # of the first judgement, which the second one's neighbours are known by
    long long final
    double level  # of the seconds around
    double[ALONE] feature


cdef struct Front:
    double fs, reach, scale
    long long pad, seen, need, ticks, raw_mask, floor, first, judged, measured, last
    long long* raw  # the input and its running total, rings of raw_mask + 1
    long long* total
    long long* s  # at RATE, rings: smoothed,
    long long* d  # its slope,
    long long* a1
    long long* e  # the envelope of the slope
    long long* cum  # and that one's running total;
    long long* m  # smoothed for wide beats
    long long* b1
    long long* g  # and that one's envelope
    long long best, best_at, u1, u2, w1, w2, w3, sum1, sum2, sum3, sum4, sum5
    long long[16] q
    Candidate[QUEUE] queue  # rising in `at`; [first, judged) await their review, [judged, measured) their judgement


cdef inline void set_rate(Front* c, double fs) noexcept nogil:
    c.fs = fs
    # a boxcar of 20 ms, but never less than a sample: its zero lies at 50 Hz
    c.reach = 0.01 * fs if fs > 50 else 0.5
    c.scale = 16 / (2 * c.reach)
    c.pad = <long long>(0.3 * fs) + 4
    c.need = <long long>(0.5 + c.pad + c.reach) + 1
    # a QRS complex of 1 mV and some 30 ms makes an envelope of 6e6; IEC 60601-2-27 wants nothing below 0.15 mV seen
    c.floor = <long long>(0.05 * 6e6)
    c.best_at = -1


cdef inline void hold(Front* c, long long* room) noexcept nogil:
    # eight rings side by side
    c.s = room
    c.d = room + RING
    c.m = room + 2 * RING
    c.a1 = room + 3 * RING
    c.e = room + 4 * RING
    c.b1 = room + 5 * RING
    c.g = room + 6 * RING
    c.cum = room + 7 * RING


cdef inline void store(Front* c, long long v) noexcept nogil:
    cdef long long i = c.seen & c.raw_mask
    c.raw[i] = v
    c.total[(c.seen + 1) & c.raw_mask] = c.total[i] + v
    c.seen += 1


cdef inline void decimate(Front* c) noexcept nogil:
    # the mean of the input within `reach` of tick number `ticks`, taken from the running total
    cdef double centre = c.ticks * c.fs / RATE + 0.5 + c.pad
    cdef double left = centre - c.reach, right = centre + c.reach
    cdef long long i = <long long>left, j = <long long>right
    cdef double sum_ = <double>(c.total[j & c.raw_mask] - c.total[i & c.raw_mask]) + (
        (right - j) * c.raw[j & c.raw_mask] - (left - i) * c.raw[i & c.raw_mask]
    )
    tick(c, <long long>(sum_ * c.scale))
    c.need = <long long>(c.ticks * c.fs / RATE + 0.5 + c.pad + c.reach) + 1


cdef inline void tick(Front* c, long long u) noexcept nogil:
    cdef long long k = c.ticks, j, v
    cdef long long* s = c.s
    cdef long long* d = c.d
    cdef long long* m = c.m
    if k == 0:
        for j in range(RING):
            s[j] = 4 * u
            m[j] = 60 * u
        c.u1 = u
        c.u2 = u
        c.sum3 = c.w1 = c.w2 = 20 * u
    s[(k - 1) & MASK] = c.u2 + 2 * c.u1 + u
    c.u2 = c.u1
    c.u1 = u
    # slope over 16 ms, its magnitude summed over 9 and again over 5 samples: e
    v = s[(k - 1) & MASK] - s[(k - 3) & MASK]
    d[(k - 2) & MASK] = v
    c.sum1 += magnitude(v) - magnitude(d[(k - 11) & MASK])
    c.a1[(k - 6) & MASK] = c.sum1
    c.sum2 += c.sum1 - c.a1[(k - 11) & MASK]
    c.e[(k - 8) & MASK] = c.sum2
    c.cum[(k - 8) & MASK] = c.cum[(k - 9) & MASK] + c.sum2
    # the same for wide beats: smoothed over 5 and 3 samples, slope over 64 ms, summed over 13 and 5: g
    c.sum3 += s[(k - 1) & MASK] - s[(k - 6) & MASK]
    c.w3 = c.w2
    c.w2 = c.w1
    c.w1 = c.sum3
    m[(k - 4) & MASK] = c.w1 + c.w2 + c.w3
    v = m[(k - 4) & MASK] - m[(k - 12) & MASK]
    c.sum4 += magnitude(v) - magnitude(c.q[k & 15])
    c.q[(k + 13) & 15] = v
    c.b1[(k - 14) & MASK] = c.sum4
    c.sum5 += c.sum4 - c.b1[(k - 19) & MASK]
    c.g[(k - 16) & MASK] = c.sum5
    c.ticks = k + 1
    search(c, k - 8)


cdef inline void search(Front* c, long long k) noexcept nogil:
    # e[k] is new: is the largest value since the last restart now HALF samples old?
    cdef long long v = c.e[k & MASK], j
    cdef bint largest = True
    if v > c.best:
        c.best = v
        c.best_at = k
    elif k - c.best_at >= HALF:
        for j in range(c.best_at - HALF, c.best_at):
            if c.e[j & MASK] >= c.best:
                largest = False
        if largest and c.best > c.floor and c.best_at >= 0:
            c.queue[c.last & RECENT].at = c.best_at
            c.queue[c.last & RECENT].height = c.best
            c.last += 1
        c.best = v
        c.best_at = k


cdef inline void measure_broad(const Front* c, Candidate* beat) noexcept nogil:
    cdef long long j
    beat.broad = 1
    for j in range(beat.at - 6, beat.at + 7):
        if c.g[j & MASK] > beat.broad:
            beat.broad = c.g[j & MASK]


cdef inline double mean(const Front* c, long long at, long long half) noexcept nogil:
    cdef long long left = at - half - 1
    return <double>(c.cum[(at + half) & MASK] - c.cum[left & MASK]) / (2 * half + 1)


cdef inline long long magnitude(long long v) noexcept nogil:
    return -v if v < 0 else v
