"""The R-peak detector's two judgements: the ratios that they are made of, and the trees and the network that make them."""

from libc.stdint cimport int16_t, int32_t

from aidpost.kernels._rpeaks_front cimport ALONE, MASK, QUEUE, RATE, RECENT, Candidate, Front, mean

cdef enum:
    NEAR = 56  # samples within which a rival QRS, T or P wave is looked for
    REFRACTORY = 25  # 200 ms
    PREVIOUS = 6  # beats before and after from which the second judgement knows the interval
    NEXT = 3
    SLOPES = 97  # that the second judgement sees, every second sample
    GROUNDS = 24  # ratios beside them
    SEEN = SLOPES + GROUNDS
    MANY = 1000  # samples: no neighbour
    SURE = 131072  # a score this high, 2 in log odds, counts half of what any could
    DEPTH = 3
    NODES = 7
    LEAVES = 8


cdef struct Trees:
    Py_ssize_t count
    const int* feature  # (count, NODES)
    const double* threshold  # (count, NODES)
    const long long* value  # (count, LEAVES)
    long long bias


cdef extern from "_rpeaks_net.h" nogil:
    ctypedef struct network:
        const int16_t* weight[5]
        const int32_t* bias[5]

    int32_t network_score(const network* net, const int16_t* slopes, const int16_t* grounds)


cdef inline long long score(const Trees* trees, const double* f) noexcept nogil:
    # node n asks feature > threshold and goes on to 2n + 2 or 2n + 1; leaves are integers
    cdef Py_ssize_t tree, node, level, at
    cdef long long total = trees.bias
    for tree in range(trees.count):
        node = 0
        for level in range(DEPTH):
            at = NODES * tree + node
            node = 2 * node + (2 if f[trees.feature[at]] > trees.threshold[at] else 1)
        total += trees.value[LEAVES * tree + node - NODES]
    return total


cdef inline void ratios(Front* c, long long index, const double* level) noexcept nogil:
    # the first judgement's features: against the seconds around and against the largest neighbour on either side
    cdef Candidate* beat = &c.queue[index & RECENT]
    cdef const Candidate* r
    cdef double* f = beat.feature
    cdef double h = beat.height, w = beat.broad, before = 0, after = 0, before_w = 0, after_w = 0
    cdef double before_t = RATE, after_t = RATE, around
    cdef long long j = index - 1
    while j >= 0 and index - j < QUEUE // 2:
        r = &c.queue[j & RECENT]
        if beat.at - r.at > NEAR:
            break
        if r.height > before:
            before = r.height
            before_w = r.broad
            before_t = beat.at - r.at
        j -= 1
    j = index + 1
    while j < c.measured:
        r = &c.queue[j & RECENT]
        if r.at - beat.at > NEAR:
            break
        if r.height > after:
            after = r.height
            after_w = r.broad
            after_t = r.at - beat.at
        j += 1
    around = mean(c, beat.at, 62)
    f[0] = h / level[0]
    f[1] = h / level[1]
    f[2] = w / level[2]
    f[3] = (h / w) / (level[0] / level[2])
    f[4] = h / (h + before)
    f[5] = h / (h + after)
    f[6] = before_t
    f[7] = after_t
    f[8] = w / (w + before_w)
    f[9] = w / (w + after_w)
    f[10] = around / h
    f[11] = mean(c, beat.at, 25) / h
    f[12] = around / level[0]
    beat.level = level[0]


cdef inline void look(const Front* c, long long index, int16_t* seen) noexcept nogil:
    # the second judgement's: the slopes around against the level, the first one's ratios, and whether a beat is due
    cdef const Candidate* beat = &c.queue[index & RECENT]
    cdef double size = 45 / beat.level  # the envelope is a sum over 45
    cdef double[8] rhythm
    cdef int16_t* grounds = seen + SLOPES
    cdef Py_ssize_t i
    for i in range(SLOPES):
        seen[i] = squashed(c.d[(beat.at - SLOPES + 1 + 2 * i) & MASK] * size, 0.5)
    for i in range(ALONE):
        grounds[i] = compared(beat.feature[i], NEAR if i == 6 or i == 7 else 1)
    intervals(c, index, rhythm)
    for i in range(4):
        grounds[ALONE + i] = compared(rhythm[i], 1)
    for i in range(4, 6):
        grounds[ALONE + i] = compared(rhythm[i], 100)
    for i in range(6, 8):
        grounds[ALONE + i] = squashed(rhythm[i], SURE)
    for i in range(ALONE + 8, GROUNDS):
        grounds[i] = 0


cdef inline void intervals(const Front* c, long long index, double* f) noexcept nogil:
    # to the beats before and after, as the first judgement has them, in the median interval around and in samples; then
    # the score, and that of the best rival
    cdef const Candidate* beat = &c.queue[index & RECENT]
    cdef const Candidate* r
    cdef double[PREVIOUS + NEXT] interval
    cdef double before = MANY, after = MANY, rival = -1e9, rr
    cdef long long j, at = -1
    cdef Py_ssize_t count = 0, previous = 0, following = 0
    j = index - 1
    while j >= 0 and index - j < QUEUE // 2 and previous < PREVIOUS:
        r = &c.queue[j & RECENT]
        if beat.at - r.at > MANY:
            break
        if beat.at - r.at <= NEAR and r.score > rival:
            rival = r.score
        if r.score > 0:
            if previous == 0:
                before = beat.at - r.at
            elif at - r.at > REFRACTORY:
                insert(interval, count, at - r.at)
                count += 1
            at = r.at
            previous += 1
        j -= 1
    j = index + 1
    while j < c.judged and following < NEXT:
        r = &c.queue[j & RECENT]
        if r.at - beat.at <= NEAR and r.score > rival:
            rival = r.score
        if r.score > 0:
            if following == 0:
                after = r.at - beat.at
            elif r.at - at > REFRACTORY:
                insert(interval, count, r.at - at)
                count += 1
            at = r.at
            following += 1
        j += 1
    rr = interval[count // 2] if count else RATE
    f[0] = before / rr
    f[1] = after / rr
    f[2] = f[0] if f[0] < f[1] else f[1]
    f[3] = f[0] + f[1]
    f[4] = before
    f[5] = after
    f[6] = beat.score
    f[7] = rival


cdef inline int16_t squashed(double v, double half) noexcept nogil:
    # any number to Q10 within [-1, 1], `half` to a half
    return <int16_t>(1024 * (v / ((-v if v < 0 else v) + half)))


cdef inline int16_t compared(double v, double usual) noexcept nogil:
    # a ratio to Q10 within [-1, 1], `usual` to nought
    return <int16_t>(1024 * ((v - usual) / (v + usual)))


cdef inline void insert(double* v, Py_ssize_t n, double x) noexcept nogil:
    # into n values that rise
    while n > 0 and v[n - 1] > x:
        v[n] = v[n - 1]
        n -= 1
    v[n] = x
