/* record.c - shapes first, then the tower, then the engine's steps with a watcher; each piece goes to the file as it comes. */
#include "tools/trace/record.h"

#include <stdio.h>
#include <stdlib.h>

#include "tools/cli/stop.h"
#include "tools/trace/trace_file.h"

typedef struct {
    nb_trace_file          *file;
    const nb_model         *model;
    const nb_prompt        *prompt;
    const nb_trace_options *options;
    int                     media; /* the picture that the tower is at */
    float                  *host;  /* rows on their way to the file */
    size_t                  capacity;
    nb_status               status;
    nb_error                err; /* of a watcher, who cannot return one */
} recording;

static bool layer_wanted(const nb_trace_options *o, int layer)
{
    for (int i = 0; i < o->layer_count; i++)
        if (o->layers[i] == layer) return true;
    return o->layer_count == 0;
}

static const char *const layer_parts[] = {"input",     "q",        "k",      "v",
                                          "attention", "attn_out", "mlp_out"}; /* from NB_SEE_INPUT on */

static void name_of(char out[64], const recording *r, nb_see_point point, int index)
{
    if (point == NB_SEE_PATCHES) snprintf(out, 64, "visual.%d.patches", r->media);
    else if (point == NB_SEE_BLOCK) snprintf(out, 64, "visual.%d.block.%d", r->media, index);
    else if (point == NB_SEE_VISUAL) snprintf(out, 64, "visual.%d.rows", r->media);
    else if (point == NB_SEE_LAST || point == NB_SEE_NORM)
        snprintf(out, 64, "final.%s", point == NB_SEE_LAST ? "input" : "norm");
    else snprintf(out, 64, "layer.%d.%s", index, layer_parts[point - NB_SEE_INPUT]);
}

/* ---- shapes -------------------------------------------------------------------------------------------------------------- */

static nb_status declare2(recording *r, const char *name, size_t rows, size_t width, nb_error *err)
{
    return nb_trace_file_declare(r->file, name, NB_F32, 2, (uint64_t[]){rows, width}, err);
}

static nb_status declare_media(recording *r, const nb_patches *m, nb_error *err)
{
    const nb_config *c = &r->model->config;
    size_t           n = (size_t)m->t * m->h * m->w;
    char             name[64];
    snprintf(name, sizeof name, "visual.%d.grid_thw", r->media);
    NB_TRY(nb_trace_file_declare(r->file, name, NB_I32, 1, (uint64_t[]){3}, err));
    snprintf(name, sizeof name, "visual.%d.pixels", r->media);
    NB_TRY(declare2(r, name, n, (size_t)c->v_channels * c->v_temporal * c->v_patch * c->v_patch, err));
    name_of(name, r, NB_SEE_PATCHES, 0);
    NB_TRY(declare2(r, name, n, (size_t)c->v_dim, err));
    for (int b = 0; b < c->v_depth; b++) {
        name_of(name, r, NB_SEE_BLOCK, b);
        NB_TRY(declare2(r, name, n, (size_t)c->v_dim, err));
    }
    name_of(name, r, NB_SEE_VISUAL, 0);
    return declare2(r, name, n / ((size_t)c->v_merge * c->v_merge), (size_t)c->v_out, err);
}

static nb_status declare_all(recording *r, nb_error *err)
{
    const nb_config *c = &r->model->config;
    size_t           rows = r->prompt->count, q = (size_t)c->heads * c->head_dim, kv = (size_t)c->kv_heads * c->head_dim,
           hidden = (size_t)c->hidden;
    size_t widths[] = {hidden, q, kv, kv, q, hidden, hidden}, kept = r->options->all_logits ? rows : 1;
    char   name[64];
    NB_TRY(nb_trace_file_declare(r->file, "input_ids", NB_I32, 1, (uint64_t[]){rows}, err));
    NB_TRY(nb_trace_file_declare(r->file, "position_ids", NB_I32, 2, (uint64_t[]){3, rows}, err));
    for (r->media = 0; r->media < r->prompt->media_count; r->media++)
        NB_TRY(declare_media(r, &r->prompt->media[r->media], err));
    for (int l = 0; l < c->layers; l++)
        for (int p = NB_SEE_INPUT; p <= NB_SEE_MLP_OUT && layer_wanted(r->options, l); p++) {
            name_of(name, r, (nb_see_point)p, l);
            NB_TRY(declare2(r, name, rows, widths[p - NB_SEE_INPUT], err));
        }
    NB_TRY(declare2(r, "final.input", kept, hidden, err));
    NB_TRY(declare2(r, "final.norm", kept, hidden, err));
    return declare2(r, "logits", kept, (size_t)c->vocab, err);
}

/* ---- values -------------------------------------------------------------------------------------------------------------- */

