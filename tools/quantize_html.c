/* quantize_html.c - report.html: what a checkpoint is, how far it is from the original, where the error comes from.
 *
 * Every plot has its numbers in a table on the same page or in report.json.  Nothing is written here that report.json does not say.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli/output.h"
#include "tools/quantize_proof.h"
#include "tools/report/html.h"
#include "tools/report/svg.h"

enum { POINTS = 600 /* of a scatter plot */, CELL = 48 };

static const char *basename_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* ---- the head of the page ---------------------------------------------------------------------------------------- */

static void tile(nb_buf *out, const char *value, const char *what)
{
    nb_buf_str(out, "<li>");
    nb_html_element(out, "b", NULL, value);
    nb_html_text(out, what);
    nb_buf_str(out, "</li>\n");
}

static void tiles(nb_buf *out, const nb_proof *p, const nb_divergence_summary *all, const nb_divergence_summary *answer)
{
    char value[64], size[32];
    nb_human_bytes(size, (double)p->report->bytes_out);
    snprintf(value, sizeof value, "%.0f %%", p->report->bytes_in ? 100.0 * (double)p->report->bytes_out / (double)p->report->bytes_in : 0.0);
    nb_buf_str(out, "<ul class=\"tiles\">\n");
    tile(out, size, "tensors");
    tile(out, value, "of the original's size");
    if (all->tokens) {
        snprintf(value, sizeof value, "%.6f", all->kl_mean);
        tile(out, value, "mean KL, nats a token");
        snprintf(value, sizeof value, "%.2f %%", 100 * all->top1);
        tile(out, value, "same likeliest token");
    }
    if (answer->tokens) {
        snprintf(value, sizeof value, "%.4f", exp(answer->ln_ratio));
        tile(out, value, "× the perplexity of answers");
    }
    nb_buf_str(out, "</ul>\n");
}

static nb_status head(nb_buf *out, const nb_proof *p, nb_error *err)
{
    nb_divergence_summary    all, answer;
    const nb_quantize_flags *o = p->opt;
    char                     method[40], bits[40], format[40];
    nb_buf_str(out, "<p>");
    nb_html_printf(out, "%s quantized by %s: %s bits, ", p->card.base_model, nb_args_choice(p->args, "method", method),
                   nb_args_choice(p->args, "bits", bits));
    if (o->group > 0) nb_html_printf(out, "groups of %lld", (long long)o->group);
    else nb_html_text(out, "one group a row");
    nb_html_printf(out, ", %s, %s format.", o->sym ? "symmetric" : "asymmetric", nb_args_choice(p->args, "format", format));
    nb_buf_str(out, "</p>\n<p>");
    const char *shade = p->verdict == NB_FAILED ? "class=\"badge bad\"" : p->verdict == NB_PASSED ? "class=\"badge good\"" : "class=\"badge dim\"";
    nb_html_element(out, "span", shade, p->verdict == NB_PASSED ? "gate passed" : p->verdict == NB_FAILED ? "gate failed" : nb_verdict_name(p->verdict));
    nb_buf_char(out, ' ');
    nb_html_text(out, p->why);
    nb_buf_str(out, "</p>\n");
    NB_TRY(nb_divergence_summarize(&all, &p->judgement.divergence, NB_SCOPE_ALL, NB_OVER_BOTH, err));
    NB_TRY(nb_divergence_summarize(&answer, &p->judgement.divergence, NB_SCOPE_ANSWER, NB_OVER_BOTH, err));
    tiles(out, p, &all, &answer);
    return NB_OK;
}

