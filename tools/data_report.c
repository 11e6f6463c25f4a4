/* data_report.c - see data_report.h. */
#include "tools/data_report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calib/mix.h"
#include "tools/cli/output.h"
#include "tools/cli/table.h"

enum { CALIBRATION_PIXELS = 1280 * 784, BAR = 48 };

static const char *const modality_names[] = {"text", "image", "video"};

int64_t nb_data_suggest_pixels(const nb_data_report *r, const nb_data_job *job)
{
    int64_t token = (int64_t)job->processor.patch * job->processor.merge * job->processor.patch * job->processor.merge;
    if (!r->pixels.count) return 0;
    int64_t wanted = r->pixels.most < CALIBRATION_PIXELS ? (int64_t)r->pixels.most : CALIBRATION_PIXELS;
    if (r->room.count) {
        int64_t room = (int64_t)nb_histogram_quantile(&r->room, 0.01) / token * token;
        if (room < wanted) wanted = room;
    }
    int64_t least = job->limits.min_pixels ? job->limits.min_pixels : job->processor.min_pixels;
    if (wanted < least) wanted = (least + token - 1) / token * token;
    return wanted;
}

/* ---- the page ----------------------------------------------------------------------------------------------------------- */

static void print_files(nb_buf *out, const nb_data_report *r, const nb_data_job *job)
{
    static const nb_column columns[] = {{.key = "file", .title = "file"}, {.key = "form", .title = "form"},
                                        {.key = "rows", .title = "rows"}, {.key = "bad", .title = "bad"},
                                        {.key = "size", .title = "size", .right = true},
                                        {.key = "tokens", .title = "tokens"},
                                        {.key = "share", .title = "of 128 samples"}};
    nb_table *t;
    nb_error  err;
    size_t   *share = NULL, shown = NB_COUNT(columns) - (job->count < 2) - (job->count < 2 && !r->tokens.count);
    if (nb_alloc(&share, (size_t)job->count, sizeof *share, "shares", &err) ||
        nb_table_new(&t, columns, shown, &err)) {
        free(share);
        out->failed = true;
        return;
    }
    if (shown > 6) nb_mix_shares(share, 128, job->sources, NULL, (size_t)job->count);
    for (int i = 0; i < job->count; i++) {
        const nb_data_file *f = &r->files[i];
        char                form[64], size[64];
        nb_human_bytes(size, (double)f->bytes);
        snprintf(form, sizeof form, "%s%s%s", nb_data_form_name(f->form), f->packing ? ", " : "", f->packing ? f->packing : "");
        nb_table_text(t, job->sources[i].path);
        nb_table_text(t, form);
        nb_table_int(t, (int64_t)f->rows);
        nb_table_int(t, (int64_t)f->bad);
        nb_table_text(t, size);
        if (shown > 5) nb_table_number(t, r->tokens.count ? (double)f->tokens : NAN);
        if (shown > 6) nb_table_int(t, (int64_t)share[i]);
    }
    free(share);
    nb_table_print(t, NB_TABLE_MD, out);
    nb_table_free(t);
    for (int i = 0; i < job->count; i++) {
        if (r->files[i].lost)
            nb_buf_printf(out, "%s: what stands behind the last bad row could not be read\n", job->sources[i].path);
        if (r->files[i].skipped)
            nb_buf_printf(out, "%s: %zu documents of white space are passed over\n", job->sources[i].path, r->files[i].skipped);
    }
}

