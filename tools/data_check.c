/* data_check.c - `nibble data check`: what is wrong with a data set and what it would cost, before anything is computed.
 *
 * One pass, in fixed memory: counts and histograms, the last rows' signatures for duplicates, and as many complaints as are
 * to be listed.  A bad row does not end the pass, unless the file cannot be read behind it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli/output.h"
#include "tools/cli/progress.h"
#include "tools/data.h"
#include "tools/data_report.h"
#include "tools/data_script.h"
#include "tools/data_similar.h"

static nb_status add_line(nb_data_list *list, const char *text, int64_t limit, nb_error *err)
{
    if (list->total++ >= (uint64_t)limit) return NB_OK;
    NB_TRY(nb_grow(&list->lines, &list->capacity, list->count + 1, sizeof *list->lines, "the report", err));
    list->lines[list->count] = nb_strdup(text);
    if (!list->lines[list->count]) return nb_fail(err, NB_ERR_MEMORY, "no memory for the report");
    list->count++;
    return NB_OK;
}

static void free_list(nb_data_list *list)
{
    for (size_t i = 0; i < list->count; i++) free(list->lines[i]);
    free(list->lines);
    *list = (nb_data_list){0};
}

/* What is found out about a chat while others are read. */
typedef struct {
    nb_similar_sketch sketch;
    nb_script_count   scripts;
    bool              marks; /* <image> or <video> is there as text */
} looked;

static void look(const void *context, const nb_chat *chat, void *seen)
{
    looked *l = seen;
    nb_similar_look(context, &l->sketch, chat);
    for (int i = 0; i < chat->count; i++)
        for (int j = 0; j < chat->messages[i].count; j++)
            if (chat->messages[i].parts[j].kind == NB_PART_TEXT) {
                const char *text = chat->messages[i].parts[j].text;
                nb_script_add(&l->scripts, text);
                l->marks = l->marks || strstr(text, "<image>") || strstr(text, "<video>");
            }
}

static void count_scripts(nb_data_report *r, const nb_script_count *c)
{
    for (int i = 0; i < NB_SCRIPTS; i++) r->scripts[i] += c->characters[i];
    r->script_rows[nb_script_main(c)]++;
}

static void count_role(nb_data_report *r, const char *role)
{
    int i = 0;
    while (i < r->role_count && strcmp(r->roles[i].name, role) != 0) i++;
    if (i == NB_DATA_ROLES) {
        r->other_roles++;
        return;
    }
    if (i == r->role_count) snprintf(r->roles[r->role_count++].name, sizeof r->roles[i].name, "%s", role);
    r->roles[i].count++;
}

static void count_chat(nb_data_report *r, const nb_chat *chat)
{
    size_t turns = 0;
    bool   image = false, video = false;
    for (int i = 0; i < chat->count; i++) {
        const nb_message *m = &chat->messages[i];
        count_role(r, m->role);
        turns += !strcmp(m->role, "assistant");
        for (int j = 0; j < m->count; j++) {
            if (m->parts[j].kind == NB_PART_TEXT) r->text_bytes += strlen(m->parts[j].text);
            r->pictures += m->parts[j].kind == NB_PART_IMAGE;
            r->videos += m->parts[j].kind == NB_PART_VIDEO;
            image = image || m->parts[j].kind == NB_PART_IMAGE;
            video = video || m->parts[j].kind == NB_PART_VIDEO;
        }
    }
    nb_histogram_add(&r->turns, turns);
    r->with_pictures += image;
    r->with_videos += video;
    r->with_tools += chat->tools != NULL;
    r->with_system += chat->count && !strcmp(chat->messages[0].role, "system");
    r->without_answer += !chat->count || strcmp(chat->messages[chat->count - 1].role, "assistant") != 0;
}