/* ---- judged ------------------------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    nb_scope    scope;
    nb_over     over;
} parts[] = {
    {"all", NB_SCOPE_ALL, NB_OVER_BOTH},           {"text", NB_SCOPE_ALL, NB_OVER_TEXT},
    {"after a picture", NB_SCOPE_ALL, NB_OVER_VISUAL}, {"answers", NB_SCOPE_ANSWER, NB_OVER_BOTH},
    {"answers, text", NB_SCOPE_ANSWER, NB_OVER_TEXT}, {"answers, picture", NB_SCOPE_ANSWER, NB_OVER_VISUAL},
};

static nb_status figures(nb_buf *out, const nb_divergence *d, nb_error *err)
{
    static const nb_html_column columns[] = {{"positions", false}, {"tokens", true}, {"mean KL", true}, {"± error", true}, {"median", true},
        {"90 %", true}, {"95 %", true}, {"99 %", true}, {"99.9 %", true}, {"largest", true}, {"top 1", true}, {"top 5", true},
        {"perplexity", true}, {"original's", true}};
    nb_html_element(out, "p", NULL, "KL divergence in nats a token, and its percentiles. Top 1 and top 5: how often the original's likeliest "
                                    "token is the quantized model's likeliest, or among its five. Text: words without a picture before them.");
    nb_html_table(out, "Divergence from the original", columns, NB_COUNT(columns));
    for (size_t i = 0; i < NB_COUNT(parts); i++) {
        nb_divergence_summary s;
        char                  cell[14][CELL];
        const char           *cells[14] = {parts[i].name};
        NB_TRY(nb_divergence_summarize(&s, d, parts[i].scope, parts[i].over, err));
        if (!s.tokens) continue;
        const double kl[] = {s.kl_mean, s.kl_error, s.kl_median, s.kl_p90, s.kl_p95, s.kl_p99, s.kl_p999, s.kl_max};
        snprintf(cell[1], CELL, "%zu", s.tokens);
        for (int k = 0; k < 8; k++) snprintf(cell[2 + k], CELL, "%.3g", kl[k]);
        snprintf(cell[10], CELL, "%.2f %%", 100 * s.top1);
        snprintf(cell[11], CELL, "%.2f %%", 100 * s.top5);
        snprintf(cell[12], CELL, "%.5g", s.ppl);
        snprintf(cell[13], CELL, "%.5g", s.ref_ppl);
        for (int k = 1; k < 14; k++) cells[k] = cell[k];
        nb_html_row(out, columns, NB_COUNT(columns), cells);
    }
    nb_html_table_end(out);
    return NB_OK;
}

static void gate_table(nb_buf *out, const nb_gate *g)
{
    static const nb_html_column columns[] = {{"condition", false}, {"limit", true}, {"measured", true}, {"met", false}};
    if (!g->count) return;
    nb_html_table(out, "The gate", columns, NB_COUNT(columns));
    for (size_t i = 0; i < g->count; i++) {
        const nb_gate_rule *r = &g->rules[i];
        char                limit[CELL], value[CELL];
        snprintf(limit, CELL, "%s %g", r->at_least ? "≥" : "≤", r->limit);
        snprintf(value, CELL, isnan(r->value) ? "not measured" : "%.4g", r->value);
        nb_html_row(out, columns, NB_COUNT(columns), (const char *const[]){r->name, limit, value, r->met ? "yes" : "no"});
    }
    nb_html_table_end(out);
}

static nb_status token_plots(nb_buf *out, const nb_divergence *d, nb_error *err)
{
    const nb_svg_chart histogram = {.title = "KL of each position", .x = "KL divergence, nats (1e-8 and less on the left)", .y = "positions", .log_x = true};
    const nb_svg_chart scatter = {.title = "Surprise at the words of the answers",
        .note = "A point is a token; on the line both models found it equally likely, above it the quantized one found it less likely.",
        .x = "original: -ln p", .y = "quantized: -ln p", .log_x = true, .log_y = true};
    double *values, most = 1e-7;
    size_t  answers = 0, taken = 0, seen = 0;
    NB_TRY(nb_alloc(&values, d->count + 2 * POINTS, sizeof *values, "a plot", err));
    for (size_t i = 0; i < d->count; i++) {
        values[i] = d->tokens[i].kl;
        if (values[i] > most) most = values[i];
        answers += d->tokens[i].answer;
    }
    nb_svg_histogram(out, &histogram, values, d->count, 1e-8, most, 64);
    double *x = values + d->count, *y = x + POINTS;
    size_t  every = answers / POINTS + 1;
    for (size_t i = 0; i < d->count; i++)
        if (d->tokens[i].answer && seen++ % every == 0 && taken < POINTS) {
            x[taken] = fmax((double)d->tokens[i].ref_nll, 1e-6); /* surer than that is sure */
            y[taken++] = fmax((double)d->tokens[i].nll, 1e-6);
        }
    if (taken) nb_svg_scatter(out, &scatter, x, y, taken);
    free(values);
    return NB_OK;
}

static nb_status judged(nb_buf *out, const nb_proof *p, nb_error *err)
{
    const nb_judgement *j = &p->judgement;
    nb_html_section(out, "quality", "Beside the original");
    if (!j->divergence.samples) {
        nb_html_element(out, "p", NULL, p->why);
        return NB_OK;
    }
    nb_buf_str(out, "<p>");
    nb_html_printf(out, "Both models read %zu conversations of %s that calibration never saw", j->divergence.samples, p->name);
    if (p->report->adapters.size) nb_html_text(out, "; the original is the one with its adapters merged");
    if (j->too_long) nb_html_printf(out, "; %zu were longer than --seq-len %lld and left out", j->too_long, (long long)p->opt->seq_len);
    if (j->bad) nb_html_printf(out, "; %zu could not be read, the first: %.400s", j->bad, j->first_bad);
    nb_buf_str(out, ".</p>\n");
    NB_TRY(figures(out, &j->divergence, err));
    gate_table(out, &p->gate);
    NB_TRY(token_plots(out, &j->divergence, err));
    nb_buf command = {0};
    if (nb_proof_command(p, &command)) {
        nb_buf_str(out, "<p>The same figures again:</p>\n");
        nb_html_element(out, "pre", NULL, command.data);
        nb_buf_char(out, '\n');
    }
    nb_buf_free(&command);
    return NB_OK;
}

