/* journal_text.c - JSON lines, each with the xxHash64 of itself as its last member.
 *
 *     {"journal":2,"begun":"2026-01-31T12:00:00Z"}         the first line
 *     {"is":"--bits","value":"4"}                          what must not change
 *     {"layer":3,"site":0,"bytes":...,"hash":...,...}      the matrices of a site of the layer that is worked on
 *     {"layer":3,"bytes":...,"hash":...,...}               a layer; replaces its sites
 *     {"hidden":4,"generation":5,...}                      the inputs of layer 4 are in a spool, with "original_generation" and so on
 *                                                          those of the original stream in another
 *     {"committing":...}                                   the result is complete and about to get its name
 *
 * Numbers of 64 bits are 16 hexadecimal digits: JSON's own numbers are doubles.
 */
#include "quant/journal_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define CHECK ",\"check\":\""

void nb_journal_text_free(nb_journal_text *t)
{
    for (size_t i = 0; i < t->said_count; i++) {
        free(t->said[i].what);
        free(t->said[i].value);
    }
    free(t->said);
    free(t->layers);
    free(t->start);
    memset(t, 0, sizeof *t);
}

nb_status nb_journal_push_said(nb_journal_text *t, const char *what, const char *value, nb_error *err)
{
    NB_TRY(nb_grow(&t->said, &t->said_capacity, t->said_count + 1, sizeof *t->said, "a journal", err));
    nb_journal_said *s = &t->said[t->said_count++];
    *s = (nb_journal_said){.what = nb_strdup(what), .value = nb_strdup(value)};
    return s->what && s->value ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "out of memory for a journal");
}

nb_status nb_journal_push_layer(nb_journal_text *t, const nb_layer_record *record, uint64_t start, nb_error *err)
{
    NB_TRY(nb_grow(&t->layers, &t->layer_capacity, t->layer_count + 1, sizeof *t->layers, "a journal", err));
    NB_TRY(nb_grow(&t->start, &t->start_capacity, t->layer_count + 1, sizeof *t->start, "a journal", err));
    t->layers[t->layer_count] = *record;
    t->start[t->layer_count++] = start;
    t->site_count = 0;
    return NB_OK;
}

