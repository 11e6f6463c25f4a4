/* The checkpoint writer: what it writes is read back through the runtime's strict reader, and whatever fails leaves neither OUT
 * nor OUT.partial. */
#include "unit.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "quant/writer.h"
#include "quant_folder.h"
#include "runtime/io/checkpoint.h"

/* Names, types and shapes of a small model; contents are a function of the place. */
static const struct { const char *name; nb_dtype dtype; int rank; uint64_t shape[3]; } tensors[] = {
    {"model.embed_tokens.weight", NB_F16, 2, {10, 4}}, {"a.qweight", NB_I32, 2, {4, 3}}, {"a.scales", NB_F16, 2, {1, 3}},
    {"b \"quoted\" \xc3\xa9", NB_U8, 1, {5}},           {"scalar", NB_F32, 0, {0}},       {"none", NB_BF16, 2, {0, 7}},
    {"wide", NB_I64, 3, {2, 1, 3}},
};

static uint64_t bytes_of(size_t i)
{
    uint64_t n = nb_dtype_size(tensors[i].dtype);
    for (int d = 0; d < tensors[i].rank; d++) n *= tensors[i].shape[d];
    return n;
}

static void fill(uint8_t *out, size_t i)
{
    for (uint64_t j = 0; j < bytes_of(i); j++) out[j] = (uint8_t)(17 * i + 3 * j + 1);
}

static nb_status write_all(nb_writer *w, nb_error *err)
{
    for (size_t i = 0; i < NB_COUNT(tensors); i++)
        NB_TRY(nb_writer_declare(w, tensors[i].name, tensors[i].dtype, tensors[i].rank, tensors[i].shape, err));
    NB_TRY(nb_writer_plan(w, err));
    for (size_t j = NB_COUNT(tensors); j-- > 0;) { /* not in the order of declaration */
        uint8_t data[256];
        fill(data, j);
        NB_TRY(nb_writer_tensor(w, tensors[j].name, data, bytes_of(j), err));
    }
    NB_TRY(nb_writer_file(w, "config.json", "{}", 2, err));
    return nb_writer_commit(w, err);
}

static void check_all(const char *directory, size_t shards)
{
    nb_error       err;
    nb_checkpoint *c;
    OK(nb_checkpoint_open(&c, directory, &err), &err);
    assert_int_equal(nb_checkpoint_count(c), NB_COUNT(tensors));
    assert_int_equal(nb_checkpoint_shards(c), shards);
    for (size_t i = 0; i < NB_COUNT(tensors); i++) {
        const nb_entry *e;
        uint8_t         want[256];
        void           *got;
        OK(nb_checkpoint_get(c, tensors[i].name, tensors[i].rank, tensors[i].shape, &e, &err), &err);
        assert_int_equal(e->tensor->dtype, tensors[i].dtype);
        assert_string_equal(nb_safetensors_metadata(e->file, "format"), "pt");
        if (nb_dtype_size(e->tensor->dtype)) assert_int_equal(e->tensor->offset % nb_dtype_size(e->tensor->dtype), 0);
        fill(want, i);
        assert_int_equal(e->tensor->bytes, bytes_of(i));
        OK(nb_entry_read(e, &got, &err), &err);
        assert_memory_equal(got, want, bytes_of(i));
        free(got);
    }
    nb_checkpoint_close(c);
}

static void round_trip_in_one_file(void **state)
{
    (void)state;
    nb_error   err;
    nb_writer *w;
    OK(nb_writer_new(&w, in_folder("one/"), 1000000, false, &err), &err); /* the slash does not count */
    assert_true(nb_file_exists(in_folder("one.partial")));
    OK(write_all(w, &err), &err);
    assert_int_equal(nb_writer_bytes(w), 80 + 48 + 6 + 5 + 4 + 0 + 48);
    nb_writer_free(w);
    assert_false(nb_file_exists(in_folder("one.partial")));
    assert_true(nb_file_exists(in_folder("one/config.json")));
    assert_false(nb_file_exists(in_folder("one/model.safetensors.index.json")));
    check_all(in_folder("one"), 1);
    drop("one");
}

