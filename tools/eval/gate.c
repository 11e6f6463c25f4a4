/* gate.c - see gate.h. */
#include "tools/eval/gate.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"
#include "tools/cli/args.h"

enum { FILE_LIMIT = 1 << 16 };

static const struct {
    const char    *name;
    nb_gate_metric metric;
} metrics[] = {
    { "kl", NB_GATE_KL }, { "kl.mean", NB_GATE_KL }, { "kl.median", NB_GATE_KL_MEDIAN }, { "kl.p50", NB_GATE_KL_MEDIAN },
    { "kl.p90", NB_GATE_KL_P90 }, { "kl.p95", NB_GATE_KL_P95 }, { "kl.p99", NB_GATE_KL_P99 }, { "kl.p99.9", NB_GATE_KL_P999 },
    { "kl.max", NB_GATE_KL_MAX }, { "ppl", NB_GATE_PPL }, { "top1", NB_GATE_TOP1 }, { "top5", NB_GATE_TOP5 },
};
static const struct {
    const char *name;
    nb_scope    scope;
    nb_over     over;
} parts[] = {
    { "all", NB_SCOPE_ALL, NB_OVER_BOTH },        { "text", NB_SCOPE_ALL, NB_OVER_TEXT },
    { "image", NB_SCOPE_ALL, NB_OVER_VISUAL },    { "answer", NB_SCOPE_ANSWER, NB_OVER_BOTH },
    { "answer_text", NB_SCOPE_ANSWER, NB_OVER_TEXT }, { "answer_image", NB_SCOPE_ANSWER, NB_OVER_VISUAL },
};

void nb_gate_free(nb_gate *g)
{
    free(g->rules);
    memset(g, 0, sizeof *g);
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

static bool find_metric(const char *name, nb_gate_metric *out)
{
    for (size_t i = 0; i < NB_COUNT(metrics); i++)
        if (!strcmp(name, metrics[i].name)) {
            *out = metrics[i].metric;
            return true;
        }
    return false;
}

static bool find_name(nb_gate_rule *r)
{
    r->scope = NB_SCOPE_ALL;
    r->over = NB_OVER_BOTH;
    if (find_metric(r->name, &r->metric)) return true;
    size_t n = strcspn(r->name, ".");
    for (size_t i = 0; i < NB_COUNT(parts) && r->name[n]; i++)
        if (strlen(parts[i].name) == n && !memcmp(parts[i].name, r->name, n)) {
            r->scope = parts[i].scope;
            r->over = parts[i].over;
            return find_metric(r->name + n + 1, &r->metric);
        }
    return false;
}

/* text [n]: one condition, or nothing but white space.  where: "--gate", or the file. */
static nb_status add_rule(nb_gate *g, const char *text, size_t n, const char *where, nb_error *err)
{
    while (n && isspace((unsigned char)*text)) text++, n--;
    while (n && isspace((unsigned char)text[n - 1])) n--;
    if (!n) return NB_OK;
    nb_gate_rule r = { .value = NAN };
    char         number[32];
    size_t       name = 0, at;
    while (name < n && !strchr("=<> \t", text[name])) name++;
    for (at = name; at < n && isspace((unsigned char)text[at]); at++) {}
    char sign = at < n ? text[at] : 0;
    if (name == 0 || name >= sizeof r.name || !sign || !strchr("=<>", sign))
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: '%.*s' is not a condition such as kl=0.02 or top1>0.97", where, (int)n, text);
    memcpy(r.name, text, name);
    if (!find_name(&r))
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: '%s' is not kl, kl.median, kl.p90, kl.p95, kl.p99, kl.p99.9, kl.max, top1, top5 or ppl, alone "
                       "or behind all., text., image., answer., answer_text. or answer_image.", where, r.name);
    at += sign != '=' && at + 1 < n && text[at + 1] == '=' ? 2 : 1;
    while (at < n && isspace((unsigned char)text[at])) at++;
    snprintf(number, sizeof number, "%.*s", (int)(n - at), text + at);
    r.at_least = r.metric == NB_GATE_TOP1 || r.metric == NB_GATE_TOP5;
    if (n - at >= sizeof number || nb_parse_number(&r.limit, number, 0, r.at_least ? 1 : 1e9, r.name, err) != NB_OK)
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: '%.*s': the limit must be a number from 0%s", where, (int)n, text, r.at_least ? " to 1" : " on");
    if ((sign == '<' && r.at_least) || (sign == '>' && !r.at_least))
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: '%.*s': %s is better when it is %s, so write %s%c%s", where, (int)n, text, r.name,
                       r.at_least ? "higher" : "lower", r.name, r.at_least ? '>' : '<', number);
    NB_TRY(nb_grow(&g->rules, &g->capacity, g->count + 1, sizeof *g->rules, "conditions", err));
    g->rules[g->count++] = r;
    return NB_OK;
}

