/* test_text_template.c - a checkpoint's own chat template: the published one is known, any other is said. */
#include "runtime/text/chat.h"
#include "temp_files.h"

static const char *notes_of(const char *directory)
{
    static nb_buf notes;
    nb_error      err;
    nb_buf_clear(&notes);
    OK(nb_template_check(directory, &notes, &err), &err);
    return notes.size ? notes.data : "";
}

static void test_template(void **state)
{
    (void)state;
    nb_error err;
    nb_buf   notes = { 0 }, file = { 0 };
    assert_string_equal(notes_of(unit_path("tools/demo/model")), "");
    assert_string_equal(notes_of(unit_path("tests/golden")), ""); /* none at all */

    write_file("chat_template.json", "{\"chat_template\": \"{{ messages }}\"}");
    assert_non_null(strstr(notes_of(folder), "chat_template.json holds a chat template of its own"));

    OK(nb_file_read(&file, unit_path("tools/demo/model/chat_template.json"), 1 << 20, &err), &err);
    write_file("chat_template.json", file.data);
    write_file("tokenizer_config.json", "{\"chat_template\": \"other\"}"); /* chat_template.json wins */
    assert_string_equal(notes_of(folder), "");
    write_file("chat_template.json", "{\"chat_template\": null}");
    assert_non_null(strstr(notes_of(folder), "tokenizer_config.json holds"));
    write_file("chat_template.json", "{\"chat_template\"");
    FAILS(nb_template_check(folder, &notes, &err), NB_ERR_INPUT, "chat_template.json", &err);
    nb_buf_free(&notes);
    nb_buf_free(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_template) };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
