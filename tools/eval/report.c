/* report.c - see report.h. */
#include "tools/eval/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void nb_model_form(char out[32], const nb_config *c)
{
    static const char *const methods[] = { "", "awq", "gptq", "ct" };
    if (c->quant.method == NB_QUANT_NONE)
        snprintf(out, 32, "%s", c->dtype == NB_BF16 ? "bf16" : c->dtype == NB_F16 ? "f16" : "f32");
    else if (c->quant.group)
        snprintf(out, 32, "%s int%d g%d%s", methods[c->quant.method], c->quant.bits, c->quant.group, c->quant.more_count ? " mixed" : "");
    else
        snprintf(out, 32, "%s int%d row%s", methods[c->quant.method], c->quant.bits, c->quant.more_count ? " mixed" : "");
}

nb_status nb_eval_row_open(nb_eval_row *row, const char *name, const nb_model *model, nb_error *err)
{
    (void)err;
    row->model = name;
    nb_model_form(row->form, &model->config);
    for (size_t i = 0; i < nb_checkpoint_count(model->checkpoint); i++) row->tensor_bytes += nb_checkpoint_at(model->checkpoint, i)->tensor->bytes;
    return NB_OK;
}

nb_status nb_eval_row_add_task(nb_eval_row *row, nb_task *task, nb_error *err)
{
    NB_TRY(nb_grow(&row->tasks, &row->task_capacity, row->task_count + 1, sizeof *row->tasks, "results", err));
    nb_eval_task *t = &row->tasks[row->task_count];
    memset(t, 0, sizeof *t);
    memcpy(t->name, task->name, sizeof t->name);
    NB_TRY(nb_task_summarize(&t->summary, task, err));
    row->task_count++;
    return NB_OK;
}

nb_status nb_eval_row_compare(nb_eval_row *row, const nb_eval_row *baseline, nb_error *err)
{
    for (size_t i = 0; i < row->task_count; i++) {
        nb_eval_task *t = &row->tasks[i];
        for (size_t j = 0; j < baseline->task_count; j++) {
            const nb_eval_task *b = &baseline->tasks[j];
            if (strcmp(t->name, b->name) || t->summary.items != b->summary.items) continue;
            NB_TRY(nb_paired_compare(&t->paired, b->summary.units, t->summary.units, t->summary.items, err));
            break;
        }
    }
    return NB_OK;
}

void nb_eval_row_free(nb_eval_row *row)
{
    nb_divergence_free(&row->chats);
    nb_divergence_free(&row->text);
    for (size_t i = 0; i < row->task_count; i++) nb_task_summary_free(&row->tasks[i].summary);
    free(row->tasks);
    memset(row, 0, sizeof *row);
}

/* ---- for people -------------------------------------------------------------------------------------------------------- */

enum { MAX_COLUMNS = 48 };

typedef struct {
    nb_column columns[MAX_COLUMNS];
    char      keys[MAX_COLUMNS][80], titles[MAX_COLUMNS][80];
    size_t    count;
} heading;

static void column(heading *h, const char *key, const char *title, int digits)
{
    if (h->count == MAX_COLUMNS) return;
    snprintf(h->keys[h->count], sizeof h->keys[0], "%s", key);
    snprintf(h->titles[h->count], sizeof h->titles[0], "%s", title);
    h->columns[h->count] = (nb_column){ .key = h->keys[h->count], .title = *title ? h->titles[h->count] : NULL, .digits = digits };
    h->count++;
}

/* The columns depend on what was measured, the same for all rows. */
static void make_heading(heading *h, const nb_eval_row *row, const nb_eval_settings *s)
{
    column(h, "model", "model", 0);
    column(h, "form", "form", 0);
    column(h, "size_mb", "MB", 2);
    for (size_t i = 0; i < row->task_count; i++) {
        char key[80];
        snprintf(key, sizeof key, "%.63s_error", row->tasks[i].name);
        column(h, row->tasks[i].name, row->tasks[i].name, 2);
        column(h, key, "", 2);
    }
    if (row->chats.count) {
        if (row->has_reference) {
            column(h, "kl_all", "KL", 6);
            column(h, "kl_answer", "KL answers", 6);
            column(h, "kl_answer_text", "text", 6);
            column(h, "kl_answer_visual", "pictures", 6);
            column(h, "kl_p99", "99 % <", 5);
            column(h, "top1_answer", "same top", 2);
        }
        column(h, "ppl_answer", "ppl answers", 4);
    }
    if (s->text) column(h, "ppl_text", "ppl text", 4);
    if (s->text && row->has_reference) column(h, "kl_text", "KL text", 6);
}