static void print_rows(nb_buf *out, const nb_data_report *r)
{
    nb_buf_printf(out, "\nrows        %llu good: %llu with pictures, %llu with videos, %llu with tools, "
                       "%llu with a system message\n",
                  (unsigned long long)r->turns.count, (unsigned long long)r->with_pictures, (unsigned long long)r->with_videos,
                  (unsigned long long)r->with_tools, (unsigned long long)r->with_system);
    nb_buf_str(out, "messages    ");
    for (int i = 0; i < r->role_count; i++)
        nb_buf_printf(out, "%s%llu %s", i ? ", " : "", (unsigned long long)r->roles[i].count, r->roles[i].name);
    if (r->other_roles) nb_buf_printf(out, ", %llu of other roles", (unsigned long long)r->other_roles);
    if (r->turns.count)
        nb_buf_printf(out, "\nanswers     %llu to %llu a row, median about %llu", (unsigned long long)r->turns.least,
                      (unsigned long long)r->turns.most, (unsigned long long)nb_histogram_quantile(&r->turns, 0.5));
    if (r->without_answer)
        nb_buf_printf(out, "; %llu rows do not end with one (eval refuses them)",
                      (unsigned long long)r->without_answer);
    nb_buf_str(out, "\n");
}

static void print_marks(nb_buf *out, const nb_data_report *r)
{
    if (r->marks_as_text)
        nb_buf_printf(out, "marks       %llu rows hold <image> or <video> as plain text: they have no list of pictures\n",
                      (unsigned long long)r->marks_as_text);
}

/* The largest first, those of a tenth of a percent and more. */
static void print_scripts(nb_buf *out, const nb_data_report *r)
{
    uint64_t total = 0, before = UINT64_MAX;
    int      shown = 0, last = -1;
    for (int i = 0; i < NB_SCRIPTS; i++) total += r->scripts[i];
    if (!total) return;
    nb_buf_str(out, "scripts     ");
    for (;; shown++) {
        int best = -1;
        for (int i = 0; i < NB_SCRIPTS; i++) {
            bool later = r->scripts[i] < before || (r->scripts[i] == before && i > last);
            if (later && r->scripts[i] * 1000 >= total && (best < 0 || r->scripts[i] > r->scripts[best])) best = i;
        }
        if (best < 0) break;
        nb_buf_printf(out, "%s%s %.1f %%", shown ? ", " : "", nb_script_name((nb_script)best), 100.0 * (double)r->scripts[best] / (double)total);
        if (r->script_rows[best]) nb_buf_printf(out, " (%llu rows)", (unsigned long long)r->script_rows[best]);
        before = r->scripts[best];
        last = best;
    }
    nb_buf_str(out, "\n");
}

static void print_pictures(nb_buf *out, const nb_data_report *r, const nb_data_job *job)
{
    int64_t suggested = nb_data_suggest_pixels(r, job);
    if (!r->pictures && !r->videos) return;
    nb_buf_printf(out, "pictures    %llu, and %llu videos", (unsigned long long)r->pictures, (unsigned long long)r->videos);
    if (r->pixels.count)
        nb_buf_printf(out, "; %llu to %llu pixels in whole tokens, median about %llu, 95 %% up to %llu",
                      (unsigned long long)r->pixels.least, (unsigned long long)r->pixels.most, (unsigned long long)nb_histogram_quantile(&r->pixels, 0.5),
                      (unsigned long long)nb_histogram_quantile(&r->pixels, 0.95));
    if (r->not_looked_at)
        nb_buf_printf(out, "; %llu behind addresses were not fetched (--deep does)", (unsigned long long)r->not_looked_at);
    nb_buf_str(out, "\n");
    if (suggested)
        nb_buf_printf(out, "max_pixels  %lld is used here and shrinks %llu; suggested: --max-pixels %lld (%lld*28*28)\n",
                      (long long)job->limits.max_pixels, (unsigned long long)r->shrunk, (long long)suggested,
                      (long long)suggested / 784);
}

/* A bar whose length is the share of the rows and whose characters are the modalities' shares of the tokens. */
static void print_bar(nb_buf *out, const uint64_t tokens[3], uint64_t rows, uint64_t most)
{
    int      length = (int)((rows * BAR + most - 1) / most), drawn = 0;
    uint64_t total = tokens[0] + tokens[1] + tokens[2], seen = 0;
    for (int i = 0; i < 3; i++) {
        seen += tokens[i];
        int end = total ? (int)((double)seen / (double)total * length + 0.5) : 0;
        for (; drawn < end; drawn++) nb_buf_char(out, "#o~"[i]);
    }
}

