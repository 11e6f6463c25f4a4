/* gguf_export.c - which tensors of a checkpoint become which of llama.cpp's.
 *
 * Language model (qwen2vl): names are a table, rows keep their order (its rotation pairs halves, as here), norms and biases are F32.
 * Tower (clip, qwen2vl_merger): qkv is cut into three, the patch embedding into its two frames.  Codes go into blocks that mean the
 * same where such blocks exist (gguf_blocks.h); what has none becomes F16, and a note says so.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/config_out.h"
#include "quant/export_job.h"
#include "quant/gguf_blocks.h"
#include "quant/gguf_tokenizer.h"
#include "runtime/io/file.h"
#include "runtime/vision/preprocess.h"

enum { CHUNK = 1 << 22 /* values in work */ };

/* One tensor of a file. */
typedef struct {
    char            name[64];
    nb_gguf_type    type;
    const nb_item  *item;        /* rows first .. first + rows of a matrix, or */
    const nb_entry *vector;      /* elements first .. first + rows of a vector, or */
    const nb_entry *patches;     /* frame `first` of the patch embedding */
    int             first, rows;
} piece;

typedef struct {
    nb_export_job *job;
    nb_gguf_out     *file;
    piece         *pieces;
    size_t         count, capacity;
    size_t         floats;       /* matrices that had codes and have none now */
} making;

/* ---- lists ------------------------------------------------------------------------------------------------------------- */

static nb_status push(making *m, piece p, nb_error *err)
{
    NB_TRY(nb_grow(&m->pieces, &m->capacity, m->count + 1, sizeof *m->pieces, "GGUF tensors", err));
    m->pieces[m->count++] = p;
    return NB_OK;
}

static const nb_item *find_item(const nb_export_job *job, const char *name)
{
    for (size_t i = 0; i < job->source.count; i++)
        if (!strcmp(job->source.items[i].name, name)) return &job->source.items[i];
    return NULL;
}

/* A matrix, or a third of one (thirds 3, part 0 .. 2). */
static nb_status push_matrix(making *m, const char *to, const char *from, int part, int thirds, nb_error *err)
{
    const nb_item *item = find_item(m->job, from);
    if (!item) return nb_fail(err, NB_ERR_INPUT, "matrix '%s' is missing", from);
    piece p = {.item = item, .rows = item->rows / thirds, .first = item->rows / thirds * part,
               .type = m->job->plain.f16 ? NB_GGUF_F16 : NB_GGUF_BF16};
    if (item->coded) p.type = nb_gguf_type_of(&item->grid, item->permuted, item->columns);
    if (item->coded && p.type == NB_GGUF_F16) m->floats += part == 0;
    snprintf(p.name, sizeof p.name, "%s.weight", to);
    return push(m, p, err);
}

/* prefix.weight or prefix.bias, if it is there. */
static nb_status push_vector(making *m, const char *to, const char *from, const char *suffix, int part, int thirds,
                             nb_error *err)
{
    char name[128];
    snprintf(name, sizeof name, "%s.%s", from, suffix);
    const nb_entry *e = nb_checkpoint_find(m->job->source.checkpoint, name);
    if (!e) return NB_OK;
    int   count = (int)e->tensor->count / thirds;
    piece p = {.vector = e, .type = NB_GGUF_F32, .first = count * part, .rows = count};
    snprintf(p.name, sizeof p.name, "%s.%s", to, suffix);
    return push(m, p, err);
}

