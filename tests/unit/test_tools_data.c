/* `nibble data`: its counts against the prompts that quantize builds, its picture sizes against the decoders, its duplicates against
 * Jaccard indices computed from the definition, and the program's output and exit codes. */
#include "unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "calib/dataset.h"
#include "program.h"
#include "runtime/model/prompt.h"
#include "temp_files.h"
#include "tools/data.h"
#include "tools/data_histogram.h"
#include "tools/data_similar.h"

#define DATA(...) RUN("data", __VA_ARGS__)

/* The first line of what was printed. */
static cJSON *report(void)
{
    cJSON   *tree;
    nb_error err;
    char    *end = strchr(printed[0], '\n');
    assert_non_null(end);
    OK(nb_json_parse(&tree, printed[0], (size_t)(end - printed[0]), "report", &err), &err);
    return tree;
}

static double number(const cJSON *tree, const char *a, const char *b)
{
    const cJSON *v = nb_json_find(tree, a);
    if (b) v = nb_json_find(v, b);
    if (!cJSON_IsNumber(v)) fail_msg("no number %s.%s", a, b ? b : "");
    return v->valuedouble;
}

/* ---- tokens ----------------------------------------------------------------------------------------------------------------- */

/* Row by row the same numbers as the prompts that a run would make, pictures decoded and all. */
static void tokens_are_those_of_prompts(void **state)
{
    (void)state;
    nb_error           err;
    nb_config          config;
    nb_dataset        *d;
    nb_dataset_options options = {0};
    nb_data_job        job = {.tokens = true};
    double             sums[4] = {0};
    bool               end = false;
    const char        *model = unit_path("tools/demo/model");
    OK(nb_tokenizer_open(&job.tokenizer, model, &err), &err);
    OK(nb_processor_open(&job.processor, model, &err), &err);
    OK(nb_config_open(&config, model, NULL, &err), &err);
    job.limits.max_pixels = 6000; /* some pictures are shrunk */
    OK(nb_dataset_open(&d, unit_path("tools/demo/calib/chat.jsonl"), &options, &err), &err);
    for (int row = 0; !end; row++) {
        nb_chat           chat;
        char              where[256];
        nb_prompt         prompt;
        nb_data_row       measured;
        nb_prompt_source  source = {job.tokenizer, &job.processor, &config};
        nb_prompt_options how = {.limits = job.limits, .media.root = nb_dataset_root(d)};
        OK(nb_dataset_next(d, &chat, where, &end, &err), &err);
        if (end) break;
        OK(nb_data_measure(&measured, &job, &chat, nb_dataset_root(d), where, &err), &err);
        size_t want[3] = {0}, answer = 0;
        if (row % 8 == 0 || measured.tokens[NB_TOKEN_VIDEO]) {
            OK(nb_prompt_build(&prompt, &chat, &source, &how, &err), &err);
            for (size_t i = 0; i < prompt.count; i++) want[prompt.modality[i]]++, answer += prompt.answer[i];
            nb_prompt_free(&prompt);
            for (int i = 0; i < 3; i++) assert_int_equal(measured.tokens[i], want[i]);
            assert_int_equal(measured.answer, answer);
        }
        for (int i = 0; i < 3; i++) sums[i] += (double)measured.tokens[i];
        sums[3] += (double)measured.answer;
        nb_data_row_free(&measured);
        nb_chat_free(&chat);
    }
    nb_dataset_close(d);
    nb_tokenizer_close(job.tokenizer);

    assert_int_equal(DATA("check", unit_path("tools/demo/calib/chat.jsonl"), "--model", model, "--max-pixels", "6000", "--json",
                          "--progress", "none"), 0);
    cJSON *tree = report();
    NEAR(number(tree, "text_tokens", NULL), sums[0], 0);
    NEAR(number(tree, "image_tokens", NULL), sums[1], 0);
    NEAR(number(tree, "video_tokens", NULL), sums[2], 0);
    NEAR(number(tree, "answer_tokens", NULL), sums[3], 0);
    NEAR(number(tree, "tokens_per_row", "sum"), sums[0] + sums[1] + sums[2], 0);
    NEAR(number(tree, "good", NULL), 256, 0);
    NEAR(number(tree, "messages", "user"), 256, 0);
    NEAR(number(tree, "bad", "count"), 0, 0);
    assert_true(sums[1] > 0 && sums[2] > 0 && sums[3] > 0 && number(tree, "shrunk", NULL) > 0);
    cJSON_Delete(tree);
}