static void print_tokens(nb_buf *out, const nb_data_report *r, const nb_data_job *job)
{
    uint64_t total = r->by_modality[0] + r->by_modality[1] + r->by_modality[2], most = 0;
    if (!r->tokens.count) {
        nb_buf_printf(out, "tokens      %s\n",
                      job->tokens ? "of text are counted when --model names a checkpoint" : "not counted");
        return;
    }
    nb_buf_printf(out, "tokens      %llu: %.1f %% text, %.1f %% pictures, %.1f %% videos; %.1f %% are answers\n",
                  (unsigned long long)total, 100.0 * (double)r->by_modality[0] / (double)total,
                  100.0 * (double)r->by_modality[1] / (double)total, 100.0 * (double)r->by_modality[2] / (double)total,
                  100.0 * (double)r->answer_tokens / (double)total);
    nb_buf_printf(out, "tokens/row  %llu to %llu, median about %llu, 95 %% up to %llu, 99 %% up to %llu\n\n",
                  (unsigned long long)r->tokens.least, (unsigned long long)r->tokens.most,
                  (unsigned long long)nb_histogram_quantile(&r->tokens, 0.5),
                  (unsigned long long)nb_histogram_quantile(&r->tokens, 0.95),
                  (unsigned long long)nb_histogram_quantile(&r->tokens, 0.99));
    int first = 63, last = 0;
    for (int i = 0; i < 64; i++) {
        if (!r->octave_rows[i]) continue;
        if (i < first) first = i;
        last = i;
        if (r->octave_rows[i] > most) most = r->octave_rows[i];
    }
    nb_buf_str(out, "       tokens a row     rows  # text  o pictures  ~ videos\n");
    for (int i = first; i <= last; i++) {
        nb_buf_printf(out, "%8llu .. %-8llu %8llu  ", 1ull << i, (2ull << i) - 1, (unsigned long long)r->octave_rows[i]);
        print_bar(out, r->octave[i], r->octave_rows[i], most);
        nb_buf_str(out, "\n");
    }
}

/* A character an octave, taller for more rows, for each modality that there is. */
static void print_modalities(nb_buf *out, const nb_data_report *r)
{
    static const char height[] = " .:-=+*#";
    nb_buf_str(out, "\n  rows by their tokens of    1   4  16  64 256  1k  4k 16k 64k\n");
    for (int m = 0; m < 3; m++) {
        const nb_histogram *h = &r->modality[m];
        uint64_t            octave[34] = {0}, most = 0;
        if (!h->count) continue;
        for (size_t bin = 0; bin < NB_HISTOGRAM_BINS; bin++) {
            uint64_t top = nb_histogram_top(bin);
            if (!h->bins[bin] || !top) continue;
            unsigned o = 63 - (unsigned)__builtin_clzll(top);
            octave[o < 33 ? o : 33] += h->bins[bin];
        }
        for (size_t o = 0; o < NB_COUNT(octave); o++) most = octave[o] > most ? octave[o] : most;
        nb_buf_printf(out, "  %-8s %7llu rows     |", modality_names[m], (unsigned long long)h->count);
        for (size_t o = 0; o < 18; o++) {
            char c = height[(octave[o] * 7 + most - 1) / most];
            nb_buf_char(out, c);
            nb_buf_char(out, c);
        }
        nb_buf_printf(out, "| %llu to %llu\n", (unsigned long long)h->least, (unsigned long long)h->most);
    }
}

static void print_prompts(nb_buf *out, const nb_data_report *r)
{
    for (int64_t i = 0; i < r->prompt_count; i++) {
        nb_buf_str(out, "\n");
        nb_buf_add(out, r->prompts[i].data, r->prompts[i].size);
    }
}