static nb_status list_text(making *m, nb_error *err)
{
    static const char *const linears[][2] = {
        {"attn_q", "self_attn.q_proj"},   {"attn_k", "self_attn.k_proj"}, {"attn_v", "self_attn.v_proj"}, {"attn_output", "self_attn.o_proj"},
        {"ffn_gate", "mlp.gate_proj"}, {"ffn_up", "mlp.up_proj"},      {"ffn_down", "mlp.down_proj"},
    };
    const nb_config *c = &m->job->source.config;
    NB_TRY(push_matrix(m, "token_embd", "model.embed_tokens", 0, 1, err));
    for (int layer = 0; layer < c->layers; layer++) {
        char to[64], from[64];
        for (int i = 0; i < 2; i++) {
            snprintf(to, sizeof to, "blk.%d.%s", layer, i ? "ffn_norm" : "attn_norm");
            snprintf(from, sizeof from, "model.layers.%d.%s", layer, i ? "post_attention_layernorm" : "input_layernorm");
            NB_TRY(push_vector(m, to, from, "weight", 0, 1, err));
        }
        for (size_t i = 0; i < NB_COUNT(linears); i++) {
            snprintf(to, sizeof to, "blk.%d.%s", layer, linears[i][0]);
            snprintf(from, sizeof from, "model.layers.%d.%s", layer, linears[i][1]);
            NB_TRY(push_matrix(m, to, from, 0, 1, err));
            NB_TRY(push_vector(m, to, from, "bias", 0, 1, err));
        }
    }
    NB_TRY(push_vector(m, "output_norm", "model.norm", "weight", 0, 1, err));
    return c->tied ? NB_OK : push_matrix(m, "output", "lm_head", 0, 1, err);
}

static nb_status push_linear(making *m, const char *to, const char *from, int part, int thirds, nb_error *err)
{
    NB_TRY(push_matrix(m, to, from, part, thirds, err));
    return push_vector(m, to, from, "bias", part, thirds, err);
}

static nb_status push_norm(making *m, const char *to, const char *from, nb_error *err)
{
    NB_TRY(push_vector(m, to, from, "weight", 0, 1, err));
    return push_vector(m, to, from, "bias", 0, 1, err);
}

static nb_status list_vision(making *m, nb_error *err)
{
    static const char *const thirds[3] = {"attn_q", "attn_k", "attn_v"};
    static const char *const linears[][2] = {{"attn_out", "attn.proj"}, {"ffn_up", "mlp.fc1"}, {"ffn_down", "mlp.fc2"}};
    const nb_config         *c = &m->job->source.config;
    const nb_entry          *patches;
    uint64_t shape[5] = {(uint64_t)c->v_dim, (uint64_t)c->v_channels, (uint64_t)c->v_temporal, (uint64_t)c->v_patch,
                         (uint64_t)c->v_patch};
    NB_TRY(nb_checkpoint_get(m->job->source.checkpoint, "visual.patch_embed.proj.weight", 5, shape, &patches, err));
    for (int frame = 0; frame < c->v_temporal; frame++) {
        piece p = {.patches = patches, .type = NB_GGUF_F16, .first = frame, .name = "v.patch_embd.weight"};
        if (frame) snprintf(p.name, sizeof p.name, "v.patch_embd.weight.%d", frame);
        NB_TRY(push(m, p, err));
    }
    for (int block = 0; block < c->v_depth; block++) {
        char to[64], from[64];
        for (int i = 0; i < 2; i++) {
            snprintf(to, sizeof to, "v.blk.%d.ln%d", block, i + 1);
            snprintf(from, sizeof from, "visual.blocks.%d.norm%d", block, i + 1);
            NB_TRY(push_norm(m, to, from, err));
        }
        for (int i = 0; i < 3; i++) {
            snprintf(to, sizeof to, "v.blk.%d.%s", block, thirds[i]);
            snprintf(from, sizeof from, "visual.blocks.%d.attn.qkv", block);
            NB_TRY(push_linear(m, to, from, i, 3, err));
        }
        for (size_t i = 0; i < NB_COUNT(linears); i++) {
            snprintf(to, sizeof to, "v.blk.%d.%s", block, linears[i][0]);
            snprintf(from, sizeof from, "visual.blocks.%d.%s", block, linears[i][1]);
            NB_TRY(push_linear(m, to, from, 0, 1, err));
        }
    }
    NB_TRY(push_norm(m, "v.post_ln", "visual.merger.ln_q", err));
    NB_TRY(push_linear(m, "mm.0", "visual.merger.mlp.0", 0, 1, err));
    return push_linear(m, "mm.2", "visual.merger.mlp.2", 0, 1, err);
}

