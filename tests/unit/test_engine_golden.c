/* test_engine_golden.c - logits and greedy answers of the forty golden prompts through the engine.
 *
 * ref: last logits of all, and all logits of some, within 1e-3 absolute; all answers equal.  Fast levels: answers counted,
 * at least 99 % equal.  Company: the same bytes whether a prompt runs alone or among others, in one chunk or in many. */
#include "golden.h"
#include "runtime/engine/generate.h"

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

static nb_engine *open_engine(const nb_model *model, size_t chunk, nb_dtype kv)
{
    nb_error          err;
    nb_engine        *e;
    nb_engine_options options = { .max_tokens = 16384, .chunk = chunk, .kv_type = kv };
    OK(nb_engine_new(&e, model, &options, &err), &err);
    return e;
}

/* ---- logits ------------------------------------------------------------------------------------------------------------ */

typedef struct {
    float *rows; /* [count, vocab] */
    int    vocab;
    size_t from, seen;
} kept;

static nb_status keep(void *context, nb_sequence *s, size_t row, float *logits, nb_error *err)
{
    kept *k = context;
    (void)s, (void)err;
    memcpy(k->rows + (row - k->from) * (size_t)k->vocab, logits, (size_t)k->vocab * sizeof *logits);
    k->seen++;
    return NB_OK;
}

static float *all_logits(nb_engine *e, const nb_prompt *p, size_t from)
{
    nb_error     err;
    nb_sequence *s;
    int          vocab = nb_engine_model(e)->config.vocab;
    kept         k = { calloc((p->count - from) * (size_t)vocab, 4), vocab, from, 0 };
    size_t       advanced;
    OK(nb_sequence_new(&s, e, p, &(nb_sequence_options){ .logits_from = from, .on_logits = keep, .context = &k }, &err), &err);
    do OK(nb_engine_step(e, &advanced, &err), &err);
    while (advanced);
    assert_int_equal(k.seen, p->count - from);
    assert_int_equal(nb_sequence_done(s), p->count);
    nb_sequence_free(s);
    return k.rows;
}

static void test_logits_ref(void **state)
{
    (void)state;
    golden     g;
    nb_model  *model = open_model(NB_ISA_REF);
    nb_engine *e = open_engine(model, 24, NB_F32); /* several chunks a prompt */
    golden_open(&g);
    for (int i = 0; i < g.count; i++) {
        nb_prompt p;
        size_t    n = 0;
        golden_prompt(&g, i, model, &p);
        float *all = golden_tensor(&g, i, "logits", &n);
        float *got = all_logits(e, &p, all ? 0 : p.count - 1);
        if (all) {
            assert_int_equal(n, p.count * (size_t)model->config.vocab);
            NEAR(golden_worst(got, all, n), 0, 1e-3);
        }
        float *last = golden_tensor(&g, i, "last_logits", &n);
        NEAR(golden_worst(got + (all ? p.count - 1 : 0) * n, last, n), 0, 1e-3);
        free(all);
        free(last);
        free(got);
        nb_prompt_free(&p);
    }
    nb_engine_free(e);
    golden_close(&g);
    nb_model_close(model);
}

/* The same bits in any company and any chunking, at every level. */
static void test_company(void **state)
{
    (void)state;
    for (nb_isa isa = NB_ISA_REF; isa < NB_ISA_LEVELS; isa++) {
        if (!golden_level(isa)) continue;
        golden    g;
        nb_error  err;
        nb_model *model = open_model(isa);
        nb_prompt p[3];
        float    *alone[3];
        kept      k[3];
        golden_open(&g);
        nb_engine *one = open_engine(model, 512, NB_BF16), *many = open_engine(model, 70, NB_BF16);
        nb_sequence *s[3];
        for (int i = 0; i < 3; i++) {
            golden_prompt(&g, i, model, &p[i]);
            alone[i] = all_logits(one, &p[i], 0);
        }
        for (int i = 0; i < 3; i++) {
            k[i] = (kept){ calloc(p[i].count * (size_t)model->config.vocab, 4), model->config.vocab, 0, 0 };
            OK(nb_sequence_new(&s[i], many, &p[i], &(nb_sequence_options){ .on_logits = keep, .context = &k[i] }, &err), &err);
        }
        size_t advanced;
        do OK(nb_engine_step(many, &advanced, &err), &err);
        while (advanced);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(k[i].seen, p[i].count);
            assert_memory_equal(k[i].rows, alone[i], p[i].count * (size_t)model->config.vocab * 4);
            nb_sequence_free(s[i]);
            nb_prompt_free(&p[i]);
            free(alone[i]);
            free(k[i].rows);
        }
        nb_engine_free(one);
        nb_engine_free(many);
        golden_close(&g);
        nb_model_close(model);
    }
}

/* ---- answers ----------------------------------------------------------------------------------------------------------- */

typedef struct {
    const golden   *g;
    const nb_model *model;
    int             equal;
    char            streamed[4096];
    size_t          at;
} answers;

static nb_status prompt_at(void *context, size_t i, nb_prompt *out, nb_generate_options *o, nb_error *err)
{
    answers *a = context;
    (void)err;
    golden_prompt(a->g, (int)i, a->model, out);
    o->sampling = (nb_sampling){ .greedy = true, .temperature = 1, .top_p = 1, .repetition_penalty = 1 };
    o->max_new_tokens = 96;
    return NB_OK;
}

static nb_status answer_at(void *context, size_t i, nb_answer *answer, nb_error *err)
{
    answers    *a = context;
    const char *want = cJSON_GetObjectItem(a->g->rows[i], "output")->valuestring;
    const char *got = answer->text.data ? answer->text.data : "";
    (void)err;
    if (strcmp(got, want) == 0)
        a->equal++;
    else
        fprintf(stderr, "%s: prompt %zu: '%s', expected '%s'\n", a->model->ops.name, i, got, want);
    return NB_OK;
}

