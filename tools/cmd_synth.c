/* cmd_synth.c - the flags of `nibble synth`; the work is in tools/synth. */
#include "tools/cli/output.h"
#include "tools/cli/progress.h"
#include "tools/cli/stop.h"
#include "tools/commands.h"
#include "tools/synth/synth.h"

typedef struct {
    nb_common   common;
    int         size, dtype, layout;
    const char *out;
    int64_t     layers, vision_layers, seed, threads;
    bool        tie, force;
    uint64_t    shard_size;
} options;

#define AT(field) .at = offsetof(options, field)
static const nb_arg synth_args[] = {
    {.name = "size", .type = NB_ARG_CHOICE, AT(size), .choices = "tiny|2b|7b|72b", .positional = true, .required = true,
     .metavar = "SIZE", .help = "tiny, 2b, 7b or 72b; the last three are the published shapes"},
    {.name = "out", .brief = "o", .aliases = "output,output-dir", .type = NB_ARG_STRING, AT(out), .metavar = "DIR",
     .required = true, .group = "Result", .help = "directory to make; it appears when it is complete"},
    {.name = "force", .aliases = "overwrite", .type = NB_ARG_BOOL, AT(force), .group = "Result", .transient = true,
     .help = "replace an existing DIR, once the new one is complete"},
    {.name = "layers", .type = NB_ARG_INT, AT(layers), .min = 1, .max = 1024, .metavar = "N", .shown = "as published",
     .group = "Result", .help = "decoder layers; the first N are those of the whole model"},
    {.name = "vision-layers", .type = NB_ARG_INT, AT(vision_layers), .min = 1, .max = 256, .metavar = "N",
     .shown = "as published", .group = "Result", .help = "blocks of the vision tower"},
    {.name = "tie", .aliases = "tied", .type = NB_ARG_BOOL, AT(tie), .shown = "as published", .group = "Result",
     .help = "use the embedding as the head; --no-tie writes an lm_head"},
    {.name = "seed", .type = NB_ARG_INT, AT(seed), .min = 0, .max = 9e18, .text = "0", .group = "Result",
     .help = "of the weights: the same seed gives the same bytes"},
    {.name = "dtype", .type = NB_ARG_CHOICE, AT(dtype), .choices = "bf16|f16|f32", .text = "bf16", .group = "Result",
     .help = "type of the weights"},
    {.name = "layout", .type = NB_ARG_CHOICE, AT(layout), .choices = "old|new", .text = "old", .group = "Result",
     .help = "tensor names and config.json as published, or as transformers 4.52 and later have them"},
    {.name = "shard-size", .aliases = "max-shard-size", .type = NB_ARG_SIZE, AT(shard_size), .min = 1, .max = 9e15,
     .text = "4GB", .group = "Result", .help = "size of a file at most; a larger tensor has a file to itself"},
    {.name = "threads", .brief = "t", .type = NB_ARG_INT, AT(threads), .min = 0, .max = 1024, .text = "0",
     .shown = "one per CPU", .group = "Machine", .transient = true, .help = "threads to make weights with"},
};

static const nb_arg_block blocks[] = {
    {synth_args, NB_COUNT(synth_args), 0}, {nb_common_args, NB_COMMON_ARGS, offsetof(options, common)}, {NULL, 0, 0}};

static nb_synth_options what_to_make(nb_args *args, const options *opt, const char *recipe)
{
    static const nb_dtype dtypes[] = {NB_BF16, NB_F16, NB_F32}; /* in the order of the flag */
    nb_synth_options      o = {.shape = nb_synth_shapes[opt->size],
                               .dtype = dtypes[opt->dtype],
                               .layout = opt->layout == 0 ? NB_LAYOUT_OLD : NB_LAYOUT_NEW,
                               .seed = (uint64_t)opt->seed,
                               .shard_size = opt->shard_size,
                               .out = opt->out,
                               .force = opt->force,
                               .recipe = recipe};
    if (opt->layers) o.shape.layers = (int)opt->layers;
    if (opt->vision_layers) o.shape.v_depth = (int)opt->vision_layers;
    if (nb_args_given(args, "tie")) o.shape.tied = opt->tie;
    return o;
}

