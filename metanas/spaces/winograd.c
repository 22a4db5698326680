/* Winograd's convolution for kernels of 3 x 3 and 5 x 5, and its gradients: what `metanas/spaces/winograd.py`
 * says. Compiled by `metanas/native.py`, once for each type of number.
 *
 * A map (n, h, w, c), channels last, is cut into tiles of 4 x 4, the last ones beyond its border. To a tile belong
 * (kernel + 3)^2 points; those of `count` tiles lie as (points, count, c). Weights are (d, kernel, kernel, c), at their
 * points (points, c, d) or (points, d, c). Channels are a multiple of LANES.
 */
#include <stdlib.h>
#include <string.h>

#ifdef __AVX512F__
enum { BYTES = 64 };
#else
enum { BYTES = 32 };
#endif
typedef REAL real;
typedef real lanes __attribute__((vector_size(BYTES)));

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline)) /* so that the matrices are constants where they are used */
#define LANES ((long)(sizeof(lanes) / sizeof(real)))

enum { SIDE = 4, MOST = 8, ROWS = 6, AT_ONCE = 6 * ROWS }; /* tiles at once: their points stay in the cache */

/* Of interpolation at 0, 1, -1, 2, -2 and infinity, and for 5 x 5 at 1/2 and -1/2 too: B is what inputs are multiplied
 * with, G what weights are, and A what gives outputs. */
static const real B3[6][6] = {
    {4, 0, -5, 0, 1, 0},  {0, -4, -4, 1, 1, 0}, {0, 4, -4, -1, 1, 0},
    {0, -2, -1, 2, 1, 0}, {0, 2, -1, -2, 1, 0}, {0, 4, 0, -5, 0, 1},
};
static const real G3[6][3] = {
    {1. / 4, 0, 0},           {-1. / 6, -1. / 6, -1. / 6}, {-1. / 6, 1. / 6, -1. / 6},
    {1. / 24, 1. / 12, 1. / 6}, {1. / 24, -1. / 12, 1. / 6}, {0, 0, 1},
};
static const real A3[SIDE][6] = {
    {1, 1, 1, 1, 1, 0},
    {0, 1, -1, 2, -2, 0},
    {0, 1, 1, 4, 4, 0},
    {0, 1, -1, 8, -8, 1},
};
static const real B5[8][8] = {
    {-1, 0, 5.25, 0, -5.25, 0, 1, 0},  {0, 1, 1, -4.25, -4.25, 1, 1, 0}, {0, -1, 1, 4.25, -4.25, -1, 1, 0},
    {0, .5, .25, -2.5, -1.25, 2, 1, 0}, {0, -.5, .25, 2.5, -1.25, -2, 1, 0}, {0, 2, 4, -2.5, -5, .5, 1, 0},
    {0, -2, 4, 2.5, -5, -.5, 1, 0},    {0, -1, 0, 5.25, 0, -5.25, 0, 1},
};
static const real G5[8][5] = {
    {-1, 0, 0, 0, 0},
    {-2. / 9, -2. / 9, -2. / 9, -2. / 9, -2. / 9},
    {-2. / 9, 2. / 9, -2. / 9, 2. / 9, -2. / 9},
    {1. / 90, 1. / 45, 2. / 45, 4. / 45, 8. / 45},
    {1. / 90, -1. / 45, 2. / 45, -4. / 45, 8. / 45},
    {32. / 45, 16. / 45, 8. / 45, 4. / 45, 2. / 45},
    {32. / 45, -16. / 45, 8. / 45, -4. / 45, 2. / 45},
    {0, 0, 0, 0, 1},
};
static const real A5[SIDE][8] = {
    {1, 1, 1, 1, 1, 1, 1, 0},
    {0, 1, -1, 2, -2, .5, -.5, 0},
    {0, 1, 1, 4, 4, .25, .25, 0},
    {0, 1, -1, 8, -8, .125, -.125, 1},
};

typedef struct {
    long kernel;
    long n, h, w, c, d; /* of maps: x has c channels, y has d */
} Shape;

typedef struct {
    long h, w;        /* of a map */
    long down, along; /* how many tiles a sample has */
    long from, count; /* which of all samples' tiles */
} Tiles;

