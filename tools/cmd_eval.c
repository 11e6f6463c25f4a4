/* cmd_eval.c - what quantization did to a model: divergence from the original on conversations, and the four benchmarks.
 *
 * Models are evaluated one after another, each beside the reference where one is given, so that memory holds two models at
 * most.  What is measured lives in tools/eval; this file opens, loops and prints.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "calib/dataset.h"
#include "runtime/io/file.h"
#include "tools/cli/output.h"
#include "tools/cli/progress.h"
#include "tools/cli/stop.h"
#include "tools/commands.h"
#include "tools/eval/benchmark.h"
#include "tools/eval/fail_if.h"
#include "tools/session.h"

typedef struct {
    nb_common        common;
    nb_compute_flags compute;
    nb_weight_flags  weights;
    nb_engine_flags  engine;
    nb_media_flags   media;
    nb_strings  models, tasks, fail_if;
    bool        resume;
    const char *ref, *data, *dataset_info, *text, *log_samples, *baseline, *url, *api_key_file;
    double      request_timeout;
    int         data_format, na_values, output, rules;
    int64_t     limit, skip, seq_len, parallel, predict, context, chunks;
} options;

enum { NA_NONE, NA_PANDAS };

#define AT(field) .at = offsetof(options, field)
static const nb_arg eval_args[] = {
    { .name = "models", .type = NB_ARG_STRINGS, AT(models), .positional = true, .required = true, .metavar = "MODEL",
      .help = "checkpoint directories, compared in one table; with --url names" },
    { .name = "ref", .aliases = "reference,base", .type = NB_ARG_STRING, AT(ref), .metavar = "BASE", .group = "What to measure",
      .help = "the original, for divergence and agreement" },
    { .name = "data", .type = NB_ARG_STRING, AT(data), .metavar = "FILE", .group = "What to measure",
      .help = "conversations to compare on, best ones that calibration never saw" },
    { .name = "text", .type = NB_ARG_STRING, AT(text), .metavar = "FILE", .group = "What to measure",
      .help = "plain text for perplexity in chunks of --ctx-size, second halves scored" },
    { .name = "tasks", .type = NB_ARG_STRINGS, AT(tasks), .metavar = "LIST", .group = "What to measure",
      .help = "comma-separated: kl, ppl, agree (with --data), and benchmarks as NAME:FILE.tsv, whose name says which rules apply (mmmu, docvqa, "
              "infovqa, mmbench, mathvista, ocrbench, chartqa, mtvqa, textvqa, realworldqa, mmstar, mme, hallusion; otherwise by the "
              "columns); without it, kl, ppl and agree when --data is given" },
    { .name = "url", .type = NB_ARG_STRING, AT(url), .metavar = "http://HOST:PORT", .group = "What to measure",
      .help = "a running OpenAI-compatible server: MODELs are names of its models, and benchmarks are what can be measured" },
    { .name = "api-key-file", .type = NB_ARG_STRING, AT(api_key_file), .metavar = "FILE", .group = "What to measure", .advanced = true,
      .shown = "OPENAI_API_KEY", .help = "the key for --url" },
    { .name = "request-timeout", .type = NB_ARG_NUMBER, AT(request_timeout), .min = 0, .max = 1e6, .text = "600", .metavar = "S", .advanced = true,
      .group = "What to measure", .help = "seconds for one answer of --url; what fails for now is tried six times" },
    { .name = "limit", .type = NB_ARG_INT, AT(limit), .min = 0, .max = 1e9, .text = "0", .shown = "all", .group = "What to measure",
      .help = "rows of each benchmark and conversations of --data at most" },
    { .name = "skip", .type = NB_ARG_INT, AT(skip), .min = 0, .max = 1e9, .text = "0", .group = "What to measure", .advanced = true,
      .help = "conversations passed over at the beginning of --data" },
    { .name = "seq-len", .type = NB_ARG_INT, AT(seq_len), .min = 0, .max = 1e7, .text = "0", .shown = "no limit", .group = "What to measure",
      .advanced = true, .help = "longer conversations of --data are left out" },
    { .name = "log-samples", .type = NB_ARG_STRING, AT(log_samples), .metavar = "OUT.jsonl", .group = "Results",
      .help = "write index, prediction, answer and hit of every benchmark row, as soon as it is answered" },
    { .name = "resume", .type = NB_ARG_BOOL, AT(resume), .group = "Results",
      .help = "go on with the --log-samples of a run that was cut short: its answers are taken" },
    { .name = "baseline", .type = NB_ARG_STRING, AT(baseline), .metavar = "MODEL|LOG.jsonl", .group = "Results", .shown = "--ref, or else the first MODEL",
      .help = "with which of the models, or which earlier --log-samples, the others are compared question by question" },
    { .name = "fail-if", .type = NB_ARG_STRINGS, AT(fail_if), .metavar = "COND", .group = "Results",
      .help = "exit with 3 when a benchmark is that much below the baseline, in points: mmmu<-1.0; docvqa.high<0 (the upper end of the 95 % "
              "interval); ocrbench.score<80 (the score itself)" },
    { .name = "output", .brief = "o", .type = NB_ARG_CHOICE, AT(output), .choices = "md|csv|json|jsonl", .text = "md", .group = "Results",
      .help = "form of the table" },
    { .name = "data-format", .type = NB_ARG_CHOICE, AT(data_format), .choices = NB_DATA_FORMS, .text = "auto",
      .group = "Data", .advanced = true, .help = "form of --data" },
    { .name = "dataset-info", .type = NB_ARG_STRING, AT(dataset_info), .metavar = "FILE", .group = "Data", .advanced = true,
      .shown = "beside the data file", .help = "LLaMA-Factory's description of the columns" },
    { .name = "na-values", .type = NB_ARG_CHOICE, AT(na_values), .choices = "none|pandas", .text = "none", .group = "Data", .advanced = true,
      .help = "pandas reads table fields such as NA and None as empty, as the published harness does" },
    { .name = "rules", .aliases = "mmmu-scorer", .type = NB_ARG_CHOICE, AT(rules), .choices = "2024-09|current|official", .text = "2024-09",
      .group = "Data", .help = "scoring of options: the harness's of the published tables, its later ones, or MMMU's and MathVista's own" },
    { .name = "parallel", .brief = "np", .aliases = "batch,batch-size", .type = NB_ARG_INT, AT(parallel), .min = 1, .max = 256, .text = "8",
      .group = "Generation", .help = "benchmark rows answered side by side; no answer depends on it" },
    { .name = "predict", .brief = "n", .aliases = "n-predict,max-tokens,max-new-tokens", .type = NB_ARG_INT, AT(predict), .min = 1, .max = 1e6,
      .text = "2048", .group = "Generation", .help = "tokens of a benchmark answer at most" },
    { .name = "ctx-size", .brief = "c", .type = NB_ARG_INT, AT(context), .min = 16, .max = 1e7, .text = "512", .group = "Data",
      .help = "tokens of a chunk of --text" },
    { .name = "chunks", .type = NB_ARG_INT, AT(chunks), .min = 0, .max = 1e9, .text = "0", .shown = "all", .group = "Data", .advanced = true,
      .help = "chunks of --text at most" },
};

static const nb_arg_block blocks[] = { { eval_args, NB_COUNT(eval_args), 0 },
                                       { nb_media_args, NB_MEDIA_ARGS, offsetof(options, media) },
                                       { nb_compute_args, NB_COMPUTE_ARGS, offsetof(options, compute) },
                                       { nb_weight_args, NB_WEIGHT_ARGS, offsetof(options, weights) },
                                       { nb_engine_args, NB_ENGINE_ARGS, offsetof(options, engine) },
                                       { nb_common_args, NB_COMMON_ARGS, offsetof(options, common) },
                                       { NULL, 0, 0 } };

/* ---- what to do ---------------------------------------------------------------------------------------------------------- */

