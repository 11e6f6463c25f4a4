/* cmd_trace.c - what a model computes on the way to an answer, written to a file; and two such files compared. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"
#include "tools/cli/output.h"
#include "tools/cli/stop.h"
#include "tools/cli/table.h"
#include "tools/commands.h"
#include "tools/session.h"
#include "tools/trace/compare.h"
#include "tools/trace/record.h"

typedef struct {
    nb_common        common;
    nb_compute_flags compute;
    nb_engine_flags  engine;
    nb_media_flags   media;
    const char      *model, *other, *prompt, *system, *messages, *out;
    nb_strings       images;
    nb_ints          layers;
    int64_t          row;
    double           tolerance;
    bool             compare, all_logits, force;
} options;

static const nb_arg trace_args[] = {
    {.name = "model",
     .type = NB_ARG_STRING,
     .at = offsetof(options, model),
     .positional = true,
     .required = true,
     .metavar = "MODEL",
     .help = "checkpoint directory; with --compare: a trace"},
    {.name = "other",
     .type = NB_ARG_STRING,
     .at = offsetof(options, other),
     .positional = true,
     .metavar = "B",
     .help = "with --compare: the other trace"},
    {.name = "prompt",
     .brief = "p",
     .type = NB_ARG_STRING,
     .at = offsetof(options, prompt),
     .metavar = "TEXT",
     .group = "Prompt",
     .help = "what to ask"},
    {.name = "image",
     .type = NB_ARG_STRINGS,
     .at = offsetof(options, images),
     .metavar = "FILE",
     .group = "Prompt",
     .help = "a picture, placed before the text"},
    {.name = "system",
     .type = NB_ARG_STRING,
     .at = offsetof(options, system),
     .metavar = "TEXT",
     .group = "Prompt",
     .shown = "the chat template's",
     .help = "system message"},
    {.name = "messages",
     .aliases = "chat",
     .type = NB_ARG_STRING,
     .at = offsetof(options, messages),
     .metavar = "FILE",
     .group = "Prompt",
     .help = "JSON lines of {\"messages\": [...]}; one of them is traced"},
    {.name = "row",
     .type = NB_ARG_INT,
     .at = offsetof(options, row),
     .metavar = "N",
     .text = "1",
     .min = 1,
     .max = 1e9,
     .group = "Prompt",
     .help = "which conversation of --messages, counted from 1"},
    {.name = "out",
     .brief = "o",
     .type = NB_ARG_STRING,
     .at = offsetof(options, out),
     .metavar = "FILE",
     .group = "Trace",
     .help = "safetensors file to make"},
    {.name = "layers",
     .type = NB_ARG_INTS,
     .at = offsetof(options, layers),
     .metavar = "N[,N...]",
     .min = 0,
     .max = 4096,
     .group = "Trace",
     .shown = "all",
     .help = "layers of the decoder whose tensors are kept: 0,5 or 0-3"},
    {.name = "all-logits",
     .type = NB_ARG_BOOL,
     .at = offsetof(options, all_logits),
     .group = "Trace",
     .help = "keep the final rows and logits of every token, not of the last one only"},
    {.name = "force",
     .aliases = "overwrite",
     .type = NB_ARG_BOOL,
     .at = offsetof(options, force),
     .group = "Trace",
     .help = "replace an existing file"},
    {.name = "compare",
     .type = NB_ARG_BOOL,
     .at = offsetof(options, compare),
     .group = "Comparison",
     .help = "compare two traces and name the first place where they part"},
    {.name = "tolerance",
     .aliases = "tol",
     .type = NB_ARG_NUMBER,
     .at = offsetof(options, tolerance),
     .text = "0.001",
     .min = 0,
     .max = 1e6,
     .group = "Comparison",
     .help = "relative RMS error of one token's row up to which it counts as the same"},
};

static const nb_arg_block blocks[] = {{trace_args, NB_COUNT(trace_args), 0},
                                      {nb_media_args, NB_MEDIA_ARGS, offsetof(options, media)},
                                      {nb_compute_args, NB_COMPUTE_ARGS, offsetof(options, compute)},
                                      {nb_engine_args, NB_ENGINE_ARGS, offsetof(options, engine)},
                                      {nb_common_args, NB_COMMON_ARGS, offsetof(options, common)},
                                      {NULL, 0, 0}};

/* ---- recording ----------------------------------------------------------------------------------------------------------- */

