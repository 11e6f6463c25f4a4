/* choice.c - rules to a table of picks.
 *
 * Patterns are PCRE2's, bounded by its match limit, so that a pattern that backtracks for ever is an error and not a hang.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "quant/choice.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "quant/float_layer.h"

static const char *const site_words[NB_SITES] = {"q_proj, k_proj and v_proj", "o_proj", "gate_proj and up_proj", "down_proj"};
static const char *const site_patterns[NB_SITES] = {"self_attn\\.(?:q|k|v|qkv)_proj", "self_attn\\.o_proj",
                                                    "mlp\\.(?:gate|up|gate_up)_proj", "mlp\\.down_proj"};

bool nb_pick_equal(const nb_pick *a, const nb_pick *b)
{
    if (a->keep || b->keep) return a->keep == b->keep;
    return a->grid.bits == b->grid.bits && a->grid.group == b->grid.group && a->grid.sym == b->grid.sym;
}

const nb_pick *nb_choice_linear(const nb_choice *c, int layer, int linear)
{
    return &c->linears[layer * NB_LINEARS + linear];
}

const nb_outer *nb_choice_outer(const nb_choice *c, const char *name)
{
    for (size_t i = 0; i < c->outer_count; i++)
        if (!strcmp(c->outers[i].name, name)) return &c->outers[i];
    return NULL;
}

void nb_choice_free(nb_choice *c)
{
    free(c->linears);
    free(c->outers);
    free(c->spared);
    memset(c, 0, sizeof *c);
}

/* ---- rules ------------------------------------------------------------------------------------------------------------- */

typedef struct {
    pcre2_code       *code;
    pcre2_match_data *match;
    size_t            matched;
} compiled;

static nb_status compile(compiled *out, const nb_choice_rule *rule, nb_error *err)
{
    int        number;
    PCRE2_SIZE offset;
    *out = (compiled){0};
    if (!rule->pattern[0]) return nb_fail(err, NB_ERR_ARGUMENT, "an empty pattern would match every matrix; '.' says that");
    out->code = pcre2_compile((PCRE2_SPTR)rule->pattern, PCRE2_ZERO_TERMINATED, 0, &number, &offset, NULL);
    if (!out->code) {
        PCRE2_UCHAR text[120];
        pcre2_get_error_message(number, text, sizeof text);
        return nb_fail(err, NB_ERR_ARGUMENT, "pattern '%s': %s at character %zu", rule->pattern, (char *)text,
                       (size_t)offset + 1);
    }
    out->match = pcre2_match_data_create_from_pattern(out->code, NULL);
    return out->match ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "no memory for a pattern");
}

static void release(compiled *rules, size_t count)
{
    for (size_t i = 0; rules && i < count; i++) {
        pcre2_match_data_free(rules[i].match);
        pcre2_code_free(rules[i].code);
    }
    free(rules);
}

/* The rule that decides about a matrix, or NULL. */
static nb_status decide(const nb_choice_rule **out, const nb_choice_options *o, compiled *rules, const char *name,
                        nb_error *err)
{
    *out = NULL;
    for (size_t i = 0; i < o->rule_count; i++) {
        int found = pcre2_match(rules[i].code, (PCRE2_SPTR)name, strlen(name), 0, 0, rules[i].match, NULL);
        if (found < 0 && found != PCRE2_ERROR_NOMATCH)
            return nb_fail(err, NB_ERR_ARGUMENT, "pattern '%s' takes too long to match '%s' (PCRE2 error %d); make it simpler",
                           o->rules[i].pattern, name, found);
        if (found < 0) continue;
        rules[i].matched++;
        if (!*out || !(*out)->keep || o->rules[i].keep) *out = &o->rules[i];
    }
    return NB_OK;
}