/* ---- keys -------------------------------------------------------------------------------------------------------------- */

static void put_text(nb_gguf_out *g, const char *key, const char *text)
{
    nb_gguf_out_string(g, key, text, strlen(text));
}

/* llama.cpp's number for a file that is mostly of this grid. */
static uint32_t number_of(const nb_grid *grid)
{
    switch (nb_gguf_type_of(grid, false, 32)) {
    case NB_GGUF_Q4_0: return 2;
    case NB_GGUF_Q4_1: return 3;
    case NB_GGUF_Q8_0: return 7;
    default: return 1;
    }
}

static uint32_t file_type(const nb_export_job *job)
{
    return job->source.coded ? number_of(&job->choice.main) : job->plain.f16 ? 1 : 32;
}

static uint32_t vision_type(const nb_export_job *job)
{
    if (!job->choice.vision) return job->plain.f16 ? 1 : 32;
    for (size_t i = 0; i < job->choice.outer_count; i++)
        if (!strncmp(job->choice.outers[i].name, "visual.", 7)) return number_of(&job->choice.outers[i].grid);
    return 1;
}

static const char *type_word(uint32_t type)
{
    switch (type) {
    case 2: return "Q4_0";
    case 3: return "Q4_1";
    case 7: return "Q8_0";
    case 32: return "BF16";
    default: return "F16";
    }
}

static nb_status text_keys(making *m, const char *name, nb_error *err)
{
    const nb_config *c = &m->job->source.config;
    nb_gguf_out     *g = m->file;
    const int32_t    sections[4] = {c->mrope[0], c->mrope[1], c->mrope[2], 0};
    put_text(g, "general.architecture", "qwen2vl");
    put_text(g, "general.type", "model");
    put_text(g, "general.name", name);
    nb_gguf_out_u32(g, "general.file_type", file_type(m->job));
    nb_gguf_out_u32(g, "general.quantization_version", 2);
    nb_gguf_out_u32(g, "qwen2vl.block_count", (uint32_t)c->layers);
    nb_gguf_out_u32(g, "qwen2vl.context_length", (uint32_t)c->max_positions);
    nb_gguf_out_u32(g, "qwen2vl.embedding_length", (uint32_t)c->hidden);
    nb_gguf_out_u32(g, "qwen2vl.feed_forward_length", (uint32_t)m->job->report->padded);
    nb_gguf_out_u32(g, "qwen2vl.attention.head_count", (uint32_t)c->heads);
    nb_gguf_out_u32(g, "qwen2vl.attention.head_count_kv", (uint32_t)c->kv_heads);
    if (c->head_dim * c->heads != c->hidden) {
        nb_gguf_out_u32(g, "qwen2vl.attention.key_length", (uint32_t)c->head_dim);
        nb_gguf_out_u32(g, "qwen2vl.attention.value_length", (uint32_t)c->head_dim);
    }
    nb_gguf_out_f32(g, "qwen2vl.attention.layer_norm_rms_epsilon", c->rms_eps);
    nb_gguf_out_f32(g, "qwen2vl.rope.freq_base", c->rope_theta);
    nb_gguf_out_i32s(g, "qwen2vl.rope.dimension_sections", sections, 4);
    if (c->yarn) {
        put_text(g, "qwen2vl.rope.scaling.type", "yarn");
        nb_gguf_out_f32(g, "qwen2vl.rope.scaling.factor", (float)c->yarn_factor);
        nb_gguf_out_u32(g, "qwen2vl.rope.scaling.original_context_length", (uint32_t)c->yarn_original);
    }
    return nb_gguf_tokenizer(g, m->job->options.model_dir, c->vocab, err);
}

