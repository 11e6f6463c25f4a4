/* args.c - the parser: default, config file, environment and flags, in this order, each set over the one before.
 *
 * A first walk over the arguments only finds out what each of them is; values are converted afterwards, when the config file
 * that one of them names has been read.  An option remembers the rank of who set it: a list that is set by a stronger
 * source starts anew, one that is set again by the same source grows.
 */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "runtime/io/file.h"
#include "tools/cli/args.h"
#include "tools/cli/progress.h"

enum { RANK_DEFAULT, RANK_SUGGESTED, RANK_CONFIG, RANK_CONFIG_SECTION, RANK_ENVIRONMENT, RANK_FLAG };

/* One option of the command, wherever its block is. */
typedef struct {
    const nb_arg *arg;
    char         *field; /* in the options struct */
    bool          common;
    uint8_t       rank;
} slot;

/* A flag as it stands on the command line. */
typedef struct {
    size_t      slot;
    const char *value; /* NULL: a bare bool */
    bool        negated;
    const char *written; /* the argument, for messages */
} use;

struct nb_args {
    const nb_command *command;
    slot             *slots;
    size_t            count;
    void            **owned; /* copies of texts that options point to */
    size_t            owned_count, owned_capacity;
    nb_args_wish      wish;
};

const nb_arg nb_common_args[NB_COMMON_ARGS] = {
    {.name = "verbose", .brief = "v", .type = NB_ARG_BOOL, .at = offsetof(nb_common, verbose), .group = "General",
     .help = "say more on standard error"},
    {.name = "quiet", .brief = "q", .type = NB_ARG_BOOL, .at = offsetof(nb_common, quiet), .group = "General",
     .help = "no notes and no progress; warnings and errors only"},
    {.name = "json", .type = NB_ARG_BOOL, .at = offsetof(nb_common, json), .group = "General",
     .help = "results as JSON on standard output, errors too"},
    {.name = "progress", .type = NB_ARG_CHOICE, .at = offsetof(nb_common, progress),
     .choices = "auto|bar|plain|json|none", .text = "auto", .group = "General", .advanced = true,
     .help = "how progress is shown on standard error; auto is a bar on a terminal and seldom lines elsewhere"},
    {.name = "config", .type = NB_ARG_STRING, .at = offsetof(nb_common, config), .metavar = "FILE", .group = "General",
     .advanced = true, .help = "JSON file of options: {\"threads\": 4, \"quantize\": {\"bits\": 8}}"},
};

/* ---- names ------------------------------------------------------------------------------------------------------- */

/* The next name of a comma-separated list; false at its end. */
static bool next_name(const char **list, char out[64])
{
    if (!*list || !**list) return false;
    size_t n = strcspn(*list, ",");
    snprintf(out, 64, "%.*s", (int)(n < 63 ? n : 63), *list);
    *list += n + ((*list)[n] == ',');
    return true;
}

/* Does word (dashes, lower case as given) name this option?  *negated tells "--no-x" and opposite aliases. */
static bool names(const nb_arg *arg, const char *word, bool *negated)
{
    const char *list = arg->aliases;
    char        name[64];
    bool        opposite = false;
    snprintf(name, sizeof name, "%s", arg->name);
    do {
        const char *plain = name;
        opposite = *plain == '!';
        if (opposite) plain++;
        if (strcmp(word, plain) == 0) return *negated = opposite, true;
        if (arg->type == NB_ARG_BOOL && strncmp(word, "no-", 3) == 0 && strcmp(word + 3, plain) == 0)
            return *negated = !opposite, true;
    } while (next_name(&list, name));
    return false;
}

static void kebab(char out[64], const char *name, size_t n)
{
    snprintf(out, 64, "%.*s", (int)(n < 63 ? n : 63), name);
    for (char *c = out; *c; c++)
        if (*c == '_') *c = '-';
}

/* Index of the option that `word` names, or count.  Positional options are named by config keys only. */
static size_t find_long(const nb_args *a, const char *word, bool positional_too, bool *negated)
{
    for (size_t i = 0; i < a->count; i++)
        if ((positional_too || !a->slots[i].arg->positional) && names(a->slots[i].arg, word, negated)) return i;
    return a->count;
}

