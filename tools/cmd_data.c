/* cmd_data.c - `nibble data`: look at chat data before it costs time: check it, show its prompts, convert it. */
#include <string.h>

#include "tools/commands.h"
#include "tools/data.h"
#include "tools/data_source.h"
#include "tools/session.h"

enum { CALIBRATION_PIXELS = 1280 * 28 * 28 }; /* as `quantize` limits pictures unless told otherwise */

typedef struct {
    nb_common      common;
    nb_media_flags media;
    int            data_format;
    nb_strings     words; /* the verb, then files */
    nb_strings     data;
    const char    *model, *dataset_info, *out;
    int64_t        threads, rows, skip, listed, seq_len, samples;
    bool           tokens, deep, force, skip_bad, builtin;
} options;

static const char *const verb_names[] = {"check", "show", "convert"};
static nb_status (*const verbs[])(const nb_data_job *, nb_error *) = {nb_data_check, nb_data_show, nb_data_convert};

#define AT(field) .at = offsetof(options, field)
static const nb_arg data_args[] = {
    {.name = "words", .type = NB_ARG_STRINGS, AT(words), .positional = true, .required = true,
     .metavar = "check|show|convert FILE[:WEIGHT]...",
     .help = "what to do, and chat data: JSON, JSON lines or text, plain, .gz or .zst"},
    {.name = "data", .aliases = "dataset", .type = NB_ARG_STRINGS, AT(data), .metavar = "FILE[:WEIGHT]", .group = "Rows",
     .help = "more files, as quantize takes them"},
    {.name = "model", .brief = "m", .type = NB_ARG_STRING, AT(model), .metavar = "MODEL", .group = "Tokens",
     .help = "checkpoint whose tokenizer and picture limits are used; no weights are read"},
    {.name = "tokens", .type = NB_ARG_BOOL, AT(tokens), .text = "true", .group = "Tokens",
     .help = "--no-tokens neither counts tokens nor opens pictures: the fastest look at the rows"},
    {.name = "seq-len", .aliases = "seqlen,max-seq-length,max-length", .type = NB_ARG_INT, AT(seq_len), .min = 0, .max = 1e7,
     .text = "4096", .group = "Tokens", .help = "check: longer rows are listed as dropped, as quantize would; 0 is no limit"},
    {.name = "deep", .type = NB_ARG_BOOL, AT(deep), .text = "false", .group = "Tokens",
     .help = "decode every picture whole and fetch those behind addresses, instead of looking at headers"},
    {.name = "threads", .brief = "t", .type = NB_ARG_INT, AT(threads), .min = 0, .max = 1024, .text = "0", .shown = "one per CPU",
     .group = "Rows", .advanced = true, .help = "threads that read rows; the report does not depend on it"},
    {.name = "rows", .brief = "n", .type = NB_ARG_INT, AT(rows), .min = 0, .max = 1e9, .text = "3", .group = "Rows",
     .help = "show, check: prompts to print; check cuts long ones"},
    {.name = "skip", .type = NB_ARG_INT, AT(skip), .min = 0, .max = 1e9, .text = "0", .group = "Rows",
     .help = "show: rows passed over first"},
    {.name = "list", .type = NB_ARG_INT, AT(listed), .min = 0, .max = 1e6, .text = "20", .group = "Rows",
     .help = "check: bad rows, long rows and duplicates listed at most, each"},
    {.name = "builtin-data", .type = NB_ARG_BOOL, AT(builtin), .text = "false", .group = "Rows",
     .help = "the chats that nibble carries for calibration"},
    {.name = "samples", .aliases = "nsamples,num-samples", .type = NB_ARG_INT, AT(samples), .min = 0, .max = 1e9, .text = "0",
     .group = "Rows", .help = "convert: rows to take, each file its weight's share as in quantize; 0 is all"},
    {.name = "out", .brief = "o", .aliases = "output", .type = NB_ARG_STRING, AT(out), .metavar = "FILE", .group = "Result",
     .help = "convert: file of JSON lines to write; it appears when it is complete"},
    {.name = "force", .aliases = "overwrite", .type = NB_ARG_BOOL, AT(force), .group = "Result", .transient = true,
     .help = "convert: replace an existing file"},
    {.name = "skip-bad", .type = NB_ARG_BOOL, AT(skip_bad), .text = "false", .group = "Result",
     .help = "convert: leave bad rows out with a warning, instead of stopping at the first"},
    {.name = "data-format", .aliases = "format", .type = NB_ARG_CHOICE, AT(data_format), .choices = NB_DATA_FORMS, .text = "auto",
     .group = "Form", .help = "form of the rows"},
    {.name = "dataset-info", .type = NB_ARG_STRING, AT(dataset_info), .metavar = "FILE",
     .shown = "dataset_info.json beside the data", .group = "Form", .help = "column names, as for LLaMA-Factory"},
};
#undef AT

static const nb_arg_block blocks[] = {
    {data_args, NB_COUNT(data_args), 0},
    {nb_media_args, NB_MEDIA_ARGS, offsetof(options, media)},
    {nb_common_args, NB_COMMON_ARGS, offsetof(options, common)},
    {NULL, 0, 0}};

