/* side_files.c - the JSON files beside the weights, and the chat template.
 *
 * Each file becomes a sorted list of paths and values; spellings that mean the same are brought to one first, and a key that only
 * one side has is compared with the default that loaders take when it is missing.  Where values come from (versions, the options
 * of the quantizer) is told but does not count. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"
#include "tools/compare/diff.h"

typedef struct {
    const char *path, *value;
} known;

/* What transformers takes when a key is missing (4.57's classes). */
static const known config_defaults[] = {
    {"attention_dropout", "0"},
    {"hidden_act", "\"silu\""},
    {"initializer_range", "0.02"},
    {"use_cache", "true"},
    {"use_sliding_window", "false"},
    {"sliding_window", "4096"},
    {"tie_word_embeddings", "false"},
    {"rope_scaling.type", "\"mrope\""},
    {"video_token_id", "151656"},
    {"image_token_id", "151655"},
    {"vision_config.depth", "32"},
    {"vision_config.embed_dim", "1280"},
    {"vision_config.hidden_act", "\"quick_gelu\""},
    {"vision_config.in_channels", "3"},
    {"vision_config.in_chans", "3"},
    {"vision_config.initializer_range", "0.02"},
    {"vision_config.mlp_ratio", "4"},
    {"vision_config.num_heads", "16"},
    {"vision_config.patch_size", "14"},
    {"vision_config.spatial_merge_size", "2"},
    {"vision_config.spatial_patch_size", "14"},
    {"vision_config.temporal_patch_size", "2"},
    {"vision_config.model_type", "\"qwen2_vl\""},
    {"quantization_config.checkpoint_format", "\"gptq\""},
    {"quantization_config.sym", "true"},
    {"quantization_config.desc_act", "false"},
    {"quantization_config.lm_head", "false"},
};
static const known generation_defaults[] = {
    {"do_sample", "false"}, {"temperature", "1"},        {"top_p", "1"},
    {"top_k", "50"},        {"repetition_penalty", "1"}, {"use_cache", "true"},
};
static const known processor_defaults[] = {
    {"min_pixels", "3136"},
    {"max_pixels", "12845056"},
    {"patch_size", "14"},
    {"temporal_patch_size", "2"},
    {"merge_size", "2"},
    {"do_resize", "true"},
    {"do_rescale", "true"},
    {"do_normalize", "true"},
    {"do_convert_rgb", "true"},
    {"resample", "3"},
    {"rescale_factor", "0.00392156862745098"},
    {"image_mean[0]", "0.48145466"},
    {"image_mean[1]", "0.4578275"},
    {"image_mean[2]", "0.40821073"},
    {"image_std[0]", "0.26862954"},
    {"image_std[1]", "0.26130258"},
    {"image_std[2]", "0.27577711"},
    {"image_processor_type", "\"Qwen2VLImageProcessor\""},
    {"processor_class", "\"Qwen2VLProcessor\""},
};

/* Keys that say where a file comes from. */
static const char *const provenance[] = {
    "transformers_version",
    "text_config.model_type",
    "_name_or_path",
    "_from_model_config",
    "_commit_hash",
    "auto_map",
    "quantization_config.meta",
    "quantization_config.damp_percent",
    "quantization_config.true_sequential",
    "quantization_config.static_groups",
    "quantization_config.dataset",
    "quantization_config.quantizer",
};

/* Two spellings of one key: the first becomes the second. */
static const known aliases[] = {
    {"dtype", "torch_dtype"},
    {"vision_config.dtype", "vision_config.torch_dtype"},
    {"rope_scaling.rope_type", "rope_scaling.type"},
    {"rope_parameters.rope_type", "rope_scaling.type"},
    {"rope_parameters.type", "rope_scaling.type"},
    {"rope_parameters.rope_theta", "rope_theta"},
    {"rope_scaling.rope_theta", "rope_theta"},
    {"quantization_config.w_bit", "quantization_config.bits"},
    {"quantization_config.q_group_size", "quantization_config.group_size"},
    {"quantization_config.format", "quantization_config.checkpoint_format"},
    {"quantization_config.method", "quantization_config.quant_method"},
    {"size.shortest_edge", "min_pixels"},
    {"size.longest_edge", "max_pixels"},
    {"size.min_pixels", "min_pixels"},
    {"size.max_pixels", "max_pixels"},
};