static nb_status fill_row(nb_table *t, const nb_eval_row *row, const nb_eval_settings *s, nb_error *err)
{
    nb_divergence_summary all, answer, text, visual;
    char                  cell[64];
    nb_table_text(t, row->model);
    nb_table_text(t, row->form);
    nb_table_number(t, (double)row->tensor_bytes / 1e6);
    for (size_t i = 0; i < row->task_count; i++) {
        snprintf(cell, sizeof cell, "%.2f ± %.2f", row->tasks[i].summary.value, row->tasks[i].summary.error);
        nb_table_pair(t, cell, row->tasks[i].summary.value);
        nb_table_number(t, row->tasks[i].summary.error);
    }
    if (row->chats.count) {
        NB_TRY(nb_divergence_summarize(&all, &row->chats, NB_SCOPE_ALL, NB_OVER_BOTH, err));
        NB_TRY(nb_divergence_summarize(&answer, &row->chats, NB_SCOPE_ANSWER, NB_OVER_BOTH, err));
        NB_TRY(nb_divergence_summarize(&text, &row->chats, NB_SCOPE_ANSWER, NB_OVER_TEXT, err));
        NB_TRY(nb_divergence_summarize(&visual, &row->chats, NB_SCOPE_ANSWER, NB_OVER_VISUAL, err));
        if (row->has_reference) {
            nb_table_number(t, all.kl_mean);
            nb_table_number(t, answer.kl_mean);
            nb_table_number(t, text.tokens ? text.kl_mean : NAN);
            nb_table_number(t, visual.tokens ? visual.kl_mean : NAN);
            nb_table_number(t, all.kl_p99);
            nb_table_number(t, 100 * answer.top1);
        }
        nb_table_number(t, answer.ppl);
    }
    if (s->text) {
        NB_TRY(nb_divergence_summarize(&text, &row->text, NB_SCOPE_ANSWER, NB_OVER_BOTH, err));
        nb_table_number(t, text.ppl);
        if (row->has_reference) nb_table_number(t, text.kl_mean);
    }
    return NB_OK;
}

/* Every benchmark of every model beside the baseline's. */
static nb_status write_paired(nb_buf *out, const nb_eval_row *rows, size_t count, const nb_eval_settings *s, nb_error *err)
{
    static const nb_column columns[] = { { .title = "model" }, { .title = "benchmark" }, { .title = "points", .digits = 2 },
                                         { .title = "95 % interval" }, { .title = "lost" }, { .title = "gained" },
                                         { .title = "McNemar p", .digits = 4 } };
    nb_table *t;
    NB_TRY(nb_table_new(&t, columns, NB_COUNT(columns), err));
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < rows[i].task_count; j++) {
            const nb_paired *p = &rows[i].tasks[j].paired;
            char             interval[48];
            if (!p->items) continue;
            snprintf(interval, sizeof interval, "%+.2f .. %+.2f", p->low, p->high);
            nb_table_text(t, rows[i].model);
            nb_table_text(t, rows[i].tasks[j].name);
            nb_table_number(t, p->difference);
            nb_table_text(t, interval);
            nb_table_int(t, (int64_t)p->lost);
            nb_table_int(t, (int64_t)p->gained);
            nb_table_number(t, p->p);
        }
    if (nb_table_rows(t)) {
        nb_buf_printf(out, "\nQuestion by question against %s:\n\n", s->baseline);
        nb_table_print(t, NB_TABLE_MD, out);
    }
    nb_table_free(t);
    return NB_OK;
}

static nb_status write_table(nb_buf *out, const nb_eval_row *rows, size_t count, const nb_eval_settings *s, nb_table_format format,
                             nb_error *err)
{
    nb_table *t;
    heading  *h;
    NB_TRY(nb_alloc(&h, 1, sizeof *h, "a table", err));
    make_heading(h, &rows[0], s);
    nb_status status = nb_table_new(&t, h->columns, h->count, err);
    for (size_t i = 0; i < count && status == NB_OK; i++) status = fill_row(t, &rows[i], s, err);
    if (status == NB_OK) nb_table_print(t, format, out);
    nb_table_free(t);
    free(h);
    if (status == NB_OK && format == NB_TABLE_MD) {
        if (s->baseline) NB_TRY(write_paired(out, rows, count, s, err));
        for (size_t i = 0; i < rows[0].task_count; i++) {
            const nb_task_summary *m = &rows[0].tasks[i].summary;
            nb_buf_printf(out, "%s%s: %s over %zu", i ? "; " : "\n", rows[0].tasks[i].name, m->metric, m->items);
        }
        if (rows[0].task_count) nb_buf_printf(out, "; rules of %s; pictures by the %s setting; ± is one standard error\n", s->rules, s->pixels);
        if (rows[0].chats.count) nb_buf_printf(out, "%s%zu conversations, %zu tokens; KL in nats a token%s%s\n", rows[0].task_count ? "" : "\n", rows[0].chats.samples, rows[0].chats.count,
                                               s->ref ? " from " : "", s->ref ? s->ref : "");
    }
    return status;
}

/* ---- for machines ------------------------------------------------------------------------------------------------------ */

