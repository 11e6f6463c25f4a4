/* quantize_proof.c - choosing held-out conversations, judging, and report.json.  The page and the card have files of their own. */
#include "tools/quantize_proof.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli/output.h"
#include "tools/cli/progress.h"
#include "tools/cli/stop.h"
#include "tools/eval/report.h"

enum { HELD = 32, HELD_SHARE = 8 }; /* --holdout auto: so many, or this part of the file if that is less */

void nb_proof_free(nb_proof *p)
{
    nb_judgement_free(&p->judgement);
    nb_answers_free(&p->answers);
    nb_gate_free(&p->gate);
    memset(p, 0, sizeof *p);
}

const char *nb_verdict_name(nb_verdict v)
{
    static const char *const names[] = {"not judged", "judged", "passed", "failed"};
    return names[v];
}

double nb_bits_of(uint64_t bytes, uint64_t values)
{
    return values ? 8.0 * (double)bytes / (double)values : NAN;
}

/* ---- held-out conversations -------------------------------------------------------------------------------------- */

/* "auto", "32", or "5%" of `rows`. */
static nb_status parse_holdout(size_t *out, const char *text, size_t rows, nb_error *err)
{
    size_t n = strlen(text);
    char   number[32];
    if (!strcmp(text, "auto")) {
        *out = rows / HELD_SHARE < HELD ? rows / HELD_SHARE : HELD;
        return NB_OK;
    }
    if (n > 1 && n < sizeof number && text[n - 1] == '%') {
        double percent;
        snprintf(number, sizeof number, "%.*s", (int)(n - 1), text);
        NB_TRY(nb_parse_number(&percent, number, 0, 99, "--holdout", err));
        *out = (size_t)ceil(percent / 100 * (double)rows);
        return NB_OK;
    }
    int64_t count;
    NB_TRY(nb_parse_int(&count, text, 0, 1e6, "--holdout", err));
    *out = (size_t)count;
    return NB_OK;
}

static void leave_unjudged(nb_proof *p, const char *why)
{
    p->judges = false;
    snprintf(p->why, sizeof p->why, "%s", why);
}

/* Rows of all sources that may be used; total of each is filled in.  false: one cannot be read, and why. */
static bool count_rows(nb_proof *p, const nb_quantize_options *q, size_t *rows)
{
    const nb_data_sources *sources = &p->opt->sources;
    nb_error               unread;
    *rows = 0;
    for (size_t i = 0; i < sources->count; i++) {
        nb_data_source *s = &sources->items[i];
        if (nb_dataset_count_source(&s->total, s, &q->data.dataset, &unread) != NB_OK) {
            leave_unjudged(p, "");
            snprintf(p->why, sizeof p->why, "no conversation could be held out: %.400s", unread.text);
            return false;
        }
        *rows += (size_t)p->opt->skip < s->total ? s->total - (size_t)p->opt->skip : 0;
    }
    return true;
}

/* Each source its share, as of the samples; none more than it can spare. */
static nb_status share_holdout(nb_proof *p, size_t wanted, nb_error *err)
{
    const nb_data_sources *sources = &p->opt->sources;
    bool                   automatic = !strcmp(p->opt->holdout, "auto");
    size_t                *take;
    NB_TRY(nb_alloc(&take, sources->count, sizeof *take, "held-out rows", err));
    nb_mix_shares(take, wanted, sources->items, NULL, sources->count);
    for (size_t i = 0; i < sources->count; i++) {
        nb_data_source *s = &sources->items[i];
        size_t          rows = (size_t)p->opt->skip < s->total ? s->total - (size_t)p->opt->skip : 0;
        size_t          most = automatic ? rows / HELD_SHARE : rows ? rows - 1 : 0;
        s->hold = take[i] < most ? take[i] : most;
        p->held += s->hold;
    }
    free(take);
    return NB_OK;
}

