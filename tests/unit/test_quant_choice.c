/* Bits of single matrices: which rule decides, what a site makes of it, what the config files say about it to other loaders (their
 * matching replayed here), and that the files hold what was chosen, also after an interruption. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "unit.h"

#include <pcre2.h>

#include "quant/config_out.h"
#include "quant/float_layer.h"
#include "quant/outer.h"
#include "quant/plan.h"
#include "quant_folder.h"

static nb_pool  *pool;
static nb_ops    ops;
static nb_config config;

static int open_all(void **state)
{
    nb_error err;
    nb_buf   notes = {0};
    if (make_folder(state) || nb_pool_new(&pool, 2, &err) || nb_config_open(&config, source, &notes, &err)) return -1;
    nb_buf_free(&notes);
    nb_ops_init(&ops, nb_isa_detect(NB_ISA_LEVELS - 1), pool);
    return 0;
}

static int close_all(void **state)
{
    nb_pool_free(pool);
    return remove_folder(state);
}

static const nb_grid int4 = {4, 128, true};

static nb_choice choose(const nb_choice_rule *rules, size_t count, nb_buf *notes)
{
    nb_error  err;
    nb_choice c;
    OK(nb_choice_make(&c, &config, &(nb_choice_options){.main = int4, .rules = rules, .rule_count = count}, notes, &err), &err);
    return c;
}

static void rules_and_sites(void **state)
{
    (void)state;
    const nb_choice_rule rules[] = {
        {.pattern = "down_proj", .bits = 8, .group = 64},         {.pattern = "layers\\.3\\.mlp\\.down", .bits = 4, .group = 32},
        {.pattern = "^model\\.layers\\.2\\.self_attn\\.v_proj$", .keep = true}, {.pattern = "layers\\.4\\.mlp\\.(gate|up)", .bits = 8, .group = 0},
        {.pattern = "layers\\.4\\.mlp\\.up", .bits = 8, .group = NB_GROUP_DEFAULT}, {.pattern = "layers\\.0\\.", .keep = true},
        {.pattern = "layers\\.0\\.mlp\\.down_proj", .bits = 4, .group = 16},
    };
    nb_buf    notes = {0};
    nb_choice c = choose(rules, NB_COUNT(rules), &notes);
    assert_true(c.mixed);
    for (int layer = 0; layer < c.layers; layer++)
        for (int i = 0; i < NB_LINEARS; i++) {
            const nb_pick *p = nb_choice_linear(&c, layer, i);
            nb_pick        want = {.grid = int4};
            if (i == NB_DOWN) want.grid = (nb_grid){8, 64, true};
            if (i == NB_DOWN && layer == 3) want.grid = (nb_grid){4, 32, true};       /* the last rule that matches */
            if (layer == 2 && i <= NB_V) want.keep = true;                            /* v takes q and k along */
            if (layer == 4 && (i == NB_GATE || i == NB_UP)) want.grid = (nb_grid){8, 128, true}; /* smaller groups win */
            if (layer == 0) want.keep = true;                                         /* keep before set, whatever comes later */
            if (!nb_pick_equal(p, &want)) fail_msg("layer %d linear %d: keep %d, %d bits, group %d", layer, i, p->keep,
                                                   p->grid.bits, p->grid.group);
        }
    assert_non_null(strstr(notes.data, "layer 2: q_proj, k_proj and v_proj are one matrix to servers and must be alike: "
                           "all get float"));
    assert_non_null(strstr(notes.data, "layer 4: gate_proj and up_proj are one matrix to servers and must be alike: all "
                           "get 8 bits in groups of 128"));
    nb_buf_free(&notes);
    nb_choice plain = choose(NULL, 0, &notes), other = choose(rules, 1, &notes);
    assert_false(plain.mixed);
    assert_null(notes.data);
    assert_true(nb_choice_hash(&plain) != nb_choice_hash(&c) && nb_choice_hash(&other) != nb_choice_hash(&c) &&
                nb_choice_hash(&other) != nb_choice_hash(&plain));
    nb_choice_free(&other);
    nb_choice_free(&plain);
    nb_choice_free(&c);
}

