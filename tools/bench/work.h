/* work.h - what operations and models move and compute at least, and what share of a machine's limits a time is.
 *
 * Operations are multiplications and additions, counted one each, by the arithmetic that does them.  Bytes are what has to be read
 * from memory or written to it once.  Norms, rotations, softmax and the like count as nothing in a model: below 1 % at any shape.
 */
#ifndef NB_WORK_H
#define NB_WORK_H

#include "runtime/model/model.h"
#include "tools/bench/limits.h"

typedef struct {
    double bytes, ints, floats, doubles; /* ints: products of int4 and int8 weights with 16-bit activations */
} nb_work;

nb_work nb_work_sum(nb_work a, nb_work b);
/* Weights once, activations in and out; 2 rows n k operations. */
nb_work nb_work_matmul(const nb_matrix *m, size_t rows);
/* Keys and values of all tokens once, queries and results; 2 heads d operations for each of K and V and each token that a row sees. */
nb_work nb_work_attend(const nb_attn *a, size_t past, size_t rows);
nb_work nb_work_attend_full(size_t rows, int heads, int d);

/* `rows` tokens behind `past` others, with logits of head_rows of them; in steps of a prompt the weights are read once. */
nb_work nb_work_model(const nb_model *model, nb_dtype kv, size_t past, size_t rows, size_t head_rows);
/* Bytes of weights, keys and values for one token, on the average over `count` tokens generated one by one behind `past`. */
double  nb_work_token_bytes(const nb_model *model, nb_dtype kv, size_t past, size_t count);

/* A machine's limits for one level: bytes a second, operations a second. */
typedef struct {
    double read, ints, floats, doubles;
} nb_rates;
/* ref computes everything in f64.  NaN for what was not measured. */
nb_rates nb_rates_of(const nb_limits *l, nb_isa isa);
/* Seconds that the operations, or the bytes, take at the limits.  Nothing to do takes no time, whatever the rate. */
double   nb_work_compute_seconds(const nb_work *w, const nb_rates *r);
double   nb_work_read_seconds(const nb_work *w, const nb_rates *r);

#endif
