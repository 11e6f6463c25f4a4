/* vec_math.h - exp, 2^x and the activations on vectors.  Included after vec_avx2.h, vec_avx512.h or vec_neon.h.
 *
 *   exp(x) = 2^n e^f,  n = round(x / ln 2),  |f| <= ln(2) / 2
 *
 * e^f and 2^f are polynomials of degree 6 with the smallest largest relative error, 1.9e-9 before rounding.  All results
 * are within 4e-7 of the true value, relative, except near their underflow: what would be below 2^-126.5 is 0.  What
 * would be above 2^127.5 is infinite.  A NaN stays one: clamps keep their second operand, see vf_max. */
#ifndef NB_VEC_MATH_H
#define NB_VEC_MATH_H

static inline vf vf_exp2(vf x)
{
    x = vf_min(vf_set(128.0f), vf_max(vf_set(-127.0f), x));
    vf n = vf_round(x), f = vf_sub(x, n);
    vf p = vf_fma(vf_set(1.53458075e-4f), f, vf_set(1.33999312e-3f));
    p = vf_fma(p, f, vf_set(9.61848897e-3f));
    p = vf_fma(p, f, vf_set(5.55032878e-2f));
    p = vf_fma(p, f, vf_set(2.40226469e-1f));
    p = vf_fma(p, f, vf_set(6.93147206e-1f));
    p = vf_fma(p, f, vf_set(1.0f));
    return vf_scale(p, n);
}

/* exp(x + low), |low| tiny: what was lost when x was rounded.  Without it an x of 80 costs 80 times its rounding. */
static inline vf vf_exp_sum(vf x, vf low)
{
    x = vf_min(vf_set(88.9f), vf_max(vf_set(-88.1f), x));
    vf n = vf_round(vf_mul(x, vf_set(1.44269504f)));
    vf f = vf_fnma(n, vf_set(0x1.62e4p-1f), x); /* ln 2 in two parts; n times the first is exact */
    f = vf_add(vf_fnma(n, vf_set(1.42860677e-6f), f), low);
    vf p = vf_fma(vf_set(1.3836842e-3f), f, vf_set(8.37481578e-3f));
    p = vf_fma(p, f, vf_set(4.16682256e-2f));
    p = vf_fma(p, f, vf_set(1.66664202e-1f));
    p = vf_fma(p, f, vf_set(4.99999921e-1f));
    p = vf_fma(p, f, vf_set(1.00000004f));
    p = vf_fma(p, f, vf_set(1.0f));
    return vf_scale(p, n);
}

/* x / (1 + exp(-x)) */
static inline vf vf_silu(vf x)
{
    vf e = vf_exp_sum(vf_sub(vf_set(0.0f), x), vf_set(0.0f));
    return vf_div(x, vf_add(vf_set(1.0f), e));
}

/* x / (1 + exp(-1.702 x)); 1.702 = 1.702f - 2.1934509e-8 */
static inline vf vf_quick_gelu(vf x)
{
    vf c = vf_min(vf_set(100.0f), vf_max(vf_set(-100.0f), x));
    vf product = vf_mul(c, vf_set(-1.702f));
    vf low = vf_fma(c, vf_set(2.1934509e-8f), vf_fms(c, vf_set(-1.702f), product));
    return vf_div(x, vf_add(vf_set(1.0f), vf_exp_sum(product, low)));
}

/* x Phi(x).  The tail of the normal distribution is
 *
 *   1 - Phi(a) = exp(-a^2 / 2) t P(t),  t = 1 / (1 + 0.35 a),  a >= 0
 *
 * with P of degree 8 fitted for the smallest largest relative error on 0 <= a <= 14 (3.2e-8 before rounding); beyond, the
 * exponential is 0.  Computing the tail and not erf keeps the digits of large negative x. */
static inline vf vf_gelu(vf x)
{
    vf a = vf_min(vf_set(14.5f), vf_abs(x));
    vf t = vf_div(vf_set(1.0f), vf_fma(vf_set(0.35f), a, vf_set(1.0f)));
    vf p = vf_fma(vf_set(-2.91460451e-2f), t, vf_set(1.43972253e-1f));
    p = vf_fma(p, t, vf_set(-2.55715392e-1f));
    p = vf_fma(p, t, vf_set(1.59175448e-1f));
    p = vf_fma(p, t, vf_set(-2.31107122e-2f));
    p = vf_fma(p, t, vf_set(1.05508371e-1f));
    p = vf_fma(p, t, vf_set(1.19832776e-1f));
    p = vf_fma(p, t, vf_set(1.39861882e-1f));
    p = vf_fma(p, t, vf_set(1.39621404e-1f));
    vf half = vf_mul(a, vf_set(-0.5f)), square = vf_mul(half, a);
    vf e = vf_exp_sum(square, vf_fms(half, a, square));
    vf tail = vf_mul(vf_mul(t, p), e);
    return vf_if_negative(x, vf_mul(x, tail), vf_fnma(x, tail, x));
}

#endif