/* The end of the data, out of calibration's reach. */
static nb_status hold_rows(nb_proof *p, const nb_quantize_options *q, nb_error *err)
{
    const nb_quantize_flags *opt = p->opt;
    size_t                   rows, wanted;
    if (!count_rows(p, q, &rows)) return NB_OK;
    NB_TRY(parse_holdout(&wanted, opt->holdout, rows, err));
    if (wanted && wanted >= rows)
        return nb_fail(err, NB_ERR_ARGUMENT, "--holdout %s: the data has %zu conversations, so none would be left to calibrate on", opt->holdout, rows);
    NB_TRY(share_holdout(p, wanted, err));
    if (!p->held) {
        leave_unjudged(p, strcmp(opt->holdout, "auto") ? "--holdout 0" : "the data has too few conversations to hold one out");
        return NB_OK;
    }
    p->data.held = true;
    p->data.samples = 0; /* all that are held */
    if (q->method != NB_METHOD_RTN && (!opt->samples || (size_t)opt->samples > rows - p->held))
        nb_note("%zu of %zu conversations are held out to judge the result, so calibration has %zu; --holdout and --holdout-data change that", p->held,
                rows, rows - p->held);
    return NB_OK;
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static nb_status choose_data(nb_proof *p, const nb_quantize_options *q, nb_error *err)
{
    const nb_quantize_flags *opt = p->opt;
    p->data = q->data;
    p->data.skip_bad = true;
    p->judges = true;
    if (!opt->judge) {
        leave_unjudged(p, "--no-judge");
    } else if (opt->holdout_data) {
        if (strchr(opt->holdout, '%'))
            return nb_fail(err, NB_ERR_ARGUMENT, "--holdout %s: a share is of --data; give a number with --holdout-data", opt->holdout);
        NB_TRY(parse_holdout(&p->held, opt->holdout, HELD * HELD_SHARE, err));
        if (!nb_file_exists(opt->holdout_data))
            return nb_fail(err, NB_ERR_INPUT, "--holdout-data: %s does not exist", opt->holdout_data);
        p->data.path = opt->holdout_data;
        p->data.samples = (int)p->held; /* 0: all */
        p->data.skip = 0;
        p->data.shuffle = false;
        snprintf(p->name, sizeof p->name, "%s", last_part(opt->holdout_data));
    } else if (opt->sources.count) {
        NB_TRY(hold_rows(p, q, err));
        snprintf(p->name, sizeof p->name, "%s%s", last_part(opt->sources.items[0].path), opt->sources.count > 1 ? " and other files" : "");
    } else {
        leave_unjudged(p, "there is no data to judge on; --holdout-data FILE gives some");
    }
    return NB_OK;
}

nb_status nb_proof_plan(nb_proof *p, nb_quantize_options *q, const nb_quantize_flags *opt, const nb_args *args, nb_error *err)
{
    *p = (nb_proof){.opt = opt, .args = args, .answers_wanted = (size_t)opt->answers};
    NB_TRY(nb_gate_parse(&p->gate, opt->gate, err));
    NB_TRY(choose_data(p, q, err));
    if (!p->judges && p->gate.count && strcmp(opt->gate, "default")) /* which a recipe or a job repeats */
        return nb_fail(err, NB_ERR_ARGUMENT, "--gate: nothing can be measured: %s", p->why);
    if (!p->judges) {
        p->answers_wanted = 0;
        if (opt->judge) nb_note("the result will not be judged: %s", p->why);
    }
    NB_TRY(nb_source_card_read(&p->card, opt->model, opt->base_model, err));
    q->judge_samples = p->judges ? p->held ? (int)p->held : INT32_MAX : 0;
    q->judge_answers = (int)p->answers_wanted;
    q->finish = nb_proof_finish;
    q->finish_context = p;
    return NB_OK;
}

/* A word of a shell's command line: quoted where a shell would read anything into it. */
static void add_word(nb_buf *out, const char *flag, const char *word)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:,+=@%-";
    if (!word) return;
    nb_buf_printf(out, " %s%s", flag, *flag ? " " : "");
    if (*word && strspn(word, plain) == strlen(word)) {
        nb_buf_str(out, word);
        return;
    }
    nb_buf_char(out, '\'');
    for (; *word; word++) nb_buf_printf(out, *word == '\'' ? "'\\''" : "%c", *word);
    nb_buf_char(out, '\'');
}

