# distutils: include_dirs = aidpost/kernels
# distutils: depends = aidpost/kernels/_fundus_loops.h
"""Loops of `aidpost.kernels.fundus`: what comes in was checked there, the meaning is in `reference_fundus.py`."""

from libc.math cimport fabs, sqrt
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc, calloc
from libc.string cimport memcpy, memset

cdef extern from "_fundus_loops.h" nogil:
    void blend_rows(const uint8_t *, ptrdiff_t, const int16_t *, int, int, int16_t *)
    void blend_columns(const int16_t *, const int32_t *, const int32_t *, int, int, uint8_t *)
    void add_row(int32_t *, const uint8_t *, int)
    void subtract_row(int32_t *, const uint8_t *, int)
    void prefix_row(const int32_t *, int, int32_t *)
    void subtract_mean(const uint8_t *, const int32_t *, const int32_t *, const float *, int, int16_t *)
    void add_magnitudes(const int16_t *, int, int32_t *)
    void add_light(const uint8_t *, int, int, int, int16_t *, int16_t *)
    void add_edges(const uint8_t *, ptrdiff_t, int, int32_t *)
    void quantise_row(const int16_t *, const int16_t *, int, int8_t *)


def resample(const uint8_t[:, :, ::1] photo, const int32_t[::1] first_row, const int16_t[:, ::1] row_weights,
             const int32_t[::1] first_column, const int16_t[:, ::1] column_weights, uint8_t[:, :, ::1] out):
    """Separable filter: rows first, to Q6, then columns; only the columns that are needed."""
    cdef int size = <int>out.shape[0], row_taps = <int>row_weights.shape[1], column_taps = <int>column_weights.shape[1]
    cdef int y, x, k, left = first_column[0], width = first_column[size - 1] + column_taps - first_column[0], pairs = (column_taps + 1) // 2
    cdef ptrdiff_t stride = 3 * photo.shape[1]
    # an odd tap more than there are, with weight zero, reads one pixel and a number behind the row
    cdef int16_t *blended = <int16_t *>calloc(3 * <size_t>photo.shape[1] + 8, sizeof(int16_t))
    cdef int32_t *pair = <int32_t *>malloc(<size_t>size * pairs * sizeof(int32_t))
    if blended == NULL or pair == NULL:
        free(blended); free(pair)
        raise MemoryError
    with nogil:
        for x in range(size):
            for k in range(pairs):
                pair[x * pairs + k] = column_weights[x, 2 * k] | (
                    <int32_t>column_weights[x, 2 * k + 1] << 16 if 2 * k + 1 < column_taps else 0)
        for y in range(size):
            blend_rows(&photo[first_row[y], left, 0], stride, &row_weights[y, 0], row_taps, 3 * width, blended + 3 * left)
            blend_columns(blended, &first_column[0], pair, pairs, size, &out[y, 0, 0])
    free(blended); free(pair)


