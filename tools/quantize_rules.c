/* quantize_rules.c - --keep RE and --set RE=BITS[:GROUP] as rules for nb_quantize. */
#include <stdlib.h>
#include <string.h>

#include "tools/quantize_flags.h"

/* The pattern ends at the last '='; one inside it is part of it. */
static nb_status parse_set(nb_choice_rule *out, const char *text, nb_error *err)
{
    const char *equals = strrchr(text, '='), *colon = equals ? strchr(equals, ':') : NULL;
    char        bits[16];
    int64_t     value, group = NB_GROUP_DEFAULT;
    size_t      digits = equals ? strcspn(equals + 1, ":") : 0;
    if (!equals || equals == text || digits == 0 || digits >= sizeof bits)
        return nb_fail(err, NB_ERR_ARGUMENT, "--set '%s' is not PATTERN=BITS or PATTERN=BITS:GROUP, such as 'down_proj=8:64'", text);
    memcpy(bits, equals + 1, digits);
    bits[digits] = 0;
    NB_TRY(nb_parse_int(&value, bits, 1, 16, "--set", err));
    if (value != 4 && value != 8)
        return nb_fail(err, NB_ERR_ARGUMENT, "--set '%s': %d bits; 4 and 8 can be written, --keep leaves a matrix float", text, (int)value);
    if (colon) NB_TRY(nb_parse_int(&group, colon + 1, -1, 1 << 20, "--set", err));
    if (colon && group == 0) return nb_fail(err, NB_ERR_ARGUMENT, "--set '%s': a group has at least one weight; -1 is a whole row", text);
    char *pattern = strndup(text, (size_t)(equals - text));
    *out = (nb_choice_rule){.pattern = pattern, .bits = (int)value,
                            .group = !colon ? NB_GROUP_DEFAULT : group < 0 ? 0 : (int)group};
    return pattern ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "--set: out of memory");
}

void nb_quantize_free_rules(nb_choice_rule *rules, size_t count)
{
    for (size_t i = 0; rules && i < count; i++) free((char *)rules[i].pattern);
    free(rules);
}

nb_status nb_quantize_rules(nb_choice_rule **out, size_t *count, const nb_strings *keep, const nb_strings *set, nb_error *err)
{
    *count = 0;
    NB_TRY(nb_alloc(out, (size_t)(keep->count + set->count), sizeof **out, "--keep and --set", err));
    nb_status s = NB_OK;
    for (int i = 0; i < set->count && s == NB_OK; i++) s = parse_set(&(*out)[(*count)++], set->items[i], err);
    for (int i = 0; i < keep->count && s == NB_OK; i++) {
        nb_choice_rule *rule = &(*out)[(*count)++];
        *rule = (nb_choice_rule){.pattern = strdup(keep->items[i]), .keep = true};
        if (!rule->pattern) s = nb_fail(err, NB_ERR_MEMORY, "--keep: out of memory");
    }
    if (s == NB_OK) return s;
    nb_quantize_free_rules(*out, *count);
    *out = NULL;
    *count = 0;
    return s;
}