static void refusals(void **state)
{
    (void)state;
    const struct { nb_choice_rule rule; const char *part; } cases[] = {
        {{.pattern = "layers\\.(", .keep = true}, "character 10"},
        {{.pattern = "", .keep = true}, "empty pattern"},
        {{.pattern = "layers\\.6\\.", .keep = true}, "'layers\\.6\\.' names no matrix"},
        {{.pattern = "visual", .keep = true}, "names no matrix"}, /* the tower gets no codes anyway */
        {{.pattern = "proj", .keep = true}, "nothing to quantize"},
        {{.pattern = "down", .bits = 3, .group = 64}, "3 bits"},
        {{.pattern = "down", .bits = 4, .group = -5}, "-5"},
        {{.pattern = "^(.+)+[0-9]$", .keep = true}, "takes too long"},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_error  err;
        nb_choice c;
        nb_buf    notes = {0};
        FAILS(nb_choice_make(&c, &config, &(nb_choice_options){.main = int4, .rules = &cases[i].rule, .rule_count = 1},
                             &notes, &err),
              NB_ERR_ARGUMENT, cases[i].part, &err);
        assert_null(c.linears);
        nb_buf_free(&notes);
    }
}

/* ---- what other loaders make of the config ----------------------------------------------------------------------------- */

/* Python's re.match: anchored at the start, not at the end. */
static bool matches(const char *pattern, const char *name)
{
    int               number;
    PCRE2_SIZE        offset;
    pcre2_code       *code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_ANCHORED, &number, &offset, NULL);
    pcre2_match_data *data = code ? pcre2_match_data_create_from_pattern(code, NULL) : NULL;
    assert_non_null(data);
    bool found = pcre2_match(code, (PCRE2_SPTR)name, strlen(name), 0, 0, data, NULL) >= 0;
    pcre2_match_data_free(data);
    pcre2_code_free(code);
    return found;
}

/* The target that compressed-tensors' users look up: equal, or a pattern. */
static bool target_matches(const char *target, const char *name)
{
    return strncmp(target, "re:", 3) ? !strcmp(target, name) : matches(target + 3, name);
}

static bool listed(const cJSON *list, const char *name)
{
    const cJSON *v;
    cJSON_ArrayForEach(v, list) if (target_matches(v->valuestring, name)) return true;
    return false;
}

/* What GPTQModel and vLLM find for a name: the first rule that matches; NULL when none does. */
static const cJSON *dynamic_rule(const cJSON *dynamic, const char *name)
{
    const cJSON *v;
    cJSON_ArrayForEach(v, dynamic)
    {
        bool prefixed = !strncmp(v->string, "-:", 2) || !strncmp(v->string, "+:", 2);
        if (matches(v->string + (prefixed ? 2 : 0), name)) return v;
    }
    return NULL;
}

/* The names under which loaders know a matrix: their own roots, and vLLM's joined ones. */
static int names_of(char out[8][96], int layer, int linear)
{
    static const char *const roots[] = {"model.layers", "model.language_model.layers", "language_model.model.layers"};
    static const char *const joined[NB_LINEARS] = {[NB_Q] = "self_attn.qkv_proj", [NB_GATE] = "mlp.gate_up_proj"};
    nb_float_layer           f;
    int                      count = 0;
    nb_float_layer_shape(&f, &config, layer);
    const char *tail = strchr(f.name[linear] + strlen("model.layers."), '.') + 1;
    for (size_t i = 0; i < NB_COUNT(roots); i++) {
        snprintf(out[count++], 96, "%s.%d.%s", roots[i], layer, tail);
        if (joined[linear]) snprintf(out[count++], 96, "%s.%d.%s", roots[i], layer, joined[linear]);
    }
    return count;
}

static const nb_choice_rule mixed_rules[] = {
    {.pattern = "layers\\.[15]\\.mlp\\.down_proj", .bits = 8, .group = 64},
    {.pattern = "self_attn\\.o_proj", .bits = 8, .group = 0},
    {.pattern = "layers\\.1\\.self_attn\\.k", .keep = true},
    {.pattern = "layers\\.3\\.mlp\\.up", .keep = true},
};

