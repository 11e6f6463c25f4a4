/* Checkpoint directories: which files count, both name layouts, the index against the shards, and every way in which a
 * directory is not a checkpoint, each with its own message. */
#include "unit.h"

#include <sys/stat.h>

#include "runtime/io/checkpoint.h"
#include "runtime/io/file.h"

static char root[] = "/tmp/nibble-checkpoint-XXXXXX";
static char folder[64]; /* a fresh one for each test */

static const char *in_folder(const char *name)
{
    static char path[4][256];
    static int  i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof path[i], "%s/%s", folder, name);
    return path[i];
}

static void write_text(const char *name, const char *text)
{
    nb_error err;
    OK(nb_file_write_atomic(in_folder(name), text, strlen(text), &err), &err);
}

/* A safetensors file whose tensors (names separated by spaces) are U8 [2], numbered from first: tensor i holds {i, i}. */
static void write_shard(const char *name, const char *tensors, int first)
{
    nb_buf   header = {0}, file = {0};
    nb_error err;
    int      n = 0;
    nb_buf_char(&header, '{');
    for (const char *t = tensors; *t;) {
        size_t length = strcspn(t, " ");
        if (n) nb_buf_char(&header, ',');
        nb_buf_json_string(&header, t, length);
        nb_buf_printf(&header, ":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[%d,%d]}", 2 * n, 2 * n + 2);
        n++;
        t += length + (t[length] == ' ');
    }
    nb_buf_char(&header, '}');
    for (int i = 0; i < 8; i++) nb_buf_char(&file, (char)((uint64_t)header.size >> 8 * i));
    nb_buf_add(&file, header.data, header.size);
    for (int i = 0; i < 2 * n; i++) nb_buf_char(&file, (char)(first + i / 2));
    OK(nb_file_write_atomic(in_folder(name), file.data, file.size, &err), &err);
    nb_buf_free(&header);
    nb_buf_free(&file);
}

static void expect_first_byte(const nb_checkpoint *c, const char *name, int want)
{
    nb_error        err;
    void           *data;
    const nb_entry *e = nb_checkpoint_find(c, name);
    if (!e) fail_msg("no tensor '%s'", name);
    assert_string_equal(e->name, name);
    OK(nb_entry_read(e, &data, &err), &err);
    assert_int_equal(*(unsigned char *)data, want);
    free(data);
}

static void refuse(nb_status want, const char *part)
{
    nb_error       err = {0};
    nb_checkpoint *c   = (nb_checkpoint *)1;
    nb_status      s   = nb_checkpoint_open(&c, folder, &err);
    if (s != want || c || !strstr(err.text, part) || !strstr(err.text, root))
        fail_msg("status %d, '%s', expected status %d and '%s'", s, err.text, want, part);
}

static void test_single(void **state)
{
    (void)state;
    nb_error       err;
    nb_checkpoint *c;
    write_shard("model.safetensors", "visual.b model.a lm_head.weight", 1);
    write_shard("other.safetensors", "stale", 9);                         /* not looked at */
    write_text("model.safetensors.index.json", "not even JSON");          /* nor this: the single file wins */
    OK(nb_checkpoint_open(&c, folder, &err), &err);
    assert_string_equal(nb_checkpoint_path(c), folder);
    assert_int_equal(nb_checkpoint_layout(c), NB_LAYOUT_OLD);
    assert_int_equal(nb_checkpoint_count(c), 3);
    assert_int_equal(nb_checkpoint_shards(c), 1);
    assert_non_null(nb_checkpoint_shard(c, 0));
    assert_null(nb_checkpoint_shard(c, 1));
    assert_string_equal(nb_checkpoint_at(c, 0)->name, "lm_head.weight");
    assert_string_equal(nb_checkpoint_at(c, 2)->name, "visual.b");
    assert_null(nb_checkpoint_at(c, 3));
    assert_null(nb_checkpoint_find(c, "stale"));
    expect_first_byte(c, "visual.b", 1);
    expect_first_byte(c, "model.a", 2);
    expect_first_byte(c, "lm_head.weight", 3);
    nb_checkpoint_close(c);
    nb_checkpoint_close(NULL);
    char with_slash[80];
    snprintf(with_slash, sizeof with_slash, "%s/", folder);
    OK(nb_checkpoint_open(&c, with_slash, &err), &err);
    nb_checkpoint_close(c);
}

