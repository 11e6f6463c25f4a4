/* test_tools_program.c - the program as a whole, run in this process with its standard streams on files: exit codes, what goes
 * to which stream, and inspect, doctor, run, chat and quantize on the demo checkpoint. */
#include "unit.h"

#include <sys/stat.h>

#include "program.h"
#include "temp_files.h"

static void test_program_codes(void **state)
{
    (void)state;
    assert_int_equal(run_program(NULL, 0, NULL), 2);
    holds(printed[1], "nibble --help");
    assert_int_equal(PROGRAM(NULL, "--version"), 0);
    holds(printed[0], "nibble ");
    assert_int_equal(PROGRAM(NULL, "--help"), 0);
    for (size_t i = 0; i < nb_command_count; i++) holds(printed[0], nb_commands[i]->summary);
    assert_int_equal(PROGRAM(NULL, "quantise", "x"), 2);
    holds(printed[1], "nibble: error: unknown command 'quantise'; did you mean 'quantize'?");
    assert_string_equal(printed[0], "");
    assert_int_equal(PROGRAM(NULL, "help", "run"), 0);
    holds(printed[0], "Usage: nibble run");
    assert_int_equal(PROGRAM(NULL, "run", "--help=all"), 0);
    holds(printed[0], "Exit codes:");
    assert_int_equal(PROGRAM(NULL, "run", "m", "-p", "x", "--tmep", "1", "--json"), 2);
    holds(printed[0], "{\"error\": {\"message\": \"unknown flag '--tmep'; did you mean '--temp'?\"");
    holds(printed[0], "\"exit_code\": 2}}");
    assert_int_equal(PROGRAM(NULL, "run", "/nowhere", "-p", "x"), 5);
    assert_int_equal(PROGRAM(NULL, "inspect", "/nowhere"), 5);
    assert_int_equal(PROGRAM(NULL, "run", "m"), 2);
    assert_int_equal(PROGRAM(NULL, "run", "m", "-p", "x", "--messages", "y"), 2);
    assert_int_equal(PROGRAM(NULL, "quantize", "m", "--out", "/nowhere/x"), 2);
    holds(printed[1], "--data is missing");
    assert_int_equal(PROGRAM(NULL, "quantize", "m", "--out", "/tmp", "--data", "x"), 2);
    holds(printed[1], "--out /tmp exists");
    assert_int_equal(PROGRAM(NULL, "quantize", "m", "--out", "/nowhere/x", "--data", "x", "--bits", "8"), 2);
    holds(printed[1], "awq format holds 4 bits only");
    assert_int_equal(PROGRAM(NULL, "quantize", "m", "--out", "/nowhere/x", "--data", "x", "--modality-weights", "1"), 2);
    holds(printed[1], "is not T:I:V");
    assert_int_equal(PROGRAM(NULL, "quantize", unit_path("tools/demo/model"), "--out", "/nowhere/x", "--data", "x",
                             "--modality-weights", "1:x"),
                     2);
    holds(printed[1], "--modality-weights: 'x'");
    assert_int_equal(PROGRAM(NULL, "run", "m", "-p", "x", "--device", "cuda"), 5);
}

