/* Shares of several data files: the arithmetic against a definition in whole numbers, and which rows come in what order. */
#include "unit.h"

#include "calib/mix.h"
#include "temp_files.h"

/* Largest remainders with weights that are whole numbers, in integer arithmetic. */
static void shares_by_hand(size_t *take, size_t samples, const size_t *weight, const bool *able, size_t count)
{
    size_t total = 0, given = 0, rest[8];
    for (size_t i = 0; i < count; i++) total += able[i] ? weight[i] : 0;
    for (size_t i = 0; i < count; i++) {
        take[i] = total && able[i] ? samples * weight[i] / total : 0;
        rest[i] = total && able[i] ? samples * weight[i] % total : 0;
        given += take[i];
    }
    for (; total && given < samples; given++) {
        size_t best = 0;
        for (size_t i = 1; i < count; i++)
            if (rest[i] > rest[best]) best = i;
        take[best]++;
        rest[best] = 0;
    }
}

static void shares_are_exact_to_a_row(void **state)
{
    (void)state;
    uint64_t random = 1;
    for (int round = 0; round < 20000; round++) {
        nb_data_source sources[8];
        size_t         weight[8], got[8], want[8], count = 1 + unit_random(&random) % 8, samples = unit_random(&random) % 3000, sum = 0;
        bool           able[8], any = false;
        for (size_t i = 0; i < count; i++) {
            weight[i] = 1 + unit_random(&random) % (round % 2 ? 9 : 1000);
            able[i] = unit_random(&random) % 4 != 0;
            any = any || able[i];
            sources[i] = (nb_data_source){.path = "x", .weight = (double)weight[i] * (round % 3 ? 1 : 0.125)};
        }
        nb_mix_shares(got, samples, sources, able, count);
        shares_by_hand(want, samples, weight, able, count);
        double total = 0;
        for (size_t i = 0; i < count; i++) total += able[i] ? (double)weight[i] : 0;
        for (size_t i = 0; i < count; i++) {
            sum += got[i];
            if (!able[i]) assert_int_equal(got[i], 0);
            else NEAR((double)got[i], (double)samples * (double)weight[i] / total, 1);
            /* Equal remainders may fall either way by a rounding of the quotient; otherwise it is the same row. */
            if (got[i] != want[i] && round % 2) NEAR((double)got[i], (double)want[i], 1);
        }
        assert_int_equal(sum, any ? samples : 0);
    }
    size_t         take[3];
    nb_data_source three[3] = {{.weight = 1}, {.weight = 1}, {.weight = 1}};
    nb_mix_shares(take, 128, three, NULL, 3);
    assert_true(take[0] == 43 && take[1] == 43 && take[2] == 42); /* the earlier ones first */
    three[0].weight = 2;
    nb_mix_shares(take, 8, three, NULL, 3);
    assert_true(take[0] == 4 && take[1] == 2 && take[2] == 2);
}

static void write_rows(char path[160], const char *name, int count)
{
    nb_buf text = {0};
    for (int i = 0; i < count; i++)
        nb_buf_printf(&text, "{\"messages\":[{\"role\":\"user\",\"content\":\"%.1s%d\"},{\"role\":\"assistant\",\"content\":\"A\"}]}\n", name, i);
    snprintf(path, 160, "%s", write_file(name, text.data));
    nb_buf_free(&text);
}

/* "a0 a1 b0 " of the rows that come; every `drop`th row is not taken (0: all are). */
static nb_status read_mix(nb_buf *out, const nb_data_source *sources, size_t count, const nb_mix_options *o, int drop, nb_error *err)
{
    nb_mix *m;
    bool    end = false;
    nb_buf_clear(out);
    nb_buf_str(out, "");
    NB_TRY(nb_mix_open(&m, sources, count, o, err));
    nb_status status = NB_OK;
    for (int i = 1; !status && !end; i++) {
        nb_chat chat;
        char    where[256];
        size_t  source;
        status = nb_mix_next(m, &chat, where, &source, &end, err);
        if (!status && !end && (!drop || i % drop)) {
            const char *text = chat.messages[0].parts[0].text;
            assert_true((size_t)(text[0] - 'a') == source);
            assert_true(strstr(where, sources[source].path) != NULL);
            nb_buf_printf(out, "%s ", text);
            nb_mix_took(m);
        }
        nb_chat_free(&chat);
    }
    nb_mix_close(m);
    return status;
}

