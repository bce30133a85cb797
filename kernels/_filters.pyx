"""The biquad cascade's loop. `filters.py` checks and allocates."""

from libc.stdlib cimport calloc, free


cdef void _one(const double* c, double* z, const double* x, double* y, Py_ssize_t n) noexcept nogil:
    cdef double b0 = c[0], b1 = c[1], b2 = c[2], a1 = c[3], a2 = c[4], s0 = z[0], s1 = z[1], v, w
    cdef Py_ssize_t i
    for i in range(n):
        v = x[i]
        w = b0 * v + s0
        s0 = b1 * v - a1 * w + s1
        s1 = b2 * v - a2 * w
        y[i] = w
    z[0] = s0
    z[1] = s1


cdef void _two(const double* c, double* z, const double* x, double* y, Py_ssize_t n) noexcept nogil:
    # Two sections in one pass: each waits for its own feedback, so the processor overlaps them.
    cdef double b0 = c[0], b1 = c[1], b2 = c[2], a1 = c[3], a2 = c[4], s0 = z[0], s1 = z[1]
    cdef double d0 = c[5], d1 = c[6], d2 = c[7], e1 = c[8], e2 = c[9], t0 = z[2], t1 = z[3], v, w, u
    cdef Py_ssize_t i
    for i in range(n):
        v = x[i]
        w = b0 * v + s0
        s0 = b1 * v - a1 * w + s1
        s1 = b2 * v - a2 * w
        u = d0 * w + t0
        t0 = d1 * w - e1 * u + t1
        t1 = d2 * w - e2 * u
        y[i] = u
    z[0] = s0
    z[1] = s1
    z[2] = t0
    z[3] = t1


cdef void _four(const double* c, double* z, const double* x, double* y, Py_ssize_t n) noexcept nogil:
    # Four sections in one pass. At step i section k works on sample i - k, so that no section waits for another's
    # result of the same step; arithmetic per section is that of `_one`, bit for bit.
    cdef double[4] b0, b1, b2, a1, a2, s0, s1, v, w
    cdef Py_ssize_t i, k, first, last
    for k in range(4):
        b0[k] = c[5 * k]
        b1[k] = c[5 * k + 1]
        b2[k] = c[5 * k + 2]
        a1[k] = c[5 * k + 3]
        a2[k] = c[5 * k + 4]
        s0[k] = z[2 * k]
        s1[k] = z[2 * k + 1]
        w[k] = 0
    for i in range(n + 3):
        v[3] = w[2]
        v[2] = w[1]
        v[1] = w[0]
        v[0] = x[i] if i < n else 0
        if 3 <= i < n:
            for k in range(4):
                w[k] = b0[k] * v[k] + s0[k]
            for k in range(4):
                s0[k] = b1[k] * v[k] - a1[k] * w[k] + s1[k]
            for k in range(4):
                s1[k] = b2[k] * v[k] - a2[k] * w[k]
        else:
            first = 0 if i < n else i - n + 1
            last = i if i < 3 else 3
            for k in range(first, last + 1):
                w[k] = b0[k] * v[k] + s0[k]
                s0[k] = b1[k] * v[k] - a1[k] * w[k] + s1[k]
                s1[k] = b2[k] * v[k] - a2[k] * w[k]
        if i >= 3:
            y[i - 3] = w[3]
    for k in range(4):
        z[2 * k] = s0[k]
        z[2 * k + 1] = s1[k]


cdef class Cascade:
    """State and coefficients of n sections, (b0, b1, b2, a1, a2) each."""

    cdef double* _c
    cdef double* _z
    cdef Py_ssize_t _sections

    def __cinit__(self, const double[:, ::1] coefficients):
        cdef Py_ssize_t i, j
        self._sections = coefficients.shape[0]
        self._c = <double*>calloc(5 * self._sections + 1, sizeof(double))
        self._z = <double*>calloc(2 * self._sections + 1, sizeof(double))
        if self._c == NULL or self._z == NULL:
            raise MemoryError
        for i in range(self._sections):
            for j in range(5):
                self._c[5 * i + j] = coefficients[i, j]

    def __dealloc__(self):
        free(self._c)
        free(self._z)

    def set_state(self, const double[:, ::1] state):
        cdef Py_ssize_t i
        for i in range(self._sections):
            self._z[2 * i] = state[i, 0]
            self._z[2 * i + 1] = state[i, 1]

    def get_state(self, double[:, ::1] state):
        cdef Py_ssize_t i
        for i in range(self._sections):
            state[i, 0] = self._z[2 * i]
            state[i, 1] = self._z[2 * i + 1]

    def run(self, const double[::1] x, double[::1] y):
        """y = the cascade's answer to x; both (n,), and y may be x."""
        cdef Py_ssize_t n = x.shape[0], k = 0, left = self._sections
        cdef const double* source
        if n == 0:
            return
        source = &x[0]
        with nogil:
            while left > 0:
                if left >= 4:
                    _four(self._c + 5 * k, self._z + 2 * k, source, &y[0], n)
                    k += 4
                    left -= 4
                elif left >= 2:
                    _two(self._c + 5 * k, self._z + 2 * k, source, &y[0], n)
                    k += 2
                    left -= 2
                else:
                    _one(self._c + 5 * k, self._z + 2 * k, source, &y[0], n)
                    k += 1
                    left -= 1
                source = &y[0]
