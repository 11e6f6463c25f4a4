/* test_model_golden.c - prompts, pictures, the vision tower and every hidden state against transformers.
 *
 * At the ref level every golden hidden state must agree within 1e-4 relative RMS; the fast levels, which round activations
 * of quantised layers only, are held to the same bound on this float model. */
#include "golden.h"

static nb_pool *pool;

static nb_model *open_model(nb_isa isa)
{
    nb_error  err;
    nb_ops    ops;
    nb_model *model;
    nb_ops_init(&ops, isa, pool);
    OK(nb_model_open(&model, GOLDEN_MODEL, &ops, 0, &err), &err);
    return model;
}

static void check_ints(const cJSON *want, const int32_t *got, size_t n, const char *what, int prompt)
{
    assert_int_equal(cJSON_GetArraySize(want), n);
    size_t i = 0;
    for (const cJSON *v = want->child; v; v = v->next, i++)
        if ((int32_t)v->valuedouble != got[i])
            fail_msg("prompt %d: %s[%zu] is %d, expected %d", prompt, what, i, got[i], (int)v->valuedouble);
}

/* Ids, grids, positions and rope_delta of all forty. */
static void test_prompts(void **state)
{
    (void)state;
    golden    g;
    nb_model *model = open_model(NB_ISA_REF);
    golden_open(&g);
    for (int i = 0; i < g.count; i++) {
        nb_prompt p;
        golden_prompt(&g, i, model, &p);
        check_ints(cJSON_GetObjectItem(g.rows[i], "input_ids"), p.ids, p.count, "input_ids", i);
        const cJSON *axes = cJSON_GetObjectItem(g.rows[i], "position_ids");
        for (int a = 0; a < 3; a++)
            check_ints(cJSON_GetArrayItem(axes, a), p.position + a * p.count, p.count, "position_ids", i);
        assert_int_equal(cJSON_GetObjectItem(g.rows[i], "rope_delta")->valueint, p.rope_delta);
        int image = 0, video = 0;
        for (int m = 0; m < p.media_count; m++) {
            bool         is_image = p.media_kind[m] == NB_TOKEN_IMAGE;
            const cJSON *grid = cJSON_GetArrayItem(cJSON_GetObjectItem(g.rows[i], is_image ? "image_grid_thw" : "video_grid_thw"),
                                                   is_image ? image++ : video++);
            check_ints(grid, (int32_t[]){ p.media[m].t, p.media[m].h, p.media[m].w }, 3, "grid", i);
        }
        assert_int_equal(image, cJSON_GetArraySize(cJSON_GetObjectItem(g.rows[i], "image_grid_thw")));
        assert_int_equal(video, cJSON_GetArraySize(cJSON_GetObjectItem(g.rows[i], "video_grid_thw")));
        nb_prompt_free(&p);
    }
    golden_close(&g);
    nb_model_close(model);
}

static void check_vision(const golden *g, int i, const nb_model *model, const nb_prompt *p)
{
    size_t   n = 0, m = 0, rows, at = 0;
    nb_error err;
    float   *pixels = golden_tensor(g, i, "pixel_values", &n), *want = golden_tensor(g, i, "vision", &m), *got;
    if (!pixels) return;
    for (int j = 0; j < p->media_count; j++) {
        size_t count = (size_t)p->media[j].t * p->media[j].h * p->media[j].w * 1176;
        assert_true(at + count <= n);
        NEAR(golden_worst(p->media[j].rows, pixels + at, count), 0, 1e-5);
        at += count;
    }
    assert_int_equal(at, n);
    OK(nb_prompt_visual(model, p, &got, &rows, &err), &err);
    assert_int_equal(rows * (size_t)model->config.hidden, m);
    NEAR(unit_rms(got, want, m), 0, 1e-4);
    free(got);
    free(want);
    free(pixels);
}

/* Hidden states layer by layer over a private one-layer KV store. */
static void check_hidden(const golden *g, int i, const nb_model *model, const nb_prompt *p)
{
    const nb_config *c = &model->config;
    const nb_ops    *ops = &model->ops;
    nb_error         err;
    size_t           n = 0, size = p->count * (size_t)c->hidden;
    float           *want = golden_tensor(g, i, "hidden.0", &n), *x;
    if (!want) return;
    assert_int_equal(n, size);
    OK(nb_prompt_embed(model, p, &x, &err), &err);
    NEAR(unit_rms(x, want, n), 0, 1e-4);
    free(want);

    nb_scratch *scratch;
    OK(nb_scratch_new(&scratch, model, p->count, &err), &err);
    size_t pages = (p->count + NB_KV_PAGE - 1) / NB_KV_PAGE, half = (size_t)c->kv_heads * NB_KV_PAGE * c->head_dim * 4;
    void **page = calloc(pages, sizeof *page);
    for (size_t j = 0; j < pages; j++) page[j] = ops->alloc(ops, 2 * half);
    nb_attn attn = { c->heads, c->kv_heads, c->head_dim, 1 / sqrtf((float)c->head_dim), NB_F32, 0, half };
    nb_span span = { 0, p->count, 0, page };
    nb_rope_prepare(model, scratch, p->position, p->count, p->count);
    double worst = 0;
    for (int layer = 0; layer < c->layers; layer++) {
        char name[32];
        nb_layer_forward(model, &model->layers[layer], scratch, &attn, &span, 1, x, p->count, NULL, NULL);
        snprintf(name, sizeof name, "hidden.%d", layer + 1);
        want = golden_tensor(g, i, name, &n);
        assert_non_null(want);
        if (layer + 1 == c->layers) /* transformers keeps the last one after the final norm */
            ops->rmsnorm(ops, x, x, model->norm, p->count, c->hidden, c->rms_eps);
        double d = unit_rms(x, want, n);
        if (!(d <= worst)) worst = d;
        free(want);
    }
    if (!(worst <= 1e-4)) fail_msg("prompt %d at %s: hidden states differ by %g", i, ops->name, worst);
    for (size_t j = 0; j < pages; j++) ops->free(ops, page[j]);
    free(page);
    nb_scratch_free(scratch);
    free(x);
}

static void check_level(nb_isa isa)
{
    golden    g;
    nb_model *model = open_model(isa);
    int       checked = 0;
    golden_open(&g);
    for (int i = 0; i < g.count; i++) {
        char name[32];
        snprintf(name, sizeof name, "%d.hidden.0", i);
        if (!nb_safetensors_find(g.tensors, name)) continue;
        nb_prompt p;
        golden_prompt(&g, i, model, &p);
        check_vision(&g, i, model, &p);
        check_hidden(&g, i, model, &p);
        nb_prompt_free(&p);
        checked++;
    }
    assert_true(checked >= 4);
    golden_close(&g);
    nb_model_close(model);
}

static void test_hidden(void **state)
{
    (void)state;
    for (nb_isa isa = NB_ISA_REF; isa < NB_ISA_LEVELS; isa++)
        if (golden_level(isa)) check_level(isa);
}

static int set_up(void **state)
{
    (void)state;
    return nb_pool_new(&pool, 2, NULL);
}
static int tear_down(void **state)
{
    (void)state;
    nb_pool_free(pool);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_prompts), cmocka_unit_test(test_hidden) };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