static nb_status vision_keys(making *m, const char *name, nb_error *err)
{
    const nb_config *c = &m->job->source.config;
    nb_gguf_out     *g = m->file;
    nb_processor     p;
    NB_TRY(nb_processor_open(&p, m->job->options.model_dir, err));
    put_text(g, "general.architecture", "clip");
    put_text(g, "general.type", "mmproj");
    put_text(g, "general.name", name);
    nb_gguf_out_u32(g, "general.file_type", vision_type(m->job));
    nb_gguf_out_u32(g, "general.quantization_version", 2);
    put_text(g, "clip.projector_type", "qwen2vl_merger");
    nb_gguf_out_bool(g, "clip.has_vision_encoder", true);
    nb_gguf_out_bool(g, "clip.use_silu", false);
    nb_gguf_out_bool(g, "clip.use_gelu", false); /* neither: quick_gelu */
    nb_gguf_out_u32(g, "clip.vision.image_size", 560);
    nb_gguf_out_u32(g, "clip.vision.patch_size", (uint32_t)c->v_patch);
    nb_gguf_out_u32(g, "clip.vision.spatial_merge_size", (uint32_t)c->v_merge);
    nb_gguf_out_u32(g, "clip.vision.embedding_length", (uint32_t)c->v_dim);
    nb_gguf_out_u32(g, "clip.vision.feed_forward_length", (uint32_t)c->v_inner);
    nb_gguf_out_u32(g, "clip.vision.projection_dim", (uint32_t)c->v_out);
    nb_gguf_out_u32(g, "clip.vision.block_count", (uint32_t)c->v_depth);
    nb_gguf_out_u32(g, "clip.vision.attention.head_count", (uint32_t)c->v_heads);
    nb_gguf_out_f32(g, "clip.vision.attention.layer_norm_epsilon", 1e-6f);
    nb_gguf_out_f32s(g, "clip.vision.image_mean", p.mean, 3);
    nb_gguf_out_f32s(g, "clip.vision.image_std", p.std, 3);
    return NB_OK;
}

/* ---- data -------------------------------------------------------------------------------------------------------------- */

static nb_status announce(making *m, nb_error *err)
{
    const nb_config *c = &m->job->source.config;
    for (size_t i = 0; i < m->count; i++) {
        const piece *p = &m->pieces[i];
        uint64_t matrix[2] = {p->item ? (uint64_t)p->item->columns : 0, (uint64_t)p->rows}, vector = (uint64_t)p->rows;
        uint64_t patch[4] = {(uint64_t)c->v_patch, (uint64_t)c->v_patch, (uint64_t)c->v_channels, (uint64_t)c->v_dim};
        NB_TRY(nb_gguf_out_tensor(m->file, p->name, p->type, p->item ? 2 : p->patches ? 4 : 1,
                                  p->item ? matrix : p->patches ? patch : &vector, err));
    }
    return NB_OK;
}

static nb_status write_blocks(making *m, const piece *p, nb_error *err)
{
    uint64_t row = nb_gguf_out_row_bytes(p->type, (uint64_t)p->item->columns);
    nb_codes codes;
    uint8_t *out = NULL;
    NB_TRY(nb_source_codes(&codes, &m->job->source, p->item, err));
    nb_status status = nb_alloc(&out, (size_t)p->rows, (size_t)row, p->name, err);
    for (size_t i = 0; i < (size_t)codes.n * (size_t)codes.groups && !status; i++)
        if (!(fabsf(codes.scales[i]) <= 65504.0f) || nb_f16_to_f32(nb_f32_to_f16(codes.scales[i])) != codes.scales[i])
            status = nb_fail(err, NB_ERR_UNSUPPORTED, "'%s': scale %g is not a float16 value, which GGUF's blocks hold",
                             p->item->name,
                             (double)codes.scales[i]);
    for (int r = 0; r < p->rows && !status; r++)
        nb_gguf_blocks(out + (size_t)r * row, p->type, &codes, p->first + r, &m->job->report->zero_error);
    if (!status) status = nb_gguf_out_data(m->file, out, (uint64_t)p->rows * row, err);
    free(out);
    nb_codes_free(&codes);
    return status;
}

