/* fail_if.h - when an evaluation counts as failed: `mmmu<-1.0,docvqa.high<0,ocrbench.score<80`.
 *
 *     NAME<N         a benchmark whose name holds NAME lost more than -N percentage points against the baseline
 *     NAME.high<N    so did the upper end of its 95 % interval: with N = 0, worse by more than chance
 *     NAME.low<N     the lower end did
 *     NAME.score<N   the score itself is below N percent
 *
 * Letters of either case.  A condition that no benchmark answers is an error, not a pass.
 */
#ifndef NB_FAIL_IF_H
#define NB_FAIL_IF_H

#include "tools/eval/report.h"

typedef enum { NB_FAIL_DIFFERENCE, NB_FAIL_HIGH, NB_FAIL_LOW, NB_FAIL_SCORE } nb_fail_figure;

typedef struct {
    char           name[64];
    nb_fail_figure figure;
    double         limit;
} nb_fail_rule;

typedef struct {
    nb_fail_rule *rules;
    size_t        count, capacity;
} nb_fail_if;

nb_status nb_fail_if_add(nb_fail_if *f, const char *list, nb_error *err); /* conditions separated by commas */
void      nb_fail_if_free(nb_fail_if *f);
/* One sentence for each that came true, "; " between them, appended to `out`. */
nb_status nb_fail_if_check(const nb_fail_if *f, const nb_eval_row *rows, size_t count, nb_buf *out, nb_error *err);

#endif
