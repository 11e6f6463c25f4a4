/* cmd_diff.c - two checkpoints side by side, by meaning. */
#include <stdio.h>
#include <string.h>

#include "runtime/io/file.h"
#include "tools/cli/output.h"
#include "tools/cli/table.h"
#include "tools/commands.h"
#include "tools/compare/diff.h"

typedef struct {
    nb_common   common;
    const char *a, *b;
    bool        values, config_only;
} options;

static const nb_arg diff_args[] = {
    {.name = "a",
     .type = NB_ARG_STRING,
     .at = offsetof(options, a),
     .positional = true,
     .required = true,
     .metavar = "A",
     .help = "checkpoint directory"},
    {.name = "b",
     .type = NB_ARG_STRING,
     .at = offsetof(options, b),
     .positional = true,
     .required = true,
     .metavar = "B",
     .help = "checkpoint directory"},
    {.name = "values",
     .type = NB_ARG_BOOL,
     .at = offsetof(options, values),
     .group = "What to compare",
     .help = "read the weights: for each matrix the relative error, the largest difference, the cosine and the integer codes "
             "that differ"},
    {.name = "config-only",
     .type = NB_ARG_BOOL,
     .at = offsetof(options, config_only),
     .group = "What to compare",
     .help = "leave out the tensors and the tokenizer"},
};

static const nb_arg_block blocks[] = {
    {diff_args, NB_COUNT(diff_args), 0}, {nb_common_args, NB_COMMON_ARGS, offsetof(options, common)}, {NULL, 0, 0}};

static bool alike(const nb_difference *x, const nb_difference *y)
{
    return !strcmp(x->part, y->part) && x->note == y->note && x->a && y->a && x->b && y->b && !strcmp(x->a, y->a) &&
           !strcmp(x->b, y->b);
}

/* People get one row for all places with the same two values; machines get every place. */
static nb_status difference_table(nb_table **out, const nb_diff *d, bool notes, nb_error *err)
{
    static const nb_column columns[] = {{.key = "part", .title = "part"},
                                        {.key = "where", .title = "where"},
                                        {.key = "a", .title = "A"},
                                        {.key = "b", .title = "B"},
                                        {.key = "note", .title = NULL}};
    static const nb_column noted[] = {{.key = "part", .title = "part"},
                                      {.key = "where", .title = "where"},
                                      {.key = "a", .title = "A"},
                                      {.key = "b", .title = "B"},
                                      {.key = "note", .title = "why it does not count"}};
    NB_TRY(nb_table_new(out, notes ? noted : columns, NB_COUNT(columns), err));
    for (size_t i = 0; i < d->count; i++) {
        const nb_difference *x = &d->items[i];
        char                 a[64], b[64], where[200];
        size_t               before = 0, more = 0;
        if ((x->note != NULL) != notes) continue;
        for (size_t j = 0; j < i && !nb_json_wanted() && !before; j++) before += alike(x, &d->items[j]);
        if (before) continue;
        for (size_t j = i + 1; j < d->count && !nb_json_wanted(); j++) more += alike(x, &d->items[j]);
        if (more) snprintf(where, sizeof where, "%.160s (and %zu more)", x->where, more);
        snprintf(a, sizeof a, "%.60s", x->a ? x->a : "");
        snprintf(b, sizeof b, "%.60s", x->b ? x->b : "");
        nb_table_text(*out, x->part);
        nb_table_text(*out, more ? where : x->where);
        nb_table_text(*out, nb_json_wanted() ? x->a : x->a ? a : "-");
        nb_table_text(*out, nb_json_wanted() ? x->b : x->b ? b : "-");
        nb_table_text(*out, x->note);
    }
    return NB_OK;
}

static nb_status value_table(nb_table **out, const nb_diff *d, nb_error *err)
{
    static const nb_column columns[] = {{.key = "matrix", .title = "matrix"},
                                        {.key = "a", .title = "A"},
                                        {.key = "b", .title = "B"},
                                        {.key = "relative", .title = "relative", .right = true},
                                        {.key = "max_abs", .title = "max abs", .right = true},
                                        {.key = "cosine", .title = "cosine", .right = true},
                                        {.key = "codes", .title = "codes that differ"},
                                        {.key = "elements", .title = "elements"}};
    NB_TRY(nb_table_new(out, columns, NB_COUNT(columns), err));
    for (size_t i = 0; i < d->row_count; i++) {
        const nb_value_row *r = &d->rows[i];
        char                text[32];
        nb_table_text(*out, r->name);
        nb_table_text(*out, r->a);
        nb_table_text(*out, r->b);
        snprintf(text, sizeof text, "%.3e", r->relative);
        nb_table_pair(*out, text, r->relative);
        snprintf(text, sizeof text, "%.3e", r->max_abs);
        nb_table_pair(*out, text, r->max_abs);
        snprintf(text, sizeof text, "%.6f", r->cosine);
        nb_table_pair(*out, text, r->cosine);
        if (r->codes >= 0) nb_table_int(*out, r->codes);
        else nb_table_text(*out, NULL);
        nb_table_int(*out, (int64_t)r->count);
    }
    return NB_OK;
}

