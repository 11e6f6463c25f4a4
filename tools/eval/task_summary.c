/* task_summary.c - row scores to the numbers that tables print (nb_sum says which belong to what). */
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
        if (t->rules->rate == NB_RATE_MATH) NB_TRY(count(s, "", "prefetch rate", r->prefetch, err));
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

/* ---- groups of rows that count together -------------------------------------------------------------------------------- */

typedef struct {
    char  *key;
    double score;
} keyed;

static int by_key(const void *a, const void *b)
{
    return strcmp(((const keyed *)a)->key, ((const keyed *)b)->key);
}

static void free_keyed(keyed *k, size_t n)
{
    for (size_t i = 0; k && i < n; i++) free(k[i].key);
    free(k);
}

/* Every row of the task with its key, sorted; the current row is set when key_of is asked. */
static nb_status collect(keyed **out, nb_task *t, void (*key_of)(const nb_task *t, size_t row, nb_buf *key), nb_error *err)
{
    NB_TRY(nb_alloc(out, t->rows, sizeof **out, "groups", err));
    nb_status status = NB_OK;
    for (size_t i = 0; i < t->rows && status == NB_OK; i++) {
        nb_buf key = { 0 };
        status = nb_tsv_row(t->table, i, err);
        if (status == NB_OK) key_of(t, i, &key);
        if (status == NB_OK) status = nb_buf_status(&key, "a group", err);
        (*out)[i] = (keyed){ key.data, t->scores[i].score };
    }
    if (status == NB_OK)
        qsort(*out, t->rows, sizeof **out, by_key);
    else
        free_keyed(*out, t->rows);
    return status;
}

/* Rows i .. the result - 1 have one key; *right: all of them are. */
static size_t group_end(const keyed *k, size_t n, size_t i, bool *right)
{
    size_t j = i;
    for (*right = true; j < n && !strcmp(k[j].key, k[i].key); j++) *right = *right && k[j].score == 1;
    return j;
}

/* ---- MME --------------------------------------------------------------------------------------------------------------- */

static void mme_key(const nb_task *t, size_t row, nb_buf *key)
{
    (void)row;
    nb_buf_printf(key, "%s\t%s", nb_tsv_get(t->table, "category"), nb_tsv_get(t->table, "image_path"));
}

/* A number that is no mean, as a part. */
static nb_status points(nb_task_summary *s, const char *kind, const char *label, double value, nb_error *err)
{
    return count(s, kind, label, value / 100, err);
}

/* k [n]: the rows of one category.  Points and the square of their error: every picture is a draw. */
static void mme_category(const keyed *k, size_t n, double *value, double *variance)
{
    double rows = 0, pairs = 0, sum = 0, squares = 0;
    size_t pictures = 0;
    bool   right;
    for (size_t i = 0, j; i < n; i = j) {
        double mine = 0;
        j = group_end(k, n, i, &right);
        for (size_t r = i; r < j; r++) mine += k[r].score;
        rows += mine;
        pairs += right;
        double x = 100 * mine / (double)(j - i) + 100 * right;
        sum += x;
        squares += x * x;
        pictures++;
    }
    *value = 100 * rows / (double)n + 100 * pairs / (double)pictures;
    double spread = pictures > 1 ? (squares - sum * sum / (double)pictures) / (double)(pictures - 1) : 0;
    *variance = spread > 0 ? spread / (double)pictures : 0;
}

