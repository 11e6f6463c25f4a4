/* test_engine_sampler.c - from logits to a token: hand-computed cases and frequencies of draws. */
#include <math.h>

#include "runtime/engine/sampler.h"
#include "unit.h"

static nb_sampler *sampler(nb_sampling s, int vocab)
{
    nb_error    err;
    nb_sampler *out;
    OK(nb_sampler_new(&out, &s, vocab, &err), &err);
    return out;
}

static void test_order(void **state)
{
    (void)state;
    nb_sampling base = { .top_p = 1, .temperature = 1, .repetition_penalty = 1, .seed = 5 };
    nb_sampling s = base;
    float       logits[5] = { 1, 3, 3, -2, 0 };

    s.greedy = true; /* lowest id of a tie; log probability of the raw distribution */
    nb_sampler *p = sampler(s, 5);
    float       x[5];
    memcpy(x, logits, sizeof x);
    nb_logprobs logprobs;
    assert_int_equal(nb_sampler_next(p, x, &(nb_sampler_step){ .logprobs = &logprobs, .top = 3 }), 1);
    double z = exp(1) + 2 * exp(3) + exp(-2) + 1;
    NEAR(logprobs.chosen.logprob, log(exp(3) / z), 1e-6);
    assert_int_equal(logprobs.chosen.id, 1);
    assert_int_equal(logprobs.count, 3); /* ties by id */
    assert_int_equal(logprobs.top[0].id, 1);
    assert_int_equal(logprobs.top[1].id, 2);
    assert_int_equal(logprobs.top[2].id, 0);
    NEAR(logprobs.top[2].logprob, log(exp(1) / z), 1e-6);
    nb_sampler_free(p);

    s.repetition_penalty = 2; /* positive scores shrink, negative grow, each seen id once */
    p = sampler(s, 5);
    nb_sampler_saw(p, (int32_t[]){ 1, 2, 1, 3 }, 4);
    memcpy(x, logits, sizeof x);
    assert_int_equal(nb_sampler_next(p, x, NULL), 1); /* 1.5 against 1 */
    NEAR(x[1], 1.5, 0);
    NEAR(x[3], -4, 0);
    nb_sampler_free(p);

    /* frequencies follow the softmax, top_k with ties keeps both, top_p drops the tail */
    struct {
        int    top_k;
        double top_p, want[5];
    } cases[] = {
        { 0, 1, { exp(1) / z, exp(3) / z, exp(3) / z, exp(-2) / z, 1 / z } },
        { 1 + 1, 1, { 0, 0.5, 0.5, 0, 0 } },
        { 0, 0.9, { 0, 0.5, 0.5, 0, 0 } }, /* the two best hold 0.914 */
        { 0, 0.95, { exp(1) / (z - 1 - exp(-2)), exp(3) / (z - 1 - exp(-2)), exp(3) / (z - 1 - exp(-2)), 0, 0 } },
    };
    for (size_t c = 0; c < NB_COUNT(cases); c++) {
        int hits[5] = { 0 };
        s = base;
        s.top_k = cases[c].top_k;
        s.top_p = cases[c].top_p;
        p = sampler(s, 5);
        for (int i = 0; i < 20000; i++) {
            memcpy(x, logits, sizeof x);
            hits[nb_sampler_next(p, x, NULL)]++;
        }
        for (int i = 0; i < 5; i++) NEAR(hits[i] / 20000.0, cases[c].want[i], 0.015);
        nb_sampler_free(p);
    }
}

static const nb_sampling plain = { .greedy = true, .top_p = 1, .temperature = 1, .repetition_penalty = 1 };

/* Presence counts once, frequency per occurrence, of the answer and not of the prompt; a bias is added. */
static void test_penalties(void **state)
{
    (void)state;
    const nb_token_bias bias[] = { { 3, 100 }, { 1, -1 } };
    nb_sampling s = plain;
    s.presence_penalty = 0.5;
    s.frequency_penalty = 0.25;
    float       x[4] = { 4, 3.9f, 0, 0 };
    nb_sampler *p = sampler(s, 4);
    nb_sampler_saw(p, (int32_t[]){ 0, 0 }, 2);
    assert_int_equal(nb_sampler_next(p, x, NULL), 0);
    NEAR(x[0], 4, 0); /* the prompt does not count */
    memcpy(x, (float[]){ 4, 3.9f, 0, 0 }, sizeof x);
    assert_int_equal(nb_sampler_next(p, x, NULL), 1);
    NEAR(x[0], 3.25, 0);
    memcpy(x, (float[]){ 4, 2, 0, 0 }, sizeof x);
    assert_int_equal(nb_sampler_next(p, x, NULL), 0);
    memcpy(x, (float[]){ 4, 2, 0, 0 }, sizeof x);
    nb_sampler_next(p, x, NULL);
    NEAR(x[0], 3, 0); /* 0.5 + 2 * 0.25 */
    NEAR(x[1], 1.25, 0);
    nb_sampler_free(p);

    s = plain;
    s.bias = bias;
    s.bias_count = 2;
    p = sampler(s, 4);
    memcpy(x, (float[]){ 4, 3, 0, -50 }, sizeof x);
    assert_int_equal(nb_sampler_next(p, x, NULL), 3);
    NEAR(x[1], 2, 0);
    nb_sampler_free(p);
}

/* What is not allowed or banned never comes, nor what min_p drops; nothing left is said, and so is NaN. */
static void test_limits(void **state)
{
    (void)state;
    uint64_t    allowed[2] = { 0, 1ull << 3 };
    int32_t     never[] = { 70, -1, 1000 };
    float       x[80];
    nb_sampling s = plain;
    s.greedy = false;
    s.seed = 3;
    nb_sampler *p = sampler(s, 80);
    for (int i = 0; i < 200; i++) {
        for (int k = 0; k < 80; k++) x[k] = (float)(k % 7);
        assert_int_equal(nb_sampler_next(p, x, &(nb_sampler_step){ .allowed = allowed }), 67);
    }
    for (int i = 0; i < 200; i++) {
        for (int k = 0; k < 80; k++) x[k] = k == 70 ? 10 : k == 71 ? 9 : 0;
        int32_t got = nb_sampler_next(p, x, &(nb_sampler_step){ .banned = never, .banned_count = 3 });
        assert_true(got >= 0 && got != 70);
    }
    allowed[1] = 0;
    memset(x, 0, sizeof x);
    assert_int_equal(nb_sampler_next(p, x, &(nb_sampler_step){ .allowed = allowed }), -1);
    for (int k = 0; k < 80; k++) x[k] = NAN;
    assert_int_equal(nb_sampler_next(p, x, NULL), -1);
    nb_sampler_free(p);

    s.min_p = 0.2; /* e^-1.61 */
    p = sampler(s, 80);
    bool second = false;
    for (int i = 0; i < 2000; i++) {
        for (int k = 0; k < 80; k++) x[k] = k == 5 ? 3 : k == 6 ? 1.5f : k == 7 ? 1.3f : -3;
        int32_t got = nb_sampler_next(p, x, NULL);
        assert_true(got == 5 || got == 6);
        second |= got == 6;
    }
    assert_true(second);
    nb_sampler_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_order), cmocka_unit_test(test_penalties), cmocka_unit_test(test_limits) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
