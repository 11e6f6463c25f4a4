/* cmd_inspect.c - what a checkpoint is, told from its headers and JSON files; weights are read for --dequantized only.
 *
 * Tensor parallelism.  o_proj and down_proj are split along their inputs, so each of t ranks must get whole groups, and the
 * heads of the decoder and of the vision tower must divide as well (KV heads may be repeated instead):
 *     t divides heads, v_heads, heads * head_dim / g and intermediate / g;  t divides kv_heads or kv_heads divides t.
 */
#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/checkpoint.h"
#include "runtime/io/file.h"
#include "runtime/model/config.h"
#include "runtime/model/linear.h"
#include "runtime/vision/preprocess.h"
#include "tools/cli/output.h"
#include "tools/cli/table.h"
#include "tools/commands.h"

typedef struct {
    nb_common   common;
    const char *model, *filter;
    bool        tensors, dequantized, chat_template;
} options;

static const nb_arg inspect_args[] = {
    {.name = "model", .type = NB_ARG_STRING, .at = offsetof(options, model), .positional = true, .required = true,
     .metavar = "MODEL", .help = "checkpoint directory"},
    {.name = "tensors", .type = NB_ARG_BOOL, .at = offsetof(options, tensors), .group = "What to show",
     .help = "list the tensors: name, type, shape, bytes, file"},
    {.name = "filter", .type = NB_ARG_STRING, .at = offsetof(options, filter), .metavar = "RE", .group = "What to show",
     .help = "with --tensors or --dequantized: only names that match this extended regular expression"},
    {.name = "dequantized", .type = NB_ARG_BOOL, .at = offsetof(options, dequantized), .group = "What to show",
     .help = "read the decoder's linears and print, for each, name, shape [n, k] and the FNV-1a 64 hash of its dequantized "
             "float32 bytes (little endian, row by row), so that other readers can be compared bit for bit"},
    {.name = "chat-template", .type = NB_ARG_BOOL, .at = offsetof(options, chat_template), .group = "What to show",
     .help = "print the checkpoint's chat template and nothing else"},
};

static const nb_arg_block blocks[] = {
    {inspect_args, NB_COUNT(inspect_args), 0}, {nb_common_args, NB_COMMON_ARGS, offsetof(options, common)}, {NULL, 0, 0}};

/* ---- parts ------------------------------------------------------------------------------------------------------- */

typedef enum { PART_EMBEDDING, PART_LINEARS, PART_NORMS, PART_HEAD, PART_VISION, PART_OTHER, PARTS } part_kind;
static const char *const part_names[PARTS] = {"embedding", "decoder linears", "norms", "head", "vision", "other"};

typedef struct {
    size_t   tensors;
    uint64_t params, bytes;
    char     types[64]; /* "BF16" or "F16 I32" */
} part;

static bool starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

static bool ends(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcmp(s + n - m, suffix) == 0;
}

static part_kind part_of(const char *name)
{
    if (starts(name, "model.embed_tokens.")) return PART_EMBEDDING;
    if (starts(name, "lm_head.")) return PART_HEAD;
    if (starts(name, "visual.")) return PART_VISION;
    if (ends(name, "norm.weight")) return PART_NORMS;
    if (starts(name, "model.layers.")) return PART_LINEARS;
    return PART_OTHER;
}

/* The inputs of a GPTQ matrix, which its g_idx counts; 0 without one. */
static uint64_t inputs_of(const nb_checkpoint *c, const char *qweight)
{
    char name[256];
    snprintf(name, sizeof name, "%.*s.g_idx", (int)(strlen(qweight) - strlen(".qweight")), qweight);
    const nb_entry *e = nb_checkpoint_find(c, name);
    return e ? e->tensor->count : 0;
}

/* What compressed-tensors' weight_shape says, which is data and not a header. */
static uint64_t shape_product(const nb_entry *e)
{
    nb_error ignored;
    void    *data;
    uint64_t product = 0;
    if (e->tensor->dtype != NB_I64 || e->tensor->count != 2 || nb_entry_read(e, &data, &ignored) != NB_OK) return 0;
    const int64_t *shape = data;
    if (shape[0] > 0 && shape[1] > 0 && shape[0] < 1 << 30 && shape[1] < 1 << 30) product = (uint64_t)(shape[0] * shape[1]);
    free(data);
    return product;
}

