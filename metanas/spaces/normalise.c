/* Max pooling, normalisation by mixed moments and ReLU in one pass over memory: what `metanas/spaces/fused.py` says in
 * tensors; and at the end what its gradients' gradients are made of. Compiled by `metanas/native.py`, once for each type
 * of number.
 *
 * Maps are (n, h, w, c), channels last. A window of pooling is 2 x 2; those at the lower and right border may be cut.
 * Sums are kept in `real`.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef BFLOAT16
typedef uint16_t stored;
typedef float real;

static inline real load(stored value) {
    uint32_t bits = (uint32_t)value << 16;
    real result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

/* To the nearest, ties to even; a NaN stays one, as what arithmetic makes of it has no bits to carry. */
static inline stored store(real value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (stored)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
#else
typedef REAL stored;
typedef REAL real;

static inline real load(stored value) { return value; }
static inline stored store(real value) { return value; }
#endif

#if defined(__GNUC__) && defined(__x86_64__) && !defined(__clang__)
#pragma GCC target("prefer-vector-width=512") /* where there are vectors of 512 bits: gcc prefers 256 */
#endif

#define EXPORT __attribute__((visibility("default")))

typedef struct {
    long n, h, w, c;           /* of x */
    long oh, ow;               /* of what pooling leaves; h and w where there is none */
    long groups, reference;    /* of channels; rows of the support set */
    int pooled, relu;
    double share, eps;         /* of the support set's moments in the mixture */
} Shape;

/* One sample: the largest of each window, and its place in the window (0 to 3). */
static void pool(const Shape *s, const stored *restrict x, stored *restrict p, uint8_t *restrict place) {
    long c = s->c;
    for (long i = 0; i < s->oh; i++)
        for (long j = 0; j < s->ow; j++) {
            const stored *a = x + (2 * i * s->w + 2 * j) * c;
            /* Beyond the border the window repeats its first column or row: that is never larger. */
            long right = 2 * j + 1 < s->w ? c : 0, down = 2 * i + 1 < s->h ? s->w * c : 0;
            const stored *b = a + right, *d = a + down, *e = a + down + right;
            stored *to = p + (i * s->ow + j) * c;
            uint8_t *where = place + (i * s->ow + j) * c;
            for (long k = 0; k < c; k++) {
                real best = load(a[k]), v;
                int32_t at = 0;
                v = load(b[k]); at = (v > best || v != v) ? 1 : at; best = (v > best || v != v) ? v : best;
                v = load(d[k]); at = (v > best || v != v) ? 2 : at; best = (v > best || v != v) ? v : best;
                v = load(e[k]); at = (v > best || v != v) ? 3 : at; best = (v > best || v != v) ? v : best;
                to[k] = store(best);
                where[k] = (uint8_t)at;
            }
        }
}

static void sums(const Shape *s, const stored *restrict p, real *restrict sum, real *restrict square) {
    long positions = s->oh * s->ow, c = s->c;
    memset(sum, 0, c * sizeof(real));
    memset(square, 0, c * sizeof(real));
    for (long i = 0; i < positions; i++)
        for (long k = 0; k < c; k++) {
            real v = load(p[i * c + k]);
            sum[k] += v;
            square[k] += v * v;
        }
}

/* Of sums over positions (c) the means over groups of channels and positions, weighed by what `support` leaves, whose part
 * is added where it is not null. What this does to moments it does, without `support`, to the gradient by them. */
static void mix(const Shape *s, const real *sums, const real *support, real *out) {
    long width = s->c / s->groups;
    double positions = (double)(s->oh * s->ow) * width;
    for (long g = 0; g < s->groups; g++) {
        double total = 0;
        for (long k = g * width; k < (g + 1) * width; k++) total += sums[k];
        for (long k = g * width; k < (g + 1) * width; k++)
            out[k] = (real)((1 - s->share) * total / positions + (support ? s->share * support[k] : 0));
    }
}

static void apply(const Shape *s, const stored *restrict p, const real *restrict scale, const real *restrict shift,
                  stored *restrict y) {
    long positions = s->oh * s->ow, c = s->c;
    real least = s->relu ? 0 : -INFINITY;
    for (long i = 0; i < positions; i++)
        for (long k = 0; k < c; k++) {
            real v = load(p[i * c + k]) * scale[k] + shift[k];
            y[i * c + k] = store(v < least ? least : v);
        }
}

/* `support` holds first and second moments (2, c), which are filled where `reference` is not 0; `moments` (2, n, c) and
 * `scale` (n, c) are what the gradient needs. */
EXPORT void forward(const Shape *s, const stored *x, const real *weight, const real *bias, stored *p, uint8_t *place,
                    stored *y, real *support, real *moments, real *scale) {
    long c = s->c, from = s->h * s->w * c, to = s->oh * s->ow * c;
    real *first = moments, *second = moments + s->n * c, *shift = malloc(c * sizeof(real));
    int two_passes = s->share > 0 && s->reference;
    for (long n = 0; n < s->n; n++) {
        if (s->pooled) pool(s, x + n * from, p + n * to, place + n * to);
        sums(s, (s->pooled ? p : x) + n * to, first + n * c, second + n * c);
        if (two_passes && n + 1 < s->n) continue;
        if (two_passes) {
            double positions = (double)(s->oh * s->ow) * s->reference;
            for (long k = 0; k < c; k++) {
                double one = 0, two = 0;
                for (long m = 0; m < s->reference; m++) one += first[m * c + k], two += second[m * c + k];
                support[k] = (real)(one / positions), support[c + k] = (real)(two / positions);
            }
        }
        for (long m = two_passes ? 0 : n; m <= n; m++) {
            mix(s, first + m * c, s->share > 0 ? support : 0, first + m * c);
            mix(s, second + m * c, s->share > 0 ? support + c : 0, second + m * c);
            for (long k = 0; k < c; k++) {
                real mean = first[m * c + k], variance = second[m * c + k] - mean * mean;
                scale[m * c + k] = weight[k] / (real)sqrt((variance > 0 ? variance : 0) + s->eps);
                shift[k] = bias[k] - mean * scale[m * c + k];
            }
            apply(s, (s->pooled ? p : x) + m * to, scale + m * c, shift, y + m * to);
        }
    }
    free(shift);
}

/* The sums over positions of the gradient by shift, and by scale. */
static void gather(const Shape *s, const stored *restrict grad, const stored *restrict y, const stored *restrict p,
                   real *restrict by_shift, real *restrict by_scale) {
    long positions = s->oh * s->ow, c = s->c;
    real least = s->relu ? 0 : -INFINITY;
    memset(by_shift, 0, c * sizeof(real));
    memset(by_scale, 0, c * sizeof(real));
    for (long i = 0; i < positions; i++)
        for (long k = 0; k < c; k++) {
            real v = load(grad[i * c + k]), g = load(y[i * c + k]) > least ? v : 0;
            by_shift[k] += g;
            by_scale[k] += g * load(p[i * c + k]);
        }
}

/* One position: the gradient by what pooling left. `extra` is what comes by another way than y, or null. */
static inline void through(const Shape *s, const stored *restrict grad, const stored *restrict y,
                           const stored *restrict p, const stored *restrict extra, const real *restrict scale,
                           const real *restrict by_sum, const real *restrict by_square, stored *restrict out) {
    real least = s->relu ? 0 : -INFINITY;
    for (long k = 0; k < s->c; k++) {
        real v = load(grad[k]), g = load(y[k]) > least ? v : 0;
        out[k] = store(g * scale[k] + by_sum[k] + 2 * load(p[k]) * by_square[k]);
    }
    if (extra)
        for (long k = 0; k < s->c; k++) out[k] = store(load(out[k]) + load(extra[k]));
}

/* A position of x: the gradient where it is the `corner` of a window that was the largest, else 0. */
static inline void put(const stored *restrict row, const uint8_t *restrict place, uint8_t corner, long c,
                       stored *restrict x) {
    for (long k = 0; k < c; k++) {
        stored value = row[k];
        x[k] = place[k] == corner ? value : 0;
    }
}

/* One sample: to the place that was the largest of its window goes the gradient, to the others 0. */
static void scatter(const Shape *s, const stored *grad, const stored *y, const stored *p, const stored *extra,
                    const uint8_t *place, const real *scale, const real *by_sum, const real *by_square,
                    stored *row, stored *x) {
    long c = s->c;
    if (s->pooled && (2 * s->oh < s->h || 2 * s->ow < s->w)) memset(x, 0, s->h * s->w * c * sizeof(stored));
    for (long i = 0; i < s->oh; i++)
        for (long j = 0; j < s->ow; j++) {
            long at = (i * s->ow + j) * c;
            stored *to = s->pooled ? row : x + at;
            through(s, grad + at, y + at, p + at, extra ? extra + at : 0, scale, by_sum, by_square, to);
            for (int corner = 0; s->pooled && corner < 4; corner++) {
                long up = 2 * i + corner / 2, left = 2 * j + corner % 2;
                if (up < s->h && left < s->w) put(row, place + at, (uint8_t)corner, c, x + (up * s->w + left) * c);
            }
        }
}

/* `p` is x where nothing was pooled. Adds to the gradients of weight and bias (c). */
EXPORT void backward(const Shape *s, const stored *grad, const stored *y, const stored *p, const stored *extra,
                     const uint8_t *place, const real *weight, const real *moments, const real *scale,
                     stored *by_x, double *by_weight, double *by_bias) {
    long c = s->c, from = s->h * s->w * c, to = s->oh * s->ow * c;
    const real *first = moments, *second = moments + s->n * c;
    real *memory = calloc(2 * s->n * c + 6 * c, sizeof(real));
    real *by_first = memory, *by_second = by_first + s->n * c, *support = by_second + s->n * c;
    real *by_shift = support + 2 * c, *by_scale = by_shift + c, *by_sum = by_scale + c, *by_square = by_sum + c;
    stored *row = malloc(c * sizeof(stored));
    int two_passes = s->share > 0 && s->reference;
    for (long n = 0; n < s->n; n++) {
        gather(s, grad + n * to, y + n * to, p + n * to, by_shift, by_scale);
        for (long k = 0; k < c; k++) {
            real mean = first[n * c + k], variance = second[n * c + k] - mean * mean;
            double inverse = 1 / sqrt((variance > 0 ? variance : 0) + s->eps);
            double by_normalised = (double)by_scale[k] - (double)by_shift[k] * mean;
            by_bias[k] += by_shift[k];
            by_weight[k] += by_normalised * inverse;
            double by_variance = variance > 0 ? -0.5 * inverse * inverse * inverse * weight[k] * by_normalised : 0;
            by_first[n * c + k] = (real)(-(double)by_shift[k] * scale[n * c + k] - 2 * mean * by_variance);
            by_second[n * c + k] = (real)by_variance;
        }
        if (two_passes)
            for (long k = 0; k < c; k++) {
                support[k] += by_first[n * c + k];
                support[c + k] += by_second[n * c + k];
            }
        if (two_passes && n + 1 < s->n) continue;
        for (long m = two_passes ? 0 : n; m <= n; m++) {
            mix(s, by_first + m * c, 0, by_sum);
            mix(s, by_second + m * c, 0, by_square);
            if (two_passes && m < s->reference) {
                double part = s->share / ((double)(s->oh * s->ow) * s->reference);
                for (long k = 0; k < c; k++) {
                    by_sum[k] += (real)(part * support[k]);
                    by_square[k] += (real)(part * support[c + k]);
                }
            }
            scatter(s, grad + m * to, y + m * to, p + m * to, extra ? extra + m * to : 0, place + m * to,
                    scale + m * c, by_sum, by_square, row, by_x + m * from);
        }
    }
    free(row);
    free(memory);
}

/* What gradients of gradients are made of (`metanas/spaces/maps.py`), over maps (n, positions, c) and coefficients
 * (n, c). */

/* p * u + q * v + s; v with q may be null, and so may s. */
EXPORT void affine(long n, long positions, long c, const stored *u, const stored *v, const real *p, const real *q,
                   const real *s, stored *restrict out) {
    real *none = s ? 0 : calloc(c, sizeof(real));
    for (long m = 0; m < n; m++) {
        const real *restrict a = p + m * c, *restrict b = v ? q + m * c : 0, *restrict d = s ? s + m * c : none;
        for (long i = m * positions; i < (m + 1) * positions; i++) {
            const stored *restrict one = u + i * c, *restrict two = v ? v + i * c : 0;
            stored *restrict to = out + i * c;
            if (v)
                for (long k = 0; k < c; k++) to[k] = store(a[k] * load(one[k]) + b[k] * load(two[k]) + d[k]);
            else
                for (long k = 0; k < c; k++) to[k] = store(a[k] * load(one[k]) + d[k]);
        }
    }
    free(none);
}

/* Sums over positions of g, of g * u and, unless v is null, of g * v: out (2 or 3, n, c). */
EXPORT void products(long n, long positions, long c, const stored *g, const stored *u, const stored *v,
                     real *restrict out) {
    memset(out, 0, (v ? 3 : 2) * n * c * sizeof(real));
    for (long m = 0; m < n; m++) {
        real *restrict sum = out + m * c, *restrict first = sum + n * c, *restrict second = first + n * c;
        for (long i = m * positions; i < (m + 1) * positions; i++) {
            const stored *one = g + i * c, *two = u + i * c, *three = v ? v + i * c : 0;
            for (long k = 0; k < c; k++) {
                real value = load(one[k]);
                sum[k] += value;
                first[k] += value * load(two[k]);
            }
            if (v)
                for (long k = 0; k < c; k++) second[k] += load(one[k]) * load(three[k]);
        }
    }
}

/* Maps (n, h, w, c) with at each window's largest place what `left` (n, oh, ow, c) has for it, else 0. */
EXPORT void spread(long n, long h, long w, long c, long oh, long ow, const stored *left, const uint8_t *place,
                   stored *x) {
    if (2 * oh < h || 2 * ow < w) memset(x, 0, n * h * w * c * sizeof(stored));
    for (long at = 0; at < n * oh * ow; at++)
        for (int corner = 0; corner < 4; corner++) {
            long up = 2 * (at / ow % oh) + corner / 2, along = 2 * (at % ow) + corner % 2;
            if (up < h && along < w)
                put(left + at * c, place + at * c, (uint8_t)corner, c, x + ((at / (oh * ow) * h + up) * w + along) * c);
        }
}

/* The other way: of maps (n, h, w, c) what lies at each window's largest place. */
EXPORT void pick(long n, long h, long w, long c, long oh, long ow, const stored *x, const uint8_t *place,
                 stored *restrict left) {
    for (long at = 0; at < n * oh * ow; at++) {
        long i = at / ow % oh, j = at % ow;
        const stored *a = x + ((at / (oh * ow) * h + 2 * i) * w + 2 * j) * c;
        /* Beyond the border, where no place is, something that can be read. */
        long right = 2 * j + 1 < w ? c : 0, down = 2 * i + 1 < h ? w * c : 0;
        const stored *b = a + right, *d = a + down, *e = a + down + right;
        const uint8_t *restrict where = place + at * c;
        stored *restrict to = left + at * c;
        for (long k = 0; k < c; k++) {
            stored upper = where[k] & 1 ? b[k] : a[k], lower = where[k] & 1 ? e[k] : d[k];
            to[k] = where[k] & 2 ? lower : upper;
        }
    }
}
