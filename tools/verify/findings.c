/* findings.c - the list that all rules write into. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/verify/verify.h"

const char *nb_target_name(nb_target target)
{
    static const char *const names[NB_TARGETS] = {"all", "vllm", "sglang", "transformers", "llama.cpp", "nibble"};
    return names[target];
}

const char *nb_severity_name(nb_severity severity)
{
    static const char *const names[] = {"note", "warning", "error"};
    return names[severity];
}

void nb_findings_free(nb_findings *f)
{
    for (size_t i = 0; i < f->count; i++) {
        free(f->items[i].where);
        free(f->items[i].what);
    }
    free(f->items);
    *f = (nb_findings){0};
}

void nb_found(nb_findings *f, nb_severity severity, nb_target target, int tp, const char *rule, const char *where,
              const char *todo, const char *format, ...)
{
    char    what[640];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    if (nb_grow(&f->items, &f->capacity, f->count + 1, sizeof *f->items, "findings", NULL) != NB_OK) {
        f->failed = true;
        return;
    }
    nb_finding *n = &f->items[f->count++];
    *n = (nb_finding){severity, target, tp, rule, nb_strdup(where), nb_strdup(what), todo};
    f->failed = f->failed || !n->where || !n->what;
}

size_t nb_findings_errors(const nb_findings *f, nb_target target, int tp)
{
    size_t errors = 0;
    for (size_t i = 0; i < f->count; i++) {
        const nb_finding *n = &f->items[i];
        bool              general = n->target == NB_FOR_ALL && (target != NB_FOR_LLAMACPP || !strcmp(n->rule, "sums"));
        errors += n->severity == NB_ERROR && (n->target == target || general) && (n->tp == 0 || n->tp == tp);
    }
    return errors;
}