static void rows_come_by_share(void **state)
{
    (void)state;
    char           path[3][160];
    nb_error       err;
    nb_buf         got = {0}, again = {0};
    nb_mix_options o = {.samples = 8};
    write_rows(path[0], "a.jsonl", 10);
    write_rows(path[1], "b.jsonl", 3);
    write_rows(path[2], "c.jsonl", 20);
    nb_data_source s[3] = {{.path = path[0], .weight = 2}, {.path = path[1], .weight = 1}, {.path = path[2], .weight = 1}};
    OK(read_mix(&got, s, 3, &o, 0, &err), &err);
    assert_string_equal(got.data, "a0 a1 a2 a3 b0 b1 c0 c1 ");
    o.skip = 2; /* b has one row left: the others make up for the second */
    OK(read_mix(&got, s, 3, &o, 0, &err), &err);
    assert_string_equal(got.data, "a2 a3 a4 a5 b2 c2 c3 a6 ");
    o = (nb_mix_options){.samples = 20}; /* 10 + 5 + 5, b gives 3; a is empty then, c gives the rest */
    OK(read_mix(&got, s, 3, &o, 0, &err), &err);
    assert_string_equal(got.data, "a0 a1 a2 a3 a4 a5 a6 a7 a8 a9 b0 b1 b2 c0 c1 c2 c3 c4 c5 c6 ");
    o.samples = 1000;
    OK(read_mix(&got, s, 3, &o, 0, &err), &err);
    assert_int_equal(got.size, 33 * 3 + 10); /* all of them: two digits for c10 .. c19 */
    o.samples = 0;
    OK(read_mix(&again, s, 3, &o, 0, &err), &err);
    assert_int_equal(again.size, got.size);
    o.samples = 8; /* a row that is not used is replaced from the same file; b has only one of two, and a makes up for it */
    OK(read_mix(&got, s, 3, &o, 2, &err), &err);
    assert_string_equal(got.data, "a0 a2 a4 a6 b1 c0 c2 a8 ");

    /* Drawn: the shares hold, nothing comes twice, the seed decides, and the first file is drawn as if it were alone. */
    o = (nb_mix_options){.samples = 8, .shuffle = true, .seed = 7};
    OK(read_mix(&got, s, 3, &o, 0, &err), &err);
    OK(read_mix(&again, s, 3, &o, 0, &err), &err);
    assert_string_equal(got.data, again.data);
    int of[3] = {0};
    for (char *p = got.data; *p; p = strchr(p, ' ') + 1) of[*p - 'a']++;
    assert_true(of[0] == 4 && of[1] == 2 && of[2] == 2);
    nb_buf alone = {0};
    o.samples = 4;
    OK(read_mix(&alone, s, 1, &o, 0, &err), &err);
    assert_memory_equal(alone.data, got.data, alone.size);
    o.samples = 8;
    o.seed = 8;
    OK(read_mix(&again, s, 3, &o, 0, &err), &err);
    assert_string_not_equal(got.data, again.data);
    o.samples = 33; /* all rows, each once */
    OK(read_mix(&got, s, 3, &o, 0, &err), &err);
    assert_int_equal(got.size, 33 * 3 + 10);
    for (int i = 0; i < 20; i++) {
        char row[16];
        snprintf(row, sizeof row, "c%d ", i);
        assert_non_null(strstr(got.data, row));
    }
    nb_buf_free(&alone);
    nb_buf_free(&got);
    nb_buf_free(&again);
}

