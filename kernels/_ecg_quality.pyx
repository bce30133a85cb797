"""Per-second measures of one lead. `ecg_quality.py` filters, allocates and judges."""

from libc.math cimport sqrt


cdef enum:
    PARTS = 20  # of 50 ms: a QRS complex fills two or three of a second's


def measure(
    const double[::1] x, const double[::1] fast, const double[::1] slow, const unsigned char[::1] missing,
    const long long[::1] edges, const double[:, ::1] tones, double low, double high, double[:, ::1] out,
):
    """Fill out (seconds, 9): missing, range, longest flat run, clipped, tone 0, tone 1, fast, slow range, upper fast.

    x: held where missing; fast, slow: its high- and low-passed forms; edges: (seconds + 1) sample numbers; tones:
    (4, longest second) cosine and sine of two mains frequencies; low, high: the recording's extremes. Fractions of
    the second for missing, run and clipped; the unit of x for the rest.
    """
    cdef Py_ssize_t s, i, p, start, end, n, run, longest, at_rail, clipped, absent, begin
    cdef double bottom, top, mean, c0, s0, c1, s1, v, floor_, ceiling, energy
    cdef double[PARTS] parts
    with nogil:
        for s in range(edges.shape[0] - 1):
            start = edges[s]
            end = edges[s + 1]
            n = end - start
            bottom = top = x[start]
            floor_ = ceiling = slow[start]
            mean = 0
            run = longest = 1
            at_rail = clipped = absent = 0
            for i in range(start, end):
                v = x[i]
                mean += v
                absent += missing[i]
                bottom = v if v < bottom else bottom
                top = v if v > top else top
                floor_ = slow[i] if slow[i] < floor_ else floor_
                ceiling = slow[i] if slow[i] > ceiling else ceiling
                if i > start:
                    run = run + 1 if v == x[i - 1] else 1
                    longest = run if run > longest else longest
                at_rail = at_rail + 1 if v == low or v == high else 0
                # three in a row: one sample at the extreme is only the tallest beat
                clipped += 3 if at_rail == 3 else 1 if at_rail > 3 else 0
            mean /= n
            c0 = s0 = c1 = s1 = 0
            for i in range(n):
                v = x[start + i] - mean
                c0 = c0 + v * tones[0, i]
                s0 = s0 + v * tones[1, i]
                c1 = c1 + v * tones[2, i]
                s1 = s1 + v * tones[3, i]
            for p in range(PARTS):
                begin = start + p * n // PARTS
                energy = 0
                for i in range(begin, start + (p + 1) * n // PARTS):
                    energy = energy + fast[i] * fast[i]
                i = start + (p + 1) * n // PARTS - begin
                parts[p] = sqrt(energy / i) if i > 0 else 0
            _sort(parts)
            out[s, 0] = absent / <double>n
            out[s, 1] = top - bottom
            out[s, 2] = longest / <double>n
            out[s, 3] = clipped / <double>n
            out[s, 4] = 2 * sqrt(c0 * c0 + s0 * s0) / n
            out[s, 5] = 2 * sqrt(c1 * c1 + s1 * s1) / n
            out[s, 6] = parts[PARTS // 2 - 2]
            out[s, 7] = ceiling - floor_
            out[s, 8] = parts[PARTS - 2]


cdef void _sort(double* v) noexcept nogil:
    cdef Py_ssize_t i, j
    cdef double key
    for i in range(1, PARTS):
        key = v[i]
        j = i - 1
        while j >= 0 and v[j] > key:
            v[j + 1] = v[j]
            j -= 1
        v[j + 1] = key