static nb_status write_values(making *m, const piece *p, nb_error *err)
{
    int      columns = p->item->columns, step = CHUNK / columns > 0 ? CHUNK / columns : 1;
    nb_dtype type = p->type == NB_GGUF_F16 ? NB_F16 : NB_BF16;
    float   *values = NULL;
    void    *out = NULL;
    nb_rows *rows;
    if (step > p->rows) step = p->rows;
    NB_TRY(nb_rows_open(&rows, &m->job->source, p->item, err));
    nb_status status = nb_alloc(&values, (size_t)step * (size_t)columns, sizeof *values, p->name, err);
    if (!status) status = nb_alloc(&out, (size_t)step * (size_t)columns, nb_dtype_size(type), p->name, err);
    for (int first = 0; first < p->rows && !status; first += step) {
        int    count = p->rows - first < step ? p->rows - first : step;
        size_t elements = (size_t)count * (size_t)columns;
        status = nb_rows_read(rows, p->first + first, count, values, err);
        if (!status) status = nb_export_convert(m->job, out, type, values, elements, p->item->name, err);
        if (!status) status = nb_gguf_out_data(m->file, out, elements * nb_dtype_size(type), err);
    }
    free(values);
    free(out);
    nb_rows_close(rows);
    return status;
}

static nb_status write_vector(making *m, const piece *p, nb_error *err)
{
    float *values;
    NB_TRY(nb_alloc(&values, p->vector->tensor->count, sizeof *values, p->name, err));
    nb_status status = nb_entry_read_f32(p->vector, values, err);
    if (!status) status = nb_gguf_out_data(m->file, values + p->first, (uint64_t)p->rows * sizeof *values, err);
    free(values);
    return status;
}

/* [dim, channels, frames, patch, patch] -> one frame, [dim, channels, patch, patch] */
static nb_status write_patches(making *m, const piece *p, nb_error *err)
{
    const nb_config *c = &m->job->source.config;
    size_t           plane = (size_t)c->v_patch * (size_t)c->v_patch, planes = (size_t)c->v_dim * (size_t)c->v_channels;
    size_t           frames = (size_t)c->v_temporal;
    float           *all = NULL, *one = NULL;
    uint16_t        *out = NULL;
    nb_status        status = nb_alloc(&all, planes * frames * plane, sizeof *all, p->name, err);
    if (!status) status = nb_alloc(&one, planes * plane, sizeof *one, p->name, err);
    if (!status) status = nb_alloc(&out, planes * plane, sizeof *out, p->name, err);
    if (!status) status = nb_entry_read_f32(p->patches, all, err);
    for (size_t i = 0; i < planes && !status; i++)
        memcpy(one + i * plane, all + (i * frames + (size_t)p->first) * plane, plane * sizeof *one);
    if (!status) status = nb_export_convert(m->job, out, NB_F16, one, planes * plane, p->patches->name, err);
    if (!status) status = nb_gguf_out_data(m->file, out, planes * plane * sizeof *out, err);
    free(all);
    free(one);
    free(out);
    return status;
}

static nb_status write_piece(making *m, const piece *p, nb_error *err)
{
    if (p->vector) return write_vector(m, p, err);
    if (p->patches) return write_patches(m, p, err);
    NB_TRY(nb_export_step(m->job, p->item->name, err));
    bool blocks = p->type == NB_GGUF_Q4_0 || p->type == NB_GGUF_Q4_1 || p->type == NB_GGUF_Q8_0;
    if (p->first == 0) *(blocks ? &m->job->report->coded : &m->job->report->dequantized) += p->item->coded;
    return blocks ? write_blocks(m, p, err) : write_values(m, p, err);
}

