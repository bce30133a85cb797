"""The polyphase loop. `resample.py` designs the filters, checks and allocates."""


def dot(
    const double[::1] x, const double[:, ::1] phases, Py_ssize_t first, Py_ssize_t up, Py_ssize_t down,
    Py_ssize_t origin, double[::1] y,
):
    """y[m] = sum over k of x[start + k] * phases[phase, k], output m counted on from `first`.

    x[0] is sample number `origin` of the whole signal; output j needs samples j * down // up + 0 .. taps - 1, its phase
    is j * down % up. Four partial sums in a fixed order, so that every processor gives the same bits.
    """
    cdef Py_ssize_t taps = phases.shape[1], m, k, position, start
    cdef double a, b, c, d
    cdef const double* source
    cdef const double* filter
    # taps is a multiple of four, padded with zeros
    with nogil:
        for m in range(y.shape[0]):
            position = (first + m) * down
            start = position // up - origin
            source = &x[start]
            filter = &phases[position % up, 0]
            a = 0
            b = 0
            c = 0
            d = 0
            k = 0
            while k < taps:
                a = a + source[k] * filter[k]
                b = b + source[k + 1] * filter[k + 1]
                c = c + source[k + 2] * filter[k + 2]
                d = d + source[k + 3] * filter[k + 3]
                k += 4
            y[m] = (a + b) + (c + d)