/* Weights that a tensor stands for: packed words hold several, and scales, zeros and indices hold none. */
static uint64_t params_of(const nb_checkpoint *c, const nb_entry *e, int bits)
{
    if (ends(e->name, ".weight_shape")) return shape_product(e);
    if (ends(e->name, ".qweight")) {
        uint64_t inputs = inputs_of(c, e->name), outputs = e->tensor->rank == 2 ? e->tensor->shape[1] : 0;
        return inputs ? inputs * outputs : bits > 0 ? e->tensor->count * (uint64_t)(32 / bits) : 0;
    }
    if (ends(e->name, ".qzeros") || ends(e->name, ".scales") || ends(e->name, ".g_idx") || ends(e->name, ".weight_scale") ||
        ends(e->name, ".weight_zero_point") || ends(e->name, ".weight_packed") || ends(e->name, ".weight_g_idx"))
        return 0;
    return e->tensor->count;
}

static void add_type(char types[64], const char *name)
{
    char *at = strstr(types, name);
    size_t n = strlen(name);
    for (; at; at = strstr(at + 1, name))
        if ((at == types || at[-1] == ' ') && (at[n] == 0 || at[n] == ' ')) return;
    size_t used = strlen(types);
    snprintf(types + used, 64 - used, "%s%s", used ? " " : "", name);
}

static void measure(part parts[PARTS], const nb_checkpoint *c, int bits)
{
    memset(parts, 0, PARTS * sizeof *parts);
    for (size_t i = 0; i < nb_checkpoint_count(c); i++) {
        const nb_entry *e = nb_checkpoint_at(c, i);
        part           *p = &parts[part_of(e->name)];
        p->tensors++;
        p->params += params_of(c, e, bits);
        p->bytes += e->tensor->bytes;
        add_type(p->types, e->tensor->dtype_name);
    }
}

/* ---- facts ------------------------------------------------------------------------------------------------------- */

/* "1, 2, 4" for group size g (0: whole rows, which every rank can share). */
static void tp_degrees(char out[48], const nb_config *c, int g)
{
    int used = 0;
    out[0] = 0;
    for (int t = 1; t <= 16; t *= 2) {
        int  o_in = c->heads * c->head_dim, down_in = c->intermediate, unit = g > 0 ? g : 1;
        bool fits = o_in % unit == 0 && down_in % unit == 0 && (o_in / unit) % t == 0 && (down_in / unit) % t == 0;
        bool heads = c->heads % t == 0 && c->v_heads % t == 0 && (c->kv_heads % t == 0 || t % c->kv_heads == 0);
        if (t == 1 || (fits && heads)) used += snprintf(out + used, 48 - (size_t)used, "%s%d", used ? ", " : "", t);
    }
}

static const char *method_name(nb_quant_method m)
{
    switch (m) {
    case NB_QUANT_NONE: return "none";
    case NB_QUANT_AWQ: return "awq";
    case NB_QUANT_GPTQ: return "gptq";
    case NB_QUANT_CT: return "compressed-tensors";
    }
    return "none";
}

static const char *dtype_word(nb_dtype t)
{
    return t == NB_F32 ? "float32" : t == NB_BF16 ? "bfloat16" : t == NB_F16 ? "float16" : "other";
}

/* needed: a loader (this one or transformers) fails or guesses without it. */
static const struct {
    const char *name;
    bool        needed;
} side_files[] = {
    {"config.json", true},            {"generation_config.json", true},  {"preprocessor_config.json", true},
    {"tokenizer_config.json", true},  {"tokenizer.json", true},          {"vocab.json", true},
    {"merges.txt", true},             {"chat_template.json", false},     {"chat_template.jinja", false},
    {"special_tokens_map.json", false}, {"added_tokens.json", false},    {"processor_config.json", false},
    {"quantize_config.json", false},  {"quant_config.json", false},      {"adapter_config.json", false},
    {"recipe.json", false},           {"report.json", false},
};

