/* test_engine_serving.c - a sequence's answer and its company: shared pages, preemption, guessing ahead and priorities change the work,
 * never the answer; with keys and values of bf16, and of int8. */
#include "golden.h"
#include "runtime/engine/generate.h"

enum { PROMPTS = 10, NEW_TOKENS = 40 };

static nb_dtype  kv_type = NB_BF16;
static nb_pool  *pool;
static nb_model *model;
static golden    g;
static nb_prompt prompts[PROMPTS];
static nb_answer alone[PROMPTS];

static nb_generate_options options_of(int i)
{
    nb_generate_options o = { .sampling = { .greedy = i % 2 == 0, .temperature = 0.8, .top_p = 0.95, .repetition_penalty = 1.05,
                                            .seed = (uint64_t)i },
                              .max_new_tokens = NEW_TOKENS, .ignore_eos = true };
    return o;
}

static void same_answer(const nb_answer *got, int i)
{
    assert_int_equal(got->finish, NB_FINISH_LENGTH);
    assert_int_equal(got->ids.count, alone[i].ids.count);
    assert_memory_equal(got->ids.data, alone[i].ids.data, got->ids.count * sizeof(int32_t));
    assert_int_equal(got->text.size, alone[i].text.size);
    assert_memory_equal(got->text.data, alone[i].text.data, got->text.size);
}

static nb_engine *engine_of(nb_engine_options o)
{
    nb_error   err;
    nb_engine *e;
    o.kv_type = kv_type;
    OK(nb_engine_new(&e, model, &o, &err), &err);
    return e;
}

/* Run the prompts at once to their ends; draft: guesses at a time. */
static nb_engine_stats run_all(nb_engine_options engine, int draft, int priorities, size_t *found, size_t *accepted)
{
    nb_error   err;
    nb_engine *e = engine_of(engine);
    nb_stream *s[PROMPTS];
    size_t     advanced;
    *found = *accepted = 0;
    for (int i = 0; i < PROMPTS; i++) {
        nb_generate_options o = options_of(i);
        o.draft = draft;
        o.priority = i % priorities;
        OK(nb_stream_open(&s[i], e, &prompts[i], &o, &err), &err);
    }
    for (bool more = true; more;) {
        OK(nb_engine_step(e, &advanced, &err), &err);
        more = false;
        for (int i = 0; i < PROMPTS; i++) {
            if (nb_stream_finished(s[i])) nb_stream_release(s[i]);
            else more = true;
        }
        assert_true(advanced || !more);
    }
    nb_engine_stats stats = nb_engine_look(e);
    for (int i = 0; i < PROMPTS; i++) {
        same_answer(nb_stream_answer(s[i]), i);
        *found += nb_stream_answer(s[i])->found_tokens;
        *accepted += nb_stream_answer(s[i])->accepted;
        nb_stream_free(s[i]);
    }
    assert_int_equal(nb_engine_look(e).pages.held, 0);
    nb_engine_free(e);
    return stats;
}

static void test_mixed_chunks(void **state)
{
    (void)state;
    size_t found, accepted;
    run_all((nb_engine_options){ .max_tokens = 8192, .chunk = 64, .mixed_chunk = 5, .max_sequences = 16 }, 0, 1, &found, &accepted);
    assert_int_equal(found, 0);
}

static void test_preemption(void **state)
{
    (void)state;
    size_t found, accepted, most = 0;
    for (int i = 0; i < PROMPTS; i++) most = prompts[i].count > most ? prompts[i].count : most;
    nb_engine_options o = { .max_tokens = (most + NEW_TOKENS + 40) / 32 * 32, .chunk = 48, .max_sequences = 16, .overcommit = true };
    nb_engine_stats   plain = run_all(o, 0, 1, &found, &accepted);
    assert_true(plain.preemptions > 0);
    o.prefix_cache = true;
    nb_engine_stats cached = run_all(o, 0, 1, &found, &accepted);
    assert_true(cached.preemptions > 0);
    o.max_tokens += 64;
    run_all(o, 4, 3, &found, &accepted);
}

