/* cmd_quantize.c - flags to nb_quantize, its report to a page, and a recipe.json that makes the same checkpoint again.
 *
 * What a user leaves open is settled before anything runs and becomes part of the recipe, so that a recipe of today means the
 * same after a default has changed.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/plan.h"
#include "runtime/io/file.h"
#include "tools/cli/output.h"
#include "tools/cli/progress.h"
#include "tools/cli/stop.h"
#include "tools/cli/table.h"
#include "tools/commands.h"
#include "tools/quant_config.h"
#include "tools/session.h"

enum { CALIBRATION_PIXELS = 1280 * 28 * 28 }; /* at most 1280 tokens a picture, unless told otherwise */

typedef struct {
    nb_common        common;
    nb_compute_flags compute;
    nb_media_flags   media;
    const char *model, *out, *quant_config;
    int         method, bits, format, act_order, propagate, data_format;
    int64_t     group, grid, block, samples, skip, seq_len, seed;
    double      damp, damp_max, mse;
    bool        sym, duo, clip, static_groups, true_sequential, shuffle, force, dry_run, no_resume;
    const char *data, *dataset_info, *modality_weights;
    nb_strings  lora;
    uint64_t    shard_size, max_ram;
    const char *spool;
    int64_t     spool_zstd;
} options;

/* The order of the choices below. */
static const nb_method    methods[] = {NB_METHOD_AWQ, NB_METHOD_GPTQ, NB_METHOD_RTN};
static const nb_format    formats[] = {NB_FORMAT_AWQ, NB_FORMAT_GPTQ, NB_FORMAT_GPTQ_V2};
static const nb_act_order orders[] = {NB_ORDER_NONE, NB_ORDER_GROUP, NB_ORDER_FULL};
static const int          bit_widths[] = {4, 8};
enum { PROPAGATE_QUANTIZED };