static void histograms_hold_their_numbers(void **state)
{
    (void)state;
    uint64_t seed = 3;
    for (int i = 0; i < 100000; i++) {
        uint64_t v = ((uint64_t)unit_random(&seed) << 31 | unit_random(&seed)) >> unit_random(&seed) % 62;
        size_t   bin = nb_histogram_bin(v);
        assert_true(bin < NB_HISTOGRAM_BINS);
        assert_true(v <= nb_histogram_top(bin) && (bin == 0 || v > nb_histogram_top(bin - 1)));
        assert_true(v < 16 ? nb_histogram_top(bin) == v : nb_histogram_top(bin) - v <= v / 16);
    }
    assert_true(nb_histogram_bin(UINT64_MAX) < NB_HISTOGRAM_BINS);
    nb_histogram *h = calloc(1, sizeof *h);
    for (int i = 1; i <= 10; i++) nb_histogram_add(h, (uint64_t)i);
    assert_int_equal(nb_histogram_quantile(h, 0.5), 5);
    assert_int_equal(nb_histogram_quantile(h, 0.95), 10);
    assert_int_equal(nb_histogram_quantile(h, 0.01), 1);
    free(h);
}

/* ---- pictures ----------------------------------------------------------------------------------------------------------------- */

/* One file: header and decoder agree; half of it is never taken for whole; deep is the decoder's word. */
static void look_at(const char *path, int *seen, int *by_header)
{
    nb_error               err;
    nb_picture             got;
    nb_buf                 bytes = {0};
    nb_image               image = {0};
    const nb_media_options media = {0};
    OK(nb_file_read(&bytes, path, 64 << 20, &err), &err);
    nb_status want = nb_image_decode(&image, bytes.data, bytes.size, path, NULL, &err);
    nb_status status = nb_picture_look(&got, path, &media, false, &err);
    if (!want && (status || got.width != image.width || got.height != image.height))
        fail_msg("%s: %d x %d (status %d), the decoder says %d x %d", path, got.width, got.height, status, image.width, image.height);
    assert_int_equal(nb_picture_look(&got, path, &media, true, &err), want);
    if (!want) {
        ++*seen;
        OK(nb_picture_look(&got, path, &media, false, &err), &err);
        *by_header += !got.decoded;
        nb_image_free(&image);
        char half[160];
        snprintf(half, sizeof half, "%s", write_file("half", ""));
        OK(nb_file_write_atomic(half, bytes.data, bytes.size / 2, &err), &err);
        want = nb_image_decode(&image, bytes.data, bytes.size / 2, half, NULL, &err);
        status = nb_picture_look(&got, half, &media, false, &err);
        if (status != want) fail_msg("half of %s: status %d, the decoder says %d", path, status, want);
    }
    nb_image_free(&image);
    nb_buf_free(&bytes);
}