static nb_status chat_of_flags(nb_chat *chat, const options *opt, nb_error *err)
{
    nb_message *user;
    nb_part     text = {.kind = NB_PART_TEXT, .text = (char *)opt->prompt};
    if (opt->system) NB_TRY(nb_chat_add_text(chat, "system", opt->system, err));
    NB_TRY(nb_chat_add_message(chat, "user", &user, err));
    for (int i = 0; i < opt->images.count; i++) {
        nb_part picture = {.kind = NB_PART_IMAGE, .text = (char *)opt->images.items[i]};
        NB_TRY(nb_chat_add_part(user, &picture, err));
    }
    return opt->prompt && *opt->prompt ? nb_chat_add_part(user, &text, err) : NB_OK;
}

static nb_status chat_of_file(nb_chat *chat, const options *opt, nb_error *err)
{
    nb_json_stream *in;
    cJSON          *value = NULL;
    size_t          line = 0;
    char            where[320];
    NB_TRY(nb_json_stream_open(&in, opt->messages, err));
    nb_status s = NB_OK;
    for (int64_t i = 0; i < opt->row && s == NB_OK; i++) {
        cJSON_Delete(value);
        value = NULL;
        s = nb_json_stream_next(in, &value, &line, err);
        if (s == NB_OK && !value)
            s = nb_fail(err, NB_ERR_INPUT, "%s: has %lld conversations, --row asks for number %lld", opt->messages,
                        (long long)i, (long long)opt->row);
    }
    nb_json_stream_close(in);
    snprintf(where, sizeof where, "%.280s line %zu", opt->messages, line);
    const cJSON *messages = s == NB_OK && cJSON_IsObject(value) ? nb_json_find(value, "messages") : NULL;
    if (s == NB_OK && !messages) s = nb_fail(err, NB_ERR_INPUT, "%s: not an object with \"messages\"", where);
    if (s == NB_OK) s = nb_chat_from_json(chat, messages, nb_json_find(value, "tools"), where, err);
    cJSON_Delete(value);
    return s;
}

static nb_status build_prompt(nb_prompt *out, const nb_model *model, const options *opt, nb_error *err)
{
    nb_chat           chat = {0};
    nb_prompt_options prompt;
    nb_prompt_source  source = nb_model_source(model);
    char             *folder = opt->messages ? nb_path_folder(opt->messages) : NULL;
    nb_status         s = opt->messages && !folder ? nb_fail(err, NB_ERR_MEMORY, "out of memory")
                                                   : nb_media_prompt_options(&prompt, &opt->media, folder, err);
    if (s == NB_OK) s = opt->messages ? chat_of_file(&chat, opt, err) : chat_of_flags(&chat, opt, err);
    if (s == NB_OK) {
        prompt.template_options.add_generation_prompt = true;
        s = nb_prompt_build(out, &chat, &source, &prompt, err);
    }
    nb_chat_free(&chat);
    free(folder);
    return s;
}

static nb_status check_layers(const options *opt, const nb_model *model, nb_error *err)
{
    for (int i = 0; i < opt->layers.count; i++)
        if (opt->layers.items[i] >= model->config.layers)
            return nb_fail(err, NB_ERR_ARGUMENT, "--layers: there is no layer %lld; the model has %d, from 0",
                           (long long)opt->layers.items[i], model->config.layers);
    return NB_OK;
}

static nb_status report_record(const options *opt, const nb_prompt *p, uint64_t bytes, nb_error *err)
{
    nb_buf out = {0};
    char   size[32];
    nb_human_bytes(size, (double)bytes);
    if (nb_json_wanted()) {
        nb_emit e = nb_emit_start(&out, false);
        nb_emit_open(&e, NULL, '{');
        nb_emit_string(&e, "out", opt->out);
        nb_emit_int(&e, "bytes", (int64_t)bytes);
        nb_emit_int(&e, "tokens", (int64_t)p->count);
        nb_emit_int(&e, "media", p->media_count);
        nb_emit_close(&e);
    } else {
        nb_buf_printf(&out, "%s: %s, %zu tokens, %d picture%s\n", opt->out, size, p->count, p->media_count,
                      p->media_count == 1 ? "" : "s");
    }
    nb_status s = nb_print(&out, err);
    nb_buf_free(&out);
    return s;
}