typedef struct {
    const real *entries;
    int row, column; /* strides, so that a transposed one is the same numbers */
    int rows, columns;
} Matrix;

INLINE lanes load(const real *from) {
    lanes values;
    __builtin_memcpy(&values, from, sizeof values);
    return values;
}

INLINE void store(real *to, lanes values) { __builtin_memcpy(to, &values, sizeof values); }

/* A row of m times a column of numbers that lie `stride` apart. What is 0 is left out when compiled. */
INLINE lanes product(Matrix m, int row, const lanes *numbers, int stride) {
    lanes sum = {0};
#pragma GCC unroll 8
    for (int k = 0; k < m.columns; k++) {
        real entry = m.entries[row * m.row + k * m.column];
        if (entry != 0) sum += entry * numbers[k * stride];
    }
    return sum;
}

/* m in m', all of MOST x MOST numbers or fewer. */
INLINE void transform(Matrix m, lanes in[MOST][MOST], lanes out[MOST][MOST]) {
    lanes half[MOST][MOST];
#pragma GCC unroll 8
    for (int i = 0; i < m.rows; i++)
#pragma GCC unroll 8
        for (int j = 0; j < m.columns; j++) half[i][j] = product(m, i, &in[0][j], MOST);
#pragma GCC unroll 8
    for (int i = 0; i < m.rows; i++)
#pragma GCC unroll 8
        for (int j = 0; j < m.rows; j++) out[i][j] = product(m, j, half[i], 1);
}

/* Where tile t begins in its sample: a row and a column. */
INLINE long row_of(const Tiles *s, long t) { return t / s->along % s->down * SIDE; }
INLINE long column_of(const Tiles *s, long t) { return t % s->along * SIDE; }

/* From a map of c channels to points. A tile reaches `border` beyond its upper left corner; beyond the map is 0. */
INLINE void to_points(const Tiles *s, long c, Matrix m, long border, const real *map, real *points) {
    for (long t = s->from; t < s->from + s->count; t++) {
        long up = row_of(s, t) - border, left = column_of(s, t) - border;
        const real *sample = map + t / (s->down * s->along) * s->h * s->w * c;
        for (long k = 0; k < c; k += LANES) {
            lanes in[MOST][MOST], out[MOST][MOST], none = {0};
            for (long i = 0; i < m.columns; i++)
                for (long j = 0; j < m.columns; j++) {
                    long y = up + i, x = left + j;
                    int within = y >= 0 && y < s->h && x >= 0 && x < s->w;
                    in[i][j] = within ? load(sample + (y * s->w + x) * c + k) : none;
                }
            transform(m, in, out);
            for (long i = 0; i < m.rows; i++)
                for (long j = 0; j < m.rows; j++)
                    store(points + ((i * m.rows + j) * s->count + t - s->from) * c + k, out[i][j]);
        }
    }
}

/* From points to a map of c channels. */
INLINE void to_map(const Tiles *s, long c, Matrix m, const real *points, real *map) {
    for (long t = s->from; t < s->from + s->count; t++) {
        long up = row_of(s, t), left = column_of(s, t);
        real *sample = map + t / (s->down * s->along) * s->h * s->w * c;
        for (long k = 0; k < c; k += LANES) {
            lanes in[MOST][MOST], out[MOST][MOST];
            for (long i = 0; i < m.columns; i++)
                for (long j = 0; j < m.columns; j++)
                    in[i][j] = load(points + ((i * m.columns + j) * s->count + t - s->from) * c + k);
            transform(m, in, out);
            for (long i = 0; i < m.rows && up + i < s->h; i++)
                for (long j = 0; j < m.rows && left + j < s->w; j++)
                    store(sample + ((up + i) * s->w + left + j) * c + k, out[i][j]);
        }
    }
}

INLINE void inputs(const Tiles *s, long kernel, long c, const real *map, real *points) {
    if (kernel == 3) to_points(s, c, (Matrix){B3[0], 6, 1, 6, 6}, 1, map, points);
    else to_points(s, c, (Matrix){B5[0], 8, 1, 8, 8}, 2, map, points);
}

