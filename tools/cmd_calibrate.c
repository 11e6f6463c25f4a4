/* cmd_calibrate.c - flags to nb_calibrate and nb_calibrate_merge, and what they say of an artifact. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calib/ranks.h"
#include "quant/calibrate.h"
#include "quant/plan.h"
#include "runtime/io/file.h"
#include "tools/artifact_flag.h"
#include "tools/cli/output.h"
#include "tools/cli/progress.h"
#include "tools/cli/stop.h"
#include "tools/commands.h"
#include "tools/data_source.h"
#include "tools/lora_flag.h"
#include "tools/modality_flag.h"
#include "tools/session.h"

enum { LOSS_ON_ALL, LOSS_ON_ASSISTANT };
enum { CALIBRATION_PIXELS = 1280 * 28 * 28 }; /* as quantize: the same artifact as what it would see itself */

typedef struct {
    nb_common        common;
    nb_compute_flags compute;
    nb_media_flags   media;
    const char *model, *artifact, *dataset_info, *modality_weights, *spool;
    nb_strings  merge, lora, data;
    nb_data_sources sources; /* what data names */
    int         data_format, loss_on;
    int64_t     samples, skip, seq_len, seed, spool_zstd;
    bool        shuffle, builtin_data, per_modality, force, dry_run, no_resume;
    uint64_t    max_ram;
} calibrate_flags;

#define AT(field) .at = offsetof(calibrate_flags, field)
static const nb_arg calibrate_args[] = {
    {.name = "model", .type = NB_ARG_STRING, AT(model), .positional = true, .metavar = "MODEL", .help = "float checkpoint directory"},
    {.name = "artifact", .brief = "o", .aliases = "out", .type = NB_ARG_STRING, AT(artifact), .metavar = "DIR", .required = true,
     .group = "Result", .help = "directory to make; it appears when it is complete"},
    {.name = "merge", .type = NB_ARG_STRINGS, AT(merge), .metavar = "DIR,DIR...", .group = "Result", .transient = true,
     .help = "add up artifacts of parts of the data instead of running a model"},
    {.name = "per-modality", .type = NB_ARG_BOOL, AT(per_modality), .text = "false", .group = "Result",
     .help = "keep the sums of text, picture and video tokens apart, so that quantize can weigh them; three times the size"},
    {.name = "force", .aliases = "overwrite", .type = NB_ARG_BOOL, AT(force), .group = "Result", .transient = true,
     .help = "replace an artifact that has this name, once the new one is complete"},
    {.name = "lora", .aliases = "adapter,adapters,adapter-name-or-path", .type = NB_ARG_STRINGS, AT(lora), .metavar = "DIR[:SCALE]",
     .group = "Model", .help = "merge a LoRA adapter (PEFT directory) into the model before anything else"},

    {.name = "data", .aliases = "dataset,calib-data,calib-dataset", .type = NB_ARG_STRINGS, AT(data), .metavar = "FILE[:WEIGHT]",
     .group = "Calibration data",
     .help = "chats like those the model will see: OpenAI messages or sharegpt, JSON or JSON lines; of several files each gives its "
             "weight's share of --samples (1 where none is written)"},
    {.name = "builtin-data", .type = NB_ARG_BOOL, AT(builtin_data), .text = "false", .group = "Calibration data",
     .help = "the chats that nibble carries, alone or beside --data; your own calibrate better"},
    {.name = "samples", .aliases = "nsamples,num-samples,calib-samples", .type = NB_ARG_INT, AT(samples), .min = 0, .max = 1e9,
     .text = "128", .group = "Calibration data", .help = "conversations to use at most; 0 is all"},
    {.name = "seq-len", .aliases = "seqlen,max-seq-length,max-length", .type = NB_ARG_INT, AT(seq_len), .min = 0, .max = 1e7,
     .text = "4096", .group = "Calibration data", .help = "longer conversations are left out; 0 is no limit"},
    {.name = "shuffle", .type = NB_ARG_BOOL, AT(shuffle), .text = "false", .group = "Calibration data",
     .help = "choose conversations by --seed instead of the first ones"},
    {.name = "seed", .type = NB_ARG_INT, AT(seed), .min = 0, .max = 9e18, .text = "0", .group = "Calibration data", .advanced = true,
     .help = "of --shuffle"},
    {.name = "skip", .type = NB_ARG_INT, AT(skip), .min = 0, .max = 1e9, .text = "0", .group = "Calibration data", .advanced = true,
     .help = "conversations passed over at the beginning of each file"},
    {.name = "loss-on", .type = NB_ARG_CHOICE, AT(loss_on), .choices = "all|assistant", .text = "all", .group = "Calibration data",
     .advanced = true, .help = "which tokens count in the statistics: all, or only those of the assistant's answers (their ends included)"},
    {.name = "modality-weights", .type = NB_ARG_STRING, AT(modality_weights), .metavar = "T:I[:V]|auto", .text = "1:1:1",
     .group = "Calibration data", .advanced = true, .help = NB_MODALITY_HELP},
    {.name = "data-format", .type = NB_ARG_CHOICE, AT(data_format), .choices = NB_DATA_FORMS, .text = "auto",
     .group = "Calibration data", .advanced = true, .help = "form of the rows"},
    {.name = "dataset-info", .type = NB_ARG_STRING, AT(dataset_info), .metavar = "FILE", .shown = "dataset_info.json beside the data",
     .group = "Calibration data", .advanced = true, .help = "column names, as for LLaMA-Factory"},

    {.name = "dry-run", .type = NB_ARG_BOOL, AT(dry_run), .group = "Resources", .transient = true,
     .help = "only say what the run would take: memory, disk, size of the artifact"},
    {.name = "max-ram", .aliases = "max-memory", .type = NB_ARG_SIZE, AT(max_ram), .min = 1, .max = 9e15, .group = "Resources",
     .transient = true, .help = "memory to stay within; calibration data goes to disk when it has to, and what cannot fit is refused"},
    {.name = "no-resume", .type = NB_ARG_BOOL, AT(no_resume), .group = "Resources", .transient = true,
     .help = "start anew where an interrupted run left finished layers"},
    {.name = "spool", .type = NB_ARG_STRING, AT(spool), .metavar = "DIR", .shown = "DIR.spool when --max-ram asks for it",
     .group = "Resources", .advanced = true, .transient = true, .help = "keep hidden states of the calibration data there, on disk"},
    {.name = "spool-zstd", .type = NB_ARG_INT, AT(spool_zstd), .min = 1, .max = 19, .text = "3", .group = "Resources", .advanced = true,
     .transient = true, .help = "compression level of the spool"},
};
#undef AT

