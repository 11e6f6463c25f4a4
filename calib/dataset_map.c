/* dataset_map.c - LLaMA-Factory's dataset_info.json: which entry describes a file, and what its columns are called.
 *
 * An entry belongs to the data file when its file_name, relative to the folder of dataset_info.json, is that very file
 * (same device and inode, so links and "./" do not matter), or what it was before it was packed as .gz or .zst.  Only what
 * says how a row reads is taken; download addresses, subsets and sampling are LLaMA-Factory's own business.
 */
#include "calib/dataset_row.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/io/file.h"

enum { INFO_LIMIT = 16 << 20 };

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Does file_name, seen from the folder of dataset_info.json, name the data? */
static nb_status names_data(bool *out, const char *folder, const char *file_name, const char *data, nb_error *err)
{
    static const char *const packed[] = {"", ".gz", ".zst"};
    *out = false;
    for (size_t i = 0; i < NB_COUNT(packed) && !*out; i++) {
        char *joined = nb_path_join(folder, file_name), *path = NULL;
        if (!joined || asprintf(&path, "%s%s", joined, packed[i]) < 0) {
            free(joined);
            return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", data);
        }
        *out = same_file(path, data);
        free(joined);
        free(path);
    }
    return NB_OK;
}

static nb_status find_entry(const cJSON **out, const cJSON *info, const char *info_path, const char *data, nb_error *err)
{
    char *folder = nb_path_folder(info_path);
    *out = NULL;
    if (!folder) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", info_path);
    nb_status status = NB_OK;
    for (const cJSON *e = info->child; e && !status; e = e->next) {
        const cJSON *file = cJSON_IsObject(e) ? nb_json_find(e, "file_name") : NULL;
        if (!cJSON_IsString(file)) continue;
        bool same;
        status = names_data(&same, folder, file->valuestring, data, err);
        if (!status && same && *out)
            status = nb_fail(err, NB_ERR_INPUT, "%s: both '%s' and '%s' describe %s; keep one of them in a copy of the file",
                             info_path, (*out)->string, e->string, data);
        if (!status && same) *out = e;
    }
    free(folder);
    return status;
}

/* Preference data has two answers a row, or a thumb up or down: there is no one conversation to run. */
static nb_status refuse_preference(const cJSON *entry, const cJSON *columns, const char *where, nb_error *err)
{
    bool ranking = false;
    NB_TRY(nb_json_opt_bool(entry, "ranking", &ranking, where, err));
    const char *const preference[] = {"chosen", "rejected", "kto_tag"};
    for (size_t i = 0; i < NB_COUNT(preference) && !ranking; i++) ranking = columns && nb_json_find(columns, preference[i]);
    if (ranking)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: this is preference data (ranking or KTO); give supervised conversations",
                       where);
    return NB_OK;
}

static nb_status read_formatting(nb_data_form *form, const cJSON *entry, const char *where, nb_error *err)
{
    const char *formatting = "alpaca"; /* LLaMA-Factory's default */
    NB_TRY(nb_json_opt_string(entry, "formatting", &formatting, where, err));
    if (strcmp(formatting, "alpaca") && strcmp(formatting, "sharegpt") && strcmp(formatting, "openai"))
        return nb_fail(err, NB_ERR_INPUT, "%s.formatting: '%s' is not one of alpaca, sharegpt, openai", where, formatting);
    *form = formatting[0] == 'a' ? NB_DATA_ALPACA : formatting[0] == 's' ? NB_DATA_SHAREGPT : NB_DATA_OPENAI;
    return NB_OK;
}

/* What the columns and tags are called where the entry is silent.  columns: the entry names some. */
static void default_names(nb_row_map *out, nb_data_form form, bool columns)
{
    bool sharegpt = form == NB_DATA_SHAREGPT;
    out->messages = sharegpt ? "conversations" : "messages";
    out->role = sharegpt ? "from" : "role";
    out->content = sharegpt ? "value" : "content";
    out->user = sharegpt ? "human" : "user";
    out->assistant = sharegpt ? "gpt" : "assistant";
    out->observation = sharegpt ? "observation" : "tool";
    out->function = "function_call";
    out->system_role = "system";
    if (form != NB_DATA_ALPACA || columns) return; /* alpaca: once one column is named, the others do not exist */
    out->prompt = "instruction";
    out->query = "input";
    out->response = "output";
}

static nb_status read_entry(nb_row_map *out, nb_data_form *form, const cJSON *entry, const char *info_path, nb_error *err)
{
    char where[512], at[600];
    snprintf(where, sizeof where, "%.300s: %.100s", info_path, entry->string);
    const cJSON *columns = nb_json_find(entry, "columns"), *tags = nb_json_find(entry, "tags");
    if (columns && !cJSON_IsObject(columns)) return nb_fail(err, NB_ERR_INPUT, "%s.columns: expected an object", where);
    if (tags && !cJSON_IsObject(tags)) return nb_fail(err, NB_ERR_INPUT, "%s.tags: expected an object", where);
    NB_TRY(refuse_preference(entry, columns, where, err));
    NB_TRY(read_formatting(form, entry, where, err));

    default_names(out, *form, columns != NULL);
    const struct { const char *key; const char **name; } column[] = {
        {"messages", &out->messages}, {"system", &out->system}, {"tools", &out->tools},
        {"images", &out->images}, {"videos", &out->videos}, {"audios", &out->audios},
        {"prompt", &out->prompt}, {"query", &out->query}, {"response", &out->response}, {"history", &out->history},
    }, tag[] = {
        {"role_tag", &out->role}, {"content_tag", &out->content}, {"user_tag", &out->user}, {"assistant_tag", &out->assistant},
        {"observation_tag", &out->observation}, {"function_tag", &out->function}, {"system_tag", &out->system_role},
    };
    snprintf(at, sizeof at, "%s.columns", where);
    for (size_t i = 0; i < NB_COUNT(column) && columns; i++)
        NB_TRY(nb_json_opt_string(columns, column[i].key, column[i].name, at, err));
    snprintf(at, sizeof at, "%s.tags", where);
    for (size_t i = 0; i < NB_COUNT(tag) && tags && *form != NB_DATA_ALPACA; i++)
        NB_TRY(nb_json_opt_string(tags, tag[i].key, tag[i].name, at, err));
    bool document = !out->response && !out->query && !out->history; /* for pre-training */
    if (*form == NB_DATA_ALPACA && document) *form = NB_DATA_TEXT;
    if (*form == NB_DATA_TEXT && !out->prompt)
        return nb_fail(err, NB_ERR_INPUT, "%s: is in the alpaca form (the default), but columns names neither a prompt nor a response; "
                       "set \"formatting\": \"sharegpt\" if the rows hold messages", where);
    return NB_OK;
}

void nb_row_map_free(nb_row_map *map)
{
    cJSON_Delete(map->info);
    memset(map, 0, sizeof *map);
}

nb_status nb_row_map_read(nb_row_map *out, bool *found, nb_data_form *form, const char *info, const char *data, nb_error *err)
{
    memset(out, 0, sizeof *out);
    *found = false;
    nb_status status = nb_json_file(&out->info, info, INFO_LIMIT, err);
    const cJSON *entry = NULL;
    if (!status && !cJSON_IsObject(out->info))
        status = nb_fail(err, NB_ERR_INPUT, "%s: expected an object of data set descriptions", info);
    if (!status) status = find_entry(&entry, out->info, info, data, err);
    if (!status && entry) status = read_entry(out, form, entry, info, err);
    *found = !status && entry;
    if (!*found) nb_row_map_free(out);
    return status;
}