INLINE void outputs(const Tiles *s, long kernel, long c, const real *points, real *map) {
    if (kernel == 3) to_map(s, c, (Matrix){A3[0], 6, 1, SIDE, 6}, points, map);
    else to_map(s, c, (Matrix){A5[0], 8, 1, SIDE, 8}, points, map);
}

/* The other way round: from the gradient by outputs to that by their points. */
INLINE void gradients(const Tiles *s, long kernel, long c, const real *map, real *points) {
    if (kernel == 3) to_points(s, c, (Matrix){A3[0], 1, 6, 6, SIDE}, 0, map, points);
    else to_points(s, c, (Matrix){A5[0], 1, 8, 8, SIDE}, 0, map, points);
}

/* LANES numbers that lie `stride` apart. */
INLINE lanes gather(const real *from, long stride) {
    lanes values;
#pragma GCC unroll 16
    for (long i = 0; i < LANES; i++) values[i] = from[i * stride];
    return values;
}

/* Of a weight to its points (points, c, d); or turned by half a circle, as gradients go back, to (points, d, c). */
INLINE void weight_to_points(const Shape *s, Matrix m, int turned, const real *weight, real *points) {
    long size = m.columns * m.columns, outer = turned ? s->d : s->c, inner = turned ? s->c : s->d;
    for (long k = 0; k < inner; k += LANES)
        for (long o = 0; o < outer; o++) {
            lanes in[MOST][MOST], out[MOST][MOST];
            for (long i = 0; i < m.columns; i++)
                for (long j = 0; j < m.columns; j++) {
                    long at = i * m.columns + j;
                    in[i][j] = turned ? load(weight + (o * size + size - 1 - at) * s->c + k)
                                      : gather(weight + (k * size + at) * s->c + o, size * s->c);
                }
            transform(m, in, out);
            for (long i = 0; i < m.rows; i++)
                for (long j = 0; j < m.rows; j++) store(points + ((i * m.rows + j) * outer + o) * inner + k, out[i][j]);
        }
}

/* The gradient by a weight, of that by its points (points, d, c). */
INLINE void weight_from_points(const Shape *s, Matrix m, const real *points, real *weight) {
    for (long o = 0; o < s->d; o++)
        for (long k = 0; k < s->c; k += LANES) {
            lanes in[MOST][MOST], out[MOST][MOST];
            for (long i = 0; i < m.columns; i++)
                for (long j = 0; j < m.columns; j++)
                    in[i][j] = load(points + ((i * m.columns + j) * s->d + o) * s->c + k);
            transform(m, in, out);
            for (long i = 0; i < m.rows; i++)
                for (long j = 0; j < m.rows; j++) store(weight + ((o * m.rows + i) * m.rows + j) * s->c + k, out[i][j]);
        }
}

/* A weight at its points, which `forward` takes. */
EXPORT void weight_points(const Shape *s, const real *weight, real *points) {
    if (s->kernel == 3) weight_to_points(s, (Matrix){G3[0], 3, 1, 6, 3}, 0, weight, points);
    else weight_to_points(s, (Matrix){G5[0], 5, 1, 8, 5}, 0, weight, points);
}

/* Those of the weight turned, which `by_input` takes. */
EXPORT void turned_points(const Shape *s, const real *weight, real *points) {
    if (s->kernel == 3) weight_to_points(s, (Matrix){G3[0], 3, 1, 6, 3}, 1, weight, points);
    else weight_to_points(s, (Matrix){G5[0], 5, 1, 8, 5}, 1, weight, points);
}

static void weight_gradients(const Shape *s, const real *points, real *weight) {
    if (s->kernel == 3) weight_from_points(s, (Matrix){G3[0], 1, 3, 3, 6}, points, weight);
    else weight_from_points(s, (Matrix){G5[0], 1, 5, 5, 8}, points, weight);
}

typedef struct {
    const real *entries;
    long row, column; /* strides */
} Left;

