/* data_source.c - see data_source.h. */
#include "tools/data_source.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"
#include "tools/builtin/builtin.h"

enum { MOST_WEIGHT = 1000000 };

static nb_status add_word(nb_data_sources *out, const char *word, const char *flag, nb_error *err)
{
    const char     *colon = strrchr(word, ':');
    nb_data_source *s = &out->items[out->count];
    nb_error        ignored;
    bool            exists = nb_file_exists(word) || nb_is_directory(word);
    double          weight = 1;
    bool            weighted = colon && colon > word && !exists &&
                               nb_parse_number(&weight, colon + 1, -1e300, 1e300, flag, &ignored) == NB_OK;
    if (weighted && !(weight > 0 && weight <= MOST_WEIGHT))
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: the weight of '%s' must be above 0 and at most %d; leave a file out that is not wanted",
                       flag, word, MOST_WEIGHT);
    char *path = weighted ? strndup(word, (size_t)(colon - word)) : nb_strdup(word);
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", flag);
    *s = (nb_data_source){.path = path, .weight = weighted ? weight : 1};
    out->weighted = out->weighted || weighted;
    out->count++;
    return NB_OK;
}

nb_status nb_data_sources_add(nb_data_sources *out, const nb_strings *words, const char *flag, nb_error *err)
{
    size_t capacity = out->count;
    NB_TRY(nb_grow(&out->items, &capacity, out->count + (size_t)words->count + 1, sizeof *out->items, flag, err));
    for (int i = 0; i < words->count; i++) NB_TRY(add_word(out, words->items[i], flag, err));
    return NB_OK;
}

nb_status nb_data_sources_add_builtin(nb_data_sources *out, nb_error *err)
{
    size_t capacity = out->count;
    char  *name = nb_strdup(NB_BUILTIN_NAME);
    if (!name) return nb_fail(err, NB_ERR_MEMORY, "--builtin-data: out of memory");
    nb_status status = nb_grow(&out->items, &capacity, out->count + 1, sizeof *out->items, "--builtin-data", err);
    if (status) {
        free(name);
        return status;
    }
    out->items[out->count++] = (nb_data_source){.path = name, .weight = 1, .bytes = nb_builtin_chats, .size = nb_builtin_chats_size};
    return NB_OK;
}

void nb_data_sources_free(nb_data_sources *s)
{
    for (size_t i = 0; i < s->count; i++) free((char *)s->items[i].path);
    free(s->items);
    memset(s, 0, sizeof *s);
}

nb_status nb_data_sources_check(const nb_data_sources *s, int64_t samples, nb_error *err)
{
    bool equal = true;
    for (size_t i = 1; i < s->count; i++) equal = equal && s->items[i].weight == s->items[0].weight;
    if (equal || samples) return NB_OK;
    return nb_fail(err, NB_ERR_ARGUMENT, "weights of data files share out --samples, but --samples 0 takes every row; give a number, "
                   "or no weights");
}