static void test_inspect(void **state)
{
    (void)state;
    nb_error err = {0};
    cJSON   *tree;
    assert_int_equal(PROGRAM(NULL, "inspect", unit_path("tools/demo/model"), "--json", "--tensors", "--filter",
                             "^model\\.layers\\.0\\.mlp"),
                     0);
    OK(nb_json_parse(&tree, printed[0], strlen(printed[0]), "inspect", &err), &err);
    const cJSON *text = nb_json_find(tree, "text"), *all = NULL, *part;
    assert_int_equal(nb_json_find(text, "layers")->valueint, 6);
    assert_int_equal(cJSON_GetArraySize(nb_json_find(tree, "tensors")), 3); /* gate, up, down */
    double bytes = 0;
    cJSON_ArrayForEach(part, nb_json_find(tree, "parts"))
    {
        if (strcmp(nb_json_find(part, "part")->valuestring, "all") == 0) all = part;
        else bytes += nb_json_find(part, "bytes")->valuedouble;
    }
    assert_non_null(all);
    NEAR(bytes, nb_json_find(all, "bytes")->valuedouble, 0);
    struct stat file;
    assert_int_equal(stat(unit_path("tools/demo/model/model.safetensors"), &file), 0);
    assert_true(bytes < (double)file.st_size && bytes > 0.98 * (double)file.st_size); /* all but the header */
    cJSON_Delete(tree);
    /* intermediate 1024, heads 4 of 64: o has 256 inputs = 2 groups of 128 or 4 of 64, 2 KV heads may be repeated */
    assert_int_equal(PROGRAM(NULL, "inspect", unit_path("tools/demo/model")), 0);
    holds(printed[0], "group 128: 1, 2; group 64: 1, 2, 4; group 32: 1, 2, 4\n");
    assert_int_equal(PROGRAM(NULL, "inspect", unit_path("tools/demo/model"), "--chat-template"), 0);
    holds(printed[0], "<|im_start|>");
    assert_int_equal(PROGRAM(NULL, "inspect", unit_path("tools/demo/model"), "--tensors", "--filter", "("), 2);
    assert_int_equal(PROGRAM(NULL, "inspect", unit_path("tools/demo/model"), "--filter", "x"), 2);
}

static void test_doctor(void **state)
{
    (void)state;
    nb_error err = {0};
    cJSON   *tree;
    assert_int_equal(PROGRAM(NULL, "doctor", "--json"), 0);
    OK(nb_json_parse(&tree, printed[0], strlen(printed[0]), "doctor", &err), &err);
    assert_true(cJSON_IsTrue(nb_json_find(tree, "self_test_good")));
    assert_true(nb_json_find(tree, "read_bytes_per_s")->valuedouble > 1e8);
    assert_non_null(nb_json_find(nb_json_find(tree, "libraries"), "cJSON"));
    cJSON_Delete(tree);
    setenv("NIBBLE_ISA", "sse9", 1);
    assert_int_equal(PROGRAM(NULL, "doctor"), 2);
    unsetenv("NIBBLE_ISA");
}

static const char conversations[] = "{\"id\": \"first\", \"messages\": [{\"role\": \"user\", \"content\": [{\"type\": "
                                    "\"image\", \"image\": \"images/chat-0000-0.png\"}, {\"type\": "
                                    "\"text\", \"text\": \"Read the receipt.\\nPlease try to answer the question with "
                                    "short words or phrases if possible.\"}]}]}\n"
                                    "\n"
                                    "{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}\n"
                                    "{\"id\": [3], \"messages\": [{\"role\": \"user\", \"content\": \"Hello there\"}]}\n";

/* The "text" of each line, joined; the order and ids are checked. */
static void read_answers(nb_buf *texts)
{
    static const int lines[] = {1, 3, 4};
    int              n = 0;
    for (char *at = printed[0], *line; (line = strsep(&at, "\n")) != NULL && *line; n++) {
        nb_error err = {0};
        cJSON   *tree;
        OK(nb_json_parse(&tree, line, strlen(line), "answer", &err), &err);
        assert_int_equal(nb_json_find(tree, "line")->valueint, lines[n]);
        assert_true((nb_json_find(tree, "id") != NULL) == (n != 1));
        assert_true(nb_json_find(tree, "prompt_tokens")->valueint > 0);
        assert_non_null(nb_json_find(tree, "finish_reason"));
        assert_true(nb_json_find(tree, "prompt_ms")->valuedouble >= 0 &&
                    nb_json_find(tree, "predicted_ms")->valuedouble >= 0);
        assert_true(nb_json_find(tree, "completion_tokens")->valueint <= 12);
        nb_buf_str(texts, nb_json_find(tree, "text")->valuestring);
        nb_buf_char(texts, '\n');
        cJSON_Delete(tree);
    }
    assert_int_equal(n, 3);
}

