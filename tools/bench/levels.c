/* levels.c - see levels.h. */
#include "tools/bench/levels.h"

#include <stdio.h>
#include <string.h>

static nb_status add_name(nb_levels *out, const char *name, size_t n, nb_error *err)
{
    nb_isa best = nb_isa_detect(NB_ISA_LEVELS - 1);
    char   known[128] = "";
    for (nb_isa isa = NB_ISA_REF; isa < NB_ISA_LEVELS; isa++) {
        const char *level = nb_isa_name(isa);
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", isa ? ", " : "", level);
        if (strlen(level) != n || strncmp(level, name, n)) continue;
        if (nb_isa_detect(isa) != isa)
            return nb_fail(err, NB_ERR_UNSUPPORTED, "--isa %s: the best level of this machine is %s", level, nb_isa_name(best));
        out->has[isa] = true;
        return NB_OK;
    }
    return nb_fail(err, NB_ERR_ARGUMENT, "--isa: '%.*s' is not a level; there are %s", (int)n, name, known);
}

nb_status nb_levels_parse(nb_levels *out, const char *text, nb_error *err)
{
    *out = (nb_levels){ 0 };
    if (!text) {
        nb_isa top;
        NB_TRY(nb_isa_from_environment(&top, err));
        for (nb_isa isa = NB_ISA_REF; isa <= top; isa++) out->has[isa] = nb_isa_detect(isa) == isa;
        out->has[NB_ISA_LEVELS] = top == nb_isa_detect(NB_ISA_LEVELS - 1);
        return NB_OK;
    }
    for (;;) {
        size_t n = strcspn(text, ",");
        NB_TRY(add_name(out, text, n, err));
        if (!text[n]) return NB_OK;
        text += n + 1;
    }
}