static void patterns_reach_what_they_should(void **state)
{
    (void)state;
    nb_buf         notes = {0};
    nb_choice      c = choose(mixed_rules, NB_COUNT(mixed_rules), &notes);
    nb_block_facts facts = {.format = NB_FORMAT_GPTQ, .choice = &c};
    cJSON         *gptq = nb_config_block(&facts);
    facts.format = NB_FORMAT_CT;
    cJSON *ct = nb_config_block(&facts);
    const cJSON *dynamic = nb_json_find(gptq, "dynamic"), *ignore = nb_json_find(ct, "ignore");
    for (int layer = 0; layer < c.layers; layer++)
        for (int i = 0; i < NB_LINEARS; i++) {
            const nb_pick *p = nb_choice_linear(&c, layer, i);
            char           names[8][96];
            for (int n = names_of(names, layer, i) - 1; n >= 0; n--) {
                const cJSON *rule = dynamic_rule(dynamic, names[n]), *group, *target;
                int          bits = 4, size = 128, found = 0;
                if (p->keep != (rule && rule->string[0] == '-')) fail_msg("dynamic: %s", names[n]);
                if (rule && !p->keep) bits = nb_json_find(rule, "bits")->valueint, size = nb_json_find(rule, "group_size")->valueint;
                if (!p->keep && (bits != p->grid.bits || (size == -1 ? 0 : size) != p->grid.group)) fail_msg("dynamic: %s", names[n]);
                if (listed(ignore, names[n]) != p->keep) fail_msg("ignore: %s", names[n]);
                cJSON_ArrayForEach(group, nb_json_find(ct, "config_groups")) cJSON_ArrayForEach(target, nb_json_find(group, "targets"))
                {
                    const cJSON *w = nb_json_find(group, "weights"), *g = nb_json_find(w, "group_size");
                    if (!target_matches(target->valuestring, names[n])) continue;
                    found++;
                    if (nb_json_find(w, "num_bits")->valueint != p->grid.bits || (g ? g->valueint : 0) != p->grid.group)
                        fail_msg("group: %s by %s", names[n], target->valuestring);
                }
                if (found != !p->keep) fail_msg("%s is in %d groups", names[n], found);
            }
        }
    assert_true(listed(ignore, "language_model.lm_head") && listed(ignore, "model.visual.blocks.0.attn.qkv") &&
                listed(ignore, "visual.merger.mlp.2"));
    cJSON_Delete(gptq);
    cJSON_Delete(ct);
    nb_choice_free(&c);
    nb_buf_free(&notes);
}

/* AWQ's list is matched by substring (vLLM, transformers 4) or by ending (transformers 5). */
static void awq_lists_what_is_kept(void **state)
{
    (void)state;
    const nb_choice_rule rule = {.pattern = "layers\\.1\\.mlp\\.up", .keep = true};
    nb_buf               notes = {0};
    nb_choice            c = choose(&rule, 1, &notes);
    cJSON               *q = nb_config_block(&(nb_block_facts){.format = NB_FORMAT_AWQ, .choice = &c});
    const cJSON         *list = nb_json_find(q, "modules_to_not_convert"), *v;
    for (int layer = 0; layer < c.layers; layer++)
        for (int i = 0; i < NB_LINEARS; i++) {
            char names[8][96];
            for (int n = names_of(names, layer, i) - 1; n >= 0; n--) {
                bool inside = false, ending = false;
                cJSON_ArrayForEach(v, list)
                {
                    size_t at = strlen(names[n]), tail = strlen(v->valuestring);
                    inside = inside || strstr(names[n], v->valuestring);
                    ending = ending || (tail <= at && !strcmp(names[n] + at - tail, v->valuestring));
                }
                bool want = layer == 1 && (i == NB_GATE || i == NB_UP);
                if (inside != want || ending != want) fail_msg("%s", names[n]);
            }
        }
    cJSON_Delete(q);
    nb_choice_free(&c);
    nb_buf_free(&notes);
}

