/* quantize_page.c - the report of a quantization and the plan of one, as text and as JSON. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "quant/plan_time.h"
#include "tools/cli/output.h"
#include "tools/cli/progress.h"
#include "tools/cli/table.h"
#include "tools/quantize_proof.h"

/* ---- the report -------------------------------------------------------------------------------------------------- */

nb_status nb_quantize_matrices(nb_table **out, const nb_quantize_report *r, bool awq, nb_error *err)
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

nb_solver_quality nb_quantize_quality(const nb_quantize_report *r)
{
    nb_solver_quality q = {.mean = NAN};
    double            sum = 0;
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

/* What the judge found, in three lines. */
static nb_status text_proof(const nb_proof *p, nb_buf *out, nb_error *err)
{
    const nb_divergence  *d = &p->judgement.divergence;
    nb_divergence_summary all, answer, text, image;
    char                  took[32];
    if (!d->samples) {
        nb_buf_printf(out, "  judged  no: %s\n", p->why);
        return NB_OK;
    }
    NB_TRY(nb_divergence_summarize(&all, d, NB_SCOPE_ALL, NB_OVER_BOTH, err));
    NB_TRY(nb_divergence_summarize(&answer, d, NB_SCOPE_ANSWER, NB_OVER_BOTH, err));
    NB_TRY(nb_divergence_summarize(&text, d, NB_SCOPE_ALL, NB_OVER_TEXT, err));
    NB_TRY(nb_divergence_summarize(&image, d, NB_SCOPE_ALL, NB_OVER_VISUAL, err));
    nb_human_time(took, p->seconds);
    nb_buf_printf(out, "  judged  on %zu held-out conversations in %s: KL %.6f, 99 %% of tokens below %.4g", d->samples, took, all.kl_mean, all.kl_p99);
    if (text.tokens) nb_buf_printf(out, "; text %.6f", text.kl_mean);
    if (image.tokens) nb_buf_printf(out, "; after pictures %.6f", image.kl_mean);
    if (answer.tokens) nb_buf_printf(out, "; answers %.6f", answer.kl_mean);
    nb_buf_printf(out, "\n          same top token %.2f %%", 100 * all.top1);
    if (answer.tokens) nb_buf_printf(out, ", perplexity of answers %.4f instead of %.4f", answer.ppl, answer.ref_ppl);
    nb_buf_char(out, '\n');
    size_t shown = 0, same = 0;
    for (size_t i = 0; i < p->answers.count; i++)
        if (p->answers.questions[i].answer[1]) shown++, same += p->answers.questions[i].same;
    if (shown) nb_buf_printf(out, "          %zu of %zu greedy answers are the same word for word\n", same, shown);
    if (d->samples && p->judgement.bad) nb_buf_printf(out, "          %zu held-out conversations could not be read: %s\n", p->judgement.bad, p->judgement.first_bad);
    nb_buf_printf(out, "  gate    %s; see %s/report.html\n", p->verdict == NB_JUDGED ? "off" : nb_verdict_name(p->verdict), p->opt->out);
    return NB_OK;
}

static void text_report(const nb_quantize_report *r, const nb_solver_quality *q, const nb_quantize_flags *opt, const nb_args *args, nb_buf *out)
{
    char method[40], bits[40], format[40], in[32], made[32], all[32];
    nb_human_bytes(in, (double)r->bytes_in);
    nb_human_bytes(made, (double)r->bytes_out);
    nb_human_time(all, r->seconds);
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
        if (r->pictures > r->pictures_new)
            nb_buf_printf(out, "; %llu pictures, %llu different", (unsigned long long)r->pictures, (unsigned long long)r->pictures_new);
        if (r->counted != r->tokens) nb_buf_printf(out, "; %llu of answers count", (unsigned long long)r->counted);
        if (r->too_long)
            nb_buf_printf(out, "; %zu longer than --seq-len %lld left out", r->too_long, (long long)opt->seq_len);
        const float *w = r->modality_weights;
        if (w[0] != 1 || w[1] != 1 || w[2] != 1)
            nb_buf_printf(out, "; weighed %g:%g:%g", (double)w[0], (double)w[1], (double)w[2]);
        if (r->artifact)
            nb_buf_str(out, nb_quantize_methods[opt->method] == NB_METHOD_GPTQ ? "; an artifact, approximate for GPTQ: inputs of the float model"
                                                                               : "; an artifact, exact for AWQ");
        nb_buf_char(out, '\n');
    }
    for (size_t i = 0; i < r->source_count && r->source_count > 1; i++)
        nb_buf_printf(out, "          %zu conversations, %zu tokens from %s%s\n", r->sources[i].samples, r->sources[i].tokens,
                      opt->sources.items[i].path, r->sources[i].samples ? "" : ", which had none to give");
    if (q->compared)
        nb_buf_printf(out, "  error   %.3f of round-to-nearest on average over %zu matrices; worst %.3f at %s\n", q->mean,
                      q->compared, q->worst, r->matrices[q->worst_index].name);
    nb_buf_printf(out, "  time    %s:", all);
    const char *comma = " ";
    for (int i = 0; i < NB_PHASES; i++) {
        char time[32];
        if (r->phases[i].seconds < 0.01 * r->seconds) continue;
        nb_human_time(time, r->phases[i].seconds);
        nb_buf_printf(out, "%s%s %s", comma, nb_phase_names[i], time);
        comma = ", ";
    }
    nb_buf_char(out, '\n');
}