/* ---- the pair ---------------------------------------------------------------------------------------------------------- */

static nb_status write_file(making *m, const char *path, nb_error *err)
{
    NB_TRY(announce(m, err));
    NB_TRY(nb_gguf_out_begin(m->file, path, err));
    for (size_t i = 0; i < m->count; i++) NB_TRY(write_piece(m, &m->pieces[i], err));
    m->job->report->bytes_out += nb_gguf_out_bytes(m->file);
    return nb_gguf_out_end(m->file, err);
}

static nb_status make_file(making *m, bool vision, const char *name, const char *path, nb_error *err)
{
    m->count = 0;
    NB_TRY(nb_gguf_out_new(&m->file, err));
    nb_status status = vision ? vision_keys(m, name, err) : text_keys(m, name, err);
    if (!status) status = vision ? list_vision(m, err) : list_text(m, err);
    if (!status) status = write_file(m, path, err);
    nb_gguf_out_free(m->file);
    m->file = NULL;
    return status;
}

/* NAME of ".../NAME/" in a fresh buffer. */
static void last_name(nb_buf *out, const char *path)
{
    size_t end = strlen(path), begin;
    while (end > 1 && path[end - 1] == '/') end--;
    for (begin = end; begin > 0 && path[begin - 1] != '/'; begin--) {}
    nb_buf_add(out, path + begin, end - begin);
}

static nb_status look_at_floats(nb_export_job *job, nb_error *err)
{
    const nb_source *s = &job->source;
    job->plain = (nb_plain){.f16 = true};
    for (size_t i = 0; i < s->count; i++) {
        char            name[80];
        const nb_entry *e;
        snprintf(name, sizeof name, "%s.weight", s->items[i].name);
        if (!s->items[i].coded && (e = nb_checkpoint_find(s->checkpoint, name))) NB_TRY(nb_plain_look(&job->plain, e, err));
    }
    if (!job->plain.f16) nb_plain_notes(&job->plain, &job->report->notes);
    return NB_OK;
}

static void tell(const making *m)
{
    nb_buf *notes = &m->job->report->notes;
    if (m->floats)
        nb_buf_printf(notes, "%zu matrices with codes became F16: llama.cpp has no block for theirs (order of inputs, "
                      "asymmetric 8 bits, or "
                      "groups that 32 does not divide)\n", m->floats);
}

static nb_status make_pair(making *m, nb_buf *name, nb_buf *path, nb_error *err)
{
    nb_export_job *job = m->job;
    last_name(name, job->options.out_dir);
    NB_TRY(nb_buf_status(name, "a name", err));
    nb_buf_printf(path, "%s/%s-%s.gguf", nb_writer_partial(job->writer), name->data, type_word(file_type(job)));
    NB_TRY(nb_buf_status(path, "a path", err));
    NB_TRY(make_file(m, false, name->data, path->data, err));
    nb_buf_clear(path);
    nb_buf_printf(path, "%s/mmproj-%s-%s.gguf", nb_writer_partial(job->writer), name->data, type_word(vision_type(job)));
    NB_TRY(nb_buf_status(path, "a path", err));
    return make_file(m, true, name->data, path->data, err);
}

nb_status nb_export_gguf(nb_export_job *job, nb_error *err)
{
    making                m = {.job = job};
    nb_buf                name = {0}, path = {0};
    const nb_config_edits edits = {.intermediate = job->options.tp ? job->report->padded : 0};
    nb_writer_no_tensors(job->writer);
    job->total = job->source.count;
    nb_status status = look_at_floats(job, err);
    if (!status) status = make_pair(&m, &name, &path, err);
    if (!status) tell(&m);
    if (!status) status = nb_config_out(job->writer, job->options.model_dir, &edits, err);
    if (!status) status = nb_export_papers(job, err);
    free(m.pieces);
    nb_buf_free(&name);
    nb_buf_free(&path);
    return status;
}