/* 80 | 48 6 5 4 0 | 48: a shard ends before the tensor that would pass 80 bytes; the first fills its own exactly. */
static void shards_fill_greedily(void **state)
{
    (void)state;
    nb_error   err;
    nb_writer *w;
    OK(nb_writer_new(&w, in_folder("many"), 80, false, &err), &err);
    OK(write_all(w, &err), &err);
    nb_writer_free(w);
    check_all(in_folder("many"), 3);

    cJSON *index;
    OK(nb_json_file(&index, in_folder("many/model.safetensors.index.json"), 100000, &err), &err);
    const cJSON *map = nb_json_find(index, "weight_map");
    assert_string_equal(nb_json_find(map, "model.embed_tokens.weight")->valuestring, "model-00001-of-00003.safetensors");
    assert_string_equal(nb_json_find(map, "a.qweight")->valuestring, "model-00002-of-00003.safetensors");
    assert_string_equal(nb_json_find(map, "none")->valuestring, "model-00002-of-00003.safetensors");
    assert_string_equal(nb_json_find(map, "wide")->valuestring, "model-00003-of-00003.safetensors");
    assert_int_equal(nb_json_find(nb_json_find(index, "metadata"), "total_size")->valueint, 191);
    cJSON_Delete(index);
    drop("many");

    OK(nb_writer_new(&w, in_folder("exact"), 54, false, &err), &err); /* a shard may be filled to the last byte */
    OK(write_all(w, &err), &err);
    nb_writer_free(w);
    check_all(in_folder("exact"), 4); /* 80 | 48 6 | 5 4 0 | 48 */
    nb_checkpoint *c;
    OK(nb_checkpoint_open(&c, in_folder("exact"), &err), &err);
    assert_ptr_equal(nb_checkpoint_find(c, "a.scales")->file, nb_checkpoint_find(c, "a.qweight")->file);
    nb_checkpoint_close(c);
    drop("exact");

    OK(nb_writer_new(&w, in_folder("small"), 10, false, &err), &err); /* every tensor is larger: one each, but small ones share */
    OK(write_all(w, &err), &err);
    nb_writer_free(w);
    check_all(in_folder("small"), 5); /* 80 | 48 | 6 | 5 4 0 | 48 */
    drop("small");
}

/* Header: length a multiple of 8; tensors by falling element size, then by name. */
static void header_is_sorted_and_padded(void **state)
{
    (void)state;
    nb_error   err;
    nb_writer *w;
    nb_buf     file;
    OK(nb_writer_new(&w, in_folder("order"), 1000000, false, &err), &err);
    OK(write_all(w, &err), &err);
    nb_writer_free(w);
    OK(nb_file_read(&file, in_folder("order/model.safetensors"), 100000, &err), &err);
    uint64_t n;
    memcpy(&n, file.data, 8);
    assert_int_equal(n % 8, 0);
    assert_int_equal(8 + n + 191, file.size);
    const char *const order[] = {"__metadata__", "\"wide\"", "a.qweight", "scalar", "a.scales", "embed_tokens", "\"none\"", "quoted"};
    const char *at = file.data + 8;
    for (size_t i = 0; i < NB_COUNT(order); i++) {
        at = strstr(at, order[i]);
        if (!at) fail_msg("%s is not in its place", order[i]);
    }
    nb_buf_free(&file);
    drop("order");
}