/* Codes for the tower: every linear is in one group or ignored, whatever a rule keeps. */
static void the_tower_and_the_head(void **state)
{
    (void)state;
    nb_error             err;
    const nb_choice_rule rules[] = {{.pattern = "visual\\.blocks\\.2", .keep = true},
                                    {.pattern = "visual.*fc1", .bits = 8, .group = 32}};
    nb_choice_options    o = {.main = int4, .rules = rules, .rule_count = 2, .vision = 4, .head = 8, .embeddings = 8};
    nb_buf               notes = {0};
    nb_choice            c;
    OK(nb_choice_make(&c, &config, &o, &notes, &err), &err);
    assert_true(c.vision && c.untied && !c.mixed);
    assert_int_equal(c.outer_count, nb_vision_linear_count(&config) - 4 + 2);
    assert_int_equal(c.spared_count, 4);
    cJSON       *ct = nb_config_block(&(nb_block_facts){.format = NB_FORMAT_CT, .choice = &c});
    const cJSON *ignore = nb_json_find(ct, "ignore"), *group, *target;
    for (int i = -2; i < nb_vision_linear_count(&config); i++) {
        nb_outer linear = {.name = "lm_head"};
        char     name[96];
        int      found = 0;
        if (i == -1) snprintf(linear.name, sizeof linear.name, "model.embed_tokens");
        if (i >= 0) nb_vision_linear(&linear, &config, i);
        snprintf(name, sizeof name, "%s%s", i >= 0 ? "model." : "language_model.", linear.name);
        const nb_outer *outer = nb_choice_outer(&c, linear.name);
        cJSON_ArrayForEach(group, nb_json_find(ct, "config_groups")) cJSON_ArrayForEach(target, nb_json_find(group, "targets"))
        {
            const cJSON *w = nb_json_find(group, "weights"), *g = nb_json_find(w, "group_size");
            if (!target_matches(target->valuestring, name)) continue;
            found++;
            assert_true(outer && nb_json_find(w, "num_bits")->valueint == outer->grid.bits &&
                        (g ? g->valueint : 0) == outer->grid.group);
        }
        assert_int_equal(found, outer != NULL);
        assert_true(listed(ignore, name) == !outer);
        if (outer && outer->grid.group) assert_int_equal(outer->k % outer->grid.group, 0);
        if (strstr(linear.name, "fc1") && outer) assert_true(outer->grid.bits == 8 && outer->grid.group == 32);
    }
    assert_true(listed(ignore, "visual.patch_embed.proj"));
    cJSON_Delete(ct);
    nb_choice_free(&c);
    nb_buf_free(&notes);
}

/* ---- files ------------------------------------------------------------------------------------------------------------- */

static nb_quantize_options request(nb_method method, nb_format format, const char *out)
{
    return (nb_quantize_options){
        .model_dir = source, .out_dir = in_folder(out), .method = method, .grid = {4, 128, format != NB_FORMAT_AWQ}, .format = format,
        .awq_points = 2, .awq_clip = true, .damp = 0.01, .damp_max = 1, .block = 128, .true_sequential = true, .propagate_quantized = true,
        .modality_weights = {1, 1, 1}, .data = {.path = chats, .samples = 2,
                                                .dataset = {.need_answer = true}}, .shard_size = 4000000,
        .recipe_json = "{}",
    };
}