def local_difference(const uint8_t[:, :, ::1] pixels, const int32_t[::1] lo, const int32_t[::1] hi, int half,
                     int16_t[:, :, ::1] difference, int64_t[::1] magnitude):
    """Pixel minus the mean of the visible pixels in the (2 half + 1)^2 window, Q6; sums of magnitudes by channel."""
    cdef int size = <int>pixels.shape[0], y, x, c, n, total
    cdef size_t reach = <size_t>size + 2 * half + 1
    cdef int32_t *column = <int32_t *>calloc(3 * <size_t>size, sizeof(int32_t))
    cdef int32_t *column_count = <int32_t *>calloc(<size_t>size, sizeof(int32_t))
    cdef int32_t *prefix = <int32_t *>calloc(3 * reach, sizeof(int32_t))
    cdef int32_t *count = <int32_t *>calloc(reach, sizeof(int32_t))
    cdef float *inverse = <float *>malloc(3 * <size_t>size * sizeof(float))
    cdef int32_t *sums = <int32_t *>calloc(3 * <size_t>size, sizeof(int32_t))
    cdef float reciprocal
    if sums == NULL or column == NULL or column_count == NULL or prefix == NULL or count == NULL or inverse == NULL:
        free(sums); free(column); free(column_count); free(prefix); free(count); free(inverse)
        raise MemoryError
    with nogil:
        for y in range(-half, size):
            if y + half < size and hi[y + half] > lo[y + half]:
                x = lo[y + half]
                n = hi[y + half] - x
                add_row(column + 3 * x, &pixels[y + half, x, 0], 3 * n)
                for c in range(x, x + n):
                    column_count[c] += 1
            if y - half - 1 >= 0 and hi[y - half - 1] > lo[y - half - 1]:
                x = lo[y - half - 1]
                n = hi[y - half - 1] - x
                subtract_row(column + 3 * x, &pixels[y - half - 1, x, 0], 3 * n)
                for c in range(x, x + n):
                    column_count[c] -= 1
            if y < 0 or hi[y] <= lo[y]:
                continue
            # prefix and count are padded by `half` on both sides, so that no window needs clamping
            prefix_row(column, size, prefix + 3 * half)
            total = 0
            for x in range(size):
                total += column_count[x]
                count[half + x + 1] = total
            for x in range(half + size + 1, <int>reach):
                count[x] = total
                for c in range(3):
                    prefix[3 * x + c] = prefix[3 * (half + size) + c]
            for x in range(lo[y], hi[y]):
                reciprocal = <float>1.0 / <float>(count[x + 2 * half + 1] - count[x])
                inverse[3 * x] = reciprocal
                inverse[3 * x + 1] = reciprocal
                inverse[3 * x + 2] = reciprocal
            x = 3 * lo[y]
            n = 3 * hi[y] - x
            subtract_mean(&pixels[y, lo[y], 0], prefix + x + 3 * (2 * half + 1), prefix + x, inverse + x, n,
                          &difference[y, lo[y], 0])
            add_magnitudes(&difference[y, lo[y], 0], n, sums + x)
        for x in range(3 * size):
            magnitude[x % 3] += sums[x]
    free(sums); free(column); free(column_count); free(prefix); free(count); free(inverse)


def quantise(const int16_t[:, :, ::1] difference, const int32_t[::1] lo, const int32_t[::1] hi, const int16_t[::1] gain,
             const int8_t[::1] table, bint identity, int8_t[:, :, ::1] out):
    """Gain, saturation, then `table` (by value + 128) unless it is the identity; zero outside the field of view."""
    cdef int size = <int>out.shape[0], y, i
    cdef int8_t *row
    with nogil:
        for y in range(size):
            row = &out[y, 0, 0]
            memset(row, 0, 3 * <size_t>size)
            if hi[y] > lo[y]:
                quantise_row(&difference[y, lo[y], 0], &gain[3 * lo[y]], 3 * (hi[y] - lo[y]), row + 3 * lo[y])
            if not identity:
                for i in range(3 * size):
                    row[i] = table[<int>row[i] + 128]


def measure(const uint8_t[:, :, ::1] pixels, const int32_t[::1] lo, const int32_t[::1] hi, int dark, int bright, int64_t[::1] out):
    """out: sums of red, green and blue; dark and bright pixels; pixels; Laplacian magnitude of green and its pixels."""
    cdef int size = <int>pixels.shape[0], y, x, left, right, n
    cdef ptrdiff_t stride = 3 * <ptrdiff_t>size
    cdef int32_t *totals = <int32_t *>calloc(3 * <size_t>size, sizeof(int32_t))
    cdef int32_t *edges = <int32_t *>calloc(3 * <size_t>size, sizeof(int32_t))
    cdef int16_t *darks = <int16_t *>calloc(3 * <size_t>size, sizeof(int16_t))
    cdef int16_t *brights = <int16_t *>calloc(3 * <size_t>size, sizeof(int16_t))
    if totals == NULL or edges == NULL or darks == NULL or brights == NULL:
        free(totals); free(edges); free(darks); free(brights)
        raise MemoryError
    out[:] = 0
    with nogil:
        for y in range(size):
            x = lo[y]
            n = hi[y] - x
            if n <= 0:
                continue
            out[5] += n
            add_row(totals + 3 * x, &pixels[y, x, 0], 3 * n)
            add_light(&pixels[y, x, 0], 3 * n - 2, dark, bright, darks + 3 * x, brights + 3 * x)
            if y == 0 or y == size - 1:
                continue
            left = max(max(lo[y] + 1, 1), max(lo[y - 1], lo[y + 1]))
            right = min(min(hi[y] - 1, size - 1), min(hi[y - 1], hi[y + 1]))
            if right > left:
                add_edges(&pixels[y, left, 0], stride, 3 * (right - left), edges + 3 * left)
                out[7] += right - left
        for x in range(size):
            out[0] += totals[3 * x]
            out[1] += totals[3 * x + 1]
            out[2] += totals[3 * x + 2]
            out[3] += darks[3 * x]
            out[4] += brights[3 * x]
            out[6] += edges[3 * x + 1]
    free(totals); free(edges); free(darks); free(brights)