static nb_status record(const options *opt, nb_error *err)
{
    nb_session       s = {0};
    nb_prompt        prompt = {0};
    nb_engine_flags  flags = opt->engine;
    nb_trace_options trace = {.layers = opt->layers.items,
                              .layer_count = opt->layers.count,
                              .all_logits = opt->all_logits,
                              .force = opt->force,
                              .model = opt->model};
    uint64_t         bytes = 0;
    if (flags.kv_cache_dtype == NB_KV_AUTO)
        flags.kv_cache_dtype = NB_KV_F32; /* bf16 keys and values would be the largest difference from elsewhere */
    nb_status status = nb_session_open(&s, &opt->compute, err);
    if (status == NB_OK) status = nb_session_model(&s, opt->model, NULL, err);
    if (status == NB_OK) status = check_layers(opt, s.model, err);
    if (status == NB_OK) status = build_prompt(&prompt, s.model, opt, err);
    if (status == NB_OK) status = nb_session_engine(&s, &flags, prompt.count + 1, 1, err);
    if (status == NB_OK) status = nb_trace_record(s.engine, &prompt, &trace, opt->out, &bytes, err);
    if (status == NB_OK) status = report_record(opt, &prompt, bytes, err);
    nb_prompt_free(&prompt);
    nb_session_close(&s);
    return status;
}

/* ---- comparing ----------------------------------------------------------------------------------------------------------- */

static nb_status comparison_table(nb_table **out, const nb_trace_comparison *c, nb_error *err)
{
    static const nb_column columns[] = {{.key = "tensor", .title = "tensor"},
                                        {.key = "rows", .title = "rows"},
                                        {.key = "width", .title = "width"},
                                        {.key = "max_abs", .title = "max abs", .right = true},
                                        {.key = "relative", .title = "relative", .right = true},
                                        {.key = "cosine", .title = "cosine", .right = true},
                                        {.key = "worst_token", .title = "worst token"},
                                        {.key = "verdict", .title = "verdict"}};
    NB_TRY(nb_table_new(out, columns, NB_COUNT(columns), err));
    for (size_t i = 0; i < c->count; i++) {
        const nb_trace_row *r = &c->rows[i];
        char                text[32];
        nb_table_text(*out, r->name);
        nb_table_int(*out, (int64_t)r->rows);
        nb_table_int(*out, (int64_t)r->width);
        const double values[] = {r->max_abs, r->relative, r->cosine};
        for (int v = 0; v < 3; v++) {
            snprintf(text, sizeof text, v < 2 ? "%.2e" : "%.8f", values[v]);
            if (r->compared) nb_table_pair(*out, text, values[v]);
            else nb_table_text(*out, NULL);
        }
        if (r->compared) nb_table_int(*out, (int64_t)r->token);
        else nb_table_text(*out, NULL);
        nb_table_text(*out, r->verdict);
    }
    return NB_OK;
}

static void say_parting(const nb_trace_comparison *c, nb_buf *out)
{
    if (c->parting == c->count) {
        nb_buf_str(out, "the traces agree\n");
        return;
    }
    const nb_trace_row *r = &c->rows[c->parting];
    if (!strcmp(r->verdict, "SHAPE")) nb_buf_printf(out, "they part at %s: its shape or type differs\n", r->name);
    else
        nb_buf_printf(out, "they part at %s, row %llu: max abs %.3g, relative %.3g\n", r->name, (unsigned long long)r->first,
                      r->first_abs, r->first_relative);
}