static void sizes_are_those_of_the_decoder(void **state)
{
    (void)state;
    NEEDS_DATA("images/formats");
    static const char *const more[] = {"images/formats", "images/pngsuite", "images/receipts", "images/exif", "images/scene"};
    int seen = 0, by_header = 0;
    for (size_t i = 0; i <= NB_COUNT(more); i++) {
        char           folder_path[1024], path[2048];
        struct dirent *e;
        snprintf(folder_path, sizeof folder_path, "%s", i ? unit_data(more[i - 1]) : unit_path("tests/golden/images"));
        DIR *d = opendir(folder_path);
        assert_non_null(d);
        for (int n = 0; (e = readdir(d)) && n < 250;) {
            snprintf(path, sizeof path, "%s/%s", folder_path, e->d_name);
            struct stat s;
            if (stat(path, &s) || !S_ISREG(s.st_mode) || s.st_size > 300000) continue;
            look_at(path, &seen, &by_header);
            n++;
        }
        closedir(d);
    }
    if (seen < 60) fail_msg("%d pictures were seen, %d by their headers", seen, by_header);
    assert_true(by_header > seen * 3 / 4);
}

static void pictures_that_cannot_be_used(void **state)
{
    (void)state;
    static const struct { const char *reference, *part; nb_status status; } bad[] = {
        {"gone.png", "gone.png", NB_ERR_INPUT}, {"text.png", "not a JPEG", NB_ERR_INPUT}, {"", "empty", NB_ERR_INPUT},
        {"data:image/png;base64,xx", "", NB_ERR_INPUT}, {"s3://b/a.png", "s3://", NB_ERR_UNSUPPORTED}};
    nb_error         err;
    nb_picture       got;
    nb_media_options media = {.root = "/tmp"};
    write_file("text.png", "this is no picture, but it is long enough for one");
    media.root = folder;
    for (size_t i = 0; i < NB_COUNT(bad); i++)
        FAILS(nb_picture_look(&got, bad[i].reference, &media, false, &err), bad[i].status, bad[i].part, &err);
    OK(nb_picture_look(&got, "https://example.org/a.png", &media, false, &err), &err); /* not fetched */
    assert_int_equal(got.width, 0);
    media.offline = true;
    FAILS(nb_picture_look(&got, "https://example.org/a.png", &media, false, &err), NB_ERR_ARGUMENT, "offline", &err);
}

/* ---- duplicates --------------------------------------------------------------------------------------------------------------- */

enum { WORDS = 120 };

/* A text of words w0 .. w119 with some of them changed; spelled differently in case and punctuation by `style`. */
static void make_text(nb_buf *out, int changed, int style, uint64_t *seed)
{
    bool other[WORDS] = {false};
    nb_buf_clear(out);
    for (int i = 0; i < changed;) {
        int at = (int)(unit_random(seed) % WORDS);
        if (!other[at]) other[at] = true, i++;
    }
    for (int i = 0; i < WORDS; i++)
        nb_buf_printf(out, "%s%d%s", other[i] ? style & 1 ? "OTHER" : "other" : style & 1 ? "Word" : "word",
                      other[i] ? (int)unit_random(seed) : i, style & 2 ? ",  " : " ");
}

static void add_words(uint64_t *list, size_t *n, const char *text)
{
    char copy[8192], *at = copy, *word;
    snprintf(copy, sizeof copy, "%s", text);
    while ((word = strsep(&at, " ,")) != NULL) {
        uint64_t h = 5381;
        for (char *c = word; *c; c++) h = h * 33 + (uint64_t)(*c | 32);
        if (*word) list[(*n)++] = h;
    }
}

/* The Jaccard index of the sets of three words in a row, by definition. */
static double jaccard(const char *a, const char *b)
{
    uint64_t x[400], y[400];
    size_t   n = 0, m = 0, both = 0;
    add_words(x, &n, a);
    add_words(y, &m, b);
    for (size_t i = 0; i + 2 < n; i++) {
        bool found = false;
        for (size_t j = 0; j + 2 < m && !found; j++) found = !memcmp(x + i, y + j, 3 * sizeof *x);
        both += found;
    }
    return (double)both / (double)(n - 2 + m - 2 - both);
}

