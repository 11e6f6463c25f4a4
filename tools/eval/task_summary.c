/* task_summary.c - row scores to the numbers that tables print.
 *
 *   MMMU       accuracy over split `validation` (all rows when no row says so)
 *   DocVQA     mean ANLS
 *   MMBench    circular: a question counts when all its rotations (index mod 1,000,000) are right; also vanilla over base
 *              rows and over all rows
 *   MathVista  accuracy by rules alone, which is not the published judge's score and is named apart
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/eval/task.h"

enum { ROTATION = 1000000 };

void nb_task_summary_free(nb_task_summary *s)
{
    free(s->units);
    free(s->parts);
    memset(s, 0, sizeof *s);
}

/* A running mean under a label. */
static nb_status count(nb_task_summary *s, const char *kind, const char *label, double score, nb_error *err)
{
    char name[96];
    if (!*label) return NB_OK;
    snprintf(name, sizeof name, "%s%s%s", kind, *kind ? ": " : "", label);
    size_t i = 0;
    while (i < s->part_count && strcmp(s->parts[i].label, name)) i++;
    if (i == s->part_count) {
        NB_TRY(nb_grow(&s->parts, &s->part_capacity, s->part_count + 1, sizeof *s->parts, "a summary", err));
        s->parts[s->part_count] = (nb_task_part){ .value = 0 };
        snprintf(s->parts[s->part_count++].label, sizeof s->parts->label, "%s", name);
    }
    s->parts[i].value += score;
    s->parts[i].items++;
    return NB_OK;
}

/* Mean and its standard error in percent. */
static void close_mean(nb_task_summary *s, double sum, double squares, size_t n)
{
    s->items = n;
    if (n == 0) return;
    double mean = sum / (double)n, variance = n > 1 ? (squares - sum * mean) / (double)(n - 1) : 0;
    s->value = 100 * mean;
    s->error = 100 * sqrt(variance > 0 ? variance / (double)n : 0);
}

static nb_status rows_mean(nb_task_summary *s, nb_task *t, const char *split, nb_error *err)
{
    double sum = 0, squares = 0;
    size_t n = 0;
    for (size_t i = 0; i < t->rows; i++) {
        const nb_row_score *r = &t->scores[i];
        NB_TRY(nb_tsv_row(t->table, i, err));
        const char *mine = nb_tsv_get(t->table, "split"), *group;
        if (mine) NB_TRY(count(s, "split", mine, r->score, err));
        if (split && mine && strcmp(mine, split)) continue;
        sum += r->score;
        squares += r->score * r->score;
        s->undecided += r->undecided;
        s->units[n++] = r->score;
        static const char *const groups[] = { "l2-category", "category", "task" };
        for (size_t g = 0; g < NB_COUNT(groups); g++)
            if ((group = nb_tsv_get(t->table, groups[g]))) NB_TRY(count(s, groups[g], group, r->score, err));
        if (t->kind == NB_TASK_MATHVISTA) NB_TRY(count(s, "", "prefetch rate", r->prefetch, err));
    }
    close_mean(s, sum, squares, n);
    return NB_OK;
}

static bool any_row_in(nb_task *t, const char *split, nb_error *err)
{
    for (size_t i = 0; i < t->rows; i++) {
        if (nb_tsv_row(t->table, i, err) != NB_OK) return false;
        const char *mine = nb_tsv_get(t->table, "split");
        if (mine && !strcmp(mine, split)) return true;
    }
    return false;
}

typedef struct {
    long long group;
    double    score;
    size_t    row;
    bool      base;
} rotation;

static int by_group(const void *a, const void *b)
{
    const rotation *x = a, *y = b;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

static nb_status circular(nb_task_summary *s, nb_task *t, rotation *r, nb_error *err)
{
    double sum = 0, vanilla = 0, all = 0;
    size_t groups = 0, bases = 0;
    for (size_t i = 0; i < t->rows; i++) {
        char     *end;
        const char *text = nb_tsv_index(t->table, i);
        long long index = strtoll(text, &end, 10);
        if (*end || end == text || index < 0)
            return nb_fail(err, NB_ERR_INPUT, "%s: index '%s' at line %zu is not a number, which rotations need", t->name, text,
                           nb_tsv_line(t->table, i));
        r[i] = (rotation){ index % ROTATION, t->scores[i].score, i, index < ROTATION };
        all += r[i].score;
        vanilla += r[i].base ? r[i].score : 0;
        bases += r[i].base;
        s->undecided += t->scores[i].undecided;
    }
    qsort(r, t->rows, sizeof *r, by_group);
    for (size_t i = 0; i < t->rows;) {
        size_t first = r[i].row;
        double right = 1;
        size_t j = i;
        for (; j < t->rows && r[j].group == r[i].group; j++) right = r[j].score < right ? r[j].score : right;
        NB_TRY(nb_tsv_row(t->table, first, err));
        static const char *const labels[] = { "l2-category", "category" };
        for (size_t g = 0; g < NB_COUNT(labels); g++) {
            const char *label = nb_tsv_get(t->table, labels[g]);
            if (label) NB_TRY(count(s, labels[g], label, right, err));
        }
        sum += right;
        s->units[groups++] = right;
        i = j;
    }
    close_mean(s, sum, sum, groups);
    NB_TRY(nb_grow(&s->parts, &s->part_capacity, s->part_count + 2, sizeof *s->parts, "a summary", err));
    s->parts[s->part_count++] = (nb_task_part){ "vanilla, base rows", vanilla, bases };
    s->parts[s->part_count++] = (nb_task_part){ "vanilla, all rows", all, t->rows };
    return NB_OK;
}

nb_status nb_task_summarize(nb_task_summary *out, nb_task *t, nb_error *err)
{
    static const char *const metrics[] = { "accuracy", "ANLS", "circular accuracy", "rule-scored accuracy" };
    memset(out, 0, sizeof *out);
    out->metric = metrics[t->kind];
    NB_TRY(nb_alloc(&out->units, t->rows, sizeof *out->units, "scores", err));
    nb_status status;
    if (t->kind == NB_TASK_MMBENCH) {
        rotation *r;
        status = nb_alloc(&r, t->rows, sizeof *r, "rotations", err);
        if (status == NB_OK) status = circular(out, t, r, err);
        free(r);
    } else {
        bool validation = t->kind == NB_TASK_MMMU && any_row_in(t, "validation", err);
        status = rows_mean(out, t, validation ? "validation" : NULL, err);
    }
    if (status != NB_OK) {
        nb_task_summary_free(out);
        return status;
    }
    for (size_t i = 0; i < out->part_count; i++) out->parts[i].value *= 100.0 / (double)out->parts[i].items;
    return NB_OK;
}