static void print_list(nb_buf *out, const nb_data_list *list)
{
    for (size_t i = 0; i < list->count; i++) nb_buf_printf(out, "  %s\n", list->lines[i]);
    if (list->total > list->count)
        nb_buf_printf(out, "  and %llu more (--list N shows more)\n", (unsigned long long)(list->total - list->count));
}

static void print_page(nb_buf *out, const nb_data_report *r, const nb_data_job *job)
{
    print_files(out, r, job);
    print_rows(out, r);
    print_scripts(out, r);
    print_marks(out, r);
    if (job->tokens) print_pictures(out, r, job);
    print_tokens(out, r, job);
    if (r->tokens.count) print_modalities(out, r);
    if (r->bad.total) {
        nb_buf_printf(out, "\nbad: %llu rows cannot be used", (unsigned long long)r->bad.total);
        if (r->bad_pictures)
            nb_buf_printf(out, ", %llu of them for a picture or video", (unsigned long long)r->bad_pictures);
        nb_buf_str(out, "\n");
    }
    print_list(out, &r->bad);
    if (r->too_long.total)
        nb_buf_printf(out, "\ndropped: %llu rows are longer than --seq-len %zu\n", (unsigned long long)r->too_long.total,
                      job->seq_len);
    print_list(out, &r->too_long);
    if (r->alike.total)
        nb_buf_printf(out, "\nduplicates: %llu rows say what an earlier one says, %llu of them word for word\n",
                      (unsigned long long)r->alike.total, (unsigned long long)r->same);
    print_list(out, &r->alike);
    if (!r->bad.total && !r->too_long.total && !r->alike.total) nb_buf_str(out, "\nnothing to complain about\n");
    print_prompts(out, r);
}

/* ---- JSON --------------------------------------------------------------------------------------------------------------- */

static void emit_histogram(nb_emit *e, const char *key, const nb_histogram *h)
{
    nb_emit_open(e, key, '{');
    nb_emit_int(e, "count", (int64_t)h->count);
    nb_emit_int(e, "sum", (int64_t)h->sum);
    nb_emit_int(e, "min", (int64_t)h->least);
    nb_emit_int(e, "p50", (int64_t)nb_histogram_quantile(h, 0.5));
    nb_emit_int(e, "p95", (int64_t)nb_histogram_quantile(h, 0.95));
    nb_emit_int(e, "p99", (int64_t)nb_histogram_quantile(h, 0.99));
    nb_emit_int(e, "max", (int64_t)h->most);
    nb_emit_close(e);
}

static void emit_list(nb_emit *e, const char *key, const nb_data_list *list)
{
    nb_emit_open(e, key, '{');
    nb_emit_int(e, "count", (int64_t)list->total);
    nb_emit_open(e, "first", '[');
    for (size_t i = 0; i < list->count; i++) nb_emit_string(e, NULL, list->lines[i]);
    nb_emit_close(e);
    nb_emit_close(e);
}