nb_status nb_emit_divergence(nb_emit *e, const char *key, const nb_divergence *d, bool has_reference, nb_error *err)
{
    static const char *const scopes[] = { "all", "answer" }, *const overs[] = { "both", "text", "visual" };
    nb_emit_open(e, key, '{');
    nb_emit_int(e, "samples", (int64_t)d->samples);
    for (int scope = 0; scope < NB_SCOPES; scope++)
        for (int over = 0; over < NB_OVERS; over++) {
            nb_divergence_summary s;
            char                  name[32];
            NB_TRY(nb_divergence_summarize(&s, d, (nb_scope)scope, (nb_over)over, err));
            snprintf(name, sizeof name, "%s%s%s", scopes[scope], over ? "_" : "", over ? overs[over] : "");
            nb_emit_open(e, name, '{');
            nb_emit_int(e, "tokens", (int64_t)s.tokens);
            nb_emit_number(e, "ppl", s.ppl);
            nb_emit_number(e, "ppl_error", s.ppl_error);
            if (has_reference) {
                const struct {
                    const char *name;
                    double      value;
                } fields[] = { { "kl_mean", s.kl_mean }, { "kl_error", s.kl_error }, { "kl_median", s.kl_median }, { "kl_p90", s.kl_p90 },
                               { "kl_p95", s.kl_p95 },   { "kl_p99", s.kl_p99 },     { "kl_p999", s.kl_p999 },     { "kl_max", s.kl_max },
                               { "top1", s.top1 },       { "top5", s.top5 },         { "ref_ppl", s.ref_ppl },
                               { "ln_ppl_ratio", s.ln_ratio }, { "ln_ppl_ratio_error", s.ln_ratio_error } };
                for (size_t i = 0; i < NB_COUNT(fields); i++) nb_emit_number(e, fields[i].name, fields[i].value);
            }
            nb_emit_close(e);
        }
    nb_emit_close(e);
    return NB_OK;
}

static void emit_task(nb_emit *e, const nb_eval_task *t)
{
    nb_emit_open(e, t->name, '{');
    nb_emit_string(e, "metric", t->summary.metric);
    nb_emit_number(e, "value", t->summary.value);
    nb_emit_number(e, "error", t->summary.error);
    nb_emit_int(e, "items", (int64_t)t->summary.items);
    nb_emit_int(e, "undecided", (int64_t)t->summary.undecided);
    nb_emit_open(e, "parts", '{');
    for (size_t i = 0; i < t->summary.part_count; i++) nb_emit_number(e, t->summary.parts[i].label, t->summary.parts[i].value);
    nb_emit_close(e);
    if (t->paired.items) {
        nb_emit_open(e, "paired", '{');
        nb_emit_number(e, "difference", t->paired.difference);
        nb_emit_number(e, "low", t->paired.low);
        nb_emit_number(e, "high", t->paired.high);
        nb_emit_int(e, "lost", (int64_t)t->paired.lost);
        nb_emit_int(e, "gained", (int64_t)t->paired.gained);
        nb_emit_number(e, "mcnemar_p", t->paired.p);
        nb_emit_close(e);
    }
    nb_emit_close(e);
}

static nb_status write_json(nb_buf *out, const nb_eval_row *rows, size_t count, const nb_eval_settings *s, nb_error *err)
{
    nb_emit e = nb_emit_start(out, true);
    nb_emit_open(&e, NULL, '{');
    nb_emit_string(&e, "pixels", s->pixels);
    nb_emit_string(&e, "rules", s->rules);
    nb_emit_string(&e, "ref", s->ref);
    nb_emit_string(&e, "data", s->data);
    nb_emit_string(&e, "baseline", s->baseline);
    nb_emit_open(&e, "models", '[');
    for (size_t i = 0; i < count; i++) {
        nb_emit_open(&e, NULL, '{');
        nb_emit_string(&e, "model", rows[i].model);
        nb_emit_string(&e, "form", rows[i].form);
        nb_emit_int(&e, "tensor_bytes", (int64_t)rows[i].tensor_bytes);
        if (rows[i].chats.count) NB_TRY(nb_emit_divergence(&e, "chats", &rows[i].chats, rows[i].has_reference, err));
        if (rows[i].text.count) NB_TRY(nb_emit_divergence(&e, "text", &rows[i].text, rows[i].has_reference, err));
        if (rows[i].task_count) {
            nb_emit_open(&e, "tasks", '{');
            for (size_t t = 0; t < rows[i].task_count; t++) emit_task(&e, &rows[i].tasks[t]);
            nb_emit_close(&e);
        }
        nb_emit_close(&e);
    }
    nb_emit_close(&e);
    nb_emit_close(&e);
    return NB_OK;
}

nb_status nb_eval_report(nb_buf *out, const nb_eval_row *rows, size_t count, const nb_eval_settings *settings, nb_table_format format,
                         bool json, nb_error *err)
{
    NB_TRY(json ? write_json(out, rows, count, settings, err) : write_table(out, rows, count, settings, format, err));
    return nb_buf_status(out, "the report", err);
}