static nb_similar_match add(nb_similar *s, const char *text, const char *picture, size_t line)
{
    nb_chat     chat = {0};
    nb_message *m;
    nb_error    err;
    OK(nb_chat_add_text(&chat, "system", picture ? "Be good" : "Be better", &err), &err); /* does not count */
    OK(nb_chat_add_message(&chat, "user", &m, &err), &err);
    if (picture) OK(nb_chat_add_part(m, &(nb_part){.kind = NB_PART_IMAGE, .text = (char *)picture}, &err), &err);
    OK(nb_chat_add_part(m, &(nb_part){.text = (char *)text}, &err), &err);
    nb_similar_match match = nb_similar_add(s, &chat, 0, line);
    nb_chat_free(&chat);
    return match;
}

static void duplicates_are_found(void **state)
{
    (void)state;
    uint64_t seed = 11;
    nb_error err;
    nb_buf   base = {0}, text = {0};
    int      tried[2] = {0}, found[2] = {0};
    double   worst = 0;
    make_text(&base, 0, 0, &seed);
    for (int changed = 0; changed < 40; changed++)
        for (int again = 0; again < 8; again++) {
            nb_similar *s;
            OK(nb_similar_new(&s, &err), &err);
            assert_int_equal(add(s, base.data, "a.png", 1).file, -1);
            make_text(&text, changed, again % 4, &seed);
            double           share = jaccard(base.data, text.data);
            nb_similar_match m = add(s, text.data, "a.png", 2);
            assert_int_equal(m.file == 0 && m.exact, changed == 0);
            if (m.file == 0) {
                assert_int_equal(m.line, 1);
                worst = fmax(worst, fabs(m.share - share));
            }
            if (share > 0.9) tried[0]++, found[0] += m.file == 0;
            if (share < 0.6) tried[1]++, found[1] += m.file == 0;
            assert_int_equal(add(s, base.data, "b.png", 3).file, -1); /* another picture is another question */
            assert_int_equal(add(s, base.data, "a.png", 4).line, changed ? 1 : 2); /* the last that is the same */
            nb_similar_free(s);
        }
    assert_true(tried[0] >= 16 && tried[1] > 100);
    assert_true(found[0] >= tried[0] - 2);
    assert_true(found[1] <= 2);
    assert_true(worst < 0.25);
    nb_buf_free(&base);
    nb_buf_free(&text);
}

/* Many rows that have nothing in common; short ones; and an early one that is found behind them. */
static void strangers_are_not_alike(void **state)
{
    (void)state;
    nb_similar *s;
    nb_error    err;
    uint64_t    seed = 1;
    char        text[400];
    OK(nb_similar_new(&s, &err), &err);
    add(s, "the quick brown fox jumps over the lazy dog and runs away into the dark green forest", NULL, 1);
    for (int i = 0; i < 20000; i++) {
        int n = 0;
        for (int w = 0; w < 1 + i % 30; w++) n += snprintf(text + n, sizeof text - (size_t)n, "w%u ", unit_random(&seed) % 100000);
        snprintf(text + n, sizeof text - (size_t)n, "%d", i);
        if (add(s, text, NULL, (size_t)i + 2).file >= 0) fail_msg("row %d is like nothing, but was found", i);
    }
    nb_similar_match m = add(s, "The quick, brown fox jumps over the lazy dog; and runs away into the DARK green forest!", NULL, 9);
    assert_true(m.file == 0 && m.exact && m.line == 1);
    assert_int_equal(add(s, "那是什么", NULL, 10).file, -1);
    assert_int_equal(add(s, "那是什吗", NULL, 11).file, -1);
    assert_int_equal(add(s, "那是什么?", NULL, 12).line, 10);
    nb_similar_free(s);
}

/* ---- the program -------------------------------------------------------------------------------------------------------------- */

#define ROW(question, answer) \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"" question "\"},{\"role\":\"assistant\",\"content\":\"" answer "\"}]}\n"