static void test_only_file(void **state)
{
    (void)state;
    nb_error       err;
    nb_checkpoint *c;
    write_shard("gptq_model-4bit-128g.safetensors", "model.a", 1);
    write_text("._gptq_model-4bit-128g.safetensors", "litter of another system");
    OK(nb_checkpoint_open(&c, folder, &err), &err);
    expect_first_byte(c, "model.a", 1);
    nb_checkpoint_close(c);
    write_shard("second.safetensors", "model.b", 1);
    refuse(NB_ERR_INPUT, "has 2 *.safetensors files but neither model.safetensors nor model.safetensors.index.json");
}

static void test_new_layout(void **state)
{
    (void)state;
    nb_error       err;
    nb_checkpoint *c;
    write_shard("model.safetensors",
                "model.language_model.layers.0.x model.visual.blocks.0.y model.language_model.norm.weight lm_head.weight "
                "model.language_model.embed_tokens.weight", 1);
    OK(nb_checkpoint_open(&c, folder, &err), &err);
    assert_int_equal(nb_checkpoint_layout(c), NB_LAYOUT_NEW);
    assert_int_equal(nb_checkpoint_count(c), 5);
    expect_first_byte(c, "model.layers.0.x", 1);
    expect_first_byte(c, "visual.blocks.0.y", 2);
    expect_first_byte(c, "model.norm.weight", 3);
    expect_first_byte(c, "lm_head.weight", 4);
    expect_first_byte(c, "model.embed_tokens.weight", 5);
    assert_null(nb_checkpoint_find(c, "model.language_model.norm.weight"));
    assert_string_equal(nb_checkpoint_find(c, "model.norm.weight")->tensor->name, "model.language_model.norm.weight");
    for (size_t i = 1; i < nb_checkpoint_count(c); i++)
        assert_true(strcmp(nb_checkpoint_at(c, i - 1)->name, nb_checkpoint_at(c, i)->name) < 0);
    nb_checkpoint_close(c);
}

static void test_stray_layout(void **state)
{
    (void)state;
    nb_error       err;
    nb_checkpoint *c;
    write_shard("model.safetensors",
                "language_model.model.layers.0.x language_model.lm_head.weight visual.y language_model.other "
                "model.visual. model.language_model. model.languages.x xmodel.visual.z",
                1);
    OK(nb_checkpoint_open(&c, folder, &err), &err);
    assert_int_equal(nb_checkpoint_layout(c), NB_LAYOUT_OLD);
    expect_first_byte(c, "model.layers.0.x", 1);
    expect_first_byte(c, "lm_head.weight", 2);
    expect_first_byte(c, "visual.y", 3);
    expect_first_byte(c, "language_model.other", 4); /* and what follows the rules in part only keeps its name */
    expect_first_byte(c, "model.visual.", 5);
    expect_first_byte(c, "model.language_model.", 6);
    expect_first_byte(c, "model.languages.x", 7);
    expect_first_byte(c, "xmodel.visual.z", 8);
    nb_checkpoint_close(c);
    write_shard("model.safetensors", "model.norm.weight model.language_model.norm.weight", 1);
    refuse(NB_ERR_INPUT, "are both 'model.norm.weight'");
    write_shard("model.safetensors", "visual.x model.visual.x", 1);
    refuse(NB_ERR_INPUT, "are both 'visual.x'");
}