#define AT(field) .at = offsetof(options, field)
static const nb_arg quantize_args[] = {
    {.name = "model", .type = NB_ARG_STRING, AT(model), .positional = true, .required = true, .metavar = "MODEL",
     .help = "float checkpoint directory"},
    {.name = "out", .brief = "o", .aliases = "output,output-dir,work-dir,export-dir", .type = NB_ARG_STRING, AT(out),
     .metavar = "DIR", .required = true, .group = "Result",
     .help = "directory to make; it appears when it is complete"},
    {.name = "method", .aliases = "alg,quant-method", .type = NB_ARG_CHOICE, AT(method), .choices = "awq|gptq|rtn",
     .text = "awq", .group = "Result",
     .help = "awq scales channels by their activations, gptq corrects each rounding error, rtn only rounds"},
    {.name = "bits", .aliases = "w-bit,w-bits,quant-bits,quantization-bit,export-quantization-bit",
     .type = NB_ARG_CHOICE, AT(bits), .choices = "4|8", .text = "4", .group = "Result", .help = "bits of a weight"},
    {.name = "group-size", .brief = "g", .aliases = "q-group-size,w-group-size", .type = NB_ARG_INT, AT(group),
     .min = -1, .max = 1 << 20, .text = "128", .group = "Result",
     .help = "weights that share a scale; -1 is a whole row"},
    {.name = "sym", .aliases = "symmetric,w-sym,quant-sym,!asym,!zero-point", .type = NB_ARG_BOOL, AT(sym),
     .shown = "--sym for gptq, --asym for awq, by the format for rtn", .group = "Result",
     .help = "symmetric range without zero points; --asym is the opposite"},
    {.name = "format", .aliases = "checkpoint-format", .type = NB_ARG_CHOICE, AT(format), .choices = "awq|gptq|gptq_v2",
     .text = "awq", .shown = "awq for awq, gptq otherwise", .group = "Result",
     .help = "layout of the files; vLLM, SGLang and transformers read awq and gptq"},
    {.name = "shard-size", .aliases = "max-shard-size,export-size", .type = NB_ARG_SIZE, AT(shard_size), .min = 1e6,
     .max = 9e15, .text = "4GB", .group = "Result", .advanced = true, .help = "size of a file at most"},
    {.name = "force", .aliases = "overwrite", .type = NB_ARG_BOOL, AT(force), .group = "Result", .transient = true,
     .help = "replace an existing DIR, once the new one is complete"},
    {.name = "lora", .aliases = "adapter,adapters,adapter-name-or-path", .type = NB_ARG_STRINGS, AT(lora), .metavar = "DIR[:SCALE]",
     .group = "Model",
     .help = "merge a LoRA adapter (PEFT directory) into the model before anything else, without an intermediate checkpoint"},

    {.name = "quant-config", .type = NB_ARG_STRING, AT(quant_config), .metavar = "FILE|JSON", .group = "Result",
     .advanced = true, .transient = true,
     .help = "settings of AutoAWQ, AutoGPTQ, GPTQModel or compressed-tensors; flags that are given win"},

    {.name = "data", .aliases = "dataset,calib-data,calib-dataset,export-quantization-dataset", .type = NB_ARG_STRING,
     AT(data), .metavar = "FILE", .group = "Calibration data",
     .help = "chats like those the model will see: OpenAI messages or sharegpt, JSON or JSON lines"},
    {.name = "samples",
     .aliases = "nsamples,num-samples,max-calib-samples,num-calibration-samples,calib-samples,quant-n-samples,"
                "export-quantization-nsamples",
     .type = NB_ARG_INT, AT(samples), .min = 0, .max = 1e9, .text = "128", .group = "Calibration data",
     .help = "conversations to use at most; 0 is all"},
    {.name = "seq-len",
     .aliases = "seqlen,max-calib-seq-len,max-seq-length,calib-seqlen,max-length,export-quantization-maxlen",
     .type = NB_ARG_INT, AT(seq_len), .min = 0, .max = 1e7, .text = "4096", .group = "Calibration data",
     .help = "longer conversations are left out; 0 is no limit"},
    {.name = "shuffle", .type = NB_ARG_BOOL, AT(shuffle), .text = "false", .group = "Calibration data",
     .help = "choose conversations by --seed instead of the first ones"},
    {.name = "seed", .type = NB_ARG_INT, AT(seed), .min = 0, .max = 9e18, .text = "0", .group = "Calibration data",
     .advanced = true, .help = "of --shuffle"},
    {.name = "skip", .type = NB_ARG_INT, AT(skip), .min = 0, .max = 1e9, .text = "0", .group = "Calibration data",
     .advanced = true, .help = "conversations passed over at the beginning of the file"},
    {.name = "modality-weights", .type = NB_ARG_STRING, AT(modality_weights), .metavar = "T:I[:V]", .text = "1:1:1",
     .group = "Calibration data", .advanced = true,
     .help = "weight of a text, picture and video token in the statistics; V is I when left out"},
    {.name = "data-format", .type = NB_ARG_CHOICE, AT(data_format), .choices = NB_DATA_FORMS, .text = "auto",
     .group = "Calibration data", .advanced = true, .help = "form of the rows"},
    {.name = "dataset-info", .type = NB_ARG_STRING, AT(dataset_info), .metavar = "FILE",
     .shown = "dataset_info.json beside the data", .group = "Calibration data", .advanced = true,
     .help = "column names, as for LLaMA-Factory"},

    {.name = "grid", .aliases = "n-grid", .type = NB_ARG_INT, AT(grid), .min = 1, .max = 1000, .text = "20",
     .group = "AWQ", .advanced = true, .help = "exponents tried for the scales"},
    {.name = "duo-scaling", .type = NB_ARG_BOOL, AT(duo), .text = "true", .group = "AWQ", .advanced = true,
     .help = "also try scales that look at the weights"},
    {.name = "clip", .aliases = "apply-clip", .type = NB_ARG_BOOL, AT(clip), .text = "true", .group = "AWQ",
     .advanced = true, .help = "shrink the range of groups where that lowers the error"},

    {.name = "damp", .aliases = "damp-percent,percdamp,dampening-frac", .type = NB_ARG_NUMBER, AT(damp), .min = 1e-9,
     .max = 1, .text = "0.01", .group = "GPTQ", .advanced = true,
     .help = "damping, as a share of the mean diagonal of the Hessian"},
    {.name = "damp-max", .type = NB_ARG_NUMBER, AT(damp_max), .min = 1e-9, .max = 100, .text = "1", .group = "GPTQ",
     .advanced = true, .help = "damping is raised up to this where the factorisation fails"},
    {.name = "block", .aliases = "block-size,blocksize", .type = NB_ARG_INT, AT(block), .min = 1, .max = 65536,
     .text = "128", .group = "GPTQ", .advanced = true,
     .help = "columns that are solved between two updates of the rest"},
    {.name = "act-order", .aliases = "actorder,desc-act", .type = NB_ARG_CHOICE, AT(act_order),
     .choices = "none|group|full", .text = "none", .group = "GPTQ", .advanced = true,
     .help = "solve important columns first: group moves whole groups and costs nothing at run time, full makes a "
             "g_idx"},
    {.name = "static-groups", .type = NB_ARG_BOOL, AT(static_groups), .text = "false", .group = "GPTQ",
     .advanced = true, .help = "take scales from the original weights; with --act-order full the g_idx stays trivial"},
    {.name = "mse", .type = NB_ARG_NUMBER, AT(mse), .min = 0, .max = 10, .text = "0", .group = "GPTQ", .advanced = true,
     .help = "search each range for the least error with this exponent (2.4 is usual); 0 is off"},
    {.name = "true-sequential", .type = NB_ARG_BOOL, AT(true_sequential), .text = "true", .group = "GPTQ",
     .advanced = true, .help = "inside a layer, later matrices see the outputs of quantized earlier ones"},
    {.name = "propagate", .type = NB_ARG_CHOICE, AT(propagate), .choices = "quantized|original", .text = "quantized",
     .shown = "quantized for gptq, original otherwise", .group = "GPTQ", .advanced = true,
     .help = "what the next layer's inputs come from"},

    {.name = "dry-run", .type = NB_ARG_BOOL, AT(dry_run), .group = "Resources", .transient = true,
     .help = "only say what the run would take: memory, disk, size of the result"},
    {.name = "max-ram", .aliases = "max-memory", .type = NB_ARG_SIZE, AT(max_ram), .min = 1, .max = 9e15, .group = "Resources",
     .transient = true,
     .help = "memory to stay within; calibration data goes to disk when it has to, and what cannot fit is refused at once"},
    {.name = "no-resume", .type = NB_ARG_BOOL, AT(no_resume), .group = "Resources", .transient = true,
     .help = "start anew where an interrupted run left finished layers"},
    {.name = "spool", .type = NB_ARG_STRING, AT(spool), .metavar = "DIR", .shown = "OUT.job when --max-ram asks for it",
     .group = "Resources", .advanced = true, .transient = true, .help = "keep hidden states of the calibration data there, on disk"},
    {.name = "spool-zstd", .type = NB_ARG_INT, AT(spool_zstd), .min = 1, .max = 19, .text = "3", .group = "Resources",
     .advanced = true, .transient = true, .help = "compression level of the spool"},
};
#undef AT