static nb_status own(nb_args *a, void *memory, nb_error *err)
{
    if (!memory) return nb_fail(err, NB_ERR_MEMORY, "out of memory for the command line");
    nb_status s = nb_grow(&a->owned, &a->owned_capacity, a->owned_count + 1, sizeof *a->owned, "the command line", err);
    if (s != NB_OK) return free(memory), s;
    a->owned[a->owned_count++] = memory;
    return NB_OK;
}

/* "unknown X; did you mean Y?" */
static nb_status unknown(nb_args *a, const char *where, const char *word, bool flag, nb_error *err)
{
    const char **all = NULL;
    size_t       n = 0, capacity = 0;
    NB_TRY(nb_grow(&all, &capacity, 1, sizeof *all, "suggestions", err));
    nb_status s = NB_OK;
    for (size_t i = 0; i < a->count && s == NB_OK; i++) {
        const char *list = a->slots[i].arg->aliases;
        char        name[64];
        if (flag && a->slots[i].arg->positional) continue;
        snprintf(name, sizeof name, "%s", a->slots[i].arg->name);
        do {
            const char *plain = name + (*name == '!');
            char        negative[72];
            snprintf(negative, sizeof negative, "no-%s", plain);
            const char *forms[2] = {plain, negative};
            for (int f = 0; f < (a->slots[i].arg->type == NB_ARG_BOOL ? 2 : 1) && s == NB_OK; f++) {
                char *copy = nb_strdup(forms[f]);
                s = own(a, copy, err);
                if (s == NB_OK) s = nb_grow(&all, &capacity, n + 1, sizeof *all, "suggestions", err);
                if (s == NB_OK) all[n++] = copy;
            }
        } while (s == NB_OK && next_name(&list, name));
    }
    if (s == NB_OK) {
        const char *near = nb_nearest(word, all, n), *dashes = flag ? "--" : "";
        if (near)
            s = nb_fail(err, NB_ERR_ARGUMENT, "%s'%s%s'; did you mean '%s%s'?", where, dashes, word, dashes, near);
        else
            s = nb_fail(err, NB_ERR_ARGUMENT, "%s'%s%s'; 'nibble %s --help=all' lists what there is", where, dashes, word,
                        a->command->name);
    }
    free(all);
    return s;
}

/* ---- setting a value --------------------------------------------------------------------------------------------- */

static nb_status set_choice(int *out, const nb_arg *arg, const char *text, const char *what, nb_error *err)
{
    int index = 0;
    for (const char *c = arg->choices; *c; index++) {
        size_t n = strcspn(c, "|");
        if (strlen(text) == n && strncasecmp(text, c, n) == 0) return *out = index, NB_OK;
        c += n + (c[n] == '|');
    }
    char list[256];
    int  used = 0;
    for (const char *c = arg->choices; *c && used < (int)sizeof list - 3; c++)
        used += snprintf(list + used, sizeof list - (size_t)used, *c == '|' ? ", " : "%c", *c);
    return nb_fail(err, NB_ERR_ARGUMENT, "%s: '%s' is not one of %s", what, text, list);
}

static nb_status set(nb_args *a, slot *s, const char *text, bool negated, int rank, const char *what, nb_error *err)
{
    const nb_arg *arg = s->arg;
    bool          anew = s->rank != rank;
    switch (arg->type) {
    case NB_ARG_BOOL: {
        bool v;
        NB_TRY(nb_parse_bool(&v, text, what, err));
        *(bool *)s->field = v != negated;
        break;
    }
    case NB_ARG_INT: NB_TRY(nb_parse_int((int64_t *)s->field, text, arg->min, arg->max, what, err)); break;
    case NB_ARG_NUMBER: NB_TRY(nb_parse_number((double *)s->field, text, arg->min, arg->max, what, err)); break;
    case NB_ARG_SIZE: NB_TRY(nb_parse_size((uint64_t *)s->field, text, arg->min, arg->max, what, err)); break;
    case NB_ARG_CHOICE: NB_TRY(set_choice((int *)s->field, arg, text, what, err)); break;
    case NB_ARG_STRING: {
        char *copy = nb_strdup(text);
        NB_TRY(own(a, copy, err));
        *(const char **)s->field = copy;
        break;
    }
    case NB_ARG_STRINGS: {
        nb_strings *list = (nb_strings *)s->field;
        char       *copy = nb_strdup(text);
        NB_TRY(own(a, copy, err));
        if (anew) list->count = 0;
        const char **grown = realloc(list->items, (size_t)(list->count + 1) * sizeof *grown);
        if (!grown) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", what);
        list->items = grown;
        list->items[list->count++] = copy;
        break;
    }
    case NB_ARG_INTS: {
        nb_ints *list = (nb_ints *)s->field;
        if (anew) {
            free(list->items);
            *list = (nb_ints){0};
        }
        NB_TRY(nb_parse_ints(list, text, arg->min, arg->max, what, err));
        break;
    }
    }
    s->rank = (uint8_t)rank;
    return NB_OK;
}