/* ---- spellings --------------------------------------------------------------------------------------------------------------- */

static bool rename_to(nb_leaf *leaf, const char *to, const char *rest)
{
    nb_buf made = {0};
    nb_buf_printf(&made, "%s%s", to, rest);
    if (made.failed || !made.data) {
        nb_buf_free(&made);
        return false;
    }
    free(leaf->path);
    leaf->path = made.data;
    return true;
}

/* compressed-tensors has a format of its own, which is not GPTQ's checkpoint_format. */
static bool is_compressed(const nb_leaves *l)
{
    for (size_t i = 0; i < l->count; i++)
        if (!strcmp(l->items[i].path, "quantization_config.quant_method"))
            return !strcmp(l->items[i].value, "\"compressed-tensors\"");
    return false;
}

/* One spelling for each meaning.  Of two leaves that are one now the nested one counts, as in transformers. */
static nb_status normalize(nb_leaves *l, nb_error *err)
{
    bool   compressed = is_compressed(l);
    size_t kept = 0;
    for (size_t i = 0; i < l->count; i++) {
        nb_leaf *leaf = &l->items[i];
        bool     good = true;
        leaf->rank = strncmp(leaf->path, "text_config.", 12) ? 1 : 0;
        if (leaf->rank == 0)
            good = rename_to(leaf, !strcmp(leaf->path, "text_config.model_type") ? "text_config." : "", leaf->path + 12);
        for (size_t j = 0; j < NB_COUNT(aliases) && good; j++)
            if (!strcmp(leaf->path, aliases[j].path) && !(compressed && strstr(leaf->path, ".format")))
                good = rename_to(leaf, aliases[j].value, "");
        if (good && !strncmp(leaf->path, "rope_parameters.", 16)) good = rename_to(leaf, "rope_scaling.", leaf->path + 16);
        if (good && !strcmp(leaf->path, "rope_scaling.type") && !strcmp(leaf->value, "\"default\"")) {
            free(leaf->value);
            leaf->value = nb_strdup("\"mrope\"");
            good = leaf->value != NULL;
        }
        if (!good) return nb_fail(err, NB_ERR_MEMORY, "out of memory for JSON values");
    }
    nb_leaves_sort(l);
    for (size_t i = 0; i < l->count; i++) {
        if (kept && !strcmp(l->items[kept - 1].path, l->items[i].path)) {
            free(l->items[i].path);
            free(l->items[i].value);
        } else {
            l->items[kept++] = l->items[i];
        }
    }
    l->count = kept;
    return NB_OK;
}

/* ---- comparing --------------------------------------------------------------------------------------------------------------- */

static bool from_elsewhere(const char *path)
{
    for (size_t i = 0; i < NB_COUNT(provenance); i++) {
        size_t n = strlen(provenance[i]);
        if (!strncmp(path, provenance[i], n) && (!path[n] || path[n] == '.' || path[n] == '[')) return true;
    }
    return false;
}

static bool same_value(const char *a, const char *b)
{
    if (!strcmp(a, b)) return true;
    char  *end_a, *end_b;
    double x = strtod(a, &end_a), y = strtod(b, &end_b);
    return end_a != a && end_b != b && !*end_a && !*end_b && x == y; /* 0.0 and 0 */
}

static void compare_leaves(nb_diff *d, const char *part, const nb_leaves *a, const nb_leaves *b, const known *defaults,
                           size_t default_count)
{
    size_t i = 0, j = 0;
    while (i < a->count || j < b->count) {
        const nb_leaf *x = i < a->count ? &a->items[i] : NULL, *y = j < b->count ? &b->items[j] : NULL;
        int            order = !x ? 1 : !y ? -1 : strcmp(x->path, y->path);
        const char    *path = order <= 0 ? x->path : y->path, *left = order <= 0 ? x->value : NULL,
                   *right = order >= 0 ? y->value : NULL;
        const char *note = NULL;
        i += order <= 0;
        j += order >= 0;
        if (left && right && same_value(left, right)) continue;
        if (from_elsewhere(path)) note = "says where the file comes from";
        for (size_t k = 0; k < default_count && !note && (!left || !right); k++)
            if (!strcmp(defaults[k].path, path) && same_value(defaults[k].value, left ? left : right))
                note = "is the default where it is missing";
        nb_diff_add(d, part, path, left, right, note);
    }
}

