/* test_tools_packs.c - --pack-cache: what is computed is the same to the bit with and without it, at every level; a file that was cut
 * off, changed, forged or made for something else is named and written anew, to the same bytes; what cannot be written does no harm. */
#include "copies.h"
#include "program.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <xxhash.h>

#include "runtime/model/model.h"

/* Where fields are, as pack_cache.c writes them: written down here once more, so that a change of the form is noticed. */
enum { FORM_AT = 8, ENTRIES_AT = 12, META_BYTES_AT = 24, META_HASH_AT = 80, HASH_AT = 88, HEADER = 96, META_AT = 4096 };
enum { ENTRY = 168, KIND = 96, N = 104, K = 108, GROUP = 112, FLAGS = 116, PERM_AT = 120, TABLE_AT = 128, TABLE_BYTES = 136, BYTES_AT = 144,
       SIZE = 152 };

static nb_pool *pool;
static char     codes[300], cache[300]; /* a checkpoint with int4, its columns sorted by group, and int8; the file */
static nb_buf   good;                   /* the file as it is to be */

static nb_ops best(void)
{
    nb_ops ops;
    nb_ops_init(&ops, nb_isa_detect(NB_ISA_LEVELS - 1), pool);
    return ops;
}

static nb_model *open_with(const char *directory, const nb_ops *ops, const char *file)
{
    nb_model *m;
    nb_error  err;
    OK(nb_model_open_packed(&m, directory, ops, file, &err), &err);
    return m;
}

static bool is_mapped(const nb_model *m) { return m->layers[0].qkv.borrowed && m->embed.borrowed && m->layers[m->config.layers - 1].down.borrowed; }

static const char *notes(const nb_model *m) { return m->notes.data ? m->notes.data : ""; }

/* ---- what is computed -------------------------------------------------------------------------------------------------- */

enum { ROWS = 5 };

/* Logits [ROWS, vocab] of some tokens, and behind them the visual rows of a made-up picture. */
static float *compute(const nb_model *m, size_t *count)
{
    const nb_config *c = &m->config;
    const nb_ops    *ops = &m->ops;
    nb_error         err;
    nb_scratch      *scratch;
    int32_t          ids[ROWS] = { 1, 5, 9, 200, 3 }, position[3 * ROWS];
    size_t           half = (size_t)c->kv_heads * NB_KV_PAGE * (size_t)c->head_dim * 4, seen, logits = ROWS * (size_t)c->vocab;
    float           *x = ops->alloc(ops, ROWS * (size_t)c->hidden * sizeof *x), *visual;
    void            *page = ops->alloc(ops, 2 * half);
    nb_attn          attn = { c->heads, c->kv_heads, c->head_dim, 1 / sqrtf((float)c->head_dim), NB_F32, 0, half };
    nb_span          span = { 0, ROWS, 0, &page };
    size_t           width = (size_t)c->v_channels * (size_t)c->v_temporal * (size_t)c->v_patch * (size_t)c->v_patch;
    float           *pixels = calloc(16 * width, sizeof *pixels);
    uint64_t         seed = 7;
    for (int i = 0; i < 3 * ROWS; i++) position[i] = i % ROWS;
    for (size_t i = 0; i < 16 * width; i++) pixels[i] = unit_uniform(&seed);
    OK(nb_scratch_new(&scratch, m, ROWS, &err), &err);
    nb_rope_prepare(m, scratch, position, ROWS, ROWS);
    ops->embed(ops, x, ids, ROWS, &m->embed);
    for (int i = 0; i < c->layers; i++) nb_layer_forward(m, &m->layers[i], scratch, &attn, &span, 1, x, ROWS, NULL, NULL);
    nb_patches media = { .rows = pixels, .t = 1, .h = 4, .w = 4 };
    OK(nb_vision_forward(m, &media, &visual, &seen, &err), &err);
    *count = logits + seen * (size_t)c->hidden;
    float *out = ops->alloc(ops, *count * sizeof *out);
    nb_head_forward(m, scratch, x, ROWS, out);
    memcpy(out + logits, visual, seen * (size_t)c->hidden * sizeof *out);
    ops->free(ops, visual);
    ops->free(ops, x);
    ops->free(ops, page);
    nb_scratch_free(scratch);
    free(pixels);
    return out;
}

