/* listing.c - what files a repository has, from the hub's API.
 *
 *   hf          GET /api/models/REPO/revision/REV?blobs=true
 *               {"sha": COMMIT, "siblings": [{"rfilename", "size", "blobId", "lfs": {"sha256"}}]}
 *   modelscope  GET /api/v1/models/REPO/repo/files?Revision=REV&Recursive=true
 *               {"Code": 200, "Data": {"Files": [{"Path", "Type": "blob"|"tree", "Size", "Sha256"}]}}
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/json.h"
#include "tools/hub/hub.h"

enum { MAX_FILES = 100000 };

void nb_hub_list_free(nb_hub_list *list)
{
    for (size_t i = 0; i < list->count; i++) free(list->files[i].name);
    free(list->files);
    *list = (nb_hub_list){0};
}

/* Lower-case hex of exactly n digits, or false. */
static bool take_hex(char *out, const char *text, size_t n)
{
    if (strlen(text) != n || strspn(text, "0123456789abcdefABCDEF") != n) return false;
    for (size_t i = 0; i <= n; i++) out[i] = (char)tolower((unsigned char)text[i]);
    return true;
}

static bool is_hidden(const char *name)
{
    return name[0] == '.' || strstr(name, "/.");
}

/* sha256, git_id: NULL when the hub does not tell. */
static nb_status add_file(nb_hub_list *list, const char *name, double size, const char *sha256, const char *git_id,
                          const char *where, nb_error *err)
{
    nb_hub_file *f = &list->files[list->count];
    NB_TRY(nb_hub_check_name(name, where, err));
    if (is_hidden(name)) { /* .gitattributes and the like, which no model needs */
        list->hidden++;
        return NB_OK;
    }
    *f = (nb_hub_file){.size = (uint64_t)size};
    if (sha256) {
        f->kind = NB_DIGEST_SHA256;
        if (!take_hex(f->digest, sha256, 64))
            return nb_fail(err, NB_ERR_INPUT, "%s: the SHA-256 of '%.200s' is not 64 digits", where, name);
    } else if (git_id) {
        f->kind = NB_DIGEST_GIT;
        if (!take_hex(f->digest, git_id, 40))
            return nb_fail(err, NB_ERR_INPUT, "%s: the blobId of '%.200s' is not 40 digits", where, name);
    }
    f->name = nb_strdup(name);
    if (!f->name) return nb_fail(err, NB_ERR_MEMORY, "%s: no memory for its files", where);
    list->count++;
    return NB_OK;
}

static nb_status parse_hf(nb_hub_list *list, const cJSON *item, const char *where, nb_error *err)
{
    const char  *name, *git_id = NULL, *sha256 = NULL;
    double       size = 0;
    const cJSON *lfs = nb_json_find(item, "lfs");
    NB_TRY(nb_json_get_string(item, "rfilename", &name, where, err));
    NB_TRY(nb_json_get_number(item, "size", 0, 9e15, &size, where, err));
    NB_TRY(nb_json_opt_string(item, "blobId", &git_id, where, err));
    if (lfs) NB_TRY(nb_json_get_string(lfs, "sha256", &sha256, where, err));
    return add_file(list, name, size, sha256, git_id, where, err);
}

static nb_status parse_modelscope(nb_hub_list *list, const cJSON *item, const char *where, nb_error *err)
{
    const char *name, *type = "blob", *sha256 = NULL;
    double      size = 0;
    NB_TRY(nb_json_get_string(item, "Path", &name, where, err));
    NB_TRY(nb_json_opt_string(item, "Type", &type, where, err));
    if (!strcmp(type, "tree")) return NB_OK;
    NB_TRY(nb_json_get_number(item, "Size", 0, 9e15, &size, where, err));
    NB_TRY(nb_json_opt_string(item, "Sha256", &sha256, where, err));
    return add_file(list, name, size, sha256 && sha256[0] ? sha256 : NULL, NULL, where, err);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* No name twice, and none that is also the folder of another. */
static nb_status check_names(const nb_hub_list *list, const char *where, nb_error *err)
{
    const char **names;
    nb_status    status = nb_alloc(&names, list->count, sizeof *names, "names of files", err);
    if (status) return status;
    for (size_t i = 0; i < list->count; i++) names[i] = list->files[i].name;
    qsort(names, list->count, sizeof *names, compare_names);
    for (size_t i = 1; i < list->count && !status; i++)
        if (!strcmp(names[i - 1], names[i])) status = nb_fail(err, NB_ERR_INPUT, "%s: lists '%.200s' twice", where, names[i]);
    for (size_t i = 0; i < list->count && !status; i++) {
        char folder[600];
        snprintf(folder, sizeof folder, "%s", names[i]);
        for (char *slash = strrchr(folder, '/'); slash && !status; slash = strrchr(folder, '/')) {
            const char *key = folder;
            *slash = 0;
            if (bsearch(&key, names, list->count, sizeof *names, compare_names))
                status = nb_fail(err, NB_ERR_INPUT, "%s: '%.200s' is a file and a folder", where, folder);
        }
    }
    free(names);
    return status;
}

static nb_status parse_tree(nb_hub_list *out, nb_hub_kind kind, const cJSON *tree, const char *where, nb_error *err)
{
    const cJSON *item, *files;
    const char  *sha = NULL;
    bool         hf = kind == NB_HUB_HF;
    if (!cJSON_IsObject(tree)) return nb_fail(err, NB_ERR_INPUT, "%s: the hub's answer is not an object", where);
    if (hf) {
        NB_TRY(nb_json_opt_string(tree, "sha", &sha, where, err));
        if (sha && !take_hex(out->commit, sha, 40)) return nb_fail(err, NB_ERR_INPUT, "%s: sha is not a commit", where);
        files = nb_json_find(tree, "siblings");
    } else {
        int64_t code = 200;
        NB_TRY(nb_json_opt_int(tree, "Code", -1000000, 1000000, &code, where, err));
        if (code != 200) return nb_fail(err, NB_ERR_INPUT, "%s: the hub answers with code %lld", where, (long long)code);
        files = nb_json_find(nb_json_find(tree, "Data"), "Files");
    }
    if (!cJSON_IsArray(files)) return nb_fail(err, NB_ERR_INPUT, "%s: the hub's answer lists no files", where);
    int count = cJSON_GetArraySize(files);
    if (count > MAX_FILES) return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: has %d files, more than %d", where, count, MAX_FILES);
    NB_TRY(nb_alloc(&out->files, (size_t)count, sizeof *out->files, "a list of files", err));
    cJSON_ArrayForEach(item, files)
    {
        if (!cJSON_IsObject(item)) return nb_fail(err, NB_ERR_INPUT, "%s: the hub lists something that is not a file", where);
        NB_TRY((hf ? parse_hf : parse_modelscope)(out, item, where, err));
    }
    return check_names(out, where, err);
}

nb_status nb_hub_list_parse(nb_hub_list *out, nb_hub_kind kind, const char *json, size_t n, const char *where, nb_error *err)
{
    cJSON *tree;
    *out = (nb_hub_list){0};
    NB_TRY(nb_json_parse(&tree, json, n, where, err));
    nb_status status = parse_tree(out, kind, tree, where, err);
    cJSON_Delete(tree);
    if (status) nb_hub_list_free(out);
    return status;
}