static nb_status diff_file(nb_diff *d, const char *part, const char *name, const char *a, const char *b, const known *defaults,
                           size_t default_count, const char *without, nb_error *err)
{
    cJSON    *one = NULL, *two = NULL;
    nb_leaves x = {0}, y = {0};
    nb_status s = nb_diff_read(&one, a, name, err);
    if (s == NB_OK) s = nb_diff_read(&two, b, name, err);
    if (s == NB_OK && (!one) != (!two)) {
        nb_diff_add(d, part, name, one ? "there" : NULL, two ? "there" : NULL, NULL);
    } else if (s == NB_OK && one) {
        if (without)
            cJSON_DeleteItemFromObjectCaseSensitive(one, without), cJSON_DeleteItemFromObjectCaseSensitive(two, without);
        s = nb_flatten(&x, one, err);
        if (s == NB_OK) s = nb_flatten(&y, two, err);
        if (s == NB_OK) s = normalize(&x, err);
        if (s == NB_OK) s = normalize(&y, err);
        if (s == NB_OK) compare_leaves(d, part, &x, &y, defaults, default_count);
    }
    cJSON_Delete(one);
    cJSON_Delete(two);
    nb_leaves_free(&x);
    nb_leaves_free(&y);
    return s;
}

/* ---- the template ------------------------------------------------------------------------------------------------------------ */

static nb_status read_template(nb_buf *out, const char *directory, nb_error *err)
{
    static const char *const places[] = {"chat_template.json", "tokenizer_config.json"};
    char                    *path = nb_path_join(directory, "chat_template.jinja");
    nb_status                s = path ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", directory);
    if (s == NB_OK && nb_file_exists(path)) s = nb_file_read(out, path, 1 << 20, err);
    free(path);
    for (size_t i = 0; i < NB_COUNT(places) && s == NB_OK && !out->size; i++) {
        cJSON *tree;
        s = nb_diff_read(&tree, directory, places[i], err);
        const char *text = tree ? cJSON_GetStringValue(nb_json_find(tree, "chat_template")) : NULL;
        if (text) nb_buf_str(out, text);
        cJSON_Delete(tree);
    }
    while (out->size && out->data[out->size - 1] == '\n')
        out->data[--out->size] = 0; /* files end with a line, strings do not */
    return s;
}

/* The line in which two texts part, cut to what a table can show. */
static void line_at(char out[80], const char *text, size_t at)
{
    size_t start = at;
    while (start > 0 && text[start - 1] != '\n') start--;
    snprintf(out, 80, "%.*s", (int)(strcspn(text + start, "\n") < 79 ? strcspn(text + start, "\n") : 79), text + start);
}

static nb_status diff_template(nb_diff *d, const char *a, const char *b, nb_error *err)
{
    nb_buf    x = {0}, y = {0};
    nb_status s = read_template(&x, a, err);
    if (s == NB_OK) s = read_template(&y, b, err);
    const char *one = x.data ? x.data : "", *two = y.data ? y.data : "";
    if (s == NB_OK && strcmp(one, two)) {
        char   left[80], right[80], where[40];
        size_t at = 0, line = 1;
        while (one[at] && one[at] == two[at]) line += one[at++] == '\n';
        line_at(left, one, at);
        line_at(right, two, at);
        snprintf(where, sizeof where, "line %zu", line);
        nb_diff_add(d, "template", where, *one ? left : NULL, *two ? right : NULL, NULL);
    }
    nb_buf_free(&x);
    nb_buf_free(&y);
    return s;
}

nb_status nb_diff_side_files(nb_diff *d, const char *a, const char *b, nb_error *err)
{
    NB_TRY(diff_file(d, "config", "config.json", a, b, config_defaults, NB_COUNT(config_defaults), NULL, err));
    NB_TRY(diff_file(d, "generation", "generation_config.json", a, b, generation_defaults, NB_COUNT(generation_defaults), NULL,
                     err));
    NB_TRY(diff_file(d, "processor", "preprocessor_config.json", a, b, processor_defaults, NB_COUNT(processor_defaults), NULL,
                     err));
    NB_TRY(diff_file(d, "processor", "video_preprocessor_config.json", a, b, processor_defaults, NB_COUNT(processor_defaults),
                     NULL, err));
    NB_TRY(diff_file(d, "tokenizer", "tokenizer_config.json", a, b, NULL, 0, "chat_template", err));
    return diff_template(d, a, b, err);
}