static void check_linear(const nb_checkpoint *c, const nb_config *written, const nb_model *model, const nb_pick *pick,
                         const char *name, int n,
                         int k)
{
    nb_error  err;
    nb_linear got, original;
    nb_codes  want;
    size_t    count = (size_t)n * (size_t)k;
    float    *w = malloc(count * sizeof *w), *back = malloc(count * sizeof *back);
    OK(nb_linear_read(&original, model->checkpoint, &model->config.quant, name, n, k, -1, &err), &err);
    OK(nb_linear_read(&got, c, &written->quant, name, n, k, -1, &err), &err);
    nb_weights_to_f32(w, &original.weights);
    if (pick->keep) {
        assert_int_equal(got.weights.kind, NB_W_FLOAT);
        nb_weights_to_f32(back, &got.weights);
        for (size_t i = 0; i < count; i++) assert_true(back[i] == nb_f16_to_f32(nb_f32_to_f16(w[i])));
    } else {
        assert_int_equal(got.weights.kind, pick->grid.bits == 4 ? NB_W_INT4 : NB_W_INT8);
        OK(nb_rtn(&want, w, n, k, &pick->grid, pool, &err), &err);
        assert_int_equal(got.weights.group, want.group);
        assert_memory_equal(got.codes, want.codes, count);
        assert_memory_equal(got.scales, want.scales, (size_t)n * (size_t)want.groups * sizeof(float));
        assert_memory_equal(got.zeros, want.zeros, (size_t)n * (size_t)want.groups);
        nb_codes_free(&want);
    }
    free(w);
    free(back);
    nb_linear_free(&original);
    nb_linear_free(&got);
}

/* Round to nearest in every format: each matrix is what was picked for it, the plan knew the size, and the model opens. */
static void files_hold_the_choice(void **state)
{
    (void)state;
    static const nb_choice_rule keep_one = {.pattern = "layers\\.1\\.mlp\\.up", .keep = true};
    const struct { nb_format format; bool sym; const nb_choice_rule *rules; size_t count; } cases[] = {
        {NB_FORMAT_GPTQ, true, mixed_rules, NB_COUNT(mixed_rules)},  {NB_FORMAT_GPTQ_V2, false, mixed_rules, NB_COUNT(mixed_rules)},
        {NB_FORMAT_CT, true, mixed_rules, NB_COUNT(mixed_rules)},    {NB_FORMAT_CT, false, mixed_rules, NB_COUNT(mixed_rules)},
        {NB_FORMAT_AWQ, false, &keep_one, 1},                        {NB_FORMAT_CT, true, NULL, 0},
    };
    nb_error  err;
    nb_model *model, *made;
    OK(nb_model_open(&model, source, &ops, NB_OPEN_NO_LAYERS, &err), &err);
    for (size_t t = 0; t < NB_COUNT(cases); t++) {
        nb_quantize_options o = request(NB_METHOD_RTN, cases[t].format, "rtn");
        nb_quantize_report  r;
        nb_plan             plan;
        nb_choice           c;
        nb_buf              notes = {0};
        o.data.path = NULL;
        o.grid.sym = cases[t].sym;
        o.rules = cases[t].rules;
        o.rule_count = cases[t].count;
        OK(nb_plan_make(&plan, &o, 2, &err), &err);
        OK(nb_quantize(&ops, &o, NULL, NULL, &r, &err), &err);
        assert_int_equal(plan.output, r.bytes_out);
        nb_quantize_report_free(&r);
        OK(nb_model_open(&made, o.out_dir, &ops, 0, &err), &err);
        OK(nb_quantize_choose(&c, &o, &config, &notes, &err), &err);
        for (int layer = 0; layer < c.layers; layer++) {
            nb_float_layer f;
            nb_float_layer_shape(&f, &config, layer);
            for (int i = 0; i < NB_LINEARS; i++)
                check_linear(made->checkpoint, &made->config, model, nb_choice_linear(&c, layer, i), f.name[i], f.n[i], f.k[i]);
        }
        nb_choice_free(&c);
        nb_buf_free(&notes);
        nb_model_close(made);
        OK(nb_remove_folder(o.out_dir, &err), &err);
    }
    nb_model_close(model);
}

