/* Max pooling, normalisation by mixed moments and ReLU in one pass over memory: what `metanas/spaces/fused.py` says in
 * tensors, with its gradients and theirs. Compiled by `metanas/native.py`, once for each type of number.
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
 * is added where it is not null. */
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

/* Back through that: of the gradient by what sample m was normalised with (c) that by its sums over positions. `support`
 * (c) is the sum of that gradient over the samples. */
static void mix_back(const Shape *s, long m, const real *by, const real *support, real *out) {
    mix(s, by, 0, out);
    if (s->share > 0 && m < s->reference) {
        double part = s->share / ((double)(s->oh * s->ow) * s->reference);
        for (long k = 0; k < s->c; k++) out[k] += (real)(part * support[k]);
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
                real mean = first[m * c + k], square = second[m * c + k];
                real variance = isfinite(square) ? square - mean * mean : NAN;  // of overflow nothing is known
                scale[m * c + k] = weight[k] / (real)sqrt((variance < 0 ? 0 : variance) + s->eps);
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
            mix_back(s, m, by_first + m * c, support, by_sum);
            mix_back(s, m, by_second + m * c, support + c, by_square);
            scatter(s, grad + m * to, y + m * to, p + m * to, extra ? extra + m * to : 0, place + m * to,
                    scale + m * c, by_sum, by_square, row, by_x + m * from);
        }
    }
    free(row);
    free(memory);
}