static const nb_arg_block blocks[] = {
    {calibrate_args, NB_COUNT(calibrate_args), 0},
    {nb_media_args, NB_MEDIA_ARGS, offsetof(calibrate_flags, media)},
    {nb_compute_args, NB_COMPUTE_ARGS, offsetof(calibrate_flags, compute)},
    {nb_common_args, NB_COMMON_ARGS, offsetof(calibrate_flags, common)},
    {NULL, 0, 0}};

/* ---- what was asked for ------------------------------------------------------------------------------------------------ */

static nb_status check(const calibrate_flags *opt, nb_error *err)
{
    if (opt->merge.count && (opt->model || opt->sources.count))
        return nb_fail(err, NB_ERR_ARGUMENT, "--merge adds up what is there: it takes neither a MODEL nor --data");
    if (opt->merge.count) return NB_OK;
    if (!opt->model) return nb_fail(err, NB_ERR_ARGUMENT, "MODEL is missing: the float checkpoint to calibrate");
    if (!opt->sources.count)
        return nb_fail(err, NB_ERR_ARGUMENT, "--data is missing: chats to run the model on (--builtin-data has some)");
    NB_TRY(nb_data_sources_check(&opt->sources, opt->samples, err));
    if (opt->per_modality && strcmp(opt->modality_weights, "1:1:1"))
        return nb_fail(err, NB_ERR_ARGUMENT, "--per-modality keeps modalities apart: give --modality-weights to quantize instead");
    return NB_OK;
}

static nb_status settle_pixels(nb_args *args, calibrate_flags *opt, nb_error *err)
{
    nb_processor p;
    char         text[32];
    if (opt->media.max_pixels || nb_args_given(args, "pixels")) return NB_OK;
    NB_TRY(nb_processor_open(&p, opt->model, err));
    int64_t limit = p.max_pixels < CALIBRATION_PIXELS ? p.max_pixels : CALIBRATION_PIXELS;
    if (limit < opt->media.min_pixels) limit = opt->media.min_pixels;
    snprintf(text, sizeof text, "%lld", (long long)limit);
    return nb_args_suggest(args, "max-pixels", text, "the calibration default", err);
}