#define A "model-00001-of-00002.safetensors"
#define B "model-00002-of-00002.safetensors"
#define INDEX(map) "{\"metadata\":{\"total_size\":8},\"weight_map\":{" map "}}"
#define GOOD_MAP "\"model.a\":\"" A "\",\"model.b\":\"" B "\",\"model.c\":\"" A "\",\"model.d\":\"" B "\""

static void write_index(const char *text)
{
    write_text("model.safetensors.index.json", text);
}

static void test_shards(void **state)
{
    (void)state;
    nb_error       err;
    nb_checkpoint *c;
    write_shard(A, "model.a model.c", 1);
    write_shard(B, "model.b model.d", 11);
    write_shard("stale.safetensors", "model.a", 99); /* the index does not name it */
    write_index(INDEX(GOOD_MAP));
    OK(nb_checkpoint_open(&c, folder, &err), &err);
    assert_int_equal(nb_checkpoint_shards(c), 2);
    assert_int_equal(nb_checkpoint_count(c), 4);
    expect_first_byte(c, "model.a", 1);
    expect_first_byte(c, "model.b", 11);
    expect_first_byte(c, "model.c", 2);
    expect_first_byte(c, "model.d", 12);
    assert_string_equal(nb_safetensors_path(nb_checkpoint_find(c, "model.d")->file), in_folder(B));
    nb_checkpoint_close(c);
    /* A shard may be a link, as in the hub's cache. */
    assert_int_equal(rename(in_folder(A), in_folder("blob")), 0);
    assert_int_equal(symlink("blob", in_folder(A)), 0);
    OK(nb_checkpoint_open(&c, folder, &err), &err);
    nb_checkpoint_close(c);
    /* The layouts may be mixed over shards; a name in both is found whatever the file. */
    write_shard(B, "model.b model.language_model.a", 11);
    write_index(INDEX("\"model.a\":\"" A "\",\"model.b\":\"" B "\",\"model.c\":\"" A
                      "\",\"model.language_model.a\":\"" B "\""));
    refuse(NB_ERR_INPUT, "are both 'model.a'");
}