static void existing_output(void **state)
{
    (void)state;
    nb_error   err;
    nb_writer *w;
    OK(nb_writer_new(&w, in_folder("old"), 1000000, false, &err), &err);
    OK(nb_writer_plan(w, &err), &err);
    OK(nb_writer_file(w, "mark", "old", 3, &err), &err);
    OK(nb_writer_commit(w, &err), &err);
    nb_writer_free(w);

    FAILS(nb_writer_new(&w, in_folder("old"), 1000000, false, &err), NB_ERR_ARGUMENT, "exists", &err);
    assert_null(w);
    /* A forced run that fails leaves the old one as it was. */
    OK(nb_writer_new(&w, in_folder("old"), 1000000, true, &err), &err);
    nb_writer_free(w);
    assert_true(nb_file_exists(in_folder("old/mark")));
    assert_false(nb_file_exists(in_folder("old.partial")));
    OK(nb_writer_new(&w, in_folder("old"), 1000000, true, &err), &err);
    OK(write_all(w, &err), &err);
    nb_writer_free(w);
    assert_false(nb_file_exists(in_folder("old/mark")));
    assert_false(nb_file_exists(in_folder("old.partial")));
    assert_false(nb_file_exists(in_folder("old.replaced")));
    check_all(in_folder("old"), 1);

    /* A folder inside means that it is not ours to delete. */
    assert_int_equal(mkdir(in_folder("old/inner"), 0777), 0);
    FAILS(nb_writer_new(&w, in_folder("old"), 1000000, true, &err), NB_ERR_ARGUMENT, "holds the folder 'inner'", &err);
    assert_int_equal(rmdir(in_folder("old/inner")), 0);
    drop("old");

    FILE *f = fopen(in_folder("file"), "w");
    fclose(f);
    FAILS(nb_writer_new(&w, in_folder("file"), 1000000, true, &err), NB_ERR_ARGUMENT, "not a directory", &err);
    FAILS(nb_writer_new(&w, in_folder("file/out"), 1000000, true, &err), NB_ERR_ARGUMENT, "create it first", &err);
    unlink(in_folder("file"));
    FAILS(nb_writer_new(&w, in_folder("no/such/out"), 1000000, false, &err), NB_ERR_ARGUMENT, "create it first", &err);
    FAILS(nb_writer_new(&w, "", 1000000, false, &err), NB_ERR_ARGUMENT, "name", &err);
    FAILS(nb_writer_new(&w, in_folder("zero"), 0, false, &err), NB_ERR_ARGUMENT, "shard size", &err);
}

static void leftovers_and_rivals(void **state)
{
    (void)state;
    nb_error   err;
    nb_writer *w, *rival;
    assert_int_equal(mkdir(in_folder("out.partial"), 0777), 0); /* what a killed run leaves */
    FILE *f = fopen(in_folder("out.partial/model.safetensors"), "w");
    fclose(f);
    OK(nb_writer_new(&w, in_folder("out"), 1000000, false, &err), &err);
    assert_false(nb_file_exists(in_folder("out.partial/model.safetensors")));
    FAILS(nb_writer_new(&rival, in_folder("out"), 1000000, false, &err), NB_ERR_ARGUMENT, "another run", &err);
    assert_true(nb_file_exists(in_folder("out.partial"))); /* the rival took nothing away */
    OK(nb_writer_plan(w, &err), &err);
    assert_int_equal(mkdir(in_folder("out"), 0777), 0); /* appears meanwhile */
    FAILS(nb_writer_commit(w, &err), NB_ERR_ARGUMENT, "appeared", &err);
    nb_writer_free(w);
    assert_int_equal(rmdir(in_folder("out")), 0);
    assert_nothing_left("out");
}

/* As another user: root may write anywhere. */
static void unwritable_parent(void **state)
{
    (void)state;
    nb_error   err;
    nb_writer *w;
    assert_int_equal(mkdir(in_folder("locked"), 0555), 0);
    if (access(in_folder("locked"), W_OK) == 0)
        fprintf(stderr, "SKIP %s: this user may write everywhere\n", __func__);
    else
        FAILS(nb_writer_new(&w, in_folder("locked/out"), 1000000, false, &err), NB_ERR_IO, "locked", &err);
    assert_int_equal(rmdir(in_folder("locked")), 0);
}

