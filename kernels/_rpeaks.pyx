"""The R-peak detector's state and decisions. `rpeaks.py` tells the method, checks and allocates."""

from libc.stdint cimport int16_t, int32_t
from libc.stdlib cimport calloc, free, realloc

from aidpost.kernels._rpeaks_front cimport (
    ALONE, QUEUE, RATE, RECENT, RING, Candidate, Front, decimate, hold, measure_broad, set_rate, store,
)
from aidpost.kernels._rpeaks_judge cimport (
    DEPTH, GROUNDS, LEAVES, NEAR, NODES, REFRACTORY, SEEN, SLOPES, Trees, look, network, network_score, ratios, score,
)

cdef enum:
    PAST = 5  # blocks of one second that the level looks back
    FUTURE = 2  # and ahead
    REVIEW = 2  # blocks later, the doubtful candidates are looked at again among their neighbours
    BLOCKS = 16  # a power of two
    CLIMB = 5
    FAINT = 16  # a candidate this many times below the level is no beat, whatever else speaks for it
    HOPELESS = -1048576
    CLOSE = 65536  # scores are log odds times this: less than 1 either way is not sure

cdef double UNIT = 8192.0  # integer steps in a mV
cdef double LARGEST = 1000.0  # mV; anything beyond, an infinity or a NaN is a missing sample
cdef long long BEYOND = 1 << 40  # more steps than any sample has


cdef struct Second:  # what is known of the samples of one second
    long long slope, broad  # largest candidate, of either envelope
    long long doubt, absent
    long long high, low  # extremes, and those of the stretches that stand still: the same where the converter is at its end
    long long still_high, still_low


cdef class Forest:
    """Boosted trees of depth 3: (n, 7) features and thresholds of the nodes, (n, 8) leaves, and what all start from."""

    cdef const int[:, ::1] feature
    cdef const double[:, ::1] threshold
    cdef const long long[:, ::1] value
    cdef Trees trees

    def __init__(
        self, const int[:, ::1] feature, const double[:, ::1] threshold, const long long[:, ::1] value, long long bias
    ):
        cdef Py_ssize_t count = feature.shape[0], tree, node
        if threshold.shape[0] != count or value.shape[0] != count:
            raise ValueError("features, thresholds and leaves of as many trees are needed")
        if feature.shape[1] != NODES or threshold.shape[1] != NODES or value.shape[1] != LEAVES:
            raise ValueError(f"trees of depth {DEPTH} have {NODES} nodes and {LEAVES} leaves")
        for tree in range(count):
            for node in range(NODES):
                if not 0 <= feature[tree, node] < ALONE:
                    raise ValueError(f"there is no feature {feature[tree, node]}")
        self.feature = feature
        self.threshold = threshold
        self.value = value
        self.trees.count = count
        self.trees.bias = bias
        if count:
            self.trees.feature = &feature[0, 0]
            self.trees.threshold = &threshold[0, 0]
            self.trees.value = &value[0, 0]


cdef class Network:
    """Five layers, each its weights (units, inputs) in Q12 and its biases (units,) in Q22, as `_rpeaks_net.h` has them."""

    cdef object held
    cdef network layers

    def __init__(self, list weights, list biases):
        cdef const int16_t[:, ::1] weight
        cdef const int32_t[::1] bias
        cdef Py_ssize_t layer, unit, i
        cdef long long most
        shapes = [(8, 8), (16, 40), (16, 80), (24, 208 + GROUNDS), (1, 24)]
        if len(weights) != len(shapes) or len(biases) != len(shapes):
            raise ValueError(f"a network has {len(shapes)} layers")
        for layer, (units, inputs) in enumerate(shapes):
            weight, bias = weights[layer], biases[layer]
            if weight.shape[0] != units or weight.shape[1] != inputs or bias.shape[0] != units:
                raise ValueError(f"layer {layer} has {units} units of {inputs} inputs")
            for unit in range(units):
                most = abs(<long long>bias[unit]) + 2048
                for i in range(inputs):
                    most += 4095 * abs(<long long>weight[unit, i])
                if most >= 1 << 31:
                    raise ValueError(f"unit {unit} of layer {layer} could sum up to more than 32 bits hold")
            self.layers.weight[layer] = &weight[0, 0]
            self.layers.bias[layer] = &bias[0]
        self.held = (weights, biases)

    def judge(self, const int16_t[::1] seen):
        """Log odds in Q16 of one candidate's 97 slopes and 24 ratios."""
        if seen.shape[0] != SEEN:
            raise ValueError(f"the network sees {SEEN} numbers")
        return network_score(&self.layers, &seen[0], &seen[SLOPES]) >> 6