static void test_bad_index(void **state)
{
    (void)state;
    static const struct {
        const char *index, *part;
    } cases[] = {
        {"", "the text ends"},
        {"{", "the text ends"},
        {"[]", "weight_map is missing"},
        {"{}", "weight_map is missing"},
        {"{\"weight_map\":null}", "weight_map is missing"},
        {"{\"weight_map\":[]}", "weight_map is missing or no object"},
        {"{\"weight_map\":{}}", "weight_map is empty"},
        {INDEX("\"model.a\":1"), "weight_map.model.a is not a file name"},
        {INDEX("\"model.a\":null"), "weight_map.model.a is not a file name"},
        {INDEX("\"model.a\":[\"" A "\"]"), "weight_map.model.a is not a file name"},
        {INDEX("\"model.a\":\"\""), "not a plain *.safetensors file name"},
        {INDEX("\"model.a\":\"/etc/passwd\""), "not a plain *.safetensors file name"},
        {INDEX("\"model.a\":\"/tmp/x.safetensors\""), "not a plain *.safetensors file name"},
        {INDEX("\"model.a\":\"../x.safetensors\""), "names '../x.safetensors', which is not a plain"},
        {INDEX("\"model.a\":\"./" A "\""), "not a plain *.safetensors file name"},
        {INDEX("\"model.a\":\"sub/x.safetensors\""), "not a plain *.safetensors file name"},
        {INDEX("\"model.a\":\"sub\\\\x.safetensors\""), "not a plain *.safetensors file name"},
        {INDEX("\"model.a\":\"..\""), "not a plain *.safetensors file name"},
        {INDEX("\"model.a\":\".\""), "not a plain *.safetensors file name"},
        {INDEX("\"model.a\":\".safetensors\""), "not a plain *.safetensors file name"},
        {INDEX("\"model.a\":\"x\\n.safetensors\""), "not a plain *.safetensors file name"},
        {INDEX("\"model.a\":\"x\\u0000.safetensors\""), "NUL"},
        {INDEX("\"model.a\":\"model.safetensors.index.json\""), "not a plain *.safetensors file name"},
        {INDEX("\"model.a\":\"pytorch_model-00001-of-00002.bin\""), "not a plain *.safetensors file name"},
        {INDEX("\"model.a\":\"missing.safetensors\""), "names a missing shard"},
        {INDEX("\"model.a\":\"a-folder.safetensors\""), "is a folder"},
        {INDEX("\"model.a\":\"a-fifo.safetensors\""), "is a FIFO"},
        {INDEX("\"model.a\":\"dangling.safetensors\""), "names a missing shard"},
        {INDEX("\"model.a\":\"broken.safetensors\""), "broken.safetensors: claims a header"},
        {INDEX("\"model.a\":\"" A "\",\"model.a\":\"" B "\""), "duplicate key 'model.a'"},
        {INDEX("\"model.a\":\"" A "\",\"model.b\":\"" B "\",\"model.d\":\"" B "\""), A ": holds tensor 'model.c', which"},
        {INDEX(GOOD_MAP ",\"model.e\":\"" B "\""), "lists tensor 'model.e' in '" B "', which does not hold it"},
        {INDEX("\"model.a\":\"" B "\",\"model.b\":\"" B "\",\"model.c\":\"" A "\",\"model.d\":\"" B "\""),
         A ": holds tensor 'model.a', which"}, /* the index places it in B */
        {INDEX(GOOD_MAP ",\"model.x\":\"twice.safetensors\""), "twice.safetensors: tensor 'model.a' is also in '" A "'"},
    };
    write_shard(A, "model.a model.c", 1);
    write_shard(B, "model.b model.d", 11);
    write_shard("twice.safetensors", "model.a model.x", 21);
    write_text("broken.safetensors", "this is no safetensors file");
    assert_int_equal(mkdir(in_folder("a-folder.safetensors"), 0700), 0);
    assert_int_equal(mkfifo(in_folder("a-fifo.safetensors"), 0600), 0);
    assert_int_equal(symlink("nothing", in_folder("dangling.safetensors")), 0);
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        write_index(cases[i].index);
        refuse(NB_ERR_INPUT, cases[i].part);
    }
    rmdir(in_folder("a-folder.safetensors"));
    /* The index as something else than a file. */
    unlink(in_folder("model.safetensors.index.json"));
    assert_int_equal(mkfifo(in_folder("model.safetensors.index.json"), 0600), 0);
    refuse(NB_ERR_INPUT, "is a FIFO");
    unlink(in_folder("model.safetensors.index.json"));
    assert_int_equal(symlink("nothing", in_folder("model.safetensors.index.json")), 0);
    refuse(NB_ERR_INPUT, "model.safetensors.index.json: there is no such file");
}

static void test_no_checkpoint(void **state)
{
    (void)state;
    nb_error       err;
    nb_checkpoint *c;
    FAILS(nb_checkpoint_open(&c, in_folder("nothing"), &err), NB_ERR_INPUT, "there is no such model directory", &err);
    refuse(NB_ERR_INPUT,
           "has no weights: looked for model.safetensors, model.safetensors.index.json and a single *.safetensors");
    write_text("config.json", "{}");
    refuse(NB_ERR_INPUT, "has no weights");
    write_text("model.gguf", "GGUF");
    refuse(NB_ERR_UNSUPPORTED, "GGUF");
    write_text("pytorch_model.bin", "PK");
    refuse(NB_ERR_UNSUPPORTED, "only PyTorch weights (.bin): convert them to safetensors first");
    write_shard("adapter_model.safetensors", "x", 1);
    refuse(NB_ERR_UNSUPPORTED, "LoRA adapter");
    FAILS(nb_checkpoint_open(&c, in_folder("adapter_model.safetensors"), &err), NB_ERR_INPUT,
          "is a file: give the directory", &err);
    unlink(in_folder("adapter_model.safetensors"));
    assert_int_equal(symlink("nothing", in_folder("model.safetensors")), 0); /* a hub cache whose blob is gone */
    refuse(NB_ERR_INPUT, "model.safetensors: there is no such file");
    unlink(in_folder("model.safetensors"));
    assert_int_equal(mkdir(in_folder("model.safetensors"), 0700), 0);
    refuse(NB_ERR_INPUT, "is a folder");
    rmdir(in_folder("model.safetensors"));
    write_shard("model.safetensors", "", 0);
    refuse(NB_ERR_INPUT, "hold no tensor");
    write_text("model.safetensors", "short");
    refuse(NB_ERR_INPUT, "has 5 bytes, too few");
}