/* The best error of a group over all scales that the search may take, by trying them. */
static void check_search(const float *w, const nb_linear *got, int n, int k)
{
    nb_error err;
    nb_codes plain;
    double   ours = 0, rtn = 0;
    float   *a = malloc((size_t)n * (size_t)k * sizeof *a), *b = malloc((size_t)n * (size_t)k * sizeof *b);
    OK(nb_rtn(&plain, w, n, k, &(nb_grid){4, got->weights.group, true}, pool, &err), &err);
    nb_codes_dequantize(&plain, b);
    nb_weights_to_f32(a, &got->weights);
    for (size_t i = 0; i < (size_t)n * (size_t)k; i++) {
        ours += ((double)a[i] - w[i]) * ((double)a[i] - w[i]);
        rtn += ((double)b[i] - w[i]) * ((double)b[i] - w[i]);
    }
    assert_true(ours < 0.95 * rtn);
    nb_codes_free(&plain);
    free(a);
    free(b);
}

static void outer_matrices(void **state)
{
    (void)state;
    nb_error  err;
    nb_model *model, *made;
    OK(nb_model_open(&model, source, &ops, NB_OPEN_NO_LAYERS, &err), &err);
    for (int kind = 0; kind < 4; kind++) { /* all; the head alone; the embedding alone; the tower in 8 bits */
        nb_quantize_options o = request(NB_METHOD_RTN, NB_FORMAT_CT, "outer");
        nb_quantize_report  r;
        nb_plan             plan;
        nb_linear           head, embed, tower;
        int                 vocab = config.vocab, hidden = config.hidden;
        size_t              count = (size_t)vocab * (size_t)hidden;
        o.data.path = NULL;
        o.vision = kind == 0 ? 4 : kind == 3 ? 8 : 0;
        o.head = kind < 2 ? 8 : 0;
        o.embeddings = kind == 0 || kind == 2 ? 8 : 0;
        OK(nb_plan_make(&plan, &o, 2, &err), &err);
        OK(nb_quantize(&ops, &o, NULL, NULL, &r, &err), &err);
        assert_int_equal(plan.output, r.bytes_out);
        if (kind < 3) assert_non_null(strstr(r.notes.data, "tie_word_embeddings is false"));
        nb_quantize_report_free(&r);
        OK(nb_model_open(&made, o.out_dir, &ops, 0, &err), &err);
        assert_int_equal(made->config.tied, kind == 3);
        const nb_pick int8 = {.grid = {8, 128, true}}, floats = {.keep = true};
        check_linear(made->checkpoint, &made->config, model, o.embeddings ? &int8 : &floats, "model.embed_tokens", vocab,
                     hidden);
        if (kind < 3) { /* the head is the embedding's copy */
            float *w = malloc(count * sizeof *w), *v = malloc(count * sizeof *v);
            OK(nb_linear_read(&embed, model->checkpoint, &model->config.quant, "model.embed_tokens", vocab, hidden, 0,
                              &err), &err);
            OK(nb_linear_read(&head, made->checkpoint, &made->config.quant, "lm_head", vocab, hidden, 0, &err), &err);
            assert_int_equal(head.weights.kind, o.head ? NB_W_INT8 : NB_W_FLOAT);
            nb_weights_to_f32(w, &embed.weights);
            nb_weights_to_f32(v, &head.weights);
            assert_true(unit_rms(v, w, count) < 0.006);
            nb_linear_free(&embed);
            nb_linear_free(&head);
            free(w);
            free(v);
        }
        for (int i = 0; i < nb_vision_linear_count(&config); i++) {
            nb_outer t;
            nb_vision_linear(&t, &config, i);
            const nb_pick pick = {.keep = !o.vision, .grid = {8, nb_group_dividing(128, t.k), true}};
            if (o.vision != 4) {
                check_linear(made->checkpoint, &made->config, model, &pick, t.name, t.n, t.k);
                continue;
            }
            float *w = malloc((size_t)t.n * (size_t)t.k * sizeof *w);
            OK(nb_linear_read(&embed, model->checkpoint, &model->config.quant, t.name, t.n, t.k, -1, &err), &err);
            OK(nb_linear_read(&tower, made->checkpoint, &made->config.quant, t.name, t.n, t.k, 1, &err), &err);
            nb_weights_to_f32(w, &embed.weights);
            check_search(w, &tower, t.n, t.k);
            nb_linear_free(&embed);
            nb_linear_free(&tower);
            free(w);
        }
        nb_model_close(made);
        OK(nb_remove_folder(o.out_dir, &err), &err);
    }
    nb_model_close(model);
}

