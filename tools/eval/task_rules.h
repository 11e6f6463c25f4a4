/* task_rules.h - what belongs to a benchmark: prompt, scoring, how scores add up.
 *
 * A table is told by its name; one whose name says nothing, by its columns (options: choice; only Yes and No for answers; else ANLS),
 * and labelled so.
 */
#ifndef NB_TASK_RULES_H
#define NB_TASK_RULES_H

#include <stdbool.h>

typedef enum {
    NB_ASK_MMMU,   /* hint, question, options, request for one of them if there are any */
    NB_ASK_CHOICE, /* the same; the request in Chinese after Chinese text */
    NB_ASK_SHORT,  /* question, request for short words */
    NB_ASK_YES_NO, /* question, request for yes or no */
    NB_ASK_PLAIN   /* question */
} nb_ask;

typedef enum {
    NB_RATE_OPTION, NB_RATE_ANLS, NB_RATE_MATH, NB_RATE_YES_NO, NB_RATE_CONTAINS, NB_RATE_CONTAINS_PLAIN, NB_RATE_RELAXED, NB_RATE_PEOPLE
} nb_rate;

typedef enum {
    NB_SUM_MEAN,     /* over all rows */
    NB_SUM_VALIDATION, /* over split `validation`, over all rows when no row says so */
    NB_SUM_CIRCULAR, /* a question counts when all its rotations (index mod 1,000,000) are right; also over base rows and over all rows */
    NB_SUM_MME,      /* points: for each category 100 times the share of right rows and 100 times that of pictures with all rows right */
    NB_SUM_HALLUSION /* over rows; also the shares of figures and of questions with all rows right */
} nb_sum;

typedef struct {
    const char *name;   /* in the table's name, any case */
    nb_ask      ask;
    nb_rate     rate;
    nb_sum      sum;
    const char *metric;
    const char *needs;  /* columns beyond index, question and answer, separated by spaces */
} nb_task_rules;

/* NULL: no benchmark is called so. */
const nb_task_rules *nb_task_rules_by_name(const char *table_name);
/* The rules of a table of no known name. */
const nb_task_rules *nb_task_rules_by_columns(bool has_options, bool only_yes_no);

#endif