static void expect_same(const char *directory, nb_isa isa, const char *file)
{
    nb_ops ops;
    float *values[3];
    size_t count = 0;
    nb_ops_init(&ops, isa, pool);
    unlink(file);
    for (int i = 0; i < 3; i++) { /* without, then written, then mapped */
        nb_model *m = open_with(directory, &ops, i ? file : NULL);
        assert_string_equal(notes(m), "");
        assert_int_equal(is_mapped(m), i == 2);
        values[i] = compute(m, &count);
        nb_model_close(m);
    }
    for (int i = 1; i < 3; i++) assert_memory_equal(values[0], values[i], count * sizeof *values[0]);
    for (int i = 0; i < 3; i++) free(values[i]);
}

static void test_same(void **state)
{
    (void)state;
    for (nb_isa isa = 0; isa < NB_ISA_LEVELS; isa++) {
        if (nb_isa_detect(isa) != isa) continue;
        expect_same(unit_path("tools/demo/model"), isa, copy_path("float.packed", NULL));
        expect_same(codes, isa, copy_path("codes.packed", NULL));
    }
}

/* The program says the same, too, and says nothing else. */
static void test_program(void **state)
{
    (void)state;
    static char first[sizeof printed[0]];
    for (int i = 0; i < 3; i++) {
        const char *file = copy_path("program.packed", NULL);
        if (i) ENDS(0, "run", codes, "-p", "What is two and three?", "--temp", "0", "-n", "12", "--pack-cache", file);
        else ENDS(0, "run", codes, "-p", "What is two and three?", "--temp", "0", "-n", "12");
        assert_string_equal(printed[1], "");
        if (!i) snprintf(first, sizeof first, "%s", printed[0]);
        assert_true(strlen(first) > 0);
        assert_string_equal(printed[0], first);
    }
}

/* ---- files that are not what they should be ---------------------------------------------------------------------------- */

static void put(const char *path, const void *data, size_t n)
{
    nb_error err;
    OK(nb_file_write_atomic(path, data, n, &err), &err);
}

static nb_buf get(const char *path)
{
    nb_buf   b;
    nb_error err;
    OK(nb_file_read(&b, path, 1 << 28, &err), &err);
    return b;
}

/* The file is as good says. */
static void expect_good(const char *what)
{
    nb_buf b = get(cache);
    if (b.size != good.size || memcmp(b.data, good.data, b.size) != 0) fail_msg("%s: the file was not written anew", what);
    nb_buf_free(&b);
}

/* What stands at `cache` now is not used: the model is packed, the file named and said to be `why`, and written anew. */
static void expect_anew(const char *what, const char *why)
{
    nb_ops    ops = best();
    nb_model *m = open_with(codes, &ops, cache);
    if (is_mapped(m)) fail_msg("%s: it was used", what);
    if (!strstr(notes(m), why) || !strstr(notes(m), cache) || !strstr(notes(m), "written anew"))
        fail_msg("%s: '%s' does not hold '%s', the file and what becomes of it", what, notes(m), why);
    nb_model_close(m);
    expect_good(what);
}

static uint64_t field(const nb_buf *b, size_t at)
{
    uint64_t v;
    memcpy(&v, b->data + at, 8);
    return v;
}

static size_t data_at(const nb_buf *b) { return (META_AT + (size_t)field(b, META_BYTES_AT) + 4095) / 4096 * 4096; }