static void test_unfinished(void **state)
{
    (void)state;
    nb_error       err;
    nb_checkpoint *c;
    char           path[80], inner[96];
    write_shard("model.safetensors", "x", 1);
    snprintf(path, sizeof path, "%s.partial", folder);
    assert_int_equal(rename(folder, path), 0);
    FAILS(nb_checkpoint_open(&c, path, &err), NB_ERR_INPUT, "is an unfinished checkpoint", &err);
    snprintf(inner, sizeof inner, "%s/./", path);
    FAILS(nb_checkpoint_open(&c, inner, &err), NB_ERR_INPUT, "is an unfinished checkpoint", &err);
    assert_int_equal(symlink(path, folder), 0);
    FAILS(nb_checkpoint_open(&c, folder, &err), NB_ERR_INPUT, "is an unfinished checkpoint", &err);
    unlink(folder);
    assert_int_equal(rename(path, folder), 0);
    OK(nb_checkpoint_open(&c, folder, &err), &err);
    nb_checkpoint_close(c);
}

/* Typed access, on values worked out by hand: 1, -2 and 0.5 as F32, BF16, F16; the shape error names both shapes. */
static void test_access(void **state)
{
    (void)state;
    static const char header[] =
        "{\"f\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]},\"b\":{\"dtype\":\"BF16\",\"shape\":[1,3],"
        "\"data_offsets\":[12,18]},\"h\":{\"dtype\":\"F16\",\"shape\":[3,1],\"data_offsets\":[18,24]},"
        "\"i\":{\"dtype\":\"I32\",\"shape\":[],\"data_offsets\":[24,28]},\"e\":{\"dtype\":\"F16\",\"shape\":[0],\"data_offsets\":[28,28]}}";
    static const unsigned char data[28] = {0,    0,    0x80, 0x3F, 0,    0,    0,    0xC0, 0,    0,
                                           0,    0x3F, 0x80, 0x3F, 0x00, 0xC0, 0x00, 0x3F, 0x00, 0x3C,
                                           0x00, 0xC0, 0x00, 0x38, 7,    0,    0,    0};
    nb_buf   file = {0};
    nb_error err;
    for (int i = 0; i < 8; i++) nb_buf_char(&file, (char)((uint64_t)(sizeof header - 1) >> 8 * i));
    nb_buf_str(&file, header);
    nb_buf_add(&file, data, sizeof data);
    OK(nb_file_write_atomic(in_folder("model.safetensors"), file.data, file.size, &err), &err);
    nb_buf_free(&file);
    nb_checkpoint *c;
    OK(nb_checkpoint_open(&c, folder, &err), &err);
    static const struct {
        const char *name;
        int         rank;
        uint64_t    shape[2];
    } want[] = {{"f", 1, {3}}, {"b", 2, {1, 3}}, {"h", 2, {3, 1}}};
    const nb_entry *e;
    for (size_t i = 0; i < NB_COUNT(want); i++) {
        float v[4] = {9, 9, 9, 9};
        OK(nb_checkpoint_get(c, want[i].name, want[i].rank, want[i].shape, &e, &err), &err);
        OK(nb_entry_read_f32(e, v, &err), &err);
        NEAR(v[0], 1, 0);
        NEAR(v[1], -2, 0);
        NEAR(v[2], 0.5, 0);
        NEAR(v[3], 9, 0);
    }
    uint64_t shape[2] = {3, 2};
    FAILS(nb_checkpoint_get(c, "h", 2, shape, &e, &err), NB_ERR_INPUT,
          "model.safetensors: tensor 'h' has shape [3, 1], expected [3, 2]", &err);
    assert_null(e);
    FAILS(nb_checkpoint_get(c, "h", 1, shape, &e, &err), NB_ERR_INPUT, "has shape [3, 1], expected [3]", &err);
    FAILS(nb_checkpoint_get(c, "h", 0, NULL, &e, &err), NB_ERR_INPUT, "expected []", &err);
    FAILS(nb_checkpoint_get(c, "q", 0, NULL, &e, &err), NB_ERR_INPUT, "tensor 'q' is missing", &err);
    OK(nb_checkpoint_get(c, "i", 0, NULL, &e, &err), &err);
    float v[1];
    FAILS(nb_entry_read_f32(e, v, &err), NB_ERR_UNSUPPORTED, "tensor 'i' is I32, expected F32, BF16 or F16", &err);
    void *bytes;
    OK(nb_entry_read(e, &bytes, &err), &err);
    assert_memory_equal(bytes, "\7\0\0\0", 4);
    free(bytes);
    OK(nb_entry_read(nb_checkpoint_find(c, "e"), &bytes, &err), &err);
    free(bytes);
    OK(nb_entry_read_f32(nb_checkpoint_find(c, "e"), v, &err), &err);
    assert_int_equal(truncate(in_folder("model.safetensors"), 8 + sizeof header - 1 + 20), 0);
    float w[3];
    FAILS(nb_entry_read_f32(nb_checkpoint_find(c, "h"), w, &err), NB_ERR_INPUT, "tensor 'h'", &err);
    FAILS(nb_entry_read(nb_checkpoint_find(c, "h"), &bytes, &err), NB_ERR_INPUT, "cut off", &err);
    assert_null(bytes);
    nb_checkpoint_close(c);
}