/* rows [rows, width] with stride ld in the backend's memory, to the file. */
static void see(void *context, nb_see_point point, int index, const float *x, size_t ld, size_t rows, int width)
{
    recording    *r = context;
    const nb_ops *ops = &r->model->ops;
    char          name[64];
    name_of(name, r, point, index);
    if (r->status != NB_OK || !nb_trace_file_has(r->file, name)) return;
    size_t n = rows * (size_t)width, all = (rows - 1) * ld + (size_t)width;
    r->status = nb_grow(&r->host, &r->capacity, all, sizeof *r->host, "rows of a trace", &r->err);
    if (r->status != NB_OK) return;
    ops->download(ops, r->host, x, all * sizeof(float));
    for (size_t i = 1; i < rows && ld != (size_t)width; i++)
        for (int j = 0; j < width; j++)
            r->host[i * (size_t)width + (size_t)j] = r->host[i * ld + (size_t)j]; /* ld > width: downwards */
    r->status = nb_trace_file_add(r->file, name, r->host, n * sizeof(float), NULL, &r->err);
}

static nb_status add_media(recording *r, const nb_patches *m, nb_error *err)
{
    const nb_config *c = &r->model->config;
    size_t  n = (size_t)m->t * m->h * m->w, width = (size_t)c->v_channels * c->v_temporal * c->v_patch * c->v_patch, rows;
    int32_t grid[3] = {m->t, m->h, m->w};
    char    name[64];
    float  *out;
    snprintf(name, sizeof name, "visual.%d.grid_thw", r->media);
    NB_TRY(nb_trace_file_add(r->file, name, grid, sizeof grid, NULL, err));
    snprintf(name, sizeof name, "visual.%d.pixels", r->media);
    NB_TRY(nb_trace_file_add(r->file, name, m->rows, n * width * sizeof(float), NULL, err));
    NB_TRY(nb_vision_watched(r->model, m, &out, &rows, see, r, err));
    r->model->ops.free(&r->model->ops, out);
    if (r->status != NB_OK) *err = r->err;
    return r->status;
}

static nb_status on_logits(void *context, nb_sequence *s, size_t row, float *logits, nb_error *err)
{
    recording *r = context;
    (void)s, (void)row;
    return nb_trace_file_add(r->file, "logits", logits, (size_t)r->model->config.vocab * sizeof(float), NULL, err);
}

static nb_status run_steps(recording *r, nb_engine *e, nb_error *err)
{
    nb_sequence        *s;
    size_t              count = r->prompt->count, advanced;
    nb_sequence_options o = {
        .total = count, .logits_from = r->options->all_logits ? 0 : count - 1, .on_logits = on_logits, .context = r};
    NB_TRY(nb_sequence_new(&s, e, r->prompt, &o, err));
    nb_engine_watch(e, see, r);
    nb_status status;
    do {
        status = nb_engine_step(e, &advanced, err);
        if (status == NB_OK && r->status != NB_OK) status = r->status, *err = r->err;
        if (status == NB_OK) status = nb_stop_status(err);
    } while (status == NB_OK && advanced);
    nb_engine_watch(e, NULL, NULL);
    nb_sequence_free(s);
    return status;
}

static nb_status record(recording *r, nb_engine *e, nb_error *err)
{
    const nb_prompt *p = r->prompt;
    char             layers[16];
    snprintf(layers, sizeof layers, "%d", r->model->config.layers);
    const char *const metadata[][2] = {{"model", r->options->model}, {"layers", layers}, {"arithmetic", r->model->ops.name}};
    NB_TRY(declare_all(r, err));
    NB_TRY(nb_trace_file_begin(r->file, metadata, NB_COUNT(metadata), err));
    NB_TRY(nb_trace_file_add(r->file, "input_ids", p->ids, p->count * sizeof *p->ids, NULL, err));
    NB_TRY(nb_trace_file_add(r->file, "position_ids", p->position, 3 * p->count * sizeof *p->position, NULL, err));
    for (r->media = 0; r->media < p->media_count; r->media++) NB_TRY(add_media(r, &p->media[r->media], err));
    NB_TRY(run_steps(r, e, err));
    return nb_trace_file_commit(r->file, err);
}

nb_status nb_trace_record(nb_engine *e, const nb_prompt *prompt, const nb_trace_options *options, const char *path,
                          uint64_t *bytes, nb_error *err)
{
    recording r = {.model = nb_engine_model(e), .prompt = prompt, .options = options};
    *bytes = 0;
    NB_TRY(nb_trace_file_new(&r.file, path, options->force, err));
    nb_status status = record(&r, e, err);
    *bytes = nb_trace_file_bytes(r.file);
    nb_trace_file_free(r.file);
    free(r.host);
    return status;
}