static nb_status fill(nb_calibrate_options *o, const calibrate_flags *opt, nb_error *err)
{
    memset(o, 0, sizeof *o);
    o->model_dir = opt->model;
    o->out_dir = opt->artifact;
    o->per_modality = opt->per_modality;
    o->force = opt->force;
    o->anew = opt->no_resume;
    o->data.sources = opt->sources.items;
    o->data.source_count = opt->sources.count;
    o->data.answers_only = opt->loss_on == LOSS_ON_ASSISTANT;
    o->data.dataset = (nb_dataset_options){.form = (nb_data_form)opt->data_format, .dataset_info = opt->dataset_info,
                                           .image_root = opt->media.image_root};
    o->data.samples = (int)opt->samples;
    o->data.skip = (int)opt->skip;
    o->data.seq_len = (size_t)opt->seq_len;
    o->data.shuffle = opt->shuffle;
    o->data.seed = (uint64_t)opt->seed;
    o->data.spool_level = (int)opt->spool_zstd;
    return nb_media_prompt_options(&o->data.prompt, &opt->media, NULL, err);
}

/* Where hidden states go, each rank's to a folder of its own.  *folder is malloc'd or NULL. */
static nb_status settle_spool(nb_calibrate_options *o, char **folder, const calibrate_flags *opt, bool wanted, nb_error *err)
{
    size_t n = strlen(opt->artifact);
    char   rank[32] = "";
    while (n > 1 && opt->artifact[n - 1] == '/') n--;
    if (!opt->spool && !wanted) return NB_OK;
    if (nb_ranks_mine()) snprintf(rank, sizeof rank, "-rank%d", nb_ranks_mine());
    int made = opt->spool ? asprintf(folder, "%s%s", opt->spool, rank) : asprintf(folder, "%.*s.spool%s", (int)n, opt->artifact, rank);
    if (made < 0) {
        *folder = NULL;
        return nb_fail(err, NB_ERR_MEMORY, "--spool: out of memory");
    }
    o->data.spool = *folder;
    return NB_OK;
}

/* ---- pages ------------------------------------------------------------------------------------------------------------- */

static nb_status print_plan(const nb_plan *p, bool spool, const calibrate_flags *opt, nb_error *err)
{
    nb_buf  out = {0};
    nb_emit e = nb_emit_start(&out, true);
    const struct { const char *key, *text; uint64_t value; } rows[] = {
        {"artifact", "size of the artifact, before compression", p->output},
        {"ram", "peak memory", spool ? p->ram_spool : p->ram},
        {"ram_least", "least --max-ram", p->ram_spool},
        {"statistics", "of that, statistics of a layer", p->statistics},
        {"hidden", spool ? "hidden states (on disk)" : "hidden states", p->hidden},
        {"disk_spool", "disk for the spool", spool ? p->disk_spool : 0},
    };
    if (nb_json_wanted()) {
        nb_emit_open(&e, NULL, '{');
        nb_emit_bool(&e, "spool", spool);
        for (size_t i = 0; i < NB_COUNT(rows); i++) nb_emit_int(&e, rows[i].key, (int64_t)rows[i].value);
        nb_emit_close(&e);
    } else {
        nb_buf_printf(&out, "%s: what it takes at most\n", opt->artifact);
        for (size_t i = 0; i < NB_COUNT(rows); i++) {
            char text[32];
            nb_human_bytes(text, (double)rows[i].value);
            if (rows[i].value) nb_buf_printf(&out, "  %-44s %10s\n", rows[i].text, text);
        }
    }
    nb_status s = nb_print(&out, err);
    nb_buf_free(&out);
    return s;
}

static void json_report(const nb_calibrate_report *r, nb_buf *out)
{
    nb_emit e = nb_emit_start(out, true);
    char    weights[64], model[24], data[24];
    nb_modality_text(weights, r->info.weights);
    snprintf(model, sizeof model, "%016llx", (unsigned long long)r->info.model);
    snprintf(data, sizeof data, "%016llx", (unsigned long long)r->info.data);
    nb_emit_open(&e, NULL, '{');
    nb_emit_string(&e, "model", model);
    nb_emit_string(&e, "data", data);
    nb_emit_int(&e, "layers", r->info.layers);
    nb_emit_int(&e, "samples", (int64_t)r->info.samples);
    nb_emit_int(&e, "too_long", (int64_t)r->too_long);
    nb_emit_int(&e, "text_tokens", (int64_t)r->info.tokens[0]);
    nb_emit_int(&e, "image_tokens", (int64_t)r->info.tokens[1]);
    nb_emit_int(&e, "video_tokens", (int64_t)r->info.tokens[2]);
    nb_emit_int(&e, "uncounted_tokens", (int64_t)r->info.tokens[NB_TOKEN_UNCOUNTED]);
    nb_emit_bool(&e, "per_modality", r->info.per_modality);
    nb_emit_string(&e, "modality_weights", weights);
    nb_emit_string(&e, "arithmetic", r->info.arithmetic);
    nb_emit_int(&e, "bytes", (int64_t)r->bytes);
    nb_emit_int(&e, "bytes_uncompressed", (int64_t)nb_artifact_bytes(&r->info));
    nb_emit_number(&e, "seconds", r->seconds);
    nb_emit_number(&e, "forward_s", r->forward_s);
    nb_emit_number(&e, "gram_s", r->gram_s);
    nb_emit_number(&e, "write_s", r->write_s);
    nb_emit_bytes(&e, "adapters", r->adapters.data ? r->adapters.data : "", r->adapters.size);
    nb_emit_bytes(&e, "notes", r->notes.data ? r->notes.data : "", r->notes.size);
    nb_emit_close(&e);
}