static bool has(const char *directory, const char *name)
{
    char *path = nb_path_join(directory, name);
    bool  there = path && nb_file_exists(path);
    free(path);
    return there;
}

/* The template's text from where the different generations of transformers keep it. */
static nb_status read_template(nb_buf *out, const char *directory, nb_error *err)
{
    static const char *const places[] = {"chat_template.jinja", "chat_template.json", "tokenizer_config.json"};
    for (size_t i = 0; i < NB_COUNT(places); i++) {
        if (!has(directory, places[i])) continue;
        char     *path = nb_path_join(directory, places[i]);
        cJSON    *tree = NULL;
        nb_status s = NB_OK;
        if (i == 0) s = nb_file_read(out, path, 1 << 20, err);
        else s = nb_json_file(&tree, path, 64 << 20, err);
        const cJSON *text = tree ? nb_json_find(tree, "chat_template") : NULL;
        if (cJSON_IsString(text)) nb_buf_str(out, text->valuestring);
        cJSON_Delete(tree);
        free(path);
        if (s != NB_OK || out->size) return s;
    }
    return nb_fail(err, NB_ERR_INPUT,
                   "%s: no chat template in chat_template.jinja, chat_template.json or tokenizer_config.json", directory);
}

/* ---- reports ----------------------------------------------------------------------------------------------------- */

typedef struct {
    const options  *opt;
    nb_checkpoint  *checkpoint;
    nb_config       config;
    nb_processor    processor;
    nb_generation_config generation;
    nb_buf          notes;
    part            parts[PARTS], total;
} facts;

static const int group_sizes[] = {128, 64, 32};

static nb_status part_table(nb_table **out, const facts *f, nb_error *err)
{
    static const nb_column columns[] = {{.key = "part", .title = "part"},
                                        {.key = "tensors", .title = "tensors"},
                                        {.key = "params", .title = "params"},
                                        {.key = "bytes", .title = "size"},
                                        {.key = "bits_per_weight", .title = "bits/weight", .digits = 2},
                                        {.key = "types", .title = "types"}};
    NB_TRY(nb_table_new(out, columns, NB_COUNT(columns), err));
    for (int i = 0; i <= PARTS; i++) {
        const part *p = i < PARTS ? &f->parts[i] : &f->total;
        char        count[32], bytes[32];
        if (!p->tensors) continue;
        nb_human_count(count, (double)p->params);
        nb_human_bytes(bytes, (double)p->bytes);
        nb_table_text(*out, i < PARTS ? part_names[i] : "all");
        nb_table_int(*out, (int64_t)p->tensors);
        nb_table_pair(*out, count, (double)p->params);
        nb_table_pair(*out, bytes, (double)p->bytes);
        nb_table_number(*out, p->params ? 8.0 * (double)p->bytes / (double)p->params : NAN);
        nb_table_text(*out, p->types);
    }
    return NB_OK;
}

/* pattern is left alone when there is no filter; otherwise free it with regfree. */
static nb_status compile_filter(regex_t *pattern, const char *filter, nb_error *err)
{
    int code = filter ? regcomp(pattern, filter, REG_EXTENDED | REG_NOSUB) : 0;
    if (!code) return NB_OK;
    char why[128];
    regerror(code, pattern, why, sizeof why);
    return nb_fail(err, NB_ERR_ARGUMENT, "--filter '%s': %s", filter, why);
}