typedef struct {
    int left;
} countdown;

static bool until(void *context, size_t done, size_t total, const char *what)
{
    (void)done, (void)total, (void)what;
    return ((countdown *)context)->left-- > 0;
}

static void same_weights(const char *a, const char *b)
{
    nb_error       err;
    nb_checkpoint *x, *y;
    OK(nb_checkpoint_open(&x, a, &err), &err);
    OK(nb_checkpoint_open(&y, b, &err), &err);
    assert_int_equal(nb_checkpoint_count(x), nb_checkpoint_count(y));
    for (size_t i = 0; i < nb_checkpoint_count(x); i++) {
        const nb_entry *e = nb_checkpoint_at(x, i), *f = nb_checkpoint_find(y, e->name);
        void           *p, *q;
        if (!f || f->tensor->bytes != e->tensor->bytes) fail_msg("%s differs", e->name);
        OK(nb_entry_read(e, &p, &err), &err);
        OK(nb_entry_read(f, &q, &err), &err);
        if (memcmp(p, q, e->tensor->bytes)) fail_msg("%s differs", e->name);
        free(p);
        free(q);
    }
    nb_checkpoint_close(x);
    nb_checkpoint_close(y);
}

/* Mixed bits, kept matrices and codes of the head, solved in one go and in two. */
static void interrupted_with_mixed_bits(void **state)
{
    (void)state;
    static const nb_choice_rule keep_one = {.pattern = "layers\\.1\\.mlp\\.up", .keep = true};
    static const struct { nb_method method; nb_format format; nb_act_order order; const nb_choice_rule *rules; size_t count; } runs[] = {
        {NB_METHOD_GPTQ, NB_FORMAT_CT, NB_ORDER_FULL, mixed_rules, NB_COUNT(mixed_rules)},
        {NB_METHOD_GPTQ, NB_FORMAT_GPTQ, NB_ORDER_NONE, mixed_rules, NB_COUNT(mixed_rules)},
        {NB_METHOD_AWQ, NB_FORMAT_AWQ, NB_ORDER_NONE, &keep_one, 1},
    };
    for (size_t t = 0; t < NB_COUNT(runs); t++) {
        nb_error            err;
        nb_quantize_report  r;
        nb_quantize_options o = request(runs[t].method, runs[t].format, "whole");
        o.order = runs[t].order;
        o.rules = runs[t].rules;
        o.rule_count = runs[t].count;
        o.head = runs[t].format == NB_FORMAT_CT ? 8 : 0;
        OK(nb_quantize(&ops, &o, NULL, NULL, &r, &err), &err);
        nb_quantize_report_free(&r);
        countdown stop = {1 + 3 * NB_SITES + 2}; /* inside the fourth layer */
        o.out_dir = in_folder("parts");
        o.job = true;
        FAILS(nb_quantize(&ops, &o, until, &stop, &r, &err), NB_ERR_STOPPED, "goes on from there", &err);
        nb_quantize_options other = o;
        other.rules = &keep_one;
        other.rule_count = 1;
        if (t < 2) FAILS(nb_quantize(&ops, &other, NULL, NULL, &r, &err), NB_ERR_ARGUMENT, "the bits chosen for the matrices", &err);
        OK(nb_quantize(&ops, &o, NULL, NULL, &r, &err), &err);
        nb_quantize_report_free(&r);
        same_weights(in_folder("whole"), o.out_dir);
        OK(nb_remove_folder(in_folder("whole"), &err), &err);
        OK(nb_remove_folder(o.out_dir, &err), &err);
    }
}

static uint64_t biggest_step(void)
{
    return (uint64_t)config.intermediate * (uint64_t)config.hidden * 2 * 2; /* gate and up from codes to float, at most */
}