static void wrong_calls_are_told(void **state)
{
    (void)state;
    nb_error       err;
    nb_writer     *w;
    const uint64_t shape[2] = {2, 3}, huge[2] = {UINT64_MAX / 2, 5};
    float          data[6] = {0};
    OK(nb_writer_new(&w, in_folder("wrong"), 1000, false, &err), &err);
    OK(nb_writer_declare(w, "x", NB_F32, 2, shape, &err), &err);
    FAILS(nb_writer_declare(w, "y", NB_F32, 2, huge, &err), NB_ERR_ARGUMENT, "'y'", &err);
    FAILS(nb_writer_declare(w, "y", NB_DTYPE_OTHER, 2, shape, &err), NB_ERR_ARGUMENT, "'y'", &err);
    FAILS(nb_writer_declare(w, "__metadata__", NB_F32, 2, shape, &err), NB_ERR_ARGUMENT, "__metadata__", &err);
    FAILS(nb_writer_commit(w, &err), NB_ERR_ARGUMENT, "'x'", &err);
    FAILS(nb_writer_tensor(w, "x", data, sizeof data, &err), NB_ERR_ARGUMENT, "not declared", &err); /* before the plan */
    OK(nb_writer_plan(w, &err), &err);
    FAILS(nb_writer_tensor(w, "z", data, sizeof data, &err), NB_ERR_ARGUMENT, "not declared", &err);
    FAILS(nb_writer_tensor(w, "x", data, 23, &err), NB_ERR_ARGUMENT, "23 bytes given, 24 declared", &err);
    FAILS(nb_writer_commit(w, &err), NB_ERR_ARGUMENT, "never written", &err);
    OK(nb_writer_tensor(w, "x", data, sizeof data, &err), &err);
    FAILS(nb_writer_tensor(w, "x", data, sizeof data, &err), NB_ERR_ARGUMENT, "already written", &err);
    FAILS(nb_writer_file(w, "../x", "", 0, &err), NB_ERR_ARGUMENT, "not the name of a file", &err);
    FAILS(nb_writer_file(w, "model.safetensors", "", 0, &err), NB_ERR_IO, "model.safetensors", &err); /* exists */
    FAILS(nb_writer_copy(w, folder, "no-such-file", &err), NB_ERR_INPUT, "no-such-file", &err);
    nb_writer_free(w);
    assert_nothing_left("wrong");

    OK(nb_writer_new(&w, in_folder("twice"), 1000, false, &err), &err);
    OK(nb_writer_declare(w, "x", NB_F32, 2, shape, &err), &err);
    OK(nb_writer_declare(w, "x", NB_F16, 2, shape, &err), &err);
    FAILS(nb_writer_plan(w, &err), NB_ERR_ARGUMENT, "'x' was declared twice", &err);
    nb_writer_free(w);
    assert_nothing_left("twice");
}

/* A disk that is too small, told before the first byte; a limit on files stands in for a disk that fills up. */
static void full_disk(void **state)
{
    (void)state;
    nb_error       err;
    nb_writer     *w;
    const uint64_t petabytes[1] = {(uint64_t)1 << 56}, kilobytes[1] = {100000};
    OK(nb_writer_new(&w, in_folder("full"), UINT64_MAX, false, &err), &err);
    OK(nb_writer_declare(w, "x", NB_U8, 1, petabytes, &err), &err);
    FAILS(nb_writer_plan(w, &err), NB_ERR_BUDGET, "72057594071482368 bytes are needed and", &err);
    nb_writer_free(w);
    assert_nothing_left("full");

    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 50000;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    OK(nb_writer_new(&w, in_folder("full"), 1000000, false, &err), &err);
    OK(nb_writer_declare(w, "x", NB_U8, 1, kilobytes, &err), &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    nb_status status = nb_writer_plan(w, &err);
    nb_writer_free(w);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(status, NB_ERR_IO);
    if (!strstr(err.text, "full.partial/model.safetensors: cannot allocate 100104 bytes")) fail_msg("%s", err.text);
    assert_nothing_left("full");

    char *text = calloc(1, 60000); /* a side file meets the limit while it is written */
    OK(nb_writer_new(&w, in_folder("full"), 1000000, false, &err), &err);
    OK(nb_writer_plan(w, &err), &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    status = nb_writer_file(w, "tokenizer.json", text, 60000, &err);
    nb_writer_free(w);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    free(text);
    assert_int_equal(status, NB_ERR_IO);
    assert_non_null(strstr(err.text, "full.partial/tokenizer.json"));
    assert_nothing_left("full");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip_in_one_file), cmocka_unit_test(shards_fill_greedily),
        cmocka_unit_test(header_is_sorted_and_padded), cmocka_unit_test(existing_output),
        cmocka_unit_test(leftovers_and_rivals),   cmocka_unit_test(unwritable_parent),
        cmocka_unit_test(wrong_calls_are_told),   cmocka_unit_test(full_disk),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