static nb_status tensor_table(nb_table **out, const facts *f, nb_error *err)
{
    static const nb_column columns[] = {{.key = "name", .title = "tensor"},
                                        {.key = "dtype", .title = "type"},
                                        {.key = "shape", .title = "shape"},
                                        {.key = "bytes", .title = "bytes"},
                                        {.key = "file", .title = "file"}};
    regex_t pattern;
    bool    filter = f->opt->filter != NULL;
    NB_TRY(compile_filter(&pattern, f->opt->filter, err));
    nb_status s = nb_table_new(out, columns, NB_COUNT(columns), err);
    for (size_t i = 0; s == NB_OK && i < nb_checkpoint_count(f->checkpoint); i++) {
        const nb_entry *e = nb_checkpoint_at(f->checkpoint, i);
        if (filter && regexec(&pattern, e->name, 0, NULL, 0) != 0) continue;
        char shape[NB_MAX_RANK * 22 + 3] = "[";
        int  used = 1;
        for (int d = 0; d < e->tensor->rank; d++)
            used += snprintf(shape + used, sizeof shape - (size_t)used, "%s%llu", d ? ", " : "",
                             (unsigned long long)e->tensor->shape[d]);
        snprintf(shape + used, sizeof shape - (size_t)used, "]");
        const char *path = nb_safetensors_path(e->file), *slash = strrchr(path, '/');
        nb_table_text(*out, e->name);
        nb_table_text(*out, e->tensor->dtype_name);
        nb_table_text(*out, shape);
        nb_table_int(*out, (int64_t)e->tensor->bytes);
        nb_table_text(*out, slash ? slash + 1 : path);
    }
    if (filter) regfree(&pattern);
    return s;
}

/* FNV-1a, 64 bits: slow and simple, so that another reader writes it in three lines. */
static uint64_t fnv1a(const void *bytes, size_t n)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (const unsigned char *b = bytes, *end = b + n; b < end; b++) hash = (hash ^ *b) * 0x100000001b3u;
    return hash;
}

static nb_status dequantized_row(nb_table *t, const facts *f, const char *name, int n, int k, nb_error *err)
{
    nb_linear linear;
    float    *w = NULL;
    NB_TRY(nb_linear_read(&linear, f->checkpoint, &f->config.quant, name, n, k, -1, err));
    nb_status s = nb_alloc(&w, (size_t)n * (size_t)k, sizeof *w, name, err);
    if (s == NB_OK) {
        char shape[32], hash[17];
        nb_weights_to_f32(w, &linear.weights);
        snprintf(shape, sizeof shape, "[%d, %d]", n, k);
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)fnv1a(w, (size_t)n * (size_t)k * sizeof *w));
        nb_table_text(t, name);
        nb_table_text(t, shape);
        nb_table_text(t, hash);
    }
    free(w);
    nb_linear_free(&linear);
    return s;
}

static nb_status dequantized_table(nb_table **out, const facts *f, nb_error *err)
{
    static const nb_column columns[] = {{.key = "name", .title = "linear"},
                                        {.key = "shape", .title = "shape"},
                                        {.key = "fnv1a64", .title = "FNV-1a 64 of f32"}};
    const nb_config *c = &f->config;
    int              heads = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    const struct {
        const char *name;
        int         n, k;
    } linears[] = {{"self_attn.q_proj", heads, c->hidden},      {"self_attn.k_proj", kv, c->hidden},
                   {"self_attn.v_proj", kv, c->hidden},         {"self_attn.o_proj", c->hidden, heads},
                   {"mlp.gate_proj", c->intermediate, c->hidden}, {"mlp.up_proj", c->intermediate, c->hidden},
                   {"mlp.down_proj", c->hidden, c->intermediate}};
    regex_t pattern;
    bool    filter = f->opt->filter != NULL;
    NB_TRY(compile_filter(&pattern, f->opt->filter, err));
    nb_status s = nb_table_new(out, columns, NB_COUNT(columns), err);
    for (int i = 0; s == NB_OK && i < c->layers * (int)NB_COUNT(linears); i++) {
        int  which = i % (int)NB_COUNT(linears);
        char name[64];
        snprintf(name, sizeof name, "model.layers.%d.%s", i / (int)NB_COUNT(linears), linears[which].name);
        if (filter && regexec(&pattern, name, 0, NULL, 0) != 0) continue;
        s = dequantized_row(*out, f, name, linears[which].n, linears[which].k, err);
    }
    if (filter) regfree(&pattern);
    return s;
}