static void text_report(const nb_calibrate_report *r, const calibrate_flags *opt, nb_buf *out)
{
    char size[32], all[32], weights[64], forward[32], gram[32], write[32];
    nb_human_bytes(size, (double)r->bytes);
    nb_human_time(all, r->seconds);
    nb_human_time(forward, r->forward_s);
    nb_human_time(gram, r->gram_s);
    nb_human_time(write, r->write_s);
    nb_modality_text(weights, r->info.weights);
    nb_buf_printf(out, "%s: statistics of %d layers, %s (%.0f%% of the uncompressed size)\n", opt->artifact, r->info.layers, size,
                  100 * (double)r->bytes / (double)nb_artifact_bytes(&r->info));
    for (const char *line = r->adapters.data; line && *line; line += strcspn(line, "\n") + 1)
        nb_buf_printf(out, "  merged  %.*s\n", (int)strcspn(line, "\n"), line);
    nb_buf_printf(out, "  data    %llu conversations, %llu text, %llu picture, %llu video tokens", (unsigned long long)r->info.samples,
                  (unsigned long long)r->info.tokens[0], (unsigned long long)r->info.tokens[1], (unsigned long long)r->info.tokens[2]);
    if (r->info.tokens[NB_TOKEN_UNCOUNTED])
        nb_buf_printf(out, " of answers, and %llu that do not count", (unsigned long long)r->info.tokens[NB_TOKEN_UNCOUNTED]);
    if (r->too_long) nb_buf_printf(out, "; %zu longer than --seq-len %lld left out", r->too_long, (long long)opt->seq_len);
    nb_buf_printf(out, r->info.per_modality ? "\n  weights open: kept apart by modality\n" : "\n  weights %s (text, picture, video)\n", weights);
    if (r->taken) nb_buf_printf(out, "  layers  %zu of an interrupted run\n", r->taken);
    nb_buf_printf(out, "  time    %s: layers %s, statistics %s, writing %s\n", all, forward, gram, write);
}

static nb_status print_report(const nb_calibrate_report *r, const calibrate_flags *opt, nb_error *err)
{
    nb_buf out = {0};
    nb_warn_lines(r->notes.data, "");
    if (nb_json_wanted())
        json_report(r, &out);
    else
        text_report(r, opt, &out);
    nb_status s = nb_print(&out, err);
    nb_buf_free(&out);
    return s;
}

/* ---- the command ------------------------------------------------------------------------------------------------------- */

static bool on_progress(void *context, size_t done, size_t total, const char *what)
{
    nb_meter_update(context, done, total, what);
    return !nb_stop_requested();
}

static nb_status merge(const calibrate_flags *opt, nb_session *session, nb_calibrate_report *report, nb_error *err)
{
    char   **folders;
    size_t   count;
    nb_meter meter;
    NB_TRY(nb_artifact_list(&folders, &count, &opt->merge, err));
    nb_meter_start(&meter, "merge");
    nb_status s = nb_calibrate_merge(session->pool, (const char *const *)folders, count, opt->artifact, opt->force, on_progress, &meter, report,
                                     err);
    nb_meter_finish(&meter);
    nb_artifact_list_free(folders, count);
    return s;
}

static nb_status plan(nb_plan *out, bool *spool, const nb_calibrate_options *o, const calibrate_flags *opt, int threads, nb_error *err)
{
    const nb_quantize_options as_if = {.model_dir = o->model_dir, .data = o->data, .loras = o->loras, .lora_count = o->lora_count};
    NB_TRY(nb_plan_make_calibration(out, &as_if, o->per_modality, threads, err));
    NB_TRY(nb_plan_fit(out, opt->max_ram, spool, err));
    *spool = *spool || opt->spool;
    return NB_OK;
}

