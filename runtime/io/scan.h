/* scan.h - what can be said of an array of numbers without keeping it: one array by itself, or two side by side.
 *
 * Sums are doubles in the order of the elements, so a result does not depend on how the arrays were cut into pieces. */
#ifndef NB_SCAN_H
#define NB_SCAN_H

#include "runtime/io/checkpoint.h"

typedef struct {
    uint64_t count;
    uint64_t not_finite, first_not_finite; /* how many; number of the first among all elements */
    uint64_t zeros, negative;              /* of the finite ones; -0 is a zero */
    double   least, most;                  /* smallest magnitude above zero (infinity: none), largest magnitude */
} nb_scan;

void      nb_scan_start(nb_scan *s);
void      nb_scan_add(nb_scan *s, const float *x, size_t n);
/* A float tensor, a piece at a time. */
nb_status nb_scan_entry(nb_scan *out, const nb_entry *e, nb_error *err);

typedef struct {
    uint64_t count, differing;             /* elements; those that are not equal */
    uint64_t not_finite;                   /* pairs with a NaN or infinity that is not the same on both sides */
    uint64_t first;                        /* number of the first differing element */
    uint64_t worst;                        /* number of the element with max_abs (or of the first pair that is not finite) */
    double   max_abs, max_a;               /* largest |a - b|; largest |a| */
    double   error2, a2, b2, ab;           /* sums of (a - b)^2, a^2, b^2, a b over finite pairs */
} nb_contrast;

void   nb_contrast_start(nb_contrast *c);
void   nb_contrast_add(nb_contrast *c, const float *a, const float *b, size_t n);
double nb_contrast_relative(const nb_contrast *c); /* |a - b| / |a|; infinity when a is all zeros or a pair is not finite */
double nb_contrast_cosine(const nb_contrast *c);   /* 1 when both are all zeros, 0 when one is; NaN when a pair is not finite */

#endif
