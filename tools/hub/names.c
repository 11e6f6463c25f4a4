/* names.c - which names of files a hub may choose. */
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/utf8.h"
#include "tools/hub/hub.h"

enum { MAX_NAME = 512, MAX_PART = 200 };

static const char *fault_of(const char *name)
{
    size_t n = strlen(name);
    if (n == 0) return "is empty";
    if (n > MAX_NAME) return "is too long";
    if (name[0] == '/') return "is absolute";
    if (n >= 5 && !strcmp(name + n - 5, ".part")) return "ends with .part, as an unfinished download does";
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] < 32 || name[i] == 127 || name[i] == '\\') return "holds a control character or a backslash";
    for (const char *part = name;;) {
        size_t length = strcspn(part, "/");
        if (length == 0) return "has an empty part";
        if (length > MAX_PART) return "has a part that is too long";
        if ((length == 1 && part[0] == '.') || (length == 2 && !strncmp(part, "..", 2))) return "leads out of its folder";
        if (!part[length]) return NULL;
        part += length + 1;
    }
}

nb_status nb_hub_check_name(const char *name, const char *where, nb_error *err)
{
    const char *fault = fault_of(name);
    if (!fault && !nb_utf8_valid(name, strlen(name))) fault = "is not UTF-8";
    if (!fault) return NB_OK;
    return nb_fail(err, NB_ERR_INPUT, "%s: refused, because the name '%.200s' of a file %s", where, name, fault);
}

static bool matches_any(const char *name, const char *const *patterns, int count)
{
    for (int i = 0; i < count; i++)
        if (fnmatch(patterns[i], name, 0) == 0) return true;
    return false;
}

void nb_hub_list_filter(nb_hub_list *list, const char *const *include, int includes, const char *const *exclude, int excludes)
{
    size_t kept = 0;
    for (size_t i = 0; i < list->count; i++) {
        nb_hub_file f = list->files[i];
        if ((includes == 0 || matches_any(f.name, include, includes)) && !matches_any(f.name, exclude, excludes))
            list->files[kept++] = f;
        else
            free(f.name);
    }
    list->count = kept;
}
