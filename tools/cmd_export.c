/* cmd_export.c - the flags of `nibble export`; the work is in quant/export.c. */
#include "quant/export.h"
#include "tools/cli/output.h"
#include "tools/cli/progress.h"
#include "tools/cli/stop.h"
#include "tools/commands.h"

typedef struct {
    nb_common   common;
    const char *model, *out;
    int         format, layout;
    int64_t     tp;
    uint64_t    shard_size;
    bool        force;
} options;

/* In the order of the choices. */
static const nb_export_form forms[] = {NB_EXPORT_SAME,   NB_EXPORT_AWQ,  NB_EXPORT_GPTQ, NB_EXPORT_GPTQ_V2, NB_EXPORT_CT,
                                       NB_EXPORT_CT,     NB_EXPORT_GGUF, NB_EXPORT_BF16, NB_EXPORT_F16,     NB_EXPORT_F32};
static const int layouts[] = {-1, NB_LAYOUT_OLD, NB_LAYOUT_NEW};

#define AT(field) .at = offsetof(options, field)
static const nb_arg export_args[] = {
    {.name = "model", .type = NB_ARG_STRING, AT(model), .positional = true, .required = true, .metavar = "SRC",
     .help = "checkpoint directory, quantized or not"},
    {.name = "out", .brief = "o", .aliases = "output,output-dir", .type = NB_ARG_STRING, AT(out), .positional = true, .required = true,
     .metavar = "OUT", .help = "directory to make; it appears when it is complete"},
    {.name = "format", .aliases = "to", .type = NB_ARG_CHOICE, AT(format),
     .choices = "same|awq|gptq|gptq_v2|compressed-tensors|ct|gguf|bf16|f16|f32", .text = "same", .group = "Result",
     .help = "form of the weights; bf16, f16 and f32 dequantize, gguf is a pair of files for llama.cpp"},
    {.name = "layout", .type = NB_ARG_CHOICE, AT(layout), .choices = "same|old|new", .text = "same", .group = "Result",
     .help = "tensor names: old is model.layers and visual, as published; new is model.language_model.layers and model.visual"},
    {.name = "pad-for-tp", .type = NB_ARG_INT, AT(tp), .min = 1, .max = 64, .metavar = "N", .shown = "no padding", .group = "Result",
     .help = "pad the intermediate size with zeros, so that N GPUs divide it on whole groups"},
    {.name = "shard-size", .aliases = "max-shard-size", .type = NB_ARG_SIZE, AT(shard_size), .min = 1, .max = 9e15, .text = "4GB",
     .group = "Result", .help = "size of a file at most; a larger tensor has a file to itself"},
    {.name = "force", .aliases = "overwrite", .type = NB_ARG_BOOL, AT(force), .group = "Result", .transient = true,
     .help = "replace an existing OUT, once the new one is complete"},
};
#undef AT

static const nb_arg_block blocks[] = {
    {export_args, NB_COUNT(export_args), 0}, {nb_common_args, NB_COMMON_ARGS, offsetof(options, common)}, {NULL, 0, 0}};

static bool on_progress(void *meter, size_t done, size_t total, const char *what)
{
    nb_meter_update(meter, done, total, what);
    return !nb_stop_requested();
}

static void json_report(const nb_export_report *r, const options *opt, nb_buf *out)
{
    nb_emit e = nb_emit_start(out, true);
    nb_emit_open(&e, NULL, '{');
    nb_emit_string(&e, "path", opt->out);
    nb_emit_int(&e, "coded", (int64_t)r->coded);
    nb_emit_int(&e, "dequantized", (int64_t)r->dequantized);
    nb_emit_int(&e, "rounded", (int64_t)r->rounded);
    nb_emit_number(&e, "worst_rounding", r->worst);
    nb_emit_bool(&e, "lossless", r->rounded == 0 && r->zero_error == 0);
    nb_emit_number(&e, "zero_error", r->zero_error);
    nb_emit_int(&e, "intermediate_size", r->padded);
    nb_emit_int(&e, "bytes_in", (int64_t)r->bytes_in);
    nb_emit_int(&e, "bytes_out", (int64_t)r->bytes_out);
    nb_emit_number(&e, "seconds", r->seconds);
    nb_emit_string(&e, "notes", r->notes.data ? r->notes.data : "");
    nb_emit_close(&e);
}

static void text_report(const nb_export_report *r, const options *opt, nb_buf *out)
{
    char in[32], made[32], took[32];
    nb_human_bytes(in, (double)r->bytes_in);
    nb_human_bytes(made, (double)r->bytes_out);
    nb_human_time(took, r->seconds);
    nb_buf_printf(out, "%s: %s -> %s in %s; %zu matrices with codes", opt->out, in, made, took, r->coded);
    if (r->dequantized) nb_buf_printf(out, ", %zu dequantized", r->dequantized);
    nb_buf_char(out, '\n');
    if (r->padded != r->intermediate) nb_buf_printf(out, "  intermediate size %d -> %d, padded with zeros\n",
                                                    r->intermediate, r->padded);
    if (r->rounded)
        nb_buf_printf(out, "  not lossless: %llu values rounded, by %.2g of themselves at most, in '%s'\n",
                      (unsigned long long)r->rounded,
                      r->worst, r->worst_name);
    if (r->zero_error > 0)
        nb_buf_printf(out, "  not lossless: Q4_1 holds -zero * scale in float16, which moved weights by %.2g of a step at "
                      "most\n", r->zero_error);
    if (!r->rounded && r->zero_error == 0)
        nb_buf_str(out, "  every value is the one that it was\n");
}

static nb_status print_report(const nb_export_report *r, const options *opt, nb_error *err)
{
    nb_buf out = {0};
    nb_warn_lines(r->notes.data, "");
    if (nb_json_wanted())
        json_report(r, opt, &out);
    else
        text_report(r, opt, &out);
    nb_status s = nb_print(&out, err);
    nb_buf_free(&out);
    return s;
}

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    (void)args;
    const options    *opt = opaque;
    nb_export_options o = {.model_dir = opt->model, .out_dir = opt->out, .form = forms[opt->format],
                           .layout = layouts[opt->layout],
                           .tp = (int)opt->tp, .shard_size = opt->shard_size, .force = opt->force};
    nb_export_report  report;
    nb_meter          meter;
    nb_meter_start(&meter, "export");
    nb_status s = nb_export(&o, on_progress, &meter, &report, err);
    nb_meter_finish(&meter);
    if (s == NB_OK) s = print_report(&report, opt, err);
    nb_export_report_free(&report);
    return s;
}

const nb_command nb_command_export = {
    .name = "export",
    .summary = "write a checkpoint in another form: awq, gptq, compressed-tensors, gguf, floats; other names, shards, padding",
    .usage = "SRC OUT [--format FORM] [flags]",
    .about = "Codes stay the codes that they are and are only packed anew, or become the floats that they mean; nothing is "
             "calibrated. What a form cannot hold is refused and says which would: AWQ has no act-order, no 8 bits and one "
             "group size, GPTQ v1 has no zero point of 0. Where values round (dequantizing to 16 bits) the report counts them.\n\n"
             "Tokenizer, template, recipe and report go along. OUT appears when it is complete.",
    .examples = "  nibble export 2b-awq 2b-gptq --format gptq_v2\n"
                "  nibble export 72b-gptq 72b-tp8 --pad-for-tp 8 --layout new --shard-size 2GB\n"
                "  nibble export 2b-int8 2b-gguf --format gguf\n",
    .blocks = blocks,
    .options_size = sizeof(options),
    .run = run,
};