static void check_lists_what_is_bad(void **state)
{
    (void)state;
    char path[160];
    snprintf(path, sizeof path, "%s", write_file("bad.jsonl",
             ROW("One", "two") "{\"messages\":[]}\n" "{\"messages\": x}\n"
             "{\"messages\":[{\"role\":\"user\",\"content\":\"<image>Who\"},{\"role\":\"assistant\",\"content\":\"I\"}],\"images\":[\"gone.png\"]}\n"
             ROW("Three", "four") ROW("one!", "TWO") "{\"messages\":[{\"role\":\"user\",\"content\":\"No answer\"}]}\n"));
    assert_int_equal(DATA("check", path), 5);
    holds(printed[0], "bad.jsonl line 2: messages: is empty");
    holds(printed[0], "bad.jsonl: line 3, column 14: expected a value");
    holds(printed[0], "bad.jsonl line 4: messages[0].content[0]: ");
    holds(printed[0], "gone.png");
    holds(printed[0], "bad.jsonl line 6 is the same as line 1");
    holds(printed[0], "1 rows do not end with one");
    holds(printed[1], "nibble: error: 3 of the rows cannot be used");
    assert_int_equal(DATA("check", path, "--no-tokens"), 5); /* pictures are not opened */
    holds(printed[1], "2 of the rows cannot be used");
    assert_int_equal(DATA("check", path, "--list", "1"), 5);
    holds(printed[0], "and 2 more");
    assert_int_equal(DATA("check", path, "--json"), 5);
    cJSON *tree = report();
    NEAR(number(tree, "bad", "count"), 3, 0);
    NEAR(number(tree, "good", NULL), 4, 0);
    NEAR(number(tree, "without_answer", NULL), 1, 0);
    NEAR(number(tree, "exact_duplicates", NULL), 1, 0);
    cJSON_Delete(tree);
    assert_int_equal(DATA("check", write_file("good.jsonl", ROW("One", "two"))), 0);
    holds(printed[0], "nothing to complain about");
    assert_int_equal(DATA("check", "/nowhere.jsonl"), 5);
    assert_int_equal(DATA("check"), 2);
    assert_int_equal(DATA("weigh", path), 2);
    assert_int_equal(DATA("chekc", path), 2);
    holds(printed[1], "did you mean 'check'");
    assert_int_equal(DATA("check"), 2);
    assert_int_equal(DATA("check", write_file("long.jsonl", ROW("One", "two three four five six seven")), "--model",
                          unit_path("tools/demo/model"), "--seq-len", "10"), 0);
    holds(printed[0], "dropped: 1 rows are longer than --seq-len 10");
    holds(printed[0], "long.jsonl line 1: ");
}

/* 1200 x 900 pictures: what keeps them whole is more than calibration uses; a short seq_len leaves less. */
static void max_pixels_is_suggested(void **state)
{
    (void)state;
    nb_error err;
    /* The header, and the end of the file: all that is looked at. */
    static const unsigned char png[] = {0x89, 'P', 'N', 'G', 13, 10, 26, 10, 0, 0, 0, 13, 'I', 'H', 'D', 'R', 0, 0, 4, 0xb0, 0, 0, 3, 0x84,
                                        8, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'I', 'E', 'N', 'D', 0xae, 0x42, 0x60, 0x82};
    char picture[160], path[160];
    snprintf(picture, sizeof picture, "%s", write_file("large.png", ""));
    OK(nb_file_write_atomic(picture, png, sizeof png, &err), &err);
    snprintf(path, sizeof path, "%s", write_file("large.jsonl", "{\"query\":\"Who\",\"response\":\"I\",\"images\":[\"large.png\",\"large.png\"]}\n"));
    assert_int_equal(DATA("check", path, "--json", "--model", unit_path("tools/demo/model"), "--max-pixels", "12845056"), 0);
    cJSON *tree = report();
    NEAR(number(tree, "suggested_max_pixels", NULL), 1280 * 784, 0);
    NEAR(number(tree, "image_tokens", NULL), 2 * 43 * 32, 0); /* rint(1200 / 28) x rint(900 / 28) */
    NEAR(number(tree, "shrunk", NULL), 0, 0);
    double text = number(tree, "text_tokens", NULL);
    cJSON_Delete(tree);
    assert_int_equal(DATA("check", path, "--json", "--model", unit_path("tools/demo/model"), "--seq-len", "1000", "--max-pixels", "100352"), 0);
    tree = report();
    double room = floor((1000 - text) / 2) * 784;
    assert_true(number(tree, "suggested_max_pixels", NULL) <= room && number(tree, "suggested_max_pixels", NULL) > 0.9 * room);
    NEAR(number(tree, "shrunk", NULL), 2, 0);
    cJSON_Delete(tree);
    assert_int_equal(DATA("check", path, "--deep"), 5); /* the decoder is not deceived */
}