static void test_cut(void **state)
{
    (void)state;
    size_t meta = (size_t)field(&good, META_BYTES_AT), data = data_at(&good);
    size_t ends[] = { 0, 1, 7, 8, 9, HEADER - 1, HEADER, META_AT - 1, META_AT, META_AT + 1, META_AT + ENTRY, META_AT + meta - 1, META_AT + meta,
                      data - 1, data, data + 1, data + 4096, good.size / 2, good.size - 4096, good.size - 1 };
    for (size_t i = 0; i < NB_COUNT(ends); i++) {
        char what[40];
        snprintf(what, sizeof what, "cut at %zu", ends[i]);
        put(cache, good.data, ends[i]);
        expect_anew(what, ends[i] < META_AT ? "ends within its header" : "cut off");
    }
    nb_buf more = { 0 };
    nb_buf_add(&more, good.data, good.size);
    nb_buf_char(&more, 0);
    put(cache, more.data, more.size);
    expect_anew("a byte more", "added to");
    nb_buf_free(&more);
}

static void expect_flip(size_t at, const char *why)
{
    char what[40];
    snprintf(what, sizeof what, "byte %zu changed", at);
    good.data[at] ^= 0x24;
    put(cache, good.data, good.size);
    good.data[at] ^= 0x24;
    expect_anew(what, why);
}

static void test_flips(void **state)
{
    (void)state;
    size_t meta = (size_t)field(&good, META_BYTES_AT), data = data_at(&good);
    for (size_t at = FORM_AT; at < ENTRIES_AT; at++) expect_flip(at, "newer nibble");
    for (size_t at = ENTRIES_AT; at < HEADER; at += 3) expect_flip(at, "its header is damaged");
    expect_flip(HEADER - 1, "its header is damaged");
    for (size_t at = 0; at < meta; at += meta / 23) expect_flip(META_AT + at, "its table is damaged");
    expect_flip(META_AT + meta - 1, "its table is damaged");
    uint64_t first = field(&good, META_AT + BYTES_AT), size = field(&good, META_AT + SIZE);
    assert_int_equal(first, data);
    expect_flip((size_t)first, "the numbers of model.embed_tokens are damaged");
    expect_flip((size_t)(first + size - 1), "the numbers of model.embed_tokens are damaged");
    for (size_t at = data; at < good.size; at += good.size / 11)
        if (at < data + size) expect_flip(at, "are damaged");
}

/* Field of entry i becomes v [n bytes], with hashes that fit: what a hostile file would do. */
static void forge(size_t i, size_t at, const void *v, size_t n, const char *why)
{
    nb_buf   b = { 0 };
    char     what[60];
    uint64_t hash;
    size_t   meta = (size_t)field(&good, META_BYTES_AT);
    snprintf(what, sizeof what, "entry %zu, field at %zu", i, at);
    nb_buf_add(&b, good.data, good.size);
    memcpy(b.data + META_AT + i * ENTRY + at, v, n);
    hash = XXH3_64bits(b.data + META_AT, meta);
    memcpy(b.data + META_HASH_AT, &hash, 8);
    hash = XXH3_64bits(b.data, HASH_AT);
    memcpy(b.data + HASH_AT, &hash, 8);
    put(cache, b.data, b.size);
    nb_buf_free(&b);
    expect_anew(what, why);
}

static void forge_u64(size_t i, size_t at, uint64_t v, const char *why) { forge(i, at, &v, 8, why); }
static void forge_u32(size_t i, size_t at, uint32_t v, const char *why) { forge(i, at, &v, 4, why); }

/* First entry with sorted columns. */
static size_t sorted_entry(void)
{
    uint32_t entries;
    memcpy(&entries, good.data + ENTRIES_AT, 4);
    for (size_t i = 0; i < entries; i++)
        if (field(&good, META_AT + i * ENTRY + PERM_AT)) return i;
    fail_msg("no matrix has sorted columns");
    return 0;
}

