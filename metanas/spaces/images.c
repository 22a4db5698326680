/* Convolutions of images, which have few channels, and their gradients by weight and bias: what
 * `metanas/spaces/images.py` says. Compiled by `metanas/native.py`, once for each type of number.
 *
 * Images are (n, h, w, c), weights (kernel, kernel, c, d) and maps (n, h, w, d), where d is a multiple of LANES.
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
#define INLINE static inline __attribute__((always_inline)) /* so that the sizes are constants where they are used */
#define LANES ((long)(sizeof(lanes) / sizeof(real)))

enum { AT_ONCE = 4, VECTORS = 2, LONGEST = 15 }; /* positions and vectors of channels; the most taps of a row */

typedef struct {
    long kernel;
    long n, h, w, c, d;
} Shape;

INLINE lanes load(const real *from) {
    lanes values;
    memcpy(&values, from, sizeof values);
    return values;
}

INLINE void store(real *to, lanes values) { memcpy(to, &values, sizeof values); }

/* How many numbers a row of a sample has with its borders. */
INLINE long padded_row(const Shape *s) { return (s->w + s->kernel - 1) * s->c; }

/* Memory for a sample with borders of zeros. */
static real *padded(const Shape *s) { return calloc((s->h + s->kernel - 1) * padded_row(s), sizeof(real)); }

static void pad(const Shape *s, const real *sample, real *to) {
    long border = s->kernel / 2, row = s->w * s->c;
    for (long i = 0; i < s->h; i++)
        memcpy(to + (i + border) * padded_row(s) + border * s->c, sample + i * row, row * sizeof(real));
}

/* Some positions of a row, in some vectors of channels; `from` is where the taps of the first one begin. */
INLINE void outputs(const Shape *s, int positions, int vectors, const real *from, const real *weight, const real *bias,
                    real *y) {
    lanes sums[AT_ONCE][VECTORS], none = {0};
#pragma GCC unroll 4
    for (int p = 0; p < positions; p++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) sums[p][v] = bias ? load(bias + v * LANES) : none;
    long taps = s->kernel * s->c;
    for (long i = 0; i < s->kernel; i++)
        for (long t = 0; t < taps; t++) {
            const real *row = from + i * padded_row(s) + t, *at = weight + (i * taps + t) * s->d;
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++) {
                lanes channels = load(at + v * LANES);
#pragma GCC unroll 4
                for (int p = 0; p < positions; p++) sums[p][v] += row[p * s->c] * channels;
            }
        }
#pragma GCC unroll 4
    for (int p = 0; p < positions; p++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) store(y + p * s->d + v * LANES, sums[p][v]);
}

/* A sample in some vectors of channels. */
INLINE void maps(const Shape *s, int vectors, const real *sample, const real *weight, const real *bias, real *y) {
    for (long i = 0; i < s->h; i++) {
        const real *row = sample + i * padded_row(s);
        real *to = y + i * s->w * s->d;
        long j = 0;
        for (; j + AT_ONCE <= s->w; j += AT_ONCE)
            outputs(s, AT_ONCE, vectors, row + j * s->c, weight, bias, to + j * s->d);
        for (; j < s->w; j++) outputs(s, 1, vectors, row + j * s->c, weight, bias, to + j * s->d);
    }
}

/* y of x, the weight and the bias, which may be null. */
EXPORT void forward(const Shape *s, const real *x, const real *weight, const real *bias, real *y) {
    real *sample = padded(s);
    for (long n = 0; n < s->n; n++, y += s->h * s->w * s->d) {
        pad(s, x + n * s->h * s->w * s->c, sample);
        long k = 0;
        for (; k + VECTORS * LANES <= s->d; k += VECTORS * LANES)
            maps(s, VECTORS, sample, weight + k, bias ? bias + k : 0, y + k);
        for (; k < s->d; k += LANES) maps(s, 1, sample, weight + k, bias ? bias + k : 0, y + k);
    }
    free(sample);
}

/* Adds what a sample gives to the gradient by a row of `taps` of the weight, in some vectors of channels. */
INLINE void by_row(const Shape *s, int taps, int vectors, const real *from, const real *g, real *weight) {
    lanes sums[LONGEST][VECTORS] = {{{0}}};
    for (long i = 0; i < s->h; i++)
        for (long j = 0; j < s->w; j++) {
            const real *at = from + i * padded_row(s) + j * s->c;
            const real *channels = g + (i * s->w + j) * s->d;
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++) {
                lanes gradient = load(channels + v * LANES);
#pragma GCC unroll 15
                for (int t = 0; t < taps; t++) sums[t][v] += at[t] * gradient;
            }
        }
#pragma GCC unroll 15
    for (int t = 0; t < taps; t++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) {
            real *to = weight + t * s->d + v * LANES;
            store(to, load(to) + sums[t][v]);
        }
}

/* The same for rows of each length that there is: of 1 or 3 channels, with a kernel of 3 x 3 or 5 x 5. */
static void by_rows(const Shape *s, const real *sample, const real *g, real *weight) {
    long taps = s->kernel * s->c;
    for (long i = 0; i < s->kernel; i++) {
        const real *from = sample + i * padded_row(s);
        real *to = weight + i * taps * s->d;
        long k = 0;
        for (; taps < 9 && k + VECTORS * LANES <= s->d; k += VECTORS * LANES) {
            if (taps == 3) by_row(s, 3, VECTORS, from, g + k, to + k);
            else by_row(s, 5, VECTORS, from, g + k, to + k);
        }
        for (; k < s->d; k += LANES) {
            if (taps == 3) by_row(s, 3, 1, from, g + k, to + k);
            else if (taps == 5) by_row(s, 5, 1, from, g + k, to + k);
            else if (taps == 9) by_row(s, 9, 1, from, g + k, to + k);
            else by_row(s, 15, 1, from, g + k, to + k);
        }
    }
}

/* Adds to the gradients by weight and bias (d), of x and that by y. */
EXPORT void by_weight(const Shape *s, const real *x, const real *g, real *weight, real *bias) {
    real *sample = padded(s);
    for (long n = 0; n < s->n; n++, g += s->h * s->w * s->d) {
        pad(s, x + n * s->h * s->w * s->c, sample);
        by_rows(s, sample, g, weight);
        for (long k = 0; k < s->d; k += LANES) {
            lanes sum = {0};
            for (long i = 0; i < s->h * s->w; i++) sum += load(g + i * s->d + k);
            store(bias + k, load(bias + k) + sum);
        }
    }
    free(sample);
}