static void prompts_are_shown(void **state)
{
    (void)state;
    const char *data = unit_path("tools/demo/calib/chat.jsonl"), *model = unit_path("tools/demo/model");
    assert_int_equal(DATA("show", data, "-n", "2", "--model", model), 0);
    holds(printed[0], "line 1: 55 tokens of text (15 of answers), 12 of pictures\n<|im_start|>system\nYou are a helpful assistant."
                      "<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|> x 12 (images/chat-0000-0.png, 112 x 84)<|vision_end|>"
                      "Read the receipt.");
    holds(printed[0], "line 2");
    assert_null(strstr(printed[0], "line 3"));
    assert_int_equal(DATA("show", data, "-n", "1", "--skip", "1", "--json"), 0);
    holds(printed[0], "line 2\", \"prompt\": \"<|im_start|>system\\n");
    assert_int_equal(DATA("show", write_file("esc.jsonl", ROW("a\\u001b[31m\\u009bx", "b"))), 0);
    holds(printed[0], "a?[31m?x");
    assert_int_equal(DATA("show", write_file("alp.json", "[{\"instruction\":\"Add\",\"input\":\"1\",\"output\":\"2\"}]"), "--no-tokens"), 0);
    holds(printed[0], "<|im_start|>user\nAdd\n1<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n");
    holds(printed[1], "read as alpaca");
}

static void count_same_prompts(const char *a, const char *b, int want)
{
    nb_error            err;
    nb_dataset         *d[2];
    nb_dataset_options  options = {0};
    nb_template_options plain = {0};
    int                 rows = 0;
    OK(nb_dataset_open(&d[0], a, &options, &err), &err);
    OK(nb_dataset_open(&d[1], b, &options, &err), &err);
    for (bool end[2] = {false}; !end[0]; rows++) {
        nb_chat     chat[2];
        nb_rendered r[2];
        nb_buf      text[2] = {0};
        char        where[256];
        for (int i = 0; i < 2; i++) OK(nb_dataset_next(d[i], &chat[i], where, &end[i], &err), &err);
        assert_int_equal(end[0], end[1]);
        if (end[0]) break;
        for (int i = 0; i < 2; i++) {
            OK(nb_chat_render(&r[i], &chat[i], &plain, &err), &err);
            nb_rendered_string(&r[i], &text[i]);
        }
        assert_string_equal(text[0].data, text[1].data);
        for (int i = 0; i < 2; i++) {
            nb_rendered_free(&r[i]);
            nb_buf_free(&text[i]);
            nb_chat_free(&chat[i]);
        }
    }
    nb_dataset_close(d[0]);
    nb_dataset_close(d[1]);
    assert_int_equal(rows, want);
}