static void test_drafts(void **state)
{
    (void)state;
    size_t            found, accepted;
    nb_engine_options o = { .max_tokens = 8192, .chunk = 512, .max_sequences = 16 };
    run_all(o, 8, 1, &found, &accepted);
    assert_true(accepted > 0);
    o.prefix_cache = true;
    run_all(o, 3, 1, &found, &accepted);
}

/* The second time everything but the last page's rows is there; with another salt nothing is; a changed picture is not taken for
 * the old one. */
static void test_prefix(void **state)
{
    (void)state;
    nb_error   err;
    nb_engine *e = engine_of((nb_engine_options){ .max_tokens = 16384, .chunk = 100, .prefix_cache = true });
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < PROMPTS; i++) {
            nb_generate_options o = options_of(i);
            nb_answer           a;
            o.salt = round == 2;
            OK(nb_generate(e, &prompts[i], &o, &a, &err), &err);
            same_answer(&a, i);
            size_t whole = (prompts[i].count - 1) / NB_KV_PAGE * NB_KV_PAGE;
            if (round == 1) assert_int_equal(a.found_tokens, whole);
            if (round == 0 && i == 0) assert_int_equal(a.found_tokens, 0);
            if (round == 2 && i == 0) assert_int_equal(a.found_tokens, 0);
            nb_answer_free(&a);
        }
    int with_picture = 0;
    while (prompts[with_picture].media_count == 0) with_picture++;
    nb_prompt *p = &prompts[with_picture];
    size_t     first = 0;
    while (p->modality[first] == NB_TOKEN_TEXT) first++;
    nb_generate_options o = options_of(with_picture);
    nb_answer           changed;
    p->media[0].rows[0] += 0.5f;
    OK(nb_generate(e, p, &o, &changed, &err), &err);
    p->media[0].rows[0] -= 0.5f;
    assert_true(changed.found_tokens <= first / NB_KV_PAGE * NB_KV_PAGE);
    nb_answer_free(&changed);
    nb_engine_free(e);
}

/* Taking back what was pushed, from a page that was already given a key, leaves others' pages alone. */
static nb_status no_logits(void *context, nb_sequence *s, size_t row, float *logits, nb_error *err)
{
    (void)s, (void)row, (void)err;
    memcpy(context, logits, (size_t)model->config.vocab * sizeof *logits);
    return NB_OK;
}

static void settle(nb_engine *e)
{
    nb_error err;
    size_t   advanced;
    do OK(nb_engine_step(e, &advanced, &err), &err);
    while (advanced);
}

static void test_truncate_shared(void **state)
{
    (void)state;
    nb_error     err;
    nb_engine   *e = engine_of((nb_engine_options){ .max_tokens = 4096, .prefix_cache = true });
    nb_sequence *a, *b, *c;
    nb_prompt    shorter, longer;
    size_t       vocab = (size_t)model->config.vocab;
    float       *la = malloc(vocab * 4), *lb = malloc(vocab * 4), *lc = malloc(vocab * 4);
    int32_t      ids[200];
    for (int i = 0; i < 200; i++) ids[i] = 5 + i * 7 % 90;
    OK(nb_prompt_from_ids(&shorter, ids, 50, &model->config, &err), &err);
    OK(nb_prompt_from_ids(&longer, ids, 150, &model->config, &err), &err);
    nb_sequence_options o = { .total = 300, .logits_from = 49, .on_logits = no_logits, .context = la };
    OK(nb_sequence_new(&a, e, &shorter, &o, &err), &err);
    for (int i = 50; i < 160; i++) OK(nb_sequence_push(a, ids[i], &err), &err);
    settle(e);
    o.logits_from = 149;
    o.context = lb;
    OK(nb_sequence_new(&b, e, &longer, &o, &err), &err);
    settle(e);
    assert_int_equal(nb_sequence_found(b), 128); /* what a pushed is found like what a prompt holds */
    nb_sequence_truncate(a, 100);
    for (int i = 0; i < 60; i++) OK(nb_sequence_push(a, 99, &err), &err);
    settle(e);
    OK(nb_sequence_push(b, 77, &err), &err);
    settle(e);
    o.salt = 1; /* on its own */
    o.context = lc;
    OK(nb_sequence_new(&c, e, &longer, &o, &err), &err);
    OK(nb_sequence_push(c, 77, &err), &err);
    settle(e);
    assert_memory_equal(lb, lc, vocab * 4);
    nb_sequence_free(a);
    nb_sequence_free(b);
    nb_sequence_free(c);
    nb_engine_free(e);
    nb_prompt_free(&shorter);
    nb_prompt_free(&longer);
    free(la), free(lb), free(lc);
}