static const nb_arg_block blocks[] = {
    {quantize_args, NB_COUNT(quantize_args), 0},
    {nb_media_args, NB_MEDIA_ARGS, offsetof(options, media)},
    {nb_compute_args, NB_COMPUTE_ARGS, offsetof(options, compute)},
    {nb_common_args, NB_COMMON_ARGS, offsetof(options, common)},
    {NULL, 0, 0}};

/* ---- settling what was left open --------------------------------------------------------------------------------- */

static nb_status settle(nb_args *args, options *opt, nb_error *err)
{
    const char *why = "the default of the method";
    if (opt->quant_config) {
        nb_buf    ignored = {0};
        nb_status s = nb_quant_config_apply(args, opt->quant_config, &ignored, err);
        if (s == NB_OK && ignored.size) nb_warn("--quant-config: nothing was made of %s", ignored.data);
        nb_buf_free(&ignored);
        if (s != NB_OK) return s;
    }
    nb_method method = methods[opt->method];
    if (!nb_args_given(args, "format"))
        NB_TRY(nb_args_suggest(args, "format", method == NB_METHOD_AWQ ? "awq" : "gptq", why, err));
    if (!nb_args_given(args, "sym")) {
        bool sym = method == NB_METHOD_GPTQ || formats[opt->format] != NB_FORMAT_AWQ;
        NB_TRY(nb_args_suggest(args, "sym", sym ? "true" : "false", why, err));
    }
    if (!nb_args_given(args, "propagate"))
        NB_TRY(nb_args_suggest(args, "propagate", method == NB_METHOD_GPTQ ? "quantized" : "original", why, err));
    return NB_OK;
}