/* ---- the sources ------------------------------------------------------------------------------------------------- */

static nb_status set_from_json(nb_args *a, slot *s, const cJSON *v, bool negated, int rank, const char *what, nb_error *err)
{
    char number[40];
    if (cJSON_IsString(v)) return set(a, s, v->valuestring, negated, rank, what, err);
    if (cJSON_IsBool(v)) return set(a, s, cJSON_IsTrue(v) ? "true" : "false", negated, rank, what, err);
    if (cJSON_IsNumber(v)) {
        snprintf(number, sizeof number,
                 fabs(v->valuedouble) < 1e15 && v->valuedouble == floor(v->valuedouble) ? "%.0f" : "%.17g", v->valuedouble);
        return set(a, s, number, negated, rank, what, err);
    }
    if (cJSON_IsArray(v) && (s->arg->type == NB_ARG_STRINGS || s->arg->type == NB_ARG_INTS)) {
        const cJSON *item;
        cJSON_ArrayForEach(item, v)
        {
            if (!cJSON_IsString(item) && !cJSON_IsNumber(item))
                return nb_fail(err, NB_ERR_ARGUMENT, "%s: the list may hold strings and numbers only", what);
            NB_TRY(set_from_json(a, s, item, negated, rank, what, err));
        }
        return NB_OK;
    }
    return nb_fail(err, NB_ERR_ARGUMENT, "%s: a JSON %s cannot be the value of an option", what,
                   cJSON_IsArray(v) ? "array" : "object");
}

/* One object of the config file.  Keys that begin with '_' are notes; at the top level an object is the section of a verb. */
static nb_status config_object(nb_args *a, const cJSON *object, const char *file, bool section, nb_error *err)
{
    const cJSON *v;
    cJSON_ArrayForEach(v, object)
    {
        char what[256], word[64];
        bool negated;
        if (v->string[0] == '_' || cJSON_IsNull(v) || (!section && cJSON_IsObject(v))) continue;
        kebab(word, v->string, strlen(v->string));
        size_t i = find_long(a, word, true, &negated);
        snprintf(what, sizeof what, "%s: %s%s%s", file, section ? a->command->name : "", section ? "." : "", v->string);
        if (i == a->count) {
            snprintf(what, sizeof what, "%s: unknown option ", file);
            return unknown(a, what, word, false, err);
        }
        if (strcmp(word, "config") == 0)
            return nb_fail(err, NB_ERR_ARGUMENT, "%s: a config file cannot name another one", what);
        NB_TRY(set_from_json(a, &a->slots[i], v, negated, section ? RANK_CONFIG_SECTION : RANK_CONFIG, what, err));
    }
    return NB_OK;
}

static nb_status apply_config(nb_args *a, const char *path, nb_error *err)
{
    cJSON *tree;
    NB_TRY(nb_json_file(&tree, path, 1 << 20, err));
    nb_status s;
    if (!cJSON_IsObject(tree)) {
        s = nb_fail(err, NB_ERR_ARGUMENT, "%s: a config file is one JSON object of options", path);
    } else {
        s = config_object(a, tree, path, false, err);
        const cJSON *section = nb_json_find(tree, a->command->name);
        if (s == NB_OK && cJSON_IsObject(section)) s = config_object(a, section, path, true, err);
    }
    cJSON_Delete(tree);
    return s;
}

static void environment_name(char out[80], const nb_arg *arg)
{
    snprintf(out, 80, "NIBBLE_%s", arg->name);
    for (char *c = out + 7; *c; c++) *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
}