static void add_count(nb_buf *out, const char *flag, int64_t n)
{
    nb_buf_printf(out, " %s %lld", flag, (long long)n);
}

bool nb_proof_command(const nb_proof *p, nb_buf *out)
{
    const nb_samples_options *d = &p->data;
    const nb_quantize_flags  *o = p->opt;
    char                      word[40];
    const nb_data_source     *one = !d->path && o->sources.count == 1 && !o->sources.items[0].bytes ? &o->sources.items[0] : NULL;
    if (!p->judges || (!d->path && !one) || d->shuffle || o->lora.count) return false;
    nb_buf_str(out, "nibble eval");
    add_word(out, "", o->out);
    add_word(out, "--ref", o->model);
    add_word(out, "--data", d->path ? d->path : one->path);
    if (!d->path) add_count(out, "--skip", (int64_t)(one->total - one->hold));
    if (p->held) add_count(out, "--limit", (int64_t)p->held);
    if (d->seq_len) add_count(out, "--seq-len", (int64_t)d->seq_len);
    if (o->media.min_pixels) add_count(out, "--min-pixels", o->media.min_pixels);
    if (o->media.max_pixels) add_count(out, "--max-pixels", o->media.max_pixels);
    if (p->opt->media.pixels) add_word(out, "--pixels", nb_args_choice(p->args, "pixels", word));
    if (o->data_format != NB_DATA_AUTO) add_word(out, "--data-format", nb_args_choice(p->args, "data-format", word));
    add_word(out, "--dataset-info", o->dataset_info);
    add_word(out, "--image-root", o->media.image_root);
    return true;
}

/* ---- judging ----------------------------------------------------------------------------------------------------- */

static bool on_step(void *context, size_t done, size_t total, const char *what)
{
    nb_meter_update(context, done, total, what);
    return !nb_stop_requested();
}

static nb_status judge(nb_proof *p, nb_model *original, nb_model *quantized, nb_error *err)
{
    nb_meter meter;
    NB_TRY(nb_answers_init(&p->answers, p->answers_wanted, original, &p->data.prompt, err));
    p->data.seen = nb_answers_seen;
    p->data.seen_context = &p->answers;
    nb_meter_start(&meter, "judge");
    nb_status status = nb_judge(&p->judgement, original, quantized, &p->data, on_step, &meter, err);
    nb_meter_finish(&meter);
    if (status) return status;
    nb_meter_start(&meter, "answers");
    status = nb_answers_generate(&p->answers, 0, original, on_step, &meter, err);
    if (!status) status = nb_answers_generate(&p->answers, 1, quantized, on_step, &meter, err);
    nb_meter_finish(&meter);
    return status ? status : nb_gate_check(&p->gate, &p->judgement.divergence, err);
}

/* What cannot be compared is not good; what the system refused (memory, a signal) says nothing about the checkpoint. */
static nb_status reach_verdict(nb_proof *p, nb_model *original, nb_model *quantized, nb_error *err)
{
    double start = nb_seconds();
    if (!p->judges) return NB_OK;
    nb_status status = judge(p, original, quantized, err);
    p->seconds = nb_seconds() - start;
    if (status == NB_ERR_INPUT || status == NB_ERR_UNSUPPORTED || status == NB_ERR_DIFFERENT) {
        snprintf(p->why, sizeof p->why, "it could not be judged: %.460s", err->text);
        p->verdict = p->gate.count ? NB_FAILED : NB_NOT_JUDGED;
        return NB_OK;
    }
    if (status == NB_ERR_STOPPED) return nb_fail(err, NB_ERR_STOPPED, "%s: stopped while judging; the same command goes on from there", p->opt->out);
    NB_TRY(status);
    p->verdict = !p->gate.count ? NB_JUDGED : nb_gate_met(&p->gate) ? NB_PASSED : NB_FAILED;
    if (p->verdict == NB_FAILED) {
        nb_buf why = {0};
        nb_gate_failures(&p->gate, &why);
        snprintf(p->why, sizeof p->why, "%s", why.data ? why.data : "");
        nb_buf_free(&why);
    }
    return NB_OK;
}

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