static bool on_progress(void *meter, uint64_t done, uint64_t total, const char *tensor)
{
    const uint64_t mb = 1000000;
    nb_meter_update(meter, (size_t)(done / mb), (size_t)(total / mb), tensor);
    return !nb_stop_requested();
}

static nb_status print_report(const nb_synth_options *o, const nb_synth_report *r, double seconds, nb_error *err)
{
    nb_buf out = {0};
    if (nb_json_wanted()) {
        nb_emit e = nb_emit_start(&out, true);
        nb_emit_open(&e, NULL, '{');
        nb_emit_string(&e, "path", o->out);
        nb_emit_string(&e, "size", o->shape.name);
        nb_emit_int(&e, "layers", o->shape.layers);
        nb_emit_int(&e, "vision_layers", o->shape.v_depth);
        nb_emit_int(&e, "tensors", (int64_t)r->tensors);
        nb_emit_int(&e, "params", (int64_t)r->parameters);
        nb_emit_int(&e, "bytes", (int64_t)r->bytes);
        nb_emit_number(&e, "seconds", seconds);
        nb_emit_number(&e, "bytes_per_s", (double)r->bytes / seconds);
        nb_emit_close(&e);
    } else {
        char count[32], bytes[32], rate[32], time[32];
        nb_human_count(count, (double)r->parameters);
        nb_human_bytes(bytes, (double)r->bytes);
        nb_human_bytes(rate, (double)r->bytes / seconds);
        nb_human_time(time, seconds);
        nb_buf_printf(&out, "%s: %s random weights in %zu tensors, %s in %s (%s/s)\n", o->out, count, r->tensors, bytes, time,
                      rate);
    }
    nb_status s = nb_print(&out, err);
    nb_buf_free(&out);
    return s;
}

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    options         *opt = opaque;
    nb_pool         *pool = NULL;
    nb_buf           recipe = {0};
    nb_synth_report  report;
    nb_meter         meter;
    double           start = nb_seconds();
    nb_buf_str(&recipe, "{\n  \"synth\": ");
    nb_args_json(args, &recipe);
    nb_buf_str(&recipe, "\n}\n");
    nb_status        s = nb_buf_status(&recipe, "synth.json", err);
    nb_synth_options o = what_to_make(args, opt, recipe.data);
    if (s == NB_OK) s = nb_pool_new(&pool, (int)opt->threads, err);
    if (s == NB_OK) {
        nb_meter_start(&meter, "synth (MB)");
        s = nb_synth(pool, &o, on_progress, &meter, &report, err);
        nb_meter_finish(&meter);
    }
    if (s == NB_OK) s = print_report(&o, &report, nb_seconds() - start, err);
    nb_pool_free(pool);
    nb_buf_free(&recipe);
    return s;
}

const nb_command nb_command_synth = {
    .name = "synth",
    .summary = "make a checkpoint of a published shape with random weights",
    .usage = "tiny|2b|7b|72b --out DIR [flags]",
    .about = "Writes a complete checkpoint directory without downloading anything: random weights with the outlier "
             "channels that trained models have, the configuration of the published size, and a small tokenizer and "
             "chat template. Every other command runs on it, so that memory, speed and file handling can be tested at "
             "real sizes; what it answers is noise.\n\n"
             "A tensor depends on --seed and its name alone: --layers, --layout, --shard-size and the number of "
             "threads change no value. Ids above the small tokenizer's have no text.",
    .examples = "  nibble synth 7b --out 7b-random\n"
                "  nibble synth 2b --layers 4 --out 2b-short\n"
                "  nibble synth tiny --layout new --no-tie --shard-size 100k --out tiny-new\n",
    .blocks = blocks,
    .options_size = sizeof(options),
    .run = run,
};