/* The variable of an option, NULL when it is unset or empty.  Positional arguments have none. */
static const char *environment_value(const nb_arg *arg, char name[80])
{
    if (arg->positional) return NULL;
    environment_name(name, arg);
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

/* ---- the command line -------------------------------------------------------------------------------------------- */

/* Read the flag at argv[*i]; its value may be the next argument. */
static nb_status read_flag(nb_args *a, int argc, char *const *argv, int *i, use *u, nb_error *err)
{
    const char *word = argv[*i];
    *u = (use){.slot = a->count, .written = word};
    if (word[1] == '-') {
        const char *equals = strchr(word, '=');
        char        name[64];
        kebab(name, word + 2, equals ? (size_t)(equals - word - 2) : strlen(word + 2));
        u->slot = find_long(a, name, false, &u->negated);
        if (u->slot == a->count) return unknown(a, "unknown flag ", name, true, err);
        if (equals) u->value = equals + 1;
    } else {
        for (size_t k = 0; k < a->count && u->slot == a->count; k++)
            if (a->slots[k].arg->brief && strcmp(a->slots[k].arg->brief, word + 1) == 0) u->slot = k;
        for (size_t k = 0; k < a->count && u->slot == a->count; k++) { /* -n128 */
            const char *brief = a->slots[k].arg->brief;
            if (brief && !brief[1] && brief[0] == word[1] && a->slots[k].arg->type != NB_ARG_BOOL)
                u->slot = k, u->value = word + 2;
        }
        if (u->slot == a->count)
            return nb_fail(err, NB_ERR_ARGUMENT, "unknown flag '%s'; 'nibble %s --help=all' lists what there is", word,
                           a->command->name);
        if (u->value && *u->value == '=') u->value++;
    }
    const nb_arg *arg = a->slots[u->slot].arg;
    if (u->value || arg->type == NB_ARG_BOOL) return NB_OK;
    bool flag_next = *i + 1 < argc && argv[*i + 1][0] == '-' && argv[*i + 1][1] == '-' && argv[*i + 1][2];
    if (*i + 1 >= argc || flag_next)
        return nb_fail(err, NB_ERR_ARGUMENT, "%s needs a value%s%s%s", word, arg->metavar || arg->choices ? ": " : "",
                       arg->metavar ? arg->metavar : arg->choices ? arg->choices : "",
                       flag_next ? " (write --flag=value when the value begins with dashes)" : "");
    u->value = argv[++*i];
    return NB_OK;
}

/* The option that positional argument number `n` fills, or count.  A list takes all that remain. */
static size_t positional_slot(const nb_args *a, size_t n)
{
    for (size_t i = 0; i < a->count; i++)
        if (a->slots[i].arg->positional && (n-- == 0 || a->slots[i].arg->type == NB_ARG_STRINGS)) return i;
    return a->count;
}

static nb_status read_line(nb_args *a, int argc, char *const *argv, use *uses, size_t *count, nb_error *err)
{
    bool   flags = true;
    size_t positional = 0;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (flags && strcmp(word, "--") == 0) {
            flags = false;
        } else if (flags && word[0] == '-' && word[1]) {
            NB_TRY(read_flag(a, argc, argv, &i, &uses[*count], err));
            ++*count;
        } else {
            size_t s = positional_slot(a, positional++);
            if (s == a->count)
                return nb_fail(err, NB_ERR_ARGUMENT, "unexpected argument '%s'; usage: nibble %s %s", word, a->command->name,
                               a->command->usage);
            uses[(*count)++] = (use){.slot = s, .value = word, .written = NULL};
        }
    }
    return NB_OK;
}

static nb_status check_required(const nb_args *a, nb_error *err)
{
    for (size_t i = 0; i < a->count; i++) {
        const nb_arg *arg = a->slots[i].arg;
        if (!arg->required || a->slots[i].rank != RANK_DEFAULT) continue;
        return nb_fail(err, NB_ERR_ARGUMENT, "%s%s is missing; usage: nibble %s %s", arg->positional ? "" : "--",
                       arg->positional && arg->metavar ? arg->metavar : arg->name, a->command->name, a->command->usage);
    }
    return NB_OK;
}