typedef struct {
    const options *opt;
    bool           divergence; /* any of kl, ppl, agree */
    const char   **benchmarks; /* [benchmark_count] NAME:FILE, pointing into `words` */
    int            benchmark_count;
    char         **words;      /* the lists, cut at commas */
    int            word_count;
    nb_row_log    *log;
    nb_fail_if     fail_if;
    const char    *baseline;   /* a model of the list or a log; NULL: nothing to compare with */
    bool           baseline_is_log;
    char           settings[160];
    nb_benchmark   how;
    nb_api         api;        /* url NULL: models are checkpoints */
    char          *key;
    nb_session     reference;
    nb_meter       meter;
} evaluation;

static nb_status add_word(evaluation *e, const char *word, nb_error *err)
{
    if (!strcmp(word, "kl") || !strcmp(word, "ppl") || !strcmp(word, "agree")) {
        e->divergence = true;
        return NB_OK;
    }
    e->benchmarks[e->benchmark_count++] = word;
    return strchr(word, ':') ? NB_OK
                             : nb_fail(err, NB_ERR_ARGUMENT, "--tasks: '%s' is neither kl, ppl, agree nor NAME:FILE.tsv", word);
}

static bool is_listed(const options *o, const char *name)
{
    for (int i = 0; i < o->models.count; i++)
        if (!strcmp(o->models.items[i], name)) return true;
    return false;
}