/* Pictures of calibration data are limited more than those of use: the statistics of 1280 tokens say enough. */
static nb_status settle_pixels(nb_args *args, options *opt, nb_error *err)
{
    nb_processor p;
    char         text[32];
    if (!opt->data || opt->media.max_pixels || nb_args_given(args, "pixels")) return NB_OK;
    NB_TRY(nb_processor_open(&p, opt->model, err));
    int64_t limit = p.max_pixels < CALIBRATION_PIXELS ? p.max_pixels : CALIBRATION_PIXELS;
    if (limit < opt->media.min_pixels) limit = opt->media.min_pixels;
    snprintf(text, sizeof text, "%lld", (long long)limit);
    if (limit < p.max_pixels)
        nb_note("pictures of the calibration data have at most %s pixels (%lld tokens); --max-pixels changes that", text,
                (long long)(limit / 784));
    return nb_args_suggest(args, "max-pixels", text, "the calibration default", err);
}

static nb_status parse_weights(float out[3], const char *text, nb_error *err)
{
    double v[3];
    char   copy[64], *at = copy, *word;
    int    n = 0;
    snprintf(copy, sizeof copy, "%s", text);
    while (n < 3 && (word = strsep(&at, ":")) != NULL)
        if (nb_parse_number(&v[n++], word, 0, 1e6, "--modality-weights", err) != NB_OK) return NB_ERR_ARGUMENT;
    if (at || n < 2 || strlen(text) >= sizeof copy)
        return nb_fail(err, NB_ERR_ARGUMENT, "--modality-weights: '%s' is not T:I:V or T:I, such as 1:0.5:0.5", text);
    if (n == 2) v[2] = v[1];
    if (v[0] == 0 && v[1] == 0 && v[2] == 0)
        return nb_fail(err, NB_ERR_ARGUMENT, "--modality-weights: '%s' weighs nothing", text);
    for (int i = 0; i < 3; i++) out[i] = (float)v[i];
    return NB_OK;
}

/* What no checkpoint can be: said now, not after the calibration. */
static nb_status check(const options *opt, nb_error *err)
{
    bool awq_format = formats[opt->format] == NB_FORMAT_AWQ;
    if (opt->group == 0)
        return nb_fail(err, NB_ERR_ARGUMENT, "--group-size 0: a group has at least one weight; -1 is a whole row");
    if (!opt->data && methods[opt->method] != NB_METHOD_RTN)
        return nb_fail(err, NB_ERR_ARGUMENT, "--data is missing: %s needs chats to calibrate on (--method rtn does not)",
                       methods[opt->method] == NB_METHOD_AWQ ? "awq" : "gptq");
    if (awq_format && bit_widths[opt->bits] != 4)
        return nb_fail(err, NB_ERR_ARGUMENT, "the awq format holds 4 bits only; use --format gptq for %d",
                       bit_widths[opt->bits]);
    if (awq_format && orders[opt->act_order] == NB_ORDER_FULL && !opt->static_groups)
        return nb_fail(err, NB_ERR_ARGUMENT,
                       "the awq format cannot hold --act-order full; use --act-order group or --static-groups");
    if (opt->damp_max < opt->damp)
        return nb_fail(err, NB_ERR_ARGUMENT, "--damp-max %g is less than --damp %g", opt->damp_max, opt->damp);
    if (!opt->force && (nb_file_exists(opt->out) || nb_is_directory(opt->out)))
        return nb_fail(err, NB_ERR_ARGUMENT, "--out %s exists; choose another name or give --force", opt->out);
    return NB_OK;
}

/* "DIR" or "DIR:SCALE"; a folder that really has such a name is one.  *directory is malloc'd. */
static nb_status parse_lora(const char **directory, double *scale, const char *text, nb_error *err)
{
    const char *colon = strrchr(text, ':');
    nb_error    ignored;
    *scale = 1;
    bool scaled = colon && colon > text && !nb_is_directory(text) &&
                  nb_parse_number(scale, colon + 1, -1e6, 1e6, "--lora", &ignored) == NB_OK;
    *directory = scaled ? strndup(text, (size_t)(colon - text)) : strdup(text);
    return *directory ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "--lora: out of memory");
}

static void free_loras(nb_lora *loras, int count)
{
    for (int i = 0; loras && i < count; i++) free((char *)loras[i].directory);
    free(loras);
}

static nb_status parse_loras(nb_lora **out, const nb_strings *texts, nb_error *err)
{
    nb_status s = nb_alloc(out, (size_t)texts->count, sizeof **out, "--lora", err);
    for (int i = 0; i < texts->count && s == NB_OK; i++)
        s = parse_lora(&(*out)[i].directory, &(*out)[i].scale, texts->items[i], err);
    return s;
}