static nb_status apply_all(nb_args *a, const use *uses, size_t used, nb_error *err)
{
    for (size_t i = 0; i < a->count; i++)
        if (a->slots[i].arg->text)
            NB_TRY(set(a, &a->slots[i], a->slots[i].arg->text, false, RANK_DEFAULT, a->slots[i].arg->name, err));

    const char *config = NULL;
    char        variable[80];
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->slots[i].arg->name, "config") == 0) config = environment_value(a->slots[i].arg, variable);
    for (size_t i = 0; i < used; i++)
        if (strcmp(a->slots[uses[i].slot].arg->name, "config") == 0) config = uses[i].value;
    if (config) NB_TRY(apply_config(a, config, err));

    for (size_t i = 0; i < a->count; i++) {
        const char *v = environment_value(a->slots[i].arg, variable);
        if (v) NB_TRY(set(a, &a->slots[i], v, false, RANK_ENVIRONMENT, variable, err));
    }
    for (size_t i = 0; i < used; i++) {
        slot *s = &a->slots[uses[i].slot];
        char  what[80];
        if (s->arg->positional)
            snprintf(what, sizeof what, "%s", s->arg->metavar ? s->arg->metavar : s->arg->name);
        else if (uses[i].written[1] == '-')
            snprintf(what, sizeof what, "%.*s", (int)strcspn(uses[i].written, "="), uses[i].written);
        else
            snprintf(what, sizeof what, "-%s", s->arg->brief);
        NB_TRY(set(a, s, uses[i].value ? uses[i].value : "true", uses[i].negated, RANK_FLAG, what, err));
    }
    return check_required(a, err);
}

static nb_args_wish wish_of(int argc, char *const *argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return NB_WANTS_HELP;
        if (strcmp(argv[i], "--help=all") == 0 || strcmp(argv[i], "--help-all") == 0) return NB_WANTS_HELP_ALL;
        if (strcmp(argv[i], "--version") == 0) return NB_WANTS_VERSION;
    }
    return NB_WANTS_RUN;
}

nb_status nb_args_parse(nb_args **out, const nb_command *command, void *options, int argc, char *const *argv, nb_error *err)
{
    nb_args  *a = NULL;
    use      *uses = NULL;
    size_t    used = 0, count = 0;
    nb_status s;
    *out = NULL;
    for (const nb_arg_block *b = command->blocks; b->args; b++) count += b->count;
    NB_TRY(nb_alloc(&a, 1, sizeof *a, "the command line", err));
    a->command = command;
    a->wish = wish_of(argc, argv);
    s = nb_alloc(&a->slots, count + 1, sizeof *a->slots, "the command line", err);
    if (s == NB_OK) s = nb_alloc(&uses, (size_t)argc + 1, sizeof *uses, "the command line", err);
    if (s == NB_OK) {
        for (const nb_arg_block *b = command->blocks; b->args; b++)
            for (size_t i = 0; i < b->count; i++)
                a->slots[a->count++] = (slot){.arg = &b->args[i], .common = b->args == nb_common_args,
                                              .field = (char *)options + b->offset + b->args[i].at};
        if (a->wish == NB_WANTS_RUN) s = read_line(a, argc, argv, uses, &used, err);
    }
    if (s == NB_OK && a->wish == NB_WANTS_RUN) s = apply_all(a, uses, used, err);
    free(uses);
    if (s != NB_OK) return nb_args_free(a), s;
    *out = a;
    return NB_OK;
}

void nb_args_free(nb_args *a)
{
    if (!a) return;
    for (size_t i = 0; i < a->count; i++) {
        if (a->slots[i].arg->type == NB_ARG_STRINGS) {
            nb_strings *list = (nb_strings *)a->slots[i].field;
            free(list->items);
            *list = (nb_strings){0};
        } else if (a->slots[i].arg->type == NB_ARG_INTS) {
            nb_ints *list = (nb_ints *)a->slots[i].field;
            free(list->items);
            *list = (nb_ints){0};
        }
    }
    for (size_t i = 0; i < a->owned_count; i++) free(a->owned[i]);
    free(a->owned);
    free(a->slots);
    free(a);
}

/* ---- questions --------------------------------------------------------------------------------------------------- */