cdef class Core:
    """One lead's detector. `feed` and `finish` append to what `take` hands over."""

    cdef Front front
    cdef Second[BLOCKS] second
    cdef Forest forest
    cdef Network net
    cdef Candidate pending
    cdef bint has_pending, failed
    cdef int sign
    cdef double fs
    cdef long long real, block, block_end, next_block, gap, still, run, value
    cdef long long held, offset, missing, last_peak, doubt
    cdef double[:, ::1] trace
    cdef readonly long long traced
    cdef long long* out
    cdef long long* spans
    cdef long long out_count, out_room, span_count, span_room, unsure_start, unsure_end

    def __cinit__(self, double fs, Forest forest, Network net, long long doubt, double[:, ::1] trace):
        cdef long long size = 1024
        while size < 10 * fs:
            size *= 2
        self.front.raw_mask = size - 1
        self.front.raw = <long long*>calloc(size, sizeof(long long))
        self.front.total = <long long*>calloc(size, sizeof(long long))
        hold(&self.front, <long long*>calloc(8 * RING, sizeof(long long)))
        self.out_room = self.span_room = 256
        self.spans = <long long*>calloc(self.span_room, sizeof(long long))
        self.out = <long long*>calloc(self.out_room, sizeof(long long))
        if not (self.front.raw and self.front.total and self.front.s and self.out and self.spans):
            raise MemoryError
        set_rate(&self.front, fs)
        self.fs = fs
        self.gap = <long long>(0.02 * fs) + 1
        self.still = self.gap if self.gap > 4 else 4
        self.block = -1
        self.forest = forest
        self.net = net
        self.doubt = doubt
        self.trace = trace
        self.last_peak = self.unsure_start = -1

    def __dealloc__(self):
        free(self.front.raw)
        free(self.front.total)
        free(self.front.s)
        free(self.out)
        free(self.spans)

    def feed(self, const double[::1] x):
        cdef Py_ssize_t i
        with nogil:
            for i in range(x.shape[0]):
                if self.real >= self.block_end:
                    self.start_block()
                if -LARGEST <= x[i] <= LARGEST:
                    self.put(<long long>(x[i] * UNIT))
                else:
                    if self.front.seen == 0:
                        self.fill()
                    self.missing += 1
                    self.second[self.block & (BLOCKS - 1)].absent += 1
                    self.push(self.held)
                self.real += 1
        if self.failed:
            raise MemoryError

    def finish(self):
        # the blocks that hold samples and peaks' rings around them, and one more, so that an open span is closed
        cdef long long until = self.block + REVIEW + 3
        with nogil:
            while self.front.seen and self.next_block < until:
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

    cdef void start_block(self) noexcept nogil:
        cdef Second* second
        self.block += 1
        self.block_end = <long long>((self.block + 1) * self.fs)
        second = &self.second[self.block & (BLOCKS - 1)]
        second.doubt = second.absent = 0
        second.high = second.still_high = -BEYOND
        second.low = second.still_low = BEYOND

    cdef inline void put(self, long long v) noexcept nogil:
        cdef Second* second = &self.second[self.block & (BLOCKS - 1)]
        if self.front.seen == 0:
            self.held = v
            self.fill()
        elif self.missing >= self.gap or self.run == 0:
            # what comes after a gap joins where the signal was left: the step is not a beat
            self.offset = self.held - v
        self.missing = 0
        self.run = self.run + 1 if v == self.value else 1
        self.value = v
        if v > second.high:
            second.high = v
        if v < second.low:
            second.low = v
        if self.run >= self.still:
            second.still_high = v if v > second.still_high else second.still_high
            second.still_low = v if v < second.still_low else second.still_low
        self.held = v + self.offset
        self.push(self.held)

    cdef void fill(self) noexcept nogil:
        # the past that the first candidates are measured against
        cdef long long i
        for i in range(self.front.pad):
            self.push(self.held)

    cdef inline void push(self, long long v) noexcept nogil:
        store(&self.front, v)
        while self.front.seen > self.front.need:
            decimate(&self.front)
            if self.front.ticks > (self.next_block + 1 + FUTURE) * RATE + 2 * NEAR:
                self.decide(self.next_block)
                self.next_block += 1

    cdef void decide(self, long long block) noexcept nogil:
        cdef Front* front = &self.front
        cdef Candidate* c
        cdef double[4] level
        self.measure((block + 1 + FUTURE) * RATE)
        self.levels(block, level)
        while front.judged < front.measured and front.queue[front.judged & RECENT].at < (block + 1) * RATE:
            self.judge(front.judged, level)
            front.judged += 1
        while front.first < front.judged and front.queue[front.first & RECENT].at < (block + 1 - REVIEW) * RATE:
            c = &front.queue[front.first & RECENT]
            c.final = self.review(front.first) if -self.doubt < c.score < self.doubt else c.score
            if -CLOSE < c.final < CLOSE:
                self.second[(c.at // RATE) & (BLOCKS - 1)].doubt += 1
            if c.final > 0:
                self.accept(c)
            front.first += 1
        # nothing that is still to come can replace this one
        if self.has_pending and (block + 1 - REVIEW) * RATE - self.pending.at >= REFRACTORY:
            self.emit(&self.pending)
            self.has_pending = False
        if block >= REVIEW:
            self.say(block - REVIEW)
        # the block that leaves the level's reach makes room
        self.second[(block - PAST) & (BLOCKS - 1)].slope = self.second[(block - PAST) & (BLOCKS - 1)].broad = 0

    cdef void measure(self, long long until) noexcept nogil:
        # what the queue has gained since the last block: its broad height, and the maxima of its block
        cdef Front* front = &self.front
        cdef Candidate* c
        cdef Second* second
        while front.measured < front.last and front.queue[front.measured & RECENT].at < until:
            c = &front.queue[front.measured & RECENT]
            measure_broad(front, c)
            second = &self.second[(c.at // RATE) & (BLOCKS - 1)]
            second.slope = c.height if c.height > second.slope else second.slope
            second.broad = c.broad if c.broad > second.broad else second.broad
            front.measured += 1

    cdef void levels(self, long long block, double* level) noexcept nogil:
        # the median and the upper quartile of the one-second maxima around, of either envelope
        cdef long long[PAST + FUTURE + 1] slope, broad
        cdef long long b
        cdef Py_ssize_t n = 0
        for b in range(block - PAST if block > PAST else 0, block + FUTURE + 1):
            if self.second[b & (BLOCKS - 1)].slope > 0:
                rise(slope, n, self.second[b & (BLOCKS - 1)].slope)
                rise(broad, n, self.second[b & (BLOCKS - 1)].broad)
                n += 1
        level[0] = slope[n // 2] if n else 1
        level[1] = slope[3 * n // 4] if n else 1
        level[2] = broad[n // 2] if n else 1
        level[3] = broad[3 * n // 4] if n else 1

    cdef void judge(self, long long index, const double* level) noexcept nogil:
        cdef Candidate* c = &self.front.queue[index & RECENT]
        ratios(&self.front, index, level)
        c.score = HOPELESS if c.feature[0] * FAINT < 1 else score(&self.forest.trees, c.feature)
        if self.trace.shape[1] == ALONE + 2:
            self.write(c, c.feature, ALONE)

    cdef long long review(self, long long index) noexcept nogil:
        cdef Candidate* c = &self.front.queue[index & RECENT]
        cdef int16_t[SEEN] seen
        cdef double[SEEN] shown
        cdef Py_ssize_t i
        look(&self.front, index, seen)
        if self.trace.shape[1] == SEEN + 2:
            for i in range(SEEN):
                shown[i] = seen[i]
            self.write(c, shown, SEEN)
        # from Q22 to the forest's Q16
        return network_score(&self.net.layers, seen, seen + SLOPES) >> 6

    cdef void write(self, const Candidate* c, const double* f, Py_ssize_t count) noexcept nogil:
        cdef Py_ssize_t j
        if self.traced < self.trace.shape[0]:
            self.trace[self.traced, 0] = c.at
            self.trace[self.traced, 1] = c.score
            for j in range(count):
                self.trace[self.traced, 2 + j] = f[j]
            self.traced += 1

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
        cdef const Second* second = &self.second[block & (BLOCKS - 1)]
        cdef bint unsure = second.doubt > 0 or 10 * second.absent > self.fs or self.at_the_rail(block)
        cdef long long start = <long long>(block * self.fs), end = <long long>((block + 1) * self.fs)
        if unsure and start < self.real:
            if self.unsure_start < 0:
                self.unsure_start = start
            self.unsure_end = end
        elif self.unsure_start >= 0:
            self.span_count += self.append(&self.spans, &self.span_room, self.span_count, self.unsure_start)
            end = self.unsure_end if self.unsure_end < self.real else self.real
            self.span_count += self.append(&self.spans, &self.span_room, self.span_count, end)
            self.unsure_start = -1

    cdef bint at_the_rail(self, long long block) noexcept nogil:
        # a stretch that stands still at the extreme of the seconds around: clipped, or the electrode is off
        cdef const Second* around
        cdef long long high = -BEYOND, low = BEYOND, b
        cdef long long last = block + FUTURE if block + FUTURE < self.block else self.block
        for b in range(block - PAST if block > PAST else 0, last + 1):
            around = &self.second[b & (BLOCKS - 1)]
            high = around.high if around.high > high else high
            low = around.low if around.low < low else low
        around = &self.second[block & (BLOCKS - 1)]
        return block <= self.block and (around.still_high == high or around.still_low == low) and high >= low

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
        cdef long long centre = <long long>(at * self.fs / RATE + 0.5) + self.front.pad
        cdef long long reach = <long long>(0.08 * self.fs), r = <long long>(0.005 * self.fs)
        cdef long long wide = <long long>(0.15 * self.fs), i, best_i, width = 2 * r + 1, shift
        cdef double base, v, best = -1
        cdef int sign = 1
        base = <double>(self.front.total[(centre + wide + 1) & self.front.raw_mask] - self.front.total[(centre - wide) & self.front.raw_mask])
        base = base / (2 * wide + 1)
        best_i = centre
        for i in range(centre - reach, centre + reach + 1):
            v = <double>(self.front.total[(i + r + 1) & self.front.raw_mask] - self.front.total[(i - r) & self.front.raw_mask]) / width - base
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
                if sign * (self.front.raw[i & self.front.raw_mask] - self.front.raw[best_i & self.front.raw_mask]) > 0:
                    best_i = i
            if best_i == centre:
                break
        return best_i - self.front.pad


cdef inline void rise(long long* v, Py_ssize_t n, long long x) noexcept nogil:
    # into n values that rise
    while n > 0 and v[n - 1] > x:
        v[n] = v[n - 1]
        n -= 1
    v[n] = x