static void add_rows(nb_emit *e, const char *key, const nb_table *t, nb_buf *out)
{
    nb_buf rows = {0};
    nb_table_print(t, NB_TABLE_JSON, &rows);
    nb_emit_raw(e, key, rows.data ? rows.data : "[]");
    out->failed = out->failed || rows.failed;
    nb_buf_free(&rows);
}

static nb_status report(const options *opt, const nb_diff *d, nb_error *err)
{
    nb_table *differences = NULL, *notes = NULL, *values = NULL;
    nb_buf    out = {0};
    nb_status s = difference_table(&differences, d, false, err);
    if (s == NB_OK) s = difference_table(&notes, d, true, err);
    if (s == NB_OK) s = value_table(&values, d, err);
    if (s == NB_OK && nb_json_wanted()) {
        nb_emit e = nb_emit_start(&out, true);
        nb_emit_open(&e, NULL, '{');
        nb_emit_bool(&e, "same", d->differing == 0);
        nb_emit_bool(&e, "values_compared", opt->values);
        add_rows(&e, "differences", differences, &out);
        add_rows(&e, "notes", notes, &out);
        add_rows(&e, "values", values, &out);
        if (opt->values) nb_emit_int(&e, "tensors_with_equal_values", (int64_t)d->same_values);
        nb_emit_close(&e);
    } else if (s == NB_OK) {
        if (nb_table_rows(differences)) nb_table_print(differences, NB_TABLE_MD, &out), nb_buf_char(&out, '\n');
        if (nb_table_rows(values)) nb_table_print(values, NB_TABLE_MD, &out), nb_buf_char(&out, '\n');
        if (nb_table_rows(notes) && nb_verbose()) nb_table_print(notes, NB_TABLE_MD, &out), nb_buf_char(&out, '\n');
        nb_buf_printf(&out, d->differing ? "%zu differences" : "the same", d->differing);
        if (nb_table_rows(notes) && !nb_verbose())
            nb_buf_printf(&out, ", and %zu that mean nothing (-v lists them)", nb_table_rows(notes));
        if (opt->values) nb_buf_printf(&out, "; the values of %llu tensors are equal", (unsigned long long)d->same_values);
        else if (!opt->config_only && !d->differing) nb_buf_str(&out, "; values were not compared (--values)");
        nb_buf_char(&out, '\n');
    }
    if (s == NB_OK) s = nb_print(&out, err);
    nb_table_free(differences);
    nb_table_free(notes);
    nb_table_free(values);
    nb_buf_free(&out);
    return s;
}

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    const options    *opt = opaque;
    const char *const both[] = {opt->a, opt->b};
    nb_diff           d = {0};
    (void)args;
    for (int i = 0; i < 2; i++)
        if (!nb_is_directory(both[i]))
            return nb_fail(err, NB_ERR_INPUT, "%s: no such directory; give two checkpoint directories", both[i]);
    if (opt->values && opt->config_only) return nb_fail(err, NB_ERR_ARGUMENT, "--values and --config-only exclude each other");
    nb_status s = nb_diff_side_files(&d, opt->a, opt->b, err);
    if (s == NB_OK && !opt->config_only) s = nb_diff_tokenizer(&d, opt->a, opt->b, err);
    if (s == NB_OK && !opt->config_only) s = nb_diff_weights(&d, opt->a, opt->b, opt->values, err);
    if (s == NB_OK && d.failed) s = nb_fail(err, NB_ERR_MEMORY, "out of memory for differences");
    if (s == NB_OK) s = report(opt, &d, err);
    bool differs = d.differing > 0;
    nb_diff_free(&d);
    return s == NB_OK && differs ? NB_DIFFERS : s; /* without words: the report has them */
}

const nb_command nb_command_diff = {
    .name = "diff",
    .summary = "tell what differs between two checkpoints, by meaning",
    .usage = "A B [--values] [flags]",
    .about = "Compares configs (by JSON path, whatever the order; spellings and missing keys that mean the same are notes), "
             "tokenizers "
             "(vocabulary, merges, added tokens), chat templates, processors, and tensors (names in either layout, forms, "
             "shapes, types). "
             "With --values the weights are read, a piece at a time, and each matrix is compared as what it means, however it "
             "is stored. "
             "The exit code is 0 when the two are the same and 1 when they differ.",
    .examples = "  nibble diff my-2b my-2b-awq --values\n"
                "  nibble diff checkpoint-100 checkpoint-200 --json\n",
    .blocks = blocks,
    .options_size = sizeof(options),
    .run = run,
};