static nb_status find_verb(size_t *out, const options *opt, nb_error *err)
{
    const nb_strings *words = &opt->words;
    for (*out = 0; *out < NB_COUNT(verbs) && strcmp(words->items[0], verb_names[*out]) != 0; ++*out)
        ;
    const char *near = nb_nearest(words->items[0], verb_names, NB_COUNT(verbs));
    if (*out == NB_COUNT(verbs) && near)
        return nb_fail(err, NB_ERR_ARGUMENT, "data: unknown verb '%s'; did you mean '%s'?", words->items[0], near);
    if (*out == NB_COUNT(verbs))
        return nb_fail(err, NB_ERR_ARGUMENT, "data: '%s' is not one of check, show, convert", words->items[0]);
    if (words->count < 2 && !opt->data.count && !opt->builtin)
        return nb_fail(err, NB_ERR_ARGUMENT, "data %s: FILE is missing", words->items[0]);
    return NB_OK;
}

static nb_status prepare(nb_data_job *job, const options *opt, const nb_data_sources *sources, nb_error *err)
{
    nb_prompt_options prompt;
    *job = (nb_data_job){
        .sources = sources->items, .count = (int)sources->count, .weighted = sources->weighted, .samples = (size_t)opt->samples,
        .tokens = opt->tokens, .deep = opt->deep,
        .seq_len = (size_t)opt->seq_len, .rows = opt->rows, .skip = opt->skip, .listed = opt->listed, .out = opt->out,
        .force = opt->force, .skip_bad = opt->skip_bad,
        .dataset = {.form = (nb_data_form)opt->data_format, .dataset_info = opt->dataset_info,
                    .image_root = opt->media.image_root},
    };
    NB_TRY(nb_media_prompt_options(&prompt, &opt->media, NULL, err));
    job->media = prompt.media;
    job->limits = prompt.limits;
    if (opt->model && opt->tokens) NB_TRY(nb_tokenizer_open(&job->tokenizer, opt->model, err));
    /* A folder without the processor's file, such as one that cannot exist, means the published settings. */
    NB_TRY(nb_processor_open(&job->processor, opt->model ? opt->model : "/dev/null", err));
    if (!job->limits.max_pixels)
        job->limits.max_pixels = job->processor.max_pixels < CALIBRATION_PIXELS ? job->processor.max_pixels : CALIBRATION_PIXELS;
    int64_t least = job->limits.min_pixels ? job->limits.min_pixels : job->processor.min_pixels;
    if (job->limits.max_pixels < least) job->limits.max_pixels = least;
    return NB_OK;
}

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    const options *opt = opaque;
    nb_data_job    job = {0};
    size_t         verb;
    (void)args;
    NB_TRY(find_verb(&verb, opt, err));
    nb_data_sources sources = {0};
    nb_strings      files = {opt->words.items + 1, opt->words.count - 1};
    nb_status       status = nb_data_sources_add(&sources, &files, "FILE", err);
    if (!status) status = nb_data_sources_add(&sources, &opt->data, "--data", err);
    if (!status && opt->builtin) status = nb_data_sources_add_builtin(&sources, err);
    if (!status && verbs[verb] == nb_data_convert) status = nb_data_sources_check(&sources, opt->samples, err);
    nb_pool *pool = NULL;
    if (!status) status = prepare(&job, opt, &sources, err);
    if (!status && verbs[verb] != nb_data_show) status = nb_pool_new(&pool, (int)opt->threads, err);
    job.dataset.pool = pool;
    if (!status) status = verbs[verb](&job, err);
    nb_tokenizer_close(job.tokenizer);
    nb_pool_free(pool);
    nb_data_sources_free(&sources);
    return status;
}

const nb_command nb_command_data = {
    .name = "data",
    .summary = "check chat data, show its prompts, convert it",
    .usage = "check|show|convert FILE... [flags]",
    .about = "check reads every row as quantize and eval would and reports the form found, roles and turns, scripts, tokens by "
             "modality, broken or missing pictures with their lines, rows that would be dropped and why, rows that repeat one "
             "another, a max_pixels that suits the pictures, and the first prompts. The exit code is 5 when a row cannot be used.\n\n"
             "show prints the prompts of the first rows as the model reads them, a picture's tokens abbreviated.\n\n"
             "convert writes all rows, or with --samples a mix by the files' weights, as OpenAI-style JSON lines.\n\n"
             "Read are OpenAI messages, sharegpt and alpaca (with LLaMA-Factory's dataset_info.json), ms-swift, LLaVA, "
             "VLMEvalKit tables, {\"text\"} rows and plain text.",
    .examples = "  nibble data check chats.jsonl --model MODEL\n"
                "  nibble data check *.json.gz --no-tokens\n"
                "  nibble data show chats.jsonl -n 3 --model MODEL\n"
                "  nibble data convert alpaca.json llava.json --out chats.jsonl\n",
    .blocks = blocks,
    .options_size = sizeof(options),
    .run = run,
};