static nb_status choose_baseline(evaluation *e, nb_error *err)
{
    const options *o = e->opt;
    struct stat    about;
    if (o->baseline && !e->benchmark_count) return nb_fail(err, NB_ERR_ARGUMENT, "--baseline compares benchmarks: give --tasks NAME:FILE.tsv");
    e->baseline = o->baseline;
    if (o->baseline && is_listed(o, o->baseline)) return NB_OK;
    if (o->baseline) {
        e->baseline_is_log = stat(o->baseline, &about) == 0 && S_ISREG(about.st_mode);
        return e->baseline_is_log ? NB_OK
                                  : nb_fail(err, NB_ERR_ARGUMENT, "--baseline: '%s' is neither one of the models nor a file", o->baseline);
    }
    if (!e->benchmark_count || o->models.count < 2) return NB_OK;
    e->baseline = o->ref && is_listed(o, o->ref) ? o->ref : o->models.items[0];
    return NB_OK;
}

static nb_status plan(evaluation *e, nb_error *err)
{
    const options *o = e->opt;
    int            words = 0, taken = 0;
    for (int i = 0; i < o->tasks.count; i++)
        for (const char *s = o->tasks.items[i]; s; s = strchr(s, ',') ? strchr(s, ',') + 1 : NULL) words++;
    NB_TRY(nb_alloc(&e->benchmarks, (size_t)words, sizeof *e->benchmarks, "--tasks", err));
    NB_TRY(nb_alloc(&e->words, (size_t)o->tasks.count, sizeof *e->words, "--tasks", err));
    for (int i = 0; i < o->tasks.count; i++) {
        char *rest = e->words[e->word_count++] = nb_strdup(o->tasks.items[i]);
        if (!rest) return nb_fail(err, NB_ERR_MEMORY, "no memory for --tasks");
        for (char *word; (word = strsep(&rest, ",")) != NULL; taken++) NB_TRY(add_word(e, word, err));
    }
    if (taken == 0) e->divergence = o->data != NULL;
    if (e->divergence && !o->data) return nb_fail(err, NB_ERR_ARGUMENT, "kl, ppl and agree need conversations: give --data FILE");
    if (o->data && !e->divergence) return nb_fail(err, NB_ERR_ARGUMENT, "--data is given, but --tasks asks for none of kl, ppl, agree");
    if (!e->divergence && !e->benchmark_count && !o->text)
        return nb_fail(err, NB_ERR_ARGUMENT, "nothing to measure: give --data FILE, --text FILE or --tasks NAME:FILE.tsv");
    if (o->log_samples && !e->benchmark_count) return nb_fail(err, NB_ERR_ARGUMENT, "--log-samples needs a benchmark in --tasks");
    if (o->resume && !o->log_samples) return nb_fail(err, NB_ERR_ARGUMENT, "--resume goes on with a log: give --log-samples FILE");
    for (int i = 0; i < o->fail_if.count; i++) NB_TRY(nb_fail_if_add(&e->fail_if, o->fail_if.items[i], err));
    return choose_baseline(e, err);
}

/* ---- divergence -------------------------------------------------------------------------------------------------------- */

static nb_status compare_row(evaluation *e, nb_session *s, const nb_chat *chat, const char *where, const nb_prompt_options *base,
                             nb_divergence *out, nb_error *err)
{
    nb_prompt         prompt;
    nb_prompt_source  source = nb_model_source(s->model);
    nb_prompt_options how = *base;
    how.where = where;
    NB_TRY(nb_stop_status(err));
    NB_TRY(nb_prompt_build(&prompt, chat, &source, &how, err));
    bool      too_long = e->opt->seq_len && prompt.count > (size_t)e->opt->seq_len;
    nb_status status = too_long ? NB_OK : nb_divergence_add(out, e->reference.engine, s->engine, &prompt, err);
    if (status != NB_OK) nb_error_within(err, "%s", where);
    nb_prompt_free(&prompt);
    return status;
}

