/* adapter_config.c - reading adapter_config.json.
 *
 * Two things decide: the scale of B A, and whether B A is the whole change.  PEFT has kinds of LoRA where it is not (PiSSA and
 * its relatives move a part of the base into the adapter, aLoRA acts on some tokens only); their merged weights would be
 * silently wrong, so they are refused.
 *
 * The keys of rank_pattern and alpha_pattern are regular expressions of Python, matched as (.*\.)?(KEY)$.  Nearly all are plain
 * suffixes and are compared as text; what POSIX expressions share with Python's is compiled, the rest is refused. */
#include "runtime/io/adapter_config.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"

enum { MAX_CONFIG = 16 << 20, MAX_EXPRESSIONS = 256, MAX_EXPRESSION = 256, MAX_RANK = 65536 };

/* ---- patterns -------------------------------------------------------------------------------------------------------- */

static void free_patterns(nb_module_patterns *p)
{
    for (size_t i = 0; i < p->count; i++) {
        if (p->items[i].text && !p->items[i].plain) regfree(&p->items[i].regex);
        free(p->items[i].text);
    }
    free(p->items);
    *p = (nb_module_patterns){0};
}

static bool is_plain(const char *key)
{
    for (; *key; key++)
        if (!isalnum((unsigned char)*key) && *key != '_' && *key != '.') return false;
    return true;
}

/* KEY in the syntax of POSIX; false when it uses something that differs there: {}, lookaround, lazy and possessive
 * repetition, back references, classes within brackets. */
static bool translate(nb_buf *out, const char *key)
{
    bool brackets = false;
    nb_buf_str(out, "^(.*\\.)?(");
    for (const char *c = key; *c; c++) {
        unsigned char next = (unsigned char)c[1];
        if (*c == '{') return false;
        if (*c == '\\') {
            if (!next || (isalnum(next) && (brackets || !strchr("dwWsSbB", next)))) return false;
            if (next == 'd') nb_buf_str(out, "[0-9]");
            else if (brackets) nb_buf_char(out, (char)next);
            else nb_buf_add(out, c, 2);
            c++;
            continue;
        }
        if (!brackets && strchr("*+?", *c) && next && strchr("*+?", next)) return false;
        if (!brackets && *c == '(' && next == '?') {
            if (c[2] != ':') return false;
            nb_buf_char(out, '(');
            c += 2;
            continue;
        }
        if (*c == '[' && !brackets) brackets = true;
        else if (*c == ']') brackets = false;
        nb_buf_char(out, *c);
    }
    nb_buf_str(out, ")$");
    return true;
}

static nb_status add_pattern(nb_module_patterns *p, const cJSON *item, double min, double max, const char *where, nb_error *err)
{
    const char        *key = item->string;
    nb_module_pattern *new = &p->items[p->count];
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= min && item->valuedouble <= max))
        return nb_fail(err, NB_ERR_INPUT, "%s: '%.200s' is not a number from %g to %g", where, key, min, max);
    new->value = item->valuedouble;
    new->plain = is_plain(key);
    if (!new->plain) {
        nb_buf posix = {0};
        bool   good = strlen(key) <= MAX_EXPRESSION && translate(&posix, key) && !posix.failed &&
                    regcomp(&new->regex, posix.data, REG_EXTENDED | REG_NOSUB) == 0;
        nb_buf_free(&posix);
        if (!good)
            return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: '%.200s' is a regular expression that nibble does not know; write the "
                           "names of the modules instead", where, key);
    }
    new->text = nb_strdup(key);
    if (!new->text) {
        if (!new->plain) regfree(&new->regex);
        return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", where);
    }
    p->count++;
    return NB_OK;
}

static nb_status read_patterns(nb_module_patterns *p, const cJSON *config, const char *key, double min, double max,
                               const char *path, nb_error *err)
{
    const cJSON *object = nb_json_find(config, key), *item;
    size_t       expressions = 0, count = 0;
    char         where[700];
    snprintf(where, sizeof where, "%.600s: %s", path, key);
    if (!object) return NB_OK;
    if (!cJSON_IsObject(object)) return nb_fail(err, NB_ERR_INPUT, "%s: is not an object", where);
    cJSON_ArrayForEach(item, object)
    {
        count++;
        expressions += !is_plain(item->string);
    }
    if (expressions > MAX_EXPRESSIONS)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: more than %d regular expressions", where, MAX_EXPRESSIONS);
    NB_TRY(nb_alloc(&p->items, count, sizeof *p->items, key, err));
    cJSON_ArrayForEach(item, object) NB_TRY(add_pattern(p, item, min, max, where, err));
    return NB_OK;
}

static bool matches(const nb_module_pattern *p, const char *module)
{
    if (!p->plain) return regexec(&p->regex, module, 0, NULL, 0) == 0;
    size_t n = strlen(module), m = strlen(p->text);
    return n >= m && !strcmp(module + n - m, p->text) && (n == m || module[n - m - 1] == '.');
}

