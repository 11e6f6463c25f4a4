/* artifact_write.c - an artifact in the making: DIR.partial, which becomes DIR when it is whole.
 *
 * A layer's file is written under another name, brought to disk and renamed, so that one that has its name is whole; artifact.json is
 * there from the beginning and says what the layers are of.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "calib/artifact_info.h"
#include "runtime/io/file.h"

struct nb_artifact_writer {
    nb_artifact_info info;
    char            *out, *partial, *unfinished; /* unfinished: a layer's file while it is written */
    int              lock;
    bool            *has; /* [layers] */
    bool             force, committed;
    uint64_t         written;
};

static nb_status fail_errno(nb_error *err, const char *path, const char *doing)
{
    return nb_fail(err, NB_ERR_IO, "%s: %s: %s", path, doing, strerror(errno));
}

/* ---- the folder -------------------------------------------------------------------------------------------------------- */

static nb_status check_out(const nb_artifact_writer *w, nb_error *err)
{
    nb_artifact_info there;
    struct stat      st;
    if (lstat(w->out, &st)) return errno == ENOENT ? NB_OK : fail_errno(err, w->out, "cannot be looked at");
    if (!w->force) return nb_fail(err, NB_ERR_ARGUMENT, "%s exists; choose another name or give --force", w->out);
    if (nb_artifact_info_read(&there, w->out, NULL))
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: is no calibration artifact, and so is not replaced; choose another name", w->out);
    return NB_OK;
}