static void answer_box(nb_buf *out, const char *title, const char *text, bool cut)
{
    nb_buf_str(out, "<div>");
    nb_html_element(out, "h3", NULL, title);
    nb_buf_str(out, "<div class=\"text\">");
    nb_html_text(out, text);
    if (cut) nb_html_element(out, "span", "class=\"dim\"", " … (cut here)");
    nb_buf_str(out, "</div></div>\n");
}

static void answers(nb_buf *out, const nb_proof *p)
{
    size_t shown = 0, same = 0;
    for (size_t i = 0; i < p->answers.count; i++)
        if (p->answers.questions[i].answer[1]) shown++, same += p->answers.questions[i].same;
    if (!shown) return;
    nb_html_section(out, "answers", "Answers side by side");
    nb_html_printf(out, "Greedy answers to the first held-out questions; %zu of %zu are the same word for word.", same, shown);
    for (size_t i = 0; i < p->answers.count; i++) {
        const nb_question *q = &p->answers.questions[i];
        if (!q->answer[1]) continue;
        nb_buf_str(out, "<div class=\"question\">");
        for (int k = 0; k < NB_ANSWER_PICTURES; k++)
            if (q->picture[k]) {
                nb_buf_str(out, "<img alt=\"picture of the question\" src=\"");
                nb_html_text(out, q->picture[k]);
                nb_buf_str(out, "\"/>");
            }
        nb_html_element(out, "div", "class=\"text\"", q->question);
        nb_buf_str(out, "</div>\n<div class=\"pair\">\n");
        answer_box(out, "original", q->answer[0], q->cut[0]);
        answer_box(out, q->same ? "quantized (the same)" : "quantized", q->answer[1], q->cut[1]);
        answer_box(out, "in the data", q->expected, false);
        nb_buf_str(out, "</div>\n");
    }
}

/* ---- sizes and tokens -------------------------------------------------------------------------------------------- */

static void tokens_of(char out[32], double v)
{
    snprintf(out, 32, "%.0f tokens", v);
}

static void sizes(nb_buf *out, const nb_proof *p)
{
    static const nb_html_column columns[] = {{"part", false}, {"values", true}, {"before", true}, {"after", true}, {"bits before", true}, {"bits after", true}};
    static const char *const    rows[] = {"original", "quantized"};
    const nb_svg_chart          chart = {.title = "Size by part"};
    double                      bytes[NB_SIZE_PARTS][2];
    nb_svg_series               pieces[NB_SIZE_PARTS];
    size_t                      count = 0;
    nb_html_section(out, "sizes", "Size");
    for (int i = 0; i < NB_SIZE_PARTS; i++) {
        bytes[i][0] = (double)p->parts[i].bytes_in;
        bytes[i][1] = (double)p->parts[i].bytes_out;
        if (p->parts[i].bytes_in || p->parts[i].bytes_out) pieces[count++] = (nb_svg_series){p->parts[i].name, bytes[i]};
    }
    nb_svg_bars(out, &chart, rows, 2, pieces, count, nb_human_bytes);
    nb_html_table(out, "Bits are bytes of the file, scales and zero points included, for each value of the original", columns, NB_COUNT(columns));
    for (int i = 0; i < NB_SIZE_PARTS; i++) {
        const nb_size_part *s = &p->parts[i];
        char                values[32], in[32], made[32], bits_in[CELL] = "", bits_out[CELL] = "";
        if (!s->bytes_in && !s->bytes_out) continue;
        nb_human_count(values, (double)s->values);
        nb_human_bytes(in, (double)s->bytes_in);
        nb_human_bytes(made, (double)s->bytes_out);
        if (s->values) snprintf(bits_in, CELL, "%.2f", nb_bits_of(s->bytes_in, s->values));
        if (s->values) snprintf(bits_out, CELL, "%.2f", nb_bits_of(s->bytes_out, s->values)); /* an untied head had no values */
        nb_html_row(out, columns, NB_COUNT(columns), (const char *const[]){s->name, values, in, made, bits_in, bits_out});
    }
    nb_html_table_end(out);
}