static nb_status fill(nb_quantize_options *q, const options *opt, nb_error *err)
{
    memset(q, 0, sizeof *q);
    q->model_dir = opt->model;
    q->out_dir = opt->out;
    q->method = methods[opt->method];
    q->grid = (nb_grid){.bits = bit_widths[opt->bits], .group = opt->group > 0 ? (int)opt->group : 0, .sym = opt->sym};
    q->format = formats[opt->format];
    q->awq_points = (int)opt->grid;
    q->awq_duo = opt->duo;
    q->awq_clip = opt->clip;
    q->damp = opt->damp;
    q->damp_max = opt->damp_max;
    q->block = (int)opt->block;
    q->order = orders[opt->act_order];
    q->static_groups = opt->static_groups;
    q->mse = (float)opt->mse;
    q->true_sequential = opt->true_sequential;
    q->propagate_quantized = opt->propagate == PROPAGATE_QUANTIZED;
    q->data.path = opt->data;
    q->data.dataset = (nb_dataset_options){.form = (nb_data_form)opt->data_format, .dataset_info = opt->dataset_info,
                                           .image_root = opt->media.image_root};
    q->data.samples = (int)opt->samples;
    q->data.skip = (int)opt->skip;
    q->data.seq_len = (size_t)opt->seq_len;
    q->data.shuffle = opt->shuffle;
    q->data.seed = (uint64_t)opt->seed;
    q->data.spool = opt->spool;
    q->data.spool_level = (int)opt->spool_zstd;
    q->shard_size = opt->shard_size;
    q->force = opt->force;
    q->job = true;
    q->anew = opt->no_resume;
    NB_TRY(parse_weights(q->modality_weights, opt->modality_weights, err));
    return nb_media_prompt_options(&q->data.prompt, &opt->media, NULL, err);
}

static nb_status write_recipe(nb_buf *out, const nb_args *args, nb_error *err)
{
    nb_buf_str(out, "{\n  \"_nibble\": \"" NIBBLE_VERSION
                    "\",\n  \"_use\": \"nibble quantize --config recipe.json --out OTHER\",\n  \"quantize\": ");
    nb_args_json(args, out);
    nb_buf_str(out, "\n}\n");
    return nb_buf_status(out, "the recipe", err);
}

/* ---- the report -------------------------------------------------------------------------------------------------- */

static nb_status matrix_table(nb_table **out, const nb_quantize_report *r, bool awq, nb_error *err)
{
    static const nb_column columns[] = {{.key = "name", .title = "matrix"},
                                        {.key = "loss"},
                                        {.key = "rtn_loss"},
                                        {.key = "loss_ratio", .title = "error vs rtn", .digits = 3},
                                        {.key = "damp", .title = "damp", .digits = 4},
                                        {.key = "awq_ratio", .title = "exponent", .digits = 2},
                                        {.key = "dead", .title = "dead inputs"},
                                        {.key = "fallback", .title = "fell back"}};
    NB_TRY(nb_table_new(out, columns, NB_COUNT(columns), err));
    for (size_t i = 0; i < r->count; i++) {
        const nb_matrix_report *m = &r->matrices[i];
        nb_table_text(*out, m->name);
        nb_table_number(*out, m->loss);
        nb_table_number(*out, m->rtn_loss);
        nb_table_number(*out, m->rtn_loss > 0 ? m->loss / m->rtn_loss : NAN);
        nb_table_number(*out, m->damp > 0 ? m->damp : NAN);
        nb_table_number(*out, awq && m->ratio >= 0 ? m->ratio : NAN); /* empty: no scale was better */
        nb_table_int(*out, m->dead);
        nb_table_bool(*out, m->fallback);
    }
    return NB_OK;
}

typedef struct {
    double mean;        /* geometric mean of loss / rtn_loss */
    double worst;
    size_t worst_index, compared, fallbacks, dead;
} quality;

static quality judge(const nb_quantize_report *r)
{
    quality q = {.mean = NAN};
    double  sum = 0;
    for (size_t i = 0; i < r->count; i++) {
        const nb_matrix_report *m = &r->matrices[i];
        q.fallbacks += m->fallback;
        q.dead += (size_t)m->dead;
        if (!(m->rtn_loss > 0) || !(m->loss > 0)) continue;
        double ratio = m->loss / m->rtn_loss;
        if (!q.compared || ratio > q.worst) q.worst = ratio, q.worst_index = i;
        sum += log(ratio);
        q.compared++;
    }
    if (q.compared) q.mean = exp(sum / (double)q.compared);
    return q;
}