static void emit_sources(nb_emit *e, const nb_quantize_report *r, const nb_data_sources *sources)
{
    nb_emit_open(e, "data", '[');
    for (size_t i = 0; i < r->source_count; i++) {
        const nb_source_count *c = &r->sources[i];
        nb_emit_open(e, NULL, '{');
        nb_emit_string(e, "file", sources->items[i].path);
        nb_emit_number(e, "weight", sources->items[i].weight);
        nb_emit_int(e, "samples", (int64_t)c->samples);
        nb_emit_int(e, "too_long", (int64_t)c->too_long);
        nb_emit_int(e, "tokens", (int64_t)c->tokens);
        nb_emit_int(e, "text_tokens", (int64_t)c->by_modality[0]);
        nb_emit_int(e, "image_tokens", (int64_t)c->by_modality[1]);
        nb_emit_int(e, "video_tokens", (int64_t)c->by_modality[2]);
        nb_emit_close(e);
    }
    nb_emit_close(e);
}

static nb_status json_report(const nb_quantize_report *r, const nb_solver_quality *q, const nb_proof *proof, const nb_table *matrices,
                             nb_buf *out, nb_error *err)
{
    nb_emit e = nb_emit_start(out, true);
    nb_buf  rows = {0};
    nb_table_print(matrices, NB_TABLE_JSON, &rows);
    nb_emit_open(&e, NULL, '{');
    nb_emit_raw(&e, "recipe", proof->recipe);
    nb_status status = nb_proof_emit(&e, proof, err);
    nb_emit_int(&e, "bytes_in", (int64_t)r->bytes_in);
    nb_emit_int(&e, "bytes_out", (int64_t)r->bytes_out);
    nb_emit_int(&e, "spool_bytes", (int64_t)r->spool_bytes);
    nb_emit_int(&e, "samples", (int64_t)r->samples);
    nb_emit_int(&e, "pictures", (int64_t)r->pictures);
    nb_emit_int(&e, "different_pictures", (int64_t)r->pictures_new);
    nb_emit_int(&e, "too_long", (int64_t)r->too_long);
    nb_emit_int(&e, "tokens", (int64_t)r->tokens);
    nb_emit_int(&e, "counted_tokens", (int64_t)r->counted);
    nb_emit_int(&e, "text_tokens", (int64_t)r->tokens_by_modality[0]);
    nb_emit_int(&e, "image_tokens", (int64_t)r->tokens_by_modality[1]);
    nb_emit_int(&e, "video_tokens", (int64_t)r->tokens_by_modality[2]);
    emit_sources(&e, r, &proof->opt->sources);
    nb_emit_string(&e, "statistics", !r->samples ? NULL : !r->artifact ? "measured" : "artifact");
    nb_emit_open(&e, "modality_weights", '[');
    for (int i = 0; i < 3; i++) nb_emit_number(&e, NULL, (double)r->modality_weights[i]);
    nb_emit_close(&e);
    nb_emit_number(&e, "mean_loss_ratio", q->mean);
    nb_emit_number(&e, "worst_loss_ratio", q->compared ? q->worst : NAN);
    nb_emit_int(&e, "fallbacks", (int64_t)q->fallbacks);
    nb_emit_int(&e, "dead_inputs", (int64_t)q->dead);
    nb_emit_number(&e, "max_input", r->max_input);
    nb_emit_number(&e, "seconds", r->seconds);
    nb_emit_open(&e, "phases", '{');
    for (int i = 0; i < NB_PHASES; i++) {
        nb_emit_open(&e, nb_phase_names[i], '{');
        nb_emit_number(&e, "seconds", r->phases[i].seconds);
        nb_emit_number(&e, "cpu_seconds", r->phases[i].cpu);
        nb_emit_number(&e, "gflop", r->phases[i].flop / 1e9);
        nb_emit_close(&e);
    }
    nb_emit_close(&e);
    nb_emit_number(&e, "judge_s", proof->seconds);
    nb_emit_bytes(&e, "adapters", r->adapters.data ? r->adapters.data : "", r->adapters.size);
    nb_emit_bytes(&e, "notes", r->notes.data ? r->notes.data : "", r->notes.size);
    nb_emit_raw(&e, "matrices", rows.data ? rows.data : "[]");
    nb_emit_close(&e);
    if (rows.failed) out->failed = true;
    nb_buf_free(&rows);
    return status;
}

