/* gram_sums.h - sums whose order cannot matter: fixed-point numbers of 128 bits in two words, and where a Gram matrix keeps them.
 *
 * A sum of doubles depends on the order of its terms, so threads, batches, ranks and merged files would each give other last bits.
 * Integers do not: a term c is cut into two integers,
 *
 *     high = c / 2^-4, to nearest         low = (c - high 2^-4) / 2^-56, to nearest; |low| <= 2^51
 *
 * and both are added modulo 2^64, which is associative.  What is lost is the rounding of each term to a multiple of 2^-56 (1.4e-17),
 * the same wherever the term is added.  A term is the part of a sum that one piece gives: NB_GRAM_ROWS rows of one sample, counted
 * from its start (the last may be shorter).  How a piece is summed is the level's business; pieces depend on nothing but the sample.
 *
 * Ranges.  A piece must have sum w x^2 < 2^45 for each column (inputs of 370,000 in all 256 rows), which bounds all its products by
 * Cauchy and Schwarz; a column where that fails is marked, see max_abs.  Then |high| < 2^49 a piece and 2^12 pieces cannot overflow
 * either word: before more are added, nb_fixed_carry moves what low holds too much into high, which changes no value.
 */
#ifndef NB_GRAM_SUMS_H
#define NB_GRAM_SUMS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { NB_GRAM_ROWS = 256, NB_GRAM_PIECES = 1 << 10 /* after so many added pieces comes a carry; a call may add 2^11 more */ };

#define NB_GRAM_LIMIT 0x1p45
/* Adding 1.5 * 2^n leaves, in the last bits of a double, the integer that was added: steps of 2^(n - 52). */
#define NB_FIXED_HIGH 0x1.8p48
#define NB_FIXED_LOW  0x1.8p-4
enum { NB_FIXED_LOW_BITS = 52 /* 2^-4 is 2^52 steps of low */ };

/* Sums of a call, added to. */
typedef struct {
    int64_t *h;        /* [k, k] sum_r w_r x_r x_r': high words of (i, j) at i k + j, i <= j; low words see nb_gram_low */
    int64_t *diagonal; /* [k] low words of (i, i) */
    int64_t *sum_abs;  /* [2, k] sum_r w_r |x_r|: high words, then low words */
    float   *max_abs;  /* [k] max_r |x_r|; NaN once a NaN was seen; infinity where a piece was beyond NB_GRAM_LIMIT */
    float   *work;     /* [nb_gram_work(k)] 64-byte aligned room for rows of a call in the backend's order; what it holds is nobody's */
} nb_gram_sums;

enum { NB_GRAM_ROUND = 1024 /* rows that a backend takes at a time */ };

static inline size_t nb_gram_work(size_t k)
{
    return (k + 31) / 32 * 32 * NB_GRAM_ROUND;
}

/* The low words of row i of the triangle, columns i + 1 .. k - 1, lie left of the diagonal in row k - 1 - i: in one piece, and
 * exactly fitting. */
static inline size_t nb_gram_low(size_t k, size_t i, size_t j)
{
    return (k - 1 - i) * k + (j - i - 1);
}

static inline int64_t nb_fixed_bits(double x)
{
    int64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline int64_t nb_fixed_sum(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a + (uint64_t)b);
}

/* *high, *low += c; |c| < 2^47, or else what is added is anything (the column is marked). */
static inline void nb_fixed_add(int64_t *high, int64_t *low, double c)
{
    double t = c + NB_FIXED_HIGH, rest = c - (t - NB_FIXED_HIGH), u = rest + NB_FIXED_LOW;
    *high = nb_fixed_sum(*high, nb_fixed_bits(t) - nb_fixed_bits(NB_FIXED_HIGH));
    *low = nb_fixed_sum(*low, nb_fixed_bits(u) - nb_fixed_bits(NB_FIXED_LOW));
}

/* The one form of a value: 0 <= low < 2^52. */
static inline void nb_fixed_carry(int64_t *high, int64_t *low)
{
    *high = nb_fixed_sum(*high, *low >> NB_FIXED_LOW_BITS); /* arithmetic: towards minus infinity */
    *low &= ((int64_t)1 << NB_FIXED_LOW_BITS) - 1;
}

/* The value; a function of the value alone, and the nearest double while |value| < 2^49. */
static inline double nb_fixed_value(int64_t high, int64_t low)
{
    nb_fixed_carry(&high, &low);
    return (double)high * 0x1p-4 + (double)low * 0x1p-56;
}

/* One row's entry of a column into its piece: sum_abs, sum of squares, largest. */
static inline float nb_gram_larger(float max, float magnitude)
{
    return magnitude > max || magnitude != magnitude ? magnitude : max; /* a NaN stays */
}
static inline float nb_gram_mark(float max, double sum_of_squares)
{
    return sum_of_squares < NB_GRAM_LIMIT || max != max ? max : sum_of_squares != sum_of_squares ? NAN : INFINITY;
}

#endif