static double lookup(const nb_module_patterns *p, const char *module, double otherwise)
{
    for (size_t i = 0; i < p->count; i++)
        if (matches(&p->items[i], module)) return p->items[i].value;
    return otherwise;
}

double nb_adapter_alpha(const nb_adapter_config *c, const char *module)
{
    return lookup(&c->alphas, module, c->alpha);
}

double nb_adapter_rank(const nb_adapter_config *c, const char *module)
{
    return lookup(&c->ranks, module, c->rank);
}

/* ---- the file -------------------------------------------------------------------------------------------------------- */

/* Settings under which B A is not the whole change, or not a change of the base's tensors. */
static nb_status check_kind(const cJSON *config, const char *path, nb_error *err)
{
    static const char *const unknown[] = {"layer_replication", "alora_invocation_tokens", "alora_invocation_string", "arrow_config",
                                          "trainable_token_indices", "target_parameters", "use_bdlora", "kasa_config",
                                          "monteclora_config"};
    const char *type = NULL, *bias = "none";
    bool        fan_in_fan_out = false, qalora = false;
    NB_TRY(nb_json_get_string(config, "peft_type", &type, path, err));
    if (strcmp(type, "LORA"))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: peft_type is '%.40s'; only LORA adapters can be merged", path, type);
    NB_TRY(nb_json_opt_bool(config, "fan_in_fan_out", &fan_in_fan_out, path, err));
    if (fan_in_fan_out)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: fan_in_fan_out is true; no layer of a Qwen2-VL is stored that way", path);
    NB_TRY(nb_json_opt_bool(config, "use_qalora", &qalora, path, err));
    if (qalora) return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: use_qalora is not supported", path);
    NB_TRY(nb_json_opt_string(config, "bias", &bias, path, err));
    if (strcmp(bias, "none") && strcmp(bias, "all") && strcmp(bias, "lora_only"))
        return nb_fail(err, NB_ERR_INPUT, "%s: bias is '%.40s', expected none, all or lora_only", path, bias);
    for (size_t i = 0; i < NB_COUNT(unknown); i++) {
        const cJSON *v = nb_json_find(config, unknown[i]);
        if (v && !cJSON_IsFalse(v) && !((cJSON_IsArray(v) || cJSON_IsObject(v)) && !v->child))
            return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: %s is not supported; merge this adapter with PEFT", path, unknown[i]);
    }
    /* These initialisations leave the base's own weights changed; PEFT sets true once an adapter has been converted. */
    static const char *const harmless[] = {"gaussian", "eva", "orthogonal"};
    const cJSON *init = nb_json_find(config, "init_lora_weights");
    bool         good = !cJSON_IsString(init);
    for (size_t i = 0; i < NB_COUNT(harmless) && !good; i++) good = !strcmp(init->valuestring, harmless[i]);
    if (!good)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: init_lora_weights is '%.40s', which also changed the base's weights; save the "
                       "adapter with path_initial_model_for_weight_conversion in PEFT first", path, init->valuestring);
    return NB_OK;
}

static nb_status read_config(nb_adapter_config *out, const char *path, nb_error *err)
{
    cJSON *config;
    NB_TRY(nb_json_file(&config, path, MAX_CONFIG, err));
    nb_status status = cJSON_IsObject(config) ? NB_OK : nb_fail(err, NB_ERR_INPUT, "%s: expected an object", path);
    if (!status) status = check_kind(config, path, err);
    if (!status) status = nb_json_get_number(config, "r", 1, MAX_RANK, &out->rank, path, err);
    if (!status) status = nb_json_get_number(config, "lora_alpha", -1e9, 1e9, &out->alpha, path, err);
    if (!status) status = nb_json_opt_bool(config, "use_rslora", &out->rslora, path, err);
    if (!status) status = nb_json_opt_bool(config, "use_dora", &out->dora, path, err);
    if (!status) status = read_patterns(&out->ranks, config, "rank_pattern", 1, MAX_RANK, path, err);
    if (!status) status = read_patterns(&out->alphas, config, "alpha_pattern", -1e9, 1e9, path, err);
    cJSON_Delete(config);
    return status;
}

nb_status nb_adapter_config_open(nb_adapter_config *out, const char *directory, nb_error *err)
{
    *out = (nb_adapter_config){0};
    char *path = nb_path_join(directory, "adapter_config.json");
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "%s: no memory for a path", directory);
    nb_status status = read_config(out, path, err);
    free(path);
    if (status) nb_adapter_config_free(out);
    return status;
}

void nb_adapter_config_free(nb_adapter_config *c)
{
    free_patterns(&c->alphas);
    free_patterns(&c->ranks);
    *c = (nb_adapter_config){0};
}