/* The real one: conversion in pieces gives what whole-tensor conversion gives, also beyond one piece of 65,536. */
static void test_demo_model(void **state)
{
    (void)state;
    nb_error        err;
    nb_checkpoint  *c;
    const nb_entry *e;
    OK(nb_checkpoint_open(&c, unit_path("tools/demo/model"), &err), &err);
    assert_int_equal(nb_checkpoint_count(c), 129);
    assert_int_equal(nb_checkpoint_layout(c), NB_LAYOUT_OLD);
    OK(nb_checkpoint_get(c, "model.embed_tokens.weight", 2, (uint64_t[]){1024, 256}, &e, &err), &err);
    float    *v = malloc(1024 * 256 * sizeof *v);
    void     *raw;
    OK(nb_entry_read_f32(e, v, &err), &err);
    OK(nb_entry_read(e, &raw, &err), &err);
    for (size_t i = 0; i < 1024 * 256; i++) {
        uint16_t h;
        memcpy(&h, (char *)raw + 2 * i, 2);
        NEAR(v[i], nb_bf16_to_f32(h), 0);
    }
    free(raw);
    free(v);
    nb_checkpoint_close(c);
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "%s/m", root);
    return mkdir(folder, 0700);
}

static int remove_folder(void **state)
{
    (void)state;
    nb_error err = {0};
    if (nb_remove_folder(folder, &err) != NB_OK) fprintf(stderr, "%s\n", err.text);
    return err.text[0] ? -1 : 0;
}

static int make_root(void **state)
{
    (void)state;
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    return rmdir(root);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_single), TEST(test_only_file),  TEST(test_new_layout),    TEST(test_stray_layout),
        TEST(test_shards), TEST(test_bad_index),  TEST(test_no_checkpoint), TEST(test_unfinished),
        TEST(test_access), TEST(test_demo_model),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