static int part_of(const char *name)
{
    if (!strncmp(name, "visual.", 7)) return NB_PART_VISION;
    if (!strncmp(name, "model.embed_tokens.", 19)) return NB_PART_EMBEDDING;
    if (!strncmp(name, "lm_head.", 8)) return NB_PART_HEAD;
    bool bias = strlen(name) > 5 && !strcmp(name + strlen(name) - 5, ".bias");
    return strstr(name, "_proj.") && !bias ? NB_PART_MATRICES : NB_PART_OTHER;
}

static void add_sizes(nb_size_part parts[NB_SIZE_PARTS], const nb_checkpoint *c, bool original)
{
    for (size_t i = 0; i < nb_checkpoint_count(c); i++) {
        const nb_entry *e = nb_checkpoint_at(c, i);
        nb_size_part   *p = &parts[part_of(e->name)];
        if (original) p->values += e->tensor->count, p->bytes_in += e->tensor->bytes;
        else p->bytes_out += e->tensor->bytes;
    }
}

static void measure_sizes(nb_proof *p, const nb_checkpoint *original, const nb_checkpoint *quantized)
{
    static const char *const names[] = {"decoder matrices", "vision tower", "embedding", "head", "norms and biases"};
    for (int i = 0; i < NB_SIZE_PARTS; i++) p->parts[i] = (nb_size_part){.name = names[i]};
    add_sizes(p->parts, original, true);
    add_sizes(p->parts, quantized, false);
}

double nb_proof_largest(const nb_proof *p)
{
    double most = (double)p->report->max_input;
    for (int i = 0; i < p->judgement.layers; i++)
        if (!(p->judgement.residual[i] <= most)) most = (double)p->judgement.residual[i];
    return most;
}

/* ---- report.json ------------------------------------------------------------------------------------------------- */

static void emit_gate(nb_emit *e, const nb_proof *p)
{
    nb_emit_open(e, "gate", '[');
    for (size_t i = 0; i < p->gate.count; i++) {
        const nb_gate_rule *r = &p->gate.rules[i];
        nb_emit_open(e, NULL, '{');
        nb_emit_string(e, "figure", r->name);
        nb_emit_string(e, "must_be", r->at_least ? "at least" : "at most");
        nb_emit_number(e, "limit", r->limit);
        nb_emit_number(e, "value", r->value);
        nb_emit_bool(e, "met", r->met);
        nb_emit_close(e);
    }
    nb_emit_close(e);
}

nb_status nb_proof_emit(nb_emit *e, const nb_proof *p, nb_error *err)
{
    const nb_judgement *j = &p->judgement;
    nb_emit_string(e, "verdict", nb_verdict_name(p->verdict));
    nb_emit_string(e, "why", p->why[0] ? p->why : NULL);
    emit_gate(e, p);
    if (!j->divergence.samples) {
        nb_emit_raw(e, "judge", "null");
        return NB_OK;
    }
    nb_buf command = {0};
    bool   again = nb_proof_command(p, &command);
    nb_emit_open(e, "judge", '{');
    nb_emit_string(e, "data", p->name);
    nb_emit_string(e, "again", again ? command.data : NULL);
    nb_emit_int(e, "too_long", (int64_t)j->too_long);
    nb_emit_int(e, "unreadable", (int64_t)j->bad);
    nb_emit_string(e, "first_unreadable", j->bad ? j->first_bad : NULL);
    nb_emit_int(e, "text_tokens", (int64_t)j->by_modality[0]);
    nb_emit_int(e, "image_tokens", (int64_t)j->by_modality[1]);
    nb_emit_int(e, "video_tokens", (int64_t)j->by_modality[2]);
    nb_buf_free(&command);
    NB_TRY(nb_emit_divergence(e, "figures", &j->divergence, true, err));
    nb_emit_close(e);
    return NB_OK;
}