static void text_report(const nb_quantize_report *r, const quality *q, const options *opt, const nb_args *args, nb_buf *out)
{
    char method[40], bits[40], format[40], in[32], made[32], all[32], forward[32], gram[32], solve[32], write[32];
    nb_human_bytes(in, (double)r->bytes_in);
    nb_human_bytes(made, (double)r->bytes_out);
    nb_human_time(all, r->seconds);
    nb_human_time(forward, r->forward_s);
    nb_human_time(gram, r->gram_s);
    nb_human_time(solve, r->solve_s);
    nb_human_time(write, r->write_s);
    nb_buf_printf(out, "%s: %s, %s bits, ", opt->out, nb_args_choice(args, "method", method),
                  nb_args_choice(args, "bits", bits));
    if (opt->group > 0) nb_buf_printf(out, "groups of %lld", (long long)opt->group);
    else nb_buf_str(out, "one group a row");
    nb_buf_printf(out, ", %s, %s format\n", opt->sym ? "symmetric" : "asymmetric", nb_args_choice(args, "format", format));
    nb_buf_printf(out, "  size    %s -> %s (%.0f%%)\n", in, made,
                  r->bytes_in ? 100.0 * (double)r->bytes_out / (double)r->bytes_in : 0.0);
    for (const char *line = r->adapters.data; line && *line; line += strcspn(line, "\n") + 1)
        nb_buf_printf(out, "  merged  %.*s\n", (int)strcspn(line, "\n"), line);
    if (r->samples) {
        nb_buf_printf(out, "  data    %zu conversations, %zu tokens: %llu text, %llu picture, %llu video", r->samples,
                      r->tokens, (unsigned long long)r->tokens_by_modality[0], (unsigned long long)r->tokens_by_modality[1],
                      (unsigned long long)r->tokens_by_modality[2]);
        if (r->too_long)
            nb_buf_printf(out, "; %zu longer than --seq-len %lld left out", r->too_long, (long long)opt->seq_len);
        nb_buf_char(out, '\n');
    }
    if (q->compared)
        nb_buf_printf(out, "  error   %.3f of round-to-nearest on average over %zu matrices; worst %.3f at %s\n", q->mean,
                      q->compared, q->worst, r->matrices[q->worst_index].name);
    nb_buf_printf(out, "  time    %s: layers %s, statistics %s, solving %s, writing %s\n", all, forward, gram, solve, write);
}

static void json_report(const nb_quantize_report *r, const quality *q, const char *recipe, const nb_table *matrices,
                        nb_buf *out)
{
    nb_emit e = nb_emit_start(out, true);
    nb_buf  rows = {0};
    nb_table_print(matrices, NB_TABLE_JSON, &rows);
    nb_emit_open(&e, NULL, '{');
    nb_emit_raw(&e, "recipe", recipe);
    nb_emit_int(&e, "bytes_in", (int64_t)r->bytes_in);
    nb_emit_int(&e, "bytes_out", (int64_t)r->bytes_out);
    nb_emit_int(&e, "samples", (int64_t)r->samples);
    nb_emit_int(&e, "too_long", (int64_t)r->too_long);
    nb_emit_int(&e, "tokens", (int64_t)r->tokens);
    nb_emit_int(&e, "text_tokens", (int64_t)r->tokens_by_modality[0]);
    nb_emit_int(&e, "image_tokens", (int64_t)r->tokens_by_modality[1]);
    nb_emit_int(&e, "video_tokens", (int64_t)r->tokens_by_modality[2]);
    nb_emit_number(&e, "mean_loss_ratio", q->mean);
    nb_emit_number(&e, "worst_loss_ratio", q->compared ? q->worst : NAN);
    nb_emit_int(&e, "fallbacks", (int64_t)q->fallbacks);
    nb_emit_int(&e, "dead_inputs", (int64_t)q->dead);
    nb_emit_number(&e, "max_input", r->max_input);
    nb_emit_number(&e, "seconds", r->seconds);
    nb_emit_number(&e, "forward_s", r->forward_s);
    nb_emit_number(&e, "gram_s", r->gram_s);
    nb_emit_number(&e, "solve_s", r->solve_s);
    nb_emit_number(&e, "write_s", r->write_s);
    nb_emit_bytes(&e, "adapters", r->adapters.data ? r->adapters.data : "", r->adapters.size);
    nb_emit_bytes(&e, "notes", r->notes.data ? r->notes.data : "", r->notes.size);
    nb_emit_raw(&e, "matrices", rows.data ? rows.data : "[]");
    nb_emit_close(&e);
    if (rows.failed) out->failed = true;
    nb_buf_free(&rows);
}

