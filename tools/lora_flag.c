/* lora_flag.c - adapters named on a command line. */
#include "tools/lora_flag.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"

/* "DIR" or "DIR:SCALE"; a folder that really has such a name is one.  *directory is malloc'd. */
static nb_status parse_lora(const char **directory, double *scale, const char *text, nb_error *err)
{
    const char *colon = strrchr(text, ':');
    nb_error    ignored;
    *scale = 1;
    bool scaled = colon && colon > text && !nb_is_directory(text) &&
                  nb_parse_number(scale, colon + 1, -1e6, 1e6, "--lora", &ignored) == NB_OK;
    *directory = scaled ? strndup(text, (size_t)(colon - text)) : strdup(text);
    return *directory ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "--lora: out of memory");
}

void nb_lora_free(nb_lora *loras, int count)
{
    for (int i = 0; loras && i < count; i++) free((char *)loras[i].directory);
    free(loras);
}

nb_status nb_lora_parse(nb_lora **out, const nb_strings *texts, nb_error *err)
{
    nb_status s = nb_alloc(out, (size_t)texts->count, sizeof **out, "--lora", err);
    for (int i = 0; i < texts->count && s == NB_OK; i++)
        s = parse_lora(&(*out)[i].directory, &(*out)[i].scale, texts->items[i], err);
    return s;
}