static void conversion_keeps_the_prompts(void **state)
{
    (void)state;
    char        out[160], nested[200];
    const char *demo = unit_path("tools/demo/calib/sharegpt.json");
    snprintf(out, sizeof out, "%s/out.jsonl", (write_file("x", ""), folder));
    unlink(out);
    assert_int_equal(DATA("convert", demo, "--out", out), 0);
    count_same_prompts(demo, out, 241);
    assert_int_equal(DATA("check", out), 0); /* its pictures are found from where it is now */
    assert_int_equal(DATA("convert", demo, "--out", out), 2);
    holds(printed[1], "exists");
    assert_int_equal(DATA("convert", demo, "--out", out, "--force"), 0);
    assert_int_equal(DATA("convert", demo), 2);
    if (access(unit_data("llamafactory/glaive_toolcall_en_demo.json"), R_OK) == 0) {
        const char *glaive = unit_data("llamafactory/glaive_toolcall_en_demo.json");
        assert_int_equal(DATA("convert", glaive, "--out", out, "--force", "--json"), 0);
        holds(printed[0], "\"rows\": 150");
        count_same_prompts(glaive, out, 150);
    }
    /* paths: from a folder to its own, to one below, to one beside; addresses stay */
    snprintf(nested, sizeof nested, "%s/sub", folder);
    mkdir(nested, 0700);
    snprintf(nested, sizeof nested, "%s/sub/o.jsonl", folder);
    char in[160];
    snprintf(in, sizeof in, "%s", write_file("in.jsonl", "{\"query\":\"Q\",\"response\":\"A\",\"images\":[\"a/b.png\",\"/c.png\",\"https://x.org/d.png\"],"
                                             "\"videos\":[[\"e.png\",\"f.png\"]]}\n"));
    unlink(out);
    assert_int_equal(DATA("convert", in, "--out", nested), 0);
    nb_buf   text;
    nb_error err;
    OK(nb_file_read(&text, nested, 1 << 20, &err), &err);
    assert_string_equal(text.data, "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\", \"image\": \"../a/b.png\"}, {\"type\": "
                                   "\"image\", \"image\": \"/c.png\"}, {\"type\": \"image\", \"image\": \"https://x.org/d.png\"}, {\"type\": \"video\", "
                                   "\"video\": [\"../e.png\", \"../f.png\"]}, {\"type\": \"text\", \"text\": \"Q\"}]}, {\"role\": \"assistant\", "
                                   "\"content\": \"A\"}]}\n");
    nb_buf_free(&text);
    assert_int_equal(DATA("convert", in, "--out", out, "--image-root", "/usr/share"), 0);
    OK(nb_file_read(&text, out, 1 << 20, &err), &err);
    holds(text.data, "\"../../usr/share/a/b.png\"");
    nb_buf_free(&text);
    unlink(nested);
    nested[strlen(nested) - strlen("/o.jsonl")] = 0;
    rmdir(nested);
    /* bad rows */
    unlink(out);
    snprintf(in, sizeof in, "%s", write_file("some.jsonl", ROW("a", "b") "{\"messages\":3}\n" ROW("c", "d")));
    assert_int_equal(DATA("convert", in, "--out", out), 5);
    assert_int_not_equal(access(out, F_OK), 0);
    assert_int_equal(DATA("convert", in, "--out", out, "--skip-bad"), 0);
    holds(printed[1], "left out: ");
    OK(nb_file_read(&text, out, 1 << 20, &err), &err);
    assert_int_equal(text.size, 2 * (strlen("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}") + 1));
    nb_buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_those_of_prompts),  cmocka_unit_test(histograms_hold_their_numbers),
        cmocka_unit_test(sizes_are_those_of_the_decoder), cmocka_unit_test(pictures_that_cannot_be_used),
        cmocka_unit_test(duplicates_are_found),         cmocka_unit_test(strangers_are_not_alike),
        cmocka_unit_test(check_lists_what_is_bad),      cmocka_unit_test(max_pixels_is_suggested),
        cmocka_unit_test(prompts_are_shown),            cmocka_unit_test(conversion_keeps_the_prompts),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