static nb_status calibrate(nb_calibrate_options *o, const calibrate_flags *opt, nb_session *session, nb_calibrate_report *report,
                           nb_error *err)
{
    const nb_grid grid = {.bits = 4, .group = 128}; /* what auto measures the damage of */
    nb_meter      meter;
    bool          automatic;
    NB_TRY(nb_modality_parse(o->modality_weights, &automatic, opt->modality_weights, err));
    if (automatic)
        NB_TRY(nb_modality_auto(o->modality_weights, &session->ops, o->model_dir, o->loras, o->lora_count, &o->data, &grid, err));
    nb_meter_start(&meter, "calibrate");
    nb_status s = nb_calibrate(&session->ops, o, on_progress, &meter, report, err);
    nb_meter_finish(&meter);
    return s;
}

static nb_status run_model(nb_args *args, calibrate_flags *opt, nb_session *session, nb_calibrate_report *report, nb_error *err)
{
    nb_calibrate_options o;
    nb_plan              p;
    nb_lora             *loras = NULL;
    char                *folder = NULL;
    bool                 spool = false, planned = opt->dry_run || opt->max_ram;
    NB_TRY(settle_pixels(args, opt, err));
    NB_TRY(fill(&o, opt, err));
    NB_TRY(nb_lora_parse(&loras, &opt->lora, err));
    o.loras = loras;
    o.lora_count = (size_t)opt->lora.count;
    nb_status s = planned ? plan(&p, &spool, &o, opt, nb_pool_threads(session->pool), err) : NB_OK;
    if (s == NB_OK) s = settle_spool(&o, &folder, opt, spool, err);
    if (s == NB_OK) s = opt->dry_run ? print_plan(&p, spool, opt, err) : calibrate(&o, opt, session, report, err);
    nb_lora_free(loras, opt->lora.count);
    free(folder);
    return s;
}

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    calibrate_flags    *opt = opaque;
    nb_session          session = {0};
    nb_calibrate_report report = {0};
    NB_TRY(nb_ranks_start(err));
    nb_output_for_rank(&opt->common, nb_ranks_mine());
    nb_status s = nb_data_sources_add(&opt->sources, &opt->data, "--data", err);
    if (s == NB_OK && opt->builtin_data) s = nb_data_sources_add_builtin(&opt->sources, err);
    if (s == NB_OK) s = check(opt, err);
    if (s == NB_OK) s = nb_session_open(&session, &opt->compute, err);
    if (s == NB_OK) s = opt->merge.count ? merge(opt, &session, &report, err) : run_model(args, opt, &session, &report, err);
    if (s == NB_OK && !opt->dry_run && nb_ranks_mine() == 0) s = print_report(&report, opt, err);
    nb_calibrate_report_free(&report);
    nb_data_sources_free(&opt->sources);
    nb_session_close(&session);
    return s;
}

const nb_command nb_command_calibrate = {
    .name = "calibrate",
    .summary = "keep the statistics of a float model over chats, for any number of quantizations",
    .usage = "MODEL --data FILE --artifact DIR [flags]\n       nibble calibrate --merge DIR,DIR --artifact DIR",
    .about = "Runs the float model over your conversations once and writes what AWQ and GPTQ need to know of the inputs of every "
             "linear layer. 'nibble quantize --artifact DIR' then tries methods, bits and groups without running the model again.\n\n"
             "The sums are exact: artifacts of parts of a data set, made on several machines and added up with --merge in any order, are "
             "the artifact of the whole, to the byte. 'mpirun -n N nibble calibrate ...' splits one run over N processes in the same way.\n\n"
             "AWQ from an artifact is the same as with --data. GPTQ is not: with --data it sees what quantized layers give to the next "
             "ones, and an artifact holds what the float model gives.\n\n"
             "DIR appears when it is complete. A run that is interrupted leaves its finished layers in DIR.partial, and the same command "
             "goes on from there.",
    .examples = "  nibble calibrate Qwen2-VL-2B-Instruct --data chats.jsonl --artifact 2b-stats\n"
                "  nibble quantize Qwen2-VL-2B-Instruct --artifact 2b-stats --method awq --group-size 64 --out 2b-awq-g64\n"
                "  nibble calibrate --merge monday,tuesday --artifact both\n",
    .blocks = blocks,
    .options_size = sizeof(calibrate_flags),
    .run = run,
};