static void test_forged(void **state)
{
    (void)state;
    size_t   s = sorted_entry(), at = META_AT + s * ENTRY;
    uint64_t meta = field(&good, META_BYTES_AT), size = field(&good, at + SIZE), bytes = field(&good, at + BYTES_AT);
    char     long_name[96];
    memset(long_name, 'x', sizeof long_name);
    forge(s, 0, long_name, sizeof long_name, "points out");
    forge_u32(s, N, 0, "points out");
    forge_u32(s, N, 0x80000000, "points out");
    forge_u32(s, N, 0x7fffffff, "no matrix");
    forge_u32(s, N, 1, "its size is not that");
    forge_u32(s, K, 0x7fffffff, "points out");
    forge_u32(s, K, 8, "its blocks of inputs");
    forge_u32(s, GROUP, 0, "no matrix");
    forge_u32(s, GROUP, 0xffffffff, "no matrix");
    forge_u32(s, GROUP, 1, "its size is not that");
    forge_u32(s, KIND, 0, "no matrix");
    forge_u32(s, KIND, 99, "no matrix");
    forge_u32(s, KIND, 0xffffffff, "no matrix");
    forge_u32(s, FLAGS, 0xff, "no matrix");
    forge_u64(s, PERM_AT, meta, "points out");
    forge_u64(s, PERM_AT, UINT64_MAX - 3, "points out");
    forge_u64(s, PERM_AT, 2, "points out");
    forge_u64(s, PERM_AT, 4, "its columns");
    forge_u64(s, TABLE_AT, meta + 4, "points out");
    forge_u64(s, TABLE_BYTES, meta, "points out");
    forge_u64(s, TABLE_BYTES, UINT64_MAX, "points out");
    forge_u64(s, TABLE_BYTES, 0, "its blocks of inputs");
    forge_u64(s, TABLE_BYTES, 17, "its blocks of inputs");
    forge_u64(s, BYTES_AT, good.size, "points out");
    forge_u64(s, BYTES_AT, bytes + 1, "points out");
    forge_u64(s, BYTES_AT, UINT64_MAX - 63, "points out");
    forge_u64(s, SIZE, UINT64_MAX, "points out");
    forge_u64(s, SIZE, good.size, "points out");
    forge_u64(s, SIZE, size - 64, "are damaged");
    /* inside the small tables: a column twice, a column that is not, blocks of another length or group */
    uint32_t perm = (uint32_t)field(&good, at + PERM_AT), table = (uint32_t)field(&good, at + TABLE_AT), back = (uint32_t)(s * ENTRY);
    forge(s, perm - back, good.data + META_AT + perm + 4, 4, "its columns");
    forge_u32(s, perm - back, 0x7fffffff, "its columns");
    forge_u32(s, perm - back, 0xffffffff, "its columns");
    for (int word = 0; word < 4; word++) {
        forge_u32(s, table - back + 4 * (size_t)word, 0x40000000, "its blocks of inputs");
        forge_u32(s, table - back + 4 * (size_t)word, 0xffffffff, "its blocks of inputs");
    }
    /* a name that nobody asks for: one matrix is missing, and the file is whole again */
    nb_ops ops = best();
    char   other = 'X';
    nb_buf b = { 0 };
    nb_buf_add(&b, good.data, good.size);
    memcpy(b.data + META_AT + s * ENTRY, &other, 1);
    uint64_t hash = XXH3_64bits(b.data + META_AT, (size_t)meta);
    memcpy(b.data + META_HASH_AT, &hash, 8);
    hash = XXH3_64bits(b.data, HASH_AT);
    memcpy(b.data + HASH_AT, &hash, 8);
    put(cache, b.data, b.size);
    nb_buf_free(&b);
    nb_model_close(open_with(codes, &ops, cache));
    expect_good("a matrix is missing");
}