def brightness_grid(const uint8_t[:, :, ::1] photo, int step, uint8_t[:, ::1] grid):
    """The brightest channel of four pixels in the middle of each step x step cell, averaged."""
    cdef int rows = <int>grid.shape[0], columns = <int>grid.shape[1], y, x, i, j, v, w, near = step // 4, far = (3 * step) // 4
    cdef const uint8_t *p
    with nogil:
        for y in range(rows):
            for x in range(columns):
                v = 0
                for i in range(2):
                    for j in range(2):
                        p = &photo[y * step + (far if i else near), x * step + (far if j else near), 0]
                        w = p[0] if p[0] > p[1] else p[1]
                        v += w if w > p[2] else p[2]
                grid[y, x] = <uint8_t>((v + 2) >> 2)


def smooth(const uint8_t[:, ::1] grid, uint8_t[:, ::1] out):
    """Mean over 3 x 3 cells, the border repeated."""
    cdef int rows = <int>grid.shape[0], columns = <int>grid.shape[1], y, x, i, j, v
    with nogil:
        for y in range(rows):
            for x in range(columns):
                v = 0
                for i in range(max(y - 1, 0), min(y + 2, rows)):
                    for j in range(max(x - 1, 0), min(x + 2, columns)):
                        v += grid[i, j]
                i = min(y + 2, rows) - max(y - 1, 0)
                j = min(x + 2, columns) - max(x - 1, 0)
                out[y, x] = <uint8_t>((2 * v + i * j) // (2 * i * j))


cdef int _scan(const uint8_t *line, ptrdiff_t stride, int n, int level, double *near, double *far) noexcept nogil:
    """Where a line of cells first and last exceeds `level`, between cells; bit 0 and 1: found away from the border."""
    cdef int first = 0, last = n - 1, found = 0, a, b
    while first < n and line[first * stride] <= level:
        first += 1
    if first == n:
        return 0
    while line[last * stride] <= level:
        last -= 1
    if first > 0:
        a = line[(first - 1) * stride]
        b = line[first * stride]
        near[0] = first + 0.5 - <double>(b - level) / (b - a)
        found |= 1
    if last < n - 1:
        a = line[(last + 1) * stride]
        b = line[last * stride]
        far[0] = last + 0.5 + <double>(b - level) / (b - a)
        found |= 2
    return found


def edge_points(const uint8_t[:, ::1] grid, int level, double[:, ::1] points):
    """Outermost crossings of `level` in every row and column, as (x, y) in cells; their number."""
    cdef int rows = <int>grid.shape[0], columns = <int>grid.shape[1], y, x, n = 0, found
    cdef double near = 0.0, far = 0.0
    with nogil:
        for y in range(rows):
            found = _scan(&grid[y, 0], 1, columns, level, &near, &far)
            if found & 1:
                points[n, 0] = near
                points[n, 1] = y + 0.5
                n += 1
            if found & 2:
                points[n, 0] = far
                points[n, 1] = y + 0.5
                n += 1
        for x in range(columns):
            found = _scan(&grid[0, x], columns, rows, level, &near, &far)
            if found & 1:
                points[n, 0] = x + 0.5
                points[n, 1] = near
                n += 1
            if found & 2:
                points[n, 0] = x + 0.5
                points[n, 1] = far
                n += 1
    return n


cdef bint _solve(double *m, double *circle) noexcept nogil:
    """Kasa's normal equations: sums over points of x, y, xx, xy, yy, xz, yz, z (z = xx + yy) and their number."""
    cdef double n = m[8], sx = m[0], sy = m[1], z = m[7]
    cdef double a = m[2] - sx * sx / n, b = m[3] - sx * sy / n, c = m[4] - sy * sy / n
    cdef double u = 0.5 * (m[5] - z * sx / n), v = 0.5 * (m[6] - z * sy / n), det = a * c - b * b, r2
    if det < 1e-6:
        return False
    circle[0] = (u * c - v * b) / det
    circle[1] = (v * a - u * b) / det
    r2 = (z - 2 * circle[0] * sx - 2 * circle[1] * sy) / n + circle[0] * circle[0] + circle[1] * circle[1]
    if r2 <= 0:
        return False
    circle[2] = sqrt(r2)
    return True


cdef void _add(double *m, double x, double y) noexcept nogil:
    cdef double z = x * x + y * y
    m[0] += x; m[1] += y; m[2] += x * x; m[3] += x * y; m[4] += y * y; m[5] += x * z; m[6] += y * z; m[7] += z; m[8] += 1


cdef int _inliers(const double[:, ::1] points, int n, const double *circle, double tolerance, double *m) noexcept nogil:
    """Points within `tolerance` of the circle; their sums for `_solve` in m when it is given."""
    cdef double inner = circle[2] - tolerance, outer = circle[2] + tolerance, dx, dy, d
    cdef int i, found = 0
    inner = inner * inner
    outer = outer * outer
    for i in range(n):
        dx = points[i, 0] - circle[0]
        dy = points[i, 1] - circle[1]
        d = dx * dx + dy * dy
        if inner <= d <= outer:
            found += 1
            if m != NULL:
                _add(m, points[i, 0], points[i, 1])
    return found


def fit_circle(const double[:, ::1] points, int n, int trials, double r_min, double r_max, double tolerance, double[::1] out):
    """The circle through three of the points with most others near it (RANSAC, fixed seed), refined by least squares."""
    cdef double m[9]
    cdef double circle[3]
    cdef uint32_t seed = 12345
    cdef int trial, i, k, found, most = 0
    with nogil:
        for trial in range(trials):
            memset(m, 0, sizeof(m))
            for k in range(3):
                seed = seed * <uint32_t>1664525 + <uint32_t>1013904223
                i = <int>((seed >> 8) % <uint32_t>n)
                _add(m, points[i, 0], points[i, 1])
            if not _solve(m, circle) or circle[2] < r_min or circle[2] > r_max:
                continue
            found = _inliers(points, n, circle, tolerance, NULL)
            if found > most:
                most = found
                memcpy(&out[0], circle, 3 * sizeof(double))
        for _ in range(3):
            if most < 3:
                break
            memset(m, 0, sizeof(m))
            memcpy(circle, &out[0], 3 * sizeof(double))
            _inliers(points, n, circle, tolerance, m)
            if not _solve(m, circle) or circle[2] < r_min or circle[2] > r_max:
                break
            memcpy(&out[0], circle, 3 * sizeof(double))
            most = _inliers(points, n, circle, tolerance, NULL)
    return most


def sectors(const double[:, ::1] points, int n, const double[::1] circle, double tolerance):
    """How many of sixteen sectors around the circle hold a point on it."""
    cdef uint32_t seen = 0
    cdef int i, sector, total = 0
    cdef double dx, dy, d
    with nogil:
        for i in range(n):
            dx = points[i, 0] - circle[0]
            dy = points[i, 1] - circle[1]
            d = sqrt(dx * dx + dy * dy)
            if fabs(d - circle[2]) > tolerance:
                continue
            sector = (8 if dx < 0 else 0) + (4 if dy < 0 else 0)
            dx = fabs(dx)
            dy = fabs(dy)
            if dy > dx:
                sector += 2
                dx, dy = dy, dx
            if dy > 0.41421356 * dx:
                sector += 1
            seen |= <uint32_t>1 << sector
        for i in range(16):
            total += <int>((seen >> i) & 1)
    return total
