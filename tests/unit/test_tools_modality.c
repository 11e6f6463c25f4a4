/* --modality-weights and lists of artifacts as they are written on a command line. */
#include "unit.h"

#include "tools/artifact_flag.h"
#include "tools/modality_flag.h"

static void weights(void **state)
{
    (void)state;
    static const struct { const char *text; float want[3]; } good[] = {
        {"1:0.5:0.25", {1, 0.5f, 0.25f}}, {"1:0.5", {1, 0.5f, 0.5f}}, {"text=2,image=0.5", {2, 0.5f, 1}}, {"video=0", {1, 1, 0}},
        {"picture=3,text=0", {0, 3, 1}},
    };
    static const struct { const char *text, *part; } bad[] = {
        {"1", "is not T:I:V"}, {"1:2:3:4", "is not T:I:V"}, {"0:0:0", "weighs nothing"}, {"text=0,image=0,video=0", "weighs nothing"},
        {"text=1,text=2", "is there twice"}, {"audio=1", "is not text, image or video"}, {"text=1,image", "has no weight"},
        {"1:-1:1", "--modality-weights"}, {"a:b", "--modality-weights"}, {"text=nan", "--modality-weights"}, {"", "is not a number"},
    };
    nb_error err;
    float    got[3];
    bool     automatic;
    char     text[64];
    for (size_t i = 0; i < NB_COUNT(good); i++) {
        OK(nb_modality_parse(got, &automatic, good[i].text, &err), &err);
        assert_memory_equal(got, good[i].want, sizeof got);
        assert_false(automatic);
        nb_modality_text(text, got);
        OK(nb_modality_parse(got, &automatic, text, &err), &err); /* what a recipe holds reads back the same */
        assert_memory_equal(got, good[i].want, sizeof got);
    }
    OK(nb_modality_parse(got, &automatic, "auto", &err), &err);
    assert_true(automatic && got[0] == 1);
    for (size_t i = 0; i < NB_COUNT(bad); i++)
        if (nb_modality_parse(got, &automatic, bad[i].text, &err) != NB_ERR_ARGUMENT || !strstr(err.text, bad[i].part))
            fail_msg("'%s': %s", bad[i].text, err.text);
}

static void lists(void **state)
{
    (void)state;
    nb_error    err;
    char      **list;
    size_t      count;
    const char *given[] = {"a,b", "/tmp", "c"}, *empty[] = {"a,,b"};
    OK(nb_artifact_list(&list, &count, &(nb_strings){.items = given, .count = 3}, &err), &err);
    assert_int_equal(count, 4);
    assert_string_equal(list[1], "b");
    assert_string_equal(list[2], "/tmp");
    nb_artifact_list_free(list, count);
    FAILS(nb_artifact_list(&list, &count, &(nb_strings){.items = empty, .count = 1}, &err), NB_ERR_ARGUMENT, "an empty name", &err);
    assert_true(!list && !count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(weights), cmocka_unit_test(lists)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