/* Choices with quality at stake are never silent. */
static void warn_about(const nb_quantize_report *r, const quality *q)
{
    nb_warn_lines(r->notes.data, "");
    if (q->fallbacks)
        nb_warn("%zu matrices were rounded to nearest because the factorisation failed up to --damp-max", q->fallbacks);
    if (q->dead) nb_warn("%zu inputs never saw a token other than zero; more or more varied --data may help", q->dead);
    if (r->max_input > 65504)
        nb_warn("inputs reach %.0f, beyond the 65504 of float16: serve this checkpoint in bfloat16", (double)r->max_input);
}

static nb_status print_report(const nb_quantize_report *r, const options *opt, const nb_args *args, const char *recipe,
                              nb_error *err)
{
    nb_table *matrices = NULL;
    nb_buf    out = {0};
    quality   q = judge(r);
    NB_TRY(matrix_table(&matrices, r, methods[opt->method] == NB_METHOD_AWQ, err));
    warn_about(r, &q);
    if (nb_json_wanted()) {
        json_report(r, &q, recipe, matrices, &out);
    } else {
        if (nb_verbose()) {
            nb_table_print(matrices, NB_TABLE_MD, &out);
            nb_buf_char(&out, '\n');
        }
        text_report(r, &q, opt, args, &out);
    }
    nb_status s = nb_print(&out, err);
    nb_table_free(matrices);
    nb_buf_free(&out);
    return s;
}

/* ---- the plan ---------------------------------------------------------------------------------------------------- */

static void json_plan(const nb_plan *p, bool spool, nb_buf *out)
{
    nb_emit e = nb_emit_start(out, true);
    const struct { const char *name; uint64_t value; } rows[] = {
        {"ram", spool ? p->ram_spool : p->ram}, {"ram_least", p->ram_spool}, {"disk_spool", spool ? p->disk_spool : 0},
        {"output", p->output}, {"fixed", p->fixed}, {"model", p->model}, {"layer", p->layer}, {"packed", p->packed},
        {"statistics", p->statistics}, {"solver", p->solver}, {"batch", p->batch}, {"picture", p->picture},
        {"tensor", p->tensor}, {"tokens", p->tokens}, {"hidden", p->hidden},
    };
    nb_emit_open(&e, NULL, '{');
    nb_emit_bool(&e, "spool", spool);
    for (size_t i = 0; i < NB_COUNT(rows); i++) nb_emit_int(&e, rows[i].name, (int64_t)rows[i].value);
    nb_emit_close(&e);
}

static void plan_line(nb_buf *out, const char *what, uint64_t bytes)
{
    char text[32];
    nb_human_bytes(text, (double)bytes);
    nb_buf_printf(out, "  %-44s %10s\n", what, text);
}

static void text_plan(const nb_plan *p, bool spool, const options *opt, nb_buf *out)
{
    bool rtn = methods[opt->method] == NB_METHOD_RTN;
    nb_buf_printf(out, "%s: what it takes at most\n", opt->out);
    plan_line(out, "embedding, head, vision tower", p->model);
    plan_line(out, "a layer, as read and as floats", p->layer);
    if (!rtn) {
        plan_line(out, "the same, packed to run", p->packed);
        plan_line(out, "Gram matrices", p->statistics);
        plan_line(out, "activations of a batch", p->batch);
        plan_line(out, "embedding a conversation with pictures", p->picture);
        if (p->hidden != NB_PLAN_UNKNOWN) plan_line(out, spool ? "hidden states (on disk)" : "hidden states", p->hidden);
    }
    plan_line(out, "work space of the solver", p->solver);
    plan_line(out, "program and tokenizer", p->fixed);
    if (spool || p->ram != NB_PLAN_UNKNOWN)
        plan_line(out, "peak memory", spool ? p->ram_spool : p->ram);
    else
        nb_buf_str(out, "  peak memory: not known without --samples\n");
    if (!rtn) plan_line(out, "least --max-ram", p->ram_spool);
    if (spool && p->disk_spool != NB_PLAN_UNKNOWN) plan_line(out, "disk for the spool", p->disk_spool);
    plan_line(out, "size of the result", p->output);
}

static nb_status print_plan(const nb_plan *p, bool spool, const options *opt, nb_error *err)
{
    nb_buf out = {0};
    if (nb_json_wanted())
        json_plan(p, spool, &out);
    else
        text_plan(p, spool, opt, &out);
    nb_status s = nb_print(&out, err);
    nb_buf_free(&out);
    return s;
}