static void emit_answers(nb_emit *e, const nb_proof *p)
{
    nb_emit_open(e, "answers", '[');
    for (size_t i = 0; i < p->answers.count; i++) {
        const nb_question *q = &p->answers.questions[i];
        if (!q->answer[1]) continue;
        nb_emit_open(e, NULL, '{');
        nb_emit_string(e, "where", q->where);
        nb_emit_string(e, "question", q->question);
        nb_emit_string(e, "expected", q->expected);
        nb_emit_string(e, "original", q->answer[0]);
        nb_emit_string(e, "quantized", q->answer[1]);
        nb_emit_bool(e, "same", q->same);
        nb_emit_close(e);
    }
    nb_emit_close(e);
}

static void emit_sizes(nb_emit *e, const nb_proof *p)
{
    nb_emit_open(e, "sizes", '[');
    for (int i = 0; i < NB_SIZE_PARTS; i++) {
        const nb_size_part *s = &p->parts[i];
        nb_emit_open(e, NULL, '{');
        nb_emit_string(e, "part", s->name);
        nb_emit_int(e, "values", (int64_t)s->values);
        nb_emit_int(e, "bytes_in", (int64_t)s->bytes_in);
        nb_emit_int(e, "bytes_out", (int64_t)s->bytes_out);
        nb_emit_number(e, "bits_in", nb_bits_of(s->bytes_in, s->values));
        nb_emit_number(e, "bits_out", nb_bits_of(s->bytes_out, s->values));
        nb_emit_close(e);
    }
    nb_emit_close(e);
}

static void emit_ranges(nb_emit *e, const nb_proof *p)
{
    static const char *const sites[NB_SITES] = {"qkv", "o", "gate_up", "down"};
    const nb_quantize_report *r = p->report;
    size_t                    layers = r->count / NB_LINEARS;
    double                    most = nb_proof_largest(p);
    nb_emit_open(e, "largest", '{');
    nb_emit_number(e, "all", most);
    nb_emit_bool(e, "float16_overflows", !(most <= 65504));
    for (int site = 0; site < NB_SITES && r->samples; site++) {
        nb_emit_open(e, sites[site], '[');
        for (size_t i = 0; i < layers; i++) nb_emit_number(e, NULL, (double)r->site_max[i * NB_SITES + (size_t)site]);
        nb_emit_close(e);
    }
    if (p->judgement.layers) {
        nb_emit_open(e, "residual", '[');
        for (int i = 0; i < p->judgement.layers; i++) nb_emit_number(e, NULL, (double)p->judgement.residual[i]);
        nb_emit_close(e);
    }
    nb_emit_close(e);
}

static void emit_calibration(nb_emit *e, const nb_quantize_report *r)
{
    const nb_solver_quality q = nb_quantize_quality(r);
    nb_emit_open(e, "calibration", '{');
    nb_emit_int(e, "samples", (int64_t)r->samples);
    nb_emit_int(e, "too_long", (int64_t)r->too_long);
    nb_emit_int(e, "tokens", (int64_t)r->tokens);
    nb_emit_int(e, "text_tokens", (int64_t)r->tokens_by_modality[0]);
    nb_emit_int(e, "image_tokens", (int64_t)r->tokens_by_modality[1]);
    nb_emit_int(e, "video_tokens", (int64_t)r->tokens_by_modality[2]);
    nb_emit_number(e, "mean_loss_ratio", q.mean);
    nb_emit_number(e, "worst_loss_ratio", q.compared ? q.worst : NAN);
    nb_emit_int(e, "fallbacks", (int64_t)q.fallbacks);
    nb_emit_int(e, "dead_inputs", (int64_t)q.dead);
    nb_emit_close(e);
}