/* How many pixels each picture of the row may have so that the row fits seq_len; what the text leaves is shared evenly. */
static void count_room(nb_data_report *r, const nb_data_job *job, const nb_data_row *row)
{
    size_t side = (size_t)job->processor.patch * (size_t)job->processor.merge, slots = 0;
    for (size_t i = 0; i < row->count; i++) {
        const nb_data_media *m = &row->media[i];
        size_t               frames = m->frames ? (size_t)m->frames : (size_t)job->processor.temporal;
        slots += (frames + (size_t)job->processor.temporal - 1) / (size_t)job->processor.temporal;
    }
    if (!slots || !job->seq_len || !job->tokenizer) return;
    size_t text = row->tokens[NB_TOKEN_TEXT];
    nb_histogram_add(&r->room, text < job->seq_len ? (job->seq_len - text) / slots * side * side : 0);
}

static nb_status count_row(nb_data_report *r, const nb_data_job *job, const nb_data_row *row, int file, const char *where,
                           nb_error *err)
{
    size_t total = row->tokens[0] + row->tokens[1] + row->tokens[2];
    for (size_t i = 0; i < row->count; i++) {
        const nb_data_media *m = &row->media[i];
        if (!m->size.height) r->not_looked_at++;
        if (!m->size.height) continue;
        nb_histogram_add(&r->pixels, (uint64_t)m->natural);
        r->shrunk += m->natural > job->limits.max_pixels;
    }
    count_room(r, job, row);
    if (!job->tokens || (!job->tokenizer && !row->count)) return NB_OK;
    for (int i = 0; i < 3; i++) r->by_modality[i] += row->tokens[i];
    r->answer_tokens += row->answer;
    if (!job->tokenizer) return NB_OK;
    nb_histogram_add(&r->tokens, total);
    r->files[file].tokens += total;
    unsigned octave = total ? 63 - (unsigned)__builtin_clzll(total) : 0;
    for (int i = 0; i < 3; i++) {
        r->octave[octave][i] += row->tokens[i];
        if (row->tokens[i]) nb_histogram_add(&r->modality[i], row->tokens[i]);
    }
    r->octave_rows[octave]++;
    if (!job->seq_len || total <= job->seq_len) return NB_OK;
    char text[400];
    snprintf(text, sizeof text, "%s: %zu tokens (%zu of text, %zu of pictures)", where, total, row->tokens[NB_TOKEN_TEXT],
             total - row->tokens[NB_TOKEN_TEXT]);
    return add_line(&r->too_long, text, job->listed, err);
}

static nb_status count_likeness(nb_data_report *r, const nb_data_job *job, nb_similar *similar, const nb_similar_sketch *sketch,
                                int file, size_t line, const char *where, nb_error *err)
{
    nb_similar_match match = nb_similar_add_sketch(similar, sketch, file, line);
    char             text[512], like[32] = "is the same as";
    if (match.file < 0) return NB_OK;
    if (!match.exact) snprintf(like, sizeof like, "is like (%.2f)", match.share);
    if (match.file == file)
        snprintf(text, sizeof text, "%s %s line %zu", where, like, match.line);
    else
        snprintf(text, sizeof text, "%s %s %.200s line %zu", where, like, job->sources[match.file].path, match.line);
    r->same += match.exact;
    return add_line(&r->alike, text, job->listed, err);
}

/* The facts about a file, when its last row was read. */
static void close_file(void *context, const nb_data_walk *walk)
{
    nb_data_report *r = context;
    nb_data_file   *f = &r->files[walk->file];
    f->form = nb_dataset_form(walk->data);
    f->packing = nb_dataset_packing(walk->data);
    f->bytes = nb_dataset_size(walk->data);
    f->rows = nb_dataset_rows(walk->data) - nb_dataset_skipped(walk->data);
    f->skipped = nb_dataset_skipped(walk->data);
    f->lost = walk->lost;
}

enum { PROMPT_BYTES = 1500 };