static int count_equal(nb_isa isa, nb_dtype kv, int parallel)
{
    golden    g;
    nb_error  err;
    nb_model *model = open_model(isa);
    golden_open(&g);
    answers    a = { .g = &g, .model = model };
    nb_engine *e = open_engine(model, 256, kv);
    OK(nb_generate_many(e, (size_t)g.count, parallel, prompt_at, answer_at, &a, &err), &err);
    nb_engine_free(e);
    golden_close(&g);
    nb_model_close(model);
    return a.equal;
}

static void test_answers(void **state)
{
    (void)state;
    assert_int_equal(count_equal(NB_ISA_REF, NB_F32, 8), 40);
    for (nb_isa isa = NB_ISA_REF + 1; isa < NB_ISA_LEVELS; isa++)
        if (golden_level(isa))
            for (int kv = 0; kv < 2; kv++) {
                int equal = count_equal(isa, kv ? NB_BF16 : NB_F32, 16);
                printf("%s, KV %s: %d of 40 answers equal\n", nb_isa_name(isa), kv ? "bf16" : "f32", equal);
                assert_true(equal >= 40 * 99 / 100);
            }
}

static bool collect(void *context, const char *text, size_t n)
{
    answers *a = context;
    memcpy(a->streamed + a->at, text, n);
    a->at += n;
    return true;
}

static bool cancel(void *context, const char *text, size_t n)
{
    (void)text, (void)n;
    return ++*(int *)context < 3;
}

/* Streaming gives the same text; stop strings end it and are not part of it; length and cancelling are told apart. */
static void test_endings(void **state)
{
    (void)state;
    golden     g;
    nb_error   err;
    nb_model  *model = open_model(nb_isa_detect(NB_ISA_LEVELS - 1));
    nb_engine *e = open_engine(model, 256, NB_F32);
    nb_prompt  p;
    nb_answer  whole, cut;
    int        calls = 0;
    golden_open(&g);
    answers             a = { .g = &g, .model = model };
    nb_generate_options o = { 0 };
    golden_prompt(&g, 18, model, &p); /* a description of 35 tokens */
    o = (nb_generate_options){ .sampling = { .greedy = true, .temperature = 1, .top_p = 1, .repetition_penalty = 1 },
                               .max_new_tokens = 96, .on_text = collect, .context = &a };
    OK(nb_generate(e, &p, &o, &whole, &err), &err);
    assert_int_equal(whole.finish, NB_FINISH_STOP);
    assert_int_equal(a.at, whole.text.size);
    assert_memory_equal(a.streamed, whole.text.data, a.at);
    assert_true(whole.ids.count > 12);

    const char *second = strstr(whole.text.data, ", a ");
    assert_non_null(second);
    const char *stops[] = { "never said", ", a " };
    o.stop = stops;
    o.stop_count = 2;
    a.at = 0;
    OK(nb_generate(e, &p, &o, &cut, &err), &err);
    assert_int_equal(cut.finish, NB_FINISH_STOP);
    assert_int_equal(cut.text.size, second - whole.text.data);
    assert_int_equal(a.at, cut.text.size);
    nb_answer_free(&cut);

    o.stop_count = 0;
    o.max_new_tokens = 5;
    OK(nb_generate(e, &p, &o, &cut, &err), &err);
    assert_int_equal(cut.finish, NB_FINISH_LENGTH);
    assert_int_equal(cut.ids.count, 5);
    assert_memory_equal(cut.ids.data, whole.ids.data, 5 * sizeof(int32_t));
    nb_answer_free(&cut);

    o.max_new_tokens = 96;
    o.on_text = cancel;
    o.context = &calls;
    OK(nb_generate(e, &p, &o, &cut, &err), &err);
    assert_int_equal(cut.finish, NB_FINISH_CANCELLED);
    nb_answer_free(&cut);

    o.on_text = NULL;
    o.max_new_tokens = 20000; /* beyond the engine's pages */
    FAILS(nb_generate(e, &p, &o, &cut, &err), NB_ERR_BUDGET, "does not fit", &err);
    nb_answer_free(&whole);
    nb_prompt_free(&p);
    nb_engine_free(e);
    golden_close(&g);
    nb_model_close(model);
}

/* Beyond max_position_embeddings (4096 here) an answer goes on and says so. */
static void test_past_trained(void **state)
{
    (void)state;
    static int32_t ids[4092];
    nb_error   err;
    nb_model  *model = open_model(nb_isa_detect(NB_ISA_LEVELS - 1));
    nb_engine *e = open_engine(model, 512, NB_BF16);
    nb_prompt  p;
    nb_answer  answer;
    for (size_t i = 0; i < NB_COUNT(ids); i++) ids[i] = 50 + (int32_t)(i % 90);
    OK(nb_prompt_from_ids(&p, ids, NB_COUNT(ids), &model->config, &err), &err);
    for (int n = 4; n <= 5; n++) {
        nb_generate_options o = { .sampling = { .greedy = true, .temperature = 1, .top_p = 1, .repetition_penalty = 1 },
                                  .max_new_tokens = n, .ignore_eos = true };
        OK(nb_generate(e, &p, &o, &answer, &err), &err);
        assert_int_equal(answer.ids.count, n);
        assert_int_equal(answer.past_trained, n == 5);
        nb_answer_free(&answer);
    }
    nb_prompt_free(&p);
    nb_engine_free(e);
    nb_model_close(model);
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_ref), cmocka_unit_test(test_company),
        cmocka_unit_test(test_answers), cmocka_unit_test(test_endings),    cmocka_unit_test(test_past_trained),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