static void test_run(void **state)
{
    (void)state;
    char   file[160];
    nb_buf alone = {0}, together = {0};
    snprintf(file, sizeof file, "%s", write_file("conversations.jsonl", conversations));
    const char *model = unit_path("tools/demo/model"), *images = unit_path("tools/demo/calib");
    assert_int_equal(PROGRAM(NULL, "run", model, "--messages", file, "--image-root", images, "--temp", "0", "-n", "12",
                             "-np", "1", "-q"),
                     0);
    read_answers(&alone);
    assert_int_equal(PROGRAM(NULL, "run", model, "--messages", file, "--image-root", images, "--temp", "0", "-n", "12",
                             "-np", "3", "-t", "1", "-q"),
                     0);
    read_answers(&together);
    assert_string_equal(alone.data, together.data);

    /* the same picture by flag gives the same answer, streamed */
    char picture[600];
    snprintf(picture, sizeof picture, "%s/images/chat-0000-0.png", images);
    const char *question =
        "Read the receipt.\nPlease try to answer the question with short words or phrases if possible.";
    assert_int_equal(
        PROGRAM(NULL, "run", model, "-p", question, "--image", picture, "--temp", "0", "-n", "12", "--stats"), 0);
    assert_int_equal(strncmp(printed[0], alone.data, strlen(printed[0])), 0);
    assert_true(strlen(printed[0]) > 1);
    holds(printed[1], "tokens/s");
    assert_int_equal(PROGRAM(NULL, "run", model, "-f", write_file("question.txt", question), "--image", picture, "--temp",
                             "0", "-n", "12", "--json"),
                     0);
    holds(printed[0], "{\"text\": \"");

    /* a media path is relative to the data file unless told otherwise, and the refusal says where */
    assert_int_equal(PROGRAM(NULL, "run", model, "--messages", file), 5);
    holds(printed[1], "conversations.jsonl line 1");
    assert_int_equal(
        PROGRAM(NULL, "run", model, "--messages",
                write_file("bad.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n{\"x\": 1}\n")),
        5);
    holds(printed[1], "bad.jsonl line 2");
    assert_string_equal(printed[0], ""); /* refused before anything was computed */
    assert_int_equal(PROGRAM(NULL, "run", model, "-p", "x", "--min-pixels", "5000", "--max-pixels", "4000"), 2);
    nb_buf_free(&alone);
    nb_buf_free(&together);
}

static void test_chat(void **state)
{
    (void)state;
    const char *model = unit_path("tools/demo/model");
    char        input[1024];
    snprintf(input, sizeof input,
             "/image %s/images/chat-0000-0.png\nRead the receipt.\n\n/stats\n//literally\n/system "
             "Short.\nHello\n/quit\nnever\n",
             unit_path("tools/demo/calib"));
    assert_int_equal(PROGRAM(input, "chat", model, "--temp", "0", "-n", "6"), 0);
    int lines = 0;
    for (const char *c = printed[0]; *c; c++) lines += *c == '\n';
    assert_true(lines >= 3); /* three answers, none to "never" */
    holds(printed[1], "last answer: ");
    holds(printed[1], "1 picture with the next message");
    assert_int_not_equal(strncmp(printed[0], "> ", 2), 0); /* no prompt on a pipe */
    assert_int_equal(PROGRAM("/iamge x\n", "chat", model), 2);
    holds(printed[1], "did you mean /image");
    assert_int_equal(PROGRAM("/image /nowhere.png\nWhat?\n", "chat", model), 5);
    assert_int_equal(PROGRAM("Hi\n", "chat", model, "--json", "-n", "3", "--temp", "0"), 0);
    holds(printed[0], "\"finish_reason\": ");
}