/* Rows held back: the last of each file in order, the last of each draw with shuffle; never given to the others, whatever runs dry. */
static void held_rows_stay_apart(void **state)
{
    (void)state;
    nb_error       err;
    nb_buf         taken = {0}, held = {0}, all = {0};
    char           a[160], b[160];
    write_rows(a, "a.jsonl", 6);
    write_rows(b, "b.jsonl", 5);
    nb_data_source two[2] = {{.path = a, .weight = 1, .hold = 2, .total = 6}, {.path = b, .weight = 1, .hold = 1}}; /* b is not counted yet */
    nb_mix_options o = {.skip = 1};
    OK(read_mix(&taken, two, 2, &o, 0, &err), &err);
    assert_string_equal(taken.data, "a1 a2 a3 b1 b2 b3 ");
    o.held = true;
    OK(read_mix(&held, two, 2, &o, 0, &err), &err);
    assert_string_equal(held.data, "a4 a5 b4 ");
    o = (nb_mix_options){.skip = 1, .samples = 20}; /* more than there are: the shortfall does not reach the held ones */
    OK(read_mix(&taken, two, 2, &o, 0, &err), &err);
    assert_string_equal(taken.data, "a1 a2 a3 b1 b2 b3 ");
    o.samples = 5;
    OK(read_mix(&taken, two, 2, &o, 2, &err), &err); /* every other row is not taken, and nothing else may come in its place */
    assert_null(strstr(taken.data, "a4"));
    assert_null(strstr(taken.data, "a5"));
    assert_null(strstr(taken.data, "b4"));

    for (int few = 0; few < 2; few++) {
        o = (nb_mix_options){.shuffle = true, .seed = 3, .samples = few ? 3 : 0};
        OK(read_mix(&taken, two, 2, &o, 0, &err), &err);
        o.held = true;
        o.samples = 0;
        OK(read_mix(&held, two, 2, &o, 0, &err), &err);
        assert_int_equal(held.size, 9);
        for (size_t i = 0; i < held.size; i += 3) {
            char word[4] = {held.data[i], held.data[i + 1], ' ', 0};
            assert_null(strstr(taken.data, word));
        }
        if (!few) assert_int_equal(taken.size + held.size, 11 * 3);
        nb_data_source whole[2] = {two[0], two[1]}; /* what is drawn before them does not depend on them */
        whole[0].hold = whole[1].hold = 0;
        o.held = false;
        o.samples = few ? 3 : 0;
        OK(read_mix(&all, whole, 2, &o, 0, &err), &err);
        if (few) assert_string_equal(all.data, taken.data);
    }

    /* Rows that are not held need not be readable for those that are. */
    char c[160];
    snprintf(c, sizeof c, "%s", write_file("a2.jsonl", "{\"messages\": 7}\n{\"messages\": [{\"role\": \"user\", \"content\": \"a1\"}]}\n"));
    nb_data_source broken = {.path = c, .weight = 1, .hold = 1, .total = 2};
    o = (nb_mix_options){.held = true};
    OK(read_mix(&held, &broken, 1, &o, 0, &err), &err);
    assert_string_equal(held.data, "a1 ");
    o.held = false;
    FAILS(read_mix(&taken, &broken, 1, &o, 0, &err), NB_ERR_INPUT, "line 1", &err);
    nb_buf_free(&taken);
    nb_buf_free(&held);
    nb_buf_free(&all);
}

static void what_cannot_be_mixed(void **state)
{
    (void)state;
    char           path[160];
    nb_error       err;
    nb_buf         got = {0};
    nb_mix_options o = {.samples = 4};
    write_rows(path, "a.jsonl", 3);
    nb_data_source s[2] = {{.path = path, .weight = 1}, {.path = path, .weight = 0}};
    FAILS(read_mix(&got, s, 2, &o, 0, &err), NB_ERR_ARGUMENT, "its weight is 0", &err);
    s[1].weight = NAN;
    FAILS(read_mix(&got, s, 2, &o, 0, &err), NB_ERR_ARGUMENT, "its weight is nan", &err);
    s[1] = (nb_data_source){.path = "/nowhere/b.jsonl", .weight = 1};
    FAILS(read_mix(&got, s, 2, &o, 0, &err), NB_ERR_INPUT, "/nowhere/b.jsonl", &err);
    o.shuffle = true;
    FAILS(read_mix(&got, s, 2, &o, 0, &err), NB_ERR_INPUT, "/nowhere/b.jsonl", &err);
    nb_buf_free(&got);
}

/* Rows in memory are those of a file. */
static void rows_in_memory(void **state)
{
    (void)state;
    static const char rows[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"a0\"},{\"role\":\"assistant\",\"content\":\"A\"}]}\n"
                               "{\"messages\":[{\"role\":\"user\",\"content\":\"a1\"},{\"role\":\"assistant\",\"content\":\"A\"}]}\n";
    nb_error       err;
    nb_buf         got = {0};
    nb_mix_options o = {.dataset.form = NB_DATA_ALPACA}; /* what is said of files does not hold for it */
    nb_data_source s = {.path = "built-in", .weight = 1, .bytes = rows, .size = sizeof rows - 1};
    OK(read_mix(&got, &s, 1, &o, 0, &err), &err);
    assert_string_equal(got.data, "a0 a1 ");
    s.size -= 10;
    FAILS(read_mix(&got, &s, 1, &o, 0, &err), NB_ERR_INPUT, "built-in: line 2", &err);
    o.shuffle = true;
    s.size += 10;
    OK(read_mix(&got, &s, 1, &o, 0, &err), &err);
    assert_int_equal(got.size, 6);
    nb_buf_free(&got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(shares_are_exact_to_a_row), cmocka_unit_test(rows_come_by_share), cmocka_unit_test(held_rows_stay_apart),
                                       cmocka_unit_test(what_cannot_be_mixed), cmocka_unit_test(rows_in_memory)};
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
