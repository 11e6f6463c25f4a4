/* plan.c - adding up what pipeline.c, layer_job.c and the solvers allocate, before any of it is allocated.
 *
 * The work has five phases, of which only one is in memory at a time: opening the model, embedding the conversations, the layers,
 * copying what stays float, and judging.  The peak is the largest of them, on top of what stays.  Sums that depend on the data are bounded
 * by the flags, so a real run takes less; none takes more, which test_quant_plan.c and a measured run check.
 *
 * It speaks of the memory of the host.  On a GPU the packed matrices and activations are elsewhere and the host takes less.
 */
#include "quant/plan.h"

#include <stdio.h>
#include <string.h>

#include "calib/artifact_chunk.h"
#include "quant/float_layer.h"
#include "quant/form.h"
#include "quant/linalg.h"
#include "quant/outer.h"
#include "quant/target.h"

enum {
    FIXED = 160 << 20,           /* measured: 100 MB for the published tokenizer and its tables, and the pages that free() keeps */
    THREAD = 3 << 20,            /* stack in use and prepared activations of a thread */
    GPU_FIXED = 512 << 20,       /* the driver's context and the libraries' work space */
    HUGE_PAGE = 2 << 20,         /* large packed matrices and large blocks are rounded up to it */
    VISION_ROWS = 1024,          /* of the wide inner layer at a time */
    TILE_ROWS = 64,              /* not less than those of gptq_solve.c, awq_clip.c, range.c and refine.c */
    HEAD_ROWS = 32,              /* of logits at a time */
    ENGINE_ROWS = 512,           /* prompt rows of a step */
    ANSWER = 128 + NB_KV_PAGE,   /* tokens generated for a question */
};

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Sizes of a model whose header was checked: products of a few ints that stand for bytes that exist, or nearly. */
static uint64_t product(int a, int b, uint64_t size)
{
    return (uint64_t)a * (uint64_t)b * size;
}