static nb_status check_rule(const nb_choice_rule *r, nb_error *err)
{
    if (r->keep) return NB_OK;
    if (r->bits != 4 && r->bits != 8) return nb_fail(err, NB_ERR_ARGUMENT, "'%s': %d bits; 4 and 8 can be written",
                                                     r->pattern, r->bits);
    if (r->group < NB_GROUP_DEFAULT)
        return nb_fail(err, NB_ERR_ARGUMENT, "'%s': a group of %d inputs makes no sense", r->pattern, r->group);
    return NB_OK;
}

/* ---- sites ------------------------------------------------------------------------------------------------------------- */

/* The more careful of two picks: float before codes, more bits before fewer, smaller groups before larger. */
static bool wider(const nb_pick *a, const nb_pick *b)
{
    if (a->keep != b->keep) return a->keep;
    if (a->keep) return false;
    if (a->grid.bits != b->grid.bits) return a->grid.bits > b->grid.bits;
    if (a->grid.group == b->grid.group) return false;
    return b->grid.group == 0 || (a->grid.group != 0 && a->grid.group < b->grid.group);
}

static void pick_words(char out[64], const nb_pick *p)
{
    if (p->keep)
        snprintf(out, 64, "float");
    else if (p->grid.group)
        snprintf(out, 64, "%d bits in groups of %d", p->grid.bits, p->grid.group);
    else
        snprintf(out, 64, "%d bits, a scale a row", p->grid.bits);
}

static void join_site(nb_pick *picks, int layer, int site, nb_buf *notes)
{
    int first = nb_site_first[site], end = first + nb_site_count[site], best = first;
    bool same = true;
    for (int i = first; i < end; i++) {
        same = same && nb_pick_equal(&picks[i], &picks[first]);
        if (wider(&picks[i], &picks[best])) best = i;
    }
    if (same) return;
    nb_pick taken = picks[best];
    char    words[64];
    pick_words(words, &taken);
    for (int i = first; i < end; i++) picks[i] = taken;
    nb_buf_printf(notes, "layer %d: %s are one matrix to servers and must be alike: all get %s\n", layer, site_words[site],
                  words);
}

/* ---- outside the layers ------------------------------------------------------------------------------------------------ */

int nb_group_dividing(int group, int k)
{
    const int sizes[] = {group, 64, 32};
    for (size_t i = 0; i < NB_COUNT(sizes); i++)
        if (sizes[i] > 0 && sizes[i] <= group && k % sizes[i] == 0) return sizes[i];
    return 0;
}

int nb_vision_linear_count(const nb_config *config)
{
    return config->v_depth * 4 + 2;
}

void nb_vision_linear(nb_outer *out, const nb_config *c, int i)
{
    int d = c->v_dim, wide = c->v_dim * c->v_merge * c->v_merge;
    const struct { const char *name; int n, k; } block[4] = {
        {"attn.qkv", 3 * d, d}, {"attn.proj", d, d}, {"mlp.fc1", c->v_inner, d}, {"mlp.fc2", d, c->v_inner}};
    memset(out, 0, sizeof *out);
    if (i < c->v_depth * 4) {
        snprintf(out->name, sizeof out->name, "visual.blocks.%d.%s", i / 4, block[i % 4].name);
        out->n = block[i % 4].n;
        out->k = block[i % 4].k;
    } else {
        int last = i - c->v_depth * 4;
        snprintf(out->name, sizeof out->name, "visual.merger.mlp.%d", last * 2);
        out->n = last ? c->v_out : wide;
        out->k = wide;
    }
    snprintf(out->source, sizeof out->source, "%s", out->name);
}

/* Unless a rule keeps it float; a rule may give it other bits, too. */
static nb_status add_outer(nb_choice *c, nb_outer outer, int bits, const nb_choice_options *o, compiled *rules, nb_error *err)
{
    const nb_choice_rule *rule;
    NB_TRY(decide(&rule, o, rules, outer.name, err));
    if (rule && rule->keep) {
        if (!strncmp(outer.name, "visual.", 7)) c->spared[c->spared_count++] = outer;
        return NB_OK;
    }
    int group = rule && rule->group != NB_GROUP_DEFAULT ? rule->group : o->main.group;
    outer.grid = (nb_grid){.bits = rule ? rule->bits : bits, .group = nb_group_dividing(group, outer.k), .sym = true};
    c->outers[c->outer_count++] = outer;
    return NB_OK;
}