static void forge_header(size_t at, uint32_t v, const char *why)
{
    nb_buf b = { 0 };
    nb_buf_add(&b, good.data, good.size);
    memcpy(b.data + at, &v, 4);
    uint64_t hash = XXH3_64bits(b.data, HASH_AT);
    memcpy(b.data + HASH_AT, &hash, 8);
    put(cache, b.data, b.size);
    nb_buf_free(&b);
    expect_anew("the header", why);
}

static void test_forged_header(void **state)
{
    (void)state;
    forge_header(FORM_AT, 2, "a newer nibble");
    forge_header(FORM_AT, 0, "an older nibble");
    forge_header(ENTRIES_AT, 0xffffffff, "does not fit");
    forge_header(META_BYTES_AT, 0xffffffff, "does not fit");
    forge_header(META_BYTES_AT + 4, 1, "does not fit");
    forge_header(META_BYTES_AT, 168, "does not fit"); /* fewer than its entries */
    forge_header(48, 0x21212121, "computes with");
}

/* ---- files of something else ------------------------------------------------------------------------------------------- */

static void test_others(void **state)
{
    (void)state;
    nb_ops    ops = best(), ref;
    nb_model *m;
    nb_ops_init(&ref, NB_ISA_REF, pool);
    unlink(cache);
    nb_model_close(open_with(unit_path("tools/demo/model"), &ops, cache));
    expect_anew("another checkpoint", "is of another checkpoint");
    if (ops.isa != NB_ISA_REF) {
        unlink(cache);
        nb_model_close(open_with(codes, &ref, cache));
        expect_anew("another level", "computes with");
    }
    /* one value of a shard is another, in place: the file was good, and is no longer */
    char copy[300];
    snprintf(copy, sizeof copy, "%s", make_copy("edited", true));
    m = open_with(copy, &ops, cache);
    nb_model_close(m);
    m = open_with(copy, &ops, cache);
    assert_true(is_mapped(m));
    nb_model_close(m);
    poke("edited", "model.layers.0.mlp.down_proj.weight", 3, 0x3f80);
    m = open_with(copy, &ops, cache);
    assert_false(is_mapped(m));
    holds(notes(m), "before it changed");
    nb_model_close(m);
}

/* A slip of the command line does not cost what stands there. */
static void test_not_ours(void **state)
{
    (void)state;
    static const char *const texts[] = { "x", "nbpackz\n and more", "{\"model\": 1}" };
    nb_ops                   ops = best();
    nb_model                *m;
    nb_error                 err;
    for (size_t i = 0; i < NB_COUNT(texts); i++) {
        put(cache, texts[i], strlen(texts[i]));
        FAILS(nb_model_open_packed(&m, codes, &ops, cache, &err), NB_ERR_ARGUMENT, "is no pack cache", &err);
        assert_null(m);
        nb_buf b = get(cache);
        assert_string_equal(b.data, texts[i]);
        nb_buf_free(&b);
    }
    FAILS(nb_model_open_packed(&m, codes, &ops, "/no/such/folder/file", &err), NB_ERR_ARGUMENT, "there is no folder '/no/such/folder'", &err);
    FAILS(nb_model_open_packed(&m, codes, &ops, "/dev/zero", &err), NB_ERR_INPUT, "is a device", &err);
    unlink(cache);
}

/* ---- places that cannot be written ------------------------------------------------------------------------------------- */

static int files_in_root(void)
{
    DIR *d = opendir(copies_root);
    int  n = 0;
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static void expect_unwritten(const char *file, const char *why)
{
    nb_ops    ops = best();
    nb_model *m = open_with(codes, &ops, file);
    assert_false(is_mapped(m));
    holds(notes(m), "is not written");
    holds(notes(m), why);
    nb_model_close(m);
}

static void test_unwritable(void **state)
{
    (void)state;
    expect_unwritten("/proc/nibble.packed", "/proc"); /* read-only even for root */
    int           before = files_in_root();
    struct rlimit old, small = { 1 << 20, 1 << 20 };
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    expect_unwritten(cache, cache);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(files_in_root(), before); /* neither a file nor a temporary one */
    /* and what stood there stays */
    put(cache, good.data, good.size / 2);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    expect_unwritten(cache, "cut off");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, SIG_DFL);
    nb_buf b = get(cache);
    assert_int_equal(b.size, good.size / 2);
    nb_buf_free(&b);
}