static uint64_t add(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static uint64_t times(uint64_t a, uint64_t b)
{
    uint64_t r;
    return __builtin_mul_overflow(a, b, &r) ? UINT64_MAX : r;
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

static bool in_layer(const char *name)
{
    return !strncmp(name, "model.layers.", 13);
}

/* Bytes of the matrices of all layers of the result, as layer_write.c declares them. */
static uint64_t linears_out(const nb_quantize_options *o, const nb_choice *c, const nb_checkpoint *checkpoint, const nb_config *config)
{
    const nb_plain plain = {.f16 = true};
    uint64_t       bytes = 0;
    for (int layer = 0; layer < c->layers; layer++) {
        nb_float_layer f;
        nb_float_layer_shape(&f, config, layer);
        for (int i = 0; i < NB_LINEARS; i++) {
            const nb_pick *p = nb_choice_linear(c, layer, i);
            char           name[80];
            snprintf(name, sizeof name, "%s.weight", f.name[i]);
            const nb_entry *e = nb_checkpoint_find(checkpoint, name);
            bytes += !p->keep ? nb_form_bytes(o->format, &p->grid, nb_quantize_permutes(o), f.n[i], f.k[i])
                     : e      ? e->tensor->count * nb_dtype_size(nb_plain_dtype(&plain, e->tensor->dtype))
                              : 0;
        }
    }
    return bytes;
}

/* A tensor whose codes are written instead, as plain.c decides. */
static bool has_codes(const nb_choice *c, const char *name)
{
    char   prefix[64];
    size_t n = strlen(name), tail = strlen(".weight");
    if (n < tail || n - tail >= sizeof prefix || strcmp(name + n - tail, ".weight")) return false;
    snprintf(prefix, sizeof prefix, "%.*s", (int)(n - tail), name);
    return nb_choice_outer(c, prefix) != NULL;
}

static void add_tensors(nb_plan *p, const nb_checkpoint *c, const nb_config *config, const nb_choice *choice)
{
    const nb_plain plain = {.f16 = true}; /* one value beyond f16 makes an f32 checkpoint twice as large; known only when read */
    for (size_t i = 0; i < nb_checkpoint_count(c); i++) {
        const nb_entry  *e = nb_checkpoint_at(c, i);
        const nb_tensor *t = e->tensor;
        if (nb_plain_skips(config, e->name)) continue;
        uint64_t written = times(t->count, nb_dtype_size(nb_plain_dtype(&plain, t->dtype)));
        bool     head = choice->untied && !strcmp(e->name, "model.embed_tokens.weight") && !nb_choice_outer(choice, "lm_head");
        if (!has_codes(choice, e->name)) p->output = add(p->output, written);
        if (head) p->output = add(p->output, written);
        if (in_layer(e->name)) continue;
        p->tensor = larger(p->tensor, t->bytes);
        uint64_t packed = t->bytes + (t->bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : 4096);
        if (!strcmp(e->name, "lm_head.weight")) p->head = packed;
        else p->model = add(p->model, packed);
    }
    p->output = add(p->output, nb_outer_bytes(choice));
    p->tensor = larger(p->tensor, nb_outer_memory(choice));
}

/* ---- a layer ----------------------------------------------------------------------------------------------------- */

/* The largest float type among the matrices of the layers. */
static uint64_t float_size(const nb_checkpoint *c)
{
    uint64_t size = 2;
    for (size_t i = 0; i < nb_checkpoint_count(c); i++) {
        const nb_entry *e = nb_checkpoint_at(c, i);
        if (in_layer(e->name)) size = larger(size, nb_dtype_size(e->tensor->dtype));
    }
    return size;
}

static uint64_t gram_bytes(int k)
{
    return product(k, k, sizeof(double));
}

/* nb_stats_init: the exact sums, which become the Gram matrix, and the kernel's room. */
static uint64_t statistics_bytes(int k)
{
    return gram_bytes(k) + nb_gram_work((size_t)k) * sizeof(float) + product(k, 1, 3 * sizeof(int64_t) + sizeof(float));
}

/* What one matrix takes, in its forms. */
typedef struct {
    uint64_t source, floats, codes; /* as read; in f32; codes with scales and zeros */
    uint64_t packed_float, packed;  /* in the backend's order */
} matrix;

/* mixed: any matrix may have 8 bits, or stay float. */
static matrix matrix_of(const nb_quantize_options *o, int n, int k, uint64_t float_bytes, bool mixed)
{
    uint64_t group = (uint64_t)(o->grid.group > 0 && o->grid.group < k ? o->grid.group : k), rows = (uint64_t)n, columns = (uint64_t)k;
    uint64_t groups = (columns + group - 1) / group;
    return (matrix){
        .source = rows * columns * float_bytes,
        .floats = rows * columns * sizeof(float),
        .codes = rows * columns * (mixed ? float_bytes : 1) + rows * groups * 5 + 4 * columns,
        .packed_float = rows * columns * float_bytes + HUGE_PAGE,
        .packed = rows * columns * (mixed ? 8 * float_bytes : (uint64_t)o->grid.bits) / 8 + rows * groups * 5 + HUGE_PAGE,
    };
}

/* Beside the Gram matrix, which takes in the factor: the squares of its diagonal, a row of squares while it is made (linalg.c);
 * inverses of blocks (gptq.c). */
static uint64_t factor_bytes(const nb_quantize_options *o, int k, int threads)
{
    const uint64_t tile = NB_LOWER_TILE * sizeof(double);
    return (uint64_t)k * (2 * tile + 32 * sizeof(double)) + ((uint64_t)threads + 2) * NB_LOWER_TILE * tile +
           product(o->block < k ? o->block : k, k, sizeof(float)) + product(k, 1, 64);
}

/* Work space of a solver for one matrix [n, k]; its Gram matrix, floats and codes are not counted. */
static uint64_t solver_bytes(const nb_quantize_options *o, int n, int k, int threads)
{
    uint64_t columns = (uint64_t)k, block = (uint64_t)(o->block < k ? o->block : k), lanes = (uint64_t)threads, all = product(n, k, 1);
    uint64_t group = (uint64_t)(o->grid.group > 0 && o->grid.group < k ? o->grid.group : k);
    uint64_t slab = lanes * 4 * TILE_ROWS > 16 * TILE_ROWS ? lanes * 4 * TILE_ROWS : 16 * TILE_ROWS;
    uint64_t blocks = lanes * 4 * (group + 2 * TILE_ROWS) * group; /* parts of the Gram matrix of a group */
    uint64_t refine = o->sweeps > 0 ? product(k, k, 4) + lanes * 4 * TILE_ROWS * (columns + 3 * group) : 0;
    if (slab > (uint64_t)n) slab = (uint64_t)n;
    /* The plain rounding to compare with, errors of two slabs, a block of the factor, tiles. */
    uint64_t gptq = factor_bytes(o, k, threads) + all + all / 4 + 8 * slab * (columns + 32) + 4 * columns * (block + 32) +
                    lanes * 4 * (2 * block * TILE_ROWS + columns) + refine + (o->range == NB_RANGE_BLOCK ? blocks + all + all / 4 : 0);
    /* Gram matrix in f32, sampled weights and errors, rounded weights; then the copy before clipping, or the refinement. */
    uint64_t awq = larger(product(k, k, 4), refine) + 3 * 4 * all + blocks;
    switch (o->method) {
    case NB_METHOD_GPTQ: return gptq;
    case NB_METHOD_AWQ: return awq;
    case NB_METHOD_AWQ_GPTQ: return larger(gptq, awq);
    case NB_METHOD_RTN: break;
    }
    return 0;
}

static uint64_t packed_bytes(const nb_float_layer *f, uint64_t float_bytes)
{
    uint64_t weights = 0;
    for (int i = 0; i < NB_LINEARS; i++) weights += product(f->n[i], f->k[i], 1);
    return weights * float_bytes + NB_LINEARS * (uint64_t)HUGE_PAGE;
}

static void stage(uint64_t *most, uint64_t bytes)
{
    *most = larger(*most, bytes);
}

/* A layer as layer_job.c goes through it: what is there together, stage by stage. */
static void add_layer(nb_plan *p, const nb_quantize_options *o, const nb_float_layer *f, uint64_t float_bytes, bool mixed, int threads)
{
    bool     rtn = o->method == NB_METHOD_RTN, smooth = o->method == NB_METHOD_AWQ || o->method == NB_METHOD_AWQ_GPTQ;
    bool     sequential = (o->method == NB_METHOD_GPTQ && (o->true_sequential || o->asym)) || o->asym || o->method == NB_METHOD_AWQ_GPTQ;
    bool     keeps_source = sequential && !o->propagate_quantized;
    uint64_t source = 0, floats = 0, codes = 0, packed = 0, all_packed = 0, grams = 0, largest = 0, hidden = (uint64_t)f->k[NB_Q];
    for (int i = 0; i < NB_LINEARS; i++) {
        matrix m = matrix_of(o, f->n[i], f->k[i], float_bytes, mixed);
        source += m.source;
        floats += smooth ? m.floats : 0; /* all at once, for their scales */
        all_packed += o->artifact_count ? 0 : m.packed_float; /* nothing is run */
        largest = larger(largest, m.floats);
    }
    for (int site = 0; site < NB_SITES; site++) grams += statistics_bytes(f->k[nb_site_first[site]]);
    p->layer = source + (smooth ? floats : largest) + (o->asym ? all_packed : 0); /* the original layer runs beside */
    if (o->asym) source += all_packed;
    p->statistics = rtn ? 0 : grams;
    if (smooth || (!rtn && !sequential)) stage(&p->work, source + grams + add(all_packed, p->batch));
    if (smooth) /* plain rounding, to compare with, and the search */
        for (int i = 0; i < NB_LINEARS; i++)
            stage(&p->work, source + floats + grams + product(f->n[i], f->k[i], 6) + solver_bytes(o, f->n[i], f->k[i], threads));
    for (int site = 0; site < NB_SITES; site++) {
        int      first = nb_site_first[site], k = f->k[first];
        uint64_t gram = statistics_bytes(k), here = rtn ? 0 : sequential ? gram : grams;
        if (sequential && !smooth) p->statistics = site ? larger(p->statistics, gram) : gram;
        if (o->asym) here += 4 * (uint64_t)k * ((uint64_t)k + hidden); /* what inputs and states have lost (layer_pair.c) */
        if (sequential) stage(&p->work, source + floats + codes + here + add(packed, p->batch));
        if (o->asym) { /* a factor and tiles while that is mended (mend.c) */
            uint64_t mend = gram_bytes(k) + (uint64_t)threads * TILE_ROWS * (uint64_t)k * 16 + factor_bytes(o, k, threads);
            for (int i = first; i < first + nb_site_count[site]; i++) mend += smooth ? 0 : product(f->n[i], k, sizeof(float));
            p->solver = larger(p->solver, mend);
            stage(&p->work, source + floats + codes + here + mend);
        }
        for (int i = first; i < first + nb_site_count[site]; i++) {
            matrix   m = matrix_of(o, f->n[i], k, float_bytes, mixed);
            uint64_t solver = solver_bytes(o, f->n[i], k, threads), made = smooth ? 0 : m.floats;
            if (o->asym && !smooth) /* all of the site at once */
                for (int j = i + 1; j < first + nb_site_count[site]; j++) made += product(f->n[j], k, sizeof(float));
            p->solver = larger(p->solver, solver);
            stage(&p->work, source + floats + made + codes + m.codes + (sequential ? gram : here) + solver);
            if (!keeps_source) source -= m.source;
            if (smooth) floats -= m.floats;
            codes += m.codes;
            packed += m.packed;
        }
        if (!sequential) grams -= gram;
    }
    if (!rtn) p->packed = larger(packed, (sequential && !keeps_source && !smooth ? 0 : all_packed) + (o->asym ? all_packed : 0));
    if (!rtn) stage(&p->work, source + codes + add(larger(packed, keeps_source || !sequential ? all_packed : 0), p->batch));
    stage(&p->work, source + 2 * codes); /* one matrix after the other is brought into the form of the file */
}

/* ---- the data ---------------------------------------------------------------------------------------------------- */

/* What one conversation may be. */
static uint64_t longest_of(const nb_quantize_options *o, const nb_config *c)
{
    return o->data.seq_len ? o->data.seq_len : (uint64_t)c->max_positions;
}

/* x, norm, qkv, attn, gate_up and act; the rotary tables twice; K and V. */
static uint64_t row_bytes(const nb_config *c)
{
    uint64_t hidden = (uint64_t)c->hidden, inner = (uint64_t)c->intermediate, head = (uint64_t)c->head_dim;
    uint64_t q = (uint64_t)c->heads * head, kv = (uint64_t)c->kv_heads * head;
    return 4 * (2 * hidden + 2 * q + 2 * kv + 3 * inner + 2 * head + 2 * kv) + 32;
}

/* Activations of a batch, pages of K and V begun by every sample, and a batch on its way from the spool, another to it. */
static uint64_t batch_bytes(uint64_t longest, const nb_config *c)
{
    uint64_t kv = (uint64_t)c->kv_heads * (uint64_t)c->head_dim;
    uint64_t batch = add(times(larger(longest, NB_SAMPLES_ROWS), row_bytes(c)), NB_SAMPLES_ROWS / 8 * 2 * kv * NB_KV_PAGE * 4);
    return add(batch, times(larger(longest, NB_SAMPLES_ROWS), 2 * 4 * (uint64_t)c->hidden));
}

static uint64_t pixel_bytes(uint64_t longest, const nb_config *c)
{
    uint64_t pixels = (uint64_t)c->v_channels * (uint64_t)c->v_temporal * (uint64_t)c->v_patch * (uint64_t)c->v_patch;
    return times(longest, (uint64_t)c->v_merge * (uint64_t)c->v_merge * 4 * pixels);
}

/* A visual token is merge^2 patches, whose pixels are there twice while the tower runs. */
static uint64_t picture_bytes(uint64_t longest, const nb_config *c)
{
    uint64_t merged = (uint64_t)c->v_merge * (uint64_t)c->v_merge, dim = (uint64_t)c->v_dim, wide = larger((uint64_t)c->v_inner, dim * merged);
    uint64_t tower = add(times(times(longest, merged), 4 * (5 * dim + 2 * (uint64_t)c->v_head_dim)), 4 * VISION_ROWS * wide);
    tower = add(tower, times(pixel_bytes(longest, c), 2));
    /* visual rows and the embedded prompt, on both sides; rows of pictures that may come again */
    return add(tower, add(times(longest, 4 * 4 * (uint64_t)c->hidden), NB_SAMPLES_PICTURES));
}

static void add_data(nb_plan *p, const nb_quantize_options *o, const nb_config *c)
{
    uint64_t longest = longest_of(o, c);
    uint64_t inner = (uint64_t)c->intermediate, q = (uint64_t)c->heads * (uint64_t)c->head_dim, hidden = (uint64_t)c->hidden;
    p->batch = batch_bytes(longest, c);
    if (o->asym) p->batch = add(p->batch, times(larger(longest, NB_SAMPLES_ROWS), 8 * (larger(inner, q) + hidden))); /* inputs and states of two streams */
    p->picture = picture_bytes(longest, c);
    if (o->data.samples <= 0) return; /* unknown */
    p->tokens = times((uint64_t)o->data.samples, longest);
    p->hidden = times(p->tokens, (o->asym ? 8 : 4) * (uint64_t)c->hidden); /* of two streams */
    p->disk_spool = times(p->hidden, 2);
}

/* The pass that measures what bits cost: a float layer, packed too, with the Gram matrices of all sites and a matrix in three forms;
 * two copies of a few samples' states, logits; and the head to make these. */
static void add_pass(nb_plan *p, const nb_quantize_options *o, const nb_float_layer *f, uint64_t float_bytes, const nb_config *c)
{
    uint64_t longest = o->data.seq_len ? o->data.seq_len : (uint64_t)c->max_positions, grams = 0, source = 0, packed = 0, solver = 0, codes = 0;
    for (int site = 0; site < NB_SITES; site++) grams += statistics_bytes(f->k[nb_site_first[site]]);
    for (int i = 0; i < NB_LINEARS; i++) {
        matrix m = matrix_of(o, f->n[i], f->k[i], float_bytes, true);
        source += m.source;
        packed += m.packed_float;
        codes += m.codes;
        solver = larger(solver, 3 * m.floats);
    }
    if (o->target_kl > 0) p->model = add(p->model, p->head);
    p->statistics = larger(p->statistics, grams);
    p->pass = add(source + codes + grams + larger(solver, add(packed, p->batch)), times(4 * 32 * 4, (uint64_t)c->vocab));
    p->pass = add(p->pass, times(2 * NB_TARGET_SAMPLES * 4, times(longest, (uint64_t)c->hidden)));
}

/* Both models without their layers, one float layer, and a few rows of logits of each; then one model whole. */
static void add_judge(nb_plan *p, const nb_quantize_options *o, const nb_float_layer *f, uint64_t float_bytes, const nb_config *c)
{
    uint64_t longest = longest_of(o, c), packed = packed_bytes(f, float_bytes), samples = (uint64_t)o->judge_samples;
    uint64_t logits = 2 * HEAD_ROWS * (uint64_t)c->vocab * 4, kv = 2 * float_bytes * (uint64_t)c->kv_heads * (uint64_t)c->head_dim;
    uint64_t both = add(p->fixed + 2 * (p->model + p->head) + 2 * logits, times(longest, 2 * 4 * (uint64_t)c->hidden));
    if (!samples) return;
    /* the layer as it was read stands beside its packed form for a moment */
    p->judge = add(both, larger(larger(picture_bytes(longest, c), p->tensor), add(2 * packed, batch_bytes(longest, c))));
    p->judge_hidden = times(times(samples, longest), 2 * 4 * (uint64_t)c->hidden);
    p->disk_spool = larger(p->disk_spool, times(p->judge_hidden, 2));
    if (o->judge_answers <= 0) return;
    uint64_t engine = add(times(ENGINE_ROWS, row_bytes(c)), times(add(longest, ANSWER), kv * (uint64_t)c->layers));
    uint64_t questions = times((uint64_t)o->judge_answers, pixel_bytes(longest, c));
    p->answers = add(add(both, times((uint64_t)c->layers + 1, packed)), add(add(engine, questions), picture_bytes(longest, c)));
}

/* Nothing is run; statistics are read chunk by chunk, and one site more where modalities are kept apart. */
static void add_artifact(nb_plan *p, const nb_float_layer *f)
{
    uint64_t largest = 0, words = 0;
    for (int site = 0; site < NB_SITES; site++) {
        int k = f->k[nb_site_first[site]];
        largest = larger(largest, statistics_bytes(k));
        words = larger(words, nb_chunk_largest((size_t)k));
    }
    p->packed = 0;
    p->statistics += largest + 3 * sizeof(uint64_t) * words;
    p->work = add(p->work, largest + 3 * sizeof(uint64_t) * words);
}

/* ---- the peak ---------------------------------------------------------------------------------------------------- */

/* The embedding and the vision tower are there until the last conversation was embedded. */
static uint64_t peak(const nb_plan *p, uint64_t hidden)
{
    uint64_t embedding = add(p->model, larger(larger(p->tensor, p->pass), add(p->picture, hidden)));
    return add(p->fixed, larger(embedding, add(larger(p->work, p->tensor), hidden)));
}

nb_status nb_plan_make(nb_plan *out, const nb_quantize_options *options, int threads, nb_error *err)
{
    nb_config      config;
    nb_checkpoint *checkpoint;
    nb_float_layer shape;
    nb_buf         notes = {0}; /* the run makes them too */
    memset(out, 0, sizeof *out);
    NB_TRY(nb_checkpoint_open(&checkpoint, options->model_dir, err)); /* first: it says best that this is no checkpoint */
    nb_status status = nb_config_open(&config, options->model_dir, &notes, err);
    nb_buf_free(&notes);
    if (!status && config.quant.method != NB_QUANT_NONE)
        status = nb_fail(err, NB_ERR_INPUT, "%s: is already quantized; give the float checkpoint it was made from", options->model_dir);
    nb_quantize_options resolved = *options;
    nb_choice           choice = {0};
    if (!status) status = nb_quantize_resolve(&resolved, &notes, err);
    if (!status) status = nb_quantize_choose(&choice, &resolved, &config, &notes, err);
    nb_buf_free(&notes);
    if (status) {
        nb_checkpoint_close(checkpoint);
        return status;
    }
    nb_float_layer_shape(&shape, &config, 0);
    out->fixed = FIXED + (uint64_t)threads * THREAD;
    add_tensors(out, checkpoint, &config, &choice);
    out->output = add(out->output, linears_out(&resolved, &choice, checkpoint, &config));
    bool mixed = choice.mixed;
    nb_choice_free(&choice);
    bool     target = options->target_bytes || options->target_bpw > 0 || options->target_kl > 0;
    uint64_t float_bytes = float_size(checkpoint);
    if (options->target_bytes) out->output = options->target_bytes;
    nb_checkpoint_close(checkpoint);
    bool runs = (options->method != NB_METHOD_RTN && !options->artifact_count) || target;
    if (runs) add_data(out, options, &config);
    add_layer(out, options, &shape, float_bytes, mixed || target, threads);
    if (target) add_pass(out, options, &shape, float_bytes, &config);
    if (options->artifact_count) add_artifact(out, &shape);
    add_judge(out, options, &shape, float_bytes, &config);
    out->ram_spool = larger(peak(out, 0), out->judge);
    out->vram = add(GPU_FIXED, larger(add(out->model, out->picture), add(out->packed, out->batch)));
    if (!runs || out->hidden) out->ram = larger(peak(out, out->hidden), add(out->judge, out->judge_hidden));
    return NB_OK;
}

nb_status nb_plan_make_calibration(nb_plan *out, const nb_quantize_options *options, bool per_modality, int threads, nb_error *err)
{
    nb_quantize_options o = *options;
    nb_artifact_info    info = {.per_modality = per_modality};
    nb_config           config;
    nb_float_layer      shape;
    nb_buf              notes = {0};
    size_t              largest = 0;
    o.method = NB_METHOD_AWQ; /* which looks at the four sites of the float layer at once, as a calibration does */
    o.grid = (nb_grid){.bits = 4, .group = 128};
    NB_TRY(nb_plan_make(out, &o, threads, err));
    NB_TRY(nb_config_open(&config, o.model_dir, &notes, err));
    nb_buf_free(&notes);
    nb_float_layer_shape(&shape, &config, 0);
    info.layers = config.layers;
    for (int i = 0; i < NB_SITES; i++) {
        info.k[i] = shape.k[nb_site_first[i]];
        size_t words = nb_chunk_largest((size_t)info.k[i]);
        if (words > largest) largest = words;
    }
    out->statistics *= (uint64_t)nb_artifact_parts(&info);
    out->solver = 0;
    out->statistics += 4 * 8 * (uint64_t)largest; /* the words of a chunk, in planes, compressed; and zstd's own */
    out->output = nb_artifact_bytes(&info);
    out->work = add(2 * out->packed + out->statistics, out->batch); /* a layer as it was read, and packed */
    out->ram_spool = peak(out, 0);
    if (out->hidden) out->ram = peak(out, out->hidden);
    return NB_OK;
}

nb_status nb_plan_fit(const nb_plan *p, uint64_t max_ram, bool *spool, nb_error *err)
{
    *spool = false;
    if (!max_ram || (p->ram != NB_PLAN_UNKNOWN && p->ram <= max_ram)) return NB_OK;
    if (p->ram_spool > max_ram)
        return nb_fail(err, NB_ERR_BUDGET, "--max-ram %llu is too little: %llu bytes (%.2f GB) are needed with the calibration "
                       "data on disk%s", (unsigned long long)max_ram, (unsigned long long)p->ram_spool, (double)p->ram_spool / 1e9,
                       p->batch ? "; a smaller --seq-len needs less" : "");
    *spool = true;
    return NB_OK;
}