static nb_status compare(evaluation *e, nb_session *s, nb_divergence *out, nb_error *err)
{
    const options     *o = e->opt;
    nb_dataset        *data;
    nb_dataset_options how = { .form = (nb_data_form)o->data_format, .dataset_info = o->dataset_info, .image_root = o->media.image_root,
                               .need_answer = true };
    nb_prompt_options  prompt;
    NB_TRY(nb_dataset_open(&data, o->data, &how, err));
    nb_status status = nb_media_prompt_options(&prompt, &o->media, nb_dataset_root(data), err);
    bool      end = false;
    nb_meter_start(&e->meter, "compare");
    size_t skip = (size_t)o->skip, end_row = o->limit ? skip + (size_t)o->limit : SIZE_MAX;
    for (size_t i = 0; status == NB_OK && i < end_row; i++) {
        nb_chat chat;
        char    where[256];
        status = nb_dataset_next(data, &chat, where, &end, err);
        if (status != NB_OK || end) break;
        if (i >= skip) status = compare_row(e, s, &chat, where, &prompt, out, err);
        nb_chat_free(&chat);
        if (i >= skip) nb_meter_update(&e->meter, i + 1 - skip, (size_t)o->limit, where);
    }
    nb_meter_finish(&e->meter);
    nb_dataset_close(data);
    return status;
}

/* Perplexity of plain text as llama.cpp counts it: chunks of n tokens, the second half of each scored. */
static nb_status measure_text(evaluation *e, nb_session *s, nb_divergence *out, nb_error *err)
{
    const options *o = e->opt;
    nb_buf         text = { 0 };
    nb_ids         ids = { 0 };
    size_t         n = (size_t)o->context;
    nb_status      status = nb_file_read(&text, o->text, (size_t)1 << 30, err);
    if (status == NB_OK) status = nb_tokenizer_encode(s->model->tokenizer, text.data, text.size, false, &ids, err);
    size_t chunks = ids.count / n;
    if (o->chunks && (size_t)o->chunks < chunks) chunks = (size_t)o->chunks;
    if (status == NB_OK && chunks == 0)
        status = nb_fail(err, NB_ERR_INPUT, "%s: %zu tokens are less than one chunk of %zu: lower --ctx-size", o->text, ids.count, n);
    nb_meter_start(&e->meter, "perplexity");
    for (size_t i = 0; i < chunks && status == NB_OK; i++) {
        nb_prompt prompt;
        status = nb_stop_status(err);
        if (status == NB_OK) status = nb_prompt_from_ids(&prompt, ids.data + i * n, n, &s->model->config, err);
        if (status != NB_OK) break;
        for (size_t t = n / 2 + 1; t < n; t++) prompt.answer[t] = 1;
        status = nb_divergence_add(out, e->reference.engine, s->engine, &prompt, err);
        nb_prompt_free(&prompt);
        nb_meter_update(&e->meter, i + 1, chunks, o->text);
    }
    nb_meter_finish(&e->meter);
    nb_ids_free(&ids);
    nb_buf_free(&text);
    return status;
}

/* ---- comparing ----------------------------------------------------------------------------------------------------------- */

/* The benchmarks as an earlier run's log answers them. */
static nb_status read_baseline(evaluation *e, nb_eval_row *row, nb_error *err)
{
    for (int i = 0; i < e->benchmark_count; i++) NB_TRY(nb_benchmark_load(&e->how, e->benchmarks[i], e->baseline, row, err));
    return NB_OK;
}

static nb_status compare_with_baseline(evaluation *e, nb_eval_row *rows, nb_error *err)
{
    nb_eval_row        earlier = { 0 };
    const nb_eval_row *baseline = NULL;
    nb_status          status = NB_OK;
    if (!e->baseline) return NB_OK;
    if (e->baseline_is_log) {
        status = read_baseline(e, &earlier, err);
        baseline = &earlier;
    }
    for (int i = 0; i < e->opt->models.count && !baseline; i++)
        if (!strcmp(rows[i].model, e->baseline)) baseline = &rows[i];
    for (int i = 0; i < e->opt->models.count && status == NB_OK; i++)
        if (&rows[i] != baseline) status = nb_eval_row_compare(&rows[i], baseline, err);
    nb_eval_row_free(&earlier);
    return status;
}