static nb_status mme(nb_task_summary *s, nb_task *t, nb_error *err)
{
    static const char *const reasoning[] = { "code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation" };
    keyed    *k;
    double    perception = 0, thought = 0, variance = 0;
    nb_status status = NB_OK;
    NB_TRY(collect(&k, t, mme_key, err));
    for (size_t i = 0, j; i < t->rows && status == NB_OK; i = j) {
        size_t length = strcspn(k[i].key, "\t");
        char   category[64];
        double value, mine;
        snprintf(category, sizeof category, "%.*s", (int)(length < 63 ? length : 63), k[i].key);
        for (j = i; j < t->rows && !strncmp(k[j].key, k[i].key, length + 1); j++) {}
        mme_category(k + i, j - i, &value, &mine);
        variance += mine;
        bool thinks = false;
        for (size_t r = 0; r < NB_COUNT(reasoning); r++) thinks = thinks || !strcmp(category, reasoning[r]);
        *(thinks ? &thought : &perception) += value;
        status = points(s, "category", category, value, err);
    }
    free_keyed(k, t->rows);
    for (size_t i = 0; i < t->rows; i++) {
        s->units[i] = t->scores[i].score;
        s->undecided += t->scores[i].undecided;
    }
    s->items = t->rows;
    s->value = perception + thought;
    s->error = sqrt(variance);
    if (status == NB_OK) status = points(s, "", "perception", perception, err);
    if (status == NB_OK) status = points(s, "", "reasoning", thought, err);
    return status;
}

/* ---- HallusionBench ---------------------------------------------------------------------------------------------------- */

/* Its indices are x_x_x_SET_FIGURE_QUESTION: l2-category, set and one of the last two make a group. */
static void hallusion_key(const nb_task *t, size_t row, nb_buf *key, int last)
{
    const char *at = nb_tsv_index(t->table, row);
    nb_buf_printf(key, "%s", nb_tsv_get(t->table, "l2-category"));
    for (int i = 0; at && i <= 5; i++) {
        size_t n = strcspn(at, "_");
        if (i == 3 || i == last) nb_buf_printf(key, "_%.*s", (int)n, at);
        at = at[n] ? at + n + 1 : NULL;
    }
}
static void figure_key(const nb_task *t, size_t row, nb_buf *key) { hallusion_key(t, row, key, 4); }
static void question_key(const nb_task *t, size_t row, nb_buf *key) { hallusion_key(t, row, key, 5); }

static nb_status hallusion(nb_task_summary *s, nb_task *t, nb_error *err)
{
    static const char *const labels[] = { "fAcc", "qAcc" };
    void (*const keys[])(const nb_task *, size_t, nb_buf *) = { figure_key, question_key };
    NB_TRY(rows_mean(s, t, NULL, err));
    double all = s->value;
    for (int i = 0; i < 2; i++) {
        keyed *k;
        bool   right;
        double sum = 0;
        size_t groups = 0;
        NB_TRY(collect(&k, t, keys[i], err));
        for (size_t r = 0; r < t->rows; groups++) {
            r = group_end(k, t->rows, r, &right);
            sum += right;
        }
        free_keyed(k, t->rows);
        all += 100 * sum / (double)groups;
        NB_TRY(points(s, "", labels[i], 100 * sum / (double)groups, err));
    }
    return points(s, "", "mean of aAcc, fAcc and qAcc", all / 3, err);
}

nb_status nb_task_summarize(nb_task_summary *out, nb_task *t, nb_error *err)
{
    memset(out, 0, sizeof *out);
    out->metric = t->rules->metric;
    nb_status status = nb_alloc(&out->units, t->rows, sizeof *out->units, "scores", err);
    if (status != NB_OK) return status;
    if (t->rules->sum == NB_SUM_CIRCULAR) {
        rotation *r;
        status = nb_alloc(&r, t->rows, sizeof *r, "rotations", err);
        if (status == NB_OK) status = circular(out, t, r, err);
        free(r);
    } else if (t->rules->sum == NB_SUM_MME) {
        status = mme(out, t, err);
    } else if (t->rules->sum == NB_SUM_HALLUSION) {
        status = hallusion(out, t, err);
    } else {
        bool validation = t->rules->sum == NB_SUM_VALIDATION && any_row_in(t, "validation", err);
        status = rows_mean(out, t, validation ? "validation" : NULL, err);
    }
    if (status != NB_OK) {
        nb_task_summary_free(out);
        return status;
    }
    for (size_t i = 0; i < out->part_count; i++) out->parts[i].value *= 100.0 / (double)out->parts[i].items;
    return NB_OK;
}