static void tokens(nb_buf *out, const nb_proof *p)
{
    static const char *const names[] = {"text", "pictures", "video"}, *const rows[] = {"calibrated on", "judged on"};
    const nb_svg_chart       chart = {.title = "Tokens by kind"};
    double                   counts[3][2];
    nb_svg_series            pieces[3];
    if (!p->report->tokens && !p->judgement.divergence.samples) return;
    nb_html_section(out, "tokens", "Data");
    for (int i = 0; i < 3; i++) {
        counts[i][0] = (double)p->report->tokens_by_modality[i];
        counts[i][1] = (double)p->judgement.by_modality[i];
        pieces[i] = (nb_svg_series){names[i], counts[i]};
    }
    nb_svg_bars(out, &chart, rows, 2, pieces, 3, tokens_of);
    if (p->report->too_long) {
        nb_buf_str(out, "<p>");
        nb_html_printf(out, "%zu conversations were longer than --seq-len %lld and left out of calibration.", p->report->too_long,
                       (long long)p->opt->seq_len);
        nb_buf_str(out, "</p>\n");
    }
}

/* ---- solvers ----------------------------------------------------------------------------------------------------- */

static nb_status ratio_plot(nb_buf *out, const nb_quantize_report *r, nb_error *err)
{
    static const char *const names[NB_LINEARS] = {"q", "k", "v", "o", "gate", "up", "down"};
    const nb_svg_chart       chart = {.title = "Error of each matrix's output, beside round-to-nearest",
        .note = "Mean squared error over the calibration tokens, divided by that of plain rounding; below 1 the solver helped.",
        .x = "layer", .y = "error / error of rounding", .from_zero = true};
    size_t         layers = r->count / NB_LINEARS;
    double        *values;
    nb_svg_series  series[NB_LINEARS];
    NB_TRY(nb_alloc(&values, (NB_LINEARS + 1) * layers, sizeof *values, "a plot", err));
    for (size_t i = 0; i < layers; i++) {
        values[NB_LINEARS * layers + i] = (double)i;
        for (size_t k = 0; k < NB_LINEARS; k++) {
            const nb_matrix_report *m = &r->matrices[i * NB_LINEARS + k];
            values[k * layers + i] = m->rtn_loss > 0 ? m->loss / m->rtn_loss : NAN;
        }
    }
    for (size_t k = 0; k < NB_LINEARS; k++) series[k] = (nb_svg_series){names[k], values + k * layers};
    nb_svg_lines(out, &chart, values + NB_LINEARS * layers, layers, series, NB_LINEARS, 1, "round to nearest");
    free(values);
    return NB_OK;
}

static void matrix_rows(nb_buf *out, const nb_proof *p)
{
    static const nb_html_column columns[] = {{"matrix", false}, {"error", true}, {"error of rounding", true}, {"ratio", true}, {"damping", true},
                                             {"exponent", true}, {"dead inputs", true}, {"fallback", false}};
    const nb_quantize_report *r = p->report;
    bool                      awq = nb_quantize_methods[p->opt->method] == NB_METHOD_AWQ;
    nb_buf_str(out, "<details><summary>Every matrix</summary>\n");
    nb_html_table(out, "Errors are mean squares of one output value", columns, NB_COUNT(columns));
    for (size_t i = 0; i < r->count; i++) {
        const nb_matrix_report *m = &r->matrices[i];
        char                    cell[6][CELL] = {""};
        snprintf(cell[0], CELL, "%.4g", m->loss);
        snprintf(cell[1], CELL, "%.4g", m->rtn_loss);
        if (m->rtn_loss > 0) snprintf(cell[2], CELL, "%.3f", m->loss / m->rtn_loss);
        if (m->damp > 0) snprintf(cell[3], CELL, "%g", m->damp);
        if (awq && m->ratio >= 0) snprintf(cell[4], CELL, "%.2f", m->ratio);
        snprintf(cell[5], CELL, "%d", m->dead);
        nb_html_row(out, columns, NB_COUNT(columns),
                    (const char *const[]){m->name, cell[0], cell[1], cell[2], cell[3], cell[4], cell[5], m->fallback ? "rounded to nearest" : ""});
    }
    nb_html_table_end(out);
    nb_buf_str(out, "</details>\n");
}