/* With one place for a prompt at a time the more important one goes first although it came last. */
static void test_priority(void **state)
{
    (void)state;
    nb_error   err;
    nb_engine *e = engine_of((nb_engine_options){ .max_tokens = 8192, .chunk = 16, .max_sequences = 3 });
    nb_stream *s[3];
    size_t     advanced;
    for (int i = 0; i < 3; i++) {
        nb_generate_options o = options_of(0);
        o.max_new_tokens = 1;
        o.priority = i == 2 ? 1 : 0;
        OK(nb_stream_open(&s[i], e, &prompts[0], &o, &err), &err);
    }
    int order[3], n = 0;
    while (n < 3) {
        OK(nb_engine_step(e, &advanced, &err), &err);
        for (int i = 0; i < 3; i++) {
            bool counted = false;
            for (int k = 0; k < n; k++) counted |= order[k] == i;
            if (!counted && nb_stream_finished(s[i])) order[n++] = i;
        }
    }
    assert_int_equal(order[0], 2);
    assert_int_equal(order[1], 0);
    for (int i = 0; i < 3; i++) nb_stream_free(s[i]);
    nb_engine_free(e);
}

/* Pages run out while a more important prompt is read and a less important answer grows in the same step. */
static void test_latecomer(void **state)
{
    (void)state;
    nb_error  err;
    nb_prompt p[2];
    nb_answer want[2];
    int32_t   ids[130];
    size_t    advanced;
    for (int i = 0; i < 130; i++) ids[i] = 5 + i * 11 % 90;
    nb_engine *roomy = engine_of((nb_engine_options){ .max_tokens = 1024 });
    nb_engine *tight = engine_of((nb_engine_options){ .max_tokens = 6 * NB_KV_PAGE, .chunk = 16, .mixed_chunk = 8, .max_sequences = 4,
                                                      .overcommit = true });
    nb_generate_options o = { .sampling = { .greedy = true, .temperature = 1, .top_p = 1, .repetition_penalty = 1 }, .ignore_eos = true,
                              .max_new_tokens = 60 };
    nb_stream *s[2];
    for (int i = 0; i < 2; i++) {
        OK(nb_prompt_from_ids(&p[i], ids, i ? 130 : 20, &model->config, &err), &err);
        OK(nb_generate(roomy, &p[i], &o, &want[i], &err), &err);
    }
    OK(nb_stream_open(&s[0], tight, &p[0], &o, &err), &err);
    for (int i = 0; i < 8; i++) OK(nb_engine_step(tight, &advanced, &err), &err);
    o.priority = 1;
    OK(nb_stream_open(&s[1], tight, &p[1], &o, &err), &err);
    for (int left = 2; left;) {
        OK(nb_engine_step(tight, &advanced, &err), &err);
        assert_true(advanced > 0);
        left = 0;
        for (int i = 0; i < 2; i++) {
            if (nb_stream_finished(s[i])) nb_stream_release(s[i]);
            else left++;
        }
    }
    assert_true(nb_engine_look(tight).preemptions > 0);
    for (int i = 0; i < 2; i++) {
        const nb_answer *got = nb_stream_answer(s[i]);
        assert_int_equal(got->ids.count, 60);
        assert_memory_equal(got->ids.data, want[i].ids.data, 60 * sizeof(int32_t));
        nb_stream_free(s[i]);
        nb_answer_free(&want[i]);
        nb_prompt_free(&p[i]);
    }
    nb_engine_free(roomy);
    nb_engine_free(tight);
}