static nb_status lock_partial(nb_artifact_writer *w, nb_error *err)
{
    if (mkdir(w->partial, 0777) && errno != EEXIST) return fail_errno(err, w->partial, "cannot be created");
    w->lock = open(w->partial, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (w->lock < 0) return fail_errno(err, w->partial, "cannot be opened");
    if (flock(w->lock, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: another run writes there; wait for it or choose another name", w->partial);
    return NB_OK;
}

/* What an earlier run left is of use when it is of the same information, whatever order it was told in. */
static bool same_info(const nb_artifact_writer *w)
{
    nb_artifact_info there;
    nb_buf           a = {0}, b = {0};
    if (nb_artifact_info_read(&there, w->partial, NULL)) return false;
    nb_artifact_info_print(&a, &there);
    nb_artifact_info_print(&b, &w->info);
    bool same = !a.failed && !b.failed && a.size == b.size && !memcmp(a.data, b.data, a.size);
    nb_buf_free(&a);
    nb_buf_free(&b);
    return same;
}

static nb_status find_layers(nb_artifact_writer *w, nb_error *err)
{
    for (int i = 0; i < w->info.layers; i++) {
        struct stat st;
        char       *path = nb_artifact_layer_path(w->partial, i);
        if (!path) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", w->partial);
        w->has[i] = stat(path, &st) == 0;
        if (w->has[i]) w->written += (uint64_t)st.st_size;
        free(path);
    }
    return NB_OK;
}

static nb_status start_folder(nb_artifact_writer *w, nb_error *err)
{
    nb_buf text = {0};
    char  *path = nb_path_join(w->partial, "artifact.json");
    nb_artifact_info_print(&text, &w->info);
    nb_status status = path ? nb_buf_status(&text, "artifact.json", err) : nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", w->partial);
    if (!status) status = nb_file_write_atomic(path, text.data, text.size, err);
    nb_buf_free(&text);
    free(path);
    return status;
}

static nb_status prepare(nb_artifact_writer *w, const char *directory, bool anew, nb_error *err)
{
    size_t n = strlen(directory);
    while (n > 1 && directory[n - 1] == '/') n--;
    w->out = strndup(directory, n);
    if (!w->out || asprintf(&w->partial, "%s.partial", w->out) < 0 || asprintf(&w->unfinished, "%s/unfinished", w->partial) < 0)
        return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", directory);
    NB_TRY(nb_alloc(&w->has, (size_t)w->info.layers, sizeof *w->has, "an artifact", err));
    NB_TRY(check_out(w, err));
    NB_TRY(lock_partial(w, err));
    if (!anew && same_info(w)) return find_layers(w, err);
    close(w->lock);
    w->lock = -1;
    NB_TRY(nb_remove_folder(w->partial, err));
    NB_TRY(lock_partial(w, err));
    return start_folder(w, err);
}

nb_status nb_artifact_create(nb_artifact_writer **out, const char *directory, const nb_artifact_info *info, bool force, bool anew,
                             nb_error *err)
{
    NB_TRY(nb_alloc(out, 1, sizeof **out, "an artifact", err));
    nb_artifact_writer *w = *out;
    w->info = *info;
    w->force = force;
    w->lock = -1;
    nb_status status = prepare(w, directory, anew, err);
    if (status) {
        if (w->lock < 0) w->committed = true; /* it is not ours to tidy */
        nb_artifact_writer_free(w);
        *out = NULL;
    }
    return status;
}

void nb_artifact_writer_free(nb_artifact_writer *w)
{
    if (!w) return;
    bool some = false;
    for (int i = 0; w->has && i < w->info.layers; i++) some = some || w->has[i];
    if (w->unfinished) unlink(w->unfinished);
    if (!w->committed && !some && w->partial) nb_remove_folder(w->partial, NULL);
    if (w->lock >= 0) close(w->lock);
    free(w->out);
    free(w->partial);
    free(w->unfinished);
    free(w->has);
    free(w);
}

bool nb_artifact_has(const nb_artifact_writer *w, int layer)
{
    return w->has[layer];
}

uint64_t nb_artifact_written(const nb_artifact_writer *w)
{
    return w->written;
}

/* ---- layers ------------------------------------------------------------------------------------------------------------ */

static void columns_to_words(uint64_t *words, const nb_stats *s)
{
    size_t k = (size_t)s->k;
    for (int i = 0; i < NB_TOKEN_KINDS; i++) words[i] = s->tokens[i];
    words += NB_TOKEN_KINDS;
    for (size_t i = 0; i < 2 * k; i++) words[i] = (uint64_t)s->sums.sum_abs[i];
    words += 2 * k;
    memset(words, 0, (k + 1) / 2 * sizeof *words);
    for (size_t i = 0; i < k; i++) {
        uint32_t bits;
        memcpy(&bits, &s->max_abs[i], sizeof bits);
        words[i / 2] |= (uint64_t)bits << (i % 2 ? 32 : 0);
    }
}

static void rows_to_words(uint64_t *words, const nb_stats *s, size_t first, size_t end)
{
    size_t k = (size_t)s->k;
    for (size_t i = first; i < end; i++) {
        size_t         n = k - i;
        const int64_t *high = s->sums.h + i * k + i, *low = s->sums.h + (n - 1) * k;
        for (size_t j = 0; j < n; j++) words[j] = (uint64_t)high[j];
        words[n] = (uint64_t)s->sums.diagonal[i];
        for (size_t j = 1; j < n; j++) words[n + j] = (uint64_t)low[j - 1];
        words += 2 * n;
    }
}

static nb_status put_site(nb_chunks *c, const nb_stats *s, nb_chunk_head head, nb_error *err)
{
    size_t k = (size_t)s->k;
    head.first = NB_CHUNK_COLUMNS;
    head.words = nb_chunk_columns(k);
    columns_to_words(nb_chunks_words(c), s);
    NB_TRY(nb_chunks_write(c, head, err));
    for (size_t first = 0, end, words; first < k; first = end) {
        end = nb_chunk_rows(k, first, &words);
        head.first = first;
        head.words = words;
        rows_to_words(nb_chunks_words(c), s, first, end);
        NB_TRY(nb_chunks_write(c, head, err));
    }
    return NB_OK;
}

static nb_status write_layer(nb_artifact_writer *w, int layer, const nb_stats *stats, nb_error *err)
{
    nb_chunks *c;
    int        parts = nb_artifact_parts(&w->info);
    NB_TRY(nb_chunks_create(&c, w->unfinished, nb_artifact_largest(&w->info), err));
    nb_status status = NB_OK;
    for (int i = 0; i < NB_SITES * parts && !status; i++)
        status = put_site(c, &stats[i], (nb_chunk_head){.layer = (uint32_t)layer, .site = (uint32_t)(i / parts), .part = (uint32_t)(i % parts)}, err);
    if (!status) status = nb_chunks_end(c, err);
    if (!status) w->written += nb_chunks_bytes(c);
    nb_chunks_close(c);
    return status;
}

nb_status nb_artifact_put(nb_artifact_writer *w, int layer, nb_stats *stats, nb_pool *pool, nb_error *err)
{
    for (int i = 0; i < NB_SITES * nb_artifact_parts(&w->info); i++) nb_stats_carry(&stats[i], pool);
    NB_TRY(write_layer(w, layer, stats, err));
    char *path = nb_artifact_layer_path(w->partial, layer);
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", w->partial);
    nb_status status = rename(w->unfinished, path) ? fail_errno(err, path, "cannot get its name") : nb_fsync_folder(w->partial, err);
    free(path);
    w->has[layer] = !status;
    return status;
}

/* ---- the end ----------------------------------------------------------------------------------------------------------- */

static nb_status put_in_place(nb_artifact_writer *w, nb_error *err)
{
    char *aside = NULL;
    if (access(w->out, F_OK) == 0) {
        if (asprintf(&aside, "%s.old.%d", w->out, (int)getpid()) < 0) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", w->out);
        if (rename(w->out, aside)) {
            nb_status status = fail_errno(err, w->out, "cannot be moved aside");
            free(aside);
            return status;
        }
    }
    nb_status status = rename(w->partial, w->out) ? fail_errno(err, w->out, "cannot rename the finished artifact to it") : NB_OK;
    if (status && aside && rename(aside, w->out)) nb_error_within(err, "the old artifact is now %s", aside);
    if (!status) {
        w->committed = true;
        if (aside) status = nb_remove_folder(aside, err);
    }
    free(aside);
    return status;
}

nb_status nb_artifact_commit(nb_artifact_writer *w, nb_error *err)
{
    for (int i = 0; i < w->info.layers; i++)
        if (!w->has[i]) return nb_fail(err, NB_ERR_ARGUMENT, "%s: layer %d was never written", w->out, i);
    NB_TRY(check_out(w, err));
    NB_TRY(put_in_place(w, err));
    char     *parent = nb_path_folder(w->out);
    nb_status status = parent ? nb_fsync_folder(parent, err) : nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", w->out);
    free(parent);
    return status;
}
