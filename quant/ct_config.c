/* ct_config.c - the quantization_config of compressed-tensors.
 *
 * One scheme for all linears of the layers is written as llm-compressor does: targets ["Linear"].  As soon as there are several,
 * every group lists its own patterns and "Linear" is not among them: vLLM asks for a match of its joined layers' names, then of the
 * class, so that "Linear" would take qkv_proj away from a pattern for q_proj.  Whatever has no codes must be in `ignore`: vLLM
 * refuses a linear that neither list names.  The tower is ignored by a pattern, because its names differ between versions.
 */
#include <stdio.h>

#include "quant/config_out.h"

static bool push(cJSON *list, const char *text)
{
    return cJSON_AddItemToArray(list, cJSON_CreateString(text));
}

static nb_status push_pattern(void *context, const char *pattern, nb_error *err)
{
    nb_buf text = {0};
    nb_buf_printf(&text, "re:%s", pattern);
    bool good = !text.failed && push(context, text.data);
    nb_buf_free(&text);
    return good ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "out of memory for quantization_config");
}

/* A name with its dots escaped, at the end of whatever a loader puts before it. */
static bool push_name(cJSON *list, const char *name)
{
    nb_buf text = {0};
    nb_buf_str(&text, "re:.*");
    for (const char *p = name; *p; p++) nb_buf_printf(&text, *p == '.' ? "\\." : "%c", *p);
    nb_buf_char(&text, '$');
    bool good = !text.failed && push(list, text.data);
    nb_buf_free(&text);
    return good;
}

static cJSON *weights(const nb_grid *grid, bool permuted)
{
    cJSON *w = cJSON_CreateObject();
    bool   good = w && cJSON_AddNumberToObject(w, "num_bits", grid->bits) && cJSON_AddStringToObject(w, "type", "int") &&
                cJSON_AddBoolToObject(w, "symmetric", grid->sym) &&
                cJSON_AddStringToObject(w, "strategy", grid->group ? "group" : "channel") &&
                (grid->group ? cJSON_AddNumberToObject(w, "group_size", grid->group) : cJSON_AddNullToObject(w, "group_size")) &&
                cJSON_AddBoolToObject(w, "dynamic", false) && (!permuted || cJSON_AddStringToObject(w, "actorder", "group"));
    if (good) return w;
    cJSON_Delete(w);
    return NULL;
}

/* A group without targets yet; *targets is its list. */
static bool add_group(cJSON *groups, cJSON **targets, const nb_grid *grid, bool permuted)
{
    char   name[24];
    cJSON *group = cJSON_CreateObject(), *w = weights(grid, permuted);
    snprintf(name, sizeof name, "group_%d", cJSON_GetArraySize(groups));
    if (!cJSON_AddItemToObject(groups, name, group)) {
        cJSON_Delete(group);
        cJSON_Delete(w);
        return false;
    }
    *targets = cJSON_AddArrayToObject(group, "targets");
    if (!w || !cJSON_AddItemToObject(group, "weights", w)) {
        cJSON_Delete(w);
        return false;
    }
    return *targets && cJSON_AddNullToObject(group, "input_activations") && cJSON_AddNullToObject(group, "output_activations");
}

static bool same_grid(const nb_grid *a, const nb_grid *b)
{
    return a->bits == b->bits && a->group == b->group && a->sym == b->sym;
}

/* The groups so far. */
typedef struct {
    cJSON  *object;
    nb_grid grids[NB_QUANT_SCHEMES + 1];
    cJSON  *targets[NB_QUANT_SCHEMES + 1];
    int     count;
} schemes;

/* The targets of the group with this grid among those from `first` on, which is made if it is missing; NULL without memory. */
static cJSON *targets_of(schemes *s, int first, const nb_grid *grid, bool permuted)
{
    for (int i = first; i < s->count; i++)
        if (same_grid(&s->grids[i], grid)) return s->targets[i];
    if (s->count == (int)NB_COUNT(s->grids) || !add_group(s->object, &s->targets[s->count], grid, permuted)) return NULL;
    s->grids[s->count] = *grid;
    return s->targets[s->count++];
}

static bool seen_before(const nb_choice *c, int i)
{
    for (int j = 0; j < i; j++)
        if (nb_pick_equal(&c->linears[j], &c->linears[i])) return true;
    return false;
}

/* Groups of the layers' matrices, then of the outer ones, which join a group with the same grid. */
static bool add_groups(cJSON *object, const nb_choice *c, bool permuted)
{
    schemes       s = {.object = object};
    const nb_pick main = {.grid = c->main};
    for (int pass = 0; pass < 2; pass++) /* the main scheme comes first: readers that show one show that */
        for (int i = 0; i < c->layers * 7; i++) {
            const nb_pick *pick = &c->linears[i];
            if (pick->keep || seen_before(c, i) || nb_pick_equal(pick, &main) != (pass == 0)) continue;
            cJSON *targets = targets_of(&s, 0, &pick->grid, permuted);
            if (!targets || nb_choice_patterns(c, pick, push_pattern, targets, NULL) != NB_OK) return false;
        }
    int first = permuted ? s.count : 0; /* an order of inputs belongs to a group: outer matrices have none */
    for (size_t i = 0; i < c->outer_count; i++) {
        cJSON *targets = targets_of(&s, first, &c->outers[i].grid, false);
        if (!targets || !push_name(targets, c->outers[i].name)) return false;
    }
    return true;
}

static bool one_scheme(const nb_choice *c, const nb_grid **grid)
{
    *grid = NULL;
    for (int i = 0; i < c->layers * 7; i++) {
        if (c->linears[i].keep) continue;
        if (*grid && !same_grid(*grid, &c->linears[i].grid)) return false;
        *grid = &c->linears[i].grid;
    }
    return *grid && !c->outer_count;
}

/* Every linear that stays float: of the layers by pattern, of the tower together or one by one. */
static bool add_ignored(cJSON *ignore, const nb_choice *c)
{
    const nb_pick kept = {.keep = true};
    if (!nb_choice_outer(c, "lm_head") && !(push(ignore, "lm_head") && push_name(ignore, "lm_head"))) return false;
    if (!push(ignore, c->vision ? "re:.*visual\\.patch_embed.*" : "re:.*visual.*")) return false;
    for (size_t i = 0; i < c->spared_count; i++)
        if (!push_name(ignore, c->spared[i].name)) return false;
    return nb_choice_patterns(c, &kept, push_pattern, ignore, NULL) == NB_OK;
}

static bool fill(cJSON *q, const nb_block_facts *f)
{
    const nb_grid *grid;
    cJSON         *groups, *ignore, *targets;
    if (!cJSON_AddStringToObject(q, "quant_method", "compressed-tensors") || !cJSON_AddStringToObject(q, "format", "pack-quantized") ||
        !cJSON_AddStringToObject(q, "quantization_status", "compressed") || !(groups = cJSON_AddObjectToObject(q, "config_groups")))
        return false;
    if (one_scheme(f->choice, &grid)) {
        if (!add_group(groups, &targets, grid, f->permuted) || !push(targets, "Linear")) return false;
    } else if (!add_groups(groups, f->choice, f->permuted)) {
        return false;
    }
    ignore = cJSON_AddArrayToObject(q, "ignore");
    return ignore && add_ignored(ignore, f->choice) && cJSON_AddNullToObject(q, "kv_cache_scheme");
}

cJSON *nb_config_block_ct(const nb_block_facts *facts)
{
    cJSON *q = cJSON_CreateObject();
    if (q && fill(q, facts)) return q;
    cJSON_Delete(q);
    return NULL;
}
