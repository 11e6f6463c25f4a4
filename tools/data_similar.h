/* data_similar.h - rows of a data set that say nearly the same, found in one pass and bounded memory.
 *
 * A row is the set of all runs of three words of its questions and answers (case and punctuation do not count, a CJK character
 * is a word), together with the pictures it refers to: the same question about another picture is another row.  Likeness is
 * the Jaccard index of two such sets, estimated by one-permutation MinHash (Li, Owen, Zhang 2012; empty bins filled by
 * rotation, Shrivastava and Li 2014).  What is found is near enough, not everything: rows alike to 0.8 are found with a
 * probability above 0.99 among the last 262,144.
 */
#ifndef NB_DATA_SIMILAR_H
#define NB_DATA_SIMILAR_H

#include "runtime/text/chat.h"

enum { NB_SIMILAR_ROWS = 1 << 18 };

typedef struct nb_similar nb_similar;

typedef struct {
    int    file;  /* of the earlier row; -1: none is like it */
    size_t line;
    bool   exact; /* word for word */
    double share; /* of what either row says, how much both say: 0.8 .. 1 */
} nb_similar_match;

/* What is kept of a row: made from the chat alone, so by any thread. */
typedef struct {
    uint8_t  signature[64];
    uint64_t words; /* hash of all of them in order: equal for equal texts */
    size_t   line;
    int      file;
    int      runs;  /* in the set, repetitions counted; few make a poor estimate */
} nb_similar_sketch;

nb_status nb_similar_new(nb_similar **out, nb_error *err);
void      nb_similar_free(nb_similar *s);
/* Look for an earlier row like this one, then remember it. */
void nb_similar_look(const nb_similar *s, nb_similar_sketch *out, const nb_chat *chat); /* file and line stay 0 */
nb_similar_match nb_similar_add_sketch(nb_similar *s, const nb_similar_sketch *sketch, int file, size_t line);
/* Both in one. */
nb_similar_match nb_similar_add(nb_similar *s, const nb_chat *chat, int file, size_t line);

#endif