static nb_status emit_matrices(nb_emit *e, const nb_proof *p, nb_error *err)
{
    nb_table *matrices;
    nb_buf    rows = {0};
    NB_TRY(nb_quantize_matrices(&matrices, p->report, nb_quantize_methods[p->opt->method] == NB_METHOD_AWQ, err));
    nb_table_print(matrices, NB_TABLE_JSON, &rows);
    nb_table_free(matrices);
    nb_status status = nb_buf_status(&rows, "the report", err);
    if (!status) nb_emit_raw(e, "matrices", rows.data);
    nb_buf_free(&rows);
    return status;
}

nb_status nb_proof_json(nb_buf *out, const nb_proof *p, nb_error *err)
{
    const nb_quantize_report *r = p->report;
    nb_emit                   e = nb_emit_start(out, true);
    nb_emit_open(&e, NULL, '{');
    nb_emit_string(&e, "nibble", NIBBLE_VERSION);
    nb_emit_string(&e, "base_model", p->card.base_model);
    NB_TRY(nb_proof_emit(&e, p, err));
    emit_answers(&e, p);
    nb_emit_int(&e, "bytes_in", (int64_t)r->bytes_in);
    nb_emit_int(&e, "bytes_out", (int64_t)r->bytes_out);
    emit_sizes(&e, p);
    emit_calibration(&e, r);
    emit_ranges(&e, p);
    NB_TRY(emit_matrices(&e, p, err));
    nb_emit_bytes(&e, "adapters", r->adapters.data ? r->adapters.data : "", r->adapters.size);
    nb_emit_bytes(&e, "notes", r->notes.data ? r->notes.data : "", r->notes.size);
    nb_emit_raw(&e, "recipe", p->recipe);
    nb_emit_close(&e);
    return nb_buf_status(out, "report.json", err);
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

static nb_status write_files(const nb_proof *p, nb_writer *w, nb_error *err)
{
    static const struct {
        const char *name;
        nb_status (*make)(nb_buf *out, const nb_proof *p, nb_error *err);
    } files[] = {{"report.json", nb_proof_json}, {"report.html", nb_proof_html}, {"README.md", nb_proof_card}};
    nb_status status = NB_OK;
    for (size_t i = 0; i < NB_COUNT(files) && !status; i++) {
        nb_buf text = {0};
        status = files[i].make(&text, p, err);
        if (!status) status = nb_writer_file(w, files[i].name, text.data, text.size, err);
        nb_buf_free(&text);
    }
    return status;
}

nb_status nb_proof_finish(void *proof, const nb_quantized *q, nb_error *err)
{
    nb_proof      *p = proof;
    nb_checkpoint *checkpoint;
    nb_model      *quantized;
    p->report = q->report;
    NB_TRY(nb_checkpoint_open_unfinished(&checkpoint, nb_writer_partial(q->writer), err));
    if (!p->judges) { /* two models can be more than all that was needed before */
        measure_sizes(p, q->original->checkpoint, checkpoint);
        nb_checkpoint_close(checkpoint);
        return write_files(p, q->writer, err);
    }
    nb_status opened = nb_model_reload_embedding(q->original, err);
    if (opened) {
        nb_checkpoint_close(checkpoint);
        return opened;
    }
    NB_TRY(nb_model_open_checkpoint(&quantized, checkpoint, &q->original->ops, NB_OPEN_NO_LAYERS, err));
    measure_sizes(p, q->original->checkpoint, quantized->checkpoint);
    nb_status status = reach_verdict(p, q->original, quantized, err);
    nb_model_close(quantized);
    return status ? status : write_files(p, q->writer, err);
}