static nb_status add_rules(nb_gate *g, const char *text, const char *ends, const char *where, nb_error *err)
{
    for (;;) {
        size_t n = strcspn(text, ends);
        if (text[n] == '#' || (n && memchr(text, '#', n))) n = strcspn(text, "#\n");
        NB_TRY(add_rule(g, text, n, where, err));
        if (text[n] == '#') n += strcspn(text + n, "\n");
        if (!text[n]) return NB_OK;
        text += n + 1;
    }
}

static nb_status read_file(nb_gate *g, const char *path, nb_error *err)
{
    nb_buf text = { 0 };
    if (!nb_file_exists(path))
        return nb_fail(err, NB_ERR_ARGUMENT, "--gate: '%s' is neither default, off, a condition such as kl=0.02, nor a file of conditions", path);
    nb_status status = nb_file_read(&text, path, FILE_LIMIT, err);
    if (!status && text.size && strlen(text.data) != text.size) status = nb_fail(err, NB_ERR_INPUT, "%s: is not text", path);
    if (!status && text.size) status = add_rules(g, text.data, ",\n", path, err);
    if (!status && !g->count) status = nb_fail(err, NB_ERR_INPUT, "%s: holds no condition", path);
    nb_buf_free(&text);
    return status;
}

nb_status nb_gate_parse(nb_gate *out, const char *text, nb_error *err)
{
    nb_status status = NB_OK;
    memset(out, 0, sizeof *out);
    if (!strcmp(text, "default"))
        status = add_rules(out, NB_GATE_DEFAULT, ",", "--gate", err);
    else if (strpbrk(text, "=<>"))
        status = add_rules(out, text, ",", "--gate", err);
    else if (strcmp(text, "off") && strcmp(text, "none"))
        status = read_file(out, text, err);
    if (status) nb_gate_free(out);
    return status;
}

/* ---- checking ---------------------------------------------------------------------------------------------------------- */

static double value_of(const nb_divergence_summary *s, nb_gate_metric metric)
{
    if (s->tokens == 0) return NAN;
    switch (metric) {
    case NB_GATE_KL: return s->kl_mean;
    case NB_GATE_KL_MEDIAN: return s->kl_median;
    case NB_GATE_KL_P90: return s->kl_p90;
    case NB_GATE_KL_P95: return s->kl_p95;
    case NB_GATE_KL_P99: return s->kl_p99;
    case NB_GATE_KL_P999: return s->kl_p999;
    case NB_GATE_KL_MAX: return s->kl_max;
    case NB_GATE_PPL: return exp(s->ln_ratio);
    case NB_GATE_TOP1: return s->top1;
    case NB_GATE_TOP5: return s->top5;
    }
    return NAN;
}

nb_status nb_gate_check(nb_gate *g, const nb_divergence *d, nb_error *err)
{
    for (size_t i = 0; i < g->count; i++) {
        nb_gate_rule         *r = &g->rules[i];
        nb_divergence_summary s;
        NB_TRY(nb_divergence_summarize(&s, d, r->scope, r->over, err));
        r->value = value_of(&s, r->metric);
        r->met = r->at_least ? r->value >= r->limit : r->value <= r->limit;
    }
    return NB_OK;
}

bool nb_gate_met(const nb_gate *g)
{
    bool met = true;
    for (size_t i = 0; i < g->count; i++) met = met && g->rules[i].met;
    return met;
}

void nb_gate_failures(const nb_gate *g, nb_buf *out)
{
    for (size_t i = 0; i < g->count; i++) {
        const nb_gate_rule *r = &g->rules[i];
        if (r->met) continue;
        if (out->size) nb_buf_str(out, "; ");
        if (isnan(r->value)) nb_buf_printf(out, "%s could not be measured: no such tokens", r->name);
        else nb_buf_printf(out, "%s is %.4g, %s %g was asked for", r->name, r->value, r->at_least ? "at least" : "at most", r->limit);
    }
}