static slot *find_exact(const nb_args *a, const char *name)
{
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->slots[i].arg->name, name) == 0) return &a->slots[i];
    abort(); /* a name that is not in the command's own table */
}

nb_arg_source nb_args_source(const nb_args *a, const char *name)
{
    switch (find_exact(a, name)->rank) {
    case RANK_DEFAULT: return NB_FROM_DEFAULT;
    case RANK_ENVIRONMENT: return NB_FROM_ENVIRONMENT;
    case RANK_FLAG: return NB_FROM_FLAG;
    default: return NB_FROM_CONFIG;
    }
}

nb_args_wish nb_args_wants(const nb_args *a)
{
    return a->wish;
}

nb_status nb_args_suggest(nb_args *a, const char *name, const char *value, const char *where, nb_error *err)
{
    slot *s = find_exact(a, name);
    if (s->rank > RANK_SUGGESTED) return NB_OK;
    return set(a, s, value, false, RANK_SUGGESTED, where, err);
}

const char *nb_args_choice(const nb_args *a, const char *name, char out[40])
{
    const slot *s = find_exact(a, name);
    const char *c = s->arg->choices;
    for (int i = 0; i < *(const int *)s->field; i++) c += strcspn(c, "|") + 1;
    snprintf(out, 40, "%.*s", (int)strcspn(c, "|"), c);
    return out;
}

static void value_json(const nb_args *a, const slot *s, nb_buf *out)
{
    switch (s->arg->type) {
    case NB_ARG_BOOL: nb_buf_str(out, *(const bool *)s->field ? "true" : "false"); break;
    case NB_ARG_INT: nb_buf_printf(out, "%lld", (long long)*(const int64_t *)s->field); break;
    case NB_ARG_SIZE: nb_buf_printf(out, "%llu", (unsigned long long)*(const uint64_t *)s->field); break;
    case NB_ARG_NUMBER: nb_buf_json_number(out, *(const double *)s->field); break;
    case NB_ARG_STRING: {
        const char *text = *(const char *const *)s->field;
        nb_buf_json_string(out, text, strlen(text));
        break;
    }
    case NB_ARG_CHOICE: {
        char        word[40];
        const char *text = nb_args_choice(a, s->arg->name, word);
        if (strspn(text, "0123456789") == strlen(text)) nb_buf_str(out, text); /* "bits": 4 */
        else nb_buf_json_string(out, text, strlen(text));
        break;
    }
    case NB_ARG_STRINGS: {
        const nb_strings *list = (const nb_strings *)s->field;
        nb_buf_char(out, '[');
        for (int i = 0; i < list->count; i++) {
            if (i) nb_buf_str(out, ", ");
            nb_buf_json_string(out, list->items[i], strlen(list->items[i]));
        }
        nb_buf_char(out, ']');
        break;
    }
    case NB_ARG_INTS: {
        const nb_ints *list = (const nb_ints *)s->field;
        nb_buf_char(out, '[');
        for (int i = 0; i < list->count; i++) nb_buf_printf(out, "%s%lld", i ? ", " : "", (long long)list->items[i]);
        nb_buf_char(out, ']');
        break;
    }
    }
}

static void options_json(const nb_args *a, bool transient, const char *const *without, size_t count, nb_buf *out)
{
    bool first = true;
    nb_buf_char(out, '{');
    for (size_t i = 0; i < a->count; i++) {
        const slot *s = &a->slots[i];
        bool        left_out = s->common || (s->arg->transient && !transient) || (s->rank == RANK_DEFAULT && !s->arg->text);
        for (size_t k = 0; k < count && !left_out; k++) left_out = !strcmp(s->arg->name, without[k]);
        if (left_out) continue;
        char key[64];
        snprintf(key, sizeof key, "%s", s->arg->name);
        for (char *c = key; *c; c++)
            if (*c == '-') *c = '_';
        nb_buf_printf(out, "%s\n    \"%s\": ", first ? "" : ",", key);
        value_json(a, s, out);
        first = false;
    }
    nb_buf_str(out, first ? "}" : "\n  }");
}

void nb_args_json(const nb_args *a, nb_buf *out)
{
    options_json(a, false, NULL, 0, out);
}

void nb_args_json_all(const nb_args *a, const char *const *without, size_t count, nb_buf *out)
{
    options_json(a, true, without, count, out);
}
