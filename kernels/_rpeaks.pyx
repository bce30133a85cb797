"""The R-peak detector's loops and its state. `rpeaks.py` tells the method, checks and allocates."""

from libc.stdlib cimport calloc, free, realloc

cdef enum:
    RATE = 125  # Hz, of everything after the first stage
    RING = 2048  # samples at RATE, a power of two: 16 s
    MASK = RING - 1
    HALF = 11  # a candidate is the largest of its 2 * HALF + 1 neighbours
    PAST = 5  # blocks of one second that the level looks back
    FUTURE = 2  # and ahead
    REVIEW = 2  # blocks later, the doubtful candidates are looked at again among their neighbours
    LATE = 20  # samples at RATE from an input to the last candidate that it can complete
    NEAR = 56  # samples within which a rival QRS, T or P wave is looked for
    QUEUE = 256  # candidates, a power of two: at most 12 a second
    BLOCKS = 16  # a power of two
    REFRACTORY = 25  # 200 ms
    ALONE = 13  # features of the first judgement
    FEATURES = 29  # and of the second
    APART = 12  # samples: a place this near to another beat shows that beat
    PREVIOUS = 6  # beats before and after that the second judgement compares with
    NEXT = 3
    SNIPPET = 10  # samples either side of a beat's centre that are compared
    SHIFT = 3
    MANY = 1000  # samples: no neighbour
    DEPTH = 3
    LEAVES = 8
    CLIMB = 5
    CLOSE = 65536  # scores are log odds times this: less than 1 either way is not sure

cdef double UNIT = 8192.0  # integer steps in a mV
cdef double LARGEST = 1000.0  # mV; anything beyond, an infinity or a NaN is a missing sample


cdef struct Candidate:
    long long at  # sample number at RATE
    long long height  # of the slope envelope
    long long broad  # of the slow envelope near it
    long long score  # of the first judgement, which the second one's neighbours are known by
    long long final
    double[ALONE] feature


cdef class Forest:
    """Boosted trees of depth 3: node n asks feature > threshold and goes on to 2n + 2 or 2n + 1; leaves are integers."""

    cdef const int[:, ::1] feature
    cdef const double[:, ::1] threshold
    cdef const long long[:, ::1] value
    cdef long long bias

    def __init__(
        self, const int[:, ::1] feature, const double[:, ::1] threshold, const long long[:, ::1] value, long long bias
    ):
        self.feature = feature
        self.threshold = threshold
        self.value = value
        self.bias = bias

    cdef long long score(self, const double* f) noexcept nogil:
        cdef Py_ssize_t tree, node, level
        cdef long long total = self.bias
        for tree in range(self.feature.shape[0]):
            node = 0
            for level in range(DEPTH):
                node = 2 * node + (2 if f[self.feature[tree, node]] > self.threshold[tree, node] else 1)
            total += self.value[tree, node - (LEAVES - 1)]
        return total