/* One of the first rows, to be shown; it is rendered even when nothing is counted. */
static nb_status keep_prompt(nb_data_report *r, const nb_data_job *job, const nb_chat *chat, nb_data_row *row, const char *root,
                             const char *where, nb_error *err)
{
    if (r->prompt_count >= job->rows) return NB_OK;
    if (!job->tokens) NB_TRY(nb_data_measure(row, job, chat, root, where, err));
    nb_buf *out = &r->prompts[r->prompt_count++];
    nb_data_show_row(out, job, chat, row, where, PROMPT_BYTES);
    return nb_buf_status(out, "a prompt", err);
}

static nb_status check_rows(nb_data_report *r, nb_data_walk *walk, nb_similar *similar, nb_error *err)
{
    const nb_data_job *job = walk->job;
    nb_meter           meter;
    bool               end = false;
    nb_status          status = NB_OK;
    nb_meter_start(&meter, "check");
    while (!status && !end) {
        nb_chat     chat;
        nb_data_row row = {0};
        char        where[256];
        status = nb_data_next(walk, &chat, where, &end, close_file, r, err);
        if (!status && end) break;
        if (!walk->data) break; /* a file that could not be opened */
        if (!status && job->tokens) status = nb_data_measure(&row, job, &chat, nb_dataset_root(walk->data), where, err);
        bool picture = status == NB_ERR_IO || status == NB_ERR_ARGUMENT; /* not fetched in time, or not to be fetched */
        if (row.failed && picture) status = NB_ERR_INPUT;
        if (status == NB_ERR_INPUT || status == NB_ERR_UNSUPPORTED) {
            r->files[walk->file].bad++;
            r->bad_pictures += row.failed;
            status = add_line(&r->bad, err->text, job->listed, err);
        } else if (!status) {
            count_chat(r, &chat);
            status = keep_prompt(r, job, &chat, &row, nb_dataset_root(walk->data), where, err);
            if (!status) status = count_row(r, job, &row, walk->file, where, err);
            const looked *l = nb_dataset_seen(walk->data);
            count_scripts(r, &l->scripts);
            r->marks_as_text += l->marks;
            if (!status)
                status = count_likeness(r, job, similar, &l->sketch, walk->file, nb_dataset_line(walk->data), where, err);
        }
        nb_meter_update(&meter, (size_t)nb_data_progress(walk), (size_t)nb_dataset_size(walk->data),
                        job->sources[walk->file].path);
        nb_data_row_free(&row);
        nb_chat_free(&chat);
    }
    nb_meter_finish(&meter);
    return status;
}

nb_status nb_data_check(const nb_data_job *job, nb_error *err)
{
    nb_data_report *r = NULL;
    nb_data_job     own = *job;
    nb_data_walk    walk = {.job = &own};
    nb_similar     *similar = NULL;
    nb_buf          text = {0};
    NB_TRY(nb_alloc(&r, 1, sizeof *r, "the report", err));
    nb_status status = nb_alloc(&r->files, (size_t)job->count, sizeof *r->files, "the report", err);
    if (!status) status = nb_alloc(&r->prompts, (size_t)job->rows, sizeof *r->prompts, "the report", err);
    if (!status) status = nb_similar_new(&similar, err);
    own.dataset.drop_rows = true;
    own.dataset.look = look;
    own.dataset.look_context = similar;
    own.dataset.look_size = sizeof(looked);
    if (!status) status = check_rows(r, &walk, similar, err);
    if (!status) {
        nb_data_report_print(&text, r, job);
        status = nb_print(&text, err);
    }
    if (!status && r->bad.total)
        status = nb_fail(err, NB_ERR_INPUT, "%llu of the rows cannot be used; the report says why",
                         (unsigned long long)r->bad.total);
    nb_data_walk_close(&walk);
    nb_similar_free(similar);
    nb_buf_free(&text);
    free_list(&r->bad);
    free_list(&r->too_long);
    free_list(&r->alike);
    for (int64_t i = 0; r->prompts && i < r->prompt_count; i++) nb_buf_free(&r->prompts[i]);
    free(r->prompts);
    free(r->files);
    free(r);
    return status;
}