/* The result has the size that was asked for, nearly; more room is used for less error; the same choice when it goes on. */
static void targets(void **state)
{
    (void)state;
    nb_error            err;
    nb_quantize_report  r;
    nb_plan             plan;
    nb_quantize_options o = request(NB_METHOD_RTN, NB_FORMAT_GPTQ, "target");
    OK(nb_plan_make(&plan, &o, 2, &err), &err);
    uint64_t least = plan.output, last = 0;
    for (int i = 0; i < 3; i++) {
        o.target_bytes = least + 500000 * (uint64_t)i;
        OK(nb_plan_make(&plan, &o, 2, &err), &err);
        assert_int_equal(plan.output, o.target_bytes);
        OK(nb_quantize(&ops, &o, NULL, NULL, &r, &err), &err);
        assert_true(r.bytes_out <= o.target_bytes && r.bytes_out + biggest_step() > o.target_bytes && r.bytes_out >= last);
        assert_non_null(strstr(r.notes.data, i ? " were given 8 bits" : "0 were given 8 bits and 0 stay float"));
        last = r.bytes_out;
        nb_quantize_report_free(&r);
        OK(nb_remove_folder(o.out_dir, &err), &err);
    }
    o.target_bytes = least - 1;
    FAILS(nb_quantize(&ops, &o, NULL, NULL, &r, &err), NB_ERR_BUDGET, "is too little", &err);
    o.target_bpw = 5;
    FAILS(nb_quantize(&ops, &o, NULL, NULL, &r, &err), NB_ERR_ARGUMENT, "give one", &err);
    o.target_bytes = 0;
    o.target_bpw = 4;
    FAILS(nb_quantize(&ops, &o, NULL, NULL, &r, &err), NB_ERR_BUDGET, "too few", &err);
    o.data.path = NULL;
    FAILS(nb_quantize(&ops, &o, NULL, NULL, &r, &err), NB_ERR_ARGUMENT, "needs calibration data", &err);

    o = request(NB_METHOD_GPTQ, NB_FORMAT_CT, "whole");
    o.target_kl = 0.002;
    o.rules = &(const nb_choice_rule){.pattern = "layers\\.0\\.mlp", .bits = 4, .group = 32};
    o.rule_count = 1;
    OK(nb_quantize(&ops, &o, NULL, NULL, &r, &err), &err);
    assert_non_null(strstr(r.notes.data, "is foretold"));
    nb_quantize_report_free(&r);
    nb_linear      l;
    nb_checkpoint *c;
    nb_config      written;
    nb_buf         notes = {0};
    OK(nb_config_open(&written, o.out_dir, &notes, &err), &err);
    OK(nb_checkpoint_open(&c, o.out_dir, &err), &err);
    OK(nb_linear_read(&l, c, &written.quant, "model.layers.0.mlp.down_proj", config.hidden, config.intermediate, 0, &err),
       &err);
    assert_true(l.weights.kind == NB_W_INT4 && l.weights.group == 32); /* a rule is not overruled */
    nb_linear_free(&l);
    nb_checkpoint_close(c);
    nb_buf_free(&notes);
    countdown stop = {config.layers + 1 + 3 * NB_SITES + 2};
    o.out_dir = in_folder("parts");
    o.job = true;
    FAILS(nb_quantize(&ops, &o, until, &stop, &r, &err), NB_ERR_STOPPED, "goes on from there", &err);
    OK(nb_quantize(&ops, &o, NULL, NULL, &r, &err), &err);
    nb_quantize_report_free(&r);
    same_weights(in_folder("whole"), o.out_dir);
    OK(nb_remove_folder(in_folder("whole"), &err), &err);
    OK(nb_remove_folder(o.out_dir, &err), &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_and_sites),          cmocka_unit_test(refusals),
        cmocka_unit_test(patterns_reach_what_they_should), cmocka_unit_test(awq_lists_what_is_kept),
        cmocka_unit_test(the_tower_and_the_head),   cmocka_unit_test(files_hold_the_choice),
        cmocka_unit_test(outer_matrices),           cmocka_unit_test(interrupted_with_mixed_bits),
        cmocka_unit_test(targets),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