cdef class Core:
    """One lead's detector. `feed` and `finish` append to what `take` hands over."""

    cdef double fs, reach, scale
    cdef long long pad, seen, real, need, ticks, next_block, raw_mask, gap, floor
    cdef long long* raw
    cdef long long* total
    cdef long long held, offset, missing
    cdef long long* s
    cdef long long* d
    cdef long long* m
    cdef long long* a1
    cdef long long* e
    cdef long long* b1
    cdef long long* g
    cdef long long* cum
    cdef long long* absent
    cdef long long best, best_at, last_peak, measured, u1, u2, w1, w2, w3, sum1, sum2, sum3, sum4, sum5
    cdef long long[16] q
    cdef Candidate[QUEUE] queue
    cdef long long first, last
    cdef long long[BLOCKS] block_slope, block_broad
    cdef Candidate pending
    cdef bint has_pending
    cdef int sign
    cdef Forest one, two
    cdef long long doubt, judged
    cdef double[:, ::1] trace
    cdef readonly long long traced
    cdef long long* out
    cdef long long* spans
    cdef long long out_count, out_room, span_count, span_room, unsure_start, unsure_end
    cdef long long[BLOCKS] block_doubt, block_absent
    cdef bint failed

    def __cinit__(
        self, double fs, Forest one, Forest two, long long doubt, double[:, ::1] trace,
    ):
        cdef long long size = 1024
        self.fs = fs
        # a boxcar of 20 ms, but never less than a sample: its zero lies at 50 Hz
        self.reach = 0.01 * fs if fs > 50 else 0.5
        self.scale = 16 / (2 * self.reach)
        self.pad = <long long>(0.3 * fs) + 4
        self.need = <long long>(0.5 + self.pad + self.reach) + 1
        self.gap = <long long>(0.02 * fs) + 1
        while size < 10 * fs:
            size *= 2
        self.raw_mask = size - 1
        self.raw = <long long*>calloc(size, sizeof(long long))
        self.total = <long long*>calloc(size, sizeof(long long))
        self.s = <long long*>calloc(8 * RING, sizeof(long long))
        self.unsure_start = -1
        self.out_room = self.span_room = 256
        self.spans = <long long*>calloc(self.span_room, sizeof(long long))
        self.out = <long long*>calloc(self.out_room, sizeof(long long))
        if self.raw == NULL or self.total == NULL or self.s == NULL or self.out == NULL or self.spans == NULL:
            raise MemoryError
        self.d = self.s + RING
        self.m = self.s + 2 * RING
        self.a1 = self.s + 3 * RING
        self.e = self.s + 4 * RING
        self.b1 = self.s + 5 * RING
        self.g = self.s + 6 * RING
        self.cum = self.s + 7 * RING
        self.one = one
        self.two = two
        self.doubt = doubt
        self.trace = trace
        # a QRS complex of 1 mV and some 30 ms makes an envelope of 6e6; IEC 60601-2-27 wants nothing below 0.15 mV seen
        self.floor = <long long>(0.05 * 6e6)
        self.last_peak = -1
        self.sign = 0
        self.best_at = -1

    def __dealloc__(self):
        free(self.raw)
        free(self.total)
        free(self.s)
        free(self.out)
        free(self.spans)

    def feed(self, const double[::1] x):
        cdef Py_ssize_t i
        with nogil:
            for i in range(x.shape[0]):
                if -LARGEST <= x[i] <= LARGEST:
                    self.put(<long long>(x[i] * UNIT))
                else:
                    self.missing += 1
                    self.block_absent[(self.ticks // RATE) & (BLOCKS - 1)] += 1
                    self.push(self.held)
                    self.real += 1
        if self.failed:
            raise MemoryError

    def finish(self):
        # the blocks that hold samples, and one more, so that an open span is closed
        cdef long long until = self.block_of(self.real) + REVIEW + 2
        with nogil:
            while self.seen and self.next_block < until:
                self.push(self.held)
            if self.has_pending:
                self.emit(&self.pending)
                self.has_pending = False
        if self.failed:
            raise MemoryError

    def waiting(self):
        return self.out_count

    def waiting_spans(self):
        return self.span_count // 2

    def take(self, long long[::1] peaks, long long[:, ::1] spans):
        cdef Py_ssize_t i
        for i in range(spans.shape[0]):
            spans[i, 0] = self.spans[2 * i]
            spans[i, 1] = self.spans[2 * i + 1]
        self.span_count = 0
        for i in range(peaks.shape[0]):
            peaks[i] = self.out[i]
        self.out_count = 0

    cdef inline long long block_of(self, long long sample) noexcept nogil:
        return <long long>(sample * RATE / self.fs) // RATE

    cdef inline void put(self, long long v) noexcept nogil:
        cdef long long i
        if self.seen == 0:
            self.held = v
            for i in range(self.pad):
                self.push(v)
        elif self.missing >= self.gap:
            # what comes after a gap joins where the signal was left: the step is not a beat
            self.offset = self.held - v
        self.missing = 0
        self.held = v + self.offset
        self.push(self.held)
        self.real += 1

    cdef inline void push(self, long long v) noexcept nogil:
        cdef long long i = self.seen & self.raw_mask
        self.raw[i] = v
        self.total[(self.seen + 1) & self.raw_mask] = self.total[i] + v
        self.seen += 1
        while self.seen > self.need:
            self.decimate()

    cdef inline void decimate(self) noexcept nogil:
        # the mean of the input within `reach` of tick number `ticks`, taken from the running total
        cdef double centre = self.ticks * self.fs / RATE + 0.5 + self.pad
        cdef double left = centre - self.reach, right = centre + self.reach
        cdef long long i = <long long>left, j = <long long>right
        cdef double sum_ = <double>(self.total[j & self.raw_mask] - self.total[i & self.raw_mask]) + (
            (right - j) * self.raw[j & self.raw_mask] - (left - i) * self.raw[i & self.raw_mask]
        )
        self.tick(<long long>(sum_ * self.scale))
        self.need = <long long>(self.ticks * self.fs / RATE + 0.5 + self.pad + self.reach) + 1

    cdef inline void tick(self, long long u) noexcept nogil:
        cdef long long k = self.ticks, j, v
        cdef long long* s = self.s
        cdef long long* d = self.d
        cdef long long* m = self.m
        cdef long long* e = self.e
        if k == 0:
            for j in range(RING):
                s[j] = 4 * u
                m[j] = 60 * u
            self.u1 = u
            self.u2 = u
            self.sum3 = self.w1 = self.w2 = 20 * u
        s[(k - 1) & MASK] = self.u2 + 2 * self.u1 + u
        self.u2 = self.u1
        self.u1 = u
        # slope over 16 ms, its magnitude summed over 9 and again over 5 samples: e
        v = s[(k - 1) & MASK] - s[(k - 3) & MASK]
        d[(k - 2) & MASK] = v
        self.sum1 += magnitude(v) - magnitude(d[(k - 11) & MASK])
        self.a1[(k - 6) & MASK] = self.sum1
        self.sum2 += self.sum1 - self.a1[(k - 11) & MASK]
        e[(k - 8) & MASK] = self.sum2
        self.cum[(k - 8) & MASK] = self.cum[(k - 9) & MASK] + self.sum2
        # the same for wide beats: smoothed over 5 and 3 samples, slope over 64 ms, summed over 13 and 5: g
        self.sum3 += s[(k - 1) & MASK] - s[(k - 6) & MASK]
        self.w3 = self.w2
        self.w2 = self.w1
        self.w1 = self.sum3
        m[(k - 4) & MASK] = self.w1 + self.w2 + self.w3
        v = m[(k - 4) & MASK] - m[(k - 12) & MASK]
        self.sum4 += magnitude(v) - magnitude(self.q[k & 15])
        self.q[(k + 13) & 15] = v
        self.b1[(k - 14) & MASK] = self.sum4
        self.sum5 += self.sum4 - self.b1[(k - 19) & MASK]
        self.g[(k - 16) & MASK] = self.sum5
        self.ticks = k + 1
        self.search(k - 8)
        if self.ticks > (self.next_block + 1 + FUTURE) * RATE + 2 * NEAR:
            self.decide(self.next_block)
            self.next_block += 1

    cdef inline void search(self, long long k) noexcept nogil:
        # e[k] is new: is the largest value since the last restart now HALF samples old?
        cdef long long v = self.e[k & MASK], j
        cdef bint largest = True
        if v > self.best:
            self.best = v
            self.best_at = k
        elif k - self.best_at >= HALF:
            for j in range(self.best_at - HALF, self.best_at):
                if self.e[j & MASK] >= self.best:
                    largest = False
            if largest and self.best > self.floor and self.best_at >= 0:
                self.queue[self.last & (QUEUE - 1)].at = self.best_at
                self.queue[self.last & (QUEUE - 1)].height = self.best
                self.last += 1
            self.best = v
            self.best_at = k

    cdef void measure_broad(self, Candidate* c) noexcept nogil:
        cdef long long j
        c.broad = 1
        for j in range(c.at - 6, c.at + 7):
            if self.g[j & MASK] > c.broad:
                c.broad = self.g[j & MASK]

    cdef void decide(self, long long block) noexcept nogil:
        cdef long long i, j, b
        cdef Candidate* c
        cdef double[4] level
        # what the queue has gained since the last block: its broad height, and the maxima of its block
        while self.measured < self.last and self.queue[self.measured & (QUEUE - 1)].at < (block + 1 + FUTURE) * RATE:
            c = &self.queue[self.measured & (QUEUE - 1)]
            self.measure_broad(c)
            b = (c.at // RATE) & (BLOCKS - 1)
            if c.height > self.block_slope[b]:
                self.block_slope[b] = c.height
            if c.broad > self.block_broad[b]:
                self.block_broad[b] = c.broad
            self.measured += 1
        self.levels(self.block_slope, block, &level[0])
        self.levels(self.block_broad, block, &level[2])
        while self.judged < self.measured and self.queue[self.judged & (QUEUE - 1)].at < (block + 1) * RATE:
            self.judge(self.judged, level)
            self.judged += 1
        while self.first < self.judged and self.queue[self.first & (QUEUE - 1)].at < (block + 1 - REVIEW) * RATE:
            c = &self.queue[self.first & (QUEUE - 1)]
            c.final = self.review(self.first) if -self.doubt < c.score < self.doubt else c.score
            if -CLOSE < c.final < CLOSE:
                self.block_doubt[(c.at // RATE) & (BLOCKS - 1)] += 1
            if c.final > 0:
                self.accept(c)
            self.first += 1
        # nothing that is still to come can replace this one
        if self.has_pending and (block + 1 - REVIEW) * RATE - self.pending.at >= REFRACTORY:
            self.emit(&self.pending)
            self.has_pending = False
        if block >= REVIEW:
            self.say(block - REVIEW)
        # the block that leaves the level's reach makes room
        self.block_slope[(block - PAST) & (BLOCKS - 1)] = 0
        self.block_broad[(block - PAST) & (BLOCKS - 1)] = 0

    cdef void levels(self, const long long* blocks, long long block, double* level) noexcept nogil:
        # the median and the upper quartile of the one-second maxima around
        cdef long long[PAST + FUTURE + 1] v
        cdef long long x, b
        cdef Py_ssize_t n = 0, i
        for b in range(block - PAST if block > PAST else 0, block + FUTURE + 1):
            x = blocks[b & (BLOCKS - 1)]
            if x > 0:
                i = n
                while i > 0 and v[i - 1] > x:
                    v[i] = v[i - 1]
                    i -= 1
                v[i] = x
                n += 1
        level[0] = v[n // 2] if n else 1
        level[1] = v[3 * n // 4] if n else 1

    cdef void judge(self, long long index, const double* level) noexcept nogil:
        cdef Candidate* c = &self.queue[index & (QUEUE - 1)]
        cdef Candidate* r
        cdef double* f = c.feature
        cdef double h = c.height, w = c.broad, before = 0, after = 0, before_w = 0, after_w = 0
        cdef double before_t = RATE, after_t = RATE, around
        cdef long long j = index - 1
        while j >= 0 and index - j < QUEUE // 2:
            r = &self.queue[j & (QUEUE - 1)]
            if c.at - r.at > NEAR:
                break
            if r.height > before:
                before = r.height
                before_w = r.broad
                before_t = c.at - r.at
            j -= 1
        j = index + 1
        while j < self.measured:
            r = &self.queue[j & (QUEUE - 1)]
            if r.at - c.at > NEAR:
                break
            if r.height > after:
                after = r.height
                after_w = r.broad
                after_t = r.at - c.at
            j += 1
        around = self.mean(c.at, 62)
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
        f[11] = self.mean(c.at, 25) / h
        f[12] = around / level[0]
        c.score = self.one.score(f)
        if self.traced < self.trace.shape[0] and self.trace.shape[1] == ALONE + 2:
            self.write(c, f, ALONE)

    cdef void write(self, const Candidate* c, const double* f, Py_ssize_t count) noexcept nogil:
        cdef Py_ssize_t j
        self.trace[self.traced, 0] = c.at
        self.trace[self.traced, 1] = c.score
        for j in range(count):
            self.trace[self.traced, 2 + j] = f[j]
        self.traced += 1

    cdef long long review(self, long long index) noexcept nogil:
        # among the beats around: does it come when one is due, and does it look like one of them?
        cdef Candidate* c = &self.queue[index & (QUEUE - 1)]
        cdef Candidate* r
        cdef double[FEATURES] f
        cdef double[PREVIOUS + NEXT] height, broad, alike, interval
        cdef double before = MANY, after = MANY, rival = -1e9, rr
        cdef long long j, at = -1, previous = 0, following = 0
        cdef long long[PREVIOUS + NEXT] place
        cdef Py_ssize_t beats = 0, intervals = 0, i
        f[24] = 0
        f[25] = 0
        j = index - 1
        while j >= 0 and index - j < QUEUE // 2 and previous < PREVIOUS:
            r = &self.queue[j & (QUEUE - 1)]
            if c.at - r.at > MANY:
                break
            if c.at - r.at <= NEAR and r.score > rival:
                rival = r.score
            if r.score > 0:
                if previous == 0:
                    before = c.at - r.at
                    f[24] = r.height / <double>c.height
                elif at - r.at > REFRACTORY:
                    insert(interval, intervals, at - r.at)
                    intervals += 1
                at = r.at
                place[beats] = at
                self.compare(c, r, height, broad, alike, beats)
                beats += 1
                previous += 1
            j -= 1
        j = index + 1
        while j < self.judged and following < NEXT:
            r = &self.queue[j & (QUEUE - 1)]
            if r.at - c.at <= NEAR and r.score > rival:
                rival = r.score
            if r.score > 0:
                if following == 0:
                    after = r.at - c.at
                    f[25] = r.height / <double>c.height
                elif r.at - at > REFRACTORY:
                    insert(interval, intervals, r.at - at)
                    intervals += 1
                at = r.at
                place[beats] = at
                self.compare(c, r, height, broad, alike, beats)
                beats += 1
                following += 1
            j += 1
        rr = interval[intervals // 2] if intervals else RATE
        for i in range(ALONE):
            f[i] = c.feature[i]
        f[13] = before / rr
        f[14] = after / rr
        f[15] = f[13] if f[13] < f[14] else f[14]
        f[16] = f[13] + f[14]
        f[17] = before
        f[18] = after
        f[19] = alike[beats - 1] if beats else 0
        f[20] = alike[beats // 2] if beats else 0
        f[21] = c.height / height[beats // 2] if beats else 1
        f[22] = c.broad / broad[beats // 2] if beats else 1
        f[23] = c.score
        f[26] = rival
        f[27] = self.companion(c.at, place, beats, 0) if previous and before <= NEAR else -1
        f[28] = self.companion(c.at, place, beats, previous) if following and after <= NEAR else -1
        if self.traced < self.trace.shape[0] and self.trace.shape[1] == FEATURES + 2:
            self.write(c, f, FEATURES)
        return self.two.score(f)

    cdef double companion(
        self, long long at, const long long* place, Py_ssize_t beats, Py_ssize_t nearest
    ) noexcept nogil:
        # T waves come after every beat and P waves before: is the like of it found at the same distance from the others?
        cdef double[PREVIOUS + NEXT] alike
        cdef long long spot
        cdef Py_ssize_t i, j, found = 0
        cdef bint free_
        for i in range(beats):
            if i == nearest:
                continue
            spot = place[i] + at - place[nearest]
            free_ = spot + SNIPPET + SHIFT < self.ticks - 2
            for j in range(beats):
                if j != i and -APART < place[j] - spot < APART:
                    free_ = False
            if free_:
                insert(alike, found, self.same(at, spot))
                found += 1
        return alike[found // 2] if found else -1

    cdef double same(self, long long one, long long other) noexcept nogil:
        # 1: the same slopes, 0: nothing in common; size counts
        cdef double best = 0, xy, both, x, y
        cdef long long shift, i
        for shift in range(-SHIFT, SHIFT + 1):
            xy = 0
            both = 1
            for i in range(-SNIPPET, SNIPPET + 1):
                x = self.d[(one + i) & MASK]
                y = self.d[(other + i + shift) & MASK]
                xy = xy + x * y
                both = both + x * x + y * y
            best = 2 * xy / both if 2 * xy > best * both else best
        return best

    cdef void compare(
        self, const Candidate* c, const Candidate* r, double* height, double* broad, double* alike, Py_ssize_t n
    ) noexcept nogil:
        # squared correlation, with its sign, of the slopes around both, at the best of a few shifts
        cdef double best = -1, xy, xx, yy, x, y
        cdef long long shift, i
        for shift in range(-SHIFT, SHIFT + 1):
            xy = 0
            xx = 1
            yy = 1
            for i in range(-SNIPPET, SNIPPET + 1):
                x = self.d[(c.at + i) & MASK]
                y = self.d[(r.at + i + shift) & MASK]
                xy = xy + x * y
                xx = xx + x * x
                yy = yy + y * y
            x = xy * (xy if xy > 0 else -xy) / (xx * yy)
            best = x if x > best else best
        insert(height, n, r.height)
        insert(broad, n, r.broad)
        insert(alike, n, best)

    cdef inline double mean(self, long long at, long long half) noexcept nogil:
        cdef long long left = at - half - 1
        return <double>(self.cum[(at + half) & MASK] - self.cum[left & MASK]) / (2 * half + 1)

    cdef void accept(self, const Candidate* c) noexcept nogil:
        if self.has_pending and c.at - self.pending.at < REFRACTORY:
            if c.final > self.pending.final:
                self.pending = c[0]
            return
        if self.has_pending:
            self.emit(&self.pending)
        self.pending = c[0]
        self.has_pending = True

    cdef void say(self, long long block) noexcept nogil:
        # is this second one that the answer should be trusted for?
        cdef long long b = block & (BLOCKS - 1)
        cdef bint unsure = self.block_doubt[b] > 0 or 10 * self.block_absent[b] > self.fs
        cdef long long start = <long long>(block * self.fs), end = <long long>((block + 1) * self.fs)
        self.block_doubt[b] = 0
        self.block_absent[b] = 0
        if unsure and start < self.real:
            if self.unsure_start < 0:
                self.unsure_start = start
            self.unsure_end = end
        elif self.unsure_start >= 0:
            self.span_count += self.append(&self.spans, &self.span_room, self.span_count, self.unsure_start)
            end = self.unsure_end if self.unsure_end < self.real else self.real
            self.span_count += self.append(&self.spans, &self.span_room, self.span_count, end)
            self.unsure_start = -1

    cdef void emit(self, const Candidate* c) noexcept nogil:
        cdef long long peak = self.locate(c.at)
        if peak <= self.last_peak or peak >= self.real:
            return
        self.last_peak = peak
        self.out_count += self.append(&self.out, &self.out_room, self.out_count, peak)

    cdef int append(self, long long** array, long long* room, long long count, long long value) noexcept nogil:
        cdef long long* larger
        if count == room[0]:
            larger = <long long*>realloc(array[0], 2 * room[0] * sizeof(long long))
            if larger == NULL:
                self.failed = True
                return 0
            array[0] = larger
            room[0] *= 2
        array[0][count] = value
        return 1

    cdef long long locate(self, long long at) noexcept nogil:
        # the largest deflection from the local mean, on the signal averaged over some 10 ms; then the raw extremum
        cdef long long centre = <long long>(at * self.fs / RATE + 0.5) + self.pad
        cdef long long reach = <long long>(0.08 * self.fs), r = <long long>(0.005 * self.fs)
        cdef long long wide = <long long>(0.15 * self.fs), i, best_i, width = 2 * r + 1, shift
        cdef double base, v, best = -1
        cdef int sign = 1
        base = <double>(self.total[(centre + wide + 1) & self.raw_mask] - self.total[(centre - wide) & self.raw_mask])
        base = base / (2 * wide + 1)
        best_i = centre
        for i in range(centre - reach, centre + reach + 1):
            v = <double>(self.total[(i + r + 1) & self.raw_mask] - self.total[(i - r) & self.raw_mask]) / width - base
            # of two deflections of like size, the one that beats have had so far
            if v < 0:
                v = -v if self.sign > 0 else -v * 1.25
                if v > best:
                    best = v
                    best_i = i
                    sign = -1
            else:
                v = v if self.sign < 0 else v * 1.25
                if v > best:
                    best = v
                    best_i = i
                    sign = 1
        self.sign = sign
        centre = best_i
        # the raw extremum: again until nothing within r + 1 samples is further out, but not up a whole ramp
        for shift in range(CLIMB):
            centre = best_i
            for i in range(centre - r - 1, centre + r + 2):
                if sign * (self.raw[i & self.raw_mask] - self.raw[best_i & self.raw_mask]) > 0:
                    best_i = i
            if best_i == centre:
                break
        return best_i - self.pad


cdef inline long long magnitude(long long v) noexcept nogil:
    return -v if v < 0 else v


cdef inline void insert(double* v, Py_ssize_t n, double x) noexcept nogil:
    # into n values that rise
    while n > 0 and v[n - 1] > x:
        v[n] = v[n - 1]
        n -= 1
    v[n] = x