static nb_status solvers(nb_buf *out, const nb_proof *p, nb_error *err)
{
    const nb_solver_quality q = nb_quantize_quality(p->report);
    if (!q.compared) return NB_OK;
    nb_html_section(out, "error", "Error by layer and matrix");
    nb_buf_str(out, "<p>");
    nb_html_printf(out, "%.3f of round-to-nearest on average over %zu matrices; worst %.3f at %s.", q.mean, q.compared, q.worst,
                   p->report->matrices[q.worst_index].name);
    if (q.fallbacks) nb_html_printf(out, " %zu matrices were rounded to nearest because their factorisation failed up to --damp-max.", q.fallbacks);
    if (q.dead) nb_html_printf(out, " %zu inputs never saw anything but zero.", q.dead);
    nb_buf_str(out, "</p>\n");
    NB_TRY(ratio_plot(out, p->report, err));
    matrix_rows(out, p);
    return NB_OK;
}

/* ---- ranges ------------------------------------------------------------------------------------------------------ */

static nb_status ranges(nb_buf *out, const nb_proof *p, nb_error *err)
{
    static const char *const names[NB_SITES + 1] = {"attention in", "o_proj in", "mlp in", "down_proj in", "residual"};
    const nb_svg_chart       chart = {.title = "Largest activation of each layer",
        .note = "Inputs of the matrices over the calibration tokens, and the hidden state behind each layer over the held-out ones.",
        .x = "layer", .y = "largest |x|", .log_y = true};
    const nb_quantize_report *r = p->report;
    size_t                    layers = r->count / NB_LINEARS, count = 0;
    double                   *values, most = nb_proof_largest(p);
    nb_svg_series             series[NB_SITES + 1];
    if (!r->samples && !p->judgement.layers) return NB_OK;
    NB_TRY(nb_alloc(&values, (NB_SITES + 2) * layers, sizeof *values, "a plot", err));
    for (size_t i = 0; i < layers; i++) {
        values[i] = (double)i;
        for (size_t site = 0; site < NB_SITES; site++) values[(1 + site) * layers + i] = (double)r->site_max[i * NB_SITES + site];
        if (p->judgement.layers) values[(1 + NB_SITES) * layers + i] = (double)p->judgement.residual[i];
    }
    for (size_t k = r->samples ? 0 : NB_SITES; k < NB_SITES + (p->judgement.layers ? 1 : 0); k++)
        series[count++] = (nb_svg_series){names[k], values + (1 + k) * layers};
    nb_html_section(out, "ranges", "Activations and float16");
    nb_buf_str(out, "<p>");
    if (!(most <= 65504))
        nb_html_printf(out, "Values reach %.0f, beyond the 65504 of float16: served in float16 this model answers with one token over and over "
                            "('!!!!'). Serve it in bfloat16.", most);
    else
        nb_html_printf(out, "The largest value is %.0f; float16 holds up to 65504.", most);
    nb_buf_str(out, "</p>\n");
    nb_svg_lines(out, &chart, values, layers, series, count, 65504, "float16 ends at 65504");
    free(values);
    return NB_OK;
}

/* ---- how it was made --------------------------------------------------------------------------------------------- */

static void note_list(nb_buf *out, const char *title, const nb_buf *lines)
{
    if (!lines->size) return;
    nb_html_element(out, "h3", NULL, title);
    nb_buf_str(out, "<ul>\n");
    for (const char *line = lines->data; *line;) {
        size_t n = strcspn(line, "\n");
        if (n) {
            nb_buf_str(out, "<li>");
            nb_html_printf(out, "%.*s", (int)n, line);
            nb_buf_str(out, "</li>\n");
        }
        line += n + (line[n] == '\n');
    }
    nb_buf_str(out, "</ul>\n");
}

static void recipe(nb_buf *out, const nb_proof *p)
{
    nb_html_section(out, "recipe", "How it was made");
    nb_buf_str(out, "<p>nibble ");
    nb_html_text(out, NIBBLE_VERSION);
    nb_buf_str(out, "; the same checkpoint again: <code>nibble quantize --config recipe.json --out OTHER</code></p>\n<details><summary>recipe.json</summary>\n");
    nb_html_element(out, "pre", NULL, p->recipe);
    nb_buf_str(out, "</details>\n");
    note_list(out, "Merged", &p->report->adapters);
    note_list(out, "Notes", &p->report->notes);
}

nb_status nb_proof_html(nb_buf *out, const nb_proof *p, nb_error *err)
{
    nb_html_begin(out, basename_of(p->opt->out));
    NB_TRY(head(out, p, err));
    NB_TRY(judged(out, p, err));
    answers(out, p);
    NB_TRY(solvers(out, p, err));
    sizes(out, p);
    tokens(out, p);
    NB_TRY(ranges(out, p, err));
    recipe(out, p);
    nb_html_end(out);
    return nb_buf_status(out, "report.html", err);
}