static void quant_words(char out[160], const nb_quant_config *q)
{
    if (q->method == NB_QUANT_NONE) {
        snprintf(out, 160, "none");
        return;
    }
    char group[32];
    snprintf(group, sizeof group, q->group > 0 ? "groups of %d" : "one group a row", q->group);
    int used = snprintf(out, 160, "%s%s, %d bits, %s, %s%s", method_name(q->method), q->v2 ? " v2" : "", q->bits, group,
                        q->sym ? "symmetric" : "asymmetric", q->desc_act ? ", act-order" : "");
    if (q->more_count) snprintf(out + used, 160 - (size_t)used, "; %d more scheme%s", q->more_count, q->more_count > 1 ? "s" : "");
}

static void text_report(const facts *f, const nb_table *parts, nb_buf *out)
{
    const nb_config    *c = &f->config;
    const nb_processor *p = &f->processor;
    char                words[160], degrees[48];
    int                 token = p->patch * p->merge * p->patch * p->merge;
    quant_words(words, &c->quant);
    nb_buf_printf(out, "%s\n", nb_checkpoint_path(f->checkpoint));
    nb_buf_printf(out, "  architecture   Qwen2-VL, %d layers of %d, intermediate %d, %d heads of %d, %d KV heads\n",
                  c->layers, c->hidden, c->intermediate, c->heads, c->head_dim, c->kv_heads);
    nb_buf_printf(out, "  vocabulary     %d, %s head\n", c->vocab, c->tied ? "tied" : "separate");
    nb_buf_printf(out, "  context        %d tokens%s\n", c->max_positions, c->yarn ? ", YaRN" : "");
    nb_buf_printf(out, "  vision tower   %d layers of %d, %d heads, %d channels in\n", c->v_depth, c->v_dim, c->v_heads,
                  c->v_channels);
    nb_buf_printf(out, "  pictures       %lld to %lld pixels, that is %lld to %lld tokens\n", (long long)p->min_pixels,
                  (long long)p->max_pixels, (long long)(p->min_pixels / token), (long long)(p->max_pixels / token));
    nb_buf_printf(out, "  tensor names   %s layout, %zu tensors in %zu file%s\n",
                  nb_checkpoint_layout(f->checkpoint) == NB_LAYOUT_OLD ? "old (published)"
                                                                       : "new (transformers 4.52 and later)",
                  nb_checkpoint_count(f->checkpoint), nb_checkpoint_shards(f->checkpoint),
                  nb_checkpoint_shards(f->checkpoint) == 1 ? "" : "s");
    nb_buf_printf(out, "  dtype          %s\n", dtype_word(c->dtype));
    nb_buf_printf(out, "  quantization   %s\n", words);
    if (f->generation.do_sample)
        nb_buf_printf(out, "  sampling       temperature %g, top-p %g, top-k %d, repetition penalty %g\n",
                      f->generation.temperature, f->generation.top_p, f->generation.top_k,
                      f->generation.repetition_penalty);
    else
        nb_buf_printf(out, "  sampling       greedy, repetition penalty %g\n", f->generation.repetition_penalty);
    nb_buf_str(out, "  TP degrees     ");
    if (c->quant.method != NB_QUANT_NONE) {
        tp_degrees(degrees, c, c->quant.group);
        nb_buf_printf(out, "%s as it is; ", degrees);
    }
    for (size_t i = 0; i < NB_COUNT(group_sizes); i++) {
        tp_degrees(degrees, c, group_sizes[i]);
        nb_buf_printf(out, "%sgroup %d: %s", i ? "; " : "", group_sizes[i], degrees);
    }
    nb_buf_str(out, "\n  side files     ");
    const char *comma = "";
    for (size_t i = 0; i < NB_COUNT(side_files); i++)
        if (has(f->opt->model, side_files[i].name)) nb_buf_printf(out, "%s%s", comma, side_files[i].name), comma = ", ";
    comma = "\n  missing        ";
    for (size_t i = 0; i < NB_COUNT(side_files); i++)
        if (side_files[i].needed && !has(f->opt->model, side_files[i].name))
            nb_buf_printf(out, "%s%s", comma, side_files[i].name), comma = ", ";
    nb_buf_str(out, "\n\n");
    nb_table_print(parts, NB_TABLE_MD, out);
}

