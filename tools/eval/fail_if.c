/* fail_if.c - see fail_if.h. */
#include "tools/eval/fail_if.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void nb_fail_if_free(nb_fail_if *f)
{
    free(f->rules);
    memset(f, 0, sizeof *f);
}

static bool figure_of(const char *text, size_t n, nb_fail_figure *out)
{
    static const char *const names[] = { [NB_FAIL_HIGH] = "high", [NB_FAIL_LOW] = "low", [NB_FAIL_SCORE] = "score" };
    for (size_t i = NB_FAIL_HIGH; i < NB_COUNT(names); i++)
        if (strlen(names[i]) == n && !memcmp(names[i], text, n)) {
            *out = (nb_fail_figure)i;
            return true;
        }
    return false;
}

static nb_status add_rule(nb_fail_if *f, const char *text, size_t n, nb_error *err)
{
    nb_fail_rule r = { .figure = NB_FAIL_DIFFERENCE };
    const char  *sign = memchr(text, '<', n), *dot = sign ? memrchr(text, '.', (size_t)(sign - text)) : NULL;
    char        *end = NULL;
    size_t       name = sign ? (size_t)((dot ? dot : sign) - text) : 0;
    if (sign) r.limit = strtod(sign + 1, &end);
    if (name == 0 || name >= sizeof r.name || end == sign + 1 || end != text + n || !isfinite(r.limit) ||
        (dot && !figure_of(dot + 1, (size_t)(sign - dot - 1), &r.figure)))
        return nb_fail(err, NB_ERR_ARGUMENT, "--fail-if: '%.*s' is not a condition such as mmmu<-1.0, docvqa.high<0 or ocrbench.score<80", (int)n, text);
    memcpy(r.name, text, name);
    NB_TRY(nb_grow(&f->rules, &f->capacity, f->count + 1, sizeof *f->rules, "--fail-if", err));
    f->rules[f->count++] = r;
    return NB_OK;
}

nb_status nb_fail_if_add(nb_fail_if *f, const char *list, nb_error *err)
{
    for (size_t n; *list; list += n + (list[n] == ',')) {
        n = strcspn(list, ",");
        NB_TRY(add_rule(f, list, n, err));
    }
    return NB_OK;
}

static void judge(const nb_fail_rule *r, const nb_eval_row *row, const nb_eval_task *t, nb_buf *out)
{
    static const char *const words[] = { "the difference", "the upper end of the difference", "the lower end of the difference", "the score" };
    const nb_paired         *p = &t->paired;
    const double             values[] = { p->difference, p->high, p->low, t->summary.value };
    double                   value = values[r->figure];
    if (value < r->limit)
        nb_buf_printf(out, "%s%s: %s of %s is %.2f, below %g", out->size ? "; " : "", row->model, words[r->figure], t->name, value, r->limit);
}

nb_status nb_fail_if_check(const nb_fail_if *f, const nb_eval_row *rows, size_t count, nb_buf *out, nb_error *err)
{
    for (size_t i = 0; i < f->count; i++) {
        const nb_fail_rule *r = &f->rules[i];
        bool                any = false;
        for (size_t j = 0; j < count; j++)
            for (size_t k = 0; k < rows[j].task_count; k++) {
                const nb_eval_task *t = &rows[j].tasks[k];
                if (!strcasestr(t->name, r->name) || (r->figure != NB_FAIL_SCORE && !t->paired.items)) continue;
                any = true;
                judge(r, &rows[j], t, out);
            }
        if (!any)
            return nb_fail(err, NB_ERR_ARGUMENT, "--fail-if: no benchmark of this run whose name holds '%s'%s", r->name,
                           r->figure == NB_FAIL_SCORE ? "" : " was compared with a baseline");
    }
    return nb_buf_status(out, "--fail-if", err);
}