/* In a folder each checkpoint and each layout has its file, and two models are open over one. */
static void test_folder(void **state)
{
    (void)state;
    char        folder[300];
    const char *models[] = { unit_path("tools/demo/model"), codes };
    nb_ops      ops = best(), ref;
    nb_model   *m[2];
    nb_ops_init(&ref, NB_ISA_REF, pool);
    snprintf(folder, sizeof folder, "%s", copy_path("packs", NULL));
    assert_int_equal(mkdir(folder, 0700), 0);
    for (int round = 0; round < 2; round++)
        for (size_t i = 0; i < NB_COUNT(models); i++) {
            nb_model *one = open_with(models[i], &ops, folder), *other = open_with(models[i], &ref, folder);
            assert_int_equal(is_mapped(one), round);
            assert_int_equal(is_mapped(other), round);
            assert_string_equal(notes(one), "");
            nb_model_close(one);
            nb_model_close(other);
        }
    int  n = 0;
    DIR *d = opendir(folder);
    for (const struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
    closedir(d);
    assert_int_equal(n, ops.isa == NB_ISA_REF ? 2 : 4);
    m[0] = open_with(codes, &ops, folder);
    m[1] = open_with(codes, &ops, folder);
    assert_true(is_mapped(m[0]) && is_mapped(m[1]));
    nb_model_close(m[0]);
    size_t count;
    free(compute(m[1], &count)); /* it does not need the other */
    nb_model_close(m[1]);
}

/* Two models do not take turns in one file. */
static void test_many_models(void **state)
{
    (void)state;
    const char *demo = unit_path("tools/demo/model");
    ENDS(2, "bench", demo, codes, "-p", "1", "-n", "0", "-r", "1", "--pack-cache", cache);
    holds(printed[1], "name a folder");
    ENDS(2, "eval", demo, codes, "--data", unit_path("tools/demo/eval/chat_holdout.jsonl"), "--pack-cache", cache);
    holds(printed[1], "name a folder");
    ENDS(0, "bench", demo, codes, "-p", "1", "-n", "0", "-r", "1", "--pack-cache", copies_root);
}

static int start(void **state)
{
    nb_error err;
    if (copies_start(state) != 0) return -1;
    snprintf(codes, sizeof codes, "%s", copy_path("codes", NULL));
    snprintf(cache, sizeof cache, "%s", copy_path("one.packed", NULL));
    if (RUN("quantize", unit_path("tools/demo/model"), "--method", "gptq", "--act-order", "full", "--group-size", "32", "--set",
            "down_proj=8:32", "--data", unit_path("tools/demo/calib/chat.jsonl"), "--samples", "3", "--effort", "0", "--gate", "off", "--out", codes,
            "-q") != 0) {
        fprintf(stderr, "%s\n", printed[1]);
        return -1;
    }
    if (nb_pool_new(&pool, 2, &err) != NB_OK) return -1;
    nb_ops ops = best();
    nb_model_close(open_with(codes, &ops, cache));
    good = get(cache);
    return 0;
}

static int end(void **state)
{
    nb_pool_free(pool);
    nb_buf_free(&good);
    return copies_end(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same),   cmocka_unit_test(test_program), cmocka_unit_test(test_cut),        cmocka_unit_test(test_flips),
        cmocka_unit_test(test_forged), cmocka_unit_test(test_forged_header), cmocka_unit_test(test_others), cmocka_unit_test(test_not_ours),
        cmocka_unit_test(test_unwritable), cmocka_unit_test(test_folder), cmocka_unit_test(test_many_models),
    };
    return cmocka_run_group_tests(tests, start, end);
}