void nb_journal_push_site(nb_journal_text *t, const nb_layer_record *record, uint64_t start)
{
    t->site_start[t->site_count] = start;
    t->sites[t->site_count++] = *record;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static bool get_hex(const cJSON *item, uint64_t *out)
{
    const char *text = cJSON_GetStringValue(item);
    return text && strlen(text) == 16 && strspn(text, "0123456789abcdef") == 16 && sscanf(text, "%16" SCNx64, out) == 1;
}

static bool get_number(const cJSON *item, double *out)
{
    *out = cJSON_IsNumber(item) ? item->valuedouble : 0;
    return cJSON_IsNumber(item);
}

/* A layer, or with site >= 0 the matrices of one. */
static bool get_record(const cJSON *o, nb_layer_record *r, int site)
{
    const cJSON *matrices = nb_json_find(o, "matrices"), *source = nb_json_find(o, "source");
    int          first = site < 0 ? 0 : nb_site_first[site], count = site < 0 ? NB_LINEARS : nb_site_count[site];
    double       v[6], max;
    if (!get_hex(nb_json_find(o, "hash"), &r->hash) || !get_hex(nb_json_find(o, "bytes"), &r->bytes) ||
        cJSON_GetArraySize(matrices) != count ||
        cJSON_GetArraySize(source) != NB_LINEARS)
        return false;
    for (int s = 0; s < NB_SITES; s++) {
        if (!get_number(cJSON_GetArrayItem(nb_json_find(o, "site_max"), s), &max)) return false;
        r->site_max[s] = (float)max;
    }
    for (int i = 0; i < NB_LINEARS; i++)
        if (!get_hex(cJSON_GetArrayItem(source, i), &r->source[i])) return false;
    for (int i = 0; i < count; i++) {
        for (int k = 0; k < 6; k++)
            if (!get_number(cJSON_GetArrayItem(cJSON_GetArrayItem(matrices, i), k), &v[k])) return false;
        r->matrices[first + i] = (nb_matrix_report){.loss = v[0], .rtn_loss = v[1], .damp = v[2], .ratio = v[3], .dead = (int)v[4],
                                                    .fallback = v[5] != 0};
    }
    return true;
}

static nb_status take_layer(nb_journal_text *t, const cJSON *o, uint64_t start, bool *valid, nb_error *err)
{
    nb_layer_record record = {0};
    double          layer, site;
    *valid = get_number(nb_json_find(o, "layer"), &layer) && layer == (double)t->layer_count;
    if (!*valid) return NB_OK;
    if (!nb_json_find(o, "site")) {
        *valid = get_record(o, &record, -1);
        return *valid ? nb_journal_push_layer(t, &record, start, err) : NB_OK;
    }
    *valid = get_number(nb_json_find(o, "site"), &site) && t->site_count < NB_SITES && site == (double)t->site_count &&
             get_record(o, &record, t->site_count);
    if (*valid) nb_journal_push_site(t, &record, start);
    return NB_OK;
}

/* The fields of a mark, by name, with the prefix that the original stream's have. */
typedef struct {
    const char *name[2];
    size_t      at; /* in nb_spool_mark */
} mark_field;
static const mark_field mark_fields[] = {
    {{"generation", "original_generation"}, offsetof(nb_spool_mark, generation)}, {{"bytes", "original_bytes"}, offsetof(nb_spool_mark, bytes)},
    {{"samples", "original_samples"}, offsetof(nb_spool_mark, samples)}, {{"chunk", "original_chunk"}, offsetof(nb_spool_mark, chunk)},
    {{"hash", "original_hash"}, offsetof(nb_spool_mark, hash)}};

static bool get_mark(const cJSON *o, nb_spool_mark *mark, bool original)
{
    for (size_t i = 0; i < NB_COUNT(mark_fields); i++)
        if (!get_hex(nb_json_find(o, mark_fields[i].name[original]), (uint64_t *)((char *)mark + mark_fields[i].at))) return false;
    return true;
}

static bool take_states(nb_journal_text *t, const cJSON *o)
{
    nb_states_record r = {0};
    double           layer;
    bool good = get_number(nb_json_find(o, "hidden"), &layer) && layer >= 0 && layer <= (double)t->layer_count && get_mark(o, &r.mark, false);
    if (!good) return false;
    r.layer = (size_t)layer;
    r.twin = nb_json_find(o, mark_fields[0].name[true]) != NULL;
    if (r.twin && !get_mark(o, &r.original, true)) return false;
    t->states = r;
    t->has_states = true;
    return true;
}

static nb_status take_object(nb_journal_text *t, const cJSON *o, uint64_t start, bool *valid, nb_error *err)
{
    const char  *what = cJSON_GetStringValue(nb_json_find(o, "is")), *value = cJSON_GetStringValue(nb_json_find(o, "value"));
    const char  *begun = cJSON_GetStringValue(nb_json_find(o, "begun"));
    const cJSON *committing = nb_json_find(o, "committing");
    double       format;
    *valid = true;
    if (get_number(nb_json_find(o, "journal"), &format)) {
        t->format = (int)format;
        snprintf(t->begun, sizeof t->begun, "%s", begun ? begun : "");
    } else if (what && value) {
        return nb_journal_push_said(t, what, value, err);
    } else if (nb_json_find(o, "layer")) {
        return take_layer(t, o, start, valid, err);
    } else if (committing) {
        t->committing = *valid = get_hex(cJSON_GetArrayItem(committing, 0), &t->partial[0]) &&
                                 get_hex(cJSON_GetArrayItem(committing, 1), &t->partial[1]);
    } else {
        *valid = take_states(t, o);
    }
    return NB_OK;
}

nb_status nb_journal_take(nb_journal_text *t, const char *line, size_t n, uint64_t start, bool *valid, nb_error *err)
{
    const size_t tail = strlen(CHECK) + 16 + 2; /* ,"check":"0123456789abcdef"} */
    char         want[17];
    nb_error     ignored;
    cJSON       *o;
    *valid = false;
    if (n <= tail || memcmp(line + n - tail, CHECK, strlen(CHECK))) return NB_OK;
    snprintf(want, sizeof want, "%016" PRIx64, (uint64_t)XXH64(line, n - tail, 0));
    if (memcmp(line + n - 18, want, 16) || nb_json_parse(&o, line, n, "a journal", &ignored)) return NB_OK;
    nb_status status = take_object(t, o, start, valid, err);
    cJSON_Delete(o);
    return status;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* The line began at byte `from` of out. */
static void end_line(nb_buf *out, size_t from)
{
    if (!out->failed) nb_buf_printf(out, CHECK "%016" PRIx64 "\"}\n", (uint64_t)XXH64(out->data + from, out->size - from, 0));
}

static void put_hex(nb_buf *out, const char *key, uint64_t value)
{
    nb_buf_printf(out, ",\"%s\":\"%016" PRIx64 "\"", key, value);
}

void nb_journal_put_head(nb_buf *out, const char *begun)
{
    size_t from = out->size;
    nb_buf_printf(out, "{\"journal\":%d,\"begun\":\"%s\"", NB_JOURNAL_FORMAT, begun);
    end_line(out, from);
}

void nb_journal_put_said(nb_buf *out, const char *what, const char *value)
{
    size_t from = out->size;
    nb_buf_str(out, "{\"is\":");
    nb_buf_json_string(out, what, strlen(what));
    nb_buf_str(out, ",\"value\":");
    nb_buf_json_string(out, value, strlen(value));
    end_line(out, from);
}

void nb_journal_put_layer(nb_buf *out, const nb_layer_record *r, size_t layer, int site)
{
    size_t from = out->size;
    int    first = site < 0 ? 0 : nb_site_first[site], count = site < 0 ? NB_LINEARS : nb_site_count[site];
    nb_buf_printf(out, "{\"layer\":%zu", layer);
    if (site >= 0) nb_buf_printf(out, ",\"site\":%d", site);
    put_hex(out, "bytes", r->bytes);
    put_hex(out, "hash", r->hash);
    nb_buf_str(out, ",\"source\":[");
    for (int i = 0; i < NB_LINEARS; i++) nb_buf_printf(out, "%s\"%016" PRIx64 "\"", i ? "," : "", r->source[i]);
    nb_buf_str(out, "],\"site_max\":");
    for (int s = 0; s < NB_SITES; s++) {
        nb_buf_char(out, s ? ',' : '[');
        nb_buf_json_number(out, (double)r->site_max[s]);
    }
    nb_buf_str(out, "],\"matrices\":[");
    for (int i = first; i < first + count; i++) {
        const nb_matrix_report *m = &r->matrices[i];
        const double            v[6] = {m->loss, m->rtn_loss, m->damp, m->ratio, m->dead, m->fallback};
        nb_buf_str(out, i > first ? ",[" : "[");
        for (int k = 0; k < 6; k++) {
            if (k) nb_buf_char(out, ',');
            nb_buf_json_number(out, v[k]);
        }
        nb_buf_char(out, ']');
    }
    nb_buf_char(out, ']');
    end_line(out, from);
}

static void put_mark(nb_buf *out, const nb_spool_mark *mark, bool original)
{
    for (size_t i = 0; i < NB_COUNT(mark_fields); i++)
        put_hex(out, mark_fields[i].name[original], *(const uint64_t *)((const char *)mark + mark_fields[i].at));
}

void nb_journal_put_states(nb_buf *out, const nb_states_record *r)
{
    size_t from = out->size;
    nb_buf_printf(out, "{\"hidden\":%zu", r->layer);
    put_mark(out, &r->mark, false);
    if (r->twin) put_mark(out, &r->original, true);
    end_line(out, from);
}

void nb_journal_put_committing(nb_buf *out, const uint64_t partial[2])
{
    size_t from = out->size;
    nb_buf_printf(out, "{\"committing\":[\"%016" PRIx64 "\",\"%016" PRIx64 "\"]", partial[0], partial[1]);
    end_line(out, from);
}