/* Choices with quality at stake are never silent. */
static void warn_about(const nb_quantize_report *r, const nb_solver_quality *q)
{
    nb_warn_lines(r->notes.data, "");
    nb_warn_lines(r->run_notes.data, "");
    if (q->fallbacks)
        nb_warn("%zu matrices were rounded to nearest because the factorisation failed up to --damp-max", q->fallbacks);
    if (q->dead) nb_warn("%zu inputs never saw a token other than zero; more or more varied --data may help", q->dead);
    if (r->max_input > 65504)
        nb_warn("inputs reach %.0f, beyond the 65504 of float16: serve this checkpoint in bfloat16", (double)r->max_input);
}

nb_status nb_quantize_print_report(const nb_quantize_report *r, const nb_proof *proof, nb_error *err)
{
    const nb_quantize_flags *opt = proof->opt;
    nb_table                *matrices = NULL;
    nb_buf                   out = {0};
    nb_solver_quality        q = nb_quantize_quality(r);
    nb_status                s = NB_OK;
    NB_TRY(nb_quantize_matrices(&matrices, r, nb_quantize_methods[opt->method] == NB_METHOD_AWQ || nb_quantize_methods[opt->method] == NB_METHOD_AWQ_GPTQ, err));
    warn_about(r, &q);
    if (nb_json_wanted()) {
        s = json_report(r, &q, proof, matrices, &out, err);
    } else {
        if (nb_verbose()) {
            nb_table_print(matrices, NB_TABLE_MD, &out);
            nb_buf_char(&out, '\n');
        }
        text_report(r, &q, opt, proof->args, &out);
        s = text_proof(proof, &out, err);
    }
    if (s == NB_OK) s = nb_print(&out, err);
    nb_table_free(matrices);
    nb_buf_free(&out);
    return s;
}

/* ---- the plan ---------------------------------------------------------------------------------------------------- */

static void json_plan(const nb_plan *p, bool spool, nb_buf *out)
{
    nb_emit e = nb_emit_start(out, true);
    const struct { const char *name; uint64_t value; } rows[] = {
        {"ram", spool ? p->ram_spool : p->ram}, {"ram_least", p->ram_spool}, {"vram", p->vram}, {"disk_spool", spool ? p->disk_spool : 0},
        {"output", p->output}, {"fixed", p->fixed}, {"model", p->model}, {"layer", p->layer}, {"packed", p->packed},
        {"statistics", p->statistics}, {"solver", p->solver}, {"batch", p->batch}, {"picture", p->picture}, {"judge", p->judge}, {"judge_hidden", p->judge_hidden}, {"answers", p->answers},
        {"tensor", p->tensor}, {"tokens", p->tokens}, {"hidden", p->hidden},
    };
    nb_emit_open(&e, NULL, '{');
    nb_emit_bool(&e, "spool", spool);
    for (size_t i = 0; i < NB_COUNT(rows); i++) nb_emit_int(&e, rows[i].name, (int64_t)rows[i].value);
    nb_emit_close(&e);
}