static nb_status add_outers(nb_choice *c, const nb_config *config, const nb_choice_options *o, compiled *rules, nb_error *err)
{
    int      vision = nb_vision_linear_count(config);
    nb_outer outer;
    NB_TRY(nb_alloc(&c->outers, (size_t)vision + 2, sizeof *c->outers, "matrices outside the layers", err));
    NB_TRY(nb_alloc(&c->spared, (size_t)vision, sizeof *c->spared, "matrices outside the layers", err));
    for (int i = 0; i < vision && o->vision; i++) {
        nb_vision_linear(&outer, config, i);
        NB_TRY(add_outer(c, outer, o->vision, o, rules, err));
    }
    c->vision = c->outer_count > 0;
    outer = (nb_outer){.name = "lm_head", .n = config->vocab, .k = config->hidden};
    snprintf(outer.source, sizeof outer.source, "%s", config->tied ? "model.embed_tokens" : "lm_head");
    if (o->head) NB_TRY(add_outer(c, outer, o->head, o, rules, err));
    outer = (nb_outer){.name = "model.embed_tokens", .source = "model.embed_tokens", .n = config->vocab, .k = config->hidden};
    if (o->embeddings) NB_TRY(add_outer(c, outer, o->embeddings, o, rules, err));
    c->untied = config->tied && (nb_choice_outer(c, "lm_head") || nb_choice_outer(c, "model.embed_tokens"));
    return NB_OK;
}

/* ---- the table --------------------------------------------------------------------------------------------------------- */

static nb_status pick_linears(nb_choice *c, const nb_config *config, const nb_choice_options *o, compiled *rules, nb_buf *notes,
                              nb_error *err)
{
    NB_TRY(nb_alloc(&c->linears, (size_t)config->layers * NB_LINEARS, sizeof *c->linears, "the bits of the matrices", err));
    c->layers = config->layers;
    c->main = o->main;
    const nb_pick main = {.grid = o->main};
    for (int layer = 0; layer < c->layers; layer++) {
        nb_pick       *picks = &c->linears[layer * NB_LINEARS];
        nb_float_layer names;
        nb_float_layer_shape(&names, config, layer);
        for (int i = 0; i < NB_LINEARS; i++) {
            const nb_choice_rule *rule;
            NB_TRY(decide(&rule, o, rules, names.name[i], err));
            picks[i] = main;
            if (!rule) continue;
            picks[i].keep = rule->keep;
            picks[i].fixed = true;
            if (rule->keep) continue;
            picks[i].grid.bits = rule->bits;
            if (rule->bits == 8 && o->main.bits == 4) picks[i].grid.sym = true; /* 8 bits need no zero point, and kernels have none */
            if (rule->group != NB_GROUP_DEFAULT) picks[i].grid.group = rule->group;
        }
        for (int site = 0; site < NB_SITES; site++) join_site(picks, layer, site, notes);
        for (int i = 0; i < NB_LINEARS; i++) c->mixed = c->mixed || !nb_pick_equal(&picks[i], &main);
    }
    return NB_OK;
}

/* Different grids of the layers' matrices. */
static int count_grids(const nb_choice *c)
{
    int count = 0;
    for (int i = 0; i < c->layers * NB_LINEARS; i++) {
        bool seen = c->linears[i].keep;
        for (int j = 0; j < i && !seen; j++) seen = nb_pick_equal(&c->linears[j], &c->linears[i]);
        count += !seen;
    }
    return count;
}