static void emit_degrees(nb_emit *e, const char *key, const nb_config *c, int g)
{
    char list[52];
    list[0] = '[';
    tp_degrees(list + 1, c, g);
    strcat(list, "]");
    nb_emit_raw(e, key, list);
}

/* A table under a key; nothing without one. */
static void emit_table(nb_emit *e, const char *key, const nb_table *table, nb_buf *out)
{
    nb_buf rows = {0};
    if (!table) return;
    nb_table_print(table, NB_TABLE_JSON, &rows);
    nb_emit_raw(e, key, rows.data ? rows.data : "[]");
    if (rows.failed) out->failed = true;
    nb_buf_free(&rows);
}

static void json_report(const facts *f, const nb_table *parts, const nb_table *tensors, const nb_table *dequantized,
                        nb_buf *out)
{
    const nb_config *c = &f->config;
    nb_emit          e = nb_emit_start(out, true);
    nb_emit_open(&e, NULL, '{');
    nb_emit_string(&e, "path", nb_checkpoint_path(f->checkpoint));
    nb_emit_string(&e, "architecture", "Qwen2-VL");
    nb_emit_string(&e, "layout", nb_checkpoint_layout(f->checkpoint) == NB_LAYOUT_OLD ? "old" : "new");
    nb_emit_string(&e, "dtype", dtype_word(c->dtype));
    nb_emit_int(&e, "files", (int64_t)nb_checkpoint_shards(f->checkpoint));
    nb_emit_open(&e, "text", '{');
    nb_emit_int(&e, "layers", c->layers);
    nb_emit_int(&e, "hidden_size", c->hidden);
    nb_emit_int(&e, "intermediate_size", c->intermediate);
    nb_emit_int(&e, "heads", c->heads);
    nb_emit_int(&e, "kv_heads", c->kv_heads);
    nb_emit_int(&e, "head_dim", c->head_dim);
    nb_emit_int(&e, "vocab_size", c->vocab);
    nb_emit_bool(&e, "tied_head", c->tied);
    nb_emit_int(&e, "max_positions", c->max_positions);
    nb_emit_bool(&e, "yarn", c->yarn);
    nb_emit_close(&e);
    nb_emit_open(&e, "vision", '{');
    nb_emit_int(&e, "layers", c->v_depth);
    nb_emit_int(&e, "dim", c->v_dim);
    nb_emit_int(&e, "heads", c->v_heads);
    nb_emit_int(&e, "patch", f->processor.patch);
    nb_emit_int(&e, "min_pixels", f->processor.min_pixels);
    nb_emit_int(&e, "max_pixels", f->processor.max_pixels);
    nb_emit_close(&e);
    nb_emit_open(&e, "quantization", '{');
    nb_emit_string(&e, "method", method_name(c->quant.method));
    if (c->quant.method != NB_QUANT_NONE) {
        nb_emit_int(&e, "bits", c->quant.bits);
        nb_emit_int(&e, "group_size", c->quant.group > 0 ? c->quant.group : -1);
        nb_emit_bool(&e, "sym", c->quant.sym);
        nb_emit_bool(&e, "desc_act", c->quant.desc_act);
        nb_emit_bool(&e, "v2", c->quant.v2);
        nb_emit_int(&e, "more_schemes", c->quant.more_count);
    }
    nb_emit_close(&e);
    nb_emit_open(&e, "tensor_parallel", '{');
    if (c->quant.method != NB_QUANT_NONE) emit_degrees(&e, "as_is", c, c->quant.group);
    for (size_t i = 0; i < NB_COUNT(group_sizes); i++) {
        char key[24];
        snprintf(key, sizeof key, "group_%d", group_sizes[i]);
        emit_degrees(&e, key, c, group_sizes[i]);
    }
    nb_emit_close(&e);
    nb_emit_open(&e, "side_files", '{');
    for (size_t i = 0; i < NB_COUNT(side_files); i++)
        nb_emit_bool(&e, side_files[i].name, has(f->opt->model, side_files[i].name));
    nb_emit_close(&e);
    emit_table(&e, "parts", parts, out);
    emit_table(&e, "tensors", tensors, out);
    emit_table(&e, "dequantized", dequantized, out);
    nb_emit_close(&e);
}