/* After the report is out: what --fail-if asks. */
static nb_status judge(evaluation *e, const nb_eval_row *rows, nb_error *err)
{
    nb_buf    found = { 0 };
    nb_status status = nb_fail_if_check(&e->fail_if, rows, (size_t)e->opt->models.count, &found, err);
    if (status == NB_OK && found.size) status = nb_fail(err, NB_ERR_GATE, "--fail-if: %.900s", found.data);
    nb_buf_free(&found);
    return status;
}

/* ---- the command ------------------------------------------------------------------------------------------------------- */

static nb_status open_session(nb_session *s, const options *o, const char *model, bool reference, nb_error *err)
{
    nb_engine_flags engine = o->engine;
    if (reference && engine.kv_cache_dtype == NB_KV_INT8) engine.kv_cache_dtype = NB_KV_AUTO; /* what they cost is measured */
    if (reference) engine.lm_head = 0;
    NB_TRY(nb_session_open(s, &o->compute, err));
    NB_TRY(nb_session_model(s, model, &o->weights, err));
    return nb_session_engine(s, &engine, (size_t)o->parallel * 16384, (int)o->parallel, err);
}

static const char *pixels_setting(const options *o)
{
    return o->media.pixels ? "published" : o->media.min_pixels || o->media.max_pixels ? "flags" : "checkpoint";
}

static nb_status evaluate(evaluation *e, const char *model, nb_eval_row *row, nb_error *err)
{
    const options *o = e->opt;
    nb_session     s = { 0 };
    nb_status      status = open_session(&s, o, model, false, err);
    if (status == NB_OK) status = nb_eval_row_open(row, model, s.model, err);
    if (status == NB_OK && e->divergence) status = compare(e, &s, &row->chats, err);
    if (status == NB_OK && o->text) status = measure_text(e, &s, &row->text, err);
    nb_row_log_of of = { .model = model, .settings = e->settings };
    if (status == NB_OK && e->log) status = nb_row_log_identify(&of, model, err);
    for (int i = 0; i < e->benchmark_count && status == NB_OK; i++) status = nb_benchmark_run(&e->how, e->benchmarks[i], &s, NULL, &of, row, err);
    row->has_reference = o->ref != NULL;
    nb_session_close(&s);
    return status;
}

/* A model of that name at the server: benchmarks alone. */
static nb_status evaluate_remote(evaluation *e, const char *model, nb_eval_row *row, nb_error *err)
{
    nb_row_log_of of = { .model = model, .settings = e->settings };
    row->model = model;
    snprintf(row->form, sizeof row->form, "served");
    for (int i = 0; i < e->benchmark_count; i++) NB_TRY(nb_benchmark_run(&e->how, e->benchmarks[i], NULL, &e->api, &of, row, err));
    return NB_OK;
}

static nb_status evaluate_all(evaluation *e, nb_eval_row *rows, nb_error *err)
{
    const options *o = e->opt;
    nb_buf         out = { 0 };
    if (o->ref && (e->divergence || o->text)) NB_TRY(open_session(&e->reference, o, o->ref, true, err));
    for (int i = 0; i < o->models.count; i++) NB_TRY((o->url ? evaluate_remote : evaluate)(e, o->models.items[i], &rows[i], err));
    NB_TRY(compare_with_baseline(e, rows, err));
    nb_eval_settings settings = { .pixels = pixels_setting(o), .ref = o->ref, .data = o->data, .text = o->text, .baseline = e->baseline,
                                  .rules = (const char *const[]){ "2024-09", "current", "official" }[o->rules] };
    nb_status status = nb_eval_report(&out, rows, (size_t)o->models.count, &settings, nb_json_wanted() ? NB_TABLE_JSON : (nb_table_format)o->output,
                                      nb_json_wanted(), err);
    if (status == NB_OK) status = nb_print(&out, err);
    if (status == NB_OK) status = judge(e, rows, err);
    nb_buf_free(&out);
    return status;
}