/* A recipe makes the same checkpoint again, byte for byte. */
static void test_quantize(void **state)
{
    (void)state;
    char first[200], second[200], recipe[240], weights[2][260];
    snprintf(first, sizeof first, "%s.first", write_file("x", ""));
    snprintf(second, sizeof second, "%s.second", write_file("x", ""));
    snprintf(recipe, sizeof recipe, "%s/recipe.json", first);
    snprintf(weights[0], sizeof weights[0], "%s/model.safetensors", first);
    snprintf(weights[1], sizeof weights[1], "%s/model.safetensors", second);
    assert_int_equal(PROGRAM(NULL, "quantize", unit_path("tools/demo/model"), "--out", first, "--data",
                             unit_path("tools/demo/calib/chat.jsonl"), "--method", "gptq", "--samples", "2", "--bits",
                             "8", "--json", "-t", "1"),
                     0);
    nb_error err = {0};
    cJSON   *tree;
    OK(nb_json_parse(&tree, printed[0], strlen(printed[0]), "quantize", &err), &err);
    assert_int_equal(cJSON_GetArraySize(nb_json_find(tree, "matrices")), 42);
    assert_true(nb_json_find(tree, "mean_loss_ratio")->valuedouble < 1);
    assert_int_equal(nb_json_find(tree, "samples")->valueint, 2);
    const cJSON *settled = nb_json_find(nb_json_find(tree, "recipe"), "quantize");
    assert_string_equal(nb_json_find(settled, "format")->valuestring, "gptq"); /* settled by the method */
    assert_true(cJSON_IsTrue(nb_json_find(settled, "sym")));
    assert_int_equal(nb_json_find(settled, "max_pixels")->valueint, 1280 * 28 * 28);
    cJSON_Delete(tree);

    assert_int_equal(PROGRAM(NULL, "quantize", "--config", recipe), 2);
    holds(printed[1], "exists");
    assert_int_equal(PROGRAM(NULL, "quantize", "--config", recipe, "--out", second, "-v"), 0);
    holds(printed[0], "| model.layers.5.mlp.down_proj ");
    nb_buf a = {0}, b = {0};
    OK(nb_file_read(&a, weights[0], 1 << 30, &err), &err);
    OK(nb_file_read(&b, weights[1], 1 << 30, &err), &err);
    assert_int_equal(a.size, b.size);
    assert_memory_equal(a.data, b.data, a.size);
    nb_buf_free(&a);
    nb_buf_free(&b);
    assert_int_equal(PROGRAM(NULL, "inspect", second), 0);
    holds(printed[0], "gptq, 8 bits, groups of 128, symmetric");
    assert_int_equal(PROGRAM(NULL, "run", second, "-p", "Hello", "-n", "3"), 0);
    OK(nb_remove_folder(second, &err), &err);

    /* The plan, and a budget: too small is refused with what would do; that much is enough, with the same bytes. */
    char least[32], job[240];
    snprintf(job, sizeof job, "%s.job", second);
    assert_int_equal(PROGRAM(NULL, "quantize", "--config", recipe, "--out", second, "--dry-run", "--json", "-t", "1"), 0);
    OK(nb_json_parse(&tree, printed[0], strlen(printed[0]), "plan", &err), &err);
    snprintf(least, sizeof least, "%.0f", nb_json_find(tree, "ram_least")->valuedouble);
    assert_true(nb_json_find(tree, "ram")->valuedouble > nb_json_find(tree, "ram_least")->valuedouble);
    assert_int_equal(nb_json_find(tree, "output")->valuedouble > 1e6, 1);
    cJSON_Delete(tree);
    assert_false(nb_is_directory(second));
    assert_int_equal(PROGRAM(NULL, "quantize", "--config", recipe, "--out", second, "--max-ram", "1MB", "-t", "1"), 4);
    holds(printed[1], least);
    assert_int_equal(PROGRAM(NULL, "quantize", "--config", recipe, "--out", second, "--max-vram", "8G", "--device", "cpu"), 2);
    assert_int_equal(PROGRAM(NULL, "quantize", "--config", recipe, "--out", second, "--max-ram", least, "-t", "1"), 0);
    holds(printed[1], "hidden states go to disk");
    assert_false(nb_is_directory(job));
    OK(nb_file_read(&a, weights[0], 1 << 30, &err), &err);
    OK(nb_file_read(&b, weights[1], 1 << 30, &err), &err);
    assert_int_equal(a.size, b.size);
    assert_memory_equal(a.data, b.data, a.size);
    nb_buf_free(&a);
    nb_buf_free(&b);
    OK(nb_remove_folder(first, &err), &err);
    OK(nb_remove_folder(second, &err), &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_program_codes), cmocka_unit_test(test_inspect), cmocka_unit_test(test_doctor),
        cmocka_unit_test(test_run), cmocka_unit_test(test_chat), cmocka_unit_test(test_quantize),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