static nb_status make(nb_choice *c, const nb_config *config, const nb_choice_options *o, compiled *rules, nb_buf *notes,
                      nb_error *err)
{
    for (size_t i = 0; i < o->rule_count; i++) {
        NB_TRY(check_rule(&o->rules[i], err));
        NB_TRY(compile(&rules[i], &o->rules[i], err));
    }
    NB_TRY(pick_linears(c, config, o, rules, notes, err));
    NB_TRY(add_outers(c, config, o, rules, err));
    for (size_t i = 0; i < o->rule_count; i++)
        if (!rules[i].matched)
            return nb_fail(err, NB_ERR_ARGUMENT, "pattern '%s' names no matrix that would be quantized; names are like "
                           "model.layers.0.mlp.down_proj and visual.blocks.0.attn.qkv", o->rules[i].pattern);
    if (count_grids(c) > NB_QUANT_SCHEMES)
        return nb_fail(err, NB_ERR_ARGUMENT, "more than %d different combinations of bits and group size", NB_QUANT_SCHEMES);
    if (count_grids(c)) return NB_OK;
    return nb_fail(err, NB_ERR_ARGUMENT, "every matrix of the decoder would stay float: there is nothing to quantize");
}

nb_status nb_choice_make(nb_choice *out, const nb_config *config, const nb_choice_options *options, nb_buf *notes,
                         nb_error *err)
{
    compiled *rules;
    memset(out, 0, sizeof *out);
    NB_TRY(nb_alloc(&rules, options->rule_count, sizeof *rules, "patterns", err));
    nb_status status = make(out, config, options, rules, notes, err);
    release(rules, options->rule_count);
    if (status) nb_choice_free(out);
    return status;
}

uint64_t nb_choice_hash(const nb_choice *c)
{
    uint64_t hash = XXH64(&c->untied, sizeof c->untied, 0);
    for (int i = 0; i < c->layers * NB_LINEARS; i++) {
        const nb_pick *p = &c->linears[i];
        const int      says[4] = {p->keep, p->keep ? 0 : p->grid.bits, p->keep ? 0 : p->grid.group, p->keep ? 0 : p->grid.sym};
        hash = XXH64(says, sizeof says, hash);
    }
    for (size_t i = 0; i < c->outer_count; i++) {
        const int says[2] = {c->outers[i].grid.bits, c->outers[i].grid.group};
        hash = XXH64(c->outers[i].name, strlen(c->outers[i].name), XXH64(says, sizeof says, hash));
    }
    return hash;
}

/* ---- for the config files ---------------------------------------------------------------------------------------------- */

static void layer_pattern(nb_buf *out, const nb_choice *c, const nb_pick *pick, int site)
{
    int found = 0, first = nb_site_first[site];
    nb_buf_str(out, ".*layers\\.");
    for (int i = 0; i < c->layers; i++) found += nb_pick_equal(nb_choice_linear(c, i, first), pick);
    if (found == c->layers) {
        nb_buf_str(out, "\\d+");
    } else {
        const char *bar = "(?:";
        for (int i = 0; i < c->layers; i++) {
            if (!nb_pick_equal(nb_choice_linear(c, i, first), pick)) continue;
            nb_buf_printf(out, "%s%d", bar, i);
            bar = "|";
        }
        nb_buf_char(out, ')');
    }
    nb_buf_printf(out, "\\.%s$", site_patterns[site]);
}

nb_status nb_choice_patterns(const nb_choice *c, const nb_pick *pick, nb_choice_visit *visit, void *context, nb_error *err)
{
    nb_status status = NB_OK;
    for (int site = 0; site < NB_SITES && !status; site++) {
        nb_buf pattern = {0};
        bool   some = false;
        for (int i = 0; i < c->layers && !some; i++) some = nb_pick_equal(nb_choice_linear(c, i, nb_site_first[site]), pick);
        if (!some) continue;
        layer_pattern(&pattern, c, pick, site);
        status = nb_buf_status(&pattern, "a pattern", err);
        if (!status) status = visit(context, pattern.data, err);
        nb_buf_free(&pattern);
    }
    return status;
}