static nb_status open_log(evaluation *e, nb_error *err)
{
    const options *o = e->opt;
    snprintf(e->settings, sizeof e->settings, "pixels=%s,%lld,%lld predict=%lld na=%s", pixels_setting(o), (long long)o->media.min_pixels,
             (long long)o->media.max_pixels, (long long)o->predict, o->na_values == NA_PANDAS ? "pandas" : "none");
    if (o->log_samples) NB_TRY(nb_row_log_open(&e->log, o->log_samples, o->resume, err));
    e->how = (nb_benchmark){ .missing_as_pandas = o->na_values == NA_PANDAS, .limit = (size_t)o->limit, .scoring = (nb_score_rules)o->rules,
                             .parallel = (int)o->parallel, .predict = (int)o->predict, .media = &o->media, .log = e->log,
                             .log_path = o->log_samples, .resume = o->resume };
    return NB_OK;
}

static nb_status choose_server(evaluation *e, nb_error *err)
{
    const options *o = e->opt;
    if (!o->url) return NB_OK;
    if (e->divergence || o->text || o->ref) return nb_fail(err, NB_ERR_ARGUMENT, "--url: a server gives no logits, so only benchmarks can be measured");
#ifdef NIBBLE_CURL
    NB_TRY(nb_api_key(&e->key, o->api_key_file, err));
#endif
    e->api = (nb_api){ .url = o->url, .key = e->key, .timeout_s = o->request_timeout, .retries = 5 };
    return NB_OK;
}

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    const options *o = opaque;
    evaluation     e = { .opt = o };
    nb_eval_row   *rows;
    (void)args;
    NB_TRY(nb_weight_check(&o->weights, (size_t)o->models.count, err));
    NB_TRY(nb_alloc(&rows, (size_t)o->models.count, sizeof *rows, "results", err));
    nb_status status = plan(&e, err);
    if (status == NB_OK) status = choose_server(&e, err);
    if (status == NB_OK) status = open_log(&e, err);
    if (status == NB_OK) status = evaluate_all(&e, rows, err);
    nb_status closed = nb_row_log_close(e.log, status == NB_OK ? err : NULL);
    if (status == NB_ERR_STOPPED && o->log_samples && access(o->log_samples, F_OK) == 0)
        nb_note("%s has the rows that were answered; --resume goes on from there", o->log_samples);
    if (status == NB_OK) status = closed;
    nb_fail_if_free(&e.fail_if);
    free(e.key);
    for (int i = 0; i < o->models.count; i++) nb_eval_row_free(&rows[i]);
    for (int i = 0; i < e.word_count; i++) free(e.words[i]);
    free(e.words);
    free(e.benchmarks);
    free(rows);
    nb_session_close(&e.reference);
    return status;
}

const nb_command nb_command_eval = {
    .name = "eval",
    .summary = "measure what quantization did: divergence from the original, perplexity, benchmarks",
    .usage = "MODEL... [--ref BASE --data FILE] [--tasks NAME:FILE.tsv] [flags]",
    .about = "With --ref and --data every model runs beside the original on the same conversations, token by token: mean KL divergence and its "
             "percentiles, agreement of the likeliest token, perplexity; over all tokens and over answers, and apart for words with and "
             "without a picture before them. Conversations that calibration never saw are the honest ones.\n\n"
             "Benchmarks are VLMEvalKit's tables with their published prompts, greedy answers, and scoring without a judge model: MMMU, MMBench "
             "(circular), RealWorldQA and MMStar by option, DocVQA and InfoVQA by ANLS, ChartQA within 5 %, TextVQA by the agreement of ten, "
             "OCRBench and MTVQA by the text, MME and HallusionBench by yes and no; MathVista's score by rules is not comparable with judged "
             "ones and is labelled. Several "
             "models are compared question by question: points lost or gained with a 95 % interval (bootstrap), the numbers of questions "
             "lost and gained, and how likely chance alone divides those so (McNemar's exact test).",
    .examples = "  nibble eval my-awq my-gptq --ref original --data holdout.jsonl\n"
                "  nibble eval original my-awq --tasks MMMU_DEV_VAL:MMMU_DEV_VAL.tsv --fail-if 'mmmu.high<0'\n"
                "  nibble eval MODEL --tasks DocVQA_VAL:DocVQA_VAL.tsv --pixels published --log-samples answers.jsonl\n"
                "  nibble eval MODEL --text wiki.test.raw -c 512\n",
    .blocks = blocks,
    .options_size = sizeof(options),
    .run = run,
};