/* Of a map (n, h, w, c) what lies at each window's largest place. */
EXPORT void pick(const Shape *s, const stored *x, const uint8_t *place, stored *restrict left) {
    long h = s->h, w = s->w, c = s->c;
    for (long at = 0; at < s->n * s->oh * s->ow; at++) {
        long i = at / s->ow % s->oh, j = at % s->ow;
        const stored *a = x + ((at / (s->oh * s->ow) * h + 2 * i) * w + 2 * j) * c;
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

/* One sample: the sums over positions of h, 2 h p, h g, g and g p, where g is the gradient by y before the ReLU. */
static void contract(const Shape *s, const stored *restrict h, const stored *restrict grad, const stored *restrict y,
                     const stored *restrict p, real *restrict h_sum, real *restrict h_p, real *restrict h_grad,
                     real *restrict by_shift, real *restrict by_scale) {
    long positions = s->oh * s->ow, c = s->c;
    real least = s->relu ? 0 : -INFINITY;
    for (long i = 0; i < positions; i++)
        for (long k = 0; k < c; k++) {
            real v = load(grad[i * c + k]), g = load(y[i * c + k]) > least ? v : 0;
            real one = load(h[i * c + k]), at = load(p[i * c + k]);
            h_sum[k] += one;
            h_p[k] += 2 * one * at;
            h_grad[k] += one * g;
            by_shift[k] += g;
            by_scale[k] += g * at;
        }
}

/* One sample: the gradients by `backward`'s grad and by p, from coefficients (c). */
static void compose(const Shape *s, const stored *restrict h, const stored *restrict grad, const stored *restrict y,
                    const stored *restrict p, const real *restrict scale, const real *restrict cross,
                    const real *restrict constant, const real *restrict by_square, const real *restrict by_first,
                    const real *restrict by_second, stored *restrict by_grad, stored *restrict by_p) {
    long positions = s->oh * s->ow, c = s->c;
    real least = s->relu ? 0 : -INFINITY;
    for (long i = 0; i < positions; i++)
        for (long k = 0; k < c; k++) {
            real v = load(grad[i * c + k]), one = load(h[i * c + k]), at = load(p[i * c + k]);
            int passes = load(y[i * c + k]) > least;
            real g = passes ? v : 0, by_g = scale[k] * one + cross[k] * at + constant[k];
            by_grad[i * c + k] = store(passes ? by_g : 0);
            by_p[i * c + k] = store(cross[k] * g + 2 * (by_square[k] * one + by_second[k] * at) + by_first[k]);
        }
}

/* The gradients of `backward`'s gradients, where h (n, oh, ow, c) comes to that by p, and u and v (c) to those by weight
 * and bias. Adds to `by_weight` (c).
 *
 * They are those of the sum over samples and channels of
 *     weight r (hg - a h0) + b (hp - 2 mean h0) + u r z + v a, with b = -1/2 weight r^3 z
 * where r is one over the deviation, a and d are the sums of g and of g p, z is d - mean a, hg is the sum of h g, and h0
 * and hp are what `mix` makes of the sums of h and of 2 h p. */
EXPORT void second(const Shape *s, const stored *h, const stored *grad, const stored *y, const stored *p,
                   const real *weight, const real *moments, const real *scale, const real *u, const real *v,
                   stored *by_grad, stored *by_p, double *by_weight) {
    long c = s->c, all = s->n * c, to = s->oh * s->ow * c;
    const real *first = moments, *second = moments + all;
    real *memory = calloc(10 * all + 8 * c, sizeof(real));
    real *h_sum = memory, *h_p = h_sum + all, *h_grad = h_p + all, *by_shift = h_grad + all, *by_scale = by_shift + all;
    real *cross = by_scale + all, *constant = cross + all;
    real *by_square = constant + all, *by_first = by_square + all, *by_second = by_first + all;
    real *support = by_second + all, *mixed = support + 5 * c;
    int two_passes = s->share > 0 && s->reference;
    for (long n = 0; n < s->n; n++) {
        long at = n * c;
        contract(s, h + n * to, grad + n * to, y + n * to, p + n * to, h_sum + at, h_p + at, h_grad + at, by_shift + at,
                 by_scale + at);
        if (two_passes && n < s->reference) {
            double positions = (double)(s->oh * s->ow) * s->reference;
            for (long k = 0; k < c; k++) {
                support[k] += (real)(h_sum[at + k] / positions);
                support[c + k] += (real)(h_p[at + k] / positions);
            }
        }
        if (two_passes && n + 1 < s->n) continue;
        for (long m = two_passes ? 0 : n; m <= n; m++) {
            mix(s, h_sum + m * c, two_passes ? support : 0, mixed);
            mix(s, h_p + m * c, two_passes ? support + c : 0, mixed + c);
            for (long k = 0; k < c; k++) {
                long i = m * c + k;
                double mean = first[i], variance = second[i] - (real)mean * (real)mean, moves = variance > 0;
                double r = 1 / sqrt((moves ? variance : 0) + s->eps), cube = -0.5 * moves * r * r * r;
                double a = by_shift[i], z = by_scale[i] - a * mean, hg = h_grad[i] - a * mixed[k];
                double bent = mixed[c + k] - 2 * mean * mixed[k], b = cube * weight[k] * z;
                double by_z = cube * weight[k] * bent + u[k] * r;
                double by_r = weight[k] * hg - 1.5 * moves * r * r * weight[k] * z * bent + u[k] * z;
                by_weight[k] += r * hg + cube * z * bent;
                cross[i] = (real)by_z;
                constant[i] = (real)(v[k] - scale[i] * mixed[k] - mean * by_z);
                by_square[i] = (real)b;
                by_second[i] = (real)(cube * by_r);
                by_first[i] = (real)(-a * by_z - 2 * (mixed[k] * b + mean * cube * by_r));
                support[2 * c + k] += by_square[i], support[3 * c + k] += by_first[i], support[4 * c + k] += by_second[i];
            }
        }
        for (long m = two_passes ? 0 : n; m <= n; m++) {
            mix_back(s, m, by_square + m * c, support + 2 * c, mixed);
            mix_back(s, m, by_first + m * c, support + 3 * c, mixed + c);
            mix_back(s, m, by_second + m * c, support + 4 * c, mixed + 2 * c);
            compose(s, h + m * to, grad + m * to, y + m * to, p + m * to, scale + m * c, cross + m * c, constant + m * c,
                    mixed, mixed + c, mixed + 2 * c, by_grad + m * to, by_p + m * to);
        }
    }
    free(memory);
}