static uint64_t add_bytes(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static void plan_line(nb_buf *out, const char *what, uint64_t bytes)
{
    char text[32];
    nb_human_bytes(text, (double)bytes);
    nb_buf_printf(out, "  %-44s %10s\n", what, text);
}

static void text_plan(const nb_plan *p, bool spool, const nb_quantize_flags *opt, nb_buf *out)
{
    bool rtn = nb_quantize_methods[opt->method] == NB_METHOD_RTN;
    nb_buf_printf(out, "%s: what it takes at most\n", opt->out);
    plan_line(out, "embedding, vision tower", p->model);
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
    if (p->judge) plan_line(out, "judging, all of it", add_bytes(p->judge, spool ? 0 : p->judge_hidden));
    if (p->answers) plan_line(out, "greedy answers, where there is room", p->answers);
    if (spool || p->ram != NB_PLAN_UNKNOWN)
        plan_line(out, "peak memory", spool ? p->ram_spool : p->ram);
    else
        nb_buf_str(out, "  peak memory: not known without --samples\n");
    if (!rtn) plan_line(out, "least --max-ram", p->ram_spool);
    if (spool && p->disk_spool != NB_PLAN_UNKNOWN) plan_line(out, "disk for the spool", p->disk_spool);
    if (!spool && !rtn && opt->save_states && p->disk_spool != NB_PLAN_UNKNOWN)
        plan_line(out, "disk for saved states (where there is room)", p->disk_spool);
    plan_line(out, "size of the result", p->output);
}

nb_status nb_quantize_note_plan(const nb_plan *p, const nb_quantize_options *q, nb_pool *pool, nb_error *err)
{
    nb_machine machine;
    double     seconds[NB_PHASES], all = 0;
    char       memory[32], result[32], spool[32], time[32];
    nb_buf     line = {0};
    bool       spools = q->data.spool != NULL;
    NB_TRY(nb_machine_probe(&machine, pool, q->out_dir, err));
    NB_TRY(nb_plan_time(seconds, q, &machine, p->tokens, err));
    nb_human_bytes(memory, (double)(spools || p->ram == NB_PLAN_UNKNOWN ? p->ram_spool : p->ram));
    nb_human_bytes(result, (double)p->output);
    nb_buf_printf(&line, "plan, at most: memory %s%s, result %s", memory,
                  !spools && p->ram == NB_PLAN_UNKNOWN ? " and the hidden states" : "", result);
    if (spools && p->disk_spool != NB_PLAN_UNKNOWN) {
        nb_human_bytes(spool, (double)p->disk_spool);
        nb_buf_printf(&line, ", spool %s", spool);
    }
    for (int i = 0; i < NB_PHASES; i++) all += seconds[i];
    if (q->method == NB_METHOD_RTN || p->tokens != NB_PLAN_UNKNOWN) {
        nb_human_time(time, all);
        nb_buf_printf(&line, ", about %s", time);
        if (p->tokens != NB_PLAN_UNKNOWN) nb_buf_printf(&line, " for %llu tokens", (unsigned long long)p->tokens);
        const char *before = " (";
        for (int i = 0; i < NB_PHASES && q->method != NB_METHOD_RTN; i++) {
            if (seconds[i] < 0.01 * all) continue;
            nb_human_time(time, seconds[i]);
            nb_buf_printf(&line, "%s%s %s", before, nb_phase_names[i], time);
            before = ", ";
        }
        if (*before == ',') nb_buf_char(&line, ')');
    }
    nb_status status = nb_buf_status(&line, "the plan", err);
    if (!status) nb_note("%s", line.data);
    nb_buf_free(&line);
    return status;
}

nb_status nb_quantize_print_plan(const nb_plan *p, bool spool, const nb_quantize_flags *opt, nb_error *err)
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

