"""The R-peak detector's two judgements: the ratios that they are made of, and the boosted trees that make them."""

from aidpost.kernels._rpeaks_front cimport ALONE, MASK, QUEUE, RATE, RECENT, Candidate, Front, mean

cdef enum:
    NEAR = 56  # samples within which a rival QRS, T or P wave is looked for
    REFRACTORY = 25  # 200 ms
    FEATURES = 29  # of the second judgement
    APART = 12  # samples: a place this near to another beat shows that beat
    PREVIOUS = 6  # beats before and after that the second judgement compares with
    NEXT = 3
    BEATS = PREVIOUS + NEXT
    SNIPPET = 10  # samples either side of a beat's centre that are compared
    SHIFT = 3
    MANY = 1000  # samples: no neighbour
    DEPTH = 3
    NODES = 7
    LEAVES = 8


cdef struct Trees:
    Py_ssize_t count
    const int* feature  # (count, NODES)
    const double* threshold  # (count, NODES)
    const long long* value  # (count, LEAVES)
    long long bias


cdef struct Around:  # the beats around a candidate, nearest first: those before, then those after
    Py_ssize_t beats, intervals
    long long[BEATS] place
    double[BEATS] height, broad, alike, interval  # each rising


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


cdef inline void company(const Front* c, long long index, double* f) noexcept nogil:
    # the second judgement's: does it come when one is due, and does it look like one of the beats around?
    cdef const Candidate* beat = &c.queue[index & RECENT]
    cdef const Candidate* r
    cdef Around around
    cdef double before = MANY, after = MANY, rival = -1e9, rr
    cdef long long j, at = -1, previous = 0, following = 0
    cdef Py_ssize_t i, middle
    around.beats = around.intervals = 0
    f[24] = 0
    f[25] = 0
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
                f[24] = r.height / <double>beat.height
            elif at - r.at > REFRACTORY:
                insert(around.interval, around.intervals, at - r.at)
                around.intervals += 1
            at = r.at
            join(c, &around, beat, r)
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
                f[25] = r.height / <double>beat.height
            elif r.at - at > REFRACTORY:
                insert(around.interval, around.intervals, r.at - at)
                around.intervals += 1
            at = r.at
            join(c, &around, beat, r)
            following += 1
        j += 1
    middle = around.beats // 2
    rr = around.interval[around.intervals // 2] if around.intervals else RATE
    for i in range(ALONE):
        f[i] = beat.feature[i]
    f[13] = before / rr
    f[14] = after / rr
    f[15] = f[13] if f[13] < f[14] else f[14]
    f[16] = f[13] + f[14]
    f[17] = before
    f[18] = after
    f[19] = around.alike[around.beats - 1] if around.beats else 0
    f[20] = around.alike[middle] if around.beats else 0
    f[21] = beat.height / around.height[middle] if around.beats else 1
    f[22] = beat.broad / around.broad[middle] if around.beats else 1
    f[23] = beat.score
    f[26] = rival
    f[27] = companion(c, beat.at, &around, 0) if previous and before <= NEAR else -1
    f[28] = companion(c, beat.at, &around, previous) if following and after <= NEAR else -1


cdef inline void join(const Front* c, Around* around, const Candidate* beat, const Candidate* r) noexcept nogil:
    cdef Py_ssize_t n = around.beats
    around.place[n] = r.at
    insert(around.height, n, r.height)
    insert(around.broad, n, r.broad)
    insert(around.alike, n, likeness(c, beat.at, r.at))
    around.beats = n + 1


cdef inline double companion(const Front* c, long long at, const Around* around, Py_ssize_t nearest) noexcept nogil:
    # T waves come after every beat and P waves before: is the like of it found at the same distance from the others?
    cdef double[BEATS] alike
    cdef long long spot
    cdef Py_ssize_t i, j, found = 0
    cdef bint free_
    for i in range(around.beats):
        if i == nearest:
            continue
        spot = around.place[i] + at - around.place[nearest]
        free_ = spot + SNIPPET + SHIFT < c.ticks - 2
        for j in range(around.beats):
            if j != i and -APART < around.place[j] - spot < APART:
                free_ = False
        if free_:
            insert(alike, found, sameness(c, at, spot))
            found += 1
    return alike[found // 2] if found else -1


cdef inline double sameness(const Front* c, long long one, long long other) noexcept nogil:
    # 1: the same slopes, 0: nothing in common; size counts
    cdef double best = 0, xy, both, x, y
    cdef long long shift, i
    for shift in range(-SHIFT, SHIFT + 1):
        xy = 0
        both = 1
        for i in range(-SNIPPET, SNIPPET + 1):
            x = c.d[(one + i) & MASK]
            y = c.d[(other + i + shift) & MASK]
            xy = xy + x * y
            both = both + x * x + y * y
        best = 2 * xy / both if 2 * xy > best * both else best
    return best


cdef inline double likeness(const Front* c, long long one, long long other) noexcept nogil:
    # squared correlation, with its sign, of the slopes around both, at the best of a few shifts; size does not count
    cdef double best = -1, xy, xx, yy, x, y
    cdef long long shift, i
    for shift in range(-SHIFT, SHIFT + 1):
        xy = 0
        xx = 1
        yy = 1
        for i in range(-SNIPPET, SNIPPET + 1):
            x = c.d[(one + i) & MASK]
            y = c.d[(other + i + shift) & MASK]
            xy = xy + x * y
            xx = xx + x * x
            yy = yy + y * y
        x = xy * (xy if xy > 0 else -xy) / (xx * yy)
        best = x if x > best else best
    return best


cdef inline void insert(double* v, Py_ssize_t n, double x) noexcept nogil:
    # into n values that rise
    while n > 0 and v[n - 1] > x:
        v[n] = v[n - 1]
        n -= 1
    v[n] = x
