/* The calibration set on the demo model: which rows are taken, and that running many together is running each alone. */
#include "unit.h"

#include "calib/samples.h"
#include "calib/stats.h"
#include "runtime/io/file.h"
#include "temp_files.h"

static nb_pool  *pool;
static nb_ops    ops;
static nb_model *model;
static char      chats[1024];

static int open_model(void **state)
{
    (void)state;
    nb_error err;
    if (nb_pool_new(&pool, 2, &err)) return -1;
    nb_ops_init(&ops, nb_isa_detect(NB_ISA_LEVELS - 1), pool);
    snprintf(chats, sizeof chats, "%s", unit_path("tools/demo/calib/chat.jsonl"));
    if (nb_model_open(&model, unit_path("tools/demo/model"), &ops, 0, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    nb_model_close(model);
    nb_pool_free(pool);
    return clean_up(state);
}

static nb_samples_options demo(int samples)
{
    return (nb_samples_options){.path = chats, .samples = samples, .dataset = {.need_answer = true}};
}

static void first_rows(void **state)
{
    (void)state;
    nb_error           err;
    nb_samples         a, b;
    nb_samples_options o = demo(20);
    OK(nb_samples_load(&a, model, &o, &err), &err);
    assert_int_equal(a.count, 20);
    size_t   tokens = 0;
    uint64_t by[3] = {0};
    for (size_t i = 0; i < a.count; i++) {
        tokens += a.prompts[i].count;
        for (size_t t = 0; t < a.prompts[i].count; t++) by[a.prompts[i].modality[t]]++;
    }
    assert_int_equal(a.tokens, tokens);
    for (int m = 0; m < 3; m++) assert_int_equal(a.by_modality[m], by[m]);
    assert_true(by[NB_TOKEN_TEXT] && by[NB_TOKEN_IMAGE] && by[NB_TOKEN_VIDEO]); /* row 15 has a video */

    o.skip = 3;
    o.samples = 2;
    OK(nb_samples_load(&b, model, &o, &err), &err);
    assert_int_equal(b.count, 2);
    assert_int_equal(b.prompts[0].count, a.prompts[3].count);
    assert_memory_equal(b.prompts[1].ids, a.prompts[4].ids, a.prompts[4].count * sizeof(int32_t));
    assert_true(a.hash != b.hash);
    nb_samples_free(&b);

    o = demo(20);
    OK(nb_samples_load(&b, model, &o, &err), &err);
    assert_true(a.hash == b.hash);
    nb_samples_free(&b);
    nb_samples_free(&a);

    o.skip = 100000;
    FAILS(nb_samples_load(&a, model, &o, &err), NB_ERR_INPUT, "no row is left", &err);
    o = demo(-1);
    FAILS(nb_samples_load(&a, model, &o, &err), NB_ERR_ARGUMENT, "negative", &err);
}

/* Long rows are left out and replaced, counted, and never cut. */
static void long_rows_are_left_out(void **state)
{
    (void)state;
    nb_error           err;
    nb_samples         all, some;
    nb_samples_options o = demo(0);
    OK(nb_samples_load(&all, model, &o, &err), &err);
    assert_int_equal(all.count, 256);
    size_t fitting = 0, limit = all.prompts[0].count;
    for (size_t i = 0; i < all.count; i++) fitting += all.prompts[i].count <= limit;
    assert_true(fitting > 0 && fitting < 256);
    o.seq_len = limit;
    OK(nb_samples_load(&some, model, &o, &err), &err);
    assert_int_equal(some.count, fitting);
    assert_int_equal(some.too_long, 256 - fitting);
    nb_samples_free(&some);
    o.shuffle = true;
    o.samples = (int)fitting;
    OK(nb_samples_load(&some, model, &o, &err), &err);
    assert_int_equal(some.count, fitting);
    nb_samples_free(&some);
    o.seq_len = 1;
    FAILS(nb_samples_load(&some, model, &o, &err), NB_ERR_INPUT, "256 longer than 1 tokens", &err);
    nb_samples_free(&all);
}

static void seeds_choose(void **state)
{
    (void)state;
    nb_error           err;
    nb_samples         a, b, all;
    nb_samples_options o = demo(12);
    o.shuffle = true;
    o.seed = 1;
    OK(nb_samples_load(&a, model, &o, &err), &err);
    OK(nb_samples_load(&b, model, &o, &err), &err);
    assert_int_equal(a.count, 12);
    assert_true(a.hash == b.hash);
    nb_samples_free(&b);
    o.seed = 2;
    OK(nb_samples_load(&b, model, &o, &err), &err);
    assert_true(a.hash != b.hash);
    nb_samples_free(&b);
    nb_samples_free(&a);

    /* All rows drawn are all rows, once each, in the order of the file. */
    o.samples = 0;
    OK(nb_samples_load(&a, model, &o, &err), &err);
    o.shuffle = false;
    OK(nb_samples_load(&all, model, &o, &err), &err);
    assert_true(a.hash == all.hash);
    nb_samples_free(&a);
    nb_samples_free(&all);
}

typedef struct {
    size_t   rows[NB_SITES];
    size_t   samples;     /* of the first site */
    uint64_t modality[3]; /* of the first site */
    double   sum;         /* of all inputs: depends on the order of tokens only through rounding */
} watcher;

static void watch(void *context, nb_site site, const float *x, size_t ld, int k, const nb_sample_rows *rows)
{
    watcher *w = context;
    size_t   n = rows->bounds[rows->count];
    w->rows[site] += n;
    if (site == NB_SITE_QKV) w->samples += rows->count;
    for (size_t r = 0; r < n; r++) {
        if (site == NB_SITE_QKV) w->modality[rows->modality[r]]++;
        for (int i = 0; i < k; i++) w->sum += fabs((double)x[r * ld + (size_t)i]);
    }
}

/* Batches of many samples against each sample on its own: the same bits. */
static void company_changes_nothing(void **state)
{
    (void)state;
    nb_error           err;
    nb_samples         all, one;
    nb_samples_options o = demo(24);
    OK(nb_samples_load(&all, model, &o, &err), &err);
    OK(nb_samples_embed(&all, model, &err), &err);
    for (int j = 0; j < all.prompts[0].media_count; j++) assert_null(all.prompts[0].media[j].rows); /* freed */
    assert_true(all.tokens > 1024); /* more than one batch */
    watcher       w = {0};
    nb_sample_tap tap = {.site = watch, .context = &w};
    float         first = all.hidden[5][7];
    OK(nb_samples_layer(&all, model, &model->layers[0], &tap, false, &err), &err);
    NEAR(all.hidden[5][7], first, 0); /* a pass for statistics changes nothing */
    for (int site = 0; site < NB_SITES; site++) assert_int_equal(w.rows[site], all.tokens);
    assert_int_equal(w.samples, all.count);
    for (int m = 0; m < 3; m++) assert_int_equal(w.modality[m], all.by_modality[m]);
    for (int l = 0; l < 2; l++) OK(nb_samples_layer(&all, model, &model->layers[l], NULL, true, &err), &err);

    for (size_t i = 0; i < all.count; i += 5) {
        o = demo(1);
        o.skip = (int)i;
        OK(nb_samples_load(&one, model, &o, &err), &err);
        OK(nb_samples_embed(&one, model, &err), &err);
        for (int l = 0; l < 2; l++) OK(nb_samples_layer(&one, model, &model->layers[l], NULL, true, &err), &err);
        assert_int_equal(one.tokens, all.prompts[i].count);
        assert_memory_equal(one.hidden[0], all.hidden[i], one.tokens * (size_t)model->config.hidden * sizeof(float));
        nb_samples_free(&one);
    }
    nb_samples_free(&all);
}

/* One sample with a picture through nb_layer_forward called by hand, with its own three rows of positions. */
static void layer_is_the_decoder_layer(void **state)
{
    (void)state;
    nb_error           err;
    nb_samples         s;
    nb_samples_options o = demo(1);
    const nb_config   *c = &model->config;
    OK(nb_samples_load(&s, model, &o, &err), &err);
    OK(nb_samples_embed(&s, model, &err), &err);
    const nb_prompt *p = &s.prompts[0];
    assert_true(s.by_modality[NB_TOKEN_IMAGE] > 0);
    assert_true(memcmp(p->position, p->position + p->count, p->count * sizeof *p->position) != 0); /* T and H differ */

    size_t      pages = (p->count + NB_KV_PAGE - 1) / NB_KV_PAGE, half = (size_t)c->kv_heads * NB_KV_PAGE * (size_t)c->head_dim * 4;
    size_t      bytes = p->count * (size_t)c->hidden * sizeof(float);
    char       *memory = ops.alloc(&ops, pages * 2 * half);
    float      *x = ops.alloc(&ops, bytes);
    void      **page = malloc(pages * sizeof *page);
    nb_scratch *scratch;
    for (size_t i = 0; i < pages; i++) page[i] = memory + i * 2 * half;
    memcpy(x, s.hidden[0], bytes);
    OK(nb_scratch_new(&scratch, model, p->count, &err), &err);
    nb_rope_prepare(model, scratch, p->position, p->count, p->count);
    nb_attn attn = {c->heads, c->kv_heads, c->head_dim, 1.0f / sqrtf((float)c->head_dim), NB_F32, 0, half};
    nb_span span = {0, p->count, 0, page};
    nb_layer_forward(model, &model->layers[0], scratch, &attn, &span, 1, x, p->count, NULL, NULL);
    OK(nb_samples_layer(&s, model, &model->layers[0], NULL, true, &err), &err);
    assert_memory_equal(s.hidden[0], x, bytes);
    nb_scratch_free(scratch);
    ops.free(&ops, memory);
    ops.free(&ops, x);
    free(page);
    nb_samples_free(&s);
}

/* Four conversations, two of them with the first picture in another company: the tower sees two pictures, and every row of states is
 * what embedding each conversation on its own gives. */
static void a_picture_is_embedded_once(void **state)
{
    (void)state;
    nb_error    err;
    nb_samples  s, with_spool;
    char        spool[128];
    const char *path = write_file("again.jsonl",
        "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\", \"image\": \"chat-0001-0.png\"}]}, {\"role\": \"assistant\", \"content\": \"A\"}]}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\", \"image\": \"chat-0001-1.png\"}, {\"type\": \"image\", \"image\": \"chat-0001-0.png\"}]}, {\"role\": \"assistant\", \"content\": \"B\"}]}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": \"words\"}, {\"role\": \"assistant\", \"content\": \"C\"}]}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\", \"image\": \"chat-0001-0.png\"}]}, {\"role\": \"assistant\", \"content\": \"D\"}]}\n");
    const nb_data_source source = {.path = path, .weight = 1};
    nb_samples_options o = {.sources = &source, .source_count = 1, .dataset = {.need_answer = true, .image_root = unit_path("tools/demo/calib/images")}};
    o.prompt.media.root = o.dataset.image_root;
    OK(nb_samples_load(&s, model, &o, &err), &err);
    float *alone[4];
    for (int i = 0; i < 4; i++) OK(nb_prompt_embed(model, &s.prompts[i], &alone[i], &err), &err);
    OK(nb_samples_embed(&s, model, &err), &err);
    assert_int_equal(s.count, 4);
    assert_int_equal(s.pictures, 4);
    assert_int_equal(s.pictures_new, 2);
    snprintf(spool, sizeof spool, "%s/spool", folder);
    o.spool = spool;
    OK(nb_samples_load(&with_spool, model, &o, &err), &err);
    OK(nb_samples_embed(&with_spool, model, &err), &err);
    assert_int_equal(with_spool.pictures_new, 2);
    for (size_t i = 0; i < 4; i++) {
        size_t values = s.prompts[i].count * (size_t)model->config.hidden;
        float *back = malloc(values * sizeof *back);
        assert_memory_equal(s.hidden[i], alone[i], values * sizeof(float));
        OK(nb_spool_get(with_spool.spool, i, back, values, &err), &err);
        assert_memory_equal(back, alone[i], values * sizeof(float));
        free(back);
        free(alone[i]);
    }
    nb_samples_free(&with_spool);
    nb_samples_free(&s);
}

/* A pass that wants the first sites only: the same inputs at those, none at the others, and states as they were. */
static void a_pass_ends_after_the_wanted_sites(void **state)
{
    (void)state;
    nb_error           err;
    nb_samples         s;
    nb_samples_options o = demo(6);
    OK(nb_samples_load(&s, model, &o, &err), &err);
    OK(nb_samples_embed(&s, model, &err), &err);
    for (int sites = 1; sites <= NB_SITES; sites++) {
        watcher       part = {0};
        nb_sample_tap tap = {.site = watch, .context = &part, .sites = sites};
        float         first = s.hidden[5][7];
        OK(nb_samples_layer(&s, model, &model->layers[0], &tap, false, &err), &err);
        for (int site = 0; site < NB_SITES; site++) assert_int_equal(part.rows[site], site < sites ? s.tokens : 0);
        NEAR(s.hidden[5][7], first, 0);
    }
    watcher       all = {0}, again = {0};
    nb_sample_tap to_end = {.site = watch, .context = &all}, kept = {.site = watch, .context = &again, .sites = 1};
    OK(nb_samples_layer(&s, model, &model->layers[0], &to_end, false, &err), &err);
    OK(nb_samples_layer(&s, model, &model->layers[0], &kept, true, &err), &err); /* what is kept is computed to the end */
    NEAR(again.sum, all.sum, 0);
    nb_samples_free(&s);
}

enum { LOOKED = 5 }; /* inputs whose products are summed by hand */

typedef struct {
    const nb_samples *set;
    nb_stats          stats;
    double            sum[LOOKED][LOOKED], scale, weight;
    size_t            sample, token, kinds[NB_TOKEN_KINDS];
} answer_watcher;

/* Tokens come in order, so which of them belong to answers is known here without asking the tap. */
static void watch_answers(void *context, nb_site site, const float *x, size_t ld, int k, const nb_sample_rows *rows)
{
    answer_watcher *w = context;
    (void)k;
    if (site != NB_SITE_QKV) return;
    nb_stats_add(&w->stats, &ops, x, ld, rows);
    for (size_t r = 0; r < rows->bounds[rows->count]; r++) {
        const nb_prompt *p = &w->set->prompts[w->sample];
        double           weight = !p->answer[w->token] ? 0 : p->modality[w->token] == NB_TOKEN_IMAGE ? 2 : 1;
        w->kinds[rows->modality[r]]++;
        assert_int_equal(rows->modality[r] == NB_TOKEN_UNCOUNTED, !p->answer[w->token]);
        w->weight += weight;
        for (int i = 0; i < LOOKED; i++)
            for (int j = i; j < LOOKED; j++) w->sum[i][j] += weight * (double)x[r * ld + (size_t)i] * x[r * ld + (size_t)j];
        for (int i = 0; i < LOOKED; i++) w->scale += fabs((double)x[r * ld + (size_t)i]);
        if (++w->token == p->count) w->token = 0, w->sample++;
    }
}

/* Only answers count: what the tap says, the sums that come of it, and the identity; the states are those of all tokens. */
static void answers_alone_count(void **state)
{
    (void)state;
    nb_error           err;
    nb_samples         all, some;
    nb_samples_options o = demo(30);
    OK(nb_samples_load(&all, model, &o, &err), &err);
    for (int m = 0; m < 3; m++) assert_int_equal(all.counted[m], all.by_modality[m]);
    o.answers_only = true;
    OK(nb_samples_load(&some, model, &o, &err), &err);
    OK(nb_samples_embed(&some, model, &err), &err);
    assert_true(some.hash != all.hash);
    assert_int_equal(some.tokens, all.tokens);
    size_t answers = 0;
    for (size_t i = 0; i < some.count; i++)
        for (size_t t = 0; t < some.prompts[i].count; t++) answers += some.prompts[i].answer[t];
    assert_true(answers > 0 && answers < some.tokens / 2);
    assert_int_equal(some.counted[0] + some.counted[1] + some.counted[2], answers);
    answer_watcher w = {.set = &some};
    nb_sample_tap  tap = {.site = watch_answers, .context = &w};
    OK(nb_stats_init(&w.stats, model->config.hidden, (const float[]){1, 2, 1}, &err), &err);
    OK(nb_samples_layer(&some, model, &model->layers[0], &tap, false, &err), &err);
    assert_int_equal(w.sample, some.count);
    assert_int_equal(w.kinds[NB_TOKEN_UNCOUNTED], some.tokens - answers);
    assert_int_equal(w.stats.tokens[NB_TOKEN_UNCOUNTED], some.tokens - answers);
    for (int m = 0; m < 3; m++) assert_int_equal(w.stats.tokens[m], some.counted[m]);
    OK(nb_stats_finish(&w.stats, pool, &err), &err);
    NEAR(w.stats.weight, w.weight, 1e-9 * w.weight);
    for (int i = 0; i < LOOKED; i++)
        for (int j = i; j < LOOKED; j++)
            NEAR(w.stats.gram[(size_t)i * (size_t)model->config.hidden + (size_t)j], w.sum[i][j] / w.weight, 1e-5 * w.scale / w.weight);
    nb_stats_free(&w.stats);
    nb_samples_free(&some);
    nb_samples_free(&all);
}

/* Several files: the counts of each, and an identity that knows all of them. */
static void sources_are_counted(void **state)
{
    (void)state;
    nb_error             err;
    nb_samples           s;
    uint64_t             hash[4];
    nb_data_source       two[2] = {{.path = chats, .weight = 3}, {.path = unit_path("tools/demo/calib/sharegpt.json"), .weight = 1}};
    const nb_data_source swapped[2] = {two[1], two[0]};
    for (int i = 0; i < 4; i++) {
        nb_samples_options o = {.sources = i == 3 ? swapped : two, .source_count = 2, .samples = 8, .seq_len = 200};
        two[1].weight = i == 2 ? 3 : 1;
        OK(nb_samples_load(&s, model, &o, &err), &err);
        hash[i] = s.hash;
        assert_int_equal(s.count, 8);
        assert_int_equal(s.source_count, 2);
        assert_int_equal(s.by_source[0].samples, i == 2 ? 4 : i == 3 ? 2 : 6);
        assert_int_equal(s.by_source[0].samples + s.by_source[1].samples, 8);
        assert_int_equal(s.by_source[0].too_long + s.by_source[1].too_long, s.too_long);
        size_t tokens = 0;
        for (size_t k = 0; k < s.by_source[0].samples; k++) tokens += s.prompts[k].count;
        assert_int_equal(s.by_source[0].tokens, tokens);
        for (int m = 0; m < 3; m++) assert_int_equal(s.by_source[0].by_modality[m] + s.by_source[1].by_modality[m], s.by_modality[m]);
        nb_samples_free(&s);
    }
    assert_true(hash[0] == hash[1] && hash[0] != hash[2] && hash[0] == hash[3]); /* the order of samples is none of it */
    FAILS(nb_samples_load(&s, model, &(nb_samples_options){.samples = 8}, &err), NB_ERR_ARGUMENT, "no data files", &err);
}

typedef struct {
    char   where[300][64];
    size_t count;
} seen_rows;

static nb_status see(void *context, const nb_chat *chat, const nb_prompt *prompt, const char *root, const char *where, nb_error *err)
{
    seen_rows *s = context;
    (void)err;
    assert_true(chat->count >= 2 && prompt->count > 0 && strstr(root, "calib"));
    snprintf(s->where[s->count++], sizeof s->where[0], "%s", strstr(where, " line "));
    return NB_OK;
}

static seen_rows rows_of(nb_samples_options o)
{
    static seen_rows rows;
    nb_error         err;
    nb_samples       s;
    memset(&rows, 0, sizeof rows);
    o.seen = see;
    o.seen_context = &rows;
    OK(nb_samples_load(&s, model, &o, &err), &err);
    assert_int_equal(s.count, rows.count);
    nb_samples_free(&s);
    return rows;
}

/* Rows that are held are never calibrated on, those that calibration takes do not change for it, and together they are the file. */
static void held_rows_are_the_others(void **state)
{
    (void)state;
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        nb_samples_options o = demo(0);
        o.seq_len = 60; /* most rows are longer: those that calibration passes over must not eat into the held ones */
        o.shuffle = shuffle;
        o.seed = 5;
        o.skip = 6;
        seen_rows all = rows_of(o);
        o.hold = 90;
        o.total = shuffle ? 0 : 256;
        seen_rows taken = rows_of(o);
        o.held = true;
        seen_rows held = rows_of(o);
        assert_true(held.count > 10 && taken.count > 10);
        assert_int_equal(taken.count + held.count, all.count);
        for (size_t i = 0; i < held.count; i++)
            for (size_t j = 0; j < taken.count; j++) assert_string_not_equal(held.where[i], taken.where[j]);
        o.samples = 7;
        assert_int_equal(rows_of(o).count, 7);
        o.held = false;
        seen_rows few = rows_of(o);
        o.hold = 0;
        seen_rows same = rows_of(o);
        assert_memory_equal(&few, &same, sizeof few);
        o.held = true; /* none are */
        nb_error   err;
        nb_samples s;
        FAILS(nb_samples_load(&s, model, &o, &err), NB_ERR_INPUT, "no row is left to judge on", &err);
        o.hold = 100000; /* more than there are */
        o.samples = 0;
        assert_int_equal(rows_of(o).count, all.count);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_rows),   cmocka_unit_test(long_rows_are_left_out),
        cmocka_unit_test(seeds_choose), cmocka_unit_test(company_changes_nothing),
        cmocka_unit_test(layer_is_the_decoder_layer), cmocka_unit_test(a_picture_is_embedded_once),
        cmocka_unit_test(a_pass_ends_after_the_wanted_sites), cmocka_unit_test(held_rows_are_the_others),
        cmocka_unit_test(sources_are_counted),
        cmocka_unit_test(answers_alone_count),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