/* Codes and a scale for each head of a token in the place of 16 bits an element: d + 2 bytes for 2 d. */
static void test_page_bytes(void **state)
{
    (void)state;
    const nb_config *c = &model->config;
    nb_engine       *e = engine_of((nb_engine_options){ .max_tokens = 64 });
    size_t           token = (size_t)(kv_type == NB_I8 ? c->head_dim + 2 : 2 * c->head_dim) * 2 * (size_t)c->kv_heads * (size_t)c->layers;
    assert_int_equal(nb_engine_look(e).page_bytes, token * NB_KV_PAGE);
    assert_int_equal(nb_engine_kv_type(e), kv_type);
    nb_engine_free(e);
}

/* A picture's rows are computed once, found by content, let go by age. */
static void test_visual_cache(void **state)
{
    (void)state;
    nb_error         err;
    nb_visual_cache *c;
    nb_visual       *v[3];
    int              with[3], n = 0;
    for (int i = 0; i < PROMPTS && n < 3; i++)
        if (prompts[i].media_count) with[n++] = i;
    assert_true(n >= 2);
    OK(nb_visual_cache_new(&c, 1 << 30, &err), &err);
    OK(nb_visual_get(&v[0], model, &prompts[with[0]].media[0], c, &err), &err);
    OK(nb_visual_get(&v[1], model, &prompts[with[0]].media[0], c, &err), &err);
    assert_ptr_equal(v[0], v[1]);
    assert_int_equal(nb_visual_cache_look(c).hits, 1);
    OK(nb_visual_get(&v[2], model, &prompts[with[0]].media[0], NULL, &err), &err);
    size_t       count, again;
    const float *rows = nb_visual_rows(v[0], &count);
    assert_memory_equal(rows, nb_visual_rows(v[2], &again), count * (size_t)model->config.hidden * 4);
    nb_visual_cache_free(c);
    for (int i = 0; i < 3; i++) nb_visual_drop(v[i]);

    OK(nb_visual_cache_new(&c, count * (size_t)model->config.hidden * 4 + 4096, &err), &err); /* room for one like it */
    OK(nb_visual_get(&v[0], model, &prompts[with[0]].media[0], c, &err), &err);
    nb_visual_drop(v[0]);
    prompts[with[0]].media[0].rows[1] += 1;
    OK(nb_visual_get(&v[1], model, &prompts[with[0]].media[0], c, &err), &err);
    prompts[with[0]].media[0].rows[1] -= 1;
    nb_visual_drop(v[1]);
    assert_int_equal(nb_visual_cache_look(c).count, 1);
    assert_int_equal(nb_visual_cache_look(c).hits, 0);
    nb_visual_cache_free(c);
}

static int set_up(void **state)
{
    (void)state;
    nb_error err;
    nb_ops   ops;
    if (nb_pool_new(&pool, 2, NULL)) return 1;
    nb_ops_init(&ops, nb_isa_detect(NB_ISA_LEVELS - 1), pool);
    OK(nb_model_open(&model, GOLDEN_MODEL, &ops, 0, &err), &err);
    golden_open(&g);
    nb_engine *e = engine_of((nb_engine_options){ .max_tokens = 8192 });
    for (int i = 0; i < PROMPTS; i++) {
        nb_generate_options o = options_of(i);
        golden_prompt(&g, i * 4, model, &prompts[i]);
        OK(nb_generate(e, &prompts[i], &o, &alone[i], &err), &err);
    }
    nb_engine_free(e);
    return 0;
}
static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < PROMPTS; i++) {
        nb_prompt_free(&prompts[i]);
        nb_answer_free(&alone[i]);
    }
    golden_close(&g);
    nb_model_close(model);
    nb_pool_free(pool);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mixed_chunks),    cmocka_unit_test(test_preemption), cmocka_unit_test(test_drafts),
        cmocka_unit_test(test_prefix),          cmocka_unit_test(test_truncate_shared),
        cmocka_unit_test(test_priority),        cmocka_unit_test(test_latecomer),
        cmocka_unit_test(test_visual_cache),    cmocka_unit_test(test_page_bytes),
    };
    int failed = cmocka_run_group_tests_name("bf16", tests, set_up, tear_down);
    kv_type = NB_I8;
    return failed + cmocka_run_group_tests_name("int8", tests, set_up, tear_down);
}