static nb_status report(facts *f, nb_error *err)
{
    nb_table *parts = NULL, *tensors = NULL, *dequantized = NULL;
    nb_buf    out = {0};
    nb_status s = part_table(&parts, f, err);
    if (s == NB_OK && f->opt->tensors) s = tensor_table(&tensors, f, err);
    if (s == NB_OK && f->opt->dequantized) s = dequantized_table(&dequantized, f, err);
    if (s == NB_OK) {
        if (nb_json_wanted()) json_report(f, parts, tensors, dequantized, &out);
        else if (!tensors && !dequantized) text_report(f, parts, &out);
        else {
            if (tensors) nb_table_print(tensors, NB_TABLE_MD, &out);
            if (tensors && dequantized) nb_buf_char(&out, '\n');
            if (dequantized) nb_table_print(dequantized, NB_TABLE_MD, &out);
        }
        s = nb_print(&out, err);
    }
    nb_table_free(parts);
    nb_table_free(tensors);
    nb_table_free(dequantized);
    nb_buf_free(&out);
    return s;
}

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    const options *opt = opaque;
    facts          f = {.opt = opt};
    (void)args;
    if (opt->filter && !opt->tensors && !opt->dequantized)
        return nb_fail(err, NB_ERR_ARGUMENT, "--filter chooses tensors: give --tensors or --dequantized with it");
    if (!nb_is_directory(opt->model))
        return nb_fail(err, NB_ERR_INPUT, "%s: no such directory; give a checkpoint directory", opt->model);
    if (opt->chat_template) {
        nb_buf    text = {0};
        nb_status s = read_template(&text, opt->model, err);
        if (s == NB_OK && text.data[text.size - 1] != '\n') nb_buf_char(&text, '\n');
        if (s == NB_OK) s = nb_print(&text, err);
        nb_buf_free(&text);
        return s;
    }
    nb_status s = nb_config_open(&f.config, opt->model, &f.notes, err);
    if (s == NB_OK) s = nb_generation_config_open(&f.generation, opt->model, err);
    if (s == NB_OK) s = nb_processor_open(&f.processor, opt->model, err);
    if (s == NB_OK) s = nb_checkpoint_open(&f.checkpoint, opt->model, err);
    if (s == NB_OK) {
        nb_warn_lines(f.notes.data, "");
        measure(f.parts, f.checkpoint, f.config.quant.bits);
        for (int i = 0; i < PARTS; i++) {
            f.total.tensors += f.parts[i].tensors;
            f.total.params += f.parts[i].params;
            f.total.bytes += f.parts[i].bytes;
        }
        s = report(&f, err);
    }
    nb_checkpoint_close(f.checkpoint);
    nb_buf_free(&f.notes);
    return s;
}

const nb_command nb_command_inspect = {
    .name = "inspect",
    .summary = "say what a checkpoint is: sizes, quantization, picture limits, what is missing",
    .usage = "MODEL [flags]",
    .about = "Reads the headers and JSON files of a checkpoint directory, checks them, and prints the architecture, "
             "the size of each part, how it is quantized, on how many GPUs its groups can be split (TP degrees), and "
             "which side files are there. No weight is read, so it takes no time on any size, except with --dequantized.",
    .examples = "  nibble inspect Qwen2-VL-2B-Instruct\n"
                "  nibble inspect Qwen2-VL-2B-Instruct-AWQ --tensors --filter 'layers\\.0\\.'\n"
                "  nibble inspect MODEL --json\n",
    .blocks = blocks,
    .options_size = sizeof(options),
    .run = run,
};
