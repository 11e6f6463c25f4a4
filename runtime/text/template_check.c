/* template_check.c - whether a checkpoint's own chat template is the one that nibble renders.
 *
 * Templates are programs; nibble renders the published Qwen2-VL one itself and runs none from a file.  A fine-tune that was
 * trained with another template gets prompts it never saw, so the difference is said.  White space at the ends does not
 * count.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"
#include "runtime/io/json.h"
#include "runtime/text/chat.h"

/* FNV-1a 64 of the template published with Qwen2-VL-2B, 7B and 72B-Instruct. */
static const uint64_t published = 0x71242f76359e71e8ull;

static uint64_t hash(const char *s)
{
    size_t   n = strlen(s);
    uint64_t h = 14695981039346656037ull;
    while (n && isspace((unsigned char)s[n - 1])) n--;
    while (n && isspace((unsigned char)*s)) s++, n--;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 1099511628211ull;
    return h;
}

static nb_status look(bool *found, const char *directory, const char *file, nb_buf *notes, nb_error *err)
{
    cJSON *root = NULL;
    char  *path = nb_path_join(directory, file);
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "no memory for a path");
    nb_status    status = nb_file_exists(path) ? nb_json_file(&root, path, 16 << 20, err) : NB_OK;
    const cJSON *text = root ? nb_json_find(root, "chat_template") : NULL;
    *found = cJSON_IsString(text);
    if (*found && hash(text->valuestring) != published)
        nb_buf_printf(notes, "%s holds a chat template of its own; nibble renders prompts with the published Qwen2-VL template instead\n", file);
    cJSON_Delete(root);
    free(path);
    return status;
}

nb_status nb_template_check(const char *directory, nb_buf *notes, nb_error *err)
{
    static const char *const files[] = { "chat_template.json", "tokenizer_config.json" };
    bool                     found = false;
    for (size_t i = 0; i < NB_COUNT(files) && !found; i++) NB_TRY(look(&found, directory, files[i], notes, err));
    return NB_OK;
}