static void print_json(nb_buf *out, const nb_data_report *r, const nb_data_job *job)
{
    nb_emit e = nb_emit_start(out, false);
    nb_emit_open(&e, NULL, '{');
    nb_emit_open(&e, "files", '[');
    for (int i = 0; i < job->count; i++) {
        const nb_data_file *f = &r->files[i];
        nb_emit_open(&e, NULL, '{');
        nb_emit_string(&e, "file", job->sources[i].path);
        nb_emit_string(&e, "form", nb_data_form_name(f->form));
        nb_emit_string(&e, "packing", f->packing);
        nb_emit_int(&e, "bytes", (int64_t)f->bytes);
        nb_emit_int(&e, "rows", (int64_t)f->rows);
        nb_emit_int(&e, "bad", (int64_t)f->bad);
        nb_emit_int(&e, "blank", (int64_t)f->skipped);
        nb_emit_number(&e, "weight", job->sources[i].weight);
        if (job->tokenizer) nb_emit_int(&e, "tokens", (int64_t)f->tokens);
        nb_emit_bool(&e, "rest_lost", f->lost);
        nb_emit_close(&e);
    }
    nb_emit_close(&e);
    nb_emit_int(&e, "good", (int64_t)r->turns.count);
    nb_emit_open(&e, "messages", '{');
    for (int i = 0; i < r->role_count; i++) nb_emit_int(&e, r->roles[i].name, (int64_t)r->roles[i].count);
    nb_emit_close(&e);
    emit_histogram(&e, "answers_per_row", &r->turns);
    for (int k = 0; k < 2; k++) {
        nb_emit_open(&e, k ? "rows_by_script" : "scripts", '{');
        for (int i = 0; i < NB_SCRIPTS; i++) {
            uint64_t n = k ? r->script_rows[i] : r->scripts[i];
            if (n) nb_emit_int(&e, nb_script_name((nb_script)i), (int64_t)n);
        }
        nb_emit_close(&e);
    }
    nb_emit_int(&e, "with_pictures", (int64_t)r->with_pictures);
    nb_emit_int(&e, "with_videos", (int64_t)r->with_videos);
    nb_emit_int(&e, "with_tools", (int64_t)r->with_tools);
    nb_emit_int(&e, "with_system", (int64_t)r->with_system);
    nb_emit_int(&e, "without_answer", (int64_t)r->without_answer);
    nb_emit_int(&e, "marks_as_text", (int64_t)r->marks_as_text);
    nb_emit_int(&e, "pictures", (int64_t)r->pictures);
    nb_emit_int(&e, "videos", (int64_t)r->videos);
    if (job->tokens) {
        emit_histogram(&e, "pixels", &r->pixels);
        nb_emit_int(&e, "max_pixels", job->limits.max_pixels);
        nb_emit_int(&e, "shrunk", (int64_t)r->shrunk);
        int64_t suggested = nb_data_suggest_pixels(r, job);
        if (suggested) nb_emit_int(&e, "suggested_max_pixels", suggested);
        if (job->tokenizer) emit_histogram(&e, "tokens_per_row", &r->tokens);
        for (int i = job->tokenizer ? 0 : 1; i < 3; i++) {
            char key[32];
            snprintf(key, sizeof key, "%s_tokens", modality_names[i]);
            nb_emit_int(&e, key, (int64_t)r->by_modality[i]);
        }
        if (job->tokenizer) {
            nb_emit_open(&e, "tokens_by_modality", '{');
            for (int i = 0; i < 3; i++) emit_histogram(&e, modality_names[i], &r->modality[i]);
            nb_emit_close(&e);
        }
        if (job->tokenizer) nb_emit_int(&e, "answer_tokens", (int64_t)r->answer_tokens);
    }
    emit_list(&e, "bad", &r->bad);
    emit_list(&e, "too_long", &r->too_long);
    emit_list(&e, "duplicates", &r->alike);
    nb_emit_int(&e, "exact_duplicates", (int64_t)r->same);
    nb_emit_open(&e, "dropped", '{');
    nb_emit_int(&e, "pictures", (int64_t)r->bad_pictures);
    nb_emit_int(&e, "rows", (int64_t)(r->bad.total - r->bad_pictures));
    nb_emit_int(&e, "too_long", (int64_t)r->too_long.total);
    nb_emit_close(&e);
    nb_emit_open(&e, "prompts", '[');
    for (int64_t i = 0; i < r->prompt_count; i++) {
        nb_buf *p = &r->prompts[i];
        if (p->size && p->data[p->size - 1] == '\n') p->data[--p->size] = 0;
        nb_emit_raw(&e, NULL, p->data);
    }
    nb_emit_close(&e);
    nb_emit_close(&e);
}

void nb_data_report_print(nb_buf *out, const nb_data_report *r, const nb_data_job *job)
{
    if (nb_json_wanted())
        print_json(out, r, job);
    else
        print_page(out, r, job);
}