static nb_status compare(const options *opt, nb_error *err)
{
    nb_trace_comparison c;
    nb_table           *table = NULL;
    nb_buf              out = {0};
    NB_TRY(nb_trace_compare(&c, opt->model, opt->other, opt->tolerance, err));
    bool      parts = c.parting < c.count;
    nb_status s = comparison_table(&table, &c, err);
    if (s == NB_OK && nb_json_wanted()) {
        nb_buf  rows = {0};
        nb_emit e = nb_emit_start(&out, true);
        nb_table_print(table, NB_TABLE_JSON, &rows);
        nb_emit_open(&e, NULL, '{');
        nb_emit_bool(&e, "agree", !parts);
        if (parts) {
            const nb_trace_row *r = &c.rows[c.parting];
            nb_emit_open(&e, "first", '{');
            nb_emit_string(&e, "tensor", r->name);
            nb_emit_int(&e, "row", (int64_t)r->first);
            nb_emit_number(&e, "max_abs", r->first_abs);
            nb_emit_number(&e, "relative", r->first_relative);
            nb_emit_close(&e);
        }
        nb_emit_raw(&e, "tensors", rows.data ? rows.data : "[]");
        nb_emit_close(&e);
        out.failed = out.failed || rows.failed;
        nb_buf_free(&rows);
    } else if (s == NB_OK) {
        nb_table_print(table, NB_TABLE_MD, &out);
        nb_buf_char(&out, '\n');
        say_parting(&c, &out);
    }
    if (s == NB_OK) s = nb_print(&out, err);
    nb_table_free(table);
    nb_buf_free(&out);
    nb_trace_comparison_free(&c);
    return s == NB_OK && parts ? NB_DIFFERS : s; /* without words: the report has them */
}

/* ---- the command ----------------------------------------------------------------------------------------------------------- */

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    const options *opt = opaque;
    bool           asked = opt->prompt || opt->images.count || opt->system;
    (void)args;
    if (opt->compare) {
        if (!opt->other) return nb_fail(err, NB_ERR_ARGUMENT, "--compare takes two traces");
        if (asked || opt->messages || opt->out)
            return nb_fail(err, NB_ERR_ARGUMENT, "--compare reads two traces: leave out the prompt and --out");
        return compare(opt, err);
    }
    if (opt->other) return nb_fail(err, NB_ERR_ARGUMENT, "'%s': a second file is for --compare", opt->other);
    if (opt->messages && asked)
        return nb_fail(err, NB_ERR_ARGUMENT, "--messages brings its own prompt: leave out --prompt, --image and --system");
    if (!opt->messages && !opt->prompt && !opt->images.count)
        return nb_fail(err, NB_ERR_ARGUMENT, "nothing to trace: give -p TEXT, --image FILE or --messages FILE");
    if (!opt->out) return nb_fail(err, NB_ERR_ARGUMENT, "--out is missing: the safetensors file to make");
    return record(opt, err);
}

const nb_command nb_command_trace = {
    .name = "trace",
    .summary = "write down what a model computes for a prompt, or compare two such files",
    .usage = "MODEL (-p TEXT [--image FILE]... | --messages FILE [--row N]) --out FILE | --compare A B [flags]",
    .about =
        "Runs one prompt and writes, as 32-bit floats into one safetensors file, what is computed on the way: input_ids and "
        "position_ids; for each picture visual.M.grid_thw, .pixels, .patches, .block.B and .rows; for each layer layer.L.input "
        "(of "
        "layer 0: the embedding with the rows of pictures in place), .q and .k (rotated), .v, .attention (before o), .attn_out "
        "and .mlp_out; then final.input, final.norm and logits, of the last token unless --all-logits. Keys and values are "
        "kept in f32 unless "
        "--kv-cache-dtype says otherwise.\n\n"
        "--compare goes through two traces in the order of computation and names the first tensor and token where they part. "
        "Traces of other programs can be compared when they use the same names. The exit code is 0 when the traces agree and 1 "
        "when they do not.",
    .examples = "  nibble trace MODEL -p \"Name three rivers.\" --out a.safetensors\n"
                "  nibble trace MODEL-awq -p \"Name three rivers.\" --out b.safetensors --layers 0-3\n"
                "  nibble trace --compare a.safetensors b.safetensors --tol 0.01\n",
    .blocks = blocks,
    .options_size = sizeof(options),
    .run = run,
};