/* `rows` rows and `vectors` vectors of columns of a product, b and out having `width` columns; added to what is there. */
INLINE void block(int rows, int vectors, long inner, Left a, const real *b, long width, real *out, int adds) {
    lanes sums[ROWS][2], none = {0};
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) sums[i][j] = adds ? load(out + i * width + j * LANES) : none;
    for (long k = 0; k < inner; k++) {
        lanes row[2];
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) row[j] = load(b + k * width + j * LANES);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++) sums[i][j] += a.entries[i * a.row + k * a.column] * row[j];
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) store(out + i * width + j * LANES, sums[i][j]);
}

/* Blocks one below the other: of six rows, and of what is left. */
INLINE void strip(long rows, int vectors, long inner, Left a, const real *b, long width, real *out, int adds) {
    for (; rows >= ROWS; rows -= ROWS, a.entries += ROWS * a.row, out += ROWS * width)
        block(ROWS, vectors, inner, a, b, width, out, adds);
    for (; rows >= 2; rows -= 2, a.entries += 2 * a.row, out += 2 * width)
        block(2, vectors, inner, a, b, width, out, adds);
    if (rows) block(1, vectors, inner, a, b, width, out, adds);
}

/* out (rows, width) = a (rows, inner) b (inner, width), or added to it. */
static void multiply(long rows, long inner, long width, Left a, const real *b, real *out, int adds) {
    long j = 0;
    for (; j + 2 * LANES <= width; j += 2 * LANES) strip(rows, 2, inner, a, b + j, width, out + j, adds);
    if (j < width) strip(rows, 1, inner, a, b + j, width, out + j, adds);
}

INLINE long points_of(const Shape *s) { return (s->kernel + SIDE - 1) * (s->kernel + SIDE - 1); }

/* The tiles from one on; none are left where `count` is 0. */
INLINE Tiles next(const Shape *s, long from) {
    long down = (s->h + SIDE - 1) / SIDE, along = (s->w + SIDE - 1) / SIDE, left = s->n * down * along - from;
    return (Tiles){s->h, s->w, down, along, from, left < AT_ONCE ? left : AT_ONCE};
}

/* Memory for the points of tiles of x and then of y. */
static real *points_for(const Shape *s) { return malloc(points_of(s) * AT_ONCE * (s->c + s->d) * sizeof(real)); }

/* `to` (n, h, w, b) of `from` (n, h, w, a) and a weight at its points, u (points, a, b). */
static void convolve(const Shape *s, long a, long b, const real *from, const real *u, real *to) {
    real *v = points_for(s);
    for (Tiles t = next(s, 0); t.count; t = next(s, t.from + t.count)) {
        real *m = v + points_of(s) * t.count * a;
        inputs(&t, s->kernel, a, from, v);
        for (long p = 0; p < points_of(s); p++)
            multiply(t.count, a, b, (Left){v + p * t.count * a, a, 1}, u + p * a * b, m + p * t.count * b, 0);
        outputs(&t, s->kernel, b, m, to);
    }
    free(v);
}

/* y (n, h, w, d) of x (n, h, w, c) and the weight's points. */
EXPORT void forward(const Shape *s, const real *x, const real *u, real *y) { convolve(s, s->c, s->d, x, u, y); }

/* The gradient by x, of that by y, g (n, h, w, d), and the weight's points, turned. */
EXPORT void by_input(const Shape *s, const real *g, const real *u, real *x) { convolve(s, s->d, s->c, g, u, x); }

/* The gradient by the weight, of x and g; u has room for its points. */
EXPORT void by_weight(const Shape *s, const real *x, const real *g, real *u, real *weight) {
    long c = s->c, d = s->d;
    real *v = points_for(s);
    memset(u, 0, points_of(s) * c * d * sizeof(real));
    for (Tiles t = next(s, 0); t.count; t = next(s, t.from + t.count)) {
        real *m = v + points_of(s) * t.count * c;
        inputs(&t, s->kernel, c, x, v);
        gradients(&t, s->kernel, d, g, m);
        for (long p = 0; p < points_of(s); p++)
            multiply(d, t.count, c, (Left){m + p * t.count * d, 1, d}, v + p * t.count * c, u + p * c * d, 1);
    }
    weight_gradients(s, u, weight);
    free(v);
}
