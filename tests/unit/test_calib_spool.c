/* Hidden states on disk: what comes back is what went in, by sample and in any chunks; what was changed on the way is named; and a
 * calibration set gives the same bytes with a spool as in memory. */
#include "unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "calib/samples.h"
#include "runtime/io/file.h"

static char folder[512];

static int make_folder(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/nb-spool-XXXXXX", base ? base : P_tmpdir);
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return nb_remove_folder(folder, NULL) == NB_OK ? 0 : -1;
}

static const char *in_folder(const char *name)
{
    static char path[8][600];
    static int  i;
    i = (i + 1) % 8;
    snprintf(path[i], sizeof path[i], "%.500s/%.90s", folder, name);
    return path[i];
}

static size_t files_in(const char *path)
{
    size_t n = 0;
    DIR   *dir = opendir(path);
    assert_non_null(dir);
    for (const struct dirent *e; (e = readdir(dir));) n += e->d_name[0] != '.';
    closedir(dir);
    return n;
}

enum { SAMPLES = 5 };
static const size_t sizes[SAMPLES] = {700, 1, 64, 63, 2049};

static float *values_of(size_t sample, uint64_t generation)
{
    float   *v = malloc(sizes[sample] * sizeof *v);
    uint64_t seed = sample * 1000 + generation;
    for (size_t i = 0; i < sizes[sample]; i++) v[i] = unit_normal(&seed);
    if (sample == 2) v[3] = NAN, v[4] = -0.0f, v[5] = INFINITY; /* bits, not numbers */
    return v;
}

static void put_generation(nb_spool *s, uint64_t generation)
{
    nb_error err;
    OK(nb_spool_start(s, &err), &err);
    for (size_t i = 0; i < SAMPLES; i++) {
        float *v = values_of(i, generation);
        OK(nb_spool_put(s, v, sizes[i], &err), &err);
        free(v);
    }
}

static void check_generation(nb_spool *s, uint64_t generation)
{
    static const size_t order[] = {0, 1, 2, 3, 4, 3, 0, 4, 2, 1}; /* in order, and not */
    nb_error            err;
    for (size_t j = 0; j < NB_COUNT(order); j++) {
        size_t i = order[j];
        float *want = values_of(i, generation), *got = malloc(sizes[i] * sizeof *got);
        OK(nb_spool_get(s, i, got, sizes[i], &err), &err);
        assert_memory_equal(got, want, sizes[i] * sizeof *got);
        free(want);
        free(got);
    }
}

static void generations_follow(void **state)
{
    (void)state;
    static const size_t chunks[] = {1, 63, 64, 700, 0};
    nb_error            err;
    for (size_t c = 0; c < NB_COUNT(chunks); c++)
        for (int level = 0; level < 10; level += 9) {
            nb_spool *s;
            OK(nb_spool_new(&s, in_folder("s"), level, chunks[c], &err), &err);
            put_generation(s, 0);
            assert_int_equal(nb_spool_bytes(s), 0);
            OK(nb_spool_finish(s, &err), &err);
            assert_true(nb_spool_bytes(s) > 0 && nb_spool_bytes(s) == nb_spool_written(s));
            check_generation(s, 0);
            assert_int_equal(files_in(in_folder("s")), 1);
            put_generation(s, 1);
            check_generation(s, 0); /* readable while the next one is written */
            assert_int_equal(files_in(in_folder("s")), 2);
            OK(nb_spool_finish(s, &err), &err);
            check_generation(s, 1);
            assert_int_equal(files_in(in_folder("s")), 1);
            assert_true(nb_file_exists(in_folder("s/hidden-1.spool")));
            struct stat st;
            assert_int_equal(stat(in_folder("s/hidden-1.spool"), &st), 0);
            assert_int_equal(st.st_size, nb_spool_bytes(s));
            put_generation(s, 2); /* never finished */
            nb_spool_free(s);
            assert_false(nb_file_exists(in_folder("s")));
        }
}

