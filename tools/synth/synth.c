/* synth.c - from a list of tensors to files: while one thread writes a piece, the others make the next one.
 *
 * A piece is cut into blocks of a fixed size, the items of nb_parallel; writing the piece before is an item as well,
 * and the first to be handed out.
 */
#include "tools/synth/synth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/writer.h"
#include "tools/synth/config_json.h"
#include "tools/synth/side_files.h"
#include "tools/synth/values.h"

enum { BLOCK = 1 << 18, BLOCKS = 16 }; /* elements of a block; blocks of a piece: 8 MiB of bf16 */

typedef struct {
    char     name[NB_SYNTH_NAME]; /* of its tensor in the file; "": nothing to write */
    void    *data;                /* [BLOCK * BLOCKS] elements */
    uint64_t first;               /* element of the tensor */
    size_t   count, bytes;
} piece;

typedef struct {
    nb_pool                *pool;
    const nb_synth_options *options;
    nb_synth_progress      *progress;
    void                   *context;
    nb_synth_report        *report;
    nb_writer              *writer;
    nb_synth_source        *source;
    nb_synth_generator     *generator; /* of the tensor that is being made */
    piece                   made, writing;
    uint64_t                done;      /* bytes */
    nb_status               written;   /* of the item that writes, with its error */
    nb_error               *err;
} job;

/* Canonical to the layout's own name. */
static void name_in_file(char out[NB_SYNTH_NAME], const char *name, nb_layout layout)
{
    const char *model = "model.", *visual = "visual.";
    if (layout == NB_LAYOUT_NEW && strncmp(name, model, strlen(model)) == 0)
        snprintf(out, NB_SYNTH_NAME, "model.language_model.%.70s", name + strlen(model));
    else if (layout == NB_LAYOUT_NEW && strncmp(name, visual, strlen(visual)) == 0)
        snprintf(out, NB_SYNTH_NAME, "model.%.80s", name);
    else
        snprintf(out, NB_SYNTH_NAME, "%s", name);
}

static nb_status declare(void *context, const nb_synth_tensor *t, nb_error *err)
{
    job     *j = context;
    char     name[NB_SYNTH_NAME];
    uint64_t count = 1;
    for (int d = 0; d < t->rank; d++) count *= t->shape[d];
    j->report->tensors++;
    j->report->parameters += count;
    name_in_file(name, t->name, j->options->layout);
    return nb_writer_declare(j->writer, name, j->options->dtype, t->rank, t->shape, err);
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

static void work(void *context, size_t item, int thread)
{
    job *j = context;
    (void)thread;
    if (item == 0) {
        const piece *p = &j->writing;
        if (p->name[0]) j->written = nb_writer_append(j->writer, p->name, p->data, p->bytes, j->err);
        return;
    }
    const piece *p = &j->made;
    size_t       start = (item - 1) * BLOCK, n = p->count - start < BLOCK ? p->count - start : BLOCK;
    nb_synth_fill(j->generator, p->first + start, n, (char *)p->data + start * j->generator->size);
}

/* Make the piece that j->made describes (none when its count is 0) and write the one before. */
static nb_status step(job *j)
{
    nb_parallel(j->pool, 1 + (j->made.count + BLOCK - 1) / BLOCK, work, j);
    NB_TRY(j->written);
    j->done += j->writing.bytes;
    if (j->progress &&
        !j->progress(j->context, j->done, j->report->bytes, j->writing.name[0] ? j->writing.name : NULL))
        return nb_fail(j->err, NB_ERR_STOPPED, "stopped; nothing was left at '%s'", j->options->out);
    piece next = j->writing;
    j->writing = j->made;
    j->made = next;
    j->made.name[0] = 0;
    j->made.count = j->made.bytes = 0;
    return NB_OK;
}

static nb_status make_tensor(void *context, const nb_synth_tensor *t, nb_error *err)
{
    job                *j = context;
    nb_synth_generator *g = j->generator;
    (void)err; /* the job's */
    nb_synth_generator_init(g, j->source, t);
    for (uint64_t first = 0; first < g->count; first += (uint64_t)BLOCK * BLOCKS) {
        uint64_t left = g->count - first;
        piece   *p = &j->made;
        name_in_file(p->name, t->name, j->options->layout);
        p->first = first;
        p->count = left < (uint64_t)BLOCK * BLOCKS ? (size_t)left : (size_t)BLOCK * BLOCKS;
        p->bytes = p->count * g->size;
        NB_TRY(step(j));
    }
    return NB_OK;
}

/* ---- the directory ----------------------------------------------------------------------------------------------- */

static nb_status write_side_files(job *j, const nb_synth_ids *ids, nb_error *err)
{
    const nb_synth_options *o = j->options;
    nb_buf                  config = {0};
    nb_status               s = nb_synth_config(&config, &o->shape, ids, o->dtype, o->layout, err);
    if (s == NB_OK) s = nb_writer_file(j->writer, "config.json", config.data, config.size, err);
    nb_buf_free(&config);
    for (size_t i = 0; s == NB_OK && i < nb_side_file_count; i++)
        s = nb_writer_file(j->writer, nb_side_files[i].name, nb_side_files[i].data, nb_side_files[i].size, err);
    if (s == NB_OK && o->recipe) s = nb_writer_file(j->writer, "synth.json", o->recipe, strlen(o->recipe), err);
    return s;
}

static nb_status write_all(job *j, nb_error *err)
{
    const nb_synth_options *o = j->options;
    nb_synth_ids            ids;
    size_t                  size = (size_t)BLOCK * BLOCKS * nb_dtype_size(o->dtype);
    NB_TRY(nb_synth_ids_read(&ids, err));
    NB_TRY(nb_alloc(&j->source, 1, sizeof *j->source, "the table of quantiles", err));
    j->made.data = nb_calloc_aligned(size, 1);
    j->writing.data = nb_calloc_aligned(size, 1);
    j->generator = nb_calloc_aligned(1, sizeof *j->generator);
    if (!j->made.data || !j->writing.data || !j->generator)
        return nb_fail(err, NB_ERR_MEMORY, "no memory for two pieces of %zu bytes", size);
    nb_synth_source_init(j->source, o->seed, o->dtype);

    NB_TRY(nb_writer_new(&j->writer, o->out, o->shard_size, o->force, err));
    NB_TRY(nb_synth_each(&o->shape, ids.count, declare, j, err));
    NB_TRY(nb_writer_plan(j->writer, err));
    j->report->bytes = nb_writer_bytes(j->writer);
    NB_TRY(write_side_files(j, &ids, err));
    NB_TRY(nb_synth_each(&o->shape, ids.count, make_tensor, j, err));
    NB_TRY(step(j)); /* the last piece is made, not written */
    return nb_writer_commit(j->writer, err);
}

nb_status nb_synth(nb_pool *pool, const nb_synth_options *options, nb_synth_progress *progress, void *context,
                   nb_synth_report *report, nb_error *err)
{
    job j = {.pool = pool, .options = options, .progress = progress, .context = context, .report = report, .err = err};
    *report = (nb_synth_report){0};
    nb_status s = write_all(&j, err);
    nb_writer_free(j.writer);
    free(j.made.data);
    free(j.writing.data);
    free(j.generator);
    free(j.source);
    return s;
}
