/* artifact_read.c - one artifact or several: the sums of a site are read chunk by chunk and added to what is there already. */
#include <stdlib.h>
#include <string.h>

#include "calib/artifact_info.h"
#include "runtime/io/file.h"

struct nb_artifact {
    nb_artifact_info info;  /* of all together */
    size_t           count;
    char           **directories;
};

void nb_artifact_close(nb_artifact *a)
{
    if (!a) return;
    for (size_t i = 0; a->directories && i < a->count; i++) free(a->directories[i]);
    free(a->directories);
    free(a);
}

static nb_status open_each(nb_artifact *a, const char *const *directories, nb_error *err)
{
    NB_TRY(nb_alloc(&a->directories, a->count, sizeof *a->directories, "artifacts", err));
    for (size_t i = 0; i < a->count; i++) {
        nb_artifact_info info;
        a->directories[i] = nb_strdup(directories[i]);
        if (!a->directories[i]) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", directories[i]);
        NB_TRY(nb_artifact_info_read(&info, directories[i], err));
        if (i == 0)
            a->info = info;
        else
            NB_TRY(nb_artifact_join(&a->info, &info, i > 1 ? "the artifacts before" : directories[0], directories[i], err));
    }
    return NB_OK;
}

nb_status nb_artifact_open(nb_artifact **out, const char *const *directories, size_t count, nb_error *err)
{
    *out = NULL;
    if (count == 0) return nb_fail(err, NB_ERR_ARGUMENT, "no artifact was named");
    NB_TRY(nb_alloc(out, 1, sizeof **out, "an artifact", err));
    (*out)->count = count;
    nb_status status = open_each(*out, directories, err);
    if (status) {
        nb_artifact_close(*out);
        *out = NULL;
    }
    return status;
}

const nb_artifact_info *nb_artifact_about(const nb_artifact *a)
{
    return &a->info;
}

/* ---- sums -------------------------------------------------------------------------------------------------------------- */

static void add_columns(nb_stats *s, const uint64_t *words)
{
    size_t k = (size_t)s->k;
    for (int i = 0; i < NB_TOKEN_KINDS; i++) s->tokens[i] += words[i];
    words += NB_TOKEN_KINDS;
    for (size_t i = 0; i < 2 * k; i++) s->sums.sum_abs[i] = nb_fixed_sum(s->sums.sum_abs[i], (int64_t)words[i]);
    words += 2 * k;
    for (size_t i = 0; i < k; i++) {
        uint32_t bits = (uint32_t)(words[i / 2] >> (i % 2 ? 32 : 0));
        float    max;
        memcpy(&max, &bits, sizeof max);
        if (s->max_abs[i] == s->max_abs[i]) s->max_abs[i] = nb_gram_larger(s->max_abs[i], max);
    }
}

static void add_rows(nb_stats *s, size_t first, size_t end, const uint64_t *words)
{
    size_t k = (size_t)s->k;
    for (size_t i = first; i < end; i++) {
        size_t   n = k - i;
        int64_t *high = s->sums.h + i * k + i, *low = s->sums.h + (n - 1) * k;
        for (size_t j = 0; j < n; j++) high[j] = nb_fixed_sum(high[j], (int64_t)words[j]);
        s->sums.diagonal[i] = nb_fixed_sum(s->sums.diagonal[i], (int64_t)words[n]);
        for (size_t j = 1; j < n; j++) low[j - 1] = nb_fixed_sum(low[j - 1], (int64_t)words[n + j]);
        words += 2 * n;
    }
}

/* The chunks of a site and part, added when it is the wanted one and otherwise passed over. */
static nb_status take_site(nb_chunks *c, nb_stats *s, size_t k, nb_chunk_head head, nb_error *err)
{
    head.first = NB_CHUNK_COLUMNS;
    head.words = nb_chunk_columns(k);
    NB_TRY((s ? nb_chunks_read : nb_chunks_skip)(c, head, err));
    if (s) add_columns(s, nb_chunks_words(c));
    for (size_t first = 0, end, words; first < k; first = end) {
        end = nb_chunk_rows(k, first, &words);
        head.first = first;
        head.words = words;
        NB_TRY((s ? nb_chunks_read : nb_chunks_skip)(c, head, err));
        if (s) add_rows(s, first, end, nb_chunks_words(c));
    }
    return NB_OK;
}

static nb_status add_from(const nb_artifact *a, const char *path, nb_stats *s, int layer, nb_site site, int part, nb_error *err)
{
    nb_chunks *c;
    NB_TRY(nb_chunks_open(&c, path, nb_artifact_largest(&a->info), err));
    nb_status status = NB_OK;
    for (int i = 0; i < NB_SITES && !status; i++)
        for (int p = 0; p < nb_artifact_parts(&a->info) && !status; p++) {
            bool wanted = i == (int)site && p == part;
            status = take_site(c, wanted ? s : NULL, (size_t)a->info.k[i],
                               (nb_chunk_head){.layer = (uint32_t)layer, .site = (uint32_t)i, .part = (uint32_t)p}, err);
        }
    if (!status) status = nb_chunks_end(c, err);
    nb_chunks_close(c);
    return status;
}

nb_status nb_artifact_add(const nb_artifact *a, nb_stats *s, int layer, nb_site site, int part, nb_pool *pool, nb_error *err)
{
    for (size_t i = 0; i < a->count; i++) {
        char *path = nb_artifact_layer_path(a->directories[i], layer);
        if (!path) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", a->directories[i]);
        nb_status status = add_from(a, path, s, layer, site, part, err);
        free(path);
        if (status) return status;
        nb_stats_carry(s, pool); /* so that any number can be added */
    }
    return NB_OK;
}