static void flip(const char *path, long at)
{
    int     fd = open(path, O_RDWR);
    uint8_t byte;
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

/* Every byte of a file in turn. */
static void damage_is_named(void **state)
{
    (void)state;
    nb_error  err;
    nb_spool *s;
    float     got[4096];
    OK(nb_spool_new(&s, in_folder("s"), 3, 64, &err), &err);
    put_generation(s, 0);
    OK(nb_spool_finish(s, &err), &err);
    long size = (long)nb_spool_bytes(s);
    for (long at = 0; at < size; at++) {
        size_t failed = 0, which = 0;
        flip(in_folder("s/hidden-0.spool"), at);
        for (size_t i = 0; i < SAMPLES; i++)
            if (nb_spool_get(s, i, got, sizes[i], &err)) failed++, which = i;
        assert_int_equal(failed, 1);
        if (at == 0) FAILS(nb_spool_get(s, 0, got, sizes[0], &err), NB_ERR_IO, "hidden-0.spool: chunk 0 of sample 0 (byte 0) is", &err);
        if (at == size - 1)
            FAILS(nb_spool_get(s, which, got, sizes[which], &err), NB_ERR_IO, "chunk 32 of sample 4", &err);
        flip(in_folder("s/hidden-0.spool"), at);
    }
    check_generation(s, 0);
    assert_int_equal(truncate(in_folder("s/hidden-0.spool"), size - 1), 0);
    assert_int_not_equal(nb_spool_get(s, 4, got, sizes[4], &err), NB_OK);
    assert_non_null(strstr(err.text, "chunk 32 of sample 4"));
    assert_non_null(strstr(err.text, "hidden-0.spool"));
    nb_spool_free(s);
}

/* A chunk with a right checksum in the wrong place: the generation before, put back. */
static void old_chunks_are_not_new_ones(void **state)
{
    (void)state;
    nb_error  err;
    nb_spool *s;
    float     got[4096], zeros[64] = {0};
    OK(nb_spool_new(&s, in_folder("s"), 3, 64, &err), &err);
    for (int g = 0; g < 2; g++) {
        OK(nb_spool_start(s, &err), &err);
        OK(nb_spool_put(s, zeros, 64, &err), &err);
        OK(nb_spool_put(s, zeros, 64, &err), &err);
        OK(nb_spool_finish(s, &err), &err);
        if (g == 0) OK(nb_file_copy(in_folder("s/hidden-0.spool"), in_folder("old"), &err), &err);
    }
    nb_buf old = {0};
    OK(nb_file_read(&old, in_folder("old"), 100000, &err), &err);
    assert_int_equal(old.size, nb_spool_bytes(s));
    int fd = open(in_folder("s/hidden-1.spool"), O_WRONLY);
    OK(nb_write_all(fd, old.data, old.size / 2, "test", &err), &err); /* the first sample, an old one */
    close(fd);
    FAILS(nb_spool_get(s, 0, got, 64, &err), NB_ERR_IO, "chunk 0 of sample 0 (byte 0) is damaged: it is another chunk", &err);
    OK(nb_spool_get(s, 1, got, 64, &err), &err);
    nb_buf_free(&old);
    unlink(in_folder("old"));
    nb_spool_free(s);
}

static void folders(void **state)
{
    (void)state;
    nb_error  err;
    nb_spool *s, *t;
    FAILS(nb_spool_new(&s, in_folder("no/such"), 3, 0, &err), NB_ERR_IO, "cannot create the spool", &err);
    assert_null(s);
    FAILS(nb_spool_new(&s, in_folder("s"), 20, 0, &err), NB_ERR_ARGUMENT, "level of 20", &err);
    assert_int_equal(mkdir(in_folder("mine"), 0777), 0);
    OK(nb_file_write_atomic(in_folder("mine/hidden-7.spool"), "x", 1, &err), &err); /* of a dead run */
    OK(nb_file_write_atomic(in_folder("mine/hidden-7a.spool"), "x", 1, &err), &err);
    OK(nb_file_write_atomic(in_folder("mine/notes"), "x", 1, &err), &err);
    OK(nb_spool_new(&s, in_folder("mine"), 3, 0, &err), &err);
    assert_int_equal(files_in(in_folder("mine")), 2);
    FAILS(nb_spool_new(&t, in_folder("mine"), 3, 0, &err), NB_ERR_ARGUMENT, "another run spools there", &err);
    put_generation(s, 0);
    nb_spool_free(s);
    assert_int_equal(files_in(in_folder("mine")), 2); /* the folder and what others put there stay */
    OK(nb_remove_folder(in_folder("mine"), &err), &err);
}

/* A disk that goes away: what is open can be read to its end, nothing new is believed to be written, and the place is named. */
static void vanished(void **state)
{
    (void)state;
    nb_error  err;
    nb_spool *s;
    char      place[600], gone[600];
    snprintf(place, sizeof place, "%s", in_folder("away"));
    snprintf(gone, sizeof gone, "%s", in_folder("gone"));
    OK(nb_spool_new(&s, place, 3, 0, &err), &err);
    put_generation(s, 0);
    OK(nb_spool_finish(s, &err), &err);
    assert_int_equal(rename(place, gone), 0);
    check_generation(s, 0);
    FAILS(nb_spool_start(s, &err), NB_ERR_IO, "away/hidden-1.spool: cannot create it: No such file or directory", &err);
    check_generation(s, 0);
    nb_spool_free(s);
    OK(nb_remove_folder(gone, &err), &err);
}

/* ---- the calibration set ----------------------------------------------------------------------------------------- */

typedef struct {
    nb_samples set;
    double     sum; /* of all inputs of all sites, in order */
} run;

static void watch(void *context, nb_site site, const float *x, size_t ld, int k, const nb_sample_rows *rows)
{
    run *w = context;
    (void)site;
    for (size_t r = 0; r < rows->bounds[rows->count]; r++)
        for (int i = 0; i < k; i++) w->sum = w->sum * 1.0000001 + fabs((double)x[r * ld + (size_t)i]) + rows->modality[r];
}

static run run_layers(const nb_model *model, const nb_samples_options *o)
{
    nb_error      err;
    run           w = {.sum = 0};
    nb_sample_tap tap = {.site = watch, .context = &w};
    OK(nb_samples_load(&w.set, model, o, &err), &err);
    OK(nb_samples_embed(&w.set, model, &err), &err);
    for (size_t i = 0; i < w.set.count; i++)
        for (int j = 0; j < w.set.prompts[i].media_count; j++) assert_null(w.set.prompts[i].media[j].rows);
    for (int l = 0; l < 2; l++) {
        OK(nb_samples_layer(&w.set, model, &model->layers[l], &tap, false, &err), &err);
        OK(nb_samples_layer(&w.set, model, &model->layers[l], NULL, true, &err), &err);
    }
    return w;
}

static void set_is_the_same_in_memory_and_on_disk(void **state)
{
    (void)state;
    static const size_t chunks[] = {0, 1000, 33};
    nb_error  err;
    nb_pool  *pool;
    nb_ops    ops;
    nb_model *model;
    char      chats[1024];
    snprintf(chats, sizeof chats, "%s", unit_path("tools/demo/calib/chat.jsonl"));
    OK(nb_pool_new(&pool, 2, &err), &err);
    nb_ops_init(&ops, nb_isa_detect(NB_ISA_LEVELS - 1), pool);
    OK(nb_model_open(&model, unit_path("tools/demo/model"), &ops, 0, &err), &err);
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        nb_samples_options o = {.path = chats, .samples = 16, .dataset = {.need_answer = true}, .shuffle = shuffle, .seq_len = 150};
        run                memory = run_layers(model, &o);
        o.embed = true;
        run early = run_layers(model, &o); /* embedded while loading */
        assert_true(memory.set.hash == early.set.hash && memory.sum == early.sum);
        nb_samples_free(&early.set);
        assert_non_null(memory.set.hidden);
        for (size_t c = 0; c < NB_COUNT(chunks); c++) {
            o.spool = in_folder("set");
            o.spool_chunk = chunks[c];
            run disk = run_layers(model, &o);
            assert_null(disk.set.hidden);
            assert_true(memory.set.hash == disk.set.hash);
            assert_int_equal(memory.set.count, disk.set.count);
            assert_int_equal(memory.set.too_long, disk.set.too_long);
            assert_true(memory.sum == disk.sum);
            for (size_t i = 0; i < disk.set.count; i++) {
                size_t n = disk.set.prompts[i].count * (size_t)model->config.hidden;
                float *got = malloc(n * sizeof *got);
                OK(nb_spool_get(disk.set.spool, i, got, n, &err), &err);
                assert_memory_equal(got, memory.set.hidden[i], n * sizeof *got);
                free(got);
            }
            nb_samples_free(&disk.set);
            assert_false(nb_file_exists(in_folder("set")));
        }
        nb_samples_free(&memory.set);
    }
    nb_samples         s;
    nb_samples_options o = {.path = in_folder("no-chats"), .spool = in_folder("set")};
    FAILS(nb_samples_load(&s, model, &o, &err), NB_ERR_INPUT, "no-chats", &err);
    assert_false(nb_file_exists(in_folder("set")));
    nb_model_close(model);
    nb_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generations_follow),          cmocka_unit_test(damage_is_named),
        cmocka_unit_test(old_chunks_are_not_new_ones), cmocka_unit_test(folders), cmocka_unit_test(vanished),
        cmocka_unit_test(set_is_the_same_in_memory_and_on_disk),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