/* Settle where hidden states are, before anything large is in memory.  *folder is malloc'd or NULL. */
static nb_status settle_memory(nb_plan *plan, nb_quantize_options *q, char **folder, const options *opt, int threads, nb_error *err)
{
    bool   spool;
    size_t n = strlen(opt->out);
    char   text[32];
    NB_TRY(nb_plan_make(plan, q, threads, err));
    NB_TRY(nb_plan_fit(plan, opt->max_ram, &spool, err));
    if (!opt->max_ram) return NB_OK;
    nb_human_bytes(text, (double)(spool || q->data.spool ? plan->ram_spool : plan->ram));
    nb_note("memory: %s at most, of the %llu bytes of --max-ram%s", text, (unsigned long long)opt->max_ram,
            spool ? "; hidden states go to disk" : "");
    if (!spool || q->data.spool) return NB_OK;
    while (n > 1 && opt->out[n - 1] == '/') n--;
    if (asprintf(folder, "%.*s.job", (int)n, opt->out) < 0) {
        *folder = NULL;
        return nb_fail(err, NB_ERR_MEMORY, "--spool: out of memory");
    }
    q->data.spool = *folder;
    return NB_OK;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static bool on_progress(void *context, size_t done, size_t total, const char *what)
{
    nb_meter_update(context, done, total, what);
    return !nb_stop_requested();
}

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    options            *opt = opaque;
    nb_session          session = {0};
    nb_quantize_options q;
    nb_quantize_report  report = {0};
    nb_buf              recipe = {0};
    nb_meter            meter;
    nb_lora            *loras = NULL;
    nb_plan             plan;
    char               *spool = NULL;
    nb_status           s = settle(args, opt, err);
    if (s == NB_OK) s = check(opt, err);
    if (s == NB_OK) s = settle_pixels(args, opt, err);
    if (s == NB_OK) s = fill(&q, opt, err);
    if (s == NB_OK) s = parse_loras(&loras, &opt->lora, err);
    if (s == NB_OK) s = write_recipe(&recipe, args, err);
    if (s == NB_OK) s = nb_session_open(&session, &opt->compute, err);
    if (s == NB_OK && (opt->dry_run || opt->max_ram))
        s = settle_memory(&plan, &q, &spool, opt, nb_pool_threads(session.pool), err);
    if (s == NB_OK && opt->dry_run) s = print_plan(&plan, q.data.spool != NULL, opt, err);
    if (s == NB_OK && !opt->dry_run) {
        q.recipe_json = recipe.data;
        q.loras = loras;
        q.lora_count = (size_t)opt->lora.count;
        nb_meter_start(&meter, "quantize");
        s = nb_quantize(&session.ops, &q, on_progress, &meter, &report, err);
        nb_meter_finish(&meter);
    }
    if (s == NB_OK && !opt->dry_run) s = print_report(&report, opt, args, recipe.data, err);
    nb_quantize_report_free(&report);
    free_loras(loras, opt->lora.count);
    nb_buf_free(&recipe);
    free(spool);
    nb_session_close(&session);
    return s;
}

const nb_command nb_command_quantize = {
    .name = "quantize",
    .summary = "make an int4 or int8 checkpoint from a float one and chats",
    .usage = "MODEL --out DIR --data FILE [flags]",
    .about = "Calibrates on your conversations, layer by layer, and writes a checkpoint whose decoder layers are int4 "
             "or int8; the vision tower, embedding and head stay as they are. The result loads here, in vLLM, SGLang "
             "and transformers. Pictures and text are used as the model sees them, one conversation at a time, never "
             "padded.\n\n"
             "DIR appears when it is complete. A run that is interrupted, by Ctrl-C or by a power cut, leaves its finished "
             "layers in DIR.partial and DIR.job, and the same command goes on from there. DIR holds a recipe.json that "
             "repeats the run.",
    .examples = "  nibble quantize Qwen2-VL-2B-Instruct --data chats.jsonl --out 2b-awq\n"
                "  nibble quantize MODEL --data sft.json --image-root images --method gptq --bits 8 --out 2b-int8\n"
                "  nibble quantize --config 2b-awq/recipe.json --group-size 64 --out 2b-awq-g64\n",
    .blocks = blocks,
    .options_size = sizeof(options),
    .run = run,
};
